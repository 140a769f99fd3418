//! Blocks made here from their integers, by the layouts as the formats' specification draws them:
//! an independent road to the weights, the dots and the bounds.

use super::{dot::integer_dot, *};
use crate::{
    float::{Hard, Soft, f16_from_f32},
    random::Random,
};

mod fields;

const PACKED: [Format; 12] = [
    Format::Q4_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::Q8_0,
    Format::Q2_K,
    Format::Q3_K,
    Format::Q4_K,
    Format::Q5_K,
    Format::Q6_K,
    Format::IQ4_NL,
    Format::IQ4_XS,
];

/// All formats with blocks.
fn block_formats() -> impl Iterator<Item = Format> {
    let others = fields::FORMATS.into_iter().map(|(format, _)| format);
    PACKED.into_iter().chain(others)
}

/// What a block stores, as unsigned codes: `q` per value; `scales` and `mins` per sub-block.
#[derive(Debug, Clone, Default)]
struct Parts {
    d: f32,
    m: f32,
    q: Vec<u32>,
    scales: Vec<u32>,
    mins: Vec<u32>,
}

/// Bits of: codes, scale codes, minimum codes; and how many sub-blocks a block has.
fn widths(format: Format) -> (u32, u32, u32, usize) {
    match format {
        Format::Q4_0 | Format::Q4_1 | Format::IQ4_NL => (4, 0, 0, 0),
        Format::Q5_0 | Format::Q5_1 => (5, 0, 0, 0),
        Format::Q8_0 => (8, 0, 0, 0),
        Format::Q2_K => (2, 4, 4, 16),
        Format::Q3_K => (3, 6, 0, 16),
        Format::Q4_K => (4, 6, 6, 8),
        Format::Q5_K => (5, 6, 6, 8),
        Format::Q6_K => (6, 8, 0, 16),
        Format::IQ4_XS => (4, 6, 0, 8),
        other => panic!("{other:?} has no blocks"),
    }
}

/// The bytes of a block.
fn pack(format: Format, parts: &Parts) -> Vec<u8> {
    let Parts {
        d,
        m,
        q,
        scales,
        mins,
    } = parts;
    let (d, m) = (
        f16_from_f32(*d).to_le_bytes(),
        f16_from_f32(*m).to_le_bytes(),
    );
    match format {
        Format::Q4_0 | Format::IQ4_NL => [&d[..], &halves(q)].concat(),
        Format::Q4_1 => [&d[..], &m, &halves(q)].concat(),
        Format::Q5_0 => [&d[..], &fifth(q), &halves(q)].concat(),
        Format::Q5_1 => [&d[..], &m, &fifth(q), &halves(q)].concat(),
        Format::Q8_0 => [&d[..], &q.iter().map(|&q| q as u8).collect::<Vec<_>>()].concat(),
        Format::Q2_K => {
            let scales: Vec<u8> = (0..16).map(|j| (scales[j] | mins[j] << 4) as u8).collect();
            [&scales[..], &pairs(q, 0), &d, &m].concat()
        }
        Format::Q3_K => {
            let mut packed = vec![0; 12];
            for j in 0..16 {
                packed[j % 8] |= ((scales[j] & 15) << (j / 8 * 4)) as u8;
                packed[8 + j % 4] |= (scales[j] >> 4 << (j / 4 * 2)) as u8;
            }
            [&plane(q, 2)[..], &pairs(q, 0), &packed, &d].concat()
        }
        Format::Q4_K => [&d[..], &m, &scales_and_mins(scales, mins), &nibbles(q)].concat(),
        Format::Q5_K => [
            &d[..],
            &m,
            &scales_and_mins(scales, mins),
            &plane(q, 4),
            &nibbles(q),
        ]
        .concat(),
        Format::Q6_K => {
            // Per 128 values 64 bytes: low 4 bits of values 64 apart.
            let low = (0..64)
                .chain(128..192)
                .map(|i| (q[i] & 15 | (q[i + 64] & 15) << 4) as u8);
            let scales = scales.iter().map(|&scale| scale as u8);
            let low: Vec<u8> = low.collect();
            [low, pairs(q, 4), scales.collect(), d.to_vec()].concat()
        }
        Format::IQ4_XS => {
            let high = (0..8).fold(0, |bits, g| bits | (scales[g] as u16 >> 4) << (2 * g));
            let low = (0..4).map(|j| (scales[2 * j] & 15 | (scales[2 * j + 1] & 15) << 4) as u8);
            let codes = q.chunks(32).flat_map(halves);
            d.into_iter()
                .chain(high.to_le_bytes())
                .chain(low)
                .chain(codes)
                .collect()
        }
        other => panic!("{other:?} has no blocks"),
    }
}

