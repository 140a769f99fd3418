//! How commands write and fail: a failed write is an error like any other, never a panic, and a
//! reader that has gone ends the command quietly.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::path::Path;

use lightgpt::error::{Code, Error};

/// Why a command ends early.
#[derive(Debug)]
pub enum Failure {
    /// The arguments cannot be meant: exit code 2.
    Usage(String),
    /// What was asked could not be done: exit code 1. The message begins with the place.
    Failed(String),
    /// Nobody reads standard output any more: exit code 0.
    ReaderGone,
}

impl Failure {
    /// A file operation that the system refused.
    pub fn file(path: &Path, error: &io::Error) -> Self {
        Self::Failed(format!("{}: {error}", path.display()))
    }

    /// An error of the library on the model at `path`.
    pub fn model(path: &Path, error: Error) -> Self {
        let path = path.display().to_string();
        match error.place().starts_with(&path) {
            true => error.into(),
            false => error.within(&path).into(),
        }
    }

    /// The model at `path` could not be opened, whatever was wrong with it: no wrong usage.
    pub fn opening(path: &Path, error: Error) -> Self {
        match Self::model(path, error) {
            Self::Usage(message) => Self::Failed(message),
            failure => failure,
        }
    }

    /// An error of the library, whose place is its own name for an option.
    pub fn option(error: Error) -> Self {
        let name = match error.place() {
            "options.stops" => "stop".into(),
            place => place.replace('_', "-"),
        };
        Self::named(&format!("--{name}"), error)
    }

    /// An error of the library about what `name` says.
    pub fn named(name: &str, error: Error) -> Self {
        match error.code() {
            Code::InvalidArgument => Self::Usage(format!("{name}: {}", error.message())),
            _ => error.into(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.code() {
            Code::InvalidArgument => Self::Usage(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Standard output refused; other files' errors are made by [`Failure::file`].
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Failed(format!("standard output: {error}")),
        }
    }
}

/// Standard output, buffered: whoever writes to it flushes it.
pub fn standard() -> BufWriter<StdoutLock<'static>> {
    BufWriter::new(io::stdout().lock())
}

/// Ends the line on a terminal, where the next prompt would stick to the text; then flushes.
pub fn end_text(out: &mut impl Write) -> Result<(), Failure> {
    if io::stdout().is_terminal() {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Writes `json` and a line end.
pub fn json(json: &serde_json::Value) -> Result<(), Failure> {
    let mut out = standard();
    writeln!(out, "{json:#}")?;
    Ok(out.flush()?)
}

/// A message for the user on standard error; if nobody can read it, there is nobody to tell.
pub fn complain(message: &str) {
    note(&format!("lightgpt: {message}"));
}

/// A line on standard error.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A number of things for people: `1 thread`, `2 threads`.
pub fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

/// A number of bytes for people: `260.0 MiB`.
pub fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, "bytes");
    for larger in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    match unit {
        "bytes" => format!("{bytes} bytes"),
        _ => format!("{value:.1} {unit}"),
    }
}
