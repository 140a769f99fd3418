//! f16 and bf16 to f32 and back, as integer arithmetic without branches.
//!
//! The results are those of the IEEE 754 conversions with ties to even (and of the CPUs'
//! instructions for f16, NaN payloads included), but the code is the same with and without such
//! instructions and can be vectorised for any CPU.

/// The value of the f16 with these bits; exact. A signalling NaN becomes quiet.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    /// 2^-14 as f32, the smallest normal f16: the exponents differ by 112.
    const TINY: u32 = 113 << 23;
    let sign = u32::from(bits & 0x8000) << 16;
    let rest = u32::from(bits & 0x7fff) << 13;
    // A subnormal's fraction, put behind the bits of 2^-14, is off by exactly 2^-14.
    let subnormal = (f32::from_bits(rest + TINY) - f32::from_bits(TINY)).to_bits();
    let normal = rest + (112 << 23);
    let infinite = rest | 0x7f80_0000;
    let quiet = if rest & 0x007f_ffff == 0 { 0 } else { 1 << 22 };
    let bits = if rest < 1 << 23 { subnormal } else { normal };
    let bits = if rest >= 31 << 23 {
        infinite | quiet
    } else {
        bits
    };
    f32::from_bits(bits | sign)
}

/// The bits of the f16 nearest to `x`, ties to even; 65520 and more become infinite.
#[inline(always)]
pub fn f16_from_f32(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16) & 0x8000;
    let rest = x.to_bits() & 0x7fff_ffff;
    // Below 2^-14: the ulp of numbers in [0.5, 1) is 2^-24, that of subnormal f16, so adding 0.5
    // rounds to it.
    let subnormal = (f32::from_bits(rest) + 0.5)
        .to_bits()
        .wrapping_sub(0.5f32.to_bits());
    let odd = (rest >> 13) & 1;
    let normal = rest.wrapping_sub(112 << 23).wrapping_add(0xfff + odd) >> 13;
    let nan = 0x7e00 | ((rest >> 13) & 0x3ff);
    let bits = if rest < 113 << 23 { subnormal } else { normal };
    let bits = if rest >= 65520f32.to_bits() {
        0x7c00
    } else {
        bits
    };
    let bits = if rest > 0x7f80_0000 { nan } else { bits };
    (bits | sign) as u16
}

/// The value of the bf16 with these bits: the upper half of an f32; exact.
#[inline(always)]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The bits of the bf16 nearest to `x`, ties to even.
#[inline(always)]
pub fn bf16_from_f32(x: f32) -> u16 {
    let bits = x.to_bits();
    let odd = (bits >> 16) & 1;
    let rounded = bits.wrapping_add(0x7fff + odd) >> 16;
    let nan = (bits >> 16) | 0x40;
    (if bits & 0x7fff_ffff > 0x7f80_0000 {
        nan
    } else {
        rounded
    }) as u16
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn every_16_bit_value_is_decoded_and_comes_back() {
        for bits in 0..=u16::MAX {
            let value = f16_to_f32(bits);
            assert_eq!(
                value.to_bits(),
                f16::from_bits(bits).to_f32().to_bits(),
                "{bits:#x}"
            );
            let nan = bits & 0x7fff > 0x7c00;
            assert_eq!(f16_from_f32(value), if nan { bits | 0x200 } else { bits });

            let value = bf16_to_f32(bits);
            let nan = bits & 0x7fff > 0x7f80;
            let expected = bf16::from_bits(bits).to_f32().to_bits();
            assert_eq!(
                value.to_bits() | if nan { 1 << 22 } else { 0 },
                expected,
                "{bits:#x}"
            );
            assert_eq!(bf16_from_f32(value), if nan { bits | 0x40 } else { bits });
        }
    }

    #[test]
    fn rounding_is_that_of_the_half_crate() {
        // A prime stride visits every exponent, and the ties around each 16-bit value are added.
        for bits in (0..=u32::MAX).step_by(1021) {
            check(f32::from_bits(bits));
        }
        for bits in 0..=u16::MAX {
            for edge in [
                f16_to_f32(bits).to_bits() ^ 0x1000,
                u32::from(bits) << 16 | 0x8000,
            ] {
                for step in [edge.wrapping_sub(1), edge, edge.wrapping_add(1)] {
                    check(f32::from_bits(step));
                }
            }
        }
    }

    fn check(x: f32) {
        assert_eq!(
            f16_from_f32(x),
            f16::from_f32(x).to_bits(),
            "{:#x}",
            x.to_bits()
        );
        assert_eq!(
            bf16_from_f32(x),
            bf16::from_f32(x).to_bits(),
            "{:#x}",
            x.to_bits()
        );
    }
}
