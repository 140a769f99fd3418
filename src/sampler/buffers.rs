//! The memory of a pick.

use crate::budget::{Budget, Buffer, Tag};
use crate::error::{Code, Error, Result};
use crate::kernel::{BLOCK, Ranked};
use crate::sampler::rank::group_room;

/// Memory of a pick, kept from pick to pick. All are (vocab) or, for blocks,
/// (vocab / 64).
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// Where the memory comes from; `None`: from the system.
    budget: Option<Budget>,
    pub tokens: Buffer<u32>,
    pub logits: Buffer<f32>,
    pub weights: Buffer<f32>,
    pub keys: Buffer<f32>,
    pub order: Buffer<Ranked>,
    /// Zeros between stages.
    pub counts: Buffer<u32>,
    pub maxima: Buffer<f32>,
    /// (vocab / 4): sums of parts, or maxima of groups.
    pub room: Buffer<f32>,
    /// (tokens looked back on)
    pub matches: Vec<u32>,
}

impl Buffers {
    /// Nothing yet, to be charged to `budget`.
    pub fn on(budget: &Budget) -> Self {
        Self {
            budget: Some(budget.clone()),
            ..Self::default()
        }
    }

    /// Makes room for a vocabulary and a history; or `OUT_OF_MEMORY`, `MEMORY_CAP`.
    pub fn reserve(&mut self, vocab: usize, history: usize) -> Result<()> {
        if self.tokens.len() < vocab {
            self.grow(vocab)?;
        }
        self.matches.clear();
        let room = self.matches.try_reserve(history);
        room.map_err(|_| no_memory(history))
    }

    fn grow(&mut self, vocab: usize) -> Result<()> {
        let budget = self.budget.get_or_insert_default().clone();
        let blocks = vocab.div_ceil(BLOCK);
        let floats = |len| budget.allocate::<f32>(Tag::Misc, len);
        *self = Self {
            tokens: budget.allocate(Tag::Misc, vocab)?,
            logits: floats(vocab)?,
            weights: floats(vocab)?,
            keys: floats(vocab)?,
            order: budget.allocate_filled(Tag::Misc, vocab, Ranked::default())?,
            counts: budget.allocate(Tag::Misc, vocab)?,
            maxima: floats(blocks)?,
            room: floats(group_room(vocab))?,
            matches: std::mem::take(&mut self.matches),
            budget: Some(budget),
        };
        Ok(())
    }
}

/// An empty list with room for `len` values; or `OUT_OF_MEMORY`.
pub(super) fn room<T>(len: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(len).map_err(|_| no_memory(len))?;
    Ok(list)
}

fn no_memory(len: usize) -> Error {
    let message = format!("no memory to choose from {len} tokens");
    Error::new(Code::OutOfMemory, "sampler", message)
}
