//! What a queue has done, as numbers that rise.

use super::request::{Outcome, Run, Timings};

/// What a queue has done and holds. Times are in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metrics {
    /// Requests that wait to run.
    pub waiting: u64,
    /// Requests that run.
    pub running: u64,
    /// Requests that were taken.
    pub submitted: u64,
    /// Requests that were not, because there were too many or no new ones are taken.
    pub refused: u64,
    /// Requests whose text is complete, or whose listener wanted no more.
    pub finished: u64,
    /// Requests that were cancelled.
    pub cancelled: u64,
    /// Requests whose time was over.
    pub expired: u64,
    /// Requests that could not go on.
    pub failed: u64,
    /// Tokens of the prompts of requests that ran.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Tokens that were evaluated once more.
    pub repeated_tokens: u64,
    /// Times that pages of a request were given up.
    pub preemptions: u64,
    /// Passes.
    pub passes: u64,
    /// Rows of all passes: their mean is the batch size.
    pub rows: u64,
    /// The most rows of a pass.
    pub rows_max: u64,
    /// Time spent evaluating, choosing and telling.
    pub busy_us: u64,
    /// Times from submission to the first run, of requests that ran.
    pub queue_us: u64,
    /// Times from submission to the first token, of requests that have one.
    pub first_token_us: u64,
    /// Requests that have a token.
    pub first_tokens: u64,
    /// Times between two tokens of a request.
    pub token_us: u64,
    /// The longest of them.
    pub token_max_us: u64,
    /// Bytes of keys and values.
    pub kv_bytes: u64,
    /// Times that a request began to run with tokens that others had evaluated before.
    pub reuses: u64,
    /// Tokens that needed not be evaluated.
    pub reused_tokens: u64,
}

impl Metrics {
    pub(super) fn admitted(&mut self, run: &Run, timings: &Timings) {
        if run.is_first {
            self.prompt_tokens += timings.prompt_tokens;
            self.queue_us += timings.queue_us;
        }
        self.reuses += u64::from(run.reused_tokens > 0);
        self.reused_tokens += run.reused_tokens;
        self.repeated_tokens += run.repeated_tokens;
    }

    pub(super) fn pass(&mut self, rows: usize) {
        self.passes += 1;
        self.rows += rows as u64;
        self.rows_max = self.rows_max.max(rows as u64);
    }

    /// A token came `gap` after the one before it; `None`: it is the first.
    pub(super) fn token(&mut self, timings: &Timings, gap: Option<u64>) {
        self.generated_tokens += 1;
        let Some(gap) = gap else {
            self.first_tokens += 1;
            self.first_token_us += timings.first_token_us;
            return;
        };
        self.token_us += gap;
        self.token_max_us = self.token_max_us.max(gap);
    }

    pub(super) fn ended(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Finished(_) => self.finished += 1,
            Outcome::Cancelled => self.cancelled += 1,
            Outcome::Expired => self.expired += 1,
            Outcome::Failed(_) => self.failed += 1,
        }
    }
}
