//! Recurrences over the tokens of a sequence, one token after the other, column by column: however a
//! sequence is cut, and whoever computes which columns, a column's values are the same.

use std::ops::Range;

use crate::kernel::{Kernels, LANES, Lane};
use crate::team::Tile;

/// Values of states that a task should go through at least.
const TASK_MIN: usize = 1 << 15;

/// How the columns of a state lie: in heads of so many, each in blocks of 16, each (rows, 16).
#[derive(Debug, Clone, Copy)]
pub struct Columns {
    /// Columns of all heads.
    pub count: usize,
    /// Columns of a head; the last may have fewer.
    pub head_width: usize,
    /// Rows of a column.
    pub rows: usize,
}

/// Some columns of a head at one token.
#[derive(Debug)]
pub struct Place {
    /// Number of the token among those that are scanned.
    pub token: usize,
    /// Number of the head.
    pub head: usize,
    /// The columns, at most 16, among those of all heads.
    pub columns: Range<usize>,
}

impl Columns {
    /// Values of a head's state.
    pub fn head_values(&self) -> usize {
        self.head_width.div_ceil(LANES) * LANES * self.rows
    }

    /// Heads that a task should have, if it goes through `tokens` tokens.
    pub fn heads_of_task(&self, tokens: usize) -> usize {
        let heads = self.count.div_ceil(self.head_width);
        let work = self.head_values().saturating_mul(tokens).max(1);
        (TASK_MIN / work).clamp(1, heads)
    }

    /// Goes through all tokens with the heads whose columns `out` covers, (tokens, columns): their
    /// states, `old` or zeros, become `new`. `step` changes a block of 16 columns, (rows, 16), by
    /// one token, and says what they give.
    pub fn scan(
        &self,
        old: Option<&[f32]>,
        new: &mut [f32],
        out: &mut Tile<'_, f32>,
        step: impl Fn(&Place, &mut [Lane]) -> Lane,
    ) {
        match old {
            Some(old) => new.copy_from_slice(old),
            None => new.fill(0.0),
        }
        let all = out.column_range();
        let mut blocks = new.as_chunks_mut::<LANES>().0.chunks_exact_mut(self.rows);
        for start in all.clone().step_by(self.head_width) {
            let end = all.end.min(start + self.head_width);
            for first in (start..start + self.head_width).step_by(LANES) {
                let block = blocks.next().expect("a block for 16 columns");
                let columns = first.min(end)..end.min(first + LANES);
                for token in 0..out.row_range().len() {
                    let place = Place {
                        token,
                        head: start / self.head_width,
                        columns: columns.clone(),
                    };
                    let given = step(&place, block);
                    let out = &mut out.row_mut(token)[first.min(end) - all.start..];
                    out[..columns.len()].copy_from_slice(&given[..columns.len()]);
                }
            }
        }
    }
}

/// The first up to 16 values, then zeros.
pub fn lane(values: &[f32]) -> Lane {
    let mut lane = [0.0; LANES];
    lane[..values.len()].copy_from_slice(values);
    lane
}

/// out = the sum of `inputs`, each times its own row of `taps`, the first first; it begins with
/// `bias`, if there is one. What is no input counts for nothing.
pub fn convolve<'a>(
    kernels: &Kernels,
    (taps, bias): (&[f32], Option<&[f32]>),
    inputs: impl Iterator<Item = Option<&'a [f32]>>,
    out: &mut [f32],
) {
    match bias {
        Some(bias) => out.copy_from_slice(bias),
        None => out.fill(0.0),
    }
    for (taps, input) in taps.chunks_exact(out.len()).zip(inputs) {
        if let Some(input) = input {
            kernels.multiply_add(out, input, taps);
        }
    }
}
