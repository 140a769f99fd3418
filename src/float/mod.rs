//! Floating-point functions with one definition for every CPU.
//!
//! Everything here is IEEE 754 addition, multiplication, division and comparison in a fixed order:
//! no call into the platform's mathematical library, no fused operation that the compiler or the
//! CPU may or may not have. So every CPU returns the same bits, and a loop over `[f32; 16]` that
//! calls these functions can be compiled for any instruction set (they are branch-free where they
//! are hot).
//!
//! The one operation that CPUs differ in is the fused multiply-add of the dot products:
//! [`MulAdd`] is the choice between the instruction ([`Hard`]) and [`fma`] ([`Soft`]), which return
//! the same bits.

use std::ops::{Add, Mul};

mod convert;
mod double;
mod single;

pub use convert::{bf16_from_f32, bf16_to_f32, f16_from_f32, f16_to_f32};
pub use double::{exp64, ln64, pow64, sin_cos64};
pub use single::{cos, erf, exp, exp_within, exp2, ln, log2, pow, sigmoid, sin, softplus, tanh};

/// `a * b + c` rounded once, as IEEE 754's fusedMultiplyAdd, on CPUs that lack the instruction.
///
/// The product of two f32 is exact in f64. The f64 sum is turned from round-to-nearest into
/// round-to-odd by the sign of its error (TwoSum), and a value rounded to odd with at least two
/// bits to spare rounds to f32 as the exact value would (Boldo and Melquiond, "Emulation of a FMA
/// and correctly rounded sums: proved algorithms using rounding to odd", 2008). Subnormals need no
/// care: they are normal numbers in f64. A NaN result may differ from the CPU's in its payload.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    let product = f64::from(a) * f64::from(b);
    let addend = f64::from(c);
    let sum = product + addend;
    let rest = sum - product;
    let error = (product - (sum - rest)) + (addend - rest);
    // A NaN error (infinite operands) compares as exact and leaves the sum alone.
    let inexact = error.abs() > 0.0;
    let outward = (error > 0.0) == (sum > 0.0);
    let bits = sum.to_bits();
    let even = bits & 1 == 0;
    let step = if outward { 1 } else { u64::MAX };
    let step = if inexact && even { step } else { 0 };
    f64::from_bits(bits.wrapping_add(step)) as f32
}

/// The fused multiply-add that a piece of code is compiled with.
///
/// A body that is generic over `MulAdd` is instantiated twice: with [`Hard`] inside functions that
/// are compiled for a CPU with the instruction, with [`Soft`] everywhere else. Both return the same
/// bits; the wrong choice costs only time.
pub trait MulAdd {
    /// `a * b + c`, rounded once.
    fn mul_add(a: f32, b: f32, c: f32) -> f32;
}

/// [`MulAdd`] by [`fma`], for CPUs without the instruction.
#[derive(Debug, Clone, Copy)]
pub struct Soft;

/// [`MulAdd`] by the CPU's instruction.
///
/// To be used only inside functions compiled with an FMA target feature, or for targets where FMA
/// is baseline (aarch64): elsewhere `f32::mul_add` is a call into the platform's library, slow and
/// on some platforms wrong.
#[derive(Debug, Clone, Copy)]
pub struct Hard;

impl MulAdd for Soft {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        fma(a, b, c)
    }
}

