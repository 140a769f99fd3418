//! Attention of every instance and size of pages against the scalar twin, to the bit, and against f64.

use super::*;
use crate::budget::Budget;

/// Rows, heads, dimensions of keys and values, keys that the first row sees.
const ATTENTION: [(usize, usize, usize, usize, isize); 14] = [
    (1, 1, 64, 64, 1),
    (1, 3, 64, 64, 256),
    (1, 4, 12, 20, 256),
    (1, 8, 128, 64, 100),
    (2, 1, 10, 10, 64),
    (3, 7, 80, 80, 190),
    (4, 2, 1, 1, 255),
    (9, 1, 96, 130, -3),
    (6, 5, 20, 17, 300),
    (1, 64, 64, 64, 129),
    (50, 1, 16, 16, 1),
    (13, 4, 64, 64, 120),
    (70, 2, 66, 34, 0),
    (2, 3, 576, 512, 256),
];

/// Values of all pages of a span as planes are made of them: of keys, or of value rows. They are the
/// same values for all sizes of pages.
struct Stored {
    floats: Vec<f32>,
    halves: Vec<[u8; 2]>,
    bytes: Vec<u8>,
    scales: Vec<[u8; 2]>,
    /// Rows of a block.
    rows: usize,
    page_tokens: usize,
}

impl Stored {
    fn new(seed: u64, dim: usize, rows: usize, page_tokens: usize) -> Self {
        let all = floats(seed, SPAN_TOKENS * dim);
        let scales = floats(seed + 1, SPAN_TOKENS * dim.div_ceil(GROUP));
        // (tokens, values) as pages have them.
        let laid_out = |all: &[f32]| -> Vec<f32> {
            match rows {
                1 => all.to_vec(),
                _ => transposed(all, page_tokens),
            }
        };
        let floats = laid_out(&all);
        Self {
            halves: halves(&floats),
            bytes: floats.iter().map(|x| x.to_bits() as u8).collect(),
            scales: halves(&laid_out(&scales)),
            floats,
            rows,
            page_tokens,
        }
    }

    /// A page as f32, f16 and q8_0.
    fn planes(&self, page: usize) -> [Plane<'_>; 3] {
        let pages = SPAN_TOKENS / self.page_tokens;
        let (len, blocks) = (self.floats.len() / pages, self.scales.len() / pages);
        [
            Plane::F32(&self.floats[page * len..][..len]),
            Plane::F16(&self.halves[page * len..][..len]),
            Plane::Q8(Scaled {
                bytes: &self.bytes[page * len..][..len],
                scales: &self.scales[page * blocks..][..blocks],
                rows: self.rows,
            }),
        ]
    }
}

/// Values of all tokens of a span, transposed page by page.
fn transposed(all: &[f32], page_tokens: usize) -> Vec<f32> {
    let width = all.len() / SPAN_TOKENS;
    let page = |page: &[f32]| -> Vec<f32> {
        let column = |d| page.iter().skip(d).step_by(width);
        (0..width).flat_map(column).copied().collect()
    };
    all.chunks(page_tokens * width).flat_map(page).collect()
}

/// What may become of products: window, cap, slope, and where the span begins.
const SCORINGS: [(Window, f32, f32, usize); 12] = [
    (Window::All, 0.0, 0.0, 0),
    (Window::Sliding(1), 0.0, 0.0, 512),
    (Window::Sliding(9), 0.0, 0.0, 0),
    (Window::Sliding(70), 0.5, 0.0, 256),
    (Window::Sliding(300), 0.0, 0.0, 256),
    (Window::Chunked(48), 0.0, 0.0, 256),
    (Window::Chunked(150), 0.0, 0.02, 512),
    (Window::All, 0.5, 0.02, 0),
    (Window::Both, 0.0, 0.0, 256),
    (Window::Both, 0.0, 0.02, 512),
    (Window::Around(20), 0.0, 0.0, 256),
    (Window::Around(90), 0.5, 0.02, 256),
];

/// Keys of the sequence from the beginning of the span on, if the rows do not have more.
const REST: isize = 201;

#[test]
fn attention_to_a_span() {
    for (seed, (rows, heads, k_dim, v_dim, seen)) in (0..).zip(ATTENTION) {
        let stride = heads * k_dim + 3;
        let queries = floats(seed, rows * stride);
        let stored = PAGE_SIZES.map(|tokens| {
            (
                Stored::new(seed + 100, k_dim, GROUP, tokens),
                Stored::new(seed + 200, v_dim, 1, tokens),
            )
        });
        for format in 0..3 {
            let pages = stored.each_ref().map(|(keys, values)| -> Vec<_> {
                let page = |page| (keys.planes(page)[format], values.planes(page)[format]);
                (0..SPAN_TOKENS / keys.page_tokens).map(page).collect()
            });
            for (window, softcap, slope, start) in SCORINGS {
                let slopes: Vec<f32> = (0..heads).map(|head| slope * head as f32).collect();
                let work = |(page_tokens, pages)| Attention {
                    queries: &queries,
                    stride,
                    heads,
                    k_dim,
                    v_dim,
                    page_tokens,
                    pages,
                    seen,
                    start,
                    tokens: start + REST.max(seen + rows as isize) as usize,
                    scoring: Scoring {
                        scale: 1e-5,
                        softcap,
                        window,
                    },
                    slopes: if slope > 0.0 { &slopes } else { &[] },
                };
                let all = PAGE_SIZES.into_iter().zip(&pages);
                let mut outs = all.map(|(tokens, pages)| check(&work((tokens, pages)), rows));
                let first = outs.next().unwrap();
                assert!(outs.all(|out| out == first), "{rows} {window:?}");
            }
        }
    }
}

