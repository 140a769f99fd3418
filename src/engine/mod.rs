//! Continuous batching: many requests on one model, all of whose next tokens one pass evaluates.
//!
//! A [`Queue`] takes requests from any thread. Whoever calls [`Queue::step`] or [`Queue::serve`]
//! works: the `scheduler` plans which rows the next pass takes, the `driver` evaluates them, picks
//! tokens and tells the owners. What a request gets is what a session of its own would give, to the
//! bit, whatever its company is.

mod driver;
mod histogram;
mod metrics;
mod pages;
mod prometheus;
mod queue;
mod request;
mod scheduler;
mod sequence;
mod shared;
mod waiting;

pub use histogram::{BOUNDS_US, BUCKETS, Histogram};
pub use metrics::Metrics;
pub use queue::{Poll, Progress, Queue, QueueOptions, REQUESTS_MAX, SEQUENCES_MAX};
pub use request::{Event, Happened, Listener, Outcome, Polled, Request, Timings};
pub use waiting::PRIORITIES;

/// Under these names the tests give `shared` the locks of `loom`.
mod sync {
    pub use std::sync::{Condvar, Mutex, MutexGuard};
}

#[cfg(test)]
mod tests;
