//! Random weights straight in a storage format: valid blocks, without floats before them, for
//! models and benchmarks of any size.
//!
//! The integers of a block are random bits; its scales are then set so that the weights have the
//! wanted spread. Where a format has minima, they take the mean away.

use std::f32::consts::FRAC_1_SQRT_2;

use crate::{
    error::{Code, Error, Result},
    float::{bf16_from_f32, f16_from_f32},
    quant::{Format, fp4::small_float, is_computable},
    random::Random,
};

/// Fills `out` with random blocks, whose weights have a mean of about 0 and about the standard
/// deviation `deviation`; a function of its arguments only.
///
/// # Errors
/// [`Code::Unsupported`] if the format is not computable, [`Code::InvalidArgument`] if `out` is not
/// whole blocks.
pub fn random_blocks(format: Format, deviation: f32, random: Random, out: &mut [u8]) -> Result<()> {
    if !is_computable(format) {
        let message = "this build knows the format by name only and cannot make blocks of it";
        return Err(Error::new(Code::Unsupported, format.name(), message));
    }
    if !out.len().is_multiple_of(format.block_bytes()) {
        let (bytes, found) = (format.block_bytes(), out.len());
        let message = format!("expected whole blocks of {bytes} bytes, found {found}");
        return Err(Error::new(Code::InvalidArgument, format.name(), message));
    }
    for (draw, word) in (0..).zip(out.chunks_mut(8)) {
        word.copy_from_slice(&random.bits(draw).to_le_bytes()[..word.len()]);
    }
    let shape = |block: &mut [u8]| shape(format, deviation, block);
    out.chunks_exact_mut(format.block_bytes()).for_each(shape);
    Ok(())
}

/// Makes a block of `format` of random bytes. The divisors are the root mean squares of what a
/// scale is multiplied with.
fn shape(format: Format, deviation: f32, block: &mut [u8]) {
    match format {
        Format::F32 => float(block, deviation, |x| x.to_le_bytes()),
        Format::F16 => float(block, deviation, |x| f16_from_f32(x).to_le_bytes()),
        Format::BF16 => float(block, deviation, |x| bf16_from_f32(x).to_le_bytes()),
        Format::Q4_0 => signed_scale(block, 0, deviation / 4.637),
        Format::Q5_0 => signed_scale(block, 0, deviation / 9.247),
        Format::Q4_1 => scale_and_min(block, 0, deviation / 4.610, 7.5),
        Format::Q5_1 => scale_and_min(block, 0, deviation / 9.233, 15.5),
        Format::Q8_0 => {
            // Encoders keep to [-127, 127].
            let lowest = block[2..].iter_mut().filter(|byte| **byte == 0x80);
            lowest.for_each(|byte| *byte = 0x81);
            scale(block, 0, deviation / 73.90);
        }
        Format::Q2_K => {
            // Scales of 8 to 15, and minima of as many steps.
            for byte in &mut block[..16] {
                *byte = (*byte & 7 | 8) * 17;
            }
            scale_and_min(block, 80, deviation / 13.11, -1.5);
        }
        Format::Q3_K => signed_scale(block, 108, deviation / 43.34),
        Format::Q4_K => {
            equal_scales_and_minima(block);
            scale_and_min(block, 0, deviation / 223.1, -7.5);
        }
        Format::Q5_K => {
            equal_scales_and_minima(block);
            scale_and_min(block, 0, deviation / 446.8, -15.5);
        }
        Format::Q6_K => signed_scale(block, 208, deviation / 1366.0),
        Format::IQ4_NL => signed_scale(block, 0, deviation / 67.44),
        Format::IQ4_XS => signed_scale(block, 0, deviation / 1246.0),
        Format::IQ1_S => signed_scale(block, 0, deviation / 7.2),
        Format::IQ1_M => spread_scale(block, deviation / 7.2),
        Format::IQ2_XXS => signed_scale(block, 0, deviation / 53.36),
        Format::IQ2_XS => signed_scale(block, 0, deviation / 55.9),
        Format::IQ2_S => signed_scale(block, 0, deviation / 56.39),
        Format::IQ3_XXS => signed_scale(block, 0, deviation / 142.4),
        Format::IQ3_S => signed_scale(block, 0, deviation / 140.2),
        Format::TQ1_0 => {
            five_digits(&mut block[..52]);
            signed_scale(block, 52, deviation / 0.8165);
        }
        Format::TQ2_0 => {
            three_of_four(&mut block[..64]);
            signed_scale(block, 64, deviation / FRAC_1_SQRT_2);
        }
        Format::Q1_0 => signed_scale(block, 0, deviation),
        Format::Q2_0 => {
            three_of_four(&mut block[2..]);
            signed_scale(block, 0, deviation / FRAC_1_SQRT_2);
        }
        Format::MXFP4 => block[0] = exponent(block[0], deviation / 5.852),
        Format::NVFP4 => {
            for scale in &mut block[..4] {
                *scale = near_float(*scale, deviation / 5.852);
            }
        }
        _ => unreachable!("the caller has checked that the format is computable"),
    }
}

