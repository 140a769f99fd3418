//! Random weights of every computable format, the same on every machine.

use lightgpt::float::{bf16_from_f32, f16_from_f32};
use lightgpt::quant::Format;
use lightgpt::random::Random;

/// `values` weights with a mean of about 0 and a variance of about `1 / columns`, so that a matrix
/// of so many columns keeps the size of what it multiplies: random integers, and random scales of
/// both signs.
pub fn random_weights(format: Format, values: usize, columns: usize, seed: u64) -> Vec<u8> {
    let len = format.bytes(values as u64).expect("whole blocks") as usize;
    let word = |step: usize, draw: u32| {
        Random {
            seed,
            step: step as u64,
        }
        .bits(draw)
    };
    let mut bytes: Vec<u8> = (0..len).map(|i| word(i, 0) as u8).collect();
    let (integers, places) = scales(format);
    for (i, block) in bytes.chunks_exact_mut(format.block_bytes()).enumerate() {
        let random = word(i, 1);
        // Of 64 sizes from 1/2 to 3/2, and either sign.
        let size = (random % 64) as f32 / 64.0 + 0.5;
        let sign = if random & 64 == 0 { 1.0 } else { -1.0 };
        let d = sign * size / integers / (columns as f32).sqrt();
        match format {
            Format::F32 => block.copy_from_slice(&d.to_le_bytes()),
            Format::BF16 => block.copy_from_slice(&bf16_from_f32(d).to_le_bytes()),
            // 2^(e - 128), where f32 has 2^(e - 127).
            Format::MXFP4 => block[0] = (d.abs().to_bits() >> 23) as u8 + 1,
            // Steps of 2^-10, up to 15.
            Format::NVFP4 => block[..4].fill((d.abs() * 1024.0).clamp(1.0, 15.0) as u8),
            Format::IQ1_M => {
                let half = f16_from_f32(d);
                for i in 0..4 {
                    let top = &mut block[49 + 2 * i];
                    *top = *top & 15 | ((half >> (4 * i)) as u8) << 4;
                }
            }
            _ => {
                for &(at, factor) in places {
                    let half = f16_from_f32(d * factor);
                    block[at..at + 2].copy_from_slice(&half.to_le_bytes());
                }
            }
        }
    }
    bytes
}

/// How large the integers of a format (times their integer scales) are, about; and where the f16
/// that scale a block stand, with their sizes beside the first: a minimum is the mean of what it is
/// taken from.
fn scales(format: Format) -> (f32, &'static [(usize, f32)]) {
    match format {
        Format::F32 | Format::BF16 | Format::F16 => (1.0, &[(0, 1.0)]),
        Format::Q4_0 => (4.6, &[(0, 1.0)]),
        Format::Q4_1 => (4.6, &[(0, 1.0), (2, -7.5)]),
        Format::Q5_0 => (9.2, &[(0, 1.0)]),
        Format::Q5_1 => (9.2, &[(0, 1.0), (2, -15.5)]),
        Format::Q8_0 => (74.0, &[(0, 1.0)]),
        Format::Q2_K => (15.0, &[(80, 1.0), (82, 1.5)]),
        Format::Q3_K => (42.0, &[(108, 1.0)]),
        Format::Q4_K => (250.0, &[(0, 1.0), (2, 7.5)]),
        Format::Q5_K => (500.0, &[(0, 1.0), (2, 15.5)]),
        Format::Q6_K => (1370.0, &[(208, 1.0)]),
        Format::IQ4_NL => (68.0, &[(0, 1.0)]),
        Format::IQ4_XS => (1260.0, &[(0, 1.0)]),
        Format::IQ1_S => (7.2, &[(0, 1.0)]),
        Format::IQ1_M => (7.2, &[]),
        Format::IQ2_XXS | Format::IQ2_XS | Format::IQ2_S => (56.0, &[(0, 1.0)]),
        Format::IQ3_XXS | Format::IQ3_S => (140.0, &[(0, 1.0)]),
        Format::TQ1_0 => (0.8, &[(52, 1.0)]),
        Format::TQ2_0 => (1.2, &[(64, 1.0)]),
        Format::Q1_0 => (1.0, &[(0, 1.0)]),
        Format::Q2_0 => (1.2, &[(0, 1.0)]),
        Format::MXFP4 | Format::NVFP4 => (5.9, &[]),
        _ => panic!("{} is not computable", format.name()),
    }
}