/// Per 32 values 16 bytes, each with the low 4 bits of 2 values 16 apart.
fn halves(q: &[u32]) -> Vec<u8> {
    (0..16)
        .map(|j| (q[j] & 15 | (q[j + 16] & 15) << 4) as u8)
        .collect()
}

/// The fifth bits of 32 values.
fn fifth(q: &[u32]) -> [u8; 4] {
    let bits = (0..32).fold(0, |bits, i| bits | (q[i] >> 4 & 1) << i);
    bits.to_le_bytes()
}

/// Bit `b` of values 32 g + i, at bit g of byte i.
fn plane(q: &[u32], b: u32) -> Vec<u8> {
    let bit = |i: usize| q[i] >> b & 1;
    (0..32)
        .map(|i| (0..8).fold(0, |byte, g| byte | (bit(32 * g + i) << g) as u8))
        .collect()
}

/// Per 128 values 32 bytes, each with 2 bits from `shift` on of 4 values 32 apart.
fn pairs(q: &[u32], shift: u32) -> Vec<u8> {
    let byte = |i: usize| (0..4).fold(0, |byte, j| byte | (q[i + 32 * j] >> shift & 3) << (2 * j));
    (0..32).chain(128..160).map(|i| byte(i) as u8).collect()
}

/// Per 64 values 32 bytes, each with the low 4 bits of 2 values 32 apart.
fn nibbles(q: &[u32]) -> Vec<u8> {
    (0..128)
        .map(|i| i / 32 * 64 + i % 32)
        .map(|i| (q[i] & 15 | (q[i + 32] & 15) << 4) as u8)
        .collect()
}

/// The 8 scales and mins of 6 bits.
fn scales_and_mins(scales: &[u32], mins: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0; 12];
    for j in 0..4 {
        bytes[j] = (scales[j] | scales[j + 4] >> 4 << 6) as u8;
        bytes[j + 4] = (mins[j] | mins[j + 4] >> 4 << 6) as u8;
        bytes[j + 8] = (scales[j + 4] & 15 | (mins[j + 4] & 15) << 4) as u8;
    }
    bytes
}

/// The weights that the parts stand for; exact in f64.
fn weights(format: Format, parts: &Parts) -> Vec<f64> {
    let (d, m) = (f64::from(parts.d), f64::from(parts.m));
    let weight = |(i, &q): (usize, &u32)| {
        let q = f64::from(q);
        let scale = |width: usize| f64::from(parts.scales[i / width]);
        let min = |width: usize| f64::from(parts.mins[i / width]);
        match format {
            Format::Q4_0 => d * (q - 8.0),
            Format::Q5_0 => d * (q - 16.0),
            Format::Q4_1 | Format::Q5_1 => d * q + m,
            Format::Q8_0 => d * f64::from(q as u8 as i8),
            Format::Q2_K => d * scale(16) * q - m * min(16),
            Format::Q3_K => d * (scale(16) - 32.0) * (q - 4.0),
            Format::Q4_K | Format::Q5_K => d * scale(32) * q - m * min(32),
            Format::Q6_K => d * f64::from(scale(16) as u8 as i8) * (q - 32.0),
            Format::IQ4_NL => d * f64::from(IQ4_VALUES[q as usize]),
            Format::IQ4_XS => d * (scale(32) - 32.0) * f64::from(IQ4_VALUES[q as usize]),
            other => panic!("{other:?} has no blocks"),
        }
    };
    parts.q.iter().enumerate().map(weight).collect()
}

/// Parts whose codes are what `code(draw, bits)` gives.
fn parts(format: Format, d: f32, m: f32, mut code: impl FnMut(usize, u32) -> u32) -> Parts {
    let (q, scale, min, count) = widths(format);
    let mut draw = 0;
    let mut codes = |count: usize, bits: u32| -> Vec<u32> {
        let first = draw;
        draw += count;
        (first..draw)
            .map(|draw| if bits == 0 { 0 } else { code(draw, bits) })
            .collect()
    };
    Parts {
        d,
        m,
        q: codes(format.block_len(), q),
        scales: codes(count, scale),
        mins: codes(count, min),
    }
}

