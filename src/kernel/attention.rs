//! Attention of many queries to the keys of one span: tiles of queries by vectors of lanes.
//!
//! Scores and weighted values are both products whose lanes lie side by side in a page: keys, which
//! are kept transposed, or dimensions of values. Pages are taken in pieces of 64 rows by 64 lanes, each
//! decoded once for as many queries as share it: a piece of keys is made of several smaller pages, one
//! of values has fewer rows then. The order of the operations is that of `lanes::attend`.

use std::ops::Range;

use crate::team::Tile;

use super::lanes;
use super::piece::{Lanes, Load, PIECE, Piece, load_some, store_some};
use super::room::Room;
use super::simd::Simd;
use super::span::{Attention, SPAN_TOKENS};

/// Queries that share a decoded piece of a page, at most.
pub(super) const BLOCK: usize = 72;

/// Queries of a register tile, at most.
const TILE: usize = 6;

/// Up to so many queries, a page is read as it is stored: decoding it first costs more.
const FEW: usize = 3;

/// `out` is (rows, heads, result). Rows that see no key are left alone. A register tile has `N`
/// vectors.
#[inline(always)]
pub(super) fn attend<V: Simd, const N: usize>(
    v: V,
    work: &Attention<'_>,
    room: &mut Room,
    out: &mut Tile<'_, f32>,
) {
    const { assert!(PIECE.is_multiple_of(N * V::LANES)) };
    let rows = work.rows(out.row_range().len());
    let all = rows.end * work.heads;
    let mut first = rows.start * work.heads;
    while first < all {
        // Blocks of about one size, of whole tiles.
        let count = (all - first).div_ceil((all - first).div_ceil(BLOCK));
        let count = count.next_multiple_of(TILE).min(all - first);
        let mut block = Block {
            v,
            work,
            queries: [Query::default(); BLOCK],
            count,
            reads: count <= FEW && work.v_dim.is_multiple_of(V::LANES) && !work.is_quantized(),
            scores: &mut room.scores[..count * SPAN_TOKENS],
        };
        for (query, number) in block.queries.iter_mut().zip(first..first + count) {
            query.row = number / work.heads;
            query.head = number % work.heads;
            let keys = work.keys(query.row);
            (query.first, query.seen) = (keys.start, keys.end);
        }
        block.score::<N>(&mut room.piece);
        block.weigh(out);
        block.add_values::<N>(&mut room.piece, out);
        first += count;
    }
}

/// One query of a block.
#[derive(Debug, Clone, Copy, Default)]
struct Query {
    row: usize,
    head: usize,
    /// The first key that it sees.
    first: usize,
    /// Keys up to the last that it sees.
    seen: usize,
}

/// Queries that are computed together; what one sees begins and ends no earlier than what the one
/// before it sees.
struct Block<'a, V> {
    v: V,
    work: &'a Attention<'a>,
    /// The first `count` count.
    queries: [Query; BLOCK],
    count: usize,
    /// Whether pages are read as they are stored, where they can be.
    reads: bool,
    /// (count, SPAN_TOKENS)
    scores: &'a mut [f32],
}

/// Keys of the span that are taken together.
#[derive(Clone, Copy)]
struct Part {
    start: usize,
    len: usize,
}

/// A tile's place: its first query, its keys, its first lane there.
#[derive(Clone, Copy)]
struct At {
    query: usize,
    part: Part,
    lane: usize,
}

/// Calls a method with a constant number of queries, up to `TILE`, or `FEW` for what is not decoded.
macro_rules! with_queries {
    ($count:expr, $element:ty, $object:ident.$method:ident::<$N:tt>($($argument:expr),*)) => {
        match $count {
            1 => $object.$method::<$element, $N, 1>($($argument),*),
            2 => $object.$method::<$element, $N, 2>($($argument),*),
            3 => $object.$method::<$element, $N, 3>($($argument),*),
            count if <$element>::DECODED => match count {
                4 => $object.$method::<$element, $N, 4>($($argument),*),
                5 => $object.$method::<$element, $N, 5>($($argument),*),
                _ => $object.$method::<$element, $N, 6>($($argument),*),
            },
            _ => unreachable!("few queries read a page as it is"),
        }
    };
}

