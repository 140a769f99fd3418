//! f32 functions for hot loops: branch-free, so a loop over lanes compiles to vector code.
//!
//! Each says its largest error in units in the last place, measured over every 13th f32 (the tests
//! repeat it over every 1009th). The polynomials are minimax fits made for this file, with
//! coefficients rounded to f32 one after the other.

use crate::float::{double, max, polynomial, round_to_i32};

/// `e^x` within 1 ulp, with gradual underflow. `exp(0) == 1`, `exp(-inf) == 0`; above 88.72
/// infinite.
///
/// Cody and Waite: `x = n ln 2 + r`, `|r| <= ln 2 / 2`, then a polynomial times `2^n`.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Outside, the result is 0 or infinite; a NaN passes both comparisons.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let exponent = round_to_i32(x * std::f32::consts::LOG2_E);
    let n = exponent as f32;
    let r = (x - n * LN2_SHORT) - n * LN2_REST;
    scale(exp_small(r), exponent)
}

/// [`exp`], to the bit, for `|x| <= 80`, in about half the time; anything otherwise.
#[inline(always)]
pub fn exp_within(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    // The low bits of the sum are those of the integer, as in `round_to_i32`.
    let sum = x * std::f32::consts::LOG2_E + MAGIC;
    let n = sum - MAGIC;
    let r = (x - n * LN2_SHORT) - n * LN2_REST;
    // The result is a normal number, so its exponent can be added to.
    f32::from_bits(exp_small(r).to_bits().wrapping_add(sum.to_bits() << 23))
}

/// `2^x` within 1 ulp; exact for integers.
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    let x = if x > 129.0 { 129.0 } else { x };
    let x = if x < -151.0 { -151.0 } else { x };
    let n = round_to_i32(x);
    scale(exp_small((x - n as f32) * std::f32::consts::LN_2), n)
}

/// The natural logarithm within 0.9 ulp. `ln(0) == -inf`; NaN below 0.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    let (k, f) = split(x);
    ln_special(x, ln_parts(k, f))
}

/// The logarithm to base 2 within 1.9 ulp; exact for powers of two.
#[inline(always)]
pub fn log2(x: f32) -> f32 {
    /// `log2(e)` minus its nearest f32.
    const LOG2_E_REST: f32 = 1.925_963e-8;
    let (k, f) = split(x);
    let y = ln_parts(0.0, f);
    ln_special(x, k + (y * std::f32::consts::LOG2_E + y * LOG2_E_REST))
}

/// The hyperbolic tangent within 1.4 ulp; odd, and exactly 1 above 9.02.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let series = [
        -0.333_332_8,
        0.133_314_1,
        -0.053_737_268,
        0.020_631_723,
        -0.005_697_346,
    ];
    let small = x + x * (z * polynomial(z, series));
    let large = 1.0 - 2.0 / (exp(a + a) + 1.0);
    (if a < 0.625 { small } else { large }).copysign(x)
}

/// The error function within 1.3 ulp; odd, and exactly 1 above 3.92.
///
/// Below 0.95 an odd polynomial; above, `1 - e^-g` with a polynomial `g` for `-ln(erfc)`.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let series = [
        0.128_379_17,
        -0.376_126_3,
        0.112_836_26,
        -0.026_855_74,
        0.005_192_460_5,
        -0.000_805_080_4,
        8.002_775e-5,
    ];
    let small = x + x * polynomial(z, series);
    let b = if a > 4.0 { 4.0 } else { a };
    let series = [
        -0.000_170_552_13,
        1.129_495_1,
        0.633_386_73,
        0.108_236_44,
        -0.025_091_305,
        0.004_160_418,
        -0.000_432_271_45,
        2.090_589e-5,
    ];
    let large = 1.0 - exp(-polynomial(b, series));
    (if a < 0.95 { small } else { large }).copysign(x)
}

/// `1 / (1 + e^-x)` within 2.5 ulp, without overflow on either side.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    let z = exp(-x.abs());
    let above = if x >= 0.0 { 1.0 } else { z };
    above / (1.0 + z)
}

/// `ln(1 + e^x)` within 1.7 ulp, without overflow on either side.
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    let z = exp(-x.abs());
    // ln(1 + z) with z in [0, 1]: 1 + z = 2^k (1 + f), f exact where it matters.
    let upper = z > 0.414_213_56;
    let f = if upper { (z - 1.0) * 0.5 } else { z };
    let k = if upper { 1.0 } else { 0.0 };
    max(0.0, x) + ln_parts(k, f)
}

/// `x^y` within 0.51 ulp, with the special cases of IEEE 754 `pow`. By way of f64, not vectorised.
#[inline(always)]
pub fn pow(x: f32, y: f32) -> f32 {
    double::pow64(f64::from(x), f64::from(y)) as f32
}

