//! Speed of every kernel on one thread, beside what the machine can do: a plain read of a buffer of
//! the same size, and the best multiply-add on registers, both measured in the same run.
//!
//! `cargo bench --bench kernels -- Q4_0 norm` measures what has one of these words in its name.

#![allow(clippy::print_stdout, missing_docs)]

use std::hint::black_box;
use std::time::Instant;

use lightgpt::budget::Budget;
use lightgpt::kernel::{
    self, Attention, Input, Kernels, PAGE_TOKENS, Peak, Plane, Room, SPAN_TOKENS, Scaled, Scoring,
    Window, result_len,
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
/// Samples of each kernel, of at least so many seconds each; their median counts.
const SAMPLES: usize = 7;
const SAMPLE_SECONDS: f64 = 0.01;

/// The machine's limits, and what is to be measured.
struct Bench {
    kernels: &'static Kernels,
    integer: f64,
    float: f64,
    words: Vec<String>,
}

/// What one call of a kernel does.
struct Work {
    bytes: usize,
    multiply_adds: usize,
    /// Whether they are of integers.
    integer: bool,
}

fn main() {
    let words = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'));
    let kernels = kernel::detect();
    let (integer, float) = (kernels.integer_peak(), kernels.float_peak());
    let bench = Bench {
        kernels,
        integer: peak(integer),
        float: peak(float),
        words: words.collect(),
    };
    let (isa, integers, floats) = (kernels.isa().name(), bench.integer / 1e9, bench.float / 1e9);
    println!(
        "{isa}, one thread; G multiply-adds/s: {integers:.0} ({}), {floats:.0} ({})",
        integer.name(),
        float.name()
    );
    println!(
        "\n{:<34} {:>10} {:>9} {:>9} {:>8} {:>9} {:>8}",
        "", "us", "+- %", "GB/s", "of read", "G mul/s", "of peak"
    );
    for format in Format::all().filter(|&format| quant::is_computable(format)) {
        for tokens in [1, 16, 256] {
            bench.matmul(format, tokens);
        }
    }
    bench.rows();
    bench.attention();
}

impl Bench {
    /// Measures `run`, unless it was not asked for, and prints a line.
    fn line(&self, name: &str, work: &Work, run: &mut dyn FnMut()) {
        let asked = self.words.iter().any(|word| name.contains(word.as_str()));
        if !asked && !self.words.is_empty() {
            return;
        }
        let (seconds, spread) = time(run);
        let memory: Vec<u64> = (0..work.bytes.div_ceil(8) as u64).collect();
        let (read, _) = time(&mut || {
            black_box(self.kernels.read(black_box(&memory)));
        });
        let bytes = work.bytes as f64 / seconds;
        print!(
            "{name:<34} {:>10.2} {:>9.1} {:>9.2} {:>7.0}%",
            seconds * 1e6,
            100.0 * spread,
            bytes / 1e9,
            100.0 * read / seconds
        );
        if work.multiply_adds > 0 {
            let rate = work.multiply_adds as f64 / seconds;
            let peak = if work.integer {
                self.integer
            } else {
                self.float
            };
            print!(" {:>9.1} {:>7.1}%", rate / 1e9, 100.0 * rate / peak);
        }
        println!();
    }

    fn matmul(&self, format: Format, tokens: usize) {
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
        let finite = self.kernels.quantize_row(&floats, &mut quants);
        assert!(finite, "random floats are finite");
        let input = Input {
            columns: COLUMNS,
            stride: COLUMNS,
            floats: &floats,
            quants: &quants,
        };
        let mut out = vec![0.0; tokens * rows];
        let work = Work {
            bytes: weights.len(),
            multiply_adds: tokens * rows * COLUMNS,
            integer: format.block_len() > 1,
        };
        self.line(&name, &work, &mut || {
            let mut tile = Tile::whole(&mut out, rows);
            self.kernels
                .matmul(format, black_box(&weights), black_box(&input), 0, &mut tile);
            black_box(&mut out);
        });
    }

    /// What is done with the activations of one token.
    fn rows(&self) {
        let kernels = self.kernels;
        let (x, weight) = (floats(COLUMNS), vec![1.0; COLUMNS]);
        let reads = |floats: usize| Work {
            bytes: 4 * floats,
            multiply_adds: 0,
            integer: false,
        };
        let mut quants = vec![Activation::default(); COLUMNS / GROUP];
        self.line("quantize_row 2048", &reads(COLUMNS), &mut || {
            black_box(kernels.quantize_row(black_box(&x), &mut quants));
        });
        let mut row = x.clone();
        self.line("rms_norm 2048", &reads(2 * COLUMNS), &mut || {
            black_box(kernels.rms_norm(black_box(&mut row), &weight, 1e-5));
        });
        self.line("add 2048", &reads(2 * COLUMNS), &mut || {
            kernels.add(black_box(&mut row), black_box(&weight));
        });
        let (values, up) = (floats(5632), vec![0.9; 5632]);
        let mut gate = values.clone();
        self.line("swiglu 5632", &reads(2 * 5632), &mut || {
            // Done again and again, it would end in subnormal numbers.
            gate.copy_from_slice(&values);
            kernels.swiglu(black_box(&mut gate), black_box(&up));
        });
        let turns: Vec<[f32; 2]> = (0..32)
            .map(|i| [0.6, if i % 2 == 0 { 0.8 } else { -0.8 }])
            .collect();
        let mut heads = x.clone();
        self.line(
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
    fn attention(&self) {
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
                    bytes: &bytes[..dim * PAGE_TOKENS],
                    scales: &scales[..dim * PAGE_TOKENS / GROUP],
                    rows,
                })
            };
            let page = ..dim * PAGE_TOKENS;
            let planes = [
                ("f32", 4 * len, [Plane::F32(&values[page]); 2]),
                ("f16", 2 * len, [Plane::F16(&halves[page]); 2]),
                ("q8_0", len + 2 * len / GROUP, [scaled(GROUP), scaled(1)]),
            ];
            for (name, bytes, [keys, values]) in planes {
                let pages = [(keys, values); SPAN_TOKENS / PAGE_TOKENS];
                let attention = Attention {
                    queries: &queries,
                    stride: width,
                    heads,
                    k_dim: dim,
                    v_dim: dim,
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
                let name = format!("attention {name} {rows} x {heads} heads of {dim}");
                self.line(&name, &work, &mut || {
                    let mut tile = Tile::whole(&mut out, columns);
                    self.kernels
                        .attend(black_box(&attention), &mut room, &mut tile);
                    black_box(&mut out);
                });
            }
        }
    }
}