/// A uniformly distributed float of the block's first 16 bits.
fn float<const N: usize>(block: &mut [u8], deviation: f32, bytes: fn(f32) -> [u8; N]) {
    let unit = f32::from(u16::from_le_bytes([block[0], block[1]])) / 32767.5 - 1.0;
    block.copy_from_slice(&bytes(unit * deviation * 3f32.sqrt()));
}

/// The f16 at byte `at` becomes `size`, give or take a quarter; returns what it became.
fn scale(block: &mut [u8], at: usize, size: f32) -> f32 {
    let bits = u16::from_le_bytes([block[at], block[at + 1]]) & 0x7fff;
    let scale = size * (0.75 + f32::from(bits) / 65536.0);
    block[at..at + 2].copy_from_slice(&f16_from_f32(scale).to_le_bytes());
    scale
}

/// As [`scale`], of either sign, which takes away the mean of integers that are not symmetrical.
fn signed_scale(block: &mut [u8], at: usize, size: f32) {
    let sign = block[at + 1] & 0x80;
    scale(block, at, size);
    block[at + 1] |= sign;
}

/// As [`signed_scale`], for the f16 of which IQ1_M keeps four bits at the top of each 16.
fn spread_scale(block: &mut [u8], size: f32) {
    let places = [49, 51, 53, 55];
    let mut half = [block[48], block[50]];
    signed_scale(&mut half, 0, size);
    let bits = u16::from_le_bytes(half);
    for (i, place) in places.into_iter().enumerate() {
        let four = (bits >> (4 * i)) as u8 & 15;
        block[place] = block[place] & 15 | four << 4;
    }
}

/// Makes bytes those of five digits to the base of 3: of 243 fractions of 256, rounded up.
fn five_digits(bytes: &mut [u8]) {
    for byte in bytes {
        let digits = u16::from(*byte) * 243 / 256;
        *byte = (digits * 256).div_ceil(243) as u8;
    }
}

/// Replaces the 2-bit code 3, which encoders do not make, by 1.
fn three_of_four(bytes: &mut [u8]) {
    for byte in bytes {
        let both = *byte & *byte >> 1 & 0x55;
        *byte &= !(both << 1);
    }
}

/// The exponent of one of the powers of two around `size`, so that their mean square is its square.
fn exponent(random: u8, size: f32) -> u8 {
    let below = f32::from_bits(size.to_bits() & 0x7f80_0000);
    let part = ((size / below).powi(2) - 1.0) / 3.0;
    let up = f32::from(random) < 256.0 * part;
    // 2^(e - 128), and the bias of f32 is 127.
    (below.to_bits() >> 23) as u8 + 1 + u8::from(up)
}

/// The 8-bit float of NVFP4 nearest to `size`, give or take a quarter.
fn near_float(random: u8, size: f32) -> u8 {
    let size = size * (0.75 + f32::from(random) / 512.0);
    let distance = |bits: u8| (small_float(bits) - size).abs();
    let nearer = |a: u8, b: u8| if distance(b) < distance(a) { b } else { a };
    (1..0x7f).fold(0, nearer)
}

/// As [`scale`]; the f16 behind it is what takes the mean of the integers, `mean` steps, away: a
/// minimum that is added, or, for a negative `mean`, the size of one that is subtracted.
fn scale_and_min(block: &mut [u8], at: usize, size: f32, mean: f32) {
    let scale = scale(block, at, size);
    let min = f16_from_f32(-mean * scale);
    block[at + 2..at + 4].copy_from_slice(&min.to_le_bytes());
}

/// 6-bit scales of 32 to 63 of Q4_K and Q5_K, and minima of as many steps: bytes 4..8 and 8..12 of
/// the block have the same low bits and top bits, 12..16 equal halves.
fn equal_scales_and_minima(block: &mut [u8]) {
    for j in 4..8 {
        block[j] |= 0xa0;
        block[j + 4] = block[j];
        block[j + 8] = (block[j + 8] & 15) * 17;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::decode;

    #[test]
    fn weights_have_the_wanted_spread() {
        const VALUES: usize = 1 << 17;
        let mut weights = vec![0.0; VALUES];
        for format in Format::all().filter(|&format| is_computable(format)) {
            for deviation in [1.0, 0.02] {
                let mut bytes = vec![0; format.bytes(VALUES as u64).unwrap() as usize];
                let random = Random { seed: 1, step: 2 };
                random_blocks(format, deviation, random, &mut bytes).unwrap();
                decode(format, &bytes, &mut weights).unwrap();
                let sum: f32 = weights.iter().sum();
                let squares: f32 = weights.iter().map(|x| x * x).sum();
                let mean = sum / VALUES as f32 / deviation;
                let spread = (squares / VALUES as f32).sqrt() / deviation;
                assert!(mean.abs() < 0.02, "{format:?}: {mean}");
                assert!((0.95..1.05).contains(&spread), "{format:?}: {spread}");
            }
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let random = Random { seed: 1, step: 2 };
        let code = |format, out: &mut [u8]| random_blocks(format, 1.0, random, out).unwrap_err();
        assert_eq!(
            code(Format::Q4_0, &mut [0; 17]).code(),
            Code::InvalidArgument
        );
        assert_eq!(code(Format::Q8_K, &mut [0; 292]).code(), Code::Unsupported);
    }
}
