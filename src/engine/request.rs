//! What a request is, and what its owner is told.

use std::fmt;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::sampler::Scored;
use crate::session::{Action, Finish, GenerateOptions};

/// A prompt, and how to go on from it.
#[derive(Debug)]
pub struct Request {
    /// The prompt: at least one token.
    pub tokens: Vec<u32>,
    /// How its text is generated, as in a session's first turn.
    pub generate: GenerateOptions,
    /// One of [`PRIORITIES`](super::PRIORITIES): each has twice the share of the one below it.
    pub priority: i32,
    /// Any number: those of a priority share it evenly.
    pub submitter: u64,
    /// Time that it has, from now on; `None`: any.
    pub deadline: Option<Duration>,
    /// Neither use what others have evaluated, nor keep anything for them. Changes the time, not the
    /// result.
    pub unshared: bool,
    /// Share only with requests and sessions of the same salt, as sessions do.
    pub salt: u64,
    /// Who is told; `None`: [`Queue::poll`](super::Queue::poll) tells.
    pub listener: Option<Listener>,
}

impl Request {
    /// A request of middle priority without a deadline.
    pub fn new(tokens: Vec<u32>, generate: GenerateOptions) -> Self {
        Self {
            tokens,
            generate,
            priority: 0,
            submitter: 0,
            deadline: None,
            unshared: false,
            salt: 0,
            listener: None,
        }
    }
}

/// Hears the events of a request, on the thread that works, and says how to go on.
pub struct Listener(pub Box<dyn FnMut(&Event<'_>) -> Action + Send>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

/// Something that happened to a request. The texts of all its events joined are its text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event<'a> {
    /// The request.
    pub request: u64,
    /// What happened.
    pub happened: Happened<'a>,
    /// Whole code points; may be empty.
    pub text: &'a str,
    /// Of a token, if the options ask for it: the natural logarithm of its probability before any
    /// sampling.
    pub log_probability: Option<f64>,
    /// Beside a token, if the options ask for them: the most likely ones.
    pub top: &'a [Scored],
}

/// What can happen to a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Happened<'a> {
    /// More of the prompt is evaluated.
    Prefill {
        /// Tokens that are.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token came.
    Token {
        /// The token.
        token: u32,
        /// Its place behind the prompt's first token.
        position: usize,
    },
    /// The last event: the request is over.
    Ended {
        /// Why.
        outcome: &'a Outcome,
        /// How long it took.
        timings: &'a Timings,
    },
}

/// How a request ended. What it made before was told, whatever the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The text is complete, or its listener wanted no more.
    Finished(Finish),
    /// Its time was over.
    Expired,
    /// Someone cancelled it.
    Cancelled,
    /// It could not go on; others do.
    Failed(Error),
}

/// What a request has done and waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// Tokens of its prompt.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Tokens that were evaluated once more, after their pages had been given up.
    pub repeated_tokens: u64,
    /// Times that its pages were given up.
    pub preemptions: u64,
    /// From its submission until it ran first, in microseconds.
    pub queue_us: u64,
    /// From its submission to its first token.
    pub first_token_us: u64,
    /// The longest time between two of its tokens.
    pub token_max_us: u64,
    /// From its submission to its end.
    pub total_us: u64,
    /// Tokens that needed not be evaluated, as others had evaluated them before.
    pub reused_tokens: u64,
}

/// How a request begins to run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub is_first: bool,
    /// Tokens that others had evaluated.
    pub reused_tokens: u64,
    /// Tokens that it had evaluated before, and now does again.
    pub repeated_tokens: u64,
}

/// The clock of a request.
#[derive(Debug)]
pub(super) struct Watch {
    submitted: Instant,
    ran: bool,
    last_token: Option<Instant>,
    /// Tokens that were evaluated when its pages were given up.
    given_up: usize,
    pub timings: Timings,
}

impl Watch {
    pub fn new(prompt_tokens: usize) -> Self {
        Self {
            submitted: Instant::now(),
            ran: false,
            last_token: None,
            given_up: 0,
            timings: Timings {
                prompt_tokens: prompt_tokens as u64,
                ..Timings::default()
            },
        }
    }

    pub fn submitted(&self) -> Instant {
        self.submitted
    }

    /// It runs, with `found` tokens that are evaluated already.
    pub fn run(&mut self, found: usize) -> Run {
        let is_first = !std::mem::replace(&mut self.ran, true);
        if is_first {
            self.timings.queue_us = micros(self.submitted.elapsed());
        }
        let before = std::mem::take(&mut self.given_up);
        let run = Run {
            is_first,
            reused_tokens: found.saturating_sub(before) as u64,
            repeated_tokens: before.saturating_sub(found) as u64,
        };
        self.timings.reused_tokens += run.reused_tokens;
        self.timings.repeated_tokens += run.repeated_tokens;
        run
    }

    /// Its pages, with `evaluated` tokens, are given up.
    pub fn give_up(&mut self, evaluated: usize) {
        self.given_up = evaluated;
        self.timings.preemptions += 1;
    }

    /// A token came; microseconds since the one before it.
    pub fn token(&mut self) -> Option<u64> {
        let now = Instant::now();
        let timings = &mut self.timings;
        timings.generated_tokens += 1;
        let last = self.last_token.replace(now);
        let Some(last) = last else {
            timings.first_token_us = micros(now - self.submitted);
            return None;
        };
        let gap = micros(now - last);
        timings.token_max_us = timings.token_max_us.max(gap);
        Some(gap)
    }

    /// It is over.
    pub fn end(&mut self) {
        self.timings.total_us = micros(self.submitted.elapsed());
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// An event that waits to be polled; can be used again for the next one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Polled {
    request: u64,
    happened: Kept,
    text: String,
    log_probability: Option<f64>,
    top: Vec<Scored>,
}

#[derive(Debug, Clone, Default, PartialEq)]
enum Kept {
    #[default]
    Nothing,
    Prefill {
        done: usize,
        total: usize,
    },
    Token {
        token: u32,
        position: usize,
    },
    Ended(Outcome, Timings),
}

impl Polled {
    pub(super) fn keep(event: &Event<'_>) -> Self {
        Self {
            request: event.request,
            happened: match event.happened {
                Happened::Prefill { done, total } => Kept::Prefill { done, total },
                Happened::Token { token, position } => Kept::Token { token, position },
                Happened::Ended { outcome, timings } => Kept::Ended(outcome.clone(), *timings),
            },
            text: event.text.to_owned(),
            log_probability: event.log_probability,
            top: event.top.to_vec(),
        }
    }

    pub(super) fn is_end(&self) -> bool {
        matches!(self.happened, Kept::Ended(..))
    }

    /// The event; `None` before there was one.
    pub fn event(&self) -> Option<Event<'_>> {
        let happened = match &self.happened {
            Kept::Nothing => return None,
            &Kept::Prefill { done, total } => Happened::Prefill { done, total },
            &Kept::Token { token, position } => Happened::Token { token, position },
            Kept::Ended(outcome, timings) => Happened::Ended { outcome, timings },
        };
        Some(Event {
            request: self.request,
            happened,
            text: &self.text,
            log_probability: self.log_probability,
            top: &self.top,
        })
    }
}
