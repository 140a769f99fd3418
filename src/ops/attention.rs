//! Scaled dot-product attention of query rows over the pages of their sequences.
//!
//! Keys fall into spans by absolute position; each span gives a maximum, a sum of weights and a
//! weighted row of values, and the spans of a query are joined in order. Source: Vaswani et al.,
//! "Attention Is All You Need", 2017; the join is that of Milakov and Gimelshein, "Online
//! normalizer calculation for softmax", 2018.

use std::cell::RefCell;
use std::ops::Range;

use crate::budget::Budget;
use crate::error::Result;
use crate::kernel::{Attention, Kernels, Plane, Room, Scoring, Window, result_len};
use crate::kv::{Cache, PAGE_SIZES, PAGE_TOKENS, SPAN_TOKENS};
use crate::team::Tile;

/// Floats of spans that are kept at once if a single row does not need more: 4 MiB.
const SPANS_LEN: usize = 1 << 20;
/// Multiply-adds that one task should have at least: some 5 microseconds of work.
const TASK_MIN: usize = 1 << 18;
/// Tasks of a thread, at least, where the work allows: so that threads end together.
const TASKS: usize = 8;
/// Queries of a task that share what is decoded of a page.
const QUERIES: usize = 72;
/// How much longer a multiply-add takes here than with the integers of a block.
const COST: usize = 4;

/// Heads of keys and values, and the query heads that share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Key and value heads.
    pub kv_heads: usize,
    /// Query heads that share a key head.
    pub group: usize,
    /// Values in a query and a key.
    pub k_dim: usize,
    /// Values in a value row.
    pub v_dim: usize,
}

impl Heads {
    /// Floats of a span of the query heads that share a key head.
    fn span_len(&self) -> usize {
        self.group * result_len(self.v_dim)
    }

    /// Multiply-adds of the same.
    fn span_work(&self) -> usize {
        SPAN_TOKENS * self.group * (self.k_dim + self.v_dim)
    }
}

/// Rows and key heads whose spans are in scratch at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// Key heads.
    pub kv_heads: Range<usize>,
}

/// How the spans of query rows are cut into blocks and tasks. A block lies in scratch as (rows,
/// kv_heads, spans, group, result).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spans {
    heads: Heads,
    /// The first span that a row sees.
    first: usize,
    /// Spans of a row, a multiple of those of a task.
    spans: usize,
    /// Rows of a block.
    rows: usize,
    /// Key heads of a block, a divisor of all.
    kv_heads: usize,
    /// Rows of a task.
    task_rows: usize,
    /// Spans of a task.
    task_spans: usize,
    /// Query heads of a task: a group, or a part of it if a span is too much.
    task_heads: usize,
    work_ns: usize,
}

impl Spans {
    /// The spans of `rows` rows that see some of `keys`, cut for `threads`, in scratch of `room`
    /// floats, at least [`Spans::scratch_len`]. They depend on nothing else, so a paused phase finds
    /// them again.
    pub fn new(
        kernels: &Kernels,
        heads: Heads,
        (rows, keys): (usize, Range<usize>),
        room: usize,
        threads: usize,
    ) -> Self {
        // So many keys are scored together.
        let seen = rows
            .saturating_mul(keys.len().max(PAGE_TOKENS))
            .saturating_mul(heads.kv_heads);
        let work = (heads.span_work() / SPAN_TOKENS).saturating_mul(seen);
        let first = keys.start / SPAN_TOKENS;
        let spans = spans_of(keys.end) - first;
        // The work of one row, key head and span.
        let least = heads.span_work();
        let all = rows
            .saturating_mul(spans * heads.kv_heads)
            .saturating_mul(least);
        let task_max = (kernels.task_max() / COST).max(TASK_MIN);
        let task = (all / (TASKS * threads)).clamp(TASK_MIN, task_max);
        let task_rows = (QUERIES / heads.group)
            .min(task / least)
            .clamp(1, rows.max(1));
        let tasks = spans.div_ceil((task / (task_rows * least)).clamp(1, spans));
        let task_spans = spans.div_ceil(tasks);
        let spans = tasks * task_spans;
        // Rows by key heads that scratch can hold: rather many rows than all heads.
        let fit = (room / (spans * heads.span_len())).max(1);
        let kv_heads = divisor(heads.kv_heads, fit / task_rows);
        let task_rows = task_rows.min(fit / kv_heads);
        Self {
            heads,
            first,
            spans,
            rows: fit / kv_heads / task_rows * task_rows,
            kv_heads,
            task_rows,
            task_spans,
            task_heads: divisor(heads.group, heads.group / least.div_ceil(task_max)),
            work_ns: kernels.work_ns(work.saturating_mul(COST)),
        }
    }

