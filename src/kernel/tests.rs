//! Every instance against the scalar twin, to the bit, at lengths around every edge.

use super::*;
use crate::random::Random;

mod attention;

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
    for (i, block) in out.chunks_exact_mut(format.block_bytes()).enumerate() {
        let d = Random {
            seed: seed + 1,
            step: i as u64,
        }
        .unit_f32(0)
            - 0.5;
        set_scales(format, block, d);
    }
    out
}

/// Makes `d` the scale of a block, or the value of a float.
fn set_scales(format: Format, block: &mut [u8], d: f32) {
    let half = |out: &mut [u8], at: usize, value: f32| {
        out[at..at + 2].copy_from_slice(&crate::float::f16_from_f32(value).to_le_bytes());
    };
    match format {
        Format::F32 => block.copy_from_slice(&d.to_le_bytes()),
        Format::F16 => half(block, 0, d),
        Format::BF16 => block.copy_from_slice(&((d.to_bits() >> 16) as u16).to_le_bytes()),
        Format::Q2_K => (half(block, 80, d), half(block, 82, d * 0.3)).0,
        Format::Q3_K => half(block, 108, d),
        Format::Q6_K => half(block, 208, d),
        Format::TQ1_0 => half(block, 52, d),
        Format::TQ2_0 => half(block, 64, d),
        Format::MXFP4 => block[0] = block[0] / 8 + 112,
        // Scales of any bits are finite.
        Format::NVFP4 => {}
        Format::IQ1_M => {
            // Not the largest exponent, which is NaN or infinite.
            block[55] &= 0xbf;
        }
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => {
            (half(block, 0, d), half(block, 2, d * 0.3)).0
        }
        _ => half(block, 0, d),
    }
}

/// The largest and smallest integers on both sides: sums in 16 bits must not overflow.
#[test]
fn extreme_integers_stay_exact() {
    let (rows, tokens) = (19, 5);
    let formats = Format::all().filter(|&f| crate::quant::is_computable(f) && f.block_len() > 1);
    for format in formats {
        let columns = 2 * format.block_len();
        for fill in [0x00, 0x0f, 0x7f, 0x80, 0xf0, 0xff] {
            let len = rows * format.bytes(columns as u64).unwrap() as usize;
            let mut weights = vec![fill; len];
            for block in weights.chunks_exact_mut(format.block_bytes()) {
                set_scales(format, block, 0.5);
            }
            for q in [127, -127] {
                let quants = vec![Activation::new([q; GROUP], 0.25); tokens * columns / GROUP];
                let x = Input {
                    columns,
                    stride: columns,
                    floats: &[],
                    quants: &quants,
                };
                same(format.name(), |kernels| {
                    let mut out = vec![0.0; tokens * rows];
                    kernels.matmul(format, &weights, &x, 0, &mut Tile::whole(&mut out, rows));
                    out
                });
            }
        }
    }
}