fn random_parts(format: Format, random: Random) -> Parts {
    // Scales that f16 holds exactly, of both signs.
    let half = |draw| f16_to_f32(f16_from_f32((random.unit_f32(draw) - 0.4) / 16.0));
    parts(format, half(1000), half(1001), |draw, bits| {
        (random.bits(draw as u32) >> 40) as u32 & ((1 << bits) - 1)
    })
}

fn random_row(format: Format, blocks: u64, seed: u64) -> (Vec<u8>, Vec<f64>) {
    if !PACKED.contains(&format) {
        return fields::random_row(format, blocks, seed);
    }
    let (mut row, mut truth) = (Vec::new(), Vec::new());
    for step in 0..blocks {
        let parts = random_parts(format, Random { seed, step });
        row.extend(pack(format, &parts));
        truth.extend(weights(format, &parts));
    }
    (row, truth)
}

fn random_activations(count: usize, seed: u64) -> Vec<Activation> {
    let x: Vec<f32> = (0..count as u64 * 32)
        .map(|step| Random { seed, step }.unit_f32(0) * 4.0 - 1.5)
        .collect();
    let mut out = vec![Activation::default(); count];
    assert!(quantize_row(&x, &mut out));
    out
}

fn dot_row<M: crate::float::MulAdd>(format: Format, row: &[u8], x: &[Activation]) -> f32 {
    with_format!(format, B => dot::<B, M>(row, x), F => F::load(&Default::default()), _ => 0.0)
}

#[test]
fn blocks_are_laid_out_as_specified() {
    for format in block_formats() {
        let (row, truth) = random_row(format, 20, 1);
        assert_eq!(row.len() as u64, format.bytes(truth.len() as u64).unwrap());
        let mut values = vec![f32::NAN; truth.len()];
        decode(format, &row, &mut values).unwrap();
        for (i, (value, truth)) in values.iter().zip(&truth).enumerate() {
            let (name, truth) = (format.name(), *truth as f32);
            assert_eq!(
                value.to_bits(),
                truth.to_bits(),
                "{name} [{i}]: {value:e}, not {truth:e}"
            );
        }
    }
}

#[test]
fn constants_agree_with_the_format_table() {
    for format in Format::all() {
        with_format!(format, B => {
            assert_eq!(B::FORMAT, format);
            assert_eq!(B::GROUPS * GROUP, format.block_len());
            assert_eq!(size_of::<<B as Blocks>::Block>(), format.block_bytes());
            assert!([0, 1, 2].contains(&B::MINS) && is_computable(format));
        }, F => {
            assert_eq!((F::FORMAT, size_of::<<F as Floats>::Bytes>()), (format, format.block_bytes()));
            assert!(is_computable(format));
        }, _ => assert!(!is_computable(format)));
    }
}

#[test]
fn dots_are_the_sums_of_products_and_one_fma_serves_as_the_other() {
    for format in block_formats() {
        for seed in 0..20 {
            let (row, weights) = random_row(format, 6, seed);
            let x = random_activations(weights.len() / 32, seed + 100);
            let products = weights.iter().enumerate().map(|(i, weight)| {
                let x = &x[i / 32];
                weight * f64::from(x.scale) * f64::from(x.q[i % 32])
            });
            let (sum, size) = products.fold((0.0, 0.0), |(s, a), p| (s + p, a + p.abs()));
            let found = dot_row::<Soft>(format, &row, &x);
            let error = (f64::from(found) - sum).abs() / size;
            assert!(
                error < 4e-7,
                "{}: {found}, expected {sum}, off by {error:e}",
                format.name()
            );
            let hard = dot_row::<Hard>(format, &row, &x);
            assert_eq!(found.to_bits(), hard.to_bits(), "{}", format.name());
        }
    }
}

/// The order of the float operations, spelled out for a format with two minima.
#[test]
fn minima_are_added_after_the_product_first_half_first() {
    let (row, _) = random_row(Format::Q2_K, 1, 3);
    let x = random_activations(8, 4);
    let mut sum = 0f32;
    for (group, x) in x.iter().enumerate() {
        let Group { q, scales, mins } = Q2_K::unpack(row.as_chunks().0.first().unwrap(), group);
        sum = (integer_dot(&q, &x.q) as f32).mul_add(scales[0] * x.scale, sum);
        sum = mins[0].mul_add(x.scale * (-x.start0 / 32) as f32, sum);
        sum = mins[1].mul_add(x.scale * (-x.start1 / 32) as f32, sum);
    }
    assert_eq!(
        dot_row::<Soft>(Format::Q2_K, &row, &x).to_bits(),
        sum.to_bits()
    );
}

