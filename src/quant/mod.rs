//! The storage formats of tensors: block layout, decoding, and the scalar dot products that define
//! what every kernel must return.
//!
//! [`Format`] names all formats; those that [`is_computable`] have a type of the same name
//! ([`Q4_K`], [`F16`], ...) which implements [`Blocks`] or [`Floats`]. `docs/numerics.md` holds the
//! contract of the arithmetic.

/// Makes the types that block formats have, of the same names.
macro_rules! names {
    ($($name:ident)*) => {$(
        #[doc = concat!("[`Blocks`] of [`Format::", stringify!($name), "`].")]
        #[derive(Debug, Clone, Copy)]
        #[allow(non_camel_case_types)] // the format's name
        pub struct $name;
    )*};
}

/// What is to be said of a format's blocks in its implementation of [`Blocks`].
macro_rules! layout {
    ($name:ident, $bytes:literal, groups $groups:literal, mins $mins:literal) => {
        type Block = [u8; $bytes];
        const FORMAT: Format = Format::$name;
        const GROUPS: usize = $groups;
        const MINS: usize = $mins;

        #[inline(always)]
        fn blocks(row: &[u8]) -> &[Self::Block] {
            row.as_chunks().0
        }
    };
}

mod activation;
mod dot;
mod encode;
mod format;
mod fp4;
mod generate;
mod grid;
mod grid_tables;
mod iq4;
mod k;
mod legacy;
mod ternary;

pub use activation::{Activation, GROUP, is_finite, quantize_row, scales};
pub use dot::{BF16, Blocks, F16, F32, Floats, Group, accumulate, dot, dot_floats, integer_dot};
pub use encode::encode;
pub use format::Format;
pub use fp4::{FP4_VALUES, MXFP4, NVFP4};
pub use generate::random_blocks;
pub use grid::{
    IQ1_GRID, IQ1_M, IQ1_S, IQ2_S, IQ2_S_GRID, IQ2_VALUES, IQ2_XS, IQ2_XS_GRID, IQ2_XXS,
    IQ2_XXS_GRID, IQ3_S, IQ3_S_GRID, IQ3_S_VALUES, IQ3_XXS, IQ3_XXS_GRID, IQ3_XXS_VALUES,
};
pub use iq4::{IQ4_NL, IQ4_VALUES, IQ4_XS};
pub use k::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
pub use legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
pub use ternary::{Q1_0, Q2_0, TQ1_0, TQ2_0};

use crate::{
    error::{Code, Error, Result},
    float::f16_to_f32,
};

/// Evaluates `$body` with `$type` naming the type of a computable `$format`: the first for block
/// formats, the second for float formats, the last for all others.
macro_rules! with_format {
    ($format:expr, $type:ident => $blocks:expr, $float:ident => $floats:expr, _ => $other:expr) => {
        $crate::quant::with_format!(@ $format, $type => $blocks, $float => $floats, $other,
            [Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS
                IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0 Q2_0],
            [F32 F16 BF16])
    };
    (@ $format:expr, $type:ident => $blocks:expr, $float:ident => $floats:expr, $other:expr,
        [$($b:ident)*], [$($f:ident)*]) => {
        match $format {
            $($crate::quant::Format::$b => {
                type $type = $crate::quant::$b;
                $blocks
            })*
            $($crate::quant::Format::$f => {
                type $float = $crate::quant::$f;
                $floats
            })*
            _ => $other,
        }
    };
}

pub(crate) use with_format;

/// Whether weights of `format` can be decoded and multiplied with.
pub fn is_computable(format: Format) -> bool {
    with_format!(format, B => B::FORMAT == format, F => F::FORMAT == format, _ => false)
}

/// Decodes `bytes` to as many f32 as `out` holds.
///
/// # Errors
/// [`Code::Unsupported`] if the format is not computable, [`Code::InvalidArgument`] if `bytes` is
/// not the size of `out.len()` values.
pub fn decode(format: Format, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    if !is_computable(format) {
        let message = "this build knows the format by name only and cannot decode it";
        return Err(Error::new(Code::Unsupported, format.name(), message));
    }
    if format.bytes(out.len() as u64) != Some(bytes.len() as u64) {
        let (values, found) = (out.len(), bytes.len());
        let message = format!("expected whole blocks of {values} values, found {found} bytes");
        return Err(Error::new(Code::InvalidArgument, format.name(), message));
    }
    with_format!(format, B => decode_blocks::<B>(bytes, out), F => decode_floats::<F>(bytes, out),
        _ => ());
    Ok(())
}

fn decode_blocks<B: Blocks>(bytes: &[u8], out: &mut [f32]) {
    let groups = out.as_chunks_mut::<GROUP>().0;
    for (block, out) in B::blocks(bytes)
        .iter()
        .zip(groups.chunks_exact_mut(B::GROUPS))
    {
        for (group, out) in out.iter_mut().enumerate() {
            *out = B::decode(block, group);
        }
    }
}

fn decode_floats<F: Floats>(bytes: &[u8], out: &mut [f32]) {
    for (value, out) in F::values(bytes).iter().zip(out) {
        *out = F::load(value);
    }
}

/// The `N` bytes from `at` on; the callers' places are constants of a layout.
#[inline(always)]
fn bytes_at<const N: usize>(block: &[u8], at: usize) -> &[u8; N] {
    block[at..]
        .first_chunk()
        .expect("the field lies inside the block")
}

/// The f16 at byte `at`, as f32.
#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes(*bytes_at(block, at)))
}

#[cfg(test)]
mod tests;
