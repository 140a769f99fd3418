//! `lightgpt detokenize`: token ids to text.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use lightgpt::tokenizer::DecodeOptions;

use crate::arguments::{open_vocabulary, parse_ids, read_text};
use crate::output::{Failure, end_text, standard};

const EXAMPLES: &str = "\
Ids are separated by blanks or commas; without any they are read from standard input. The bytes come
as the tokens hold them, which need not be UTF-8 if the ids are not those of a text.

Examples:
  lightgpt detokenize models/tales-4m-q8_0.gguf 1 403 407 261 378
  lightgpt detokenize models/tales-4m-q8_0.gguf 1,403,407 --special
  lightgpt tokenize models/tales-4m-q8_0.gguf -p 'One day' | lightgpt detokenize models/tales-4m-q8_0.gguf";

/// Turns token ids into text
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The model, or its vocabulary: a GGUF file
    model: PathBuf,
    /// Token ids
    ids: Vec<String>,
    /// Show control tokens by their texts
    #[arg(long)]
    special: bool,
}

/// Writes the text to standard output.
pub fn perform(arguments: &Arguments) -> Result<(), Failure> {
    let ids = match arguments.ids.is_empty() {
        true => parse_ids("standard input", &read_text(None)?)?,
        false => parse_ids("IDS", &arguments.ids.join(" "))?,
    };
    let model = open_vocabulary(&arguments.model)?;
    let options = DecodeOptions {
        special: arguments.special,
        start: true,
    };
    let mut text = Vec::new();
    model
        .tokenizer()
        .and_then(|tokenizer| tokenizer.decode(&ids, options, &mut text))
        .map_err(|error| Failure::model(&arguments.model, error))?;
    let mut out = standard();
    out.write_all(&text)?;
    end_text(&mut out)
}