/// Hostile blocks: what comes out is the scalar twin's, or not a number there, too.
#[test]
fn any_bytes_are_multiplied_alike() {
    let (rows, columns) = (17, 512);
    for format in Format::all().filter(|&f| crate::quant::is_computable(f) && f.block_len() > 1) {
        for seed in 0..12 {
            let len = rows * format.bytes(columns as u64).unwrap() as usize;
            let random = |step| Random { seed, step }.bits(0) as u8;
            let fill = |step| match seed {
                0 => 0xff,
                1 => 0x7c, // scales are NaN or infinite
                _ => random(step),
            };
            let weights: Vec<u8> = (0..len as u64).map(fill).collect();
            for tokens in [1, 3] {
                let floats = floats(seed, tokens * columns);
                let mut quants = vec![Activation::default(); tokens * columns / GROUP];
                assert!(force(Isa::Scalar).quantize_row(&floats, &mut quants));
                let x = Input {
                    columns,
                    stride: columns,
                    floats: &[],
                    quants: &quants,
                };
                same(format.name(), |kernels| {
                    let mut out = vec![0.0; tokens * rows];
                    kernels.matmul(format, &weights, &x, 0, &mut Tile::whole(&mut out, rows));
                    let known = |x: f32| if x.is_nan() { f32::NAN } else { x };
                    out.into_iter().map(known).collect()
                });
            }
        }
    }
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
                    kernels.matmul(format, &weights, &x, 0, &mut Tile::whole(&mut out, rows));
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
        detect().matmul(format, &weights, &x, 0, &mut Tile::whole(&mut out, rows));
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
        for turns in [&turns[..], &turns[..turns.len() / 2]] {
            same("rope", |k| {
                let (mut out, mut halves) = (a.clone(), a.clone());
                k.rope_interleaved(&mut out, turns);
                k.rope_halves(&mut halves, turns);
                out.extend(halves);
                out
            });
        }
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

#[test]
fn elementwise_of_other_architectures() {
    type Change = fn(&Kernels, &mut [f32], &[f32]);
    let changes: [(&str, Change); 8] = [
        ("layer_norm", |k, x, w| {
            assert!(x.is_empty() || k.layer_norm(x, w, 1e-5))
        }),
        ("add_scaled", |k, x, y| k.add_scaled(x, 0.7, y)),
        ("multiply", |k, x, y| k.multiply(x, y)),
        ("scale", |k, x, _| k.scale(x, 0.7)),
        ("clamp", |k, x, _| k.clamp(x, 0.7)),
        ("softcap", |k, x, _| k.softcap(x, 0.7)),
        ("swiglu_clamped", |k, x, y| {
            k.swiglu_clamped(x, y, 1.702, 7.0)
        }),
        ("activate", |k, x, _| {
            let parts = x.len().div_ceil(FUNCTIONS.len()).max(1);
            for (function, x) in FUNCTIONS.iter().zip(x.chunks_mut(parts)) {
                k.activate(function.0, x);
            }
        }),
    ];
    for len in LENGTHS {
        let (a, b) = (floats(1, len), floats(2, len));
        for (name, change) in changes {
            same(name, |k| {
                let mut out = a.clone();
                change(k, &mut out, &b);
                out
            });
        }
    }
}

const XIELU: Xielu = Xielu {
    a: 0.8,
    b: 0.5,
    c: 1.1,
    epsilon: -1e-6,
};

type Truth = fn(f64) -> f64;

/// Activation functions and what they are in f64.
const FUNCTIONS: [(Nonlinearity, Truth); 5] = [
    (Nonlinearity::Silu, |x| x / (1.0 + (-x).exp())),
    // By Abramowitz and Stegun 7.1.26, within 1.5e-7.
    (Nonlinearity::Gelu, |x| {
        let z = x.abs() / 2f64.sqrt();
        let t = 1.0 / (1.0 + 0.327_591_1 * z);
        let series = [
            0.254_829_592,
            -0.284_496_736,
            1.421_413_741,
            -1.453_152_027,
            1.061_405_429,
        ];
        let sum = series.iter().rev().fold(0.0, |sum, c| (sum + c) * t);
        0.5 * x * (1.0 + (1.0 - sum * (-z * z).exp()).copysign(x))
    }),
    (Nonlinearity::GeluTanh, |x| {
        let slope = (2.0 / std::f64::consts::PI).sqrt();
        0.5 * x * (1.0 + (slope * (x + 0.044715 * x.powi(3))).tanh())
    }),
    (Nonlinearity::ReluSquared, |x| x.max(0.0).powi(2)),
    (Nonlinearity::Xielu(XIELU), |x| match x > 0.0 {
        true => 0.8f32 as f64 * x * x + 0.5 * x,
        false => (x.min(-1e-6).exp_m1() - x) * f64::from(1.1f32) + 0.5 * x,
    }),
];

#[test]
fn rows_are_what_their_definitions_say() {
    let x: Vec<f32> = (-600..600).map(|i| i as f32 / 60.0).collect();
    for (function, truth) in FUNCTIONS {
        let mut out = x.clone();
        detect().activate(function, &mut out);
        for (x, y) in x.iter().zip(&out) {
            let error = (truth(f64::from(*x)) - f64::from(*y)).abs();
            assert!(
                error <= 4e-6 * f64::from(1f32.max(y.abs())),
                "{function:?} {x}: {y}"
            );
        }
    }
    let (mut out, weight) = (x.clone(), vec![2.0; x.len()]);
    assert!(detect().layer_norm(&mut out, &weight, 0.0));
    let mean = out.iter().sum::<f32>() / x.len() as f32;
    let square = out.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
    assert!(mean.abs() < 1e-4 && (square - 4.0).abs() < 1e-3);
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
        same("sums", |k| {
            let mut out = vec![0.0; len.div_ceil(SUMMED)];
            let total = k.sums(&weights, &mut out);
            [out, wide(&[total])].concat()
        });
        same("exp_weights", |k| {
            let (mut out, mut sums) = (vec![0.0; len], vec![0.0; len.div_ceil(SUMMED)]);
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
            let masses = k.masses_from(x[..].into(), &weights, &thresholds);
            for (mass, threshold) in masses.iter().zip(thresholds) {
                let reached = x.iter().zip(&weights).filter(|(x, _)| **x >= threshold);
                let expected: f64 = reached.map(|(_, weight)| f64::from(*weight)).sum();
                assert!((mass - expected).abs() <= 1e-6 * expected);
            }
            wide(&masses)
        });
        let centre = Some(0.25);
        let near = Keys { logits: &x, centre };
        let far: Vec<f32> = x.iter().map(|x| near.of(*x)).collect();
        for kernels in available() {
            // Keys made on the way are those that were made before.
            let masses = |keys| wide(&kernels.masses_from(keys, &weights, &thresholds));
            assert_eq!(bits(&masses(near)), bits(&masses(far[..].into())));
            let (mut masked, mut expected) = (weights.clone(), weights.clone());
            kernels.mask(near, -0.5, -1.0, &mut masked);
            kernels.mask(far[..].into(), -0.5, -1.0, &mut expected);
            assert_eq!(masked, expected);
            let collected = |keys| {
                let mut found = vec![Ranked::default(); len];
                let reach = (&vec![0.0; blocks][..], 0.0);
                let count = kernels.collect(keys, [-0.5, 0.0], reach, &mut found);
                found[..count].to_vec()
            };
            assert_eq!(collected(near), collected(far[..].into()));
        }
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
                let count = k.collect(x[..].into(), [low, high], (&maxima, low), &mut found);
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
                k.mask(x[..].into(), threshold, -1.0, &mut mask);
                let count = k.count_from(&x, threshold);
                assert_eq!(count, x.iter().filter(|x| **x >= threshold).count());
                let (mut kept, mut sums) = (weights.clone(), vec![0.0; len.div_ceil(SUMMED)]);
                let total = k.exclude(x[..].into(), threshold, &mut kept, &mut sums);
                let (mut zeroed, mut expected) = (weights.clone(), sums.clone());
                k.mask(x[..].into(), threshold, 0.0, &mut zeroed);
                let _ = k.sums(&zeroed, &mut expected);
                assert_eq!((&kept, &sums), (&zeroed, &expected));
                assert_eq!(total, expected.iter().map(|sum| f64::from(*sum)).sum());
                [floor, mask, kept].concat()
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

#[test]
fn what_is_not_finite_is_reported_by_all() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = floats(1, 64);
        x[40] = bad;
        for kernels in available() {
            assert!(!kernels.quantize_row(&x, &mut [Activation::default(); 2]));
            assert!(!kernels.rms_norm(&mut x.clone(), &[1.0; 64], 1e-5));
            assert!(!kernels.layer_norm(&mut x.clone(), &[1.0; 64], 1e-5));
        }
    }
}

#[test]
fn a_wish_is_clamped_to_the_cpu() {
    let names: Vec<_> = available().map(|kernels| kernels.isa().name()).collect();
    assert_eq!(names[0], "scalar");
    for isa in Isa::ALL {
        assert!(force(isa).isa() <= isa);
        assert_eq!(Isa::from_name(isa.name()), Some(isa));
    }
    assert_eq!(Isa::from_name("avx10"), None);
}
