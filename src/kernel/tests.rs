//! Every instance against the scalar twin, to the bit, at lengths around every edge.

use super::*;
use crate::random::Random;

const LENGTHS: [usize; 14] = [0, 1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 300];

/// Values of many magnitudes and both signs, zeros among them.
fn floats(seed: u64, len: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    for i in 0..len {
        let random = Random {
            seed,
            step: i as u64,
        };
        let exponent = (random.bits(1) % 24) as i32 - 12;
        let value = (random.unit_f32(0) - 0.5) * 2f32.powi(exponent);
        values.push(if random.bits(2).is_multiple_of(17) {
            0.0
        } else {
            value
        });
    }
    values
}

fn halves(values: &[f32]) -> Vec<[u8; 2]> {
    values
        .iter()
        .map(|&x| crate::float::f16_from_f32(x).to_le_bytes())
        .collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Runs `f` with every instance and demands the scalar one's bits.
fn same(what: &str, f: impl Fn(&Kernels) -> Vec<f32>) {
    let truth = bits(&f(force(Isa::Scalar)));
    for kernels in available() {
        assert_eq!(
            bits(&f(kernels)),
            truth,
            "{what} with {}",
            kernels.isa().name()
        );
    }
}

/// A valid row of `columns` weights: random bytes whose scales are small finite numbers.
fn weight_rows(format: Format, rows: usize, columns: usize, seed: u64) -> Vec<u8> {
    let bytes = rows * format.bytes(columns as u64).unwrap() as usize;
    let mut out: Vec<u8> = (0..bytes)
        .map(|i| {
            Random {
                seed,
                step: i as u64,
            }
            .bits(0) as u8
        })
        .collect();
    let half = |out: &mut [u8], at: usize, value: f32| {
        out[at..at + 2].copy_from_slice(&crate::float::f16_from_f32(value).to_le_bytes());
    };
    for (i, block) in out.chunks_exact_mut(format.block_bytes()).enumerate() {
        let d = Random {
            seed: seed + 1,
            step: i as u64,
        }
        .unit_f32(0)
            - 0.5;
        match format {
            Format::F32 => block.copy_from_slice(&d.to_le_bytes()),
            Format::F16 => half(block, 0, d),
            Format::BF16 => block.copy_from_slice(&((d.to_bits() >> 16) as u16).to_le_bytes()),
            Format::Q2_K => (half(block, 80, d), half(block, 82, d * 0.3)).0,
            Format::Q3_K => half(block, 108, d),
            Format::Q6_K => half(block, 208, d),
            Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => {
                (half(block, 0, d), half(block, 2, d * 0.3)).0
            }
            _ => half(block, 0, d),
        }
    }
    out
}

#[test]
fn matmul_of_every_format() {
    let formats = Format::all().filter(|&format| crate::quant::is_computable(format));
    for (seed, format) in (0..).zip(formats) {
        let block = format.block_len();
        let columns = if block == 1 {
            vec![1, 15, 16, 83, 576, 1100]
        } else {
            vec![block, 3 * block, 9 * block]
        };
        for columns in columns {
            for (rows, tokens) in [(1, 1), (3, 2), (17, 8), (5, 9), (2, 20), (35, 1), (75, 6)] {
                let weights = weight_rows(format, rows, columns, seed);
                let stride = columns + 5;
                let floats = floats(seed + 9, tokens * stride);
                let mut quants = vec![Activation::default(); tokens * columns.div_ceil(GROUP)];
                if block > 1 {
                    let groups = columns / GROUP;
                    for (t, quants) in quants.chunks_exact_mut(groups).enumerate() {
                        let row = &floats[t * stride..][..columns];
                        assert!(force(Isa::Scalar).quantize_row(row, quants));
                    }
                }
                let x = Input {
                    columns,
                    stride,
                    floats: &floats,
                    quants: &quants,
                };
                same(format.name(), |kernels| {
                    let mut out = vec![0.0; tokens * rows];
                    kernels.matmul(format, &weights, &x, &mut Tile::whole(&mut out, rows));
                    assert!(out.iter().all(|x| x.is_finite()));
                    out
                });
            }
        }
    }
}

#[test]
fn matmul_is_the_dot_product_of_its_rows() {
    let (rows, columns, tokens) = (3, 512, 2);
    let floats = floats(5, tokens * columns);
    let mut quants = vec![Activation::default(); tokens * columns / GROUP];
    assert!(force(Isa::Scalar).quantize_row(&floats, &mut quants));
    let x = Input {
        columns,
        stride: columns,
        floats: &floats,
        quants: &quants,
    };
    for (format, bound) in [
        (Format::F32, 1e-5),
        (Format::Q8_0, 2e-2),
        (Format::Q4_K, 2e-2),
    ] {
        let weights = weight_rows(format, rows, columns, 3);
        let mut decoded = vec![0.0; rows * columns];
        crate::quant::decode(format, &weights, &mut decoded).unwrap();
        let mut out = vec![0.0; tokens * rows];
        detect().matmul(format, &weights, &x, &mut Tile::whole(&mut out, rows));
        for (t, out) in out.chunks_exact(rows).enumerate() {
            for (row, out) in decoded.chunks_exact(columns).zip(out) {
                let x = &floats[t * columns..][..columns];
                let terms = row
                    .iter()
                    .zip(x)
                    .map(|(w, x)| f64::from(*w) * f64::from(*x));
                let size: f64 = terms.clone().map(f64::abs).sum();
                let error = (terms.sum::<f64>() - f64::from(*out)).abs();
                assert!(error <= bound * size, "{} {error} of {size}", format.name());
            }
        }
    }
}

#[test]
fn elementwise() {
    for len in LENGTHS {
        let (a, b) = (floats(1, len), floats(2, len));
        same("add", |k| {
            let mut out = a.clone();
            k.add(&mut out, &b);
            out
        });
        same("swiglu", |k| {
            let mut out = a.clone();
            k.swiglu(&mut out, &b);
            out
        });
        same("rms_norm", |k| {
            let mut out = a.clone();
            assert!(len == 0 || k.rms_norm(&mut out, &b, 1e-5));
            out
        });
        let turns: Vec<[f32; 2]> = b.as_chunks::<2>().0.to_vec();
        same("rope_interleaved", |k| {
            let mut out = a.clone();
            k.rope_interleaved(&mut out, &turns);
            out
        });
        let groups = floats(3, len * GROUP);
        same("quantize_row", |k| {
            let mut out = vec![Activation::default(); len];
            assert!(k.quantize_row(&groups, &mut out));
            out.iter()
                .flat_map(|a| a.q.map(f32::from).into_iter().chain([a.scale, a.t]))
                .collect()
        });
    }
}

/// Values as above, a fifth of them minus infinity, as logits of excluded tokens are.
fn logits(seed: u64, len: usize) -> Vec<f32> {
    let excluded = |step: u64| Random { seed, step }.bits(3).is_multiple_of(5);
    let pairs = (0..).zip(floats(seed, len));
    pairs
        .map(|(i, x)| if excluded(i) { f32::NEG_INFINITY } else { x })
        .collect()
}

/// The bits of f64 values.
fn wide(values: &[f64]) -> Vec<f32> {
    let halves = |x: &f64| [x.to_bits() as u32, (x.to_bits() >> 32) as u32];
    values.iter().flat_map(halves).map(f32::from_bits).collect()
}

#[test]
fn passes_over_logits() {
    for len in LENGTHS.into_iter().chain([1024, 1500, 5000]) {
        let blocks = len.div_ceil(BLOCK);
        let x = logits(1, len);
        let weights: Vec<f32> = floats(2, len).iter().map(|x| x.abs()).collect();
        same("block_maxima", |k| {
            let mut out = vec![0.0; blocks];
            assert!(k.block_maxima(&x, &mut out));
            out
        });
        same("block_sums", |k| {
            let mut out = vec![0.0; blocks];
            k.block_sums(&weights, &mut out);
            out
        });
        same("exp_weights", |k| {
            let (mut out, mut sums) = (vec![0.0; len], vec![0.0; blocks]);
            let total = k.exp_weights(&x, 2100.0, &mut out, &mut sums);
            assert!(out.iter().all(|w| *w == 0.0) && total == 0.0);
            let below: Vec<f32> = x.iter().map(|x| x.min(9.0)).collect();
            let total = k.exp_weights(&below, 9.0, &mut out, &mut sums);
            [out, sums, wide(&[total])].concat()
        });
        same("weighted_depth", |k| {
            wide(&[k.weighted_depth(&x, &weights, 3.0)])
        });
        same("moments", |k| wide(&k.moments(&x, 1.5)));
        same("nearness", |k| {
            let mut out = vec![0.0; len];
            k.nearness(&x, 0.25, &mut out);
            out
        });
    }
}

#[test]
fn selections_of_logits() {
    for len in LENGTHS.into_iter().chain([1024, 1500, 5000]) {
        let blocks = len.div_ceil(BLOCK);
        let x = logits(1, len);
        let weights: Vec<f32> = floats(2, len).iter().map(|x| x.abs()).collect();
        let thresholds = [3.0, 0.25, 0.0, f32::MIN];
        same("masses_from", |k| {
            let masses = k.masses_from(&x, &weights, &thresholds);
            for (mass, threshold) in masses.iter().zip(thresholds) {
                let reached = x.iter().zip(&weights).filter(|(x, _)| **x >= threshold);
                let expected: f64 = reached.map(|(_, weight)| f64::from(*weight)).sum();
                assert!((mass - expected).abs() <= 1e-6 * expected);
            }
            wide(&masses)
        });
        for rows in [1, 4, 7] {
            same("group_maxima", |k| {
                let mut maxima = vec![0.0; len.div_ceil(rows * LANES) * LANES];
                k.group_maxima(&x, rows, &mut maxima);
                for (group, max) in maxima.iter().enumerate() {
                    let own = |at: &usize| at / LANES / rows == group / LANES;
                    let own = |at: &usize| own(at) && at % LANES == group % LANES;
                    let keys = (0..len).filter(own).map(|at| x[at]);
                    assert_eq!(keys.fold(f32::NEG_INFINITY, f32::max), *max);
                }
                maxima
            });
        }
        for [low, high] in [
            [-0.25, 0.5],
            [0.0, f32::INFINITY],
            [f32::MIN, 1e9],
            [1.0, 1.0],
        ] {
            same("collect", |k| {
                let mut maxima = vec![0.0; blocks];
                k.block_maxima(&x, &mut maxima);
                let mut found = vec![Ranked::default(); len];
                let count = k.collect(&x, [low, high], (&maxima, low), &mut found);
                let within = (0..).zip(&x).filter(|(_, x)| (low..high).contains(*x));
                let expected = within.map(|(position, key)| Ranked {
                    key: *key,
                    position,
                });
                assert!(found[..count].iter().copied().eq(expected));
                vec![]
            });
        }
    }
}

#[test]
fn filters_of_logits() {
    for len in LENGTHS.into_iter().chain([1024, 1500, 5000]) {
        let blocks = len.div_ceil(BLOCK);
        let x = logits(1, len);
        let weights: Vec<f32> = floats(2, len).iter().map(|x| x.abs()).collect();
        for threshold in [f32::NEG_INFINITY, f32::MIN, -0.5, 0.0, 0.25, 1e9] {
            same("filters", |k| {
                let (mut floor, mut mask) = (x.clone(), weights.clone());
                k.floor(&mut floor, threshold);
                k.mask(&x, threshold, -1.0, &mut mask);
                let count = k.count_from(&x, threshold);
                assert_eq!(count, x.iter().filter(|x| **x >= threshold).count());
                [floor, mask].concat()
            });
        }
        for divisor in [0.3, 1e-38, 1e30] {
            same("divide", |k| {
                let mut out = x.clone();
                k.divide(&mut out, divisor);
                assert!(
                    out.iter()
                        .zip(&x)
                        .all(|(a, b)| a.is_finite() == b.is_finite())
                );
                out
            });
        }
        for (at, bad) in [
            (0, f32::NAN),
            (len / 2, f32::INFINITY),
            (len.max(1) - 1, f32::NAN),
        ] {
            let mut x = x.clone();
            if let Some(place) = x.get_mut(at) {
                *place = bad;
                let sound = |k: &Kernels| k.block_maxima(&x, &mut vec![0.0; blocks]);
                assert!(available().all(|kernels| !sound(kernels)));
            }
        }
    }
}

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

#[test]
fn attention_to_a_span() {
    for (seed, (rows, heads, k_dim, v_dim, seen)) in (0..).zip(ATTENTION) {
        let (stride, pages) = (heads * k_dim + 3, SPAN_TOKENS / PAGE_TOKENS);
        let queries = floats(seed, rows * stride);
        let keys = floats(seed + 100, pages * PAGE_TOKENS * k_dim);
        let values = floats(seed + 200, pages * PAGE_TOKENS * v_dim);
        let (half_keys, half_values) = (halves(&keys), halves(&values));
        let bytes: Vec<u8> = keys
            .iter()
            .chain(&values)
            .map(|x| x.to_bits() as u8)
            .collect();
        let (byte_keys, byte_values) = bytes.split_at(keys.len());
        let blocks = (k_dim.div_ceil(GROUP), v_dim.div_ceil(GROUP));
        let key_scales = halves(&floats(seed + 300, pages * PAGE_TOKENS * blocks.0));
        let value_scales = halves(&floats(seed + 400, pages * PAGE_TOKENS * blocks.1));
        let (k, v) = (PAGE_TOKENS * k_dim, PAGE_TOKENS * v_dim);
        let plain = |page: usize| {
            let (keys, values) = (&keys[page * k..][..k], &values[page * v..][..v]);
            (Plane::F32(keys), Plane::F32(values))
        };
        let half = |page: usize| {
            let (keys, values) = (&half_keys[page * k..][..k], &half_values[page * v..][..v]);
            (Plane::F16(keys), Plane::F16(values))
        };
        let scaled = |page: usize| {
            let (sk, sv) = (PAGE_TOKENS * blocks.0, PAGE_TOKENS * blocks.1);
            let keys = Scaled {
                bytes: &byte_keys[page * k..][..k],
                scales: &key_scales[page * sk..][..sk],
                rows: GROUP,
            };
            let values = Scaled {
                bytes: &byte_values[page * v..][..v],
                scales: &value_scales[page * sv..][..sv],
                rows: 1,
            };
            (Plane::Q8(keys), Plane::Q8(values))
        };
        let all: [Vec<(Plane<'_>, Plane<'_>)>; 3] = [
            (0..pages).map(plain).collect(),
            (0..pages).map(half).collect(),
            (0..pages).map(scaled).collect(),
        ];
        for planes in all {
            let work = Attention {
                queries: &queries,
                stride,
                heads,
                k_dim,
                v_dim,
                pages: &planes,
                seen,
                scale: 1e-5,
            };
            let columns = heads * result_len(v_dim);
            same("attend", |kernels| {
                let mut out = vec![-7.0; rows * columns];
                kernels.attend(
                    &work,
                    &mut Room::default(),
                    &mut Tile::whole(&mut out, columns),
                );
                out
            });
            let mut out = vec![-7.0; rows * columns];
            detect().attend(
                &work,
                &mut Room::default(),
                &mut Tile::whole(&mut out, columns),
            );
            check_attention(&work, rows, &out);
        }
    }
}

/// Compares the last row, and the first, with a plain softmax in f64.
fn check_attention(work: &Attention<'_>, rows: usize, out: &[f32]) {
    let value = |plane: Plane<'_>, row, width, column| {
        let start = column - column % GROUP;
        let mut out = vec![0.0; column - start + 1];
        plane.decode(row, width, start, &mut out);
        f64::from(out[column - start])
    };
    for (row, out) in out.chunks_exact(out.len() / rows).enumerate() {
        let seen = work.seen(row);
        for (head, out) in out.chunks_exact(result_len(work.v_dim)).enumerate() {
            if seen == 0 {
                assert!(out.iter().all(|x| *x == -7.0), "left alone");
                continue;
            }
            let query = work.query(row, head);
            let score = |key: usize| -> f64 {
                let (keys, _) = work.pages[key / PAGE_TOKENS];
                let key = |d| value(keys, d, PAGE_TOKENS, key % PAGE_TOKENS);
                (0..work.k_dim).map(|d| f64::from(query[d]) * key(d)).sum()
            };
            let scores: Vec<f64> = (0..seen)
                .map(|key| score(key) * f64::from(work.scale))
                .collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
            let close = |a: f64, b: f64, size: f64| (a - b).abs() <= 1e-2 * size;
            assert!(close(f64::from(out[work.v_dim]), max, max.abs() + 1.0));
            let sum: f64 = weights.iter().sum();
            assert!(close(f64::from(out[work.v_dim + 1]), sum, sum));
            for d in 0..work.v_dim {
                let term = |(key, weight): (usize, &f64)| {
                    let (_, values) = work.pages[key / PAGE_TOKENS];
                    weight * value(values, key % PAGE_TOKENS, work.v_dim, d)
                };
                let terms: Vec<f64> = weights.iter().enumerate().map(term).collect();
                let size: f64 = terms.iter().map(|term| term.abs()).sum();
                assert!(close(f64::from(out[d]), terms.iter().sum(), size + 1e-6));
            }
        }
    }
}

