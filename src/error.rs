//! The one error of the library: what kind, where, and what was expected and found.
//!
//! A C caller sees the [`Code`] as a status and the text as the last error's message.

use std::fmt;

/// The kind of a failure; `capi::status` gives each its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// An argument is outside what the function accepts.
    InvalidArgument,
    /// A handle is NULL, stale, foreign or already freed.
    InvalidHandle,
    /// The operating system refused a file operation.
    Io,
    /// The bytes of a file are damaged or break the format's rules.
    Format,
    /// Well-formed, but not something this build can do.
    Unsupported,
    /// The machine has no memory left for the request.
    OutOfMemory,
    /// The caller's memory cap does not allow the request.
    MemoryCap,
    /// The object is in use by another call.
    Busy,
    /// The caller cancelled the operation.
    Cancelled,
    /// An activation or logit is infinite or not a number.
    NonFinite,
    /// The session's context has no room for the tokens.
    ContextFull,
    /// The caller was compiled for another ABI.
    AbiMismatch,
    /// The process was forked after the handle was made.
    Forked,
    /// An earlier panic left the object unusable; it can only be freed.
    Poisoned,
    /// The model's file changed while it was open.
    FileChanged,
    /// The caller's buffer is too small for the result.
    BufferTooSmall,
    /// There is no such key, tensor or token.
    NotFound,
    /// A defect of the library; please report it.
    Internal,
}

/// A failure: its kind, the place it was found (a key, tensor, offset or argument) and what was
/// expected and found there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: Code,
    place: Box<str>,
    message: Box<str>,
}

/// `Result` with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of kind `code` at `place` (may be empty), saying what was expected and found.
    pub fn new(code: Code, place: impl Into<Box<str>>, message: impl Into<Box<str>>) -> Self {
        Self {
            code,
            place: place.into(),
            message: message.into(),
        }
    }

    /// The kind of the failure.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Where it was found: a key, tensor, offset or argument; may be empty.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What was expected and found, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error with the offset of its place.
    pub fn at_offset(self, offset: u64) -> Self {
        let place = format!("{} at offset {offset}", self.place).into_boxed_str();
        Self { place, ..self }
    }

    /// The same error found inside an outer place: `outer: place`.
    pub fn within(self, outer: &str) -> Self {
        let place = if self.place.is_empty() {
            outer.into()
        } else {
            format!("{outer}: {}", self.place).into_boxed_str()
        };
        Self { place, ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_the_place() {
        let e = Error::new(
            Code::Format,
            "tensor 'a'",
            "expected 4 dimensions at most, found 5",
        );
        assert_eq!(
            e.to_string(),
            "tensor 'a': expected 4 dimensions at most, found 5"
        );
        assert_eq!(e.clone().within("m.gguf").place(), "m.gguf: tensor 'a'");
        assert_eq!(
            Error::new(Code::Io, "", "gone")
                .within("m.gguf")
                .to_string(),
            "m.gguf: gone"
        );
    }
}