impl MulAdd for Hard {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

/// The sum of 16 lanes by the one fixed tree: halves are added, 8, 4, 2 and 1 lanes apart.
#[inline(always)]
pub fn sum_lanes(lanes: &[f32; 16]) -> f32 {
    let (mut s8, mut s4, mut s2) = ([0.0; 8], [0.0; 4], [0.0; 2]);
    for i in 0..8 {
        s8[i] = lanes[i] + lanes[i + 8];
    }
    for i in 0..4 {
        s4[i] = s8[i] + s8[i + 4];
    }
    for i in 0..2 {
        s2[i] = s4[i] + s4[i + 2];
    }
    s2[0] + s2[1]
}

/// The larger value by one comparison: `b` if it is larger, else `a` (also if either is NaN, or if
/// both are zeros). `f32::max` leaves these cases to the CPU.
#[inline(always)]
pub fn max(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// The nearest integer, ties to even, for `|x| <= 2^22`; any integer otherwise.
///
/// Adding 1.5 * 2^23 leaves the integer in the low bits of the sum.
#[inline(always)]
pub fn round_to_i32(x: f32) -> i32 {
    const MAGIC: f32 = 12_582_912.0;
    ((x + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32)
}

/// `c[0] + c[1] x + c[2] x^2 + ...` by Horner's rule.
#[inline(always)]
fn polynomial<T, const N: usize>(x: T, coefficients: [T; N]) -> T
where
    T: Copy + Default + Add<Output = T> + Mul<Output = T>,
{
    let mut sum = coefficients.last().copied().unwrap_or_default();
    for i in (0..N.saturating_sub(1)).rev() {
        sum = sum * x + coefficients[i];
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit patterns at the edges of every class of f32.
    const EDGES: [u32; 24] = [
        0,
        1,
        2,
        3,
        0x0000_ffff,
        0x007f_fffe,
        0x007f_ffff,
        0x0080_0000,
        0x0080_0001,
        0x00ff_ffff,
        0x0100_0000,
        0x3380_0000,
        0x337f_ffff,
        0x3f7f_ffff,
        0x3f80_0000,
        0x3f80_0001,
        0x3fff_ffff,
        0x4b80_0000,
        0x4b7f_ffff,
        0x7e80_0000,
        0x7f7f_fffe,
        0x7f7f_ffff,
        0x7f80_0000,
        0x7fc0_0000,
    ];

    fn check(a: f32, b: f32, c: f32) {
        let (soft, hard) = (fma(a, b, c), a.mul_add(b, c));
        let same = soft.to_bits() == hard.to_bits() || (soft.is_nan() && hard.is_nan());
        assert!(same, "{a:e} * {b:e} + {c:e}: {soft:e}, expected {hard:e}");
    }

    #[test]
    fn soft_fma_equals_the_exact_one_at_the_edges() {
        let edges: Vec<f32> = EDGES
            .iter()
            .flat_map(|&bits| [f32::from_bits(bits), f32::from_bits(bits | 1 << 31)])
            .collect();
        for &a in &edges {
            for &b in &edges {
                for &c in &edges {
                    check(a, b, c);
                }
            }
        }
    }

    #[test]
    fn soft_fma_equals_the_exact_one_on_random_bits() {
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        for _ in 0..2_000_000 {
            let (a, b, c) = (next(), next(), next());
            check(f32::from_bits(a), f32::from_bits(b), f32::from_bits(c));
            // Near cancellation and ties: c close to -a*b, few bits in a and b.
            let (a, b) = (
                f32::from_bits(a & 0xffff_f000),
                f32::from_bits(b & 0xffff_f800),
            );
            let near = f32::from_bits((-(a * b)).to_bits().wrapping_add(c % 5).wrapping_sub(2));
            check(a, b, near);
            // An addend 20 to 80 binary orders away from the product decides ties.
            let shift = 2f32.powi((c >> 8) as i32 % 80);
            check(a, b, a * b / shift);
            check(
                a,
                b,
                f32::from_bits((a * b).to_bits() & 0xffff_0000) * shift,
            );
        }
    }

    #[test]
    fn lanes_are_summed_by_the_tree() {
        let lanes: [f32; 16] = std::array::from_fn(|i| 10f32.powi(i as i32 - 8) / 3.0);
        let halves: Vec<f32> = (0..8).map(|i| lanes[i] + lanes[i + 8]).collect();
        let even = (halves[0] + halves[4]) + (halves[2] + halves[6]);
        let odd = (halves[1] + halves[5]) + (halves[3] + halves[7]);
        assert_eq!(sum_lanes(&lanes).to_bits(), (even + odd).to_bits());
        assert_eq!(max(0.0, -0.0).to_bits(), 0);
        assert_eq!(max(-0.0, 0.0).to_bits(), (-0.0f32).to_bits());
        assert_eq!(max(1.0, f32::NAN), 1.0);
    }

    #[test]
    fn rounding_is_to_even() {
        for (x, n) in [
            (0.5, 0),
            (1.5, 2),
            (2.5, 2),
            (-0.5, 0),
            (-1.5, -2),
            (126.5, 126),
            (-127.0, -127),
        ] {
            assert_eq!(round_to_i32(x), n);
        }
        round_to_i32(f32::NAN);
    }
}
