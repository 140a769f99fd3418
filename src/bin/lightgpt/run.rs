//! `lightgpt run`: a prompt, and what the model writes after it.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use lightgpt::control::Control;
use lightgpt::session::{Finish, GenerateOptions, Session, SessionOptions, Step};

use crate::arguments::{EncodeArguments, Kv, LoadArguments, PromptArguments, ThreadArguments};
use crate::output::{Failure, bytes, complain, counted, end_text, note, standard};
use crate::sampler::SamplerArguments;

const EXAMPLES: &str = "\
The text comes as it is generated, without the prompt. The same model, prompt, options and seed give
the same text on every machine.

Examples:
  lightgpt run models/tales-4m-q8_0.gguf -p 'Once upon a time'
  lightgpt run models/tales-4m-q8_0.gguf -p 'Once upon a time' -n 40 --seed 7 --verbose
  lightgpt run models/tales-4m-q8_0.gguf -p 'The little dog' --temperature 0 --threads 1
  lightgpt run models/tales-4m-q8_0.gguf -p 'Lily' -n 60 --top-k 0 --top-p 0.9 --kv f32
  lightgpt run models/tales-4m-q8_0.gguf -p 'A cat' --samplers penalties,temperature,min-p --min-p 0.1 --repetition-penalty 1.1
  lightgpt run models/tales-4m-q8_0.gguf -p 'Tim' --mirostat 2 --mirostat-tau 3 --logit-bias 403=-inf
  lightgpt run models/tales-4m-q8_0.gguf -p 'Once upon a time' --stop . --stop '!'
  printf 'Tom had a red ball.' | lightgpt run models/tales-4m-q8_0.gguf --file - -n 100 > story.txt";

/// Generates text after a prompt
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The model: a GGUF file
    model: PathBuf,
    #[command(flatten)]
    prompt: PromptArguments,
    /// Tokens to generate at most; 0: until the model ends the text or the context is full
    #[arg(short = 'n', long = "tokens", value_name = "N", default_value_t = 256)]
    tokens: usize,
    /// A text that ends the generation and is not shown; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Go on after a token that ends the text
    #[arg(long)]
    ignore_end: bool,
    #[command(flatten)]
    encode: EncodeArguments,
    /// Tell on standard error what was done and how long it took
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    sampler: SamplerArguments,
    #[command(flatten)]
    session: SessionArguments,
    #[command(flatten)]
    load: LoadArguments,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Session")]
struct SessionArguments {
    #[command(flatten)]
    threads: ThreadArguments,
    /// How keys and values are kept
    #[arg(long, value_enum, default_value_t = Kv::F16)]
    kv: Kv,
    /// Tokens that prompt and text may have together; 0: as many as the model can attend over
    #[arg(long, value_name = "N", default_value_t = 0)]
    context: usize,
    /// Prompt tokens that are evaluated at once; 0: a good number. Does not change any result
    #[arg(long, value_name = "N", default_value_t = 0)]
    chunk: usize,
}

/// Streams the text to standard output.
pub fn perform(arguments: &Arguments) -> Result<(), Failure> {
    let prompt = arguments.prompt.text()?;
    let team = arguments.session.threads.team()?;
    let threads = team.threads();

    let began = Instant::now();
    let model = arguments.load.open(&arguments.model)?;
    let opened = began.elapsed();
    let sampler = arguments.sampler.sampler(&model)?;
    let options = SessionOptions {
        context: arguments.session.context,
        kv: Some(arguments.session.kv.into()),
        chunk: arguments.session.chunk,
        ..SessionOptions::default()
    };
    let mut session = Session::new(model, team, &options).map_err(Failure::option)?;
    arguments
        .prompt
        .feed(&mut session, &prompt, &arguments.encode)?;

    let seed = sampler.seed();
    let finish = generate(
        &mut session,
        &GenerateOptions {
            sampler,
            tokens_max: arguments.tokens,
            ignore_end: arguments.ignore_end,
            log_probabilities: false,
            top_log_probabilities: 0,
            stops: arguments.stop.clone(),
        },
    )?;
    if finish == Finish::ContextFull && session.metrics().generated_tokens == 0 {
        let context = counted(session.context(), "token");
        complain(&format!(
            "the prompt fills the context of {context}: there is no room to generate"
        ));
    }
    if arguments.verbose {
        note(&format!("seed {seed}, {}", counted(threads, "thread")));
        report(&session, finish, opened)?;
    }
    Ok(())
}

/// Generates to the end; every piece of text is written as soon as it is whole.
fn generate(session: &mut Session, options: &GenerateOptions) -> Result<Finish, Failure> {
    let mut out = standard();
    session.begin(options).map_err(Failure::option)?;
    loop {
        let step = session.step(&mut Control::none())?;
        if !session.text().is_empty() {
            out.write_all(session.text().as_bytes())?;
            out.flush()?;
        }
        if let Step::Finished(finish) = step {
            end_text(&mut out)?;
            return Ok(finish);
        }
    }
}

fn report(session: &Session, finish: Finish, opened: Duration) -> Result<(), Failure> {
    let metrics = session.metrics();
    let speed = |tokens: u64, us: u64| {
        let speed = tokens as f64 * 1e6 / us.max(1) as f64;
        let tokens = counted(tokens as usize, "token");
        format!(
            "{tokens} in {:.1} ms ({speed:.1} a second)",
            us as f64 / 1e3
        )
    };
    let end = match finish {
        Finish::End => "the model ended the text",
        Finish::Length => "as many tokens as asked for",
        Finish::StopString => "a stop string came",
        Finish::ContextFull => "the context is full",
        Finish::Stopped => "stopped",
    };
    let isa = session.model().network()?.kernels.isa().name();
    note(&format!(
        "instruction set {isa}, opened in {:.1} ms",
        opened.as_secs_f64() * 1e3
    ));
    note(&format!(
        "prompt: {}",
        speed(metrics.prompt_tokens, metrics.prompt_us)
    ));
    note(&format!(
        "text: {}; {end}",
        speed(metrics.generated_tokens, metrics.generate_us)
    ));
    note(&format!("keys and values: {}", bytes(metrics.kv_bytes)));
    Ok(())
}
