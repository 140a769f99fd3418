//! IQ4_NL and IQ4_XS: 4-bit codes of a table of signed values.

use super::nibbles;
use crate::kernel::panel::{Group, Kind, Sink, Unpack};
use crate::kernel::simd::{Rows, Simd};
use crate::quant::{IQ4_NL, IQ4_VALUES, IQ4_XS};

impl Unpack for IQ4_NL {
    const KIND: Kind = Kind::Scale;
    const LARGEST: Option<u32> = None;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let d = v.half_to_float(v.words(rows, at));
        let q = values(v, rows, at + 2);
        sink.take(v, Group::new(q, d));
    }
}

impl Unpack for IQ4_XS {
    const KIND: Kind = Kind::Scale;
    const LARGEST: Option<u32> = None;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let head = v.words(rows, at);
        let (d, high) = (v.half_to_float(head), v.shr(head, 16));
        let low = v.words(rows, at + 4);
        for g in 0..8 {
            let low = v.and(v.shr(low, 4 * g), v.splat(15));
            let high = v.and(v.shr(high, 2 * g), v.splat(3));
            let scale = v.sub(v.or(low, v.shl(high, 4)), v.splat(32));
            let scale = v.mul(d, v.to_float(scale));
            let q = values(v, rows, at + 8 + 16 * g as usize);
            sink.take(v, Group::new(q, scale));
        }
    }
}

#[inline(always)]
fn values<V: Simd>(v: V, rows: &Rows<'_>, at: usize) -> [V::Int; 8] {
    let mut q = nibbles(v, v.columns(rows, at));
    for q in &mut q {
        *q = v.signed(v.lookup(IQ4_VALUES, *q));
    }
    q
}
