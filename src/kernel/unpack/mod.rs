//! How the block formats are unpacked for all rows of a panel at once.
//!
//! The layouts are described in `quant`, whose `unpack` these functions equal.

mod iq4;
mod k;
mod legacy;

use super::simd::Simd;

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
