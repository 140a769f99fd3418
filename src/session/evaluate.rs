//! Bringing queued tokens into the cache: pass after pass, resumable.

use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::budget::{Shared, Tag};
use crate::control::{Control, Flow, Signals, cancelled};
use crate::error::{Code, Error, Result};
use crate::model::forward::{Goal, Pass};
use crate::model::{Row, Size};
use crate::sampler::log_probability;
use crate::session::{Session, reserve};
use crate::team::FloatEnvironment;

/// Rows of a pass when each wants its logits: vocabularies are large.
const ROWS_WITH_LOGITS: usize = 16;

impl Session {
    /// Evaluates all queued tokens; resumable. Reports tokens evaluated and wanted.
    ///
    /// # Errors
    /// `CANCELLED` takes the session back to before the turn. `NONFINITE`, `MEMORY_CAP`,
    /// `OUT_OF_MEMORY` and `FILE_CHANGED` leave the tokens queued: rewind, or try again.
    pub fn prefill(&mut self, control: &mut Control<'_>) -> Result<Flow> {
        self.check_sound()?;
        self.heed_cancel(control.signals)?;
        let _environment = FloatEnvironment::enter();
        let start = self.evaluated;
        while self.evaluated < self.tokens.len() {
            if self.evaluate(control.signals)? == Flow::Paused {
                return Ok(Flow::Paused);
            }
            let (done, total) = (self.evaluated - start, self.tokens.len() - start);
            self.report(control, done, total)?;
        }
        Ok(Flow::Done)
    }

    /// The logits after the last token: (vocab). Evaluates what is queued first. Without a
    /// generation in progress this ends the turn: what the caller chooses by them begins another.
    ///
    /// # Errors
    /// As [`Session::prefill`]; `INVALID_ARGUMENT` if the session is empty.
    pub fn logits(&mut self, control: &mut Control<'_>) -> Result<&[f32]> {
        self.want_logits()?;
        while self.prefill(control)? == Flow::Paused {}
        if self.generation.is_none() {
            self.turn_ends();
        }
        Ok(self.last_logits())
    }

    /// Evaluates the queued tokens and gives the logits after each of them to `each`, with the
    /// token's position: (vocab).
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn logits_of_each(
        &mut self,
        control: &mut Control<'_>,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        self.check_sound()?;
        self.heed_cancel(control.signals)?;
        let _environment = FloatEnvironment::enter();
        self.drop_pass();
        while self.evaluated < self.tokens.len() {
            self.begin_pass(self.chunk.min(ROWS_WITH_LOGITS), true)?;
            while !self.run_pass(control.signals)? {}
            let pass = self.pass.take().expect("begun above");
            let vocab = self.network()?.spec.vocab;
            let wanted = pass.rows().iter().filter(|row| row.wants_output);
            for (i, row) in wanted.enumerate() {
                each(row.position, pass.logits(i, vocab));
            }
            self.end_pass(pass);
        }
        Ok(())
    }

    /// Appends `tokens` and gives the natural logarithm of the probability of each, after all that
    /// is before it: (tokens). The tokens stay, as part of the turn like fed ones; rewind to drop
    /// them.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if the session is empty: nothing comes before the first token then. Else
    /// as [`Session::feed`] and [`Session::prefill`].
    pub fn score(&mut self, tokens: &[u32], control: &mut Control<'_>) -> Result<Vec<f64>> {
        let mut scores = Vec::new();
        reserve(&mut scores, tokens.len())?;
        let Some(first) = tokens.first() else {
            return Ok(scores);
        };
        self.check_idle()?;
        let before = self.tokens.len();
        self.want_logits()?;
        let quiet = &mut Control {
            signals: control.signals,
            progress: None,
        };
        // Not `logits`, which would end the turn that a cancel has to take back.
        while self.prefill(quiet)? == Flow::Paused {}
        let mut outcome = log_probability(self.last_logits(), *first).map(|p| scores.push(p));
        self.feed(tokens)?;
        self.logits_of_each(control, &mut |position, logits| {
            if let (Ok(()), Some(next)) = (&outcome, tokens.get(position + 1 - before)) {
                outcome = log_probability(logits, *next).map(|p| scores.push(p));
            }
        })?;
        outcome.map(|()| scores)
    }

