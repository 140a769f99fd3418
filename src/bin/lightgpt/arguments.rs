//! Arguments that several commands take, and what they are turned into.

use std::env;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use lightgpt::control::Control;
use lightgpt::gguf::{LoadOptions, Source};
use lightgpt::kv::KvFormat;
use lightgpt::model::{Model, OpenOptions};
use lightgpt::team::{Team, TeamOptions};
use lightgpt::tokenizer::EncodeOptions;

use crate::output::Failure;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Kv {
    /// As computed
    F32,
    /// Rounded: half the memory of f32
    F16,
    /// Bytes with scales: about 53 % of the memory of f16
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<Kv> for KvFormat {
    fn from(kv: Kv) -> Self {
        match kv {
            Kv::F32 => Self::F32,
            Kv::F16 => Self::F16,
            Kv::Q8_0 => Self::Q8_0,
        }
    }
}

/// How a model's weights are brought in.
#[derive(Debug, Args)]
#[command(next_help_heading = "Loading")]
pub struct LoadArguments {
    /// Read the weights into memory instead of mapping the file, which may change then
    #[arg(long)]
    copy: bool,
    /// Bring all weights into memory before starting
    #[arg(long)]
    prefault: bool,
    /// Keep the weights in physical memory; fails when the system's limit does not allow it
    #[arg(long)]
    mlock: bool,
}

impl LoadArguments {
    /// Opens the model at `path` to be run.
    pub fn open(&self, path: &Path) -> Result<Arc<Model>, Failure> {
        let load = LoadOptions {
            copy: self.copy,
            prefault: self.prefault,
            mlock: self.mlock,
            ..LoadOptions::default()
        };
        let describe_only = false;
        open(
            path,
            &OpenOptions {
                load,
                describe_only,
            },
        )
    }
}

/// Opens the model at `path` for its vocabulary only, of whatever architecture it is.
pub fn open_vocabulary(path: &Path) -> Result<Arc<Model>, Failure> {
    let options = OpenOptions {
        describe_only: true,
        ..OpenOptions::default()
    };
    open(path, &options)
}

fn open(path: &Path, options: &OpenOptions) -> Result<Arc<Model>, Failure> {
    Model::open(Source::Path(path), options, &mut Control::none())
        .map_err(|error| Failure::model(path, error))
}

/// How many threads work.
#[derive(Debug, Args)]
pub struct ThreadArguments {
    /// Threads that work; 0: the physical cores that this process may use. Without it the
    /// environment's RAYON_NUM_THREADS counts. Does not change any result
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// Bind each helper thread to one CPU (Linux)
    #[arg(long)]
    pin: bool,

    /// Run the helper threads on the CPUs of this NUMA node (Linux)
    #[arg(long, value_name = "N")]
    node: Option<usize>,

    /// How far the helper threads stand back for others (Linux), as with nice
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=19))]
    niceness: u8,
}

impl ThreadArguments {
    /// The threads.
    pub fn team(&self) -> Result<Arc<Team>, Failure> {
        let threads = match self.threads {
            Some(threads) => threads,
            None => threads_of_environment()?,
        };
        let options = TeamOptions {
            threads,
            pin: self.pin,
            node: self.node,
            niceness: self.niceness,
            ..TeamOptions::default()
        };
        Ok(Team::new(options)?)
    }
}

/// `RAYON_NUM_THREADS`; 0 if it is not set.
fn threads_of_environment() -> Result<usize, Failure> {
    const NAME: &str = "RAYON_NUM_THREADS";
    let Some(value) = env::var_os(NAME).filter(|value| !value.is_empty()) else {
        return Ok(0);
    };
    let number = value.to_str().and_then(|value| value.parse().ok());
    number.ok_or_else(|| {
        let found = value.to_string_lossy();
        Failure::Usage(format!("{NAME}: expected a number, found '{found}'"))
    })
}

/// The prompt: one of the two.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct PromptArguments {
    /// The prompt
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// A file with the prompt, all of which counts; -: standard input
    #[arg(short, long)]
    file: Option<PathBuf>,
}

impl PromptArguments {
    /// The prompt's text.
    pub fn text(&self) -> Result<String, Failure> {
        match &self.prompt {
            Some(text) => Ok(text.clone()),
            None => read_text(self.file.as_ref().unwrap_or(&standard_input())),
        }
    }
}

/// How a text becomes tokens.
#[derive(Debug, Args)]
pub struct EncodeArguments {
    /// Add no token in front or behind, even where the model asks for it
    #[arg(long)]
    no_add_special: bool,
    /// Turn the texts of control tokens into these tokens; only for text that you trust
    #[arg(long)]
    parse_special: bool,
}

impl EncodeArguments {
    /// As the tokenizer takes it.
    pub fn options(&self) -> EncodeOptions {
        EncodeOptions {
            add_special: !self.no_add_special,
            parse_special: self.parse_special,
        }
    }
}

/// The text in the file at `path`; of standard input, if it is `-`.
///
/// # Errors
/// What the system refuses, and bytes that are not UTF-8, with their offset.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let (name, bytes) = match path.to_str() {
        Some("-") => {
            let mut bytes = Vec::new();
            let read = io::stdin().lock().read_to_end(&mut bytes);
            ("standard input".into(), read.map(|_| bytes))
        }
        _ => (path.display().to_string(), fs::read(path)),
    };
    let bytes = bytes.map_err(|error| Failure::Failed(format!("{name}: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes()[at];
        Failure::Failed(format!(
            "{name}: offset {at}: expected UTF-8, found byte 0x{byte:02x}"
        ))
    })
}

/// The path that stands for standard input.
pub fn standard_input() -> PathBuf {
    PathBuf::from("-")
}

/// Token ids separated by commas or white space; what is wrong is a usage error.
pub fn parse_ids(text: &str) -> Result<Vec<u32>, Failure> {
    text.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .enumerate()
        .map(|(i, word)| {
            word.parse().map_err(|_| {
                let shown: String = word.chars().take(40).collect();
                Failure::Usage(format!("id {i}: expected a token id, found '{shown}'"))
            })
        })
        .collect()
}
