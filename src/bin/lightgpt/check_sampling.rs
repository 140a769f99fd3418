//! `lightgpt check-sampling`: whether picks follow the distribution that the options describe.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use lightgpt::control::Control;
use lightgpt::sampler::{ChiSquare, DRAWS_MAX, Sampler, check_frequencies};
use lightgpt::session::{Session, SessionOptions};

use crate::arguments::{EncodeArguments, Kv, LoadArguments, PromptArguments, ThreadArguments};
use crate::output::{Failure, counted, standard};
use crate::progress::Progress;
use crate::sampler::SamplerArguments;

const EXAMPLES: &str = "\
Picks the token after the prompt many times, compares how often each came with how often it should
have by Pearson's chi-square test, and fails if chance hardly explains the difference. Of right
picks, one run in a million fails with the default --p-min. A check fails too if it says nothing,
because only one token can come or only one would come often enough in so few draws.

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
    #[arg(
        long,
        value_name = "P",
        default_value_t = 1e-6,
        allow_negative_numbers = true
    )]
    #[arg(value_parser = parse_probability)]
    p_min: f64,
    /// How keys and values are kept
    #[arg(long, value_enum, default_value_t = Kv::F16)]
    kv: Kv,
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
    let options = SessionOptions {
        kv: Some(arguments.kv.into()),
        ..SessionOptions::default()
    };
    let mut session = Session::new(model, team, &options).map_err(Failure::option)?;
    arguments
        .prompt
        .feed(&mut session, &prompt, &arguments.encode)?;
    let result = check(&mut session, &sampler, arguments.draws)?;
    let p = plain(result.p_value);
    let mut out = standard();
    let draws = counted(arguments.draws as usize, "draw");
    let degrees = match result.degrees {
        1 => "1 degree".into(),
        degrees => format!("{degrees} degrees"),
    };
    writeln!(out, "seed {}, {draws}", sampler.seed())?;
    writeln!(
        out,
        "chi-square {:.3}, {degrees} of freedom, p {p}",
        result.statistic
    )?;
    out.flush()?;
    if result.degrees == 0 {
        let message = "frequencies: nothing was checked: expected two tokens that come often \
            enough, found one; more --draws or other options of sampling may help";
        return Err(Failure::Failed(message.into()));
    }
    match result.p_value >= arguments.p_min {
        true => Ok(()),
        false => Err(Failure::Failed(format!(
            "frequencies: expected p of at least {}, found {p}",
            arguments.p_min
        ))),
    }
}

/// Draws, telling how far it is.
fn check(session: &mut Session, sampler: &Sampler, draws: u64) -> Result<ChiSquare, Failure> {
    let logits = session.logits(&mut Control::none())?.to_vec();
    let mut progress = Progress::new();
    let mut report = |done: u64, total: u64| {
        progress.show(|| format!("{done} of {total} draws"));
        true
    };
    let mut control = Control {
        progress: Some(&mut report),
        ..Control::none()
    };
    let history = session.tokens();
    Ok(check_frequencies(
        sampler,
        &logits,
        history,
        draws,
        &mut control,
    )?)
}

fn parse_probability(text: &str) -> Result<f64, String> {
    let probability = text.parse().ok().filter(|p| (0.0..=1.0).contains(p));
    probability.ok_or_else(|| "expected a number from 0 to 1".into())
}

/// A probability with four digits that count, without an exponent.
fn plain(probability: f64) -> String {
    const LEAST: f64 = 1e-9;
    if probability < LEAST {
        return "below 0.000000001".into();
    }
    let decimals = (3.0 - probability.log10().floor()) as usize;
    format!("{probability:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_have_no_exponent() {
        for (probability, text) in [
            (1.0, "1.000"),
            (0.50723, "0.5072"),
            (2.5557e-7, "0.0000002556"),
            (1e-300, "below 0.000000001"),
        ] {
            assert_eq!(plain(probability), text);
        }
    }
}
