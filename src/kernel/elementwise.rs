//! Rows of activations: norms, activation functions, rotation, and what is done to each value.
//!
//! As in [`lanes`](super::lanes), a body is one order of float operations, compiled for each CPU.

use crate::float::{self, MulAdd, sum_lanes};

use super::lanes::LANES;

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Nonlinearity {
    /// `x sigmoid(x)`. Elfwing et al., "Sigmoid-Weighted Linear Units", 2017.
    Silu,
    /// `x (1 + erf(x / sqrt 2)) / 2`. Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.
    Gelu,
    /// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`, the approximation of the same paper.
    GeluTanh,
    /// `max(x, 0)^2`. So et al., "Primer", 2021.
    ReluSquared,
    /// Huang and Schlag, "Expanded Integral of the Exponential Linear Unit", 2024.
    Xielu(Xielu),
}

/// `a x^2 + b x` above 0, `(e^min(x, epsilon) - 1 - x) c + b x` from 0 down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Xielu {
    /// Of the square above 0.
    pub a: f32,
    /// Of the linear part.
    pub b: f32,
    /// Of the exponential from 0 down.
    pub c: f32,
    /// What the exponent is bounded by.
    pub epsilon: f32,
}

/// `x = x / rms(x) * weight`; false if the sum of squares is not finite.
///
/// Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
#[inline(always)]
pub fn rms_norm<M: MulAdd>(x: &mut [f32], weight: &[f32], epsilon: f32) -> bool {
    let sum = sum_squares::<M>(x);
    let scale = 1.0 / (sum / x.len() as f32 + epsilon).sqrt();
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = *x * scale * weight;
    }
    sum.is_finite()
}