/// The sine within 0.51 ulp for `|x| <= 5e7`, by way of f64; as [`double::sin_cos64`] beyond.
#[inline(always)]
pub fn sin(x: f32) -> f32 {
    double::sin_cos64(f64::from(x)).0 as f32
}

/// The cosine within 0.51 ulp for `|x| <= 5e7`, by way of f64; as [`double::sin_cos64`] beyond.
#[inline(always)]
pub fn cos(x: f32) -> f32 {
    double::sin_cos64(f64::from(x)).1 as f32
}

/// The first 9 bits of ln 2: a multiple by an integer below 2^15 is exact.
const LN2_SHORT: f32 = 355.0 / 512.0;
/// ln 2 minus [`LN2_SHORT`].
const LN2_REST: f32 = -2.121_944_4e-4;

/// `e^r` for `|r| <= 0.3475`; exactly 1 at 0.
#[inline(always)]
fn exp_small(r: f32) -> f32 {
    let series = [
        0.499_999_94,
        0.166_665_21,
        0.041_668_296,
        0.008_368_716,
        0.001_381_835_9,
    ];
    1.0 + (r + (r * r) * polynomial(r, series))
}

/// `y * 2^n` for `n` in [-151, 129], rounded once: two factors, of which the first is exact.
#[inline(always)]
fn scale(y: f32, n: i32) -> f32 {
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    y * power(half) * power(n.wrapping_sub(half))
}

/// `x = 2^k (1 + f)` with `1 + f` in [sqrt(1/2), sqrt(2)), for positive finite `x`.
#[inline(always)]
fn split(x: f32) -> (f32, f32) {
    const SQRT_HALF: u32 = 0x3f35_04f3;
    // A subnormal is made normal first.
    let tiny = x < f32::MIN_POSITIVE;
    let bits = (if tiny { x * 8_388_608.0 } else { x }).to_bits();
    let k = (bits.wrapping_sub(SQRT_HALF) as i32) >> 23;
    let f = f32::from_bits(bits.wrapping_sub((k as u32) << 23)) - 1.0;
    (k as f32 - if tiny { 23.0 } else { 0.0 }, f)
}

/// `k ln 2 + ln(1 + f)` for `1 + f` in [sqrt(1/2), sqrt(2)].
///
/// With `s = f / (2 + f)`, `ln(1 + f) = ln((1 + s) / (1 - s)) = 2s + s R(s^2)`, and
/// `2s = f - f^2/2 + s f^2/2`: the leading term `f` is exact.
#[inline(always)]
fn ln_parts(k: f32, f: f32) -> f32 {
    let s = f / (2.0 + f);
    let z = s * s;
    let r = z * polynomial(z, [0.666_666_6, 0.400_009_72, 0.284_987_87, 0.242_792_11]);
    let square = (0.5 * f) * f;
    k * LN2_SHORT - ((square - (s * (square + r) + k * LN2_REST)) - f)
}