/// What every instance gives, as bits.
fn check(work: &Attention<'_>, rows: usize) -> Vec<u32> {
    let columns = work.heads * result_len(work.v_dim);
    let run = |kernels: &Kernels| {
        let mut out = vec![-7.0; rows * columns];
        let mut room = Room::new(&Budget::default()).unwrap();
        // What an earlier task left there must not show.
        room.fill(f32::NAN);
        kernels.attend(work, &mut room, &mut Tile::whole(&mut out, columns));
        out
    };
    same("attend", run);
    let out = run(detect());
    if work.page_tokens == PAGE_SIZES[0] {
        check_attention(work, rows, &out);
    }
    out.iter().map(|x| x.to_bits()).collect()
}

/// Compares with a plain softmax in f64.
fn check_attention(work: &Attention<'_>, rows: usize, out: &[f32]) {
    for (row, out) in out.chunks_exact(out.len() / rows).enumerate() {
        // The position of the row, counted from the span's first key.
        let position = work.seen + row as isize - 1;
        let absolute = work.start as isize + position;
        let sees = |key: &usize| {
            let (key, start) = (*key as isize, work.start as isize);
            let before = key <= position;
            let there = key + start < work.tokens as isize;
            match work.scoring.window {
                Window::All => before,
                Window::Sliding(keys) => before && key > position - keys as isize,
                Window::Chunked(keys) => {
                    before && (key + start) / keys as isize == absolute / keys as isize
                }
                Window::Both => there,
                Window::Around(reach) => there && key.abs_diff(position) <= reach,
            }
        };
        let keys: Vec<usize> = (0..SPAN_TOKENS).filter(sees).collect();
        for (head, out) in out.chunks_exact(result_len(work.v_dim)).enumerate() {
            match keys.is_empty() {
                true => assert!(out.iter().all(|x| *x == -7.0), "left alone"),
                false => check_head(work, (row, head), &keys, position as f64, out),
            }
        }
    }
}

fn check_head(
    work: &Attention<'_>,
    (row, head): (usize, usize),
    keys: &[usize],
    position: f64,
    out: &[f32],
) {
    let value = |plane: Plane<'_>, row, width, column| {
        let start = column - column % GROUP;
        let mut out = vec![0.0; column - start + 1];
        plane.decode(row, width, start, &mut out);
        f64::from(out[column - start])
    };
    let query = work.query(row, head);
    let score = |&key: &usize| -> f64 {
        let (keys, _) = work.pages[key / work.page_tokens];
        let of_key = |d| value(keys, d, work.page_tokens, key % work.page_tokens);
        let product = (0..work.k_dim).map(|d| f64::from(query[d]) * of_key(d));
        let score = product.sum::<f64>() * f64::from(work.scoring.scale);
        let capped = match f64::from(work.scoring.softcap) {
            0.0 => score,
            cap => cap * (score / cap).tanh(),
        };
        let slope = work.slopes.get(head).map_or(0.0, |slope| f64::from(*slope));
        capped + slope * -(key as f64 - position).abs()
    };
    let scores: Vec<f64> = keys.iter().map(score).collect();
    let max = scores.iter().copied().fold(f64::MIN, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let close = |a: f64, b: f64, size: f64| (a - b).abs() <= 1e-2 * size;
    assert!(close(f64::from(out[work.v_dim]), max, max.abs() + 1.0));
    let sum: f64 = weights.iter().sum();
    assert!(close(f64::from(out[work.v_dim + 1]), sum, sum));
    for d in 0..work.v_dim {
        let term = |(key, weight): (&usize, &f64)| {
            let (_, values) = work.pages[key / work.page_tokens];
            weight * value(values, key % work.page_tokens, work.v_dim, d)
        };
        let terms: Vec<f64> = keys.iter().zip(&weights).map(term).collect();
        let size: f64 = terms.iter().map(|term| term.abs()).sum();
        assert!(close(f64::from(out[d]), terms.iter().sum(), size + 1e-6));
    }
}

#[test]
fn spans_are_joined() {
    for dims in [1, 2, 8, 12, 16, 20, 64, 80, 128, 130] {
        let spans: Vec<f32> = floats(6, 5 * (dims + 2))
            .iter()
            .map(|x| x.abs() + 0.1)
            .collect();
        for sink in [f32::NEG_INFINITY, -3.0, 5.0] {
            let joined = |kernels: &Kernels| {
                let mut out = vec![0.0; dims];
                kernels.join_spans(&spans, (dims + 2, 5), sink, &mut out);
                out
            };
            same("join_spans", joined);
            let each = || spans.chunks_exact(dims + 2);
            let largest = each().fold(sink, |max, span| max.max(span[dims]));
            let exp = |score: f32| (f64::from(score) - f64::from(largest)).exp();
            let weight = |span: &[f32]| exp(span[dims]);
            let total = each().map(|span| weight(span) * f64::from(span[dims + 1]));
            let total = total.sum::<f64>() + exp(sink);
            let first: f64 = each().map(|span| weight(span) * f64::from(span[0])).sum();
            let error = f64::from(joined(detect())[0]) - first / total;
            assert!(error.abs() <= 1e-5 * first / total, "{dims} {sink}");
        }
    }
}
