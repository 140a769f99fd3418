//! What a queue has done and what its model holds, as numbers.

use super::histogram::Histogram;
use super::request::{Outcome, Run, Timings};
use crate::budget::Tag;
use crate::kv::PrefixStatistics;
use crate::model::Model;
use crate::pressure::Level;

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
    /// The part of it that was spent evaluating.
    pub pass_us: u64,
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
    /// Bytes of keys and values of the requests; a page that several share counts for each.
    pub kv_bytes: u64,
    /// Times that a request began to run with tokens that others had evaluated before.
    pub reuses: u64,
    /// Tokens that needed not be evaluated.
    pub reused_tokens: u64,
    /// Sequences of all passes: their mean is how many had rows in a pass.
    pub sequences: u64,
    /// Sequences that may run at a time.
    pub sequences_max: u64,
    /// Sequences up to which others are admitted now: fewer while memory is short.
    pub sequences_allowed: u64,
    /// Times from submission to the first run, of requests that ran.
    pub queue_times: Histogram,
    /// Times from submission to the first token.
    pub first_token_times: Histogram,
    /// Times between two tokens of a request.
    pub token_times: Histogram,
    /// Of the model: bytes of weights used in place.
    pub weights_mapped: u64,
    /// Bytes of weights that were read.
    pub weights_copied: u64,
    /// Bytes of keys and values of all that share the model's memory, the prefix cache included.
    pub memory_kv: u64,
    /// Bytes of activations.
    pub memory_scratch: u64,
    /// Bytes of logits, sampling and tables.
    pub memory_misc: u64,
    /// Weights of the model.
    pub parameters: u64,
    /// What the prefix cache has done and holds.
    pub prefix: PrefixStatistics,
    /// The most bytes that it keeps now: fewer while memory is short.
    pub prefix_bytes_allowed: u64,
    /// How short memory is: 0 enough, 1 short, 2 very short.
    pub pressure: u64,
    /// Times that it became shorter.
    pub pressure_events: u64,
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

impl Metrics {
    /// Tokens generated in a second at work.
    pub fn tokens_per_second(&self) -> f64 {
        ratio(self.generated_tokens as f64, self.busy_us as f64 / 1e6)
    }

    /// Mean share of the sequences that may run that had rows in a pass.
    pub fn occupancy(&self) -> f64 {
        ratio(
            self.sequences as f64,
            self.passes as f64 * self.sequences_max as f64,
        )
    }

    /// Share of the prompts looked for in the prefix cache of which a part was found.
    pub fn prefix_hit_rate(&self) -> f64 {
        ratio(self.prefix.hits as f64, self.prefix.lookups as f64)
    }

    /// Bytes that the weights would have as 16-bit floats, for each that they have.
    pub fn compression(&self) -> f64 {
        let bytes = self.weights_mapped + self.weights_copied;
        ratio(2.0 * self.parameters as f64, bytes as f64)
    }

    /// Sequences up to which others are admitted where memory is so short.
    pub(super) fn allowed(&self, level: Level) -> u64 {
        level.share(self.sequences_max).max(1)
    }

    /// The same with what the model says now.
    pub(super) fn with_model(self, model: &Model) -> Self {
        let (memory, prefixes) = (model.budget(), model.prefixes());
        // Who asks makes an idle queue look.
        let level = model.pressure();
        let weights_copied = memory.tag_bytes(Tag::Weights);
        Self {
            weights_mapped: model.weight_bytes().saturating_sub(weights_copied),
            weights_copied,
            memory_kv: memory.family_bytes(Tag::Kv),
            memory_scratch: memory.family_bytes(Tag::Scratch),
            memory_misc: memory.family_bytes(Tag::Misc),
            parameters: model.parameters(),
            prefix: prefixes.statistics(),
            prefix_bytes_allowed: prefixes.bytes_allowed(),
            sequences_allowed: self.allowed(level),
            pressure: level as u64,
            pressure_events: model.watch().events(),
            ..self
        }
    }

    pub(super) fn admitted(&mut self, run: &Run, timings: &Timings) {
        if run.is_first {
            self.prompt_tokens += timings.prompt_tokens;
            self.queue_us += timings.queue_us;
            self.queue_times.add(timings.queue_us);
        }
        self.reuses += u64::from(run.reused_tokens > 0);
        self.reused_tokens += run.reused_tokens;
        self.repeated_tokens += run.repeated_tokens;
    }

    pub(super) fn pass(&mut self, sequences: usize, rows: usize) {
        self.passes += 1;
        self.sequences += sequences as u64;
        self.rows += rows as u64;
        self.rows_max = self.rows_max.max(rows as u64);
    }

    /// A token came `gap` after the one before it; `None`: it is the first.
    pub(super) fn token(&mut self, timings: &Timings, gap: Option<u64>) {
        self.generated_tokens += 1;
        let Some(gap) = gap else {
            self.first_tokens += 1;
            self.first_token_us += timings.first_token_us;
            self.first_token_times.add(timings.first_token_us);
            return;
        };
        self.token_us += gap;
        self.token_times.add(gap);
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