/// `y`, the logarithm of `x`, or what it is where `x` is not positive and finite.
#[inline(always)]
fn ln_special(x: f32, y: f32) -> f32 {
    let y = if x > 0.0 { y } else { f32::NAN };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x == f32::INFINITY { x } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error of `f` against `truth` in ulps of the truth, over every `stride`th f32 in
    /// the ranges of bit patterns.
    fn worst(
        ranges: &[(f32, f32)],
        stride: usize,
        f: impl Fn(f32) -> f32,
        truth: impl Fn(f64) -> f64,
    ) -> f64 {
        let mut worst = (0.0, 0.0);
        for &(low, high) in ranges {
            assert_eq!(low.is_sign_negative(), high.is_sign_negative());
            for bits in (low.to_bits()..=high.to_bits()).step_by(stride) {
                let x = f32::from_bits(bits);
                let error = ulps(f(x), truth(f64::from(x)));
                if error > worst.0 {
                    worst = (error, x);
                }
            }
        }
        println!("{:.4} ulp at {:e}", worst.0, worst.1);
        worst.0
    }

    fn ulps(value: f32, truth: f64) -> f64 {
        let rounded = truth as f32;
        if rounded.is_infinite() || value.is_infinite() {
            return if rounded == value { 0.0 } else { f64::INFINITY };
        }
        let exponent = (rounded.abs().to_bits() >> 23).max(1) as i32 - 150;
        (f64::from(value) - truth).abs() / 2f64.powi(exponent)
    }

    const ALL: [(f32, f32); 2] = [(0.0, f32::INFINITY), (-0.0, f32::NEG_INFINITY)];
    /// Prime, so that all exponents and many fractions are met: 4 million values.
    const STRIDE: usize = 1009;

    #[test]
    fn exponentials() {
        assert!(worst(&ALL, STRIDE, exp, f64::exp) < 1.0);
        assert!(worst(&ALL, STRIDE, exp2, f64::exp2) < 1.0);
        assert!(worst(&ALL, STRIDE, sigmoid, |x| 1.0 / (1.0 + (-x).exp())) < 2.5);
        let truth = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
        assert!(worst(&ALL, STRIDE, softplus, truth) < 1.7);
        for n in -149..128 {
            assert_eq!(exp2(n as f32), 2f64.powi(n) as f32);
        }
        for f in [exp, exp2] {
            assert_eq!(f(0.0).to_bits(), 1f32.to_bits());
            assert_eq!(f(-0.0).to_bits(), 1f32.to_bits());
            assert_eq!(f(f32::NEG_INFINITY).to_bits(), 0);
            assert_eq!(f(f32::INFINITY), f32::INFINITY);
            assert!(f(f32::NAN).is_nan() && f(-f32::NAN).is_nan());
        }
        assert_eq!(
            (sigmoid(f32::NEG_INFINITY), sigmoid(f32::INFINITY)),
            (0.0, 1.0)
        );
        assert_eq!(
            (softplus(f32::NEG_INFINITY), softplus(f32::INFINITY)),
            (0.0, f32::INFINITY)
        );
        assert!(sigmoid(f32::NAN).is_nan() && softplus(f32::NAN).is_nan());
    }

    #[test]
    fn exp_within_is_exp() {
        for bits in (0..=80f32.to_bits()).step_by(STRIDE) {
            for x in [f32::from_bits(bits), -f32::from_bits(bits)] {
                assert_eq!(exp_within(x).to_bits(), exp(x).to_bits(), "{x:e}");
            }
        }
    }

    #[test]
    fn logarithms() {
        assert!(worst(&ALL[..1], STRIDE, ln, f64::ln) < 0.9);
        assert!(worst(&ALL[..1], STRIDE, log2, f64::log2) < 1.9);
        for n in -149..128 {
            assert_eq!(log2(2f64.powi(n) as f32), n as f32);
        }
        for f in [ln, log2] {
            assert_eq!(f(0.0), f32::NEG_INFINITY);
            assert_eq!(f(-0.0), f32::NEG_INFINITY);
            assert_eq!(f(1.0).to_bits(), 0);
            assert_eq!(f(f32::INFINITY), f32::INFINITY);
            for x in [
                -1.0,
                -f32::MIN_POSITIVE,
                -1e-45,
                f32::NEG_INFINITY,
                f32::NAN,
                -f32::NAN,
            ] {
                assert!(f(x).is_nan());
            }
        }
    }

    #[test]
    fn hyperbolic_tangent_and_error_function() {
        assert!(worst(&ALL, STRIDE, tanh, f64::tanh) < 1.4);
        assert!(worst(&ALL, 10 * STRIDE, erf, erf64) < 1.3);
        for f in [tanh, erf] {
            assert_eq!((f(f32::INFINITY), f(f32::NEG_INFINITY)), (1.0, -1.0));
            assert_eq!(f(-0.0).to_bits(), (-0.0f32).to_bits());
            assert!(f(f32::NAN).is_nan());
            assert!((0..4_000).all(|i| f(i as f32 / 100.0).abs() <= 1.0));
        }
    }

    /// The error function by its Maclaurin series, which f64 can sum up to 2, and by the continued
    /// fraction of erfc beyond.
    fn erf64(x: f64) -> f64 {
        let a = x.abs();
        let value = if a < 2.0 {
            let (mut term, mut sum) = (a, a);
            for n in 1..60 {
                term *= -a * a / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * std::f64::consts::FRAC_2_SQRT_PI
        } else {
            let tail = (1..120)
                .rev()
                .fold(0.0, |tail, n| f64::from(n) / 2.0 / (a + tail));
            1.0 - (-a * a).exp() / (a + tail) / std::f64::consts::PI.sqrt()
        };
        value.copysign(x)
    }

    #[test]
    fn powers_sines_and_cosines() {
        let angles = [(0.0, 5e7), (-0.0, -5e7)];
        assert!(worst(&angles, STRIDE, sin, f64::sin) < 0.51);
        assert!(worst(&angles, STRIDE, cos, f64::cos) < 0.51);
        for y in [-2.5f32, -1.0, -0.013, 0.3, 0.5, 1.0, 3.0, 17.5] {
            let truth = |x: f64| x.powf(f64::from(y));
            assert!(worst(&ALL[..1], 10 * STRIDE, |x| pow(x, y), truth) < 0.51);
        }
        assert!(worst(&ALL, STRIDE, |y| pow(0.7, y), |y| f64::from(0.7f32).powf(y)) < 0.51);
        assert!(sin(f32::INFINITY).is_nan() && cos(f32::NAN).is_nan());
    }
}
