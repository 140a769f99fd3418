//! f64 functions for tables that are computed once: additions, multiplications and divisions only,
//! so every CPU and platform gets the same table. Clear rather than fast: Taylor series whose
//! coefficients are exact fractions.

use crate::float::polynomial;

/// ln 2 in two parts; the first has 32 bits, so a multiple by an integer below 2^21 is exact.
const LN2: [f64; 2] = [
    f64::from_bits(0x3fe6_2e42_fee0_0000),
    f64::from_bits(0x3dea_39ef_3579_3c76),
];

/// pi / 2 in four parts; the first three have 28 bits, so a multiple by an integer up to 2^25 is
/// exact.
const HALF_PI: [f64; 4] = [
    f64::from_bits(0x3ff9_21fb_5400_0000),
    f64::from_bits(0x3e11_0b46_1000_0000),
    f64::from_bits(0x3c5a_6263_3000_0000),
    f64::from_bits(0x3a94_5c06_e0e6_8948),
];

/// `1 / n!`
const INVERSE_FACTORIALS: [f64; 18] = {
    let mut table = [1.0; 18];
    let (mut factorial, mut n) = (1u64, 1);
    while n < 18 {
        factorial *= n as u64;
        table[n] = 1.0 / factorial as f64;
        n += 1;
    }
    table
};

/// `1 / n! , -1 / (n + 2)!, 1 / (n + 4)!, ...`: the series of the sine (1) and cosine (0).
const fn alternating<const N: usize>(first: usize) -> [f64; N] {
    let mut table = [0.0; N];
    let mut i = 0;
    while i < N {
        let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
        table[i] = sign * INVERSE_FACTORIALS[first + 2 * i];
        i += 1;
    }
    table
}

/// `e^x`, relative error below 4e-16 (where the result is a normal number).
pub fn exp64(x: f64) -> f64 {
    exp_sum(x, 0.0)
}

/// The natural logarithm, relative error below 4e-16. `ln64(0) == -inf`; NaN below 0.
pub fn ln64(x: f64) -> f64 {
    if x == 0.0 {
        f64::NEG_INFINITY
    } else if x > 0.0 && x < f64::INFINITY {
        ln_sum(x).0
    } else if x == f64::INFINITY {
        x
    } else {
        f64::NAN
    }
}

/// `x^y`, relative error below 4e-16 (where the result is a normal number), with the special cases
/// of IEEE 754 `pow`.
pub fn pow64(x: f64, y: f64) -> f64 {
    if y == 0.0 || x == 1.0 {
        return 1.0;
    }
    if x.is_nan() || y.is_nan() {
        return f64::NAN;
    }
    // Every f64 from 2^53 on is an even integer; the cast saturates, and infinity is even too.
    let integer = y.abs() >= 2f64.powi(53) || (y as i64) as f64 == y;
    let odd = y.abs() < 2f64.powi(53) && integer && (y as i64) & 1 == 1;
    let a = x.abs();
    let grows = (a > 1.0) == (y > 0.0);
    let magnitude = if a == 1.0 && integer {
        1.0
    } else if a == 0.0 || a == f64::INFINITY || y.abs() == f64::INFINITY {
        if grows { f64::INFINITY } else { 0.0 }
    } else if x < 0.0 && !integer {
        f64::NAN
    } else {
        let (high, low) = ln_sum(a);
        let product = y * high;
        if product.abs() > 1e3 {
            exp64(product)
        } else {
            exp_sum(product, product_error(y, high, product) + y * low)
        }
    };
    if odd && x.is_sign_negative() {
        -magnitude
    } else {
        magnitude
    }
}

