//! Remembers where in the text a piece was encoded before, so that a repeated word costs one
//! comparison. One fragment of text has one cache; its size follows the text's, up to a limit.

use std::ops::Range;

use crate::error::Result;
use crate::tokenizer::hash::Seed;
use crate::tokenizer::vocabulary::reserve;

/// Slots at most: 96 KiB.
const SLOTS_MAX: usize = 4096;

/// A text gets one slot for so many of its bytes; measured on stories.
const BYTES_PER_SLOT: usize = 16;

/// Longer pieces are rarely repeated.
const PIECE_BYTES_MAX: usize = 64;

/// The pieces of one text.
pub(super) struct Cache<'t> {
    slots: Vec<Slot<'t>>,
    seed: Seed,
}

#[derive(Clone, Default)]
struct Slot<'t> {
    piece: &'t [u8],
    /// Where its tokens stand in the output.
    start: u32,
    tokens: u32,
}

/// Where a piece that was not found is to be remembered.
pub(super) struct Place(usize);

impl<'t> Cache<'t> {
    /// A cache for a text of so many bytes.
    pub(super) fn new(text_bytes: usize, seed: Seed) -> Result<Self> {
        let count = (text_bytes / BYTES_PER_SLOT)
            .next_power_of_two()
            .min(SLOTS_MAX);
        let mut slots = Vec::new();
        reserve(&mut slots, count)?;
        slots.resize(count, Slot::default());
        Ok(Self { slots, seed })
    }

    /// Where the tokens of an equal piece stand in the output, or where to remember them.
    #[inline]
    pub(super) fn find(&self, piece: &[u8]) -> Result<Range<usize>, Option<Place>> {
        if piece.len() > PIECE_BYTES_MAX {
            return Err(None);
        }
        let index = self.seed.hash(piece) as usize & (self.slots.len() - 1);
        let slot = &self.slots[index];
        if slot.piece == piece {
            let start = slot.start as usize;
            return Ok(start..start + slot.tokens as usize);
        }
        Err(Some(Place(index)))
    }

    /// Remembers that the tokens of `piece` stand at `tokens` in the output.
    #[inline]
    pub(super) fn remember(&mut self, place: Place, piece: &'t [u8], tokens: Range<usize>) {
        let start = tokens.start as u32;
        self.slots[place.0] = Slot {
            piece,
            start,
            tokens: tokens.len() as u32,
        };
    }
}
