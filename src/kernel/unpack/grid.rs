//! IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S: points of grids, gathered row by row.

use super::columns32;
use crate::kernel::panel::{Group, Kind, Sink, Unpack};
use crate::kernel::simd::{Points, Rows, Simd};
use crate::quant::{
    IQ1_GRID, IQ1_M, IQ1_S, IQ2_S, IQ2_S_GRID, IQ2_VALUES, IQ2_XS, IQ2_XS_GRID, IQ2_XXS,
    IQ2_XXS_GRID, IQ3_S, IQ3_S_GRID, IQ3_S_VALUES, IQ3_XXS, IQ3_XXS_GRID, IQ3_XXS_VALUES,
};

/// What is added to signed values to make them unsigned, in IQ2 and IQ3_XXS.
const MIDDLE: u8 = 64;

/// The magnitudes of the IQ2 formats plus [`MIDDLE`], by their codes.
const IQ2_BYTES: [i8; 16] = {
    let mut bytes = [0; 16];
    let mut i = 0;
    while i < IQ2_VALUES.len() {
        bytes[i] = MIDDLE as i8 + IQ2_VALUES[i];
        i += 1;
    }
    bytes
};

/// What is added to values of IQ3_S, which are odd and below it.
const IQ3_S_MIDDLE: u8 = 15;

/// What is added to eight times the values of the IQ1 formats, give or take 1.
const IQ1_MIDDLE: i32 = 9;

/// These values by the codes of the grid; with 4 added to the code, 1 is taken off, else added.
const IQ1_BYTES: [i8; 16] = [2, 10, 18, 0, 0, 8, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The points with their magnitudes made bytes for the dot product.
static IQ3_XXS_POINTS: Points<256> = Points::new(&IQ3_XXS_GRID, IQ3_XXS_VALUES, MIDDLE);
static IQ3_S_POINTS: Points<512> = Points::new(&IQ3_S_GRID, IQ3_S_VALUES, IQ3_S_MIDDLE);

impl Unpack for IQ2_XXS {
    const KIND: Kind = Kind::Scale;
    const LARGEST: Option<u32> = Some(107);
    const OFFSET: i32 = MIDDLE as i32;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let d = scaled_half(v, v.words(rows, at), 0.125);
        for pair in 0..4 {
            let [a, b, c, e] = v.columns(rows, at + 2 + 16 * pair);
            for [indices, rest] in [[a, b], [c, e]] {
                let mut q = [indices; 8];
                for i in 0..4 {
                    let point = v.gather(&IQ2_XXS_GRID, v.shr(indices, 8 * i as u32));
                    put_eight(v, &mut q, i, point, IQ2_BYTES);
                }
                v.mirror_columns(&mut q, sevens(v, rest), 2 * MIDDLE);
                sink.take(v, Group::new(q, v.mul(d, steps(v, v.shr(rest, 27), 30))));
            }
        }
    }
}

impl Unpack for IQ2_XS {
    const KIND: Kind = Kind::TwoScales;
    const LARGEST: Option<u32> = Some(107);
    const OFFSET: i32 = MIDDLE as i32;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let d = scaled_half(v, v.words(rows, at), 0.125);
        let [_, _, scales, more] = v.columns(rows, at + 58);
        for pair in 0..4 {
            let [a, b, c, e] = v.columns(rows, at + 2 + 16 * pair);
            for (side, words) in [[a, b], [c, e]].into_iter().enumerate() {
                let mut q = [a; 8];
                for i in 0..4 {
                    let point = v.gather(&IQ2_XS_GRID, v.shr(words[i / 2], i as u32 % 2 * 16));
                    put_eight(v, &mut q, i, point, IQ2_BYTES);
                }
                let [a, b] = words;
                let signs = v.or(
                    v.or(part(v, a, 9, 0, 0x7f), part(v, a, 25, 8, 0x7f)),
                    v.or(part(v, b, 9, 16, 0x7f), part(v, b, 25, 24, 0x7f)),
                );
                v.mirror_columns(&mut q, with_parity(v, signs), 2 * MIDDLE);
                let scales = if pair < 2 { scales } else { more };
                let byte = 8 * (2 * pair as u32 % 4 + side as u32);
                sink.take(v, Group::with_extra(q, d, two_steps(v, scales, byte)));
            }
        }
    }
}