    /// About how many nanoseconds all rows take on one thread.
    pub fn work_ns(&self) -> usize {
        self.work_ns
    }

    /// Floats of scratch that hold a row and key head at least, for rows that see at most `tokens`
    /// keys.
    pub fn scratch_len(heads: Heads, tokens: usize) -> usize {
        let spans = spans_of(tokens);
        // Tasks of one size round up by less than tasks, and by less than spans of a task.
        let spans = spans + spans.isqrt();
        spans.saturating_mul(heads.span_len()).max(SPANS_LEN)
    }

    /// Block number `block` of `rows` rows; all key heads of some rows before the next rows.
    pub fn block(&self, block: usize, rows: usize) -> Option<Block> {
        let heads = self.heads.kv_heads / self.kv_heads;
        let (row, head) = (block / heads * self.rows, block % heads * self.kv_heads);
        (row < rows).then(|| Block {
            rows: row..rows.min(row + self.rows),
            kv_heads: head..head + self.kv_heads,
        })
    }

    /// Floats of a row of a block.
    pub fn row_len(&self) -> usize {
        self.kv_heads * self.spans * self.heads.span_len()
    }

    /// Rows and floats of the tile of a task.
    pub fn tile(&self) -> (usize, usize) {
        let heads = match self.task_heads == self.heads.group {
            true => self.task_spans * self.heads.group,
            false => self.task_heads,
        };
        (self.task_rows, heads * result_len(self.heads.v_dim))
    }
}

/// The largest divisor of `number` that is at most `most`, or 1.
fn divisor(number: usize, most: usize) -> usize {
    let divides = |size: &usize| number.is_multiple_of(*size);
    (1..=most.min(number)).rev().find(divides).unwrap_or(1)
}

fn spans_of(tokens: usize) -> usize {
    tokens.div_ceil(SPAN_TOKENS).max(1)
}

/// Where a row of queries stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index of its cache.
    pub cache: usize,
    /// Its position.
    pub position: usize,
    /// Tokens of its sequence, all of whose keys are in the cache.
    pub tokens: usize,
}

impl Place {
    /// The end of what its query sees.
    pub fn end(&self, window: Window) -> usize {
        window.end(self.position, self.tokens)
    }
}

/// Rows of queries, and where they look.
#[derive(Debug, Clone)]
pub struct Queries<'a, P> {
    /// (rows of the batch, stride): each row begins with its query heads, (kv_heads, group, k_dim).
    pub values: &'a [f32],
    /// Distance between rows.
    pub stride: usize,
    /// What the scratch holds.
    pub block: Block,
    /// Where a row stands.
    pub place: P,
    /// The pages of all sequences.
    pub caches: &'a [Cache],
    /// Layer of the caches.
    pub layer: usize,
    /// How products become scores, and which keys are seen.
    pub scoring: Scoring,
    /// What distance adds to the scores of each query head: (heads) or none.
    pub slopes: &'a [f32],
}

