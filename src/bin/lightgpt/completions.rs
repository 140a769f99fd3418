//! `lightgpt completions`: what shells need to complete this tool's arguments.

use std::io::Write;

use clap::{Arg, Args, CommandFactory};
use clap_complete::{Shell, generate};

use crate::make_model;
use crate::output::{Failure, standard};

const EXAMPLES: &str = "\
Examples:
  lightgpt completions bash > lightgpt.bash
  lightgpt completions fish";

/// Prints completions for a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The shell
    shell: Shell,
}

/// Writes the completions to standard output.
pub fn perform(arguments: &Arguments) -> Result<(), Failure> {
    // `generate` cannot report a failed write, so it writes to memory.
    let mut text = Vec::new();
    let visible = |shape: Arg| shape.value_parser(make_model::visible_shapes());
    let mut command = crate::Cli::command()
        .mut_subcommand("make-model", |command| command.mut_arg("shape", visible));
    generate(arguments.shell, &mut command, "lightgpt", &mut text);
    let mut out = standard();
    out.write_all(&text)?;
    Ok(out.flush()?)
}
