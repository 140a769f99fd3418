//! Room for scores and decoded pieces of pages.

use super::attention::BLOCK;
use super::piece::PIECE;
use super::span::SPAN_TOKENS;
use crate::budget::{Budget, Buffer, Tag};
use crate::error::Result;

/// What [`Kernels::attend`](super::Kernels::attend) works with besides its output: some 90 KiB, too
/// much for the stack of a host's thread. What it holds between calls is of no use.
#[derive(Debug)]
pub struct Room {
    /// (queries, keys of a span)
    pub(super) scores: Buffer<f32>,
    /// A piece of pages, decoded.
    pub(super) piece: Buffer<f32>,
}

impl Room {
    /// Room on the account of `budget`; or `OUT_OF_MEMORY`, `MEMORY_CAP`.
    pub fn new(budget: &Budget) -> Result<Self> {
        Ok(Self {
            scores: budget.allocate(Tag::Scratch, BLOCK * SPAN_TOKENS)?,
            piece: budget.allocate(Tag::Scratch, PIECE * PIECE)?,
        })
    }

    /// Puts `value` everywhere.
    #[cfg(test)]
    pub(super) fn fill(&mut self, value: f32) {
        self.scores.fill(value);
        self.piece.fill(value);
    }
}
