//! Recurrences over the tokens of a sequence, one token after the other, column by column: however a
//! sequence is cut, and whoever computes which columns, a column's values are the same.

use std::ops::Range;

use crate::kernel::{Kernels, LANES, Lane};
use crate::team::Tile;

/// Values of states that a task should go through at least.
const TASK_MIN: usize = 1 << 15;
/// Values that a task should go through at most: some 100 microseconds, as a pass pauses between tasks.
const TASK_MAX: usize = 1 << 21;

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

    /// Columns that a task should have, if it goes through `tokens` tokens: some heads, or a part of
    /// one; and the values of their states.
    pub fn of_task(&self, tokens: usize) -> (usize, usize) {
        let heads = self.count.div_ceil(self.head_width);
        let work = self.head_values().saturating_mul(tokens).max(1);
        let blocks = self.head_width / LANES;
        let is_whole = self.head_width.is_multiple_of(LANES) && self.count.is_multiple_of(LANES);
        if is_whole && work > TASK_MAX {
            let least = work.div_ceil(TASK_MAX).min(blocks);
            let parts = (least..=blocks).find(|parts| blocks.is_multiple_of(*parts));
            let parts = parts.expect("all blocks are as many parts");
            return (self.head_width / parts, self.head_values() / parts);
        }
        let heads = (TASK_MIN / work).clamp(1, heads);
        (heads * self.head_width, heads * self.head_values())
    }

    /// Goes through all tokens with the columns that `out` covers, (tokens, columns): their states,
    /// `old` or zeros, become `new`. `step` changes a block of 16 columns, (rows, 16), by
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
            for first in (start..end).step_by(LANES) {
                let block = blocks.next().expect("a block for 16 columns");
                let columns = first..end.min(first + LANES);
                for token in 0..out.row_range().len() {
                    let place = Place {
                        token,
                        head: start / self.head_width,
                        columns: columns.clone(),
                    };
                    let given = step(&place, block);
                    let out = &mut out.row_mut(token)[first - all.start..];
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

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(count: usize, head_width: usize, rows: usize) -> Columns {
        Columns {
            count,
            head_width,
            rows,
        }
    }

    #[test]
    fn tasks_have_bounded_work() {
        for (count, head_width, rows) in
            [(4096, 128, 128), (1536, 16, 16), (40, 10, 6), (96, 48, 9)]
        {
            let columns = columns(count, head_width, rows);
            for tokens in [1, 16, 256, 2048, 100_000] {
                let (width, state) = columns.of_task(tokens);
                let is_part = head_width.is_multiple_of(width) && width.is_multiple_of(LANES);
                assert!(width.is_multiple_of(head_width) || is_part);
                assert_eq!(state * head_width, columns.head_values() * width);
                assert!(state * tokens <= TASK_MAX || width == LANES || !is_part);
            }
        }
        assert_eq!(columns(4096, 128, 128).of_task(256), (64, 64 * 128));
    }

    /// Whoever computes which columns, they are the same.
    #[test]
    fn a_part_of_a_head_is_that_part() {
        let columns = columns(64, 32, 3);
        let scan = |width: usize| {
            let (mut out, mut states) = (vec![0.0; 5 * 64], vec![0.0; 64 * 3]);
            for (task, states) in states.chunks_exact_mut(width * 3).enumerate() {
                let mut all = Tile::whole(&mut out, 64);
                let mut part = all.columns_mut(task * width..(task + 1) * width);
                columns.scan(None, states, &mut part, |place, state| {
                    assert_eq!(place.head, place.columns.start / 32);
                    for (row, lanes) in (1..).zip(state.iter_mut()) {
                        for (lane, column) in lanes.iter_mut().zip(place.columns.clone()) {
                            *lane += (column * row + place.token) as f32;
                        }
                    }
                    state[2]
                });
            }
            (out, states)
        };
        assert_eq!(scan(16), scan(64));
        assert_eq!(scan(32), scan(64));
    }
}
