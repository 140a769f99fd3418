//! The formats whose codes are points of a grid, 256 values in a block: IQ1_S, IQ1_M, IQ2_XXS,
//! IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S.
//!
//! An index names the magnitudes (in the IQ1 formats the values) of 8 consecutive columns, or of 4
//! in the IQ3 formats; signs stand beside it. A group has an integer scale `s`, or one for each
//! half, which counts `2 s + 1` steps of the block's f16 scale `d`, or of an eighth or a quarter of
//! it. Indices are of as many bits as the grid has points, so that any bytes are valid.

use crate::{
    float::f16_to_f32,
    quant::{
        Format, GROUP, bytes_at,
        dot::{Blocks, Group},
        grid_tables as tables, half_at,
        k::scaled,
    },
};

/// The points of IQ2_XXS, eight codes of [`IQ2_VALUES`] each: code `i` at bit
/// `8 * (i % 4) + 4 * (i / 4)`, so that the low halves of the bytes are the first four columns.
pub static IQ2_XXS_GRID: [u32; 256] = eights(&tables::IQ2_XXS);

/// The points of IQ2_XS, as in [`IQ2_XXS_GRID`].
pub static IQ2_XS_GRID: [u32; 512] = eights(&tables::IQ2_XS);

/// The points of IQ2_S, as in [`IQ2_XXS_GRID`].
pub static IQ2_S_GRID: [u32; 1024] = eights(&tables::IQ2_S);

/// The points of IQ1_S and IQ1_M: codes are the values plus 1, placed as in [`IQ2_XXS_GRID`].
pub static IQ1_GRID: [u32; 2048] = eights(&tables::IQ1);

/// The points of IQ3_XXS: four magnitudes, a byte each.
pub static IQ3_XXS_GRID: [u32; 256] = fours(&tables::IQ3_XXS, IQ3_XXS_VALUES);

/// The points of IQ3_S: four magnitudes, a byte each.
pub static IQ3_S_GRID: [u32; 512] = fours(&tables::IQ3_S, IQ3_S_VALUES);

/// The magnitudes that codes of the IQ2 grids stand for.
pub const IQ2_VALUES: [i8; 3] = [8, 25, 43];

/// The magnitudes of IQ3_XXS.
pub const IQ3_XXS_VALUES: [u8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];

/// The magnitudes of IQ3_S.
pub const IQ3_S_VALUES: [u8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

/// Spreads eight codes of two bits.
const fn eights<const N: usize>(codes: &[u16; N]) -> [u32; N] {
    let mut grid = [0; N];
    let mut at = 0;
    while at < 8 * N {
        let (point, i) = (at / 8, at % 8);
        let code = codes[point] as u32 >> (2 * i) & 3;
        grid[point] |= code << (8 * (i % 4) + 4 * (i / 4));
        at += 1;
    }
    grid
}

/// Spreads four codes of three bits, and replaces them by what they stand for.
const fn fours<const N: usize>(codes: &[u16; N], values: [u8; 8]) -> [u32; N] {
    let mut grid = [0; N];
    let mut at = 0;
    while at < 4 * N {
        let (point, i) = (at / 4, at % 4);
        let code = codes[point] >> (3 * i) & 7;
        grid[point] |= (values[code as usize] as u32) << (8 * i);
        at += 1;
    }
    grid
}

names!(IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S);

/// `d`, then 8 bytes a group: four indices, and 32 bits of four times seven signs and a scale of 4
/// bits. Weights: `(d / 8 * (2 s + 1)) * value`.
impl Blocks for IQ2_XXS {
    layout!(IQ2_XXS, 66, groups 8, mins 0);

    #[inline(always)]
    fn unpack(block: &Self::Block, group: usize) -> Group {
        let indices: &[u8; 4] = bytes_at(block, 2 + 8 * group);
        let word = u32::from_le_bytes(*bytes_at(block, 6 + 8 * group));
        let mut points = [0; 4];
        for i in 0..4 {
            points[i] = IQ2_XXS_GRID[indices[i] as usize];
        }
        let q = with_signs(magnitudes(points), sevens(word));
        Group::new(q, half_at(block, 0) / 8.0 * steps(word >> 28))
    }
}

/// `d`, 16 bits for each 8 values: an index of 9 and seven signs; then a scale of 4 bits for each 16
/// values. Weights: `d / 8 * ((2 s + 1) * value)`.
impl Blocks for IQ2_XS {
    layout!(IQ2_XS, 74, groups 8, mins 0);

    #[inline(always)]
    fn unpack(block: &Self::Block, group: usize) -> Group {
        let bytes: &[u8; 8] = bytes_at(block, 2 + 8 * group);
        let (mut points, mut signs) = ([0; 4], 0);
        for i in 0..4 {
            let code = u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]);
            points[i] = IQ2_XS_GRID[code as usize & 511];
            signs |= u32::from(code >> 9) << (7 * i);
        }
        let q = with_signs(magnitudes(points), sevens(signs));
        let q = scaled(q, two_scales(block[66 + group]));
        Group::new(q, half_at(block, 0) / 8.0)
    }
}

