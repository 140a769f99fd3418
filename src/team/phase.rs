//! A phase while it runs: tasks that are claimed by a counter, on whatever thread comes.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

use super::sync::{AtomicBool, AtomicUsize, Mutex, Ordering};
use crate::control::{Flow, Signals, cancelled};
use crate::error::{Code, Error, Result};

/// One run of a phase, on the stack of the thread that called in.
pub struct Phase<'a> {
    body: &'a (dyn Fn(usize) -> Result<()> + Sync),
    tasks: usize,
    /// Tasks that are claimed at once.
    claim: usize,
    next: AtomicUsize,
    signals: Signals<'a>,
    stop: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl<'a> Phase<'a> {
    /// The tasks from `first` on; that one is the caller's, who performs it in any case.
    pub fn new(
        body: &'a (dyn Fn(usize) -> Result<()> + Sync),
        (first, tasks): (usize, usize),
        claim: usize,
        signals: Signals<'a>,
    ) -> Self {
        Self {
            body,
            tasks,
            claim,
            next: AtomicUsize::new(first + 1),
            signals,
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    /// Claims and performs tasks until there are none, or a signal says so.
    pub fn work(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            if self.signals.cancelled() || self.signals.due() {
                self.stop.store(true, Ordering::Relaxed);
                return;
            }
            let first = self.next.fetch_add(self.claim, Ordering::Relaxed);
            if first >= self.tasks {
                return;
            }
            // What is claimed is done: a phase goes on behind it.
            for task in first..self.tasks.min(first + self.claim) {
                self.perform(task);
            }
        }
    }

    /// Performs a task that nobody else performs.
    pub fn perform(&self, task: usize) {
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.body)(task)));
        let Err(error) = outcome.unwrap_or_else(|panic| Err(panicked(&*panic))) else {
            return;
        };
        self.stop.store(true, Ordering::Relaxed);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error);
    }

    /// What came of it, when nobody works on it any more; `next` is the first task that has not run.
    pub fn end(self, next: &mut usize) -> Result<Flow> {
        let failure = self
            .failure
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failure {
            return Err(error);
        }
        *next = self.next.load(Ordering::Relaxed).min(self.tasks);
        match *next == self.tasks {
            true => Ok(Flow::Done),
            false if self.signals.cancelled() => Err(cancelled()),
            false => Ok(Flow::Paused),
        }
    }
}

/// The error of a task that panicked.
fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message");
    Error::new(Code::Internal, "task", text)
}
