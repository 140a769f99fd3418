//! `lightgpt`: the library at the command line. One file per command; `arguments` holds what
//! several commands take, `output` how they write and fail, `system` what the machine says.
//!
//! Exit codes: 0 for success, also when the reader of a pipe has had enough; 1 for a failure, told
//! on standard error with its place; 2 for wrong usage. Standard output carries results only.

mod arguments;
mod bench;
mod check_sampling;
mod completions;
mod detokenize;
mod diversity;
mod embed;
mod hardware;
mod inspect;
mod limits;
mod logits;
mod make_model;
mod output;
mod progress;
mod run;
mod sampler;
mod system;
mod tokenize;
mod tune;

use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Parser, Subcommand};

use lightgpt::{NUMERICS_VERSION, capi, kernel};

use output::{Failure, complain};

/// Runs GPT-style language models on the CPU.
#[derive(Debug, Parser)]
#[command(name = "lightgpt", version = version(), after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
`lightgpt COMMAND --help` tells more about a command.
Exit codes: 0 success, 1 failure, 2 wrong usage.
LIGHTGPT_ISA=scalar, or another name that `lightgpt hardware` shows, chooses an instruction set
below the best; results are the same.

Examples:
  lightgpt run models/tales-4m-q8_0.gguf -p 'Once upon a time'
  lightgpt inspect models/tales-4m-q8_0.gguf";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Tokenize(tokenize::Arguments),
    Detokenize(detokenize::Arguments),
    Logits(logits::Arguments),
    Embed(embed::Arguments),
    Inspect(inspect::Arguments),
    Diversity(diversity::Arguments),
    CheckSampling(check_sampling::Arguments),
    Bench(bench::Arguments),
    Tune(tune::Arguments),
    Hardware(hardware::Arguments),
    MakeModel(make_model::Arguments),
    Completions(completions::Arguments),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
            return match error.print() {
                // Help that could not be written.
                Err(refused) if !error.use_stderr() => end(Err(refused.into())),
                _ => code,
            };
        }
    };
    end(perform(&cli.command))
}

/// Says what went wrong, and gives it its exit code.
fn end(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) | Err(Failure::ReaderGone) => ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => {
            complain(&message);
            ExitCode::from(1)
        }
        Err(Failure::Usage(message)) => {
            complain(&message);
            ExitCode::from(2)
        }
    }
}

fn perform(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Run(arguments) => run::perform(arguments),
        Command::Tokenize(arguments) => tokenize::perform(arguments),
        Command::Detokenize(arguments) => detokenize::perform(arguments),
        Command::Logits(arguments) => logits::perform(arguments),
        Command::Embed(arguments) => embed::perform(arguments),
        Command::Inspect(arguments) => inspect::perform(arguments),
        Command::Diversity(arguments) => diversity::perform(arguments),
        Command::CheckSampling(arguments) => check_sampling::perform(arguments),
        Command::Bench(arguments) => bench::perform(arguments),
        Command::Tune(arguments) => tune::perform(arguments),
        Command::Hardware(arguments) => hardware::perform(arguments),
        Command::MakeModel(arguments) => make_model::perform(arguments),
        Command::Completions(arguments) => completions::perform(arguments),
    }
}

/// Version, and what decides whether results are comparable.
fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        format!(
            "{} (ABI {}, numerics {NUMERICS_VERSION}, instruction set {})",
            env!("CARGO_PKG_VERSION"),
            capi::LIGHTGPT_ABI_VERSION,
            kernel::detect().isa().name()
        )
    })
}
