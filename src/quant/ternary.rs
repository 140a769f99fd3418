//! The formats of one and two bits a weight: TQ1_0 and TQ2_0 (256 in a block), Q1_0 (128), Q2_0
//! (64). A block has an f16 scale `d`.

use crate::quant::{
    Format, GROUP, bytes_at,
    dot::{Blocks, Group},
    half_at,
    k::two_bits,
};

names!(TQ1_0 TQ2_0 Q1_0 Q2_0);

/// Digits to the base of 3: 48 bytes of five each, 4 bytes of four each, `d`. Weights:
/// `d * (digit - 1)`.
///
/// A byte is a fraction of 256, the first digit the most significant. The first 32 bytes hold the
/// values 0 .. 160, digit `k` of byte `i` is value `32 k + i`; the next 16 the values 160 .. 240, and
/// the last 4 the rest, likewise.
impl Blocks for TQ1_0 {
    layout!(TQ1_0, 54, groups 8, mins 0);

    #[inline(always)]
    fn unpack(block: &Self::Block, group: usize) -> Group {
        let mut q = [0; GROUP];
        for (i, q) in q.iter_mut().enumerate() {
            let (byte, k) = match 32 * group + i {
                i @ 0..160 => (block[i % 32], i / 32),
                i @ 160..240 => (block[32 + i % 16], (i - 160) / 16),
                i => (block[48 + i % 4], (i - 240) / 4),
            };
            *q = digit(byte, k) - 1;
        }
        Group::new(q, half_at(block, 52))
    }
}

/// Digit `k` of a fraction, below 5: what `3^k` times it is, but for whole numbers, holds of thirds.
#[inline(always)]
fn digit(byte: u8, k: usize) -> i16 {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let rest = byte.wrapping_mul(POWERS[k]);
    (i16::from(rest) * 3) >> 8
}

/// 64 bytes of 2-bit integers as in Q2_K, `d`. Weights: `d * (q - 1)`.
impl Blocks for TQ2_0 {
    layout!(TQ2_0, 66, groups 8, mins 0);

    #[inline(always)]
    fn unpack(block: &Self::Block, group: usize) -> Group {
        let mut q = two_bits(block, 0, group);
        for q in &mut q {
            *q -= 1;
        }
        Group::new(q, half_at(block, 64))
    }
}

/// `d`, then a bit a value, the lowest first. Weights: `d` where it is set, else `-d`.
impl Blocks for Q1_0 {
    layout!(Q1_0, 18, groups 4, mins 0);

    #[inline(always)]
    fn unpack(block: &Self::Block, group: usize) -> Group {
        let bits = u32::from_le_bytes(*bytes_at(block, 2 + 4 * group));
        let mut q = [0; GROUP];
        for (i, q) in q.iter_mut().enumerate() {
            *q = 2 * (bits >> i & 1) as i16 - 1;
        }
        Group::new(q, half_at(block, 0))
    }
}

/// `d`, then 2-bit integers, four consecutive values a byte, the lowest bits first. Weights:
/// `d * (q - 1)`.
impl Blocks for Q2_0 {
    layout!(Q2_0, 18, groups 2, mins 0);

    #[inline(always)]
    fn unpack(block: &Self::Block, group: usize) -> Group {
        let bytes: &[u8; 8] = bytes_at(block, 2 + 8 * group);
        let mut q = [0; GROUP];
        for (i, q) in q.iter_mut().enumerate() {
            *q = i16::from(bytes[i / 4] >> (2 * (i % 4)) & 3) - 1;
        }
        Group::new(q, half_at(block, 0))
    }
}
