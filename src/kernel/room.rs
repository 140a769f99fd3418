//! Room on the stack for scores and decoded pieces of pages.

use std::mem::MaybeUninit;

use super::attention::{BLOCK, PAGE_TOKENS, SPAN_TOKENS};

/// What a task works with besides its output. It costs as much as is used of it.
#[derive(Debug, Default)]
pub struct Room {
    pub(super) scores: Lazy<{ BLOCK * SPAN_TOKENS }>,
    pub(super) page: Lazy<{ PAGE_TOKENS * PAGE_TOKENS }>,
}

/// Values that begin as zeros when they are first asked for.
#[repr(align(64))]
pub(super) struct Lazy<const LEN: usize> {
    values: [MaybeUninit<f32>; LEN],
    /// How many have begun.
    begun: usize,
}

impl<const LEN: usize> Lazy<LEN> {
    /// The first `len` values.
    #[inline(always)]
    pub fn values(&mut self, len: usize) -> &mut [f32] {
        if self.begun < len {
            self.values[self.begun..len].fill(MaybeUninit::new(0.0));
            self.begun = len;
        }
        // SAFETY: the first `begun` have been written.
        unsafe { self.values[..len].assume_init_mut() }
    }
}

impl<const LEN: usize> Default for Lazy<LEN> {
    #[inline(always)]
    fn default() -> Self {
        Self {
            values: [MaybeUninit::uninit(); LEN],
            begun: 0,
        }
    }
}

impl<const LEN: usize> std::fmt::Debug for Lazy<LEN> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lazy").field(&self.begun).finish()
    }
}