#[test]
fn spans_are_joined() {
    for dims in [1, 2, 8, 12, 16, 20, 64, 80, 128, 130] {
        let spans: Vec<f32> = floats(6, 5 * (dims + 2))
            .iter()
            .map(|x| x.abs() + 0.1)
            .collect();
        same("join_spans", |kernels| {
            let mut out = vec![0.0; dims];
            kernels.join_spans(&spans, dims + 2, 5, &mut out);
            out
        });
    }
}

#[test]
fn what_is_not_finite_is_reported_by_all() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = floats(1, 64);
        x[40] = bad;
        for kernels in available() {
            assert!(!kernels.quantize_row(&x, &mut [Activation::default(); 2]));
            assert!(!kernels.rms_norm(&mut x.clone(), &[1.0; 64], 1e-5));
        }
    }
}

#[test]
fn a_wish_is_clamped_to_the_cpu() {
    let names: Vec<_> = available().map(|kernels| kernels.isa().name()).collect();
    assert_eq!(names[0], "scalar");
    for isa in [Isa::Scalar, Isa::Neon, Isa::Avx2, Isa::Avx512] {
        assert!(force(isa).isa() <= isa);
        assert_eq!(Isa::from_name(isa.name()), Some(isa));
    }
    assert_eq!(Isa::from_name("avx10"), None);
}