/// `d`, the low 8 bits of an index for each 8 values, 32 bits of signs a group, the high 2 bits of
/// the indices, and scales as in IQ2_XS. Weights as there.
impl Blocks for IQ2_S {
    layout!(IQ2_S, 82, groups 8, mins 0);

    #[inline(always)]
    fn unpack(block: &Self::Block, group: usize) -> Group {
        let low: &[u8; 4] = bytes_at(block, 2 + 4 * group);
        let mut points = [0; 4];
        for i in 0..4 {
            let high = block[66 + group] as usize >> (2 * i) & 3;
            points[i] = IQ2_S_GRID[low[i] as usize | high << 8];
        }
        let signs = u32::from_le_bytes(*bytes_at(block, 34 + 4 * group));
        let q = with_signs(magnitudes(points), signs);
        let q = scaled(q, two_scales(block[74 + group]));
        Group::new(q, half_at(block, 0) / 8.0)
    }
}

/// `d`, an index for each 4 values, then 32 bits a group as in IQ2_XXS. Weights:
/// `(d / 4 * (2 s + 1)) * value`.
impl Blocks for IQ3_XXS {
    layout!(IQ3_XXS, 98, groups 8, mins 0);

    #[inline(always)]
    fn unpack(block: &Self::Block, group: usize) -> Group {
        let indices: &[u8; 8] = bytes_at(block, 2 + 8 * group);
        let word = u32::from_le_bytes(*bytes_at(block, 66 + 4 * group));
        let mut points = [0; 8];
        for i in 0..8 {
            points[i] = IQ3_XXS_GRID[indices[i] as usize];
        }
        let q = with_signs(bytes(points), sevens(word));
        Group::new(q, half_at(block, 0) / 4.0 * steps(word >> 28))
    }
}

/// `d`, the low 8 bits of an index for each 4 values, the ninth bits, 32 bits of signs a group, and
/// a scale of 4 bits a group. Weights: `(d * (2 s + 1)) * value`.
impl Blocks for IQ3_S {
    layout!(IQ3_S, 110, groups 8, mins 0);

    #[inline(always)]
    fn unpack(block: &Self::Block, group: usize) -> Group {
        let low: &[u8; 8] = bytes_at(block, 2 + 8 * group);
        let mut points = [0; 8];
        for i in 0..8 {
            let high = block[66 + group] as usize >> i & 1;
            points[i] = IQ3_S_GRID[low[i] as usize | high << 8];
        }
        let signs = u32::from_le_bytes(*bytes_at(block, 74 + 4 * group));
        let scale = block[106 + group / 2] >> (4 * (group % 2)) & 15;
        let q = with_signs(bytes(points), signs);
        Group::new(q, half_at(block, 0) * steps(u32::from(scale)))
    }
}

/// `d`, the low 8 bits of an index for each 8 values, and 16 bits a group: four times the high 3
/// bits, a scale of 3 bits, and whether an eighth is taken off the values, else added. Weights:
/// `(d / 8 * (2 s + 1)) * (8 value +- 1)`.
impl Blocks for IQ1_S {
    layout!(IQ1_S, 50, groups 8, mins 0);

    #[inline(always)]
    fn unpack(block: &Self::Block, group: usize) -> Group {
        let low: &[u8; 4] = bytes_at(block, 2 + 4 * group);
        let rest = u16::from_le_bytes(*bytes_at(block, 34 + 2 * group));
        let mut q = [0; GROUP];
        for (i, q) in q.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let high = rest as usize >> (3 * i) & 7;
            let less = rest >> 15 == 1;
            *q = eighths(IQ1_GRID[low[i] as usize | high << 8], less);
        }
        let scale = u32::from(rest >> 12 & 7);
        Group::new(q, half_at(block, 0) / 8.0 * steps(scale))
    }
}