impl Unpack for IQ2_S {
    const KIND: Kind = Kind::TwoScales;
    const LARGEST: Option<u32> = Some(107);
    const OFFSET: i32 = MIDDLE as i32;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let d = scaled_half(v, v.words(rows, at), 0.125);
        let low = columns32(v, rows, at + 2);
        let signs = columns32(v, rows, at + 34);
        // High bits of indices, then scales, a byte a group each.
        let [high, high2, scales, scales2] = v.columns(rows, at + 66);
        for group in 0..8 {
            let (high, scales) = match group {
                0..4 => (high, scales),
                _ => (high2, scales2),
            };
            let byte = 8 * (group as u32 % 4);
            let mut q = [high; 8];
            for i in 0..4 {
                let index = v.or(
                    part(v, low[group], 8 * i as u32, 0, 0xff),
                    part(v, high, byte + 2 * i as u32, 8, 3),
                );
                put_eight(v, &mut q, i, v.gather(&IQ2_S_GRID, index), IQ2_BYTES);
            }
            v.mirror_columns(&mut q, signs[group], 2 * MIDDLE);
            sink.take(v, Group::with_extra(q, d, two_steps(v, scales, byte)));
        }
    }
}

impl Unpack for IQ3_XXS {
    const KIND: Kind = Kind::Scale;
    const LARGEST: Option<u32> = Some(126);
    const OFFSET: i32 = MIDDLE as i32;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let d = scaled_half(v, v.words(rows, at), 0.25);
        let rest = columns32(v, rows, at + 66);
        for pair in 0..4 {
            let [a, b, c, e] = v.columns(rows, at + 2 + 16 * pair);
            for (side, words) in [[a, b], [c, e]].into_iter().enumerate() {
                let mut q = v.points(&IQ3_XXS_POINTS, words, a);
                let rest = rest[2 * pair + side];
                v.mirror_columns(&mut q, sevens(v, rest), 2 * MIDDLE);
                sink.take(v, Group::new(q, v.mul(d, steps(v, v.shr(rest, 27), 30))));
            }
        }
    }
}

impl Unpack for IQ3_S {
    const KIND: Kind = Kind::Scale;
    const LARGEST: Option<u32> = Some(30);
    const OFFSET: i32 = IQ3_S_MIDDLE as i32;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let d = v.half_to_float(v.words(rows, at));
        let [high, high2, _, _] = v.columns(rows, at + 66);
        let signs = columns32(v, rows, at + 74);
        let mut scales = v.words(rows, at + 106);
        for (half, mut high) in [high, high2].into_iter().enumerate() {
            for pair in [2 * half, 2 * half + 1] {
                let [a, b, c, e] = v.columns(rows, at + 2 + 16 * pair);
                for (side, words) in [[a, b], [c, e]].into_iter().enumerate() {
                    let mut q = v.points(&IQ3_S_POINTS, words, high);
                    v.mirror_columns(&mut q, signs[2 * pair + side], 2 * IQ3_S_MIDDLE);
                    let scale = steps(v, v.shl(scales, 1), 30);
                    sink.take(v, Group::new(q, v.mul(d, scale)));
                    (high, scales) = (v.shr(high, 8), v.shr(scales, 4));
                }
            }
        }
    }
}

impl Unpack for IQ1_S {
    const KIND: Kind = Kind::Scale;
    const LARGEST: Option<u32> = Some(18);
    const OFFSET: i32 = IQ1_MIDDLE;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let d = scaled_half(v, v.words(rows, at), 0.125);
        let low = columns32(v, rows, at + 2);
        let rest = v.columns(rows, at + 34);
        for group in 0..8 {
            // 16 bits: 4 x 3 of indices, the scale, and whether 1 is taken off.
            let (rest, bit) = (rest[group / 2], 16 * (group as u32 % 2));
            let less = less(v, rest, bit + 15);
            let mut q = [less; 8];
            for i in 0..4 {
                let index = v.or(
                    part(v, low[group], 8 * i as u32, 0, 0xff),
                    part(v, rest, bit + 3 * i as u32, 8, 7),
                );
                let point = v.or(v.gather(&IQ1_GRID, index), less);
                put_eight(v, &mut q, i, point, IQ1_BYTES);
            }
            let scale = steps(v, part(v, rest, bit + 12, 1, 7), 14);
            sink.take(v, Group::new(q, v.mul(d, scale)));
        }
    }
}

