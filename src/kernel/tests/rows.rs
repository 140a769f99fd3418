//! What is done to rows against the scalar twin, to the bit, and against f64.

use super::*;

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