    /// Makes sure that evaluating gives logits: if the last token's are gone, it is evaluated
    /// again, to the same bits.
    pub(super) fn want_logits(&mut self) -> Result<()> {
        self.check_sound()?;
        self.check_predicts()?;
        if self.tokens.is_empty() {
            let message = "expected tokens to go on from, found none; feed some first";
            return Err(Error::new(Code::InvalidArgument, "session", message));
        }
        if self.evaluated == self.tokens.len() && !self.has_logits {
            self.go_back(self.evaluated - 1);
        }
        Ok(())
    }

    /// Runs one pass over queued tokens, or goes on with it.
    pub(super) fn evaluate(&mut self, signals: Signals<'_>) -> Result<Flow> {
        let began = Instant::now();
        let is_new = self.pass.is_none();
        if is_new {
            self.adopt();
            self.begin_pass(self.chunk, false)?;
        }
        // A fork's first pass begins with the copy of a page.
        let done = !(is_new && signals.due()) && self.run_pass(signals)?;
        let us = began.elapsed().as_micros() as u64;
        match self.evaluated < self.prompt_end {
            true => self.metrics.prompt_us += us,
            false => self.metrics.generate_us += us,
        }
        if !done {
            return Ok(Flow::Paused);
        }
        let pass = self.pass.take().expect("it ran above");
        self.end_pass(pass);
        Ok(Flow::Done)
    }

    fn begin_pass(&mut self, rows_max: usize, all_logits: bool) -> Result<()> {
        self.model.gguf().check_unchanged()?;
        let (start, end) = (
            self.evaluated,
            self.tokens.len().min(self.evaluated + rows_max),
        );
        let prefixes = self.model.prefixes();
        prefixes.reserve(&mut self.caches[0], start..end)?;
        if all_logits || end == self.tokens.len() {
            self.own_logits()?;
        }
        let network = self.model.network()?;
        // Passes of a token or two share scratch of one size with each other.
        let rows = (end - start)
            .next_power_of_two()
            .max(ROWS_WITH_LOGITS)
            .min(self.chunk.max(1));
        let rows = rows.max(end - start);
        let outputs = if all_logits { rows } else { 1 };
        let size = Size {
            rows,
            outputs,
            context: self.context,
        };
        let budget = self.model.budget();
        let scratch = self
            .model
            .prefixes()
            .with_room(budget, || network.scratch.take(&network.spec, size, budget))?;
        let last = self.tokens.len() - 1;
        let rows = (start..end).map(|position| Row {
            sequence: 0,
            position,
            context: self.context,
            token: self.tokens[position],
            segment: 0,
            wants_output: all_logits && position >= self.reached || position == last,
        });
        let threads = self.team.threads();
        self.pass = Some(Pass::new(network, scratch, rows, Goal::Logits, threads));
        self.has_logits = false;
        Ok(())
    }

    /// Makes sure that nobody else holds the place of this session's logits.
    fn own_logits(&mut self) -> Result<()> {
        if !self.logits.as_ref().is_some_and(Shared::is_alone) {
            let vocab = self.network()?.spec.vocab;
            let allocate = || self.budget.allocate_shared(Tag::Misc, vocab);
            self.logits = Some(self.model.prefixes().with_room(&self.budget, allocate)?);
            self.has_logits = false;
        }
        Ok(())
    }

    /// The logits after the last token, which has been evaluated for them: (vocab).
    pub(super) fn last_logits(&self) -> &[f32] {
        let logits = self.logits.as_deref();
        logits.expect("a pass that gives logits has a place for them")
    }

