//! The bodies of all kernels, written once over 16 lanes and compiled for each CPU.
//!
//! A body is a fixed order of float operations, so every instance returns the same bits; an
//! instance is made inside a function with the CPU's features, into which the body is inlined.
//! Where an ISA has something faster, its file holds a function of the same name and result.

use std::ops::Range;

use crate::float::{self, MulAdd, sum_lanes};
use crate::quant::{Activation, Blocks, Floats, accumulate, dot_floats};
use crate::team::Tile;

use super::Plane;
use super::span::{Attention, SPAN_TOKENS};

/// Lanes of every body.
pub const LANES: usize = 16;

/// Tokens that share one unpacking of a weight group.
const TOKENS: usize = 8;

/// Values of a page that are decoded at once: at least as many as it has keys.
const PART: usize = 64;

/// Block formats: `weights` are the rows of the tile's columns, `x` is (tokens, groups).
#[inline(always)]
pub fn matmul_blocks<B: Blocks, M: MulAdd>(
    weights: &[u8],
    x: &[Activation],
    groups: usize,
    out: &mut Tile<'_, f32>,
) {
    let row_bytes = groups / B::GROUPS * B::FORMAT.block_bytes();
    let tokens = out.row_range().len();
    for first in (0..tokens).step_by(TOKENS) {
        let count = TOKENS.min(tokens - first);
        let x = &x[first * groups..][..count * groups];
        for (column, row) in weights.chunks_exact(row_bytes).enumerate() {
            let sums = match count {
                1 => row_by_tokens::<B, M, 1>(row, x, groups),
                TOKENS => row_by_tokens::<B, M, TOKENS>(row, x, groups),
                _ => row_by_some::<B, M>(row, x, groups),
            };
            for (token, sum) in sums.iter().enumerate().take(count) {
                out.row_mut(first + token)[column] = *sum;
            }
        }
    }
}

/// One weight row against `N` tokens; the first `N` of the result count.
#[inline(always)]
fn row_by_tokens<B: Blocks, M: MulAdd, const N: usize>(
    row: &[u8],
    x: &[Activation],
    groups: usize,
) -> [f32; TOKENS] {
    let mut sums = [0.0; TOKENS];
    let mut at = 0;
    for block in B::blocks(row) {
        for group in 0..B::GROUPS {
            let weights = B::unpack(block, group);
            for token in 0..N {
                sums[token] = accumulate::<B, M>(&weights, &x[token * groups + at], sums[token]);
            }
            at += 1;
        }
    }
    sums
}

/// One weight row against fewer than `TOKENS` tokens.
#[inline(always)]
fn row_by_some<B: Blocks, M: MulAdd>(row: &[u8], x: &[Activation], groups: usize) -> [f32; TOKENS] {
    let mut sums = [0.0; TOKENS];
    let mut at = 0;
    for block in B::blocks(row) {
        for group in 0..B::GROUPS {
            let weights = B::unpack(block, group);
            for (sum, x) in sums.iter_mut().zip(x[at..].iter().step_by(groups)) {
                *sum = accumulate::<B, M>(&weights, x, *sum);
            }
            at += 1;
        }
    }
    sums
}

/// Float formats: as above, with `x` of (tokens, stride), of which `columns` count.
#[inline(always)]
pub fn matmul_floats<F: Floats, M: MulAdd>(
    weights: &[u8],
    x: &[f32],
    (stride, columns): (usize, usize),
    out: &mut Tile<'_, f32>,
) {
    let row_bytes = columns * F::FORMAT.block_bytes();
    let tokens = out.row_range().len();
    for (column, row) in weights.chunks_exact(row_bytes).enumerate() {
        for token in 0..tokens {
            let x = &x[token * stride..][..columns];
            out.row_mut(token)[column] = dot_floats::<F, M>(row, x);
        }
    }
}

/// Attention of queries to the keys of a span: `out` is (rows, heads, result). Rows that see no key
/// are left alone.
#[inline(always)]
pub(super) fn attend<M: MulAdd>(work: &Attention<'_>, out: &mut Tile<'_, f32>) {
    for row in work.rows(out.row_range().len()) {
        let keys = work.keys(row);
        let mut scores = [0.0; SPAN_TOKENS];
        for head in 0..work.heads {
            let (out, [max, sum]) = work.result(out.row_mut(row), head);
            scores.fill(0.0);
            let page_tokens = work.page_tokens;
            let pages = || {
                let pages = (0..).step_by(page_tokens).zip(work.pages);
                pages.filter(|(start, _)| *start < keys.end && start + page_tokens > keys.start)
            };
            for (start, (planes, _)) in pages() {
                let scores = &mut scores[start..keys.end.min(start + page_tokens)];
                add_scores::<M>(work.query(row, head), (*planes, page_tokens), scores);
            }
            [*max, *sum] = softmax(&mut scores, keys.clone(), |scores| {
                work.shape(row, head, scores);
            });
            out.fill(0.0);
            for (start, (_, values)) in pages() {
                let keys = keys.start.max(start)..keys.end.min(start + page_tokens);
                let first = keys.start - start;
                add_values::<M>(&scores[keys], *values, first, out);
            }
        }
    }
}