impl Unpack for IQ1_M {
    const KIND: Kind = Kind::TwoScales;
    const LARGEST: Option<u32> = Some(18);
    const OFFSET: i32 = IQ1_MIDDLE;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let low = columns32(v, rows, at);
        let [high, high2, high3, high4] = v.columns(rows, at + 32);
        let [_, _, a, b] = v.columns(rows, at + 40);
        let quarters = v.or(
            v.or(part(v, a, 12, 0, 15), part(v, a, 28, 4, 15)),
            v.or(part(v, b, 12, 8, 15), part(v, b, 28, 12, 15)),
        );
        let d = scaled_half(v, quarters, 0.125);
        for group in 0..8 {
            // 4 x 4 bits: 3 of an index, and whether 1 is taken off.
            let rest = [high, high2, high3, high4][group / 2];
            let bit = 16 * (group as u32 % 2);
            let mut q = [rest; 8];
            for i in 0..4 {
                let bit = bit + 4 * i as u32;
                let index = v.or(
                    part(v, low[group], 8 * i as u32, 0, 0xff),
                    part(v, rest, bit, 8, 7),
                );
                let point = v.or(v.gather(&IQ1_GRID, index), less(v, rest, bit + 3));
                put_eight(v, &mut q, i, point, IQ1_BYTES);
            }
            // Of 16 scales, 12 bits of each 16 hold four.
            let scales = if group < 4 { a } else { b };
            let bit = 16 * (group as u32 / 2 % 2) + 6 * (group as u32 % 2);
            let scale = |bit| steps(v, part(v, scales, bit, 1, 7), 14);
            sink.take(v, Group::with_extra(q, d, [scale(bit), scale(bit + 3)]));
        }
    }
}

/// The f16 in the low half of each lane, times a power of two.
#[inline(always)]
fn scaled_half<V: Simd>(v: V, bits: V::Int, factor: f32) -> V::Float {
    v.mul(v.half_to_float(bits), v.splat_float(factor))
}

/// Some bits from bit `from` on, as many as `mask` has, moved to bit `to`.
#[inline(always)]
fn part<V: Simd>(v: V, a: V::Int, from: u32, to: u32, mask: u32) -> V::Int {
    let moved = if from < to {
        v.shl(a, to - from)
    } else {
        v.shr(a, from - to)
    };
    v.and(moved, v.splat(mask << to))
}

/// `2 s + 1`, of bits that hold `2 s` under `mask`.
#[inline(always)]
fn steps<V: Simd>(v: V, double: V::Int, mask: u32) -> V::Float {
    v.to_float(v.or(v.and(double, v.splat(mask)), v.splat(1)))
}

/// The scales of the first and the last 16 columns: the halves of the byte at bit `byte`.
#[inline(always)]
fn two_steps<V: Simd>(v: V, scales: V::Int, byte: u32) -> [V::Float; 2] {
    let scale = |bit| steps(v, part(v, scales, bit, 1, 15), 30);
    [scale(byte), scale(byte + 4)]
}

/// Columns 8 i .. 8 i + 8 become the bytes of a point's codes.
#[inline(always)]
fn put_eight<V: Simd>(v: V, q: &mut [V::Int; 8], i: usize, point: V::Int, bytes: [i8; 16]) {
    let mask = v.splat(0x0f0f_0f0f);
    q[2 * i] = v.lookup(bytes, v.and(point, mask));
    q[2 * i + 1] = v.lookup(bytes, v.and(v.shr(point, 4), mask));
}

/// 4 in each half of each byte where the bit is set.
#[inline(always)]
fn less<V: Simd>(v: V, a: V::Int, bit: u32) -> V::Int {
    v.and(v.sra(v.shl(a, 31 - bit), 31), v.splat(0x4444_4444))
}

/// The signs of a group, of four times seven bits.
#[inline(always)]
fn sevens<V: Simd>(v: V, bits: V::Int) -> V::Int {
    let signs = v.or(
        v.or(part(v, bits, 0, 0, 0x7f), part(v, bits, 7, 8, 0x7f)),
        v.or(part(v, bits, 14, 16, 0x7f), part(v, bits, 21, 24, 0x7f)),
    );
    with_parity(v, signs)
}

/// Bytes of seven bits, each with an eighth that makes the number of those set even.
#[inline(always)]
fn with_parity<V: Simd>(v: V, sevens: V::Int) -> V::Int {
    const ODD: i8 = i8::MIN;
    const EIGHTHS: [i8; 16] = [
        0, ODD, ODD, 0, ODD, 0, 0, ODD, ODD, 0, 0, ODD, 0, ODD, ODD, 0,
    ];
    let four = v.and(v.xor(sevens, v.shr(sevens, 4)), v.splat(0x0f0f_0f0f));
    v.or(sevens, v.lookup(EIGHTHS, four))
}
