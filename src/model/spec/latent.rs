//! Latent attention: keys and values made of narrow vectors.

use crate::error::Result;

use super::{Spec, WIDTH_MAX, require};

/// Attention whose keys and values are made of narrow vectors. Those are what `k_dim`, `v_dim` and the
/// single key head of a [`Spec`] mean then: a key is such a vector and a part that turns, a value is
/// the vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latent {
    /// Width of the vector that queries are made of; 0: they are made at once.
    pub q_rank: usize,
    /// Width of the vector that keys and values are made of.
    pub kv_rank: usize,
    /// Values in a query as it is made: those that do not turn, then those that do.
    pub head_dim: usize,
    /// Values in a value row as it would be made.
    pub value_dim: usize,
}

impl Latent {
    /// Width of all queries as they are made.
    pub fn q_width(&self, spec: &Spec) -> usize {
        spec.heads * self.head_dim
    }

    /// Width of what is made of a token first for its queries.
    pub fn q_low(&self, spec: &Spec) -> usize {
        match self.q_rank {
            0 => self.q_width(spec),
            rank => rank,
        }
    }

    /// Width of all that is made of a token first.
    pub fn low_width(&self, spec: &Spec) -> usize {
        self.q_low(spec) + spec.k_dim
    }

    /// Values in a query that do not turn.
    pub fn plain_dim(&self, spec: &Spec) -> usize {
        self.head_dim + self.kv_rank - spec.k_dim
    }

    /// The widest row of a head in products with its matrices.
    pub fn widest(&self) -> usize {
        self.head_dim.max(self.kv_rank).max(self.value_dim)
    }

    pub(super) fn check(&self, spec: &Spec, place: impl Fn(&str) -> String) -> Result<()> {
        let range = |name: &str, value: usize, [min, max]: [usize; 2]| {
            let holds = (min..=max).contains(&value);
            require(holds, || place(name), format!("{min} to {max}"), value)
        };
        let max = WIDTH_MAX / spec.heads;
        let turning = spec.k_dim.saturating_sub(self.kv_rank);
        range("attention.q_lora_rank", self.q_rank, [0, WIDTH_MAX])?;
        range("attention.kv_lora_rank", self.kv_rank, [1, max])?;
        range("rope.dimension_count", turning, [2, max])?;
        range(
            "attention.key_length_mla",
            self.head_dim,
            [turning + 1, max],
        )?;
        range("attention.value_length_mla", self.value_dim, [1, max])
    }
}
