//! How the block formats are unpacked for all rows of a panel at once.
//!
//! The layouts are described in `quant`, whose `unpack` these functions equal.

mod fp4;
mod grid;
mod iq4;
mod k;
mod legacy;
mod ternary;

use super::simd::{Rows, Simd};

/// The low and the high halves of the bytes of 16 columns: four vectors each.
#[inline(always)]
fn nibbles<V: Simd>(v: V, bytes: [V::Int; 4]) -> [V::Int; 8] {
    let mask = v.splat(0x0f0f_0f0f);
    let mut q = [mask; 8];
    for i in 0..4 {
        q[i] = v.and(bytes[i], mask);
        q[i + 4] = v.and(v.shr(bytes[i], 4), mask);
    }
    q
}

/// 32 bytes of each row.
#[inline(always)]
fn columns32<V: Simd>(v: V, rows: &Rows<'_>, at: usize) -> [V::Int; 8] {
    let [a, b, c, d] = v.columns(rows, at);
    let [e, f, g, h] = v.columns(rows, at + 16);
    [a, b, c, d, e, f, g, h]
}

/// A field of every byte: `shift` bits above the lowest.
#[inline(always)]
fn fields<V: Simd>(v: V, bytes: [V::Int; 8], shift: u32, mask: u32) -> [V::Int; 8] {
    let mut q = bytes;
    for q in &mut q {
        *q = v.and(v.shr(*q, shift), v.splat(mask));
    }
    q
}
