//! How far a long command is, on standard error, if that is a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// A line that is written over again, and gone at the end.
pub struct Progress {
    shown: bool,
    last: Option<Instant>,
}

impl Progress {
    /// Nothing is shown yet.
    pub fn new() -> Self {
        Self {
            shown: io::stderr().is_terminal(),
            last: None,
        }
    }

    /// Shows `text`, unless something was shown a moment ago.
    pub fn show(&mut self, text: impl FnOnce() -> String) {
        const PAUSE: Duration = Duration::from_millis(100);
        if self.shown && self.last.is_none_or(|last| last.elapsed() >= PAUSE) {
            self.last = Some(Instant::now());
            // If nobody can read it, there is nobody to tell.
            let _ = write!(io::stderr(), "\r\x1b[K{}", text());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.last.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
