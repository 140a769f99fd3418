//! Scaled dot-product attention of query rows over the pages of their sequences.
//!
//! Keys fall into spans by absolute position; each span gives a maximum, a sum of weights and a
//! weighted row of values, and the spans of a query are joined in order. Source: Vaswani et al.,
//! "Attention Is All You Need", 2017; the join is that of Milakov and Gimelshein, "Online
//! normalizer calculation for softmax", 2018.

use std::ops::Range;

use crate::kernel::Kernels;
use crate::kv::{Cache, PAGE_TOKENS, SPAN_TOKENS};

/// Multiply-adds that one task may have.
const TASK_MAX: usize = 1 << 21;
/// Floats of spans that are kept at once if a single row does not need more: 4 MiB.
const SPANS_LEN: usize = 1 << 20;

/// How the spans of query rows lie in scratch: (rows, kv_heads, spans, group, 2 + v_dim), and how
/// they are cut into tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spans {
    /// Query heads that share a key head.
    group: usize,
    /// Values in a value row.
    v_dim: usize,
    /// Key and value heads.
    kv_heads: usize,
    /// Spans of a row, a multiple of those of a task.
    spans: usize,
    /// Spans of one key head that a task computes.
    task: usize,
}

impl Spans {
    /// The spans of rows that see at most `tokens` keys; keys are (kv_heads, k_dim).
    pub fn new(
        tokens: usize,
        group: usize,
        (kv_heads, k_dim, v_dim): (usize, usize, usize),
    ) -> Self {
        let spans = spans_of(tokens).max(1);
        let tasks = spans.div_ceil(task_spans(group, k_dim, v_dim));
        let task = spans.div_ceil(tasks);
        Self {
            group,
            v_dim,
            kv_heads,
            spans: tasks * task,
            task,
        }
    }

    /// Floats of scratch that hold a row at least, for rows that see at most `tokens` keys.
    pub fn scratch_len(
        tokens: usize,
        group: usize,
        (kv_heads, k_dim, v_dim): (usize, usize, usize),
    ) -> usize {
        let spans = spans_of(tokens).max(1);
        // Cutting into equal tasks rounds up by less than one span for each.
        let spans = spans + spans.div_ceil(task_spans(group, k_dim, v_dim));
        let row = spans
            .saturating_mul(kv_heads)
            .saturating_mul(group * (2 + v_dim));
        row.max(SPANS_LEN)
    }

    /// Floats of a row.
    pub fn row_len(&self) -> usize {
        self.kv_heads * self.spans * self.span_len()
    }

    /// Floats of a task.
    pub fn task_len(&self) -> usize {
        self.task * self.span_len()
    }

    /// Row, key head and first span of task number `task`.
    fn place(&self, task: usize) -> (usize, usize, usize) {
        let tasks = self.spans / self.task;
        (
            task / tasks / self.kv_heads,
            task / tasks % self.kv_heads,
            task % tasks * self.task,
        )
    }

    fn span_len(&self) -> usize {
        self.group * (2 + self.v_dim)
    }
}

fn spans_of(tokens: usize) -> usize {
    tokens.div_ceil(SPAN_TOKENS)
}

/// Spans that a task may compute, so that a pass can pause or stop soon.
fn task_spans(group: usize, k_dim: usize, v_dim: usize) -> usize {
    (TASK_MAX / (SPAN_TOKENS * group * (k_dim + v_dim))).max(1)
}

/// Where queries look and how.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The sequence's pages.
    pub cache: &'a Cache,
    /// Layer of the cache.
    pub layer: usize,
    /// Keys at positions up to and including this one are seen.
    pub position: usize,
    /// Factor of the scores.
    pub scale: f32,
}

/// Runs task number `task` of rows of queries: a few spans of the query heads that share a key
/// head. `queries` gives row number i: where it looks, and its heads, (heads, k_dim). Spans behind
/// the position are left alone. `out` is (spans of a task, group, 2 + v_dim).
pub fn attend<'a>(
    kernels: &Kernels,
    spans: &Spans,
    task: usize,
    queries: impl Fn(usize) -> (Query<'a>, &'a [f32]),
    out: &mut [f32],
) {
    let (row, kv_head, first) = spans.place(task);
    let (query, heads) = queries(row);
    let k_dim = heads.len() / (spans.kv_heads * spans.group);
    let heads = &heads[kv_head * spans.group * k_dim..][..spans.group * k_dim];
    let seen = query.position + 1;
    for (span, out) in (first..).zip(out.chunks_exact_mut(spans.span_len())) {
        let start = span * SPAN_TOKENS;
        if start >= seen {
            return;
        }
        let keys = start..seen.min(start + SPAN_TOKENS);
        for (head, out) in heads
            .chunks_exact(k_dim)
            .zip(out.chunks_exact_mut(2 + spans.v_dim))
        {
            attend_span(kernels, &query, kv_head, head, keys.clone(), out);
        }
    }
}

/// One query against the keys of one span: `out` is (2 + v_dim).
fn attend_span(
    kernels: &Kernels,
    query: &Query<'_>,
    kv_head: usize,
    head: &[f32],
    keys: Range<usize>,
    out: &mut [f32],
) {
    let mut scores = [0.0; SPAN_TOKENS];
    let pages = keys.start / PAGE_TOKENS..keys.end.div_ceil(PAGE_TOKENS);
    let planes = pages.map(|page| {
        let page = query.cache.page(page);
        page.planes(query.cache.layout(), query.layer, kv_head)
    });
    for ((k, _), scores) in planes.clone().zip(scores.chunks_exact_mut(PAGE_TOKENS)) {
        kernels.scores(head, k, scores);
    }
    let weights = &mut scores[..keys.len()];
    (out[0], out[1]) = kernels.softmax(weights, query.scale);
    let row = &mut out[2..];
    row.fill(0.0);
    for ((_, v), weights) in planes.zip(weights.chunks(PAGE_TOKENS)) {
        kernels.values(weights, v, row);
    }
}

/// Joins the spans of the query heads of a row: `row` is (kv_heads, spans, group, 2 + v_dim), `out`
/// (heads, v_dim). Keys up to `position` were seen.
pub fn join(kernels: &Kernels, spans: &Spans, row: &[f32], position: usize, out: &mut [f32]) {
    let count = spans_of(position + 1);
    for (head, out) in out.chunks_exact_mut(spans.v_dim).enumerate() {
        let (kv_head, member) = (head / spans.group, head % spans.group);
        let start = kv_head * spans.spans * spans.span_len() + member * (2 + spans.v_dim);
        kernels.join_spans(&row[start..], spans.span_len(), count, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_cover_every_span_once() {
        for tokens in [1, 255, 256, 257, 2304, 2305, 100_000] {
            for (group, kv_heads) in [(1, 1), (4, 2), (8, 4), (64, 1)] {
                let spans = Spans::new(tokens, group, (kv_heads, 64, 64));
                assert!(spans.spans >= spans_of(tokens) && spans.spans.is_multiple_of(spans.task));
                let len = Spans::scratch_len(tokens, group, (kv_heads, 64, 64));
                assert!(len >= spans.row_len());
                let tasks = 2 * spans.row_len() / spans.task_len();
                for task in 0..tasks {
                    let (row, kv_head, first) = spans.place(task);
                    let at = (row * kv_heads + kv_head) * spans.spans + first;
                    assert_eq!(at * spans.span_len(), task * spans.task_len());
                }
            }
        }
    }
}
