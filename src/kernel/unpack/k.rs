//! Q2_K, Q3_K, Q4_K, Q5_K, Q6_K: 256 columns a block.

use super::{columns32, fields};
use crate::kernel::panel::{Group, Kind, Sink, Unpack};
use crate::kernel::simd::{Rows, Simd};
use crate::quant::{Activation, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};

impl Unpack for Q4_K {
    const KIND: Kind = Kind::Min;
    const LARGEST: Option<u32> = Some(15);

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let scales = Scales::new(v, rows, at);
        for pair in 0..4 {
            let bytes = columns32(v, rows, at + 16 + 32 * pair);
            for high in 0..2 {
                let q = fields(v, bytes, 4 * high, 0x0f0f_0f0f);
                scales.give(v, 2 * pair as u32 + high, q, sink);
            }
        }
    }
}

impl Unpack for Q5_K {
    const KIND: Kind = Kind::Min;
    const LARGEST: Option<u32> = Some(31);

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let scales = Scales::new(v, rows, at);
        let fifth = columns32(v, rows, at + 16);
        for pair in 0..4 {
            let bytes = columns32(v, rows, at + 48 + 32 * pair);
            for high in 0..2 {
                let group = 2 * pair as u32 + high;
                let mut q = fields(v, bytes, 4 * high, 0x0f0f_0f0f);
                for j in 0..8 {
                    // Bit `group` moves to bit 4.
                    let bit = if group < 4 {
                        v.shl(fifth[j], 4 - group)
                    } else {
                        v.shr(fifth[j], group - 4)
                    };
                    q[j] = v.or(q[j], v.and(bit, v.splat(0x1010_1010)));
                }
                scales.give(v, group, q, sink);
            }
        }
    }
}

/// The head of a block of Q4_K or Q5_K: `d`, `dmin`, and 12 bytes of 6-bit scales and minima.
struct Scales<V: Simd> {
    d: V::Float,
    /// Negative.
    dmin: V::Float,
    /// Bytes 0..4, 4..8, 8..12.
    packed: [V::Int; 3],
}

impl<V: Simd> Scales<V> {
    #[inline(always)]
    fn new(v: V, rows: &Rows<'_>, at: usize) -> Self {
        let [both, a, b, c] = v.columns(rows, at);
        Self {
            d: v.half_to_float(both),
            // The sign bit of the f16 turns with that of every product.
            dmin: v.half_to_float(v.xor(v.shr(both, 16), v.splat(0x8000))),
            packed: [a, b, c],
        }
    }

    #[inline(always)]
    fn give(&self, v: V, group: u32, q: [V::Int; 8], sink: &mut impl Sink<V>) {
        let [a, b, c] = self.packed;
        let shift = 8 * (group % 4);
        let (scale, min) = if group < 4 {
            let six = v.splat(63);
            (v.and(v.shr(a, shift), six), v.and(v.shr(b, shift), six))
        } else {
            let (low, high) = (v.splat(15), v.splat(0x30));
            let top = |packed| v.and(v.shr(v.shr(packed, shift), 2), high);
            let four = |bits| v.and(v.shr(c, bits), low);
            (v.or(four(shift), top(a)), v.or(four(shift + 4), top(b)))
        };
        let scale = v.mul(self.d, v.to_float(scale));
        let min = v.mul(self.dmin, v.to_float(min));
        sink.take(v, Group::with_extra(q, scale, [min; 2]));
    }
}

impl Unpack for Q6_K {
    const KIND: Kind = Kind::TwoScales;
    const LARGEST: Option<u32> = Some(63);
    const OFFSET: i32 = 32;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let d = v.half_to_float(v.shr(v.words(rows, at + 206), 16));
        let scales = v.columns(rows, at + 192);
        for half in 0..2 {
            let low = [
                columns32(v, rows, at + 64 * half),
                columns32(v, rows, at + 64 * half + 32),
            ];
            let high = columns32(v, rows, at + 128 + 32 * half);
            for part in 0..4 {
                let mut q = fields(v, low[part % 2], 4 * (part as u32 / 2), 0x0f0f_0f0f);
                for j in 0..8 {
                    // Bits 2 * part move to bits 4 and 5.
                    let bits = match part {
                        0 => v.shl(high[j], 4),
                        1 => v.shl(high[j], 2),
                        2 => high[j],
                        _ => v.shr(high[j], 2),
                    };
                    q[j] = v.or(q[j], v.and(bits, v.splat(0x3030_3030)));
                }
                // Signed bytes 2g and 2g + 1 of the scales.
                let group = 4 * half + part;
                let word = scales[group / 2];
                let bits = 16 * (group as u32 % 2);
                let first = v.sra(v.shl(word, 24 - bits), 24);
                let second = v.sra(v.shl(word, 16 - bits), 24);
                let extra = [v.to_float(first), v.to_float(second)];
                sink.take(v, Group::with_extra(q, d, extra));
            }
        }
    }
}