impl<V: Simd> Block<'_, V> {
    /// The end of the tile that begins with query `start`: tiles are of about one size.
    #[inline(always)]
    fn tile_end(&self, start: usize) -> usize {
        let rest = self.count - start;
        start + rest.div_ceil(rest.div_ceil(TILE))
    }

    /// Keys of `part` that the query sees; if none, the end may be before the start.
    #[inline(always)]
    fn keys(&self, query: usize, part: Part) -> Range<usize> {
        let within = |key: usize| key.saturating_sub(part.start).min(part.len);
        let Query { first, seen, .. } = self.queries[query];
        within(first)..within(seen)
    }

    /// Parts of `len` keys of which one of the queries sees some.
    #[inline(always)]
    fn parts(&self, len: usize) -> impl Iterator<Item = Part> + use<V> {
        let last = self.queries[self.count - 1].seen.div_ceil(len);
        let first = self.queries[0].first / len;
        (first..last).map(move |number| Part {
            start: number * len,
            len,
        })
    }

    /// Scores of the keys that are seen, not yet scaled.
    #[inline(always)]
    fn score<const N: usize>(&mut self, room: &mut [f32]) {
        let (pages, tokens) = (self.work.pages, self.work.page_tokens);
        for part in self.parts(PIECE) {
            let end = (part.start + PIECE) / tokens;
            let pages = &pages[part.start / tokens..end.min(pages.len())];
            for first in (0..self.work.k_dim).step_by(PIECE) {
                let dims = first..self.work.k_dim.min(first + PIECE);
                let (pages, reads) = ((pages, tokens), self.reads);
                match Piece::of_keys(self.v, pages, dims.clone(), reads, room) {
                    Piece::Decoded(keys) => self.score_part::<f32, N>(keys, part, dims),
                    Piece::Halves(keys) => self.score_part::<[u8; 2], N>(keys, part, dims),
                }
            }
        }
    }

    /// Adds what some dimensions add to the scores of some keys.
    #[inline(always)]
    fn score_part<E: Load, const N: usize>(
        &mut self,
        keys: Lanes<'_, E>,
        part: Part,
        dims: Range<usize>,
    ) {
        let mut query = 0;
        while query < self.count {
            let end = self.tile_end(query);
            let lanes = self.keys(query, part).start..self.keys(end - 1, part).end;
            let first = lanes.start / (N * V::LANES) * (N * V::LANES);
            for lane in (first..lanes.end).step_by(N * V::LANES) {
                let at = At { query, part, lane };
                with_queries!(end - query, E, self.score_tile::<N>(keys, at, dims.clone()));
            }
            query = end;
        }
    }

    #[inline(always)]
    fn score_tile<E: Load, const N: usize, const Q: usize>(
        &mut self,
        keys: Lanes<'_, E>,
        at: At,
        dims: Range<usize>,
    ) {
        let v = self.v;
        let mut queries: [&[f32]; Q] = [&[]; Q];
        let mut sums = [[v.splat_float(0.0); N]; Q];
        let start = at.query * SPAN_TOKENS + at.part.start + at.lane;
        for q in 0..Q {
            let query = &self.queries[at.query + q];
            queries[q] = &self.work.query(query.row, query.head)[dims.clone()];
            if dims.start > 0 {
                let scores = &self.scores[start + q * SPAN_TOKENS..];
                for n in 0..N {
                    sums[q][n] = v.load(&scores[n * V::LANES..]);
                }
            }
        }
        multiply(v, queries, keys.from(at.lane), &mut sums);
        for q in 0..Q {
            let scores = &mut self.scores[start + q * SPAN_TOKENS..];
            for n in 0..N {
                v.store(sums[q][n], &mut scores[n * V::LANES..]);
            }
        }
    }

    /// Turns scores into weights; gives their maxima and sums out.
    #[inline(always)]
    fn weigh(&mut self, out: &mut Tile<'_, f32>) {
        let plain = self.work.is_plain();
        let scores = self.scores.chunks_exact_mut(SPAN_TOKENS);
        for (query, scores) in self.queries.iter().zip(scores) {
            let Query { row, head, .. } = *query;
            let keys = query.first..query.seen;
            let (_, ends) = self.work.result(out.row_mut(row), head);
            *ends = match plain {
                true => scaled_softmax(self.v, scores, keys, self.work.scoring.scale),
                false => lanes::softmax(scores, keys, |scores| self.work.shape(row, head, scores)),
            };
        }
    }

    /// Gives the weighted values out.
    #[inline(always)]
    fn add_values<const N: usize>(&mut self, room: &mut [f32], out: &mut Tile<'_, f32>) {
        let (v_dim, page_tokens) = (self.work.v_dim, self.work.page_tokens);
        for page in self.parts(page_tokens) {
            let (_, values) = self.work.pages[page.start / page_tokens];
            let tokens = self.keys(self.count - 1, page).end;
            for first in (0..v_dim).step_by(PIECE) {
                let dims = first..v_dim.min(first + PIECE);
                let columns = (v_dim, dims.clone());
                match Piece::new(self.v, values, 0..tokens, columns, self.reads, room) {
                    Piece::Decoded(lanes) => self.values_page::<f32, N>(lanes, page, dims, out),
                    Piece::Halves(lanes) => self.values_page::<[u8; 2], N>(lanes, page, dims, out),
                }
            }
        }
    }

    /// Adds the values of a page to some dimensions of the results.
    #[inline(always)]
    fn values_page<E: Load, const N: usize>(
        &self,
        values: Lanes<'_, E>,
        part: Part,
        dims: Range<usize>,
        out: &mut Tile<'_, f32>,
    ) {
        let mut query = 0;
        while query < self.count {
            let end = self.tile_end(query);
            let mut lane = 0;
            while lane < dims.len() {
                let at = At { query, part, lane };
                // A vector may stand out, a tile of several not.
                if lane + N * V::LANES <= dims.len() {
                    with_queries!(
                        end - query,
                        E,
                        self.values_tile::<N>(values, at, &dims, out)
                    );
                    lane += N * V::LANES;
                } else {
                    with_queries!(
                        end - query,
                        E,
                        self.values_tile::<1>(values, at, &dims, out)
                    );
                    lane += V::LANES;
                }
            }
            query = end;
        }
    }

    /// Each query of a tile with the keys before those that all of them see, then all with those,
    /// then each with the rest of its own.
    #[inline(always)]
    fn values_tile<E: Load, const N: usize, const Q: usize>(
        &self,
        values: Lanes<'_, E>,
        at: At,
        dims: &Range<usize>,
        out: &mut Tile<'_, f32>,
    ) {
        let (first, last) = (at.query, at.query + Q - 1);
        let start = self.keys(last, at.part).start;
        let common = start..self.keys(first, at.part).end.max(start);
        if self.keys(first, at.part).start < start {
            for query in first..=last {
                let keys = self.keys(query, at.part);
                let at = At { query, ..at };
                self.add_keys::<E, N, 1>(values, at, keys.start..start.min(keys.end), dims, out);
            }
        }
        self.add_keys::<E, N, Q>(values, at, common.clone(), dims, out);
        for query in first..=last {
            let keys = self.keys(query, at.part);
            if keys.end > common.end {
                let at = At { query, ..at };
                self.add_keys::<E, N, 1>(values, at, common.end..keys.end, dims, out);
            }
        }
    }

    /// Adds some keys' values to the results of `Q` queries.
    #[inline(always)]
    fn add_keys<E: Load, const N: usize, const Q: usize>(
        &self,
        values: Lanes<'_, E>,
        at: At,
        keys: Range<usize>,
        dims: &Range<usize>,
        out: &mut Tile<'_, f32>,
    ) {
        if keys.is_empty() {
            return;
        }
        let v = self.v;
        let mut weights: [&[f32]; Q] = [&[]; Q];
        let mut sums = [[v.splat_float(0.0); N]; Q];
        for q in 0..Q {
            let start = (at.query + q) * SPAN_TOKENS + at.part.start;
            weights[q] = &self.scores[start..][keys.clone()];
            if at.part.start + keys.start > self.queries[at.query + q].first {
                let out = self.result(at.query + q, dims, out);
                for n in 0..N {
                    sums[q][n] = load_some(v, &out[at.lane + n * V::LANES..]);
                }
            }
        }
        multiply(
            v,
            weights,
            values.from(keys.start * values.stride + at.lane),
            &mut sums,
        );
        for q in 0..Q {
            let out = self.result(at.query + q, dims, out);
            for n in 0..N {
                store_some(v, sums[q][n], &mut out[at.lane + n * V::LANES..]);
            }
        }
    }

    /// Some dimensions of the result of a query.
    #[inline(always)]
    fn result<'o>(
        &self,
        query: usize,
        dims: &Range<usize>,
        out: &'o mut Tile<'_, f32>,
    ) -> &'o mut [f32] {
        let query = &self.queries[query];
        let (values, _) = self.work.result(out.row_mut(query.row), query.head);
        &mut values[dims.start..dims.end]
    }
}

