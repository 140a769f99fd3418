//! What every long call takes: a deadline, a cancel flag and a progress report.
//!
//! [`Signals`] is the part that helper threads may read; the progress report is made only on the
//! thread that called in.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::error::{Code, Error, Result};

/// How far a resumable operation came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Everything is done.
    Done,
    /// The deadline passed; call again to go on where it stopped.
    Paused,
}

/// A progress report: `done` of `total` units (bytes when opening a model, tokens in a prompt).
/// Returning `false` cancels the operation.
pub type ProgressFn<'a> = dyn FnMut(u64, u64) -> bool + 'a;

/// The part of a [`Control`] that any thread may read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Signals<'a> {
    /// When to pause; `None` means never.
    pub deadline: Option<Instant>,
    /// Flags that anyone may set to cancel: the caller's, and that of the object it calls.
    pub cancel: [Option<&'a AtomicBool>; 2],
}

impl Signals<'_> {
    /// Whether someone asked to cancel.
    pub fn cancelled(&self) -> bool {
        self.cancel
            .iter()
            .flatten()
            .any(|flag| flag.load(Ordering::Relaxed))
    }

    /// Whether the deadline has passed.
    pub fn due(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// Deadline, cancel flag and progress report of one call.
#[derive(Default)]
pub struct Control<'a> {
    /// Deadline and cancel flag.
    pub signals: Signals<'a>,
    /// Called now and then on the calling thread.
    pub progress: Option<&'a mut ProgressFn<'a>>,
}

impl<'a> Control<'a> {
    /// No deadline, no cancel flag, no report.
    pub fn none() -> Self {
        Self::default()
    }

    /// Only a cancel flag.
    pub fn cancellable(flag: &'a AtomicBool) -> Self {
        Self {
            signals: Signals {
                deadline: None,
                cancel: [Some(flag), None],
            },
            progress: None,
        }
    }

    /// Reports progress and fails with `CANCELLED` if the flag is set or the report says so.
    pub fn report(&mut self, done: u64, total: u64) -> Result<()> {
        let go_on = self
            .progress
            .as_mut()
            .is_none_or(|report| report(done, total));
        if go_on && !self.signals.cancelled() {
            return Ok(());
        }
        Err(cancelled())
    }
}

/// The error of a cancelled call.
pub fn cancelled() -> Error {
    Error::new(Code::Cancelled, "", "the call was cancelled")
}

impl fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("signals", &self.signals)
            .field("progress", &self.progress.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_declines_cancels() {
        let mut seen = Vec::new();
        let mut report = |done: u64, total: u64| {
            seen.push((done, total));
            done < 2
        };
        let mut control = Control {
            progress: Some(&mut report),
            ..Control::none()
        };
        assert!(control.report(1, 3).is_ok());
        assert_eq!(control.report(2, 3).unwrap_err().code(), Code::Cancelled);
        assert_eq!(seen, [(1, 3), (2, 3)]);
    }

    #[test]
    fn a_set_flag_cancels() {
        let flag = AtomicBool::new(false);
        let mut control = Control::cancellable(&flag);
        assert!(control.report(0, 0).is_ok());
        flag.store(true, Ordering::Relaxed);
        assert!(control.report(0, 0).is_err());
    }
}
