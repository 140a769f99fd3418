//! The formats of grids, of 4-bit floats, and of one and two bits a weight: weights read field by
//! field, each by the number of its first bit in the block.

use super::{Code, Format, GROUP, decode, dot_row, random_activations};
use crate::{
    float::{Hard, Soft, f16_to_f32},
    quant::{Blocks, Floats, Group, NVFP4, grid_tables as tables, integer_dot},
    random::Random,
};

/// The formats, and bounds of the integers of their groups.
pub(super) const FORMATS: [(Format, i32); 13] = [
    (Format::IQ1_S, 127 * 32 * 9),
    (Format::IQ1_M, 127 * 32 * 15 * 9),
    (Format::IQ2_XXS, 127 * 32 * 43),
    (Format::IQ2_XS, 127 * 32 * 31 * 43),
    (Format::IQ2_S, 127 * 32 * 31 * 43),
    (Format::IQ3_XXS, 127 * 32 * 62),
    (Format::IQ3_S, 127 * 32 * 15),
    (Format::TQ1_0, 127 * 32),
    (Format::TQ2_0, 127 * 32 * 2),
    (Format::MXFP4, 127 * 32 * 12),
    (Format::NVFP4, 127 * 32 * 12),
    (Format::Q1_0, 127 * 32),
    (Format::Q2_0, 127 * 32 * 2),
];

/// Random bytes with finite scales, and the weights that they stand for.
pub(super) fn random_row(format: Format, blocks: u64, seed: u64) -> (Vec<u8>, Vec<f64>) {
    let len = format.block_bytes() * blocks as usize;
    let byte = |step| Random { seed, step }.bits(0) as u8;
    let mut row: Vec<u8> = (0..len as u64).map(byte).collect();
    let mut truth = Vec::new();
    for block in row.chunks_exact_mut(format.block_bytes()) {
        match format {
            Format::MXFP4 => block[0] = block[0] / 8 + 112,
            Format::NVFP4 => {}
            // Not the largest exponent.
            Format::IQ1_M => block[55] &= 0xbf,
            Format::TQ1_0 => block[53] &= 0xbf,
            Format::TQ2_0 => block[65] &= 0xbf,
            _ => block[1] &= 0xbf,
        }
        truth.extend((0..format.block_len()).map(|i| weight(format, &Fields(block), i)));
    }
    (row, truth)
}

/// A block as a sequence of bits, the lowest of each byte first.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn at(&self, first: usize, count: usize) -> usize {
        let bit = |at: usize| usize::from(self.0[at / 8] >> (at % 8) & 1);
        (0..count).fold(0, |bits, i| bits | bit(first + i) << i)
    }

    fn half(&self, first: usize) -> f64 {
        f16_to_f32(self.at(first, 16) as u16).into()
    }

    /// 1 or -1 by one bit.
    fn sign(&self, at: usize) -> f64 {
        1.0 - 2.0 * self.at(at, 1) as f64
    }

    /// 1 or -1: the `i`th of seven bits, or of the eighth that makes them even.
    fn sign_of_seven(&self, first: usize, i: usize) -> f64 {
        match i {
            7 => (0..7).map(|i| self.sign(first + i)).product(),
            _ => self.sign(first + i),
        }
    }
}