/// Median seconds of a call, and the distance of the quartiles as a part of it.
fn time(run: &mut dyn FnMut()) -> (f64, f64) {
    let mut calls = 1;
    loop {
        let began = Instant::now();
        (0..calls).for_each(|_| run());
        if began.elapsed().as_secs_f64() >= SAMPLE_SECONDS {
            break;
        }
        calls *= 2;
    }
    let mut samples: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let began = Instant::now();
            (0..calls).for_each(|_| run());
            began.elapsed().as_secs_f64() / f64::from(calls)
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    let median = samples[SAMPLES / 2];
    let quartiles = samples[3 * SAMPLES / 4] - samples[SAMPLES / 4];
    (median, quartiles / median)
}

/// Multiply-adds a second, at best.
fn peak(peak: Peak) -> f64 {
    const ROUNDS: u64 = 100_000;
    let times = (0..20).map(|_| {
        let began = Instant::now();
        let done = peak.run(ROUNDS);
        done as f64 / began.elapsed().as_secs_f64()
    });
    times.fold(0.0, f64::max)
}

/// Uniform in [-1, 1).
fn floats(count: usize) -> Vec<f32> {
    let value = |step| 2.0 * Random { seed: 2, step }.unit_f32(0) - 1.0;
    (0..count as u64).map(value).collect()
}