/// Adds to the scores of a page's first keys: lanes are keys, dimensions in order. `keys` is
/// (dimensions, tokens).
#[inline(always)]
fn add_scores<M: MulAdd>(query: &[f32], (keys, tokens): (Plane<'_>, usize), scores: &mut [f32]) {
    let mut lanes = [0.0; PART];
    for (d, x) in query.iter().enumerate() {
        let lanes = &mut lanes[..scores.len()];
        keys.decode(d, tokens, 0, lanes);
        for (score, key) in scores.iter_mut().zip(lanes) {
            *score = M::mul_add(*x, *key, *score);
        }
    }
}

/// Adds values from key `first` of a page on, weighted, to `out`: lanes are dimensions, keys in
/// order. `values` is (tokens, out.len()).
#[inline(always)]
fn add_values<M: MulAdd>(weights: &[f32], values: Plane<'_>, first: usize, out: &mut [f32]) {
    let width = out.len();
    let mut lanes = [0.0; PART];
    for (key, weight) in (first..).zip(weights) {
        for (part, out) in out.chunks_mut(PART).enumerate() {
            let lanes = &mut lanes[..out.len()];
            values.decode(key, width, part * PART, lanes);
            for (out, value) in out.iter_mut().zip(lanes) {
                *out = M::mul_add(*weight, *value, *out);
            }
        }
    }
}

/// Turns the products of `keys` into scores by `shape`, which gets their lanes, and scores into weights
/// `exp(score - max)`; returns (max, sum of the weights). Weight `i` adds to lane `i mod 16` of the sum. There is
/// at least one key, and room for whole lanes, in which zeros follow.
#[inline(always)]
pub(super) fn softmax(
    scores: &mut [f32],
    keys: Range<usize>,
    shape: impl FnOnce(&mut [[f32; LANES]]),
) -> [f32; 2] {
    let lanes = keys.start / LANES..keys.end.div_ceil(LANES);
    shape(&mut scores.as_chunks_mut::<LANES>().0[lanes]);
    let (scores, keys) = whole_lanes(scores, keys);
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let mut minima = [f32::INFINITY; LANES];
    for chunk in scores.iter_mut() {
        for i in 0..LANES {
            maxima[i] = float::max(maxima[i], chunk[i]);
            minima[i] = if chunk[i] < minima[i] {
                chunk[i]
            } else {
                minima[i]
            };
        }
    }
    weights(scores, keys, (&maxima, &minima))
}

/// The lanes that hold `keys`, and where in them they are; copies of a key's value make up whole
/// lanes.
#[inline(always)]
pub(super) fn whole_lanes(
    values: &mut [f32],
    keys: Range<usize>,
) -> (&mut [[f32; LANES]], Range<usize>) {
    let base = keys.start / LANES;
    let chunks = &mut values.as_chunks_mut::<LANES>().0[base..keys.end.div_ceil(LANES)];
    let keys = keys.start - base * LANES..keys.end - base * LANES;
    if let (Some(first), true) = (chunks.first_mut(), keys.start > 0) {
        for i in 0..keys.start {
            first[i] = first[keys.start];
        }
    }
    if let (Some(last), true) = (chunks.last_mut(), !keys.end.is_multiple_of(LANES)) {
        for i in keys.end % LANES..LANES {
            last[i] = last[0];
        }
    }
    (chunks, keys)
}

/// Turns scores into weights, given the largest and the smallest of each lane: [max, sum].
#[inline(always)]
pub(super) fn weights(
    scores: &mut [[f32; LANES]],
    keys: Range<usize>,
    (maxima, minima): (&[f32; LANES], &[f32; LANES]),
) -> [f32; 2] {
    let (max, min) = (largest(*maxima), -largest(minima.map(|x| -x)));
    // The faster function has the same bits, and leaves a NaN one.
    let sums = match max - min <= 80.0 {
        true => exponentials::<true>(scores, keys, max),
        false => exponentials::<false>(scores, keys, max),
    };
    [max, sum_lanes(&sums)]
}

/// Replaces the value x of each of `keys` by `exp(x - max)`, others by 0; returns the sum of each
/// lane.
#[inline(always)]
fn exponentials<const NEAR: bool>(
    values: &mut [[f32; LANES]],
    keys: Range<usize>,
    max: f32,
) -> [f32; LANES] {
    let exp = |x| {
        if NEAR {
            float::exp_within(x)
        } else {
            float::exp(x)
        }
    };
    let mut sums = [0.0; LANES];
    let mut some = |chunk: &mut [f32; LANES], keys: Range<usize>| {
        for i in 0..LANES {
            let weight = exp(chunk[i] - max);
            chunk[i] = if keys.contains(&i) { weight } else { 0.0 };
            sums[i] += chunk[i];
        }
    };
    // Only the first lanes may have a key that is not seen before those that are.
    let (first, values) = values.split_at_mut(usize::from(keys.start > 0));
    let end = keys.end.saturating_sub(first.len() * LANES);
    for chunk in first {
        some(chunk, keys.clone());
    }
    let (whole, last) = values.split_at_mut(end / LANES);
    for chunk in whole {
        some(chunk, 0..LANES);
    }
    for chunk in last {
        some(chunk, 0..end % LANES);
    }
    sums
}

/// The largest lane, found by the tree of the sums.
#[inline(always)]
fn largest(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = float::max(lanes[i], lanes[i + half]);
        }
    }
    lanes[0]
}

/// Joins the results of `count` spans of one query, which begin `stride` apart, and a sink: a score
/// without a value, or minus infinity. `out = sum(e * row) / (sum(e * sum) + e(sink))`,
/// `e = exp(max - largest max)`.
#[inline(always)]
pub fn join_spans<M: MulAdd>(
    spans: &[f32],
    (stride, count): (usize, usize),
    sink: f32,
    out: &mut [f32],
) {
    let each = || spans.chunks(stride).take(count);
    let at = out.len();
    let largest = each().fold(sink, |max, span| float::max(max, span[at]));
    let mut total = float::exp(sink - largest);
    out.fill(0.0);
    for span in each() {
        let weight = float::exp(span[at] - largest);
        total = M::mul_add(weight, span[at + 1], total);
        for (out, value) in out.iter_mut().zip(span) {
            *out = M::mul_add(weight, *value, *out);
        }
    }
    for out in out {
        *out /= total;
    }
}