impl Unpack for Q2_K {
    const KIND: Kind = Kind::TwoMins;
    const LARGEST: Option<u32> = Some(45);

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let both = v.words(rows, at + 80);
        let d = v.half_to_float(both);
        let dmin = v.half_to_float(v.xor(v.shr(both, 16), v.splat(0x8000)));
        let scales = v.columns(rows, at);
        for half in 0..2 {
            let bytes = columns32(v, rows, at + 16 + 32 * half);
            for part in 0..4 {
                let group = 4 * half + part;
                // Bytes 2g and 2g + 1: scale and minimum in a half each.
                let word = v.shr(scales[group / 2], 16 * (group as u32 % 2));
                let mut q = fields(v, bytes, 2 * part as u32, 0x0303_0303);
                let mut extra = [d; 2];
                for side in 0..2u8 {
                    let byte = v.shuffle(word, [side; 4]);
                    // A product of a byte is at most 45: nothing is carried into the next.
                    let scale = v.and(byte, v.splat(0x000f_000f));
                    for q in &mut q[4 * side as usize..][..4] {
                        *q = v.mul_halves(*q, scale);
                    }
                    let min = v.and(v.shr(byte, 4), v.splat(15));
                    extra[side as usize] = v.mul(dmin, v.to_float(min));
                }
                sink.take(v, Group::with_extra(q, d, extra));
            }
        }
    }
}

impl Unpack for Q3_K {
    const KIND: Kind = Kind::Scale;
    const LARGEST: Option<u32> = None;

    /// The bytes are the integers minus 4.
    #[inline(always)]
    fn start<V: Simd>(v: V, x: &Activation) -> [V::Int; 2] {
        let four = v.sra(v.splat(x.start8 as u32), 1);
        [v.sub(v.start_signed(x), four), v.splat(0)]
    }

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let d = v.half_to_float(v.shr(v.words(rows, at + 106), 16));
        let third = columns32(v, rows, at);
        let scales = third_scales(v, rows, at + 96);
        for half in 0..2 {
            let bytes = columns32(v, rows, at + 32 + 32 * half);
            for part in 0..4 {
                let group = 4 * half + part;
                let mut q = fields(v, bytes, 2 * part as u32, 0x0303_0303);
                for j in 0..8 {
                    // Bit `group` moves to bit 2.
                    let bit = if group < 2 {
                        v.shl(third[j], 2 - group as u32)
                    } else {
                        v.shr(third[j], group as u32 - 2)
                    };
                    q[j] = v.or(q[j], v.and(bit, v.splat(0x0404_0404)));
                }
                let word = v.shr(scales[group / 2], 16 * (group as u32 % 2));
                for side in 0..2u8 {
                    // The scale minus 32 as two signed halves.
                    let scale = v.sub(v.and(v.shuffle(word, [side; 4]), v.splat(63)), v.splat(32));
                    let halves = v.or(v.and(scale, v.splat(0xffff)), v.shl(scale, 16));
                    // (q - 4) * scale - 4, modulo 256, which fits a signed byte.
                    let four = v.add(v.shl(scale, 2), v.splat(4));
                    let offset = v.shuffle(v.sub(v.splat(0), four), [0; 4]);
                    for q in &mut q[4 * side as usize..][..4] {
                        *q = v.signed(v.add_bytes(mul_bytes(v, *q, halves), offset));
                    }
                }
                sink.take(v, Group::new(q, d));
            }
        }
    }
}

/// The 16 scales of Q3_K, a byte each.
#[inline(always)]
fn third_scales<V: Simd>(v: V, rows: &Rows<'_>, at: usize) -> [V::Int; 4] {
    let (low, high) = (v.splat(0x0f0f_0f0f), v.splat(0x3030_3030));
    let (a, b) = (v.words(rows, at), v.words(rows, at + 4));
    let top = v.words(rows, at + 8);
    [
        v.or(v.and(a, low), v.and(v.shl(top, 4), high)),
        v.or(v.and(b, low), v.and(v.shl(top, 2), high)),
        v.or(v.and(v.shr(a, 4), low), v.and(top, high)),
        v.or(v.and(v.shr(b, 4), low), v.and(v.shr(top, 2), high)),
    ]
}

/// Each byte times the 16-bit number, the same in both halves of its lane, modulo 256.
#[inline(always)]
fn mul_bytes<V: Simd>(v: V, bytes: V::Int, halves: V::Int) -> V::Int {
    let (even, odd) = (v.splat(0x00ff_00ff), v.splat(0xff00_ff00));
    let low = v.and(v.mul_halves(v.and(bytes, even), halves), even);
    v.or(low, v.mul_halves(v.and(bytes, odd), halves))
}
