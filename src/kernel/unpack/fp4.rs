//! MXFP4 and NVFP4: 4-bit floats, taken twice.

use super::nibbles;
use crate::kernel::panel::{Group, Kind, Sink, Unpack};
use crate::kernel::simd::{Rows, Simd};
use crate::quant::{FP4_VALUES, MXFP4, NVFP4};

/// What is added to values to make them unsigned.
const OFFSET: i32 = 12;

/// The values with the offset.
const VALUES: [i8; 16] = {
    let mut values = FP4_VALUES;
    let mut i = 0;
    while i < 16 {
        values[i] += OFFSET as i8;
        i += 1;
    }
    values
};

impl Unpack for MXFP4 {
    const KIND: Kind = Kind::Scale;
    const LARGEST: Option<u32> = Some(24);
    const OFFSET: i32 = OFFSET;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let e = v.and(v.words(rows, at), v.splat(255));
        let mut q = nibbles(v, v.columns(rows, at + 1));
        for q in &mut q {
            *q = v.lookup(VALUES, *q);
        }
        sink.take(v, Group::new(q, power(v, e)));
    }
}

/// `2^(e - 128)` as the exact product of two normal numbers.
#[inline(always)]
fn power<V: Simd>(v: V, e: V::Int) -> V::Float {
    let low = v.shr(e, 1);
    let float = |e: V::Int| v.bits_to_float(v.shl(v.add(e, v.splat(127 - 64)), 23));
    v.mul(float(low), float(v.sub(e, low)))
}

impl Unpack for NVFP4 {
    const KIND: Kind = Kind::EachScale;
    const LARGEST: Option<u32> = Some(24);
    const OFFSET: i32 = OFFSET;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let seven = v.splat(0x7f7f_7f7f);
        let word = v.words(rows, at);
        // 0x7f is 0, and the top bit does not count.
        let some = v.xor(v.equal_bytes(word, seven), v.splat(!0));
        let word = v.and(word, v.and(some, seven));
        // As f16, whose exponents are 8 above these, once they stand at bit 7.
        let half = v.splat(0x3f80);
        let unit = v.splat_float(128.0);
        let scale = |bits| v.mul(v.half_to_float(v.and(bits, half)), unit);
        for group in 0..2 {
            let [a, b, c, d, e, f, g, h] = nibbles(v, v.columns(rows, at + 4 + 16 * group));
            let mut q = [a, b, e, f, c, d, g, h];
            for q in &mut q {
                *q = v.lookup(VALUES, *q);
            }
            let scales = match group {
                0 => [scale(v.shl(word, 7)), scale(v.shr(word, 1))],
                _ => [scale(v.shr(word, 9)), scale(v.shr(word, 17))],
            };
            sink.take(v, Group::with_extra(q, scales[0], scales));
        }
    }
}
