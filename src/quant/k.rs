//! The K formats, 256 values in a block: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K.
//!
//! A block has an f16 scale `d` (and `dmin` where there are minima), integer scales (and minima)
//! per 16 or 32 values, and the integers, whose bits are spread over the block so that one group of
//! 32 columns is one shift and mask of 32 bytes. Weights: `(d * sc) * q - dmin * m`.

use crate::quant::{
    Format, GROUP, bytes_at,
    dot::{Blocks, Group},
    half_at,
};

names!(Q2_K Q3_K Q4_K Q5_K Q6_K);

/// 16 bytes of scale (low half) and minimum (high half) per 16 values, 64 of 2-bit integers (four
/// groups in each 32 bytes), `d`, `dmin`.
impl Blocks for Q2_K {
    layout!(Q2_K, 84, groups 8, mins 2);

    #[inline(always)]
    fn unpack(block: &Self::Block, group: usize) -> Group {
        let scales: [u8; 2] = *bytes_at(block, 2 * group);
        let dmin = half_at(block, 82);
        let min = |scale: u8| -(dmin * f32::from(scale >> 4));
        let q = two_bits(block, 16, group);
        let q = scaled(q, [i16::from(scales[0] & 15), i16::from(scales[1] & 15)]);
        Group::with_mins(q, half_at(block, 80), [min(scales[0]), min(scales[1])])
    }
}

impl Q3_K {
    /// The integers without scales, in [-4, 3], and the two scales, in [-32, 31].
    #[inline(always)]
    fn parts(block: &[u8; 110], group: usize) -> ([i16; GROUP], [i16; 2]) {
        let high: &[u8; 32] = bytes_at(block, 0);
        let mut q = two_bits(block, 32, group);
        for (q, high) in q.iter_mut().zip(high) {
            *q += i16::from(high >> group & 1) * 4 - 4;
        }
        // Of 16 scales, byte j holds the low 4 bits of scales j and j + 8; then byte 8 + j % 4
        // holds the high 2 bits of scales j, j + 4, j + 8, j + 12.
        let scales: &[u8; 12] = bytes_at(block, 96);
        let scale = |j: usize| {
            let low = scales[j % 8] >> (4 * (j / 8)) & 15;
            let high = scales[8 + j % 4] >> (2 * (j / 4)) & 3;
            i16::from(low | high << 4) - 32
        };
        (q, [scale(2 * group), scale(2 * group + 1)])
    }
}

/// 32 bytes of third bits (bit `g` of byte `i` is value `32 g + i`'s), 64 of 2-bit integers as in
/// Q2_K, 12 of 6-bit scales per 16 values, `d`. The scales are minus 32, the integers minus 4.
impl Blocks for Q3_K {
    layout!(Q3_K, 110, groups 8, mins 0);

    #[inline(always)]
    fn unpack(block: &Self::Block, group: usize) -> Group {
        let (q, scales) = Self::parts(block, group);
        Group::new(scaled(q, scales), half_at(block, 108))
    }

    /// Not by way of [`Group::q`], which loses the sign of a zero.
    #[inline(always)]
    fn decode(block: &Self::Block, group: usize) -> [f32; GROUP] {
        let (q, scales) = Self::parts(block, group);
        weights(q, half_at(block, 108), scales)
    }
}

/// `d`, `dmin`, 12 bytes of 6-bit scales and minima per 32 values, 128 of 4-bit integers: groups
/// 2j and 2j + 1 are the low and the high halves of the same 32 bytes.
impl Blocks for Q4_K {
    layout!(Q4_K, 144, groups 8, mins 1);

    #[inline(always)]
    fn unpack(block: &Self::Block, group: usize) -> Group {
        let (scale, min) = scale_and_min(block, group);
        Group::with_mins(four_bits(block, 16, group), scale, [min; 2])
    }
}

/// As Q4_K, with 32 bytes of fifth bits (bit `g` of byte `i` is value `32 g + i`'s) before the
/// 4-bit integers.
impl Blocks for Q5_K {
    layout!(Q5_K, 176, groups 8, mins 1);

    #[inline(always)]
    fn unpack(block: &Self::Block, group: usize) -> Group {
        let (scale, min) = scale_and_min(block, group);
        let fifth: &[u8; 32] = bytes_at(block, 16);
        let mut q = four_bits(block, 48, group);
        for (q, fifth) in q.iter_mut().zip(fifth) {
            *q += i16::from(fifth >> group & 1) * 16;
        }
        Group::with_mins(q, scale, [min; 2])
    }
}

