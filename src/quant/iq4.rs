//! The 4-bit formats with a table of values: IQ4_NL (32 in a block) and IQ4_XS (256).

use crate::quant::{
    Format, GROUP, bytes_at,
    dot::{Blocks, Group},
    half_at,
    legacy::halves,
};

/// What each 4-bit code stands for: steps that widen outwards, as weights are spread.
pub const IQ4_VALUES: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// [`Blocks`] of [`Format::IQ4_NL`]: an f16 scale `d`, then 4-bit codes as in Q4_0. Weights:
/// `d * value`.
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)] // the format's name
pub struct IQ4_NL;

impl Blocks for IQ4_NL {
    type Block = [u8; 18];
    const FORMAT: Format = Format::IQ4_NL;
    const GROUPS: usize = 1;
    const MINS: usize = 0;

    #[inline(always)]
    fn blocks(row: &[u8]) -> &[Self::Block] {
        row.as_chunks().0
    }

    #[inline(always)]
    fn unpack(block: &Self::Block, _group: usize) -> Group {
        Group::new(values(bytes_at(block, 2)), half_at(block, 0))
    }
}

/// [`Blocks`] of [`Format::IQ4_XS`]: an f16 scale `d`, 16 bits with the high 2 bits of each group's
/// scale, 4 bytes with the low 4, then 16 bytes of codes a group as in Q4_0. Weights:
/// `(d * (ls - 32)) * value`.
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)] // the format's name
pub struct IQ4_XS;

impl Blocks for IQ4_XS {
    type Block = [u8; 136];
    const FORMAT: Format = Format::IQ4_XS;
    const GROUPS: usize = 8;
    const MINS: usize = 0;

    #[inline(always)]
    fn blocks(row: &[u8]) -> &[Self::Block] {
        row.as_chunks().0
    }

    #[inline(always)]
    fn unpack(block: &Self::Block, group: usize) -> Group {
        let high = u16::from_le_bytes(*bytes_at(block, 2)) >> (2 * group) & 3;
        let [low] = *bytes_at(block, 4 + group / 2);
        let low = low >> (4 * (group % 2)) & 15;
        let scale = i16::from(low) + (high as i16) * 16 - 32;
        let q = values(bytes_at(block, 8 + 16 * group));
        Group::new(q, half_at(block, 0) * f32::from(scale))
    }
}

#[inline(always)]
fn values(bytes: &[u8; 16]) -> [i16; GROUP] {
    let mut q = halves(bytes, 0);
    for q in &mut q {
        *q = i16::from(IQ4_VALUES[*q as usize & 15]);
    }
    q
}
