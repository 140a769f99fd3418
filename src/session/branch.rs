//! Timelines that come of others: forks, and what is left when the oldest tokens go.

use std::sync::Arc;

use crate::error::{Code, Error, Result};
use crate::session::{Canceller, Metrics, Session, at_most, reserve};

impl Session {
    /// Another session with the same tokens, logits, turn, and state of samplers, held text
    /// included: from here on they go on by themselves, each as if it were alone. It costs a
    /// reference for each page of keys and values, and for states of recurrent layers; whoever first
    /// writes to a page that is partly filled copies it then, and states get places of their own.
    ///
    /// A pass in progress goes on in this session. The fork has its own copy of the page that it
    /// writes to, and evaluates the tokens of the pass itself. What the session has done so far is
    /// not counted in the fork's metrics.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`, and `MEMORY_CAP` if a pass is in progress.
    pub fn fork(&self) -> Result<Self> {
        self.check_sound()?;
        let mut cache = self.caches[0].fork(self.evaluated)?;
        if self.pass.is_some() {
            let end = self.evaluated;
            self.model.prefixes().reserve(&mut cache, end..end)?;
        }
        let mut tokens = Vec::new();
        reserve(&mut tokens, self.tokens.len())?;
        tokens.extend_from_slice(&self.tokens);
        let canceller = Canceller::default();
        if self.turn_start.is_some() {
            canceller.turn_begins();
        }
        Ok(Self {
            model: Arc::clone(&self.model),
            team: Arc::clone(&self.team),
            budget: self.budget.clone(),
            context: self.context,
            chunk: self.chunk,
            caches: [cache],
            domain: self.domain,
            sought: self.sought,
            offered: self.offered,
            tokens,
            evaluated: self.evaluated,
            reached: self.reached,
            prompt_end: self.prompt_end,
            logits: self.logits.clone().filter(|_| self.has_logits),
            has_logits: self.has_logits,
            pass: None,
            turn_start: self.turn_start,
            generation: self.generation.clone(),
            learnt: self.learnt.clone(),
            said: self.said.clone(),
            canceller,
            metrics: Metrics::default(),
            poisoned: false,
        })
    }

    /// Keeps the first `keep` tokens, drops the `dropped` behind them, and moves up those that
    /// follow, which makes room in a full context. A turn in progress goes on; its cancelling does
    /// not bring back what was dropped.
    ///
    /// The tokens that move up are evaluated again, with the next call that needs them: the session
    /// is then one that was fed these tokens, to the bit. Keys turned to their new positions instead
    /// would still carry what they have seen of the dropped tokens.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if there are not as many tokens, or if a generation would have none to go
    /// on from.
    pub fn shift(&mut self, keep: usize, dropped: usize) -> Result<()> {
        self.check_sound()?;
        let len = self.tokens.len();
        at_most("keep + dropped", keep.saturating_add(dropped), len)?;
        if dropped == 0 {
            return Ok(());
        }
        if dropped == len && self.generation.is_some() {
            let message = "a generation in progress needs a token to go on from";
            return Err(Error::new(Code::InvalidArgument, "dropped", message));
        }
        self.drop_pass();
        self.tokens.drain(keep..keep + dropped);
        // Places inside what was dropped are now where it was.
        let moved = |place: usize| place - place.saturating_sub(keep).min(dropped);
        for learnt in &mut self.learnt {
            learnt.tokens = moved(learnt.tokens);
        }
        self.turn_start = self.turn_start.map(moved);
        self.prompt_end = self.tokens.len();
        self.reached = self.reached.min(keep);
        self.keep_evaluated(self.evaluated.min(keep));
        self.has_logits = false;
        if self.generation.is_some() {
            self.want_logits()?;
        }
        Ok(())
    }
}
