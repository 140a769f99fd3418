//! Products with weights of every format against the scalar twin, to the bit, and against f64.

use super::*;

/// A valid row of `columns` weights: random bytes whose scales are small finite numbers.
fn weight_rows(format: Format, rows: usize, columns: usize, seed: u64) -> Vec<u8> {
    let bytes = rows * format.bytes(columns as u64).unwrap() as usize;
    let random = |seed, step| Random { seed, step };
    let bytes = (0..bytes as u64).map(|step| random(seed, step).bits(0) as u8);
    let mut out: Vec<u8> = bytes.collect();
    for (step, block) in (0..).zip(out.chunks_exact_mut(format.block_bytes())) {
        set_scales(format, block, random(seed + 1, step).unit_f32(0) - 0.5);
    }
    out
}

/// Makes `d` the scale of a block, or the value of a float.
fn set_scales(format: Format, block: &mut [u8], d: f32) {
    let half = |out: &mut [u8], at: usize, value: f32| {
        out[at..at + 2].copy_from_slice(&crate::float::f16_from_f32(value).to_le_bytes());
    };
    match format {
        Format::F32 => block.copy_from_slice(&d.to_le_bytes()),
        Format::F16 => half(block, 0, d),
        Format::BF16 => block.copy_from_slice(&((d.to_bits() >> 16) as u16).to_le_bytes()),
        Format::Q2_K => (half(block, 80, d), half(block, 82, d * 0.3)).0,
        Format::Q3_K => half(block, 108, d),
        Format::Q6_K => half(block, 208, d),
        Format::TQ1_0 => half(block, 52, d),
        Format::TQ2_0 => half(block, 64, d),
        Format::MXFP4 => block[0] = block[0] / 8 + 112,
        // Scales of any bits are finite.
        Format::NVFP4 => {}
        Format::IQ1_M => {
            // Not the largest exponent, which is NaN or infinite.
            block[55] &= 0xbf;
        }
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => {
            (half(block, 0, d), half(block, 2, d * 0.3)).0
        }
        _ => half(block, 0, d),
    }
}

fn product(
    kernels: &Kernels,
    format: Format,
    weights: &[u8],
    x: &Input<'_>,
    (tokens, rows): (usize, usize),
) -> Vec<f32> {
    let mut out = vec![0.0; tokens * rows];
    kernels.matmul(format, weights, x, &[], &mut Tile::whole(&mut out, rows));
    out
}

fn quantized(floats: &[f32]) -> Vec<Activation> {
    let mut quants = vec![Activation::default(); floats.len() / GROUP];
    assert!(force(Isa::Scalar).quantize_row(floats, &mut quants));
    quants
}

/// The largest and smallest integers on both sides: sums in 16 bits must not overflow.
#[test]
fn extreme_integers_stay_exact() {
    let (rows, tokens) = (19, 5);
    let formats = Format::all().filter(|&f| crate::quant::is_computable(f) && f.block_len() > 1);
    for format in formats {
        let columns = 2 * format.block_len();
        for fill in [0x00, 0x0f, 0x7f, 0x80, 0xf0, 0xff] {
            let len = rows * format.bytes(columns as u64).unwrap() as usize;
            let mut weights = vec![fill; len];
            for block in weights.chunks_exact_mut(format.block_bytes()) {
                set_scales(format, block, 0.5);
            }
            for q in [127, -127] {
                let quants = vec![Activation::new([q; GROUP], 0.25); tokens * columns / GROUP];
                let x = Input::new(columns, &[], &quants);
                let shape = (tokens, rows);
                same(format.name(), |kernels| {
                    product(kernels, format, &weights, &x, shape)
                });
            }
        }
    }
}

/// Hostile blocks: what comes out is the scalar twin's, or not a number there, too.
#[test]
fn any_bytes_are_multiplied_alike() {
    let (rows, columns) = (17, 512);
    for format in Format::all().filter(|&f| crate::quant::is_computable(f) && f.block_len() > 1) {
        for seed in 0..12 {
            let len = rows * format.bytes(columns as u64).unwrap() as usize;
            let random = |step| Random { seed, step }.bits(0) as u8;
            let fill = |step| match seed {
                0 => 0xff,
                1 => 0x7c, // scales are NaN or infinite
                _ => random(step),
            };
            let weights: Vec<u8> = (0..len as u64).map(fill).collect();
            for tokens in [1, 3] {
                let quants = quantized(&floats(seed, tokens * columns));
                let x = Input::new(columns, &[], &quants);
                same(format.name(), |kernels| {
                    let out = product(kernels, format, &weights, &x, (tokens, rows));
                    let known = |x: f32| if x.is_nan() { f32::NAN } else { x };
                    out.into_iter().map(known).collect()
                });
            }
        }
    }
}

#[test]
fn matmul_of_every_format() {
    let formats = Format::all().filter(|&format| crate::quant::is_computable(format));
    for (seed, format) in (0..).zip(formats) {
        let block = format.block_len();
        let columns = if block == 1 {
            vec![1, 15, 16, 83, 576, 1100]
        } else {
            vec![block, 3 * block, 9 * block]
        };
        for columns in columns {
            for (rows, tokens) in [(1, 1), (3, 2), (17, 8), (5, 9), (2, 20), (35, 1), (75, 6)] {
                let weights = weight_rows(format, rows, columns, seed);
                let stride = columns + 5;
                let floats = floats(seed + 9, tokens * stride);
                let whole = if block > 1 { columns } else { 0 };
                let rows_of_x = floats.chunks_exact(stride);
                let quants: Vec<_> = rows_of_x.flat_map(|row| quantized(&row[..whole])).collect();
                let x = Input {
                    columns,
                    stride,
                    floats: &floats,
                    quants: &quants,
                };
                same(format.name(), |kernels| {
                    let out = product(kernels, format, &weights, &x, (tokens, rows));
                    assert!(out.iter().all(|x| x.is_finite()));
                    out
                });
            }
        }
    }
}

#[test]
fn matmul_is_the_dot_product_of_its_rows() {
    let (rows, columns, tokens) = (3, 512, 2);
    let floats = floats(5, tokens * columns);
    let quants = quantized(&floats);
    let x = Input::new(columns, &floats, &quants);
    for (format, bound) in [
        (Format::F32, 1e-5),
        (Format::Q8_0, 2e-2),
        (Format::Q4_K, 2e-2),
    ] {
        let weights = weight_rows(format, rows, columns, 3);
        let mut decoded = vec![0.0; rows * columns];
        crate::quant::decode(format, &weights, &mut decoded).unwrap();
        let out = product(detect(), format, &weights, &x, (tokens, rows));
        for (t, out) in out.chunks_exact(rows).enumerate() {
            for (row, out) in decoded.chunks_exact(columns).zip(out) {
                let x = &floats[t * columns..][..columns];
                let terms = row
                    .iter()
                    .zip(x)
                    .map(|(w, x)| f64::from(*w) * f64::from(*x));
                let size: f64 = terms.clone().map(f64::abs).sum();
                let error = (terms.sum::<f64>() - f64::from(*out)).abs();
                assert!(error <= bound * size, "{} {error} of {size}", format.name());
            }
        }
    }
}