/// The low 8 bits of an index for each 8 values; 4 bits for each, with the high 3 bits and whether
/// an eighth is taken off; four times 16 bits, with a scale of 3 bits for each 16 values, and a
/// quarter of the bits of `d` at the top, the lowest first. Weights:
/// `d / 8 * ((2 s + 1) * (8 value +- 1))`.
impl Blocks for IQ1_M {
    layout!(IQ1_M, 56, groups 8, mins 0);

    #[inline(always)]
    fn unpack(block: &Self::Block, group: usize) -> Group {
        let low: &[u8; 4] = bytes_at(block, 4 * group);
        let rest = u16::from_le_bytes(*bytes_at(block, 32 + 2 * group)) as usize;
        let mut q = [0; GROUP];
        for (i, q) in q.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let (high, less) = (rest >> (4 * i) & 7, rest >> (4 * i + 3) & 1 == 1);
            *q = eighths(IQ1_GRID[low[i] as usize | high << 8], less);
        }
        let scales = u64::from_le_bytes(*bytes_at(block, 48));
        let half = |i: usize| {
            // Of 16 scales, 12 bits of each 16 hold four.
            let scale = scales >> (16 * (i / 4) + 3 * (i % 4)) & 7;
            2 * scale as i16 + 1
        };
        let mut d = 0;
        for i in 0..4 {
            d |= (scales >> (16 * i + 12) & 15) << (4 * i);
        }
        let q = scaled(q, [half(2 * group), half(2 * group + 1)]);
        Group::new(q, f16_to_f32(d as u16) / 8.0)
    }
}

/// The float of an integer scale.
#[inline(always)]
fn steps(scale: u32) -> f32 {
    (2 * scale + 1) as f32
}

/// The integer scales of the first and the last 16, 4 bits each.
#[inline(always)]
fn two_scales(byte: u8) -> [i16; 2] {
    [2 * i16::from(byte & 15) + 1, 2 * i16::from(byte >> 4) + 1]
}

/// Four times seven bits, each with an eighth that makes the number of those set even.
#[inline(always)]
fn sevens(bits: u32) -> u32 {
    let mut signs = 0;
    for i in 0..4 {
        let seven = bits >> (7 * i) & 127;
        let eighth = seven.count_ones() & 1;
        signs |= (seven | eighth << 7) << (8 * i);
    }
    signs
}

/// Column `i` with a minus where bit `i` is set.
#[inline(always)]
fn with_signs(mut q: [i16; GROUP], signs: u32) -> [i16; GROUP] {
    for (i, q) in q.iter_mut().enumerate() {
        let minus = -((signs >> i & 1) as i16);
        *q = (*q ^ minus) - minus;
    }
    q
}

/// The code of column `i` of a point of eight.
#[inline(always)]
fn code(point: u32, i: usize) -> i16 {
    (point >> (8 * (i % 4) + 4 * (i / 4)) & 15) as i16
}

/// The magnitudes of points of an IQ2 grid.
#[inline(always)]
fn magnitudes(points: [u32; 4]) -> [i16; GROUP] {
    let mut q = [0; GROUP];
    for (i, q) in q.iter_mut().enumerate() {
        *q = i16::from(IQ2_VALUES[code(points[i / 8], i % 8) as usize]);
    }
    q
}

/// The magnitudes of points of an IQ3 grid.
#[inline(always)]
fn bytes(points: [u32; 8]) -> [i16; GROUP] {
    let mut q = [0; GROUP];
    for (i, q) in q.iter_mut().enumerate() {
        *q = (points[i / 4] >> (8 * (i % 4)) & 255) as i16;
    }
    q
}

/// Eight times the values of a point of the IQ1 grid, and one less or more.
#[inline(always)]
fn eighths(point: u32, less: bool) -> [i16; 8] {
    let delta = if less { -1 } else { 1 };
    let mut q = [0; 8];
    for (i, q) in q.iter_mut().enumerate() {
        *q = 8 * (code(point, i) - 1) + delta;
    }
    q
}
