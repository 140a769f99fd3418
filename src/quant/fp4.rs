//! The formats of 4-bit floats, MXFP4 (32 in a block) and NVFP4 (64): a code is a sign, two bits of
//! exponent and one of mantissa (E2M1), taken twice to be an integer; scales are 8-bit floats.
//!
//! Source: OCP Microscaling Formats (MX) 1.0 for MXFP4; the layouts are ggml's. Scales of any bits
//! are finite: the codes that stand for NaN elsewhere do not here.

use crate::quant::{
    Format, GROUP, bytes_at,
    dot::{Blocks, Group},
    legacy::halves,
};

/// Twice what each 4-bit code stands for.
pub const FP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

names!(MXFP4 NVFP4);

/// A scale `e`, then codes as in Q4_0. Weights: `2^(e - 128) * value`.
impl Blocks for MXFP4 {
    layout!(MXFP4, 17, groups 1, mins 0);

    #[inline(always)]
    fn unpack(block: &Self::Block, _group: usize) -> Group {
        let mut q = halves(bytes_at(block, 1), 0);
        for q in &mut q {
            *q = value(*q);
        }
        Group::new(q, power(block[0]))
    }
}

/// Four scales of 16 values each, then 8 bytes for each 16: byte `j` holds value `j` in its low and
/// value `j + 8` in its high half. Weights: `scale * value`.
impl Blocks for NVFP4 {
    layout!(NVFP4, 36, groups 2, mins 0);
    const SCALES: usize = 2;

    #[inline(always)]
    fn unpack(block: &Self::Block, group: usize) -> Group {
        let scales: &[u8; 2] = bytes_at(block, 2 * group);
        let codes: &[u8; 16] = bytes_at(block, 4 + 16 * group);
        let mut q = [0; GROUP];
        for i in 0..GROUP {
            let byte = codes[i / 16 * 8 + i % 8];
            q[i] = value(i16::from(byte >> (i / 8 % 2 * 4)));
        }
        Group {
            q,
            scales: [small_float(scales[0]), small_float(scales[1])],
            mins: [0.0; 2],
        }
    }
}

#[inline(always)]
fn value(code: i16) -> i16 {
    i16::from(FP4_VALUES[code as usize & 15])
}

/// `2^(e - 128)`: half of what the exponent `e` (E8M0) stands for, as values are doubled. The lowest
/// two are subnormal numbers.
#[inline(always)]
fn power(e: u8) -> f32 {
    match e {
        0 | 1 => f32::from_bits(0x0020_0000 << e),
        _ => f32::from_bits((u32::from(e) - 1) << 23),
    }
}

/// Half of an unsigned float of 4 bits of exponent and 3 of mantissa (UE4M3): the lowest exponent is
/// that of subnormal numbers, 0x7f is 0, and the top bit does not count otherwise.
#[inline(always)]
pub(super) fn small_float(bits: u8) -> f32 {
    if bits == 0x7f {
        return 0.0;
    }
    // In units of the smallest, 2^-10, and exact: 15 << 14 at most.
    let (exponent, mantissa) = (bits >> 3 & 15, u32::from(bits & 7));
    let steps = match exponent {
        0 => mantissa,
        _ => (8 + mantissa) << (exponent - 1),
    };
    steps as f32 / 1024.0
}
