//! The memory of a pick.

use crate::error::{Code, Error, Result};
use crate::kernel::{BLOCK, Ranked};
use crate::sampler::rank::group_room;

/// Memory of a pick, kept from pick to pick. All are (vocab) or, for blocks,
/// (vocab / 64).
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub tokens: Vec<u32>,
    pub logits: Vec<f32>,
    pub weights: Vec<f32>,
    pub keys: Vec<f32>,
    pub order: Vec<Ranked>,
    /// Zeros between stages.
    pub counts: Vec<u32>,
    pub maxima: Vec<f32>,
    /// (vocab / 4): sums of parts, or maxima of groups.
    pub room: Vec<f32>,
    /// (tokens looked back on)
    pub matches: Vec<u32>,
}

impl Buffers {
    /// Makes room for a vocabulary and a history; or `OUT_OF_MEMORY`.
    pub fn reserve(&mut self, vocab: usize, history: usize) -> Result<()> {
        let blocks = vocab.div_ceil(BLOCK);
        if self.tokens.len() < vocab {
            grow(&mut self.tokens, vocab, 0)?;
            grow(&mut self.logits, vocab, 0.0)?;
            grow(&mut self.weights, vocab, 0.0)?;
            grow(&mut self.keys, vocab, 0.0)?;
            grow(&mut self.order, vocab, Ranked::default())?;
            grow(&mut self.counts, vocab, 0)?;
            grow(&mut self.maxima, blocks, 0.0)?;
            grow(&mut self.room, group_room(vocab), 0.0)?;
        }
        self.matches.clear();
        let room = self.matches.try_reserve(history);
        room.map_err(|_| no_memory(history))
    }
}

fn grow<T: Copy>(list: &mut Vec<T>, len: usize, value: T) -> Result<()> {
    let more = len.saturating_sub(list.len());
    list.try_reserve_exact(more).map_err(|_| no_memory(len))?;
    list.resize(len.max(list.len()), value);
    Ok(())
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