/// Runs the task whose tile is `out`: some spans of query heads that share a key head, for some
/// rows. Spans of which a row sees nothing are left alone. Fails if there is no memory for the room
/// of this thread, which stays for its next task.
pub fn attend<P: Fn(usize) -> Place>(
    kernels: &Kernels,
    spans: &Spans,
    queries: &Queries<'_, P>,
    out: &mut Tile<'_, f32>,
) -> Result<()> {
    thread_local! {
        static ROOM: RefCell<Option<Room>> = const { RefCell::new(None) };
    }
    ROOM.with_borrow_mut(|room| {
        let room = match room {
            Some(room) => room,
            None => room.insert(Room::new(&Budget::default())?),
        };
        attend_in(kernels, spans, queries, (room, out));
        Ok(())
    })
}

fn attend_in<P: Fn(usize) -> Place>(
    kernels: &Kernels,
    spans: &Spans,
    queries: &Queries<'_, P>,
    (room, out): (&mut Room, &mut Tile<'_, f32>),
) {
    let rows = out.row_range();
    let rows = queries.block.rows.start + rows.start..queries.block.rows.start + rows.end;
    let mut start = rows.start;
    while start < rows.end {
        let first = (queries.place)(start);
        let follows = |row: &usize| {
            let position = first.position + row - start;
            (queries.place)(*row) == Place { position, ..first }
        };
        let end = start + (start..rows.end).take_while(follows).count();
        attend_run(kernels, spans, queries, start..end, (&mut *room, out));
        start = end;
    }
}

/// The same for rows that follow each other in a sequence.
fn attend_run<P: Fn(usize) -> Place>(
    kernels: &Kernels,
    spans: &Spans,
    queries: &Queries<'_, P>,
    rows: Range<usize>,
    (room, out): (&mut Room, &mut Tile<'_, f32>),
) {
    let Heads {
        group,
        k_dim,
        v_dim,
        ..
    } = spans.heads;
    let place = (queries.place)(rows.start);
    let (cache, position) = (&queries.caches[place.cache], place.position);
    let end = (queries.place)(rows.end - 1).end(queries.scoring.window);
    let first_row = rows.start - queries.block.rows.start - out.row_range().start;
    // The tile's first head and span, as they lie in a row.
    let first = out.column_range().start / result_len(v_dim);
    let (kv_head, first) = (first / (spans.spans * group), first % (spans.spans * group));
    let heads = spans.task_heads;
    let part_len = heads * result_len(v_dim);
    for part in 0..out.column_range().len() / part_len {
        let member = first + part * heads;
        let (span, member) = (member / group, member % group);
        let start = (spans.first + span) * SPAN_TOKENS;
        if start >= end {
            return;
        }
        if start + SPAN_TOKENS <= queries.scoring.window.first(position) {
            continue;
        }
        let head = kv_head * group + member;
        let page_tokens = cache.layout().page_tokens();
        let page = start / page_tokens;
        let pages = page..end.min(start + SPAN_TOKENS).div_ceil(page_tokens);
        // A few pages do not pay for the room of many.
        let (few, many): ([_; 4], [_; SPAN_TOKENS / PAGE_SIZES[0]]);
        let (head_of, count) = ((queries.layer, kv_head), pages.len());
        let all: &[_] = match count {
            ..=4 => {
                few = planes(cache, head_of, pages);
                &few
            }
            _ => {
                many = planes(cache, head_of, pages);
                &many
            }
        };
        let work = Attention {
            queries: &queries.values[rows.start * queries.stride + head * k_dim..],
            stride: queries.stride,
            heads,
            k_dim,
            v_dim,
            page_tokens,
            pages: &all[..count],
            seen: position as isize + 1 - start as isize,
            start,
            tokens: place.tokens,
            scoring: queries.scoring,
            slopes: queries.slopes.get(head..).unwrap_or(&[]),
        };
        let columns = part * part_len..(part + 1) * part_len;
        let rows = first_row..first_row + rows.len();
        kernels.attend(&work, room, &mut out.part_mut(rows, columns));
    }
}

/// The planes of some pages of a layer and key head, at least one and at most `N`; copies of the first
/// make up `N`.
fn planes<'a, const N: usize>(
    cache: &'a Cache,
    (layer, kv_head): (usize, usize),
    pages: Range<usize>,
) -> [(Plane<'a>, Plane<'a>); N] {
    let planes = |page| cache.page(page).planes(cache.layout(), layer, kv_head);
    let mut all = [planes(pages.start); N];
    for (of_page, page) in all.iter_mut().zip(pages) {
        *of_page = planes(page);
    }
    all
}

/// Joins the spans of the query heads of a row: `row` is (kv_heads, spans, group, result), `out`
/// (query heads of these, v_dim). What `window` shows at the row's place was seen; `sinks` are the
/// scores of these heads that no value belongs to, or none.
pub fn join(
    kernels: &Kernels,
    spans: &Spans,
    row: &[f32],
    (window, at): (Window, Place),
    sinks: &[f32],
    out: &mut [f32],
) {
    let Heads { group, v_dim, .. } = spans.heads;
    let span_len = spans.heads.span_len();
    let first = window.first(at.position) / SPAN_TOKENS;
    let place = (span_len, spans_of(at.end(window)) - first);
    for (head, out) in out.chunks_exact_mut(v_dim).enumerate() {
        let (kv_head, member) = (head / group, head % group);
        let span = kv_head * spans.spans + (first - spans.first);
        let start = span * span_len + member * result_len(v_dim);
        let sink = sinks.get(head).copied().unwrap_or(f32::NEG_INFINITY);
        kernels.join_spans(&row[start..], place, sink, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel;

    #[test]
    fn tasks_are_bounded_and_fit_into_scratch() {
        for tokens in [1, 255, 256, 257, 2304, 2305, 9000, 100_000] {
            for (group, kv_heads, dim) in [
                (1, 1, 10),
                (4, 2, 64),
                (8, 4, 64),
                (7, 2, 128),
                (48, 1, 576),
            ] {
                let heads = Heads {
                    kv_heads,
                    group,
                    k_dim: dim,
                    v_dim: dim,
                };
                for rows in [1, 5, 512] {
                    for threads in [1, 2, 64] {
                        for first in [0, 700] {
                            let keys = first..first + tokens;
                            let room = Spans::scratch_len(heads, keys.end);
                            let rows = (rows, keys);
                            let spans = Spans::new(kernel::detect(), heads, rows, room, threads);
                            check(spans, tokens, room);
                        }
                    }
                }
            }
        }
    }

    fn check(spans: Spans, tokens: usize, room: usize) {
        let heads = spans.heads;
        assert!(spans.spans >= spans_of(tokens) && spans.spans.is_multiple_of(spans.task_spans));
        assert!(
            spans.rows > 0 && spans.rows * spans.row_len() <= room,
            "{spans:?}"
        );
        assert!(spans.rows.is_multiple_of(spans.task_rows));
        let (rows, columns) = spans.tile();
        // Tiles do not straddle key heads.
        assert!(
            (spans.row_len() / spans.kv_heads).is_multiple_of(columns),
            "{spans:?}"
        );
        let work =
            columns / result_len(heads.v_dim) * rows * SPAN_TOKENS * (heads.k_dim + heads.v_dim);
        let least = SPAN_TOKENS * (heads.k_dim + heads.v_dim);
        let task_max = (kernel::detect().task_max() / COST).max(TASK_MIN);
        assert!(work <= task_max.max(least), "{spans:?}: {work}");
        // Blocks cover everything once.
        let rows = 2 * spans.rows + 1;
        let blocks = (0..).map_while(|block| spans.block(block, rows));
        let sizes = blocks.map(|block| block.rows.len() * block.kv_heads.len());
        assert_eq!(sizes.sum::<usize>(), rows * heads.kv_heads);
    }
}