/// Weight `i` of a block, exactly.
fn weight(format: Format, block: &Fields<'_>, i: usize) -> f64 {
    let d = || block.half(0);
    let odd = |first, count| (2 * block.at(first, count) + 1) as f64;
    // Groups of 32, 16, 8 and 4 columns.
    let (g, h, e, f) = (i / 32, i / 16, i / 8, i / 4);
    let two = |point: u16, values: [f64; 4]| values[usize::from(point >> (2 * (i % 8)) & 3)];
    let iq2 = |point| two(point, [8.0, 25.0, 43.0, f64::NAN]);
    let iq1 = |point| two(point, [-1.0, 0.0, 1.0, f64::NAN]);
    let three = |point: u16| point >> (3 * (i % 4)) & 7;
    match format {
        Format::IQ2_XXS => {
            let point = tables::IQ2_XXS[block.at(16 + 64 * g + 8 * (e % 4), 8)];
            let sign = block.sign_of_seven(48 + 64 * g + 7 * (e % 4), i % 8);
            d() / 8.0 * odd(76 + 64 * g, 4) * iq2(point) * sign
        }
        Format::IQ2_XS => {
            let point = tables::IQ2_XS[block.at(16 + 16 * e, 9)];
            let sign = block.sign_of_seven(25 + 16 * e, i % 8);
            d() / 8.0 * odd(528 + 4 * h, 4) * iq2(point) * sign
        }
        Format::IQ2_S => {
            let high = block.at(528 + 2 * e, 2);
            let point = tables::IQ2_S[block.at(16 + 8 * e, 8) | high << 8];
            d() / 8.0 * odd(592 + 4 * h, 4) * iq2(point) * block.sign(272 + i)
        }
        Format::IQ3_XXS => {
            const VALUES: [f64; 8] = [4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 62.0];
            let point = tables::IQ3_XXS[block.at(16 + 8 * f, 8)];
            let sign = block.sign_of_seven(528 + 32 * g + 7 * (e % 4), i % 8);
            d() / 4.0 * odd(556 + 32 * g, 4) * VALUES[usize::from(three(point))] * sign
        }
        Format::IQ3_S => {
            let point = tables::IQ3_S[block.at(16 + 8 * f, 8) | block.at(528 + f, 1) << 8];
            let value = f64::from(2 * three(point) + 1);
            d() * odd(848 + 4 * g, 4) * value * block.sign(592 + i)
        }
        Format::IQ1_S => {
            let high = block.at(272 + 16 * g + 3 * (e % 4), 3);
            let point = tables::IQ1[block.at(16 + 8 * e, 8) | high << 8];
            let delta = block.sign(287 + 16 * g) / 8.0;
            d() * odd(284 + 16 * g, 3) * (iq1(point) + delta)
        }
        Format::IQ1_M => {
            let quarter = |j: usize| block.at(384 + 16 * j + 12, 4) << (4 * j);
            let d = f16_to_f32((0..4).map(quarter).sum::<usize>() as u16);
            let point = tables::IQ1[block.at(8 * e, 8) | block.at(256 + 4 * e, 3) << 8];
            let delta = block.sign(259 + 4 * e) / 8.0;
            let scale = odd(384 + h / 4 * 16 + h % 4 * 3, 3);
            f64::from(d) * scale * (iq1(point) + delta)
        }
        _ => weight_without_grid(format, block, i),
    }
}

/// As [`weight`], for the formats that have no grid.
fn weight_without_grid(format: Format, block: &Fields<'_>, i: usize) -> f64 {
    let d = || block.half(0);
    match format {
        Format::TQ1_0 => {
            let (byte, digit) = match i {
                0..160 => (i % 32, i / 32),
                160..240 => (32 + i % 16, (i - 160) / 16),
                _ => (48 + i % 4, (i - 240) / 4),
            };
            let mut rest = block.at(8 * byte, 8);
            for _ in 0..digit {
                rest = rest * 3 % 256;
            }
            block.half(416) * ((rest * 3 / 256) as f64 - 1.0)
        }
        Format::TQ2_0 => {
            let q = block.at(i / 128 * 256 + i % 32 * 8 + i % 128 / 32 * 2, 2);
            block.half(512) * (q as f64 - 1.0)
        }
        Format::Q1_0 => d() * (2.0 * block.at(16 + i, 1) as f64 - 1.0),
        Format::Q2_0 => d() * (block.at(16 + 2 * i, 2) as f64 - 1.0),
        Format::MXFP4 => {
            let scale = 2f64.powi(block.at(0, 8) as i32 - 127);
            scale * fp4(block.at(8 + i % 16 * 8 + i / 16 * 4, 4))
        }
        Format::NVFP4 => {
            let scale = match block.at(8 * (i / 16), 8) {
                0x7f => 0.0,
                bits => small_float(bits & 0x7f, 4, 3).abs(),
            };
            scale * fp4(block.at(32 + i / 16 * 64 + i % 8 * 8 + i % 16 / 8 * 4, 4))
        }
        other => panic!("{other:?} is not among these"),
    }
}

/// E2M1, whose minus 0 the formats take for 0.
fn fp4(code: usize) -> f64 {
    small_float(code, 2, 1) + 0.0
}

