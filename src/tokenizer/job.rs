//! What one call of `encode` works with: its output, how much of it there may be, and the signals
//! that end it early.

use crate::control::{Signals, cancelled};
use crate::error::{Code, Error, Result};
use crate::tokenizer::COUNT_MAX;
use crate::tokenizer::cache::Cache;
use crate::tokenizer::merge::Merger;
use crate::tokenizer::vocabulary::out_of_memory;

/// Bytes worked on between two looks at the signals: well below a millisecond.
pub(super) const BYTES_PER_LOOK: usize = 1 << 16;

/// Looks at the signals now and then.
#[derive(Debug, Default)]
pub(super) struct Watch<'s> {
    signals: Signals<'s>,
    /// Bytes until the next look.
    left: usize,
}

impl<'s> Watch<'s> {
    pub(super) fn new(signals: Signals<'s>) -> Self {
        Self { signals, left: 0 }
    }

    /// Counts work that takes about as long as going through so many bytes.
    #[inline]
    pub(super) fn work(&mut self, bytes: usize) -> Result<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => self.look(),
        }
    }

    #[cold]
    fn look(&mut self) -> Result<()> {
        self.left = BYTES_PER_LOOK;
        match self.signals.cancelled() {
            true => Err(cancelled()),
            false => Ok(()),
        }
    }
}

/// One call of `encode`.
pub(super) struct Job<'o, 's> {
    merger: Merger,
    pub(super) watch: Watch<'s>,
    out: &'o mut Vec<u32>,
    /// Tokens that the call may add.
    tokens_max: usize,
    /// Tokens that `out` may hold in the end.
    end_max: usize,
}

impl<'o, 's> Job<'o, 's> {
    pub(super) fn new(tokens_max: usize, signals: Signals<'s>, out: &'o mut Vec<u32>) -> Self {
        Self {
            merger: Merger::default(),
            watch: Watch::new(signals),
            end_max: out.len().saturating_add(tokens_max).min(COUNT_MAX),
            tokens_max,
            out,
        }
    }

    pub(super) fn token(&mut self, id: u32) -> Result<()> {
        self.watch.work(1)?;
        self.out.try_reserve(1).map_err(|_| out_of_memory())?;
        self.out.push(id);
        self.check(0)
    }

    /// Appends the tokens of `piece`: those of an equal piece before, or what `encode` appends.
    #[inline]
    pub(super) fn piece<'t>(
        &mut self,
        cache: &mut Cache<'t>,
        piece: &'t str,
        encode: impl FnOnce(&mut Merger, &mut Watch<'s>, &mut Vec<u32>) -> Result<()>,
    ) -> Result<()> {
        self.watch.work(piece.len())?;
        // A byte makes at most one token; a space spelled as its mark makes three.
        self.out
            .try_reserve(piece.len().saturating_mul(3))
            .map_err(|_| out_of_memory())?;
        match cache.find(piece.as_bytes()) {
            Ok(known) => self.out.extend_from_within(known),
            Err(place) => {
                let start = self.out.len();
                encode(&mut self.merger, &mut self.watch, self.out)?;
                self.check(0)?;
                if let Some(place) = place {
                    cache.remember(place, piece.as_bytes(), start..self.out.len());
                }
            }
        }
        self.check(0)
    }

    /// Fails if the tokens so far and `more` are too many.
    pub(super) fn check(&self, more: usize) -> Result<()> {
        let tokens = self.out.len().saturating_add(more);
        if tokens <= self.end_max {
            return Ok(());
        }
        let (code, max) = match tokens > COUNT_MAX {
            true => (Code::InvalidArgument, COUNT_MAX),
            false => (Code::ContextFull, self.tokens_max),
        };
        let message = format!("expected at most {max} tokens, found more");
        Err(Error::new(code, "text", message))
    }
}
