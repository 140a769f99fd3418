//! `lightgpt embed`: texts to numbers.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use lightgpt::control::Control;
use lightgpt::error::Code;
use lightgpt::model::spec::Pooling;
use lightgpt::session::{EmbedOptions, Session, SessionOptions};

use crate::arguments::{EncodeArguments, Kv, LoadArguments, ThreadArguments, read_text, text_name};
use crate::output::{Failure, standard};

const EXAMPLES: &str = "\
Each line of the input is a text, empty ones are left out; what -p gives is one text. An embedding
comes on a line of its own, its numbers separated by blanks, and with --pooling none one for each
token. With --query a line has the scores of one text, by a model made for that.

Examples:
  lightgpt embed models/tales-4m-q8_0.gguf -p 'The dog ran home'
  lightgpt embed models/tales-4m-q8_0.gguf --file models/tales-4m.md --pooling mean
  printf 'The dog ran home\\nA puppy went back\\n' | lightgpt embed models/tales-4m-q8_0.gguf --json";

/// Turns texts into embeddings, or scores them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The model: a GGUF file
    model: PathBuf,
    /// The text
    #[arg(short = 'p', long, value_name = "TEXT", conflicts_with = "file")]
    #[arg(allow_hyphen_values = true)]
    prompt: Option<String>,
    /// A file with a text on each line; -: standard input
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Score the texts as answers to this
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    #[arg(conflicts_with_all = ["pooling", "raw", "no_add_special", "parse_special"])]
    query: Option<String>,
    /// How the rows of a text's tokens become one; without it as the model's file says
    #[arg(long, value_enum)]
    pooling: Option<Pool>,
    /// Leave embeddings as long as they are, instead of giving each the length 1
    #[arg(long)]
    raw: bool,
    /// Write JSON: a list with an object for each text
    #[arg(long)]
    json: bool,
    /// How keys and values are kept
    #[arg(long, value_enum, default_value_t = Kv::F16)]
    kv: Kv,
    #[command(flatten)]
    encode: EncodeArguments,
    #[command(flatten)]
    threads: ThreadArguments,
    #[command(flatten)]
    load: LoadArguments,
}

/// How rows become one.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Pool {
    /// Not at all: one for each token
    None,
    /// Their mean
    Mean,
    /// The first
    Cls,
    /// The last
    Last,
}

impl From<Pool> for Pooling {
    fn from(pool: Pool) -> Self {
        match pool {
            Pool::None => Self::None,
            Pool::Mean => Self::Mean,
            Pool::Cls => Self::First,
            Pool::Last => Self::Last,
        }
    }
}

/// Writes what the texts become to standard output, one after the other.
pub fn perform(arguments: &Arguments) -> Result<(), Failure> {
    let texts = match &arguments.prompt {
        Some(text) => vec![("--prompt".into(), text.clone())],
        None => lines(arguments)?,
    };
    let team = arguments.threads.team()?;
    let model = arguments.load.open(&arguments.model)?;
    let options = SessionOptions {
        kv: Some(arguments.kv.into()),
        ..SessionOptions::default()
    };
    let mut session = Session::new(model, team, &options)?;
    let mut out = standard();
    let mut all = Vec::new();
    for (name, text) in &texts {
        let rows = rows(arguments, &mut session, text).map_err(|error| match error.code() {
            Code::ContextFull | Code::InvalidArgument => {
                Failure::Failed(format!("{name}: {}", error.message()))
            }
            _ => Failure::model(&arguments.model, error),
        })?;
        match arguments.json {
            true => all.push(object(arguments, text, &rows)),
            false => {
                for row in rows {
                    let numbers: Vec<String> = row.iter().map(f32::to_string).collect();
                    writeln!(out, "{}", numbers.join(" "))?;
                }
            }
        }
    }
    if arguments.json {
        writeln!(out, "{}", serde_json::Value::from(all))?;
    }
    Ok(out.flush()?)
}

/// The texts of the input, each with a name for messages.
fn lines(arguments: &Arguments) -> Result<Vec<(String, String)>, Failure> {
    let path = arguments.file.as_deref();
    let (text, name) = (read_text(path)?, text_name(path));
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty());
    let texts: Vec<_> = lines
        .map(|(i, line)| (format!("{name}: line {}", i + 1), line.to_string()))
        .collect();
    match texts.is_empty() {
        true => Err(Failure::Usage(format!("{name}: expected text, found none"))),
        false => Ok(texts),
    }
}

/// The embeddings of a text, or its scores in one row.
fn rows(
    arguments: &Arguments,
    session: &mut Session,
    text: &str,
) -> lightgpt::error::Result<Vec<Vec<f32>>> {
    let control = &mut Control::none();
    if let Some(query) = &arguments.query {
        return Ok(vec![session.rerank([query, text], control)?]);
    }
    let options = EmbedOptions {
        pooling: arguments.pooling.map(Pooling::from),
        raw: arguments.raw,
    };
    let tokens = session.tokenize(text, arguments.encode.options())?;
    let made = session.embed(&tokens, &options, control)?;
    let count = session.embedding_rows(tokens.len(), &options)?;
    Ok(made
        .chunks(made.len() / count)
        .map(<[f32]>::to_vec)
        .collect())
}

fn object(arguments: &Arguments, text: &str, rows: &[Vec<f32>]) -> serde_json::Value {
    match &arguments.query {
        Some(query) => json!({"query": query, "text": text, "scores": rows.concat()}),
        None => json!({"text": text, "embeddings": rows}),
    }
}