/// A float of a sign, some bits of exponent and some of mantissa.
fn small_float(bits: usize, exponent: usize, mantissa: usize) -> f64 {
    let sign = if bits >> (exponent + mantissa) == 0 {
        1.0
    } else {
        -1.0
    };
    let unit = 0.5f64.powi(mantissa as i32);
    let fraction = (bits & ((1 << mantissa) - 1)) as f64 * unit;
    let bias = (1 << (exponent - 1)) - 1;
    let field = (bits >> mantissa & ((1 << exponent) - 1)) as i32;
    match field {
        0 => sign * fraction * 2f64.powi(1 - bias),
        _ => sign * (1.0 + fraction) * 2f64.powi(field - bias),
    }
}

#[test]
fn tables_are_those_that_were_published() {
    fn check(table: &[u16], codes: u32, hash: u64) {
        assert!(table.is_sorted_by(|a, b| a != b));
        let fields = |point: u16| (0..codes).map(move |i| point >> (16 / codes * i) & 3);
        assert!(
            codes == 4
                || table
                    .iter()
                    .all(|&point| fields(point).all(|code| code < 3))
        );
        // FNV-1a.
        let found = table
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, &point| {
                (hash ^ u64::from(point)).wrapping_mul(0x0100_0000_01b3)
            });
        assert_eq!(found, hash, "{found:#018x}");
    }
    check(&tables::IQ2_XXS, 8, 0x451c_4103_5e19_149e);
    check(&tables::IQ2_XS, 8, 0x4593_780a_ffde_22ce);
    check(&tables::IQ2_S, 8, 0xd90f_e478_077a_7e6a);
    check(&tables::IQ1, 8, 0x3576_49a8_6e5e_3c41);
    check(&tables::IQ3_XXS, 4, 0x2afd_47c2_6ba2_38e9);
    check(&tables::IQ3_S, 4, 0xc952_00d5_a973_2494);
}

#[test]
fn integer_sums_stay_within_their_bounds() {
    for (format, bound) in FORMATS {
        assert!(bound < 1 << 24);
        for seed in 0..200 {
            let (row, _) = random_row(format, 1, seed);
            let group = crate::quant::with_format!(format,
                B => B::unpack(&B::blocks(&row)[0], B::GROUPS - 1),
                F => panic!("{}", F::FORMAT.name()), _ => panic!());
            let x = group.q.map(|q| 127 * q.signum() as i8);
            let integer = integer_dot(&group.q, &x);
            assert!(integer <= bound, "{}: {integer}", format.name());
        }
    }
}

/// The order of the float operations, spelled out for the format with two float scales.
#[test]
fn each_half_has_a_scale_of_its_own() {
    let (row, _) = random_row(Format::NVFP4, 3, 3);
    let x = random_activations(6, 4);
    let mut sum = 0f32;
    for (group, x) in x.iter().enumerate() {
        let block = &NVFP4::blocks(&row)[group / 2];
        let Group { q, scales, .. } = NVFP4::unpack(block, group % 2);
        for (half, scale) in scales.into_iter().enumerate() {
            let products = (16 * half..16 * half + 16).map(|i| i32::from(q[i]) * i32::from(x.q[i]));
            let integer: i32 = products.sum();
            sum = (integer as f32).mul_add(scale * x.scale, sum);
        }
    }
    assert_eq!(
        dot_row::<Soft>(Format::NVFP4, &row, &x).to_bits(),
        sum.to_bits()
    );
    assert_eq!(
        dot_row::<Hard>(Format::NVFP4, &row, &x).to_bits(),
        sum.to_bits()
    );
}

/// The ends of 8-bit scales, which have rules of their own.
#[test]
fn scales_of_all_bits_are_finite() {
    for bits in 0..=255u8 {
        let mut block = [0x11; 17];
        block[0] = bits;
        let mut values = [0.0; GROUP];
        decode(Format::MXFP4, &block, &mut values).unwrap();
        // The code 1 is a half, the code 2 is 1.
        assert_eq!(f64::from(values[0]), 2f64.powi(i32::from(bits) - 128));
        let mut block = [0x22; 36];
        block[..4].fill(bits);
        let mut values = [0.0; 2 * GROUP];
        decode(Format::NVFP4, &block, &mut values).unwrap();
        let expected = match bits {
            0x7f => 0.0,
            _ => small_float(usize::from(bits & 0x7f), 4, 3),
        };
        assert_eq!(f64::from(values[63]), expected);
    }
    let e = decode(Format::Q2_0, &[0; 18], &mut [0.0; 32]).unwrap_err();
    assert_eq!(e.code(), Code::InvalidArgument);
}
