//! `lightgpt logits`: token ids to the logits after each of them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use lightgpt::control::Control;
use lightgpt::error::{Code, Error};
use lightgpt::session::{Session, SessionOptions};

use crate::arguments::{Kv, LoadArguments, ThreadArguments, is_standard, parse_ids, read_text};
use crate::output::{Failure, standard};
use crate::progress::Progress;

const EXAMPLES: &str = "\
The file holds one little-endian f32 for each position and token of the vocabulary, (positions,
vocabulary), without a header: row i holds the logits after ids 0 to i. No token is added. Keys and
values are kept as f32 unless --kv says otherwise, so that the logits are those of the model.

Examples:
  lightgpt logits models/tales-4m-q8_0.gguf --ids 1,403,407 --out logits.f32
  lightgpt tokenize models/tales-4m-q8_0.gguf -p 'One day' | lightgpt logits models/tales-4m-q8_0.gguf --ids - --out logits.f32 --kv f16";

/// Writes the logits after each of the given tokens
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The model: a GGUF file
    model: PathBuf,
    /// Token ids, separated by commas; -: from standard input
    #[arg(long)]
    ids: String,
    /// The file to write; -: standard output
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How keys and values are kept
    #[arg(long, value_enum, default_value_t = Kv::F32)]
    kv: Kv,
    #[command(flatten)]
    threads: ThreadArguments,
    #[command(flatten)]
    load: LoadArguments,
}

/// Writes the logits to the file.
pub fn perform(arguments: &Arguments) -> Result<(), Failure> {
    let ids = match arguments.ids.as_str() {
        "-" => parse_ids("--ids", &read_text(None)?)?,
        ids => parse_ids("--ids", ids)?,
    };
    if ids.is_empty() {
        return Err(Failure::Usage(
            "--ids: expected token ids, found none".into(),
        ));
    }
    let team = arguments.threads.team()?;
    let model = arguments.load.open(&arguments.model)?;
    let options = SessionOptions {
        kv: Some(arguments.kv.into()),
        ..SessionOptions::default()
    };
    let mut session = Session::new(model, team, &options)?;
    session
        .feed(&ids)
        .map_err(|error| refused(error, session.context(), ids.len()))?;
    match is_standard(&arguments.out) {
        true => write(&mut session, &mut standard(), Failure::from),
        false => write_file(&mut session, &arguments.out),
    }
}

/// Why the ids cannot be fed.
fn refused(error: Error, context: usize, found: usize) -> Failure {
    match error.code() {
        Code::ContextFull => Failure::Failed(format!(
            "--ids: expected at most {context} (the model's context), found {found}"
        )),
        _ => error.within("--ids").into(),
    }
}

fn write_file(session: &mut Session, path: &Path) -> Result<(), Failure> {
    let file = File::create(path).map_err(|error| Failure::file(path, &error))?;
    write(session, &mut BufWriter::new(file), |error| {
        Failure::file(path, &error)
    })
}

/// Writes the logits of the session's queued tokens; `failure` says what a failed write is.
fn write(
    session: &mut Session,
    out: &mut impl Write,
    failure: impl Fn(std::io::Error) -> Failure,
) -> Result<(), Failure> {
    let (mut written, mut progress) = (Ok(()), Progress::new());
    let total = session.tokens().len();
    session.logits_of_each(&mut Control::none(), &mut |position, row| {
        progress.show(|| format!("{} of {total} tokens", position + 1));
        for logit in row {
            if written.is_ok() {
                written = out.write_all(&logit.to_le_bytes());
            }
        }
    })?;
    written.and_then(|()| out.flush()).map_err(failure)
}
