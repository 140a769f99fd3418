//! The dot products that define what every kernel returns, to the bit.
//!
//! Block formats: integers against integers, one exact sum per 32 columns, and one accumulator that
//! takes each sum, and the minima, by fused multiply-adds in column order. Float formats: 16
//! accumulators, column `k` goes to lane `k mod 16`, one fixed tree at the end.
//!
//! The bodies are generic over [`MulAdd`] and always inlined, so a kernel can instantiate them
//! inside a function that is compiled for its CPU. They use plain loops: `array::map` and
//! `array::from_fn` may become calls of functions that are compiled for the baseline CPU.

use crate::{
    float::{MulAdd, bf16_to_f32, f16_to_f32, sum_lanes},
    quant::{Activation, Format, GROUP},
};

/// Columns of half a group.
const HALF: usize = GROUP / 2;

/// 32 columns of one weight row: the weight of column `i` is its scale times `q[i]`, plus its
/// minimum.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// The integers with the format's offset applied, and with the integer scale of each 16 columns
    /// where the format has one (Q2_K, Q3_K, Q6_K, IQ2_XS, IQ2_S, IQ1_M). `|sum of q[i] * x[i]| <
    /// 2^24` for any activations, so the sum is exact in f32.
    pub q: [i16; GROUP],
    /// The float scales: `scales[0]` for all 32 if [`Blocks::SCALES`] is 1; else those of the first
    /// and the last 16.
    pub scales: [f32; 2],
    /// What is added to each weight: `mins[0]` for all 32 if [`Blocks::MINS`] is 1; for the first
    /// and the last 16 if it is 2; else unused.
    pub mins: [f32; 2],
}

impl Group {
    /// A group with one scale and no minima.
    #[inline(always)]
    pub fn new(q: [i16; GROUP], scale: f32) -> Self {
        Self::with_mins(q, scale, [0.0; 2])
    }

    /// A group with one scale.
    #[inline(always)]
    pub fn with_mins(q: [i16; GROUP], scale: f32, mins: [f32; 2]) -> Self {
        let scales = [scale; 2];
        Self { q, scales, mins }
    }
}

/// A block format: how its bytes become [`Group`]s.
pub trait Blocks {
    /// The bytes of one block: `[u8; N]`.
    type Block: 'static;
    /// The format's name and sizes.
    const FORMAT: Format;
    /// Groups of 32 columns in a block.
    const GROUPS: usize;
    /// How many minima a group has: 0, 1 or 2.
    const MINS: usize;
    /// How many float scales a group has: 1, or 2 without minima.
    const SCALES: usize = 1;

    /// The whole blocks of a row.
    fn blocks(row: &[u8]) -> &[Self::Block];

    /// Columns `32 * group ..` of a block; `group < GROUPS`.
    fn unpack(block: &Self::Block, group: usize) -> Group;

    /// The 32 weights of a group, as the format's specification computes them.
    #[inline(always)]
    fn decode(block: &Self::Block, group: usize) -> [f32; GROUP] {
        let Group { q, scales, mins } = Self::unpack(block, group);
        let mut out = [0.0; GROUP];
        for i in 0..GROUP {
            let value = scales[i / HALF] * f32::from(q[i]);
            out[i] = match Self::MINS {
                0 => value,
                1 => value + mins[0],
                _ => value + mins[i / HALF],
            };
        }
        out
    }
}

/// The dot product of a weight row and a token's activations (as many groups as the row has).
#[inline(always)]
pub fn dot<B: Blocks, M: MulAdd>(row: &[u8], x: &[Activation]) -> f32 {
    let mut sum = 0.0;
    for (block, x) in B::blocks(row).iter().zip(x.chunks_exact(B::GROUPS)) {
        for (group, x) in x.iter().enumerate() {
            sum = accumulate::<B, M>(&B::unpack(block, group), x, sum);
        }
    }
    sum
}

/// `sum` plus the dot product of one group of weights and one of activations.
#[inline(always)]
pub fn accumulate<B: Blocks, M: MulAdd>(weights: &Group, x: &Activation, sum: f32) -> f32 {
    let Group { q, scales, mins } = weights;
    if B::SCALES == 2 {
        let (q, integers) = (q.as_chunks::<HALF>().0, x.q.as_chunks::<HALF>().0);
        let first = integer_dot(&q[0], &integers[0]);
        let last = integer_dot(&q[1], &integers[1]);
        let sum = M::mul_add(first as f32, scales[0] * x.scale, sum);
        return M::mul_add(last as f32, scales[1] * x.scale, sum);
    }
    let integer = integer_dot(q, &x.q);
    let sum = M::mul_add(integer as f32, scales[0] * x.scale, sum);
    match B::MINS {
        0 => sum,
        1 => M::mul_add(mins[0], x.t, sum),
        _ => M::mul_add(mins[1], x.t1, M::mul_add(mins[0], x.t0, sum)),
    }
}

/// The exact sum of products; below 2^24 by the bound on [`Group::q`].
#[inline(always)]
pub fn integer_dot<const N: usize>(q: &[i16; N], x: &[i8; N]) -> i32 {
    let mut sum = 0;
    for i in 0..N {
        sum += i32::from(q[i]) * i32::from(x[i]);
    }
    sum
}

/// A float format: how its bytes become f32.
pub trait Floats {
    /// The bytes of one value: `[u8; N]`.
    type Bytes: 'static;
    /// The format's name and size.
    const FORMAT: Format;

    /// The whole values of a row.
    fn values(row: &[u8]) -> &[Self::Bytes];

    /// One value, exactly.
    fn load(bytes: &Self::Bytes) -> f32;
}

/// The dot product of a float weight row and as many f32 activations.
#[inline(always)]
pub fn dot_floats<F: Floats, M: MulAdd>(row: &[u8], x: &[f32]) -> f32 {
    let mut lanes = [0.0; 16];
    let (rows, row_rest) = F::values(row).as_chunks::<16>();
    let (xs, x_rest) = x.as_chunks::<16>();
    for (row, x) in rows.iter().zip(xs) {
        for i in 0..16 {
            lanes[i] = M::mul_add(F::load(&row[i]), x[i], lanes[i]);
        }
    }
    for ((lane, row), x) in lanes.iter_mut().zip(row_rest).zip(x_rest) {
        *lane = M::mul_add(F::load(row), *x, *lane);
    }
    sum_lanes(&lanes)
}

macro_rules! floats {
    ($($name:ident: $bytes:literal, $load:expr;)*) => {$(
        #[doc = concat!("[`Floats`] of [`Format::", stringify!($name), "`].")]
        #[derive(Debug, Clone, Copy)]
        pub struct $name;

        impl Floats for $name {
            type Bytes = [u8; $bytes];
            const FORMAT: Format = Format::$name;

            #[inline(always)]
            fn values(row: &[u8]) -> &[Self::Bytes] {
                row.as_chunks().0
            }

            #[inline(always)]
            fn load(bytes: &Self::Bytes) -> f32 {
                $load(*bytes)
            }
        }
    )*};
}

floats! {
    F32: 4, f32::from_le_bytes;
    F16: 2, |bytes| f16_to_f32(u16::from_le_bytes(bytes));
    BF16: 2, |bytes| bf16_to_f32(u16::from_le_bytes(bytes));
}
