//! Speed of every kernel on one thread, each in a group with what the machine can do: a plain read of
//! a buffer of the same size, and the best multiply-add on registers.
//!
//! `cargo bench --bench kernels -- Q4_0` measures what has this in its name. An element is a
//! multiply-add.

#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use lightgpt::budget::Budget;
use lightgpt::kernel::{
    self, Attention, Input, Kernels, PAGE_SIZES, Plane, Room, SPAN_TOKENS, Scaled, Scoring, Window,
    result_len,
};
use lightgpt::quant::{self, Activation, Format, GROUP};
use lightgpt::random::Random;
use lightgpt::team::Tile;

/// Columns of the matrices: a common width.
const COLUMNS: usize = 2048;
/// Bytes of weights that one token meets: more than caches nearby hold.
const STREAMED_BYTES: usize = 64 << 20;
/// Rows of a matrix that several tokens meet.
const ROWS: usize = 1024;
/// Rounds of a peak that are timed at once.
const PEAK_ROUNDS: u64 = 10_000;

/// What one call of a kernel does.
struct Work {
    bytes: usize,
    multiply_adds: usize,
    /// Whether they are of integers.
    integer: bool,
}

struct Bench<'a> {
    criterion: &'a mut Criterion,
    kernels: &'static Kernels,
}

fn all(criterion: &mut Criterion) {
    let kernels = kernel::detect();
    let mut bench = Bench { criterion, kernels };
    for format in Format::all().filter(|&format| quant::is_computable(format)) {
        for tokens in [1, 16, 256] {
            bench.matmul(format, tokens);
        }
    }
    bench.rows();
    for page_tokens in PAGE_SIZES {
        bench.attention(page_tokens);
    }
}

