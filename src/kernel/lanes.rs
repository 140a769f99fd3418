//! The bodies of all kernels, written once over 16 lanes and compiled for each CPU.
//!
//! A body is a fixed order of float operations, so every instance returns the same bits; an
//! instance is made inside a function with the CPU's features, into which the body is inlined.
//! Where an ISA has something faster, its file holds a function of the same name and result.

use crate::float::{self, MulAdd, sum_lanes};
use crate::quant::{Activation, Blocks, Floats, accumulate, dot_floats};
use crate::team::Tile;

use super::Element;

/// Lanes of every body.
pub const LANES: usize = 16;

/// Tokens that share one unpacking of a weight group.
const TOKENS: usize = 8;

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

/// `x = x / rms(x) * weight`; false if the sum of squares is not finite.
///
/// Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
#[inline(always)]
pub fn rms_norm<M: MulAdd>(x: &mut [f32], weight: &[f32], epsilon: f32) -> bool {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for x in chunks {
        for i in 0..LANES {
            lanes[i] = M::mul_add(x[i], x[i], lanes[i]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = M::mul_add(*x, *x, *lane);
    }
    let sum = sum_lanes(&lanes);
    let scale = 1.0 / (sum / x.len() as f32 + epsilon).sqrt();
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = *x * scale * weight;
    }
    sum.is_finite()
}

/// `out += x`.
#[inline(always)]
pub fn add(out: &mut [f32], x: &[f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out += x;
    }
}

/// `gate = gate * sigmoid(gate) * up`.
///
/// Source: Shazeer, "GLU Variants Improve Transformer", 2020.
#[inline(always)]
pub fn swiglu(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate * float::sigmoid(*gate) * up;
    }
}

/// Turns the pairs (2i, 2i + 1) of a head by the angles whose (cosine, sine) `turns` holds.
///
/// Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.
#[inline(always)]
pub fn rope_interleaved(head: &mut [f32], turns: &[[f32; 2]]) {
    for (pair, [cos, sin]) in head.as_chunks_mut::<2>().0.iter_mut().zip(turns) {
        let [a, b] = *pair;
        *pair = [a * cos - b * sin, a * sin + b * cos];
    }
}

/// Dot products of a query with the keys of a page: lanes are keys, dimensions in order from +0.
/// `keys` is (dimensions, `out.len()`), and `out.len()` a multiple of 16.
#[inline(always)]
pub fn scores<E: Element, M: MulAdd>(query: &[f32], keys: &[E], out: &mut [f32]) {
    const WIDE: usize = 4 * LANES;
    let tokens = out.len();
    let (wide, narrow) = out.as_chunks_mut::<WIDE>();
    let narrow_at = wide.len() * WIDE;
    for (i, out) in wide.iter_mut().enumerate() {
        *out = scores_of::<E, M, WIDE>(query, keys, tokens, i * WIDE);
    }
    for (i, out) in narrow.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        *out = scores_of::<E, M, LANES>(query, keys, tokens, narrow_at + i * LANES);
    }
}

#[inline(always)]
fn scores_of<E: Element, M: MulAdd, const N: usize>(
    query: &[f32],
    keys: &[E],
    tokens: usize,
    at: usize,
) -> [f32; N] {
    let mut sums = [0.0; N];
    for (query, keys) in query.iter().zip(keys.chunks_exact(tokens)) {
        let keys = &keys[at..at + N];
        for i in 0..N {
            sums[i] = M::mul_add(*query, keys[i].load(), sums[i]);
        }
    }
    sums
}

/// Turns the scores of a span into weights `exp(scale * score - max)`; returns (max, sum of the
/// weights). Weight `i` adds to lane `i mod 16` of the sum.
#[inline(always)]
pub fn softmax(scores: &mut [f32], scale: f32) -> (f32, f32) {
    let mut maxima = [f32::NEG_INFINITY; LANES];
    for chunk in scores.chunks_mut(LANES) {
        for (score, max) in chunk.iter_mut().zip(&mut maxima) {
            *score *= scale;
            *max = float::max(*max, *score);
        }
    }
    let max = maxima.into_iter().fold(f32::NEG_INFINITY, float::max);
    let mut sums = [0.0; LANES];
    let (chunks, rest) = scores.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            chunk[i] = float::exp(chunk[i] - max);
            sums[i] += chunk[i];
        }
    }
    for (score, sum) in rest.iter_mut().zip(&mut sums) {
        *score = float::exp(*score - max);
        *sum += *score;
    }
    (max, sum_lanes(&sums))
}

/// Adds `weights[j]` times row `j` of `values`, (weights, dimensions), to `out`: lanes are
/// dimensions, keys in order.
#[inline(always)]
pub fn values<E: Element, M: MulAdd>(weights: &[f32], values: &[E], out: &mut [f32]) {
    const WIDE: usize = 4 * LANES;
    let width = out.len();
    let (wide, rest) = out.as_chunks_mut::<WIDE>();
    let (narrow, single) = rest.as_chunks_mut::<LANES>();
    let mut at = 0;
    for out in wide {
        values_of::<E, M, WIDE>(weights, values, (width, at), out);
        at += WIDE;
    }
    for out in narrow {
        values_of::<E, M, LANES>(weights, values, (width, at), out);
        at += LANES;
    }
    for out in single.as_chunks_mut::<1>().0 {
        values_of::<E, M, 1>(weights, values, (width, at), out);
        at += 1;
    }
}

#[inline(always)]
fn values_of<E: Element, M: MulAdd, const N: usize>(
    weights: &[f32],
    values: &[E],
    (width, at): (usize, usize),
    out: &mut [f32; N],
) {
    let mut sums = *out;
    for (weight, values) in weights.iter().zip(values.chunks_exact(width)) {
        let values = &values[at..at + N];
        for i in 0..N {
            sums[i] = M::mul_add(*weight, values[i].load(), sums[i]);
        }
    }
    *out = sums;
}

/// Joins `count` spans of one query, which begin `stride` apart: each a maximum, a sum of weights
/// and a weighted row. `out = sum(e * row) / sum(e * sum)`, `e = exp(max - largest max)`.
#[inline(always)]
pub fn join_spans<M: MulAdd>(spans: &[f32], stride: usize, count: usize, out: &mut [f32]) {
    let each = || spans.chunks(stride).take(count);
    let largest = each().fold(f32::NEG_INFINITY, |max, span| float::max(max, span[0]));
    let mut total = 0.0;
    out.fill(0.0);
    for span in each() {
        let weight = float::exp(span[0] - largest);
        total = M::mul_add(weight, span[1], total);
        for (out, value) in out.iter_mut().zip(&span[2..]) {
            *out = M::mul_add(weight, *value, *out);
        }
    }
    for out in out {
        *out /= total;
    }
}
