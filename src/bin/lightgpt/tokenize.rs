//! `lightgpt tokenize`: text to token ids.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::arguments::{EncodeArguments, open_vocabulary, read_text};
use crate::output::{Failure, standard};

const EXAMPLES: &str = "\
The ids of the whole input come on one line, separated by blanks. Without -p and --file the text is
read from standard input. Nothing is cut off: a line end at the end of the text is part of it. The
model's weights are not touched; a file with a vocabulary only will do.

Examples:
  lightgpt tokenize models/tales-4m-q8_0.gguf -p 'Once upon a time'
  lightgpt tokenize models/tales-4m-q8_0.gguf --file models/tales-4m.md --no-add-special
  printf 'One day' | lightgpt tokenize models/tales-4m-q8_0.gguf
  printf '<s>One day' | lightgpt tokenize models/tales-4m-q8_0.gguf --file - --parse-special";

/// Turns text into token ids
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The model, or its vocabulary: a GGUF file
    model: PathBuf,
    /// The text
    #[arg(short = 'p', long, value_name = "TEXT", conflicts_with = "file")]
    #[arg(allow_hyphen_values = true)]
    prompt: Option<String>,
    /// A file with the text; -: standard input
    #[arg(short, long)]
    file: Option<PathBuf>,
    #[command(flatten)]
    encode: EncodeArguments,
}

/// Writes the ids to standard output.
pub fn perform(arguments: &Arguments) -> Result<(), Failure> {
    let text = match &arguments.prompt {
        Some(text) => text.clone(),
        None => read_text(arguments.file.as_deref())?,
    };
    let model = open_vocabulary(&arguments.model)?;
    let mut ids = Vec::new();
    model
        .tokenizer()
        .and_then(|tokenizer| tokenizer.encode(&text, arguments.encode.options(), &mut ids))
        .map_err(|error| Failure::model(&arguments.model, error))?;
    let mut out = standard();
    for (i, id) in ids.iter().enumerate() {
        let blank = if i == 0 { "" } else { " " };
        write!(out, "{blank}{id}")?;
    }
    writeln!(out)?;
    Ok(out.flush()?)
}
