//! The formats with one scale per 32 values: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! A block is an f16 scale `d`, for the `_1` formats an f16 minimum `m`, for the 5-bit formats 32
//! fifth bits (bit `i` is value `i`'s), then the integers. 4-bit halves: byte `j` holds value `j`
//! in its low and value `j + 16` in its high half. Weights: `d * (q - offset)` or `d * q + m`.

use crate::quant::{
    Format, GROUP, bytes_at,
    dot::{Blocks, Group},
    half_at,
};

/// The integers of 16 bytes of 4-bit halves, minus `offset`.
#[inline(always)]
pub(super) fn halves(bytes: &[u8; 16], offset: i16) -> [i16; GROUP] {
    let mut q = [0; GROUP];
    for j in 0..16 {
        q[j] = i16::from(bytes[j] & 15) - offset;
        q[j + 16] = i16::from(bytes[j] >> 4) - offset;
    }
    q
}

/// As [`halves`], with the fifth bit of value `i` in bit `i` of `fifth`.
#[inline(always)]
fn halves_and_fifth(bytes: &[u8; 16], fifth: u32, offset: i16) -> [i16; GROUP] {
    let mut q = halves(bytes, 0);
    for (i, q) in q.iter_mut().enumerate() {
        *q += ((fifth >> i & 1) << 4) as i16 - offset;
    }
    q
}

/// 32 signed bytes.
#[inline(always)]
fn signed(bytes: &[u8; GROUP]) -> [i16; GROUP] {
    let mut q = [0; GROUP];
    for (q, byte) in q.iter_mut().zip(bytes) {
        *q = i16::from(*byte as i8);
    }
    q
}

macro_rules! legacy {
    ($name:ident, $bytes:literal, $mins:literal, |$block:ident| $group:expr) => {
        #[doc = concat!("[`Blocks`] of [`Format::", stringify!($name), "`].")]
        #[derive(Debug, Clone, Copy)]
        #[allow(non_camel_case_types)] // the format's name
        pub struct $name;

        impl Blocks for $name {
            type Block = [u8; $bytes];
            const FORMAT: Format = Format::$name;
            const GROUPS: usize = 1;
            const MINS: usize = $mins;

            #[inline(always)]
            fn blocks(row: &[u8]) -> &[Self::Block] {
                row.as_chunks().0
            }

            #[inline(always)]
            fn unpack($block: &Self::Block, _group: usize) -> Group {
                $group
            }
        }
    };
}

legacy!(Q4_0, 18, 0, |block| {
    Group::new(halves(bytes_at(block, 2), 8), half_at(block, 0))
});

legacy!(Q4_1, 20, 1, |block| {
    let q = halves(bytes_at(block, 4), 0);
    Group::with_mins(q, half_at(block, 0), [half_at(block, 2); 2])
});

legacy!(Q5_0, 22, 0, |block| {
    let fifth = u32::from_le_bytes(*bytes_at(block, 2));
    let q = halves_and_fifth(bytes_at(block, 6), fifth, 16);
    Group::new(q, half_at(block, 0))
});

legacy!(Q5_1, 24, 1, |block| {
    let fifth = u32::from_le_bytes(*bytes_at(block, 4));
    let q = halves_and_fifth(bytes_at(block, 8), fifth, 0);
    Group::with_mins(q, half_at(block, 0), [half_at(block, 2); 2])
});

legacy!(Q8_0, 34, 0, |block| {
    Group::new(signed(bytes_at(block, 2)), half_at(block, 0))
});
