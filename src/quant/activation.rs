//! Activations as the integer dot products see them: 8-bit integers with a scale per 32 values.

use crate::float::round_to_i32;

/// Columns that share a scale: a group of a weight row meets one [`Activation`].
pub const GROUP: usize = 32;

/// 32 consecutive activations of one token: `x[i]` is about `scale * q[i]`.
///
/// What depends on the sums of the integers stands beside them, so that a kernel starts a dot product
/// with minus the offset of a format's weights, and adds its minimum, without touching the integers
/// again. One cache line; all fields are plain data.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Activation {
    /// The integers, in [-127, 127].
    pub q: [i8; GROUP],
    /// What one integer step is worth; 0 if all values are (nearly) 0.
    pub scale: f32,
    /// `scale` times the sum of the integers.
    pub t: f32,
    /// `scale` times the sum of the first 16.
    pub t0: f32,
    /// `scale` times the sum of the last 16.
    pub t1: f32,
    /// -8 times the sum of the integers.
    pub start8: i32,
    /// -128 times the sum of the integers.
    pub start128: i32,
    /// -32 times the sum of the first 16.
    pub start0: i32,
    /// -32 times the sum of the last 16.
    pub start1: i32,
}

const _: () = assert!(size_of::<Activation>() == 64 && align_of::<Activation>() == 64);

impl Default for Activation {
    /// 32 zeros.
    fn default() -> Self {
        Self::new([0; GROUP], 0.0)
    }
}

impl Activation {
    /// The integers and their scale, with the sums computed from them.
    #[inline(always)]
    pub fn new(q: [i8; GROUP], scale: f32) -> Self {
        let (first, last) = q.split_at(GROUP / 2);
        Self::with_sums(q, scale, [sum(first), sum(last)])
    }

    /// As [`Activation::new`], by one who knows the sums of the first and the last 16.
    #[inline(always)]
    pub fn with_sums(q: [i8; GROUP], scale: f32, [sum0, sum1]: [i32; 2]) -> Self {
        Self {
            q,
            scale,
            t: scale * (sum0 + sum1) as f32,
            t0: scale * sum0 as f32,
            t1: scale * sum1 as f32,
            start8: -8 * (sum0 + sum1),
            start128: -128 * (sum0 + sum1),
            start0: -32 * sum0,
            start1: -32 * sum1,
        }
    }
}

/// Quantizes a token's `x` (32 values per element of `out`); false if a value is not finite, and
/// then `out` holds nothing of use.
///
/// This is the definition: per 32 values, `amax` is the largest magnitude; below 2^-100 all become
/// zero; else `scale = amax / 127` and `q = round_ties_even(x * (127 / amax))`.
#[inline(always)]
pub fn quantize_row(x: &[f32], out: &mut [Activation]) -> bool {
    assert_eq!(x.len(), out.len() * GROUP, "a row is whole groups");
    let mut finite = true;
    for (x, out) in x.as_chunks::<GROUP>().0.iter().zip(out) {
        let mut largest = 0;
        for value in x {
            largest = largest.max(value.to_bits() & 0x7fff_ffff);
        }
        let Some((inverse, scale)) = scales(largest) else {
            finite &= is_finite(largest);
            *out = Activation::default();
            continue;
        };
        let mut q = [0; GROUP];
        for i in 0..GROUP {
            q[i] = round_to_i32(x[i] * inverse) as i8;
        }
        *out = Activation::new(q, scale);
    }
    finite
}

/// Whether the value with the largest magnitude, whose bits without the sign these are, is finite.
#[inline(always)]
pub fn is_finite(largest: u32) -> bool {
    largest < 0x7f80_0000
}

/// What values are multiplied by to become integers, and what an integer is worth; `None` if all
/// become zero. `largest` as for [`is_finite`].
#[inline(always)]
pub fn scales(largest: u32) -> Option<(f32, f32)> {
    /// 2^-100: above it the scale and its products with f16 scales keep their full precision.
    const ZERO_BELOW: f32 = f32::from_bits(27 << 23);
    let amax = f32::from_bits(largest);
    let counts = amax >= ZERO_BELOW && is_finite(largest);
    counts.then(|| (127.0 / amax, amax / 127.0))
}

#[inline(always)]
fn sum(q: &[i8]) -> i32 {
    let mut sum = 0;
    for &q in q {
        sum += i32::from(q);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(x: [f32; GROUP]) -> Activation {
        let mut out = [Activation::default()];
        assert!(quantize_row(&x, &mut out));
        out[0]
    }

    #[test]
    fn integers_are_rounded_to_even_and_summed() {
        let mut x = [0.0; GROUP];
        (x[0], x[1], x[2], x[16], x[31]) = (254.0, 1.0, 3.0, -254.0, -5.0);
        let a = one(x);
        assert_eq!(a.scale, 2.0);
        assert_eq!(
            (a.q[0], a.q[1], a.q[2], a.q[16], a.q[31]),
            (127, 0, 2, -127, -2)
        );
        assert_eq!((a.start8, a.start128), (0, 0));
        assert_eq!((a.start0, a.start1), (-32 * 129, 32 * 129));
        assert_eq!((a.t, a.t0, a.t1), (0.0, 258.0, -258.0));
    }

    #[test]
    fn every_magnitude_stays_in_range() {
        for bits in (0..0x7f80_0000u32).step_by(65_537).chain([0x7f7f_ffff]) {
            let x = f32::from_bits(bits);
            let a = one(std::array::from_fn(
                |i| if i % 3 == 0 { -x } else { x / 2.0 },
            ));
            let zero = x < 2f32.powi(-100);
            assert_eq!(a.q[0], if zero { 0 } else { -127 });
            assert_eq!(a.scale, if zero { 0.0 } else { x / 127.0 });
            assert!(a.q.iter().all(|&q| q >= -127));
        }
    }

    #[test]
    fn a_value_that_is_not_finite_is_reported() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 17, 63] {
                let mut x = [1.0; 2 * GROUP];
                x[place] = bad;
                assert!(!quantize_row(&x, &mut [Activation::default(); 2]));
            }
        }
        assert!(quantize_row(
            &[f32::MAX; GROUP],
            &mut [Activation::default()]
        ));
    }
}