/// Sine and cosine, each with relative error below 4e-16, for `|x| <= 5e7`. Beyond, the reduction loses digits (all of
/// them above 1e15), but the values stay within [-1, 1]; NaN if `x` is not finite.
#[inline(always)]
pub fn sin_cos64(x: f64) -> (f64, f64) {
    /// 1.5 * 2^52: adding it rounds to an integer.
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    let sum = x * std::f64::consts::FRAC_2_PI + MAGIC;
    let quadrant = sum.to_bits();
    let n = sum - MAGIC;
    let r = ((x - n * HALF_PI[0]) - n * HALF_PI[1]) - n * HALF_PI[2] - n * HALF_PI[3];
    let r = if r > 1.0 { 1.0 } else { r };
    let r = if r < -1.0 { -1.0 } else { r };
    let z = r * r;
    const SINE: [f64; 7] = {
        let [_, rest @ ..] = alternating::<8>(1);
        rest
    };
    const COSINE: [f64; 7] = {
        let [_, _, rest @ ..] = alternating::<9>(0);
        rest
    };
    let sine = r + r * (z * polynomial(z, SINE));
    // 1 - z/2 is not exact; what it lost is added back.
    let half = 0.5 * z;
    let leading = 1.0 - half;
    let cosine = leading + (((1.0 - leading) - half) + (z * z) * polynomial(z, COSINE));
    let (sine, cosine) = if quadrant & 1 == 0 {
        (sine, cosine)
    } else {
        (cosine, sine)
    };
    (
        if quadrant & 2 == 0 { sine } else { -sine },
        if (quadrant + 1) & 2 == 0 {
            cosine
        } else {
            -cosine
        },
    )
}

/// `e^(x + rest)`, `rest` tiny.
fn exp_sum(x: f64, rest: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x > 710.0 {
        return f64::INFINITY;
    }
    if x < -746.0 {
        return 0.0;
    }
    let scaled = x * std::f64::consts::LOG2_E;
    let n = (scaled + if scaled < 0.0 { -0.5 } else { 0.5 }) as i64;
    // x - n LN2[0] is exact; what the second subtraction loses is kept.
    let near = x - n as f64 * LN2[0];
    let far = rest - n as f64 * LN2[1];
    let r = near + far;
    let lost = (near - r) + far;
    const SERIES: [f64; 12] = {
        let [_, _, rest @ .., _, _, _, _] = INVERSE_FACTORIALS;
        rest
    };
    let y = 1.0 + (r + (lost + r * r * polynomial(r, SERIES)));
    let power = |n: i64| f64::from_bits(((n + 1023) as u64) << 52);
    y * power(n / 2) * power(n - n / 2)
}

/// `ln x` as an unevaluated sum, for positive finite `x`: exact to about 2^-60 relative.
///
/// `x = 2^k m`, `m` in [sqrt(1/2), sqrt(2)); with `s = (m - 1) / (m + 1)`,
/// `ln m = 2 (s + s^3/3 + s^5/5 + ...)`, where `s` is kept with its rounding error.
fn ln_sum(x: f64) -> (f64, f64) {
    const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    let tiny = x < f64::MIN_POSITIVE;
    let bits = (if tiny { x * 2f64.powi(54) } else { x }).to_bits();
    let k = (bits.wrapping_sub(SQRT_HALF) as i64) >> 52;
    let m = f64::from_bits(bits.wrapping_sub((k as u64) << 52));
    let k = (if tiny { k - 54 } else { k }) as f64;

    let f = m - 1.0;
    let divisor = 2.0 + f;
    let divisor_rest = f - (divisor - 2.0);
    let s = f / divisor;
    let product = s * divisor;
    let remainder = (f - product) - product_error(s, divisor, product) - s * divisor_rest;
    let s_rest = remainder / divisor;

    let z = s * s;
    const SERIES: [f64; 12] = {
        let mut table = [0.0; 12];
        let mut i = 0;
        while i < 12 {
            table[i] = 2.0 / (2 * i + 3) as f64;
            i += 1;
        }
        table
    };
    let tail = s * (z * polynomial(z, SERIES));
    let (a, b) = (k * LN2[0], 2.0 * s);
    let high = a + b;
    // TwoSum: b may be the larger one only if k is 0, and then both are exact.
    let low = (b - (high - a)) + (2.0 * s_rest + (tail + k * LN2[1]));
    let sum = high + low;
    (sum, low - (sum - high))
}

