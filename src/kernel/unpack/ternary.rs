//! TQ1_0, TQ2_0, Q1_0, Q2_0: one and two bits a column.

use super::{columns32, fields};
use crate::kernel::panel::{Group, Kind, Sink, Unpack};
use crate::kernel::simd::{Rows, Simd};
use crate::quant::{Q1_0, Q2_0, TQ1_0, TQ2_0};

impl Unpack for TQ1_0 {
    const KIND: Kind = Kind::Scale;
    const LARGEST: Option<u32> = Some(2);
    const OFFSET: i32 = 1;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let d = v.half_to_float(v.shr(v.words(rows, at + 50), 16));
        let mut fractions = Fractions::new(v, columns32(v, rows, at));
        for _ in 0..5 {
            sink.take(v, Group::new(fractions.digits(v), d));
        }
        let mut fractions = Fractions::new(v, v.columns(rows, at + 32));
        for _ in 0..2 {
            let [a, b, c, d4] = fractions.digits(v);
            let [e, f, g, h] = fractions.digits(v);
            sink.take(v, Group::new([a, b, c, d4, e, f, g, h], d));
        }
        let [a, b, c, d4] = fractions.digits(v);
        let mut fractions = Fractions::new(v, [v.words(rows, at + 48)]);
        let mut q = [a, b, c, d4, a, b, c, d4];
        for q in &mut q[4..] {
            let [digits] = fractions.digits(v);
            *q = digits;
        }
        sink.take(v, Group::new(q, d));
    }
}

/// Bytes that are fractions of 256, as 16-bit numbers: bytes 0 and 2 of each lane, and 1 and 3.
struct Fractions<V: Simd, const N: usize>([[V::Int; 2]; N]);

impl<V: Simd, const N: usize> Fractions<V, N> {
    #[inline(always)]
    fn new(v: V, bytes: [V::Int; N]) -> Self {
        let low = v.splat(0x00ff_00ff);
        let mut halves = [[low; 2]; N];
        for i in 0..N {
            halves[i] = [v.and(bytes[i], low), v.and(v.shr(bytes[i], 8), low)];
        }
        Self(halves)
    }

    /// The next digit to the base of 3 of each byte; what is left goes on.
    #[inline(always)]
    fn digits(&mut self, v: V) -> [V::Int; N] {
        let (low, high) = (v.splat(0x00ff_00ff), v.splat(0xff00_ff00));
        let three = v.splat(0x0003_0003);
        let mut digits = [low; N];
        for (digits, [even, odd]) in digits.iter_mut().zip(&mut self.0) {
            let (a, b) = (v.mul_halves(*even, three), v.mul_halves(*odd, three));
            *digits = v.or(v.and(v.shr(a, 8), low), v.and(b, high));
            (*even, *odd) = (v.and(a, low), v.and(b, low));
        }
        digits
    }
}

impl Unpack for TQ2_0 {
    const KIND: Kind = Kind::Scale;
    const LARGEST: Option<u32> = Some(3);
    const OFFSET: i32 = 1;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let d = v.half_to_float(v.shr(v.words(rows, at + 62), 16));
        for half in 0..2 {
            let bytes = columns32(v, rows, at + 32 * half);
            for part in 0..4 {
                let q = fields(v, bytes, 2 * part, 0x0303_0303);
                sink.take(v, Group::new(q, d));
            }
        }
    }
}

impl Unpack for Q1_0 {
    const KIND: Kind = Kind::Scale;
    const LARGEST: Option<u32> = Some(2);
    const OFFSET: i32 = 1;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let d = v.half_to_float(v.words(rows, at));
        for bits in v.columns(rows, at + 2) {
            let mut q = [v.splat(0); 8];
            v.mirror_columns(&mut q, bits, 2);
            sink.take(v, Group::new(q, d));
        }
    }
}

impl Unpack for Q2_0 {
    const KIND: Kind = Kind::Scale;
    const LARGEST: Option<u32> = Some(3);
    const OFFSET: i32 = 1;

    #[inline(always)]
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>) {
        let d = v.half_to_float(v.words(rows, at));
        let [a, b, c, e] = v.columns(rows, at + 2);
        for words in [[a, b], [c, e]] {
            let mut q = [v.splat(0); 8];
            for i in 0..2 {
                let word = transposed(v, words[i]);
                for j in 0..4 {
                    q[4 * i + j] = v.and(v.shr(word, 2 * j as u32), v.splat(0x0303_0303));
                }
            }
            sink.take(v, Group::new(q, d));
        }
    }
}

/// Fields of two bits: field j of byte i becomes field i of byte j.
#[inline(always)]
fn transposed<V: Simd>(v: V, word: V::Int) -> V::Int {
    let swapped = |word, bits: u32, mask: u32| {
        let changes = v.and(v.xor(v.shr(word, bits), word), v.splat(mask));
        v.xor(word, v.xor(changes, v.shl(changes, bits)))
    };
    swapped(swapped(word, 6, 0x00cc_00cc), 12, 0x0000_f0f0)
}