#[test]
fn integer_sums_reach_their_bounds_and_stay_exact() {
    let bounds = [
        32_512, 60_960, 65_024, 125_984, 520_192, 182_880, 520_192, 60_960, 125_984, 16_646_144,
        516_128, 516_128,
    ];
    for (format, bound) in PACKED.into_iter().zip(bounds) {
        let mut largest = 0;
        for code in 0..256 {
            for scale in [0u32, !0, 128] {
                let full = parts(format, 1.0, 0.0, |draw, bits| {
                    (if draw < format.block_len() {
                        code
                    } else {
                        scale
                    }) & ((1 << bits) - 1)
                });
                let block = pack(format, &full);
                let group = with_format!(format, B => B::unpack(&B::blocks(&block)[0], 0), F => {
                    panic!("{}", F::FORMAT.name())
                }, _ => panic!());
                for sign in [-1, 1] {
                    let x = group.q.map(|q| 127 * sign * q.signum() as i8);
                    largest = largest.max(integer_dot(&group.q, &x).abs());
                }
            }
        }
        assert_eq!(largest, bound, "{}", format.name());
        assert!(largest < 1 << 24);
    }
}

#[test]
fn any_bytes_are_computed_without_a_panic() {
    for format in Format::all().filter(|&format| is_computable(format)) {
        let len = 256;
        for step in 0..300 {
            let random = Random { seed: 9, step };
            let fill = |i| match step % 3 {
                0 => 0xff,
                1 => 0x7c, // scales are NaN or infinite
                _ => random.bits(i) as u8,
            };
            let row: Vec<u8> = (0..format.bytes(len).unwrap() as u32).map(fill).collect();
            let x = random_activations(8, step);
            decode(format, &row, &mut [0.0; 256]).unwrap();
            let (soft, hard) = (
                dot_row::<Soft>(format, &row, &x),
                dot_row::<Hard>(format, &row, &x),
            );
            assert!(soft.to_bits() == hard.to_bits() || (soft.is_nan() && hard.is_nan()));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for format in Format::all() {
        let block = format.block_len();
        let bytes = vec![0; 2 * format.block_bytes()];
        let found = decode(format, &bytes, &mut vec![0.0; 2 * block]).map_err(|e| e.code());
        if !is_computable(format) {
            let e = decode(format, &bytes, &mut vec![0.0; 2 * block]).unwrap_err();
            assert_eq!((e.code(), e.place()), (Code::Unsupported, format.name()));
            continue;
        }
        assert_eq!(found, Ok(()));
        for (bytes, values) in [
            (&bytes[1..], 2 * block),
            (&bytes[..], block),
            (&bytes[..], 2 * block + 1),
            (&[], 1),
        ] {
            let e = decode(format, bytes, &mut vec![0.0; values]).unwrap_err();
            assert_eq!(
                (e.code(), e.place()),
                (Code::InvalidArgument, format.name())
            );
        }
    }
}

#[test]
fn float_dots_use_sixteen_lanes_and_the_tree() {
    for len in [0, 1, 15, 16, 17, 31, 32, 100] {
        let random = |seed| move |step| Random { seed, step }.unit_f32(0) - 0.5;
        let x: Vec<f32> = (0..len as u64).map(random(1)).collect();
        let weights: Vec<f32> = (0..len as u64).map(random(2)).collect();
        let mut lanes = [0f32; 16];
        for i in 0..len {
            lanes[i % 16] = weights[i].mul_add(x[i], lanes[i % 16]);
        }
        let expected = crate::float::sum_lanes(&lanes);
        let mut row = vec![0; 4 * len];
        encode(Format::F32, &weights, &mut row).unwrap();
        let (soft, hard) = (
            dot_floats::<F32, Soft>(&row, &x),
            dot_floats::<F32, Hard>(&row, &x),
        );
        assert_eq!(
            (soft.to_bits(), hard.to_bits()),
            (expected.to_bits(), expected.to_bits())
        );

        // A 16-bit row is the f32 row of its decoded values.
        for format in [Format::F16, Format::BF16] {
            let mut short = vec![0; 2 * len];
            let mut values = vec![0.0; len];
            encode(format, &weights, &mut short).unwrap();
            decode(format, &short, &mut values).unwrap();
            encode(Format::F32, &values, &mut row).unwrap();
            let found = match format {
                Format::F16 => dot_floats::<F16, Soft>(&short, &x),
                _ => dot_floats::<BF16, Soft>(&short, &x),
            };
            assert_eq!(found.to_bits(), dot_floats::<F32, Soft>(&row, &x).to_bits());
        }
    }
}
