//! `lightgpt check-sampling`: whether picks follow the distribution that the options describe.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use lightgpt::control::Control;
use lightgpt::sampler::{DRAWS_MAX, check_frequencies};
use lightgpt::session::{Session, SessionOptions};

use crate::arguments::{EncodeArguments, LoadArguments, PromptArguments, ThreadArguments};
use crate::output::{Failure, standard};
use crate::sampler::SamplerArguments;

const EXAMPLES: &str = "\
Picks the token after the prompt many times, compares how often each came with how often it should
have by Pearson's chi-square test, and fails if chance hardly explains the difference. Of right
picks, one run in a million fails with the default --p-min.

Examples:
  lightgpt check-sampling models/tales-4m-q8_0.gguf -p 'Once upon a time'
  lightgpt check-sampling models/tales-4m-q8_0.gguf -p 'The dog' --draws 20000 --seed 5 --top-k 0 --min-p 0.01";

/// Checks that sampled frequencies follow the distribution
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The model: a GGUF file
    model: PathBuf,
    #[command(flatten)]
    prompt: PromptArguments,
    /// How often a token is picked, at most 100000000 times
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=DRAWS_MAX))]
    draws: u64,
    /// How likely so large a difference has to be, at least
    #[arg(long, value_name = "P", default_value_t = 1e-6)]
    p_min: f64,
    #[command(flatten)]
    encode: EncodeArguments,
    #[command(flatten)]
    threads: ThreadArguments,
    #[command(flatten)]
    sampler: SamplerArguments,
    #[command(flatten)]
    load: LoadArguments,
}

/// Writes the test's numbers to standard output.
pub fn perform(arguments: &Arguments) -> Result<(), Failure> {
    let prompt = arguments.prompt.text()?;
    let team = arguments.threads.team()?;
    let model = arguments.load.open(&arguments.model)?;
    let sampler = arguments.sampler.sampler(&model)?;
    let mut session = Session::new(model, team, &SessionOptions::default())?;
    session.feed_text(&prompt, arguments.encode.options())?;
    let logits = session.logits(&mut Control::none())?.to_vec();
    let result = check_frequencies(&sampler, &logits, session.tokens(), arguments.draws)?;
    let mut out = standard();
    let (statistic, degrees, p) = (result.statistic, result.degrees, result.p_value);
    writeln!(out, "seed {}, {} draws", sampler.seed(), arguments.draws)?;
    writeln!(
        out,
        "chi-square {statistic:.3}, {degrees} degrees of freedom, p {p:.3e}"
    )?;
    out.flush()?;
    match p >= arguments.p_min {
        true => Ok(()),
        false => Err(Failure::Failed(format!(
            "frequencies: expected p of at least {}, found {p:e}",
            arguments.p_min
        ))),
    }
}