    /// Whether the pass is done. On an error it is dropped; on a cancel the turn is rolled back.
    fn run_pass(&mut self, signals: Signals<'_>) -> Result<bool> {
        let pass = self.pass.as_mut().expect("the caller has begun it");
        let canceller = self.canceller.clone();
        let signals = Signals {
            cancel: [signals.cancel[0], Some(canceller.flag())],
            ..signals
        };
        let outcome = match signals.cancelled() {
            true => Err(cancelled()),
            false => pass.run(self.model.network()?, &self.team, &mut self.caches, signals),
        };
        match outcome {
            Ok(flow) => Ok(flow == Flow::Done),
            Err(error) => {
                self.drop_pass();
                match error.code() {
                    Code::Cancelled => self.roll_back(),
                    Code::Internal => self.poison(),
                    _ => {}
                }
                Err(error)
            }
        }
    }

    /// Rolls the turn back if someone asked to cancel.
    pub(super) fn heed_cancel(&mut self, signals: Signals<'_>) -> Result<()> {
        if signals.cancelled() || self.canceller.flag().load(Ordering::Relaxed) {
            self.roll_back();
            return Err(cancelled());
        }
        Ok(())
    }

    fn end_pass(&mut self, pass: Pass) {
        self.evaluated += pass.rows().len();
        self.reached = self.reached.max(self.evaluated);
        self.has_logits = pass.rows().last().is_some_and(|row| row.wants_output);
        if self.has_logits {
            let output = pass.rows().iter().filter(|row| row.wants_output).count() - 1;
            let place = self.logits.as_mut().and_then(Shared::get_mut);
            let place = place.expect("made when the pass began, and forks share only what is done");
            place.copy_from_slice(pass.logits(output, place.len()));
        }
        self.forget();
        self.give_scratch(pass);
    }

    /// Takes over what other sessions have evaluated of the prompt, once.
    fn adopt(&mut self) {
        let sought = std::mem::replace(&mut self.sought, true);
        if let (Some(domain), false) = (&self.domain, sought) {
            self.model.pressure();
            let (prefixes, cache) = (self.model.prefixes(), &mut self.caches[0]);
            let end = prefixes.adopt(domain, &self.tokens, self.evaluated, cache);
            prefixes.count(end - self.evaluated);
            if end > self.evaluated {
                self.metrics.reused_tokens += (end - self.evaluated) as u64;
                self.evaluated = end;
                self.reached = self.reached.max(end);
                self.has_logits = false;
                self.offered = end / cache.layout().page_tokens();
                self.forget();
            }
        }
    }

    /// Lets others have the whole pages that are evaluated; `with_rest`, also the one that is partly
    /// filled, which this session then does not write any more.
    pub(super) fn offer(&mut self, with_rest: bool) {
        let pages = self.evaluated / self.caches[0].layout().page_tokens();
        // A state is worth as much whether a page is full or not.
        let recurs = self.caches[0].layout().state().size() > 0;
        if let Some(domain) = &self.domain
            && (pages > self.offered || with_rest || recurs)
        {
            self.model.pressure();
            let (prefixes, tokens) = (self.model.prefixes(), &self.tokens[..self.evaluated]);
            prefixes.offer(domain, tokens, with_rest, &mut self.caches[0]);
            self.offered = pages;
        }
    }

    /// Gives up the pages that no layer sees any more.
    fn forget(&mut self) {
        let first = self.first_seen();
        // Before it goes, others may have it; but tokens that are generated allocate nothing.
        if self.evaluated == self.prompt_end || first > 0 && self.evaluated < self.prompt_end {
            self.offer(false);
        }
        self.caches[0].forget(first);
    }

    /// Forgets the pass in progress; its tokens are queued again.
    pub(super) fn drop_pass(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.give_scratch(pass);
        }
    }

    fn give_scratch(&self, pass: Pass) {
        if let Ok(network) = self.model.network() {
            network.scratch.give(pass.into_scratch());
        }
    }

    /// Reports progress; if the report cancels, the turn is rolled back.
    pub(super) fn report(
        &mut self,
        control: &mut Control<'_>,
        done: usize,
        total: usize,
    ) -> Result<()> {
        control
            .report(done as u64, total as u64)
            .inspect_err(|_| self.roll_back())
    }
}