impl Q6_K {
    /// The integers without scales, in [-32, 31], and the two scales.
    #[inline(always)]
    fn parts(block: &[u8; 210], group: usize) -> ([i16; GROUP], [i16; 2]) {
        let (half, j) = (group / 4, group % 4);
        let low: &[u8; 32] = bytes_at(block, 64 * half + 32 * (j % 2));
        let high: &[u8; 32] = bytes_at(block, 128 + 32 * half);
        let mut q = [0; GROUP];
        for i in 0..GROUP {
            let low = low[i] >> (4 * (j / 2)) & 15;
            let high = high[i] >> (2 * j) & 3;
            q[i] = i16::from(low | high << 4) - 32;
        }
        let [first, last] = *bytes_at(block, 192 + 2 * group);
        (q, [i16::from(first as i8), i16::from(last as i8)])
    }
}

/// 128 bytes of low halves, 64 of high 2-bit parts, 16 signed 8-bit scales per 16 values, `d`.
/// Groups 0..4 lie in the first half of both: low halves of bytes 0..32, 32..64, then high halves.
/// The integers are minus 32.
impl Blocks for Q6_K {
    layout!(Q6_K, 210, groups 8, mins 0);

    #[inline(always)]
    fn unpack(block: &Self::Block, group: usize) -> Group {
        let (q, scales) = Self::parts(block, group);
        Group::new(scaled(q, scales), half_at(block, 208))
    }

    /// Not by way of [`Group::q`], which loses the sign of a zero.
    #[inline(always)]
    fn decode(block: &Self::Block, group: usize) -> [f32; GROUP] {
        let (q, scales) = Self::parts(block, group);
        weights(q, half_at(block, 208), scales)
    }
}

/// The 2-bit integers of a group: bits `2 * (group % 4)` of 32 bytes.
#[inline(always)]
pub(super) fn two_bits(block: &[u8], at: usize, group: usize) -> [i16; GROUP] {
    let bytes: &[u8; 32] = bytes_at(block, at + 32 * (group / 4));
    field(bytes, 2 * (group % 4), 3)
}

/// The 4-bit integers of a group: the low or high halves of 32 bytes.
#[inline(always)]
fn four_bits(block: &[u8], at: usize, group: usize) -> [i16; GROUP] {
    let bytes: &[u8; 32] = bytes_at(block, at + 32 * (group / 2));
    field(bytes, 4 * (group % 2), 15)
}

#[inline(always)]
fn field(bytes: &[u8; GROUP], shift: usize, mask: u8) -> [i16; GROUP] {
    let mut q = [0; GROUP];
    for (q, byte) in q.iter_mut().zip(bytes) {
        *q = i16::from(byte >> shift & mask);
    }
    q
}

/// Each 16 integers times their scale.
#[inline(always)]
pub(super) fn scaled(mut q: [i16; GROUP], scales: [i16; 2]) -> [i16; GROUP] {
    for (i, q) in q.iter_mut().enumerate() {
        *q *= scales[i / 16];
    }
    q
}

/// `(d * scale) * q`, where a scale or integer of 0 keeps the sign of its zero.
#[inline(always)]
fn weights(q: [i16; GROUP], d: f32, scales: [i16; 2]) -> [f32; GROUP] {
    let scales = [d * f32::from(scales[0]), d * f32::from(scales[1])];
    let mut out = [0.0; GROUP];
    for i in 0..GROUP {
        out[i] = scales[i / 16] * f32::from(q[i]);
    }
    out
}

/// `d * sc` and `-(dmin * m)` of a group of Q4_K or Q5_K.
///
/// Bytes 0..4 hold scales 0..4 in 6 bits, bytes 4..8 minima 0..4; bytes 8..12 the low 4 bits of
/// scales 4..8 (low half) and minima 4..8 (high half), whose high 2 bits are the top bits of bytes
/// 0..4 and 4..8.
#[inline(always)]
fn scale_and_min(block: &[u8], group: usize) -> (f32, f32) {
    let packed: &[u8; 12] = bytes_at(block, 4);
    let j = group % 4;
    let (scale, min) = if group < 4 {
        (packed[j] & 63, packed[4 + j] & 63)
    } else {
        (
            packed[8 + j] & 15 | packed[j] >> 6 << 4,
            packed[8 + j] >> 4 | packed[4 + j] >> 6 << 4,
        )
    };
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    (d * f32::from(scale), -(dmin * f32::from(min)))
}
