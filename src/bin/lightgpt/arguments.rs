//! Arguments that several commands take, and what they are turned into.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use lightgpt::control::Control;
use lightgpt::error::Error;
use lightgpt::gguf::{LoadOptions, Source};
use lightgpt::kv::{KvFormat, PAGE_SIZES, PAGE_TOKENS};
use lightgpt::model::{Model, OpenOptions};
use lightgpt::session::Session;
use lightgpt::team::{Team, TeamOptions};
use lightgpt::tokenizer::EncodeOptions;

use crate::output::{Failure, bytes, counted};

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
    /// Tokens of a page of keys and values: 16, 32 or 64. Does not change any result
    #[arg(long, value_name = "N", default_value_t = PAGE_TOKENS, value_parser = parse_page_tokens)]
    page_tokens: usize,
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
        let options = OpenOptions {
            load,
            page_tokens: self.page_tokens,
            ..OpenOptions::default()
        };
        open(path, &options)
    }
}

fn parse_page_tokens(text: &str) -> Result<usize, String> {
    let parsed = text.parse().ok().filter(|size| PAGE_SIZES.contains(size));
    parsed.ok_or_else(|| "expected 16, 32 or 64".into())
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
        .map_err(|error| Failure::opening(path, error))
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
        self.teams(|options| Team::new(options()))
    }

    /// What `make` makes of threads with these options.
    pub fn teams<T>(
        &self,
        make: impl FnOnce(&dyn Fn() -> TeamOptions) -> Result<T, Error>,
    ) -> Result<T, Failure> {
        let threads = match self.threads {
            Some(threads) => threads,
            None => threads_of_environment()?,
        };
        let options = || TeamOptions {
            threads,
            pin: self.pin,
            node: self.node,
            niceness: self.niceness,
            ..TeamOptions::default()
        };
        make(&options).map_err(|error| match (error.place(), self.threads) {
            ("threads", None) => Failure::named(THREADS_VARIABLE, error),
            _ => Failure::option(error),
        })
    }
}

/// Counts where `--threads` is absent.
const THREADS_VARIABLE: &str = "RAYON_NUM_THREADS";

/// `RAYON_NUM_THREADS`; 0 if it is not set.
fn threads_of_environment() -> Result<usize, Failure> {
    let Some(value) = env::var_os(THREADS_VARIABLE).filter(|value| !value.is_empty()) else {
        return Ok(0);
    };
    let number = value.to_str().and_then(|value| value.parse().ok());
    number.ok_or_else(|| {
        let found = value.to_string_lossy();
        Failure::Usage(format!(
            "{THREADS_VARIABLE}: expected a number, found '{found}'"
        ))
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
        match (&self.prompt, &self.file) {
            (Some(text), _) => Ok(text.clone()),
            (None, file) => read_at_most(file.as_deref(), PROMPT_BYTES_MAX),
        }
    }

    /// Queues the tokens of the prompt's `text`.
    pub fn feed(
        &self,
        session: &mut Session,
        text: &str,
        encode: &EncodeArguments,
    ) -> Result<(), Failure> {
        let model = session.model().clone();
        let mut tokens = Vec::new();
        model
            .tokenizer()?
            .encode(text, encode.options(), &mut tokens)?;
        let name = match self.prompt {
            Some(_) => "--prompt".into(),
            None => text_name(self.file.as_deref()),
        };
        if tokens.is_empty() {
            let message = format!("{name}: expected text that makes a token, found none");
            return Err(Failure::Usage(message));
        }
        let (context, found) = (session.context(), tokens.len());
        if found > context {
            let limit = match context < model.network()?.spec.context {
                true => "--context",
                false => "the model's context",
            };
            let most = counted(context, "token");
            let message = format!("{name}: expected at most {most} ({limit}), found {found}");
            return Err(Failure::Failed(message));
        }
        Ok(session.feed(&tokens)?)
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

/// The longest prompt that is read: far more than any context holds.
const PROMPT_BYTES_MAX: u64 = 64 << 20;
/// The longest text that is read: longer ones cannot be tokenized.
const TEXT_BYTES_MAX: u64 = i32::MAX as u64;

/// The text in the file at `path`; of standard input, if that is `-` or `None`.
///
/// # Errors
/// What the system refuses, a text that is too long, and bytes that are not UTF-8, with their
/// offset.
pub fn read_text(path: Option<&Path>) -> Result<String, Failure> {
    read_at_most(path, TEXT_BYTES_MAX)
}

/// As [`read_text`]; an input without end is not read to its end.
fn read_at_most(path: Option<&Path>, bytes_max: u64) -> Result<String, Failure> {
    let name = text_name(path);
    let mut found = Vec::new();
    let read = match path.filter(|path| !is_standard(path)) {
        None => io::stdin()
            .lock()
            .take(bytes_max + 1)
            .read_to_end(&mut found),
        Some(path) => {
            File::open(path).and_then(|file| file.take(bytes_max + 1).read_to_end(&mut found))
        }
    };
    read.map_err(|error| Failure::Failed(format!("{name}: {error}")))?;
    if found.len() as u64 > bytes_max {
        let most = bytes(bytes_max);
        let message = format!("{name}: expected at most {most} of text, found more");
        return Err(Failure::Failed(message));
    }
    String::from_utf8(found).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes()[at];
        Failure::Failed(format!(
            "{name}: offset {at}: expected UTF-8, found byte 0x{byte:02x}"
        ))
    })
}

/// Whether `path` stands for standard input or output.
pub fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// What a text that is read from `path` is called.
pub fn text_name(path: Option<&Path>) -> String {
    match path.filter(|path| !is_standard(path)) {
        None => "standard input".into(),
        Some(path) => path.display().to_string(),
    }
}

/// Token ids separated by commas or white space; what is wrong is a usage error at `place`.
pub fn parse_ids(place: &str, text: &str) -> Result<Vec<u32>, Failure> {
    text.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .enumerate()
        .map(|(i, word)| {
            word.parse().map_err(|_| {
                let shown: String = word.chars().take(40).collect();
                Failure::Usage(format!(
                    "{place}: id {i}: expected a token id, found '{shown}'"
                ))
            })
        })
        .collect()
}