impl Bench<'_> {
    /// Measures `run`, and the limits of what it does.
    fn group(&mut self, name: &str, work: &Work, run: &mut dyn FnMut()) {
        let kernels = self.kernels;
        let mut group = self.criterion.benchmark_group(name);
        group.sample_size(20);
        group.warm_up_time(Duration::from_millis(100));
        group.measurement_time(Duration::from_millis(300));
        let bytes = Throughput::Bytes(work.bytes as u64);
        group.throughput(match work.multiply_adds {
            0 => bytes.clone(),
            _ => Throughput::ElementsAndBytes {
                elements: work.multiply_adds as u64,
                bytes: work.bytes as u64,
            },
        });
        group.bench_function("kernel", |bench| bench.iter(&mut *run));
        let memory: Vec<u64> = (0..work.bytes.div_ceil(8) as u64).collect();
        group.throughput(bytes);
        group.bench_function("limit: read", |bench| {
            bench.iter(|| kernels.read(black_box(&memory)));
        });
        if work.multiply_adds > 0 {
            let peak = match work.integer {
                true => kernels.integer_peak(),
                false => kernels.float_peak(),
            };
            group.throughput(Throughput::Elements(peak.run(PEAK_ROUNDS)));
            group.bench_function(format!("limit: {}", peak.name()), |bench| {
                bench.iter(|| peak.run(PEAK_ROUNDS));
            });
        }
        group.finish();
    }

    fn matmul(&mut self, format: Format, tokens: usize) {
        let kernels = self.kernels;
        let row_bytes = format.bytes(COLUMNS as u64).expect("whole blocks") as usize;
        let rows = match tokens {
            1 => STREAMED_BYTES / row_bytes / 16 * 16,
            _ => ROWS,
        };
        let name = format!("matmul {} {tokens} tokens {rows} rows", format.name());
        let mut weights = vec![0; rows * row_bytes];
        for (step, row) in (0..).zip(weights.chunks_exact_mut(row_bytes)) {
            let random = Random { seed: 1, step };
            quant::random_blocks(format, 0.02, random, row).expect("a computable format");
        }
        let floats = floats(tokens * COLUMNS);
        let mut quants = vec![Activation::default(); floats.len() / GROUP];
        let finite = kernels.quantize_row(&floats, &mut quants);
        assert!(finite, "random floats are finite");
        let input = Input::new(COLUMNS, &floats, &quants);
        let mut out = vec![0.0; tokens * rows];
        let work = Work {
            bytes: weights.len(),
            multiply_adds: tokens * rows * COLUMNS,
            integer: format.block_len() > 1,
        };
        self.group(&name, &work, &mut || {
            let mut tile = Tile::whole(&mut out, rows);
            kernels.matmul(
                format,
                black_box(&weights),
                black_box(&input),
                &[],
                &mut tile,
            );
            black_box(&mut out);
        });
    }

    /// What is done with the activations of one token.
    fn rows(&mut self) {
        let kernels = self.kernels;
        let (x, weight) = (floats(COLUMNS), vec![1.0; COLUMNS]);
        let reads = |floats: usize| Work {
            bytes: 4 * floats,
            multiply_adds: 0,
            integer: false,
        };
        let mut quants = vec![Activation::default(); COLUMNS / GROUP];
        self.group("quantize_row 2048", &reads(COLUMNS), &mut || {
            black_box(kernels.quantize_row(black_box(&x), &mut quants));
        });
        let mut row = x.clone();
        self.group("rms_norm 2048", &reads(2 * COLUMNS), &mut || {
            black_box(kernels.rms_norm(black_box(&mut row), &weight, 1e-5));
        });
        self.group("add 2048", &reads(2 * COLUMNS), &mut || {
            kernels.add(black_box(&mut row), black_box(&weight));
        });
        let (values, up) = (floats(5632), vec![0.9; 5632]);
        let mut gate = values.clone();
        self.group("swiglu 5632", &reads(2 * 5632), &mut || {
            // Done again and again, it would end in subnormal numbers.
            gate.copy_from_slice(&values);
            kernels.swiglu(black_box(&mut gate), black_box(&up));
        });
        let turns: Vec<[f32; 2]> = (0..32)
            .map(|i| [0.6, if i % 2 == 0 { 0.8 } else { -0.8 }])
            .collect();
        let mut heads = x.clone();
        self.group(
            "rope_interleaved 32 heads of 64",
            &reads(COLUMNS),
            &mut || {
                for head in heads.chunks_exact_mut(64) {
                    kernels.rope_interleaved(black_box(head), &turns);
                }
            },
        );
    }

    /// Queries of some rows, each of some heads that share keys, over all keys of a span.
    fn attention(&mut self, page_tokens: usize) {
        let kernels = self.kernels;
        for (rows, heads, dim) in [(1, 1, 64), (1, 8, 64), (9, 8, 64), (36, 2, 128)] {
            let (width, len) = (heads * dim, dim * SPAN_TOKENS);
            let (queries, values) = (floats(rows * width), floats(len));
            let halves: Vec<[u8; 2]> = values
                .iter()
                .map(|&x| half::f16::from_f32(x).to_le_bytes())
                .collect();
            let bytes: Vec<u8> = (0..len).map(|i| (i * 37) as u8).collect();
            let scales = vec![half::f16::from_f32(0.01).to_le_bytes(); len / GROUP];
            let scaled = |rows| {
                Plane::Q8(Scaled {
                    bytes: &bytes[..dim * page_tokens],
                    scales: &scales[..dim * page_tokens / GROUP],
                    rows,
                })
            };
            let page = ..dim * page_tokens;
            let planes = [
                ("f32", 4 * len, [Plane::F32(&values[page]); 2]),
                ("f16", 2 * len, [Plane::F16(&halves[page]); 2]),
                ("q8_0", len + 2 * len / GROUP, [scaled(GROUP), scaled(1)]),
            ];
            for (name, bytes, [keys, values]) in planes {
                let pages = vec![(keys, values); SPAN_TOKENS / page_tokens];
                let attention = Attention {
                    queries: &queries,
                    stride: width,
                    heads,
                    k_dim: dim,
                    v_dim: dim,
                    page_tokens,
                    pages: &pages,
                    seen: SPAN_TOKENS as isize,
                    tokens: SPAN_TOKENS,
                    start: 0,
                    scoring: Scoring {
                        scale: 0.125,
                        softcap: 0.0,
                        window: Window::All,
                    },
                    slopes: &[],
                };
                let work = Work {
                    bytes: 2 * bytes,
                    multiply_adds: 2 * rows * heads * len,
                    integer: false,
                };
                let columns = heads * result_len(dim);
                let (mut room, mut out) = (
                    Room::new(&Budget::default()).expect("memory"),
                    vec![0.0; rows * columns],
                );
                let name = format!(
                    "attention {name} {rows} x {heads} heads of {dim}, pages of {page_tokens}"
                );
                self.group(&name, &work, &mut || {
                    let mut tile = Tile::whole(&mut out, columns);
                    kernels.attend(black_box(&attention), &mut room, &mut tile);
                    black_box(&mut out);
                });
            }
        }
    }
}

/// Uniform in [-1, 1).
fn floats(count: usize) -> Vec<f32> {
    let value = |step| 2.0 * Random { seed: 2, step }.unit_f32(0) - 1.0;
    (0..count as u64).map(value).collect()
}

criterion_group!(benches, all);
criterion_main!(benches);
