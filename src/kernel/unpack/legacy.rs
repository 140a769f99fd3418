//! Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: 32 columns a block.

use super::nibbles;
use crate::kernel::panel::{Group, Kind, Sink, Unpack};
use crate::kernel::simd::{Rows, Simd};
use crate::quant::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

impl Unpack for Q4_0 {
    const KIND: Kind = Kind::Scale;
    const LARGEST: Option<u32> = Some(15);
    const OFFSET: i32 = 8;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let d = v.half_to_float(v.words(rows, at));
        let q = nibbles(v, v.columns(rows, at + 2));
        sink.take(v, Group::new(q, d));
    }
}

impl Unpack for Q4_1 {
    const KIND: Kind = Kind::Min;
    const LARGEST: Option<u32> = Some(15);

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let (d, m) = pair(v, rows, at);
        let q = nibbles(v, v.columns(rows, at + 4));
        sink.take(v, Group::with_extra(q, d, [m; 2]));
    }
}

impl Unpack for Q5_0 {
    const KIND: Kind = Kind::Scale;
    const LARGEST: Option<u32> = Some(31);
    const OFFSET: i32 = 16;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let d = v.half_to_float(v.words(rows, at));
        let q = nibbles(v, v.columns(rows, at + 6));
        let q = with_fifth(v, q, v.words(rows, at + 2));
        sink.take(v, Group::new(q, d));
    }
}

impl Unpack for Q5_1 {
    const KIND: Kind = Kind::Min;
    const LARGEST: Option<u32> = Some(31);

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let (d, m) = pair(v, rows, at);
        let q = nibbles(v, v.columns(rows, at + 8));
        let q = with_fifth(v, q, v.words(rows, at + 4));
        sink.take(v, Group::with_extra(q, d, [m; 2]));
    }
}

impl Unpack for Q8_0 {
    const KIND: Kind = Kind::Scale;
    const LARGEST: Option<u32> = None;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let d = v.half_to_float(v.words(rows, at));
        let (low, high) = (v.columns(rows, at + 2), v.columns(rows, at + 18));
        let mut q = [low[0]; 8];
        for i in 0..4 {
            q[i] = v.signed(low[i]);
            q[i + 4] = v.signed(high[i]);
        }
        sink.take(v, Group::new(q, d));
    }
}

/// The f16 at `at` and the one behind it.
#[inline(always)]
fn pair<V: Simd>(v: V, rows: &Rows<'_>, at: usize) -> (V::Float, V::Float) {
    let both = v.words(rows, at);
    (v.half_to_float(both), v.half_to_float(v.shr(both, 16)))
}

/// Adds 16 to column `i` where bit `i` of `fifth` is set.
#[inline(always)]
fn with_fifth<V: Simd>(v: V, mut q: [V::Int; 8], fifth: V::Int) -> [V::Int; 8] {
    let sixteen = v.splat(0x1010_1010);
    for j in 0..8 {
        let byte = v.shuffle(fifth, [j as u8 / 2; 4]);
        let bits = v.splat(if j % 2 == 0 { 0x0804_0201 } else { 0x8040_2010 });
        let set = v.equal_bytes(v.and(byte, bits), bits);
        q[j] = v.or(q[j], v.and(set, sixteen));
    }
    q
}
