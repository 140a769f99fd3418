//! Scaled dot-product attention of one query row over the pages of its sequence.
//!
//! Keys fall into spans by absolute position; each span gives a maximum, a sum of weights and a
//! weighted row of values, and the spans are joined in order. Source: Vaswani et al., "Attention
//! Is All You Need", 2017; the join is that of Milakov and Gimelshein, "Online normalizer
//! calculation for softmax", 2018.

use crate::kernel::Kernels;
use crate::kv::{Cache, PAGE_TOKENS, SPAN_TOKENS};

/// Where a query looks and how.
#[derive(Debug, Clone, Copy)]
pub struct Query {
    /// Layer of the cache.
    pub layer: usize,
    /// Key and value head.
    pub kv_head: usize,
    /// Keys at positions up to and including this one are seen.
    pub position: usize,
    /// Factor of the scores.
    pub scale: f32,
}

/// Values of scratch that [`attend`] needs for contexts of up to `context` tokens.
pub fn scratch_len(context: usize, v_dim: usize) -> usize {
    SPAN_TOKENS + context.div_ceil(SPAN_TOKENS) * (2 + v_dim)
}

/// `out` = softmax of `query` against the keys it sees, times their values. `query` is (k_dim),
/// `out` (v_dim), `scratch` of [`scratch_len`] at least.
pub fn attend(
    kernels: &Kernels,
    cache: &Cache,
    place: Query,
    query: &[f32],
    scratch: &mut [f32],
    out: &mut [f32],
) {
    let (scores, spans) = scratch.split_at_mut(SPAN_TOKENS);
    let seen = place.position + 1;
    let count = seen.div_ceil(SPAN_TOKENS);
    let width = 2 + out.len();
    for (span, joined) in spans.chunks_exact_mut(width).take(count).enumerate() {
        let start = span * SPAN_TOKENS;
        let keys = SPAN_TOKENS.min(seen - start);
        let pages = start / PAGE_TOKENS..(start + keys).div_ceil(PAGE_TOKENS);
        let planes = pages.map(|page| {
            cache
                .page(page)
                .planes(cache.layout(), place.layer, place.kv_head)
        });
        for ((k, _), scores) in planes.clone().zip(scores.chunks_exact_mut(PAGE_TOKENS)) {
            kernels.scores(query, k, scores);
        }
        let weights = &mut scores[..keys];
        let (max, sum) = kernels.softmax(weights, place.scale);
        (joined[0], joined[1]) = (max, sum);
        let row = &mut joined[2..];
        row.fill(0.0);
        for ((_, v), weights) in planes.zip(weights.chunks(PAGE_TOKENS)) {
            kernels.values(weights, v, row);
        }
    }
    kernels.join_spans(&spans[..count * width], out);
}