/// Scales the scores of `keys` and turns them into weights, as [`lanes::softmax`].
#[inline(always)]
fn scaled_softmax<V: Simd>(v: V, scores: &mut [f32], keys: Range<usize>, scale: f32) -> [f32; 2] {
    let (scale, none) = (v.splat_float(scale), f32::INFINITY);
    let (scores, keys) = lanes::whole_lanes(scores, keys);
    let (mut maxima, mut minima) = ([-none; lanes::LANES], [none; lanes::LANES]);
    for at in (0..lanes::LANES).step_by(V::LANES) {
        let (mut max, mut min) = (v.splat_float(-none), v.splat_float(none));
        for chunk in scores.iter_mut() {
            let score = v.mul(v.load(&chunk[at..]), scale);
            v.store(score, &mut chunk[at..]);
            max = v.max(max, score);
            min = v.min(min, score);
        }
        v.store(max, &mut maxima[at..]);
        v.store(min, &mut minima[at..]);
    }
    lanes::weights(scores, keys, (&maxima, &minima))
}

/// `sums[q][n] += x[q][k] * b[k][n]`, for all k in order; `n` counts vectors.
#[inline(always)]
fn multiply<V: Simd, E: Load, const N: usize, const Q: usize>(
    v: V,
    x: [&[f32]; Q],
    b: Lanes<'_, E>,
    sums: &mut [[V::Float; N]; Q],
) {
    let len = x[0].len();
    for x in x {
        assert_eq!(x.len(), len, "one length");
    }
    let mut tile = *sums;
    for k in 0..len {
        let row = &b.values[k * b.stride..][..N * V::LANES];
        let mut lanes = [v.splat_float(0.0); N];
        for n in 0..N {
            lanes[n] = E::load(v, &row[n * V::LANES..]);
        }
        for q in 0..Q {
            let x = v.splat_float(x[q][k]);
            for n in 0..N {
                tile[q][n] = v.mul_add(x, lanes[n], tile[q][n]);
            }
        }
    }
    *sums = tile;
}