/// `a * b - product` exactly, for `product = a * b` rounded (Dekker's product, with Veltkamp's
/// splitting: halves of 26 bits multiply without error).
fn product_error(a: f64, b: f64, product: f64) -> f64 {
    let split = |x: f64| {
        let scaled = x * 134_217_729.0;
        let high = scaled - (scaled - x);
        (high, x - high)
    };
    let ((a1, a2), (b1, b2)) = (split(a), split(b));
    ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn check(value: f64, truth: f64, what: &str) {
        // The platform's functions serve as truth here; they are within 1 ulp themselves.
        let same = value == truth || (value.is_nan() && truth.is_nan());
        let scale = truth.abs().max(f64::MIN_POSITIVE);
        let close = (value - truth).abs() <= scale * 3.4e-16 || (value - truth).abs() < 1e-323;
        assert!(same || close, "{what}: {value:e}, expected {truth:e}");
    }

    #[test]
    fn exponentials_and_logarithms() {
        for i in 0..200_000 {
            let random = Random { seed: 5, step: i };
            let x = random.unit_f64(0) * 1460.0 - 748.0;
            check(exp64(x), x.exp(), &format!("exp {x}"));
            let x = f64::from_bits(random.bits(1) >> 1);
            check(ln64(x), x.ln(), &format!("ln {x}"));
            let x = 1.0 + (random.unit_f64(2) - 0.5) / 2f64.powi((i % 50) as i32);
            check(ln64(x), x.ln(), &format!("ln {x}"));
        }
        assert_eq!((exp64(0.0), exp64(-0.0), ln64(1.0)), (1.0, 1.0, 0.0));
        assert_eq!(
            (exp64(f64::INFINITY), exp64(f64::NEG_INFINITY)),
            (f64::INFINITY, 0.0)
        );
        assert_eq!(
            (ln64(f64::INFINITY), ln64(-0.0)),
            (f64::INFINITY, f64::NEG_INFINITY)
        );
        assert!(exp64(f64::NAN).is_nan() && ln64(-1.0).is_nan() && ln64(f64::NAN).is_nan());
    }

    #[test]
    fn powers() {
        for i in 0..200_000 {
            let random = Random { seed: 6, step: i };
            let x = 2f64.powf(random.unit_f64(0) * 60.0 - 30.0);
            let y = random.unit_f64(1) * 40.0 - 20.0;
            check(pow64(x, y), x.powf(y), &format!("{x} ^ {y}"));
            // Frequencies of rotary embeddings.
            let (base, y) = (1e4 * (1.0 + 99.0 * random.unit_f64(2)), -random.unit_f64(3));
            check(pow64(base, y), base.powf(y), &format!("{base} ^ {y}"));
            let (x, y) = (
                f64::from_bits(random.bits(4)),
                f64::from_bits(random.bits(5)),
            );
            check(pow64(x, y), x.powf(y), &format!("{x} ^ {y}"));
        }
        let edges = [
            0.0,
            0.5,
            1.0,
            2.0,
            3.0,
            1e-310,
            4_503_599_627_370_497.0,
            9_007_199_254_740_993.0,
            1e300,
            f64::MAX,
            f64::INFINITY,
            f64::NAN,
        ];
        for x in edges.iter().flat_map(|&x| [x, -x]) {
            for y in edges.iter().flat_map(|&y| [y, -y]) {
                let (value, truth) = (pow64(x, y), x.powf(y));
                check(value, truth, &format!("{x} ^ {y}"));
                assert!(value.is_nan() || value.is_sign_negative() == truth.is_sign_negative());
            }
        }
    }

    #[test]
    fn sines_and_cosines() {
        let half_pi = std::f64::consts::FRAC_PI_2;
        for i in 0..300_000 {
            let random = Random { seed: 7, step: i };
            let magnitude = 2f64.powi((i % 26) as i32);
            let wide = (random.unit_f64(0) - 0.5) * 2.0 * magnitude;
            // Neighbours of multiples of pi/2, where the reduction cancels most.
            let near = (random.bits(1) % 30_000_000) as f64 * half_pi;
            for x in [wide, near, i as f64, wide as f32 as f64] {
                let (sine, cosine) = sin_cos64(x);
                check(sine, x.sin(), &format!("sin {x}"));
                check(cosine, x.cos(), &format!("cos {x}"));
            }
        }
        assert_eq!(sin_cos64(0.0), (0.0, 1.0));
        for x in [1e9, 1e12, 1e18, 1e300, f64::MAX] {
            let (sine, cosine) = sin_cos64(-x);
            assert!(sine.abs() <= 1.0 && cosine.abs() <= 1.0);
        }
        assert!(sin_cos64(f64::INFINITY).0.is_nan() && sin_cos64(f64::NAN).1.is_nan());
    }
}
