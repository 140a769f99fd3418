//! The storage formats of tensors: block layout, decoding, and the scalar dot products that define
//! what every kernel must return.
//!
//! [`Format`] names all formats; those that [`is_computable`] have a type of the same name
//! ([`Q4_K`], [`F16`], ...) which implements [`Blocks`] or [`Floats`]. `docs/numerics.md` holds the
//! contract of the arithmetic.

mod activation;
mod dot;
mod encode;
mod format;
mod generate;
mod iq4;
mod k;
mod legacy;

pub use activation::{Activation, GROUP, is_finite, quantize_row, scales};
pub use dot::{BF16, Blocks, F16, F32, Floats, Group, accumulate, dot, dot_floats, integer_dot};
pub use encode::encode;
pub use format::Format;
pub use generate::random_blocks;
pub use iq4::{IQ4_NL, IQ4_VALUES, IQ4_XS};
pub use k::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
pub use legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

use crate::{
    error::{Code, Error, Result},
    float::f16_to_f32,
};

/// Evaluates `$body` with `$type` naming the type of a computable `$format`: the first for block
/// formats, the second for float formats, the last for all others.
macro_rules! with_format {
    ($format:expr, $type:ident => $blocks:expr, $float:ident => $floats:expr, _ => $other:expr) => {
        $crate::quant::with_format!(@ $format, $type => $blocks, $float => $floats, $other,
            [Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS], [F32 F16 BF16])
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
