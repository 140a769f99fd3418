//! f32 to a storage format, by the reference rules of each format.

use crate::{
    error::{Code, Error, Result},
    float::{bf16_from_f32, f16_from_f32},
    quant::{Format, GROUP},
};

/// Encodes `x` into `out`, replacing its bytes one block after the other. Values that are not
/// finite give blocks of no use, never a panic.
///
/// # Errors
/// [`Code::Unsupported`] for formats other than F32, F16, BF16, Q8_0 and Q4_0;
/// [`Code::InvalidArgument`] if `out` is not the size of `x.len()` values.
pub fn encode(format: Format, x: &[f32], out: &mut [u8]) -> Result<()> {
    let encode: fn(&[f32], &mut [u8]) = match format {
        Format::F32 => |x, out| floats(x, out, |x| x.to_le_bytes()),
        Format::F16 => |x, out| floats(x, out, |x| f16_from_f32(x).to_le_bytes()),
        Format::BF16 => |x, out| floats(x, out, |x| bf16_from_f32(x).to_le_bytes()),
        Format::Q8_0 => |x, out| blocks(x, out, q8_0),
        Format::Q4_0 => |x, out| blocks(x, out, q4_0),
        _ => {
            let message = "this build cannot encode the format";
            return Err(Error::new(Code::Unsupported, format.name(), message));
        }
    };
    if format.bytes(x.len() as u64) != Some(out.len() as u64) {
        let (values, found) = (x.len(), out.len());
        let message = format!("expected room for whole blocks of {values} values, found {found}");
        return Err(Error::new(Code::InvalidArgument, format.name(), message));
    }
    encode(x, out);
    Ok(())
}

fn floats<const N: usize>(x: &[f32], out: &mut [u8], bytes: fn(f32) -> [u8; N]) {
    for (&x, out) in x.iter().zip(out.as_chunks_mut::<N>().0) {
        *out = bytes(x);
    }
}

fn blocks<const N: usize>(x: &[f32], out: &mut [u8], encode: fn(&[f32; GROUP]) -> [u8; N]) {
    for (x, out) in x
        .as_chunks::<GROUP>()
        .0
        .iter()
        .zip(out.as_chunks_mut::<N>().0)
    {
        *out = encode(x);
    }
}

/// The largest magnitude becomes 127; ties are rounded away from zero.
fn q8_0(x: &[f32; GROUP]) -> [u8; 34] {
    let amax = x
        .iter()
        .fold(0.0, |amax, x| if x.abs() > amax { x.abs() } else { amax });
    let d = amax / 127.0;
    let inverse = inverse(d);
    let mut block = [0; 34];
    block[..2].copy_from_slice(&f16_from_f32(d).to_le_bytes());
    for (byte, x) in block[2..].iter_mut().zip(x) {
        *byte = (x * inverse).round() as i8 as u8;
    }
    block
}

/// The first value of the largest magnitude becomes -8.
fn q4_0(x: &[f32; GROUP]) -> [u8; 18] {
    let extreme = x.iter().fold(
        0.0f32,
        |best, &x| if x.abs() > best.abs() { x } else { best },
    );
    let d = extreme / -8.0;
    let inverse = inverse(d);
    let code = |x: f32| ((x * inverse + 8.5) as u8).min(15);
    let mut block = [0; 18];
    block[..2].copy_from_slice(&f16_from_f32(d).to_le_bytes());
    for j in 0..16 {
        block[2 + j] = code(x[j]) | code(x[j + 16]) << 4;
    }
    block
}

fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::decode;

    #[test]
    fn what_is_encoded_comes_back() {
        let x: Vec<f32> = (0..64)
            .map(|i| ((i * 29) % 64) as f32 / 8.0 - 3.0)
            .collect();
        for (format, error) in [
            (Format::F32, 0.0),
            (Format::F16, 0.0),
            (Format::BF16, 0.0),
            (Format::Q8_0, 0.021),
            (Format::Q4_0, 0.62),
        ] {
            let mut bytes = vec![0; format.bytes(64).unwrap() as usize];
            let mut back = [f32::NAN; 64];
            encode(format, &x, &mut bytes).unwrap();
            decode(format, &bytes, &mut back).unwrap();
            for (x, back) in x.iter().zip(back) {
                assert!(
                    (x - back).abs() <= error,
                    "{}: {x} became {back}",
                    format.name()
                );
            }
            assert!(encode(format, &x, &mut bytes[1..]).is_err());
        }
        assert_eq!(q8_0(&[0.0; GROUP]), [0; 34]);
        for bad in [f32::NAN, f32::INFINITY] {
            q8_0(&[bad; GROUP]);
            q4_0(&[bad; GROUP]);
        }
        let refused = encode(Format::IQ1_S, &[0.0; 256], &mut [0; 50]).unwrap_err();
        assert_eq!(refused.code(), Code::Unsupported);
    }
}