/// `x = (x - mean(x)) / deviation(x) * weight`; false if the sum of squares is not finite.
///
/// Source: Ba et al., "Layer Normalization", 2016.
#[inline(always)]
pub fn layer_norm<M: MulAdd>(x: &mut [f32], weight: &[f32], epsilon: f32) -> bool {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for x in chunks {
        for i in 0..LANES {
            lanes[i] += x[i];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += *x;
    }
    let mean = sum_lanes(&lanes) / x.len() as f32;
    for x in x.iter_mut() {
        *x -= mean;
    }
    rms_norm::<M>(x, weight, epsilon)
}

/// The sum of squares; value i adds to lane `i mod 16`.
#[inline(always)]
fn sum_squares<M: MulAdd>(x: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for x in chunks {
        for i in 0..LANES {
            lanes[i] = M::mul_add(x[i], x[i], lanes[i]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = M::mul_add(*x, *x, *lane);
    }
    sum_lanes(&lanes)
}

/// `out += x`.
#[inline(always)]
pub fn add(out: &mut [f32], x: &[f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out += x;
    }
}

/// `out += factor * x`, rounded once.
#[inline(always)]
pub fn add_scaled<M: MulAdd>(out: &mut [f32], factor: f32, x: &[f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = M::mul_add(factor, *x, *out);
    }
}

/// `out += x * y`, rounded once.
#[inline(always)]
pub fn multiply_add<M: MulAdd>(out: &mut [f32], x: &[f32], y: &[f32]) {
    for (out, (x, y)) in out.iter_mut().zip(x.iter().zip(y)) {
        *out = M::mul_add(*x, *y, *out);
    }
}

/// `out *= sigmoid(gate)`.
#[inline(always)]
pub fn gate(out: &mut [f32], gate: &[f32]) {
    for (out, gate) in out.iter_mut().zip(gate) {
        *out *= float::sigmoid(*gate);
    }
}

/// `out *= x`.
#[inline(always)]
pub fn multiply(out: &mut [f32], x: &[f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out *= x;
    }
}

/// `x *= factor`.
#[inline(always)]
pub fn scale(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}

/// Values outside `[-limit, limit]` become the nearer end.
#[inline(always)]
pub fn clamp(x: &mut [f32], limit: f32) {
    for x in x {
        *x = clamped(*x, limit);
    }
}

#[inline(always)]
fn clamped(x: f32, limit: f32) -> f32 {
    let x = if x > limit { limit } else { x };
    if x < -limit { -limit } else { x }
}

/// `x = cap * tanh(x / cap)`.
#[inline(always)]
pub fn softcap(x: &mut [f32], cap: f32) {
    for x in x {
        *x = cap * float::tanh(*x / cap);
    }
}

/// `gate = gate * sigmoid(gate) * up`.
///
/// Source: Shazeer, "GLU Variants Improve Transformer", 2020.
#[inline(always)]
pub fn swiglu(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate * float::sigmoid(*gate) * up;
    }
}

/// `gate = g * sigmoid(alpha * g) * (u + 1)`, `g` the gate up to `limit`, `u` the other value within
/// `[-limit, limit]`.
#[inline(always)]
pub fn swiglu_clamped(gate: &mut [f32], up: &[f32], alpha: f32, limit: f32) {
    for (gate, up) in gate.iter_mut().zip(up) {
        let g = if *gate > limit { limit } else { *gate };
        *gate = g * float::sigmoid(alpha * g) * (clamped(*up, limit) + 1.0);
    }
}

/// Applies an activation function to each value.
#[inline(always)]
pub fn activate(function: Nonlinearity, x: &mut [f32]) {
    /// `sqrt(2 / pi)`
    const SLOPE: f32 = 0.797_884_6;
    match function {
        Nonlinearity::Silu => each(x, |x| x * float::sigmoid(x)),
        Nonlinearity::Gelu => each(x, |x| {
            0.5 * x * (1.0 + float::erf(x * std::f32::consts::FRAC_1_SQRT_2))
        }),
        Nonlinearity::GeluTanh => each(x, |x| {
            0.5 * x * (1.0 + float::tanh(SLOPE * (x + 0.044_715 * (x * x * x))))
        }),
        Nonlinearity::ReluSquared => each(x, |x| {
            let x = float::max(0.0, x);
            x * x
        }),
        Nonlinearity::Xielu(curve) => each(x, |x| {
            let above = curve.a * x * x + curve.b * x;
            let bound = if x < curve.epsilon { x } else { curve.epsilon };
            let below = (expm1(bound) - x) * curve.c + curve.b * x;
            if x > 0.0 { above } else { below }
        }),
    }
}

/// `e^x - 1` for x at most a little above 0; near 0 the sum of the series, which cancels nothing.
#[inline(always)]
fn expm1(x: f32) -> f32 {
    let series = 1.0 + x * (0.5 + x * (0.166_666_67 + x * (0.041_666_668 + x * 0.008_333_334)));
    let near = x * series;
    let far = float::exp(x) - 1.0;
    if x.abs() < 0.1 { near } else { far }
}

#[inline(always)]
fn each(x: &mut [f32], f: impl Fn(f32) -> f32) {
    for x in x {
        *x = f(*x);
    }
}

/// Turns the pairs (2i, 2i + 1) of a head by the angles whose (cosine, sine) `turns` holds.
///
/// Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.
#[inline(always)]
pub fn rope_interleaved(head: &mut [f32], turns: &[[f32; 2]]) {
    for (pair, [cos, sin]) in head.as_chunks_mut::<2>().0.iter_mut().zip(turns) {
        let [a, b] = *pair;
        *pair = [a * cos - b * sin, a * sin + b * cos];
    }
}

/// The same for the pairs (i, i + n), n the number of turns.
#[inline(always)]
pub fn rope_halves(head: &mut [f32], turns: &[[f32; 2]]) {
    let (first, second) = head.split_at_mut(turns.len());
    for ((x, y), [cos, sin]) in first.iter_mut().zip(second).zip(turns) {
        let (a, b) = (*x, *y);
        *x = a * cos - b * sin;
        *y = a * sin + b * cos;
    }
}
