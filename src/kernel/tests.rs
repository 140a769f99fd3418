//! Every instance against the scalar twin, to the bit, at lengths around every edge.

use super::*;
use crate::random::Random;

mod attention;
mod logits;
mod matmul;
mod recurrence;
mod rows;

const LENGTHS: [usize; 14] = [0, 1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 300];

/// Values of many magnitudes and both signs, zeros among them.
fn floats(seed: u64, len: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    for i in 0..len {
        let random = Random {
            seed,
            step: i as u64,
        };
        let exponent = (random.bits(1) % 24) as i32 - 12;
        let value = (random.unit_f32(0) - 0.5) * 2f32.powi(exponent);
        values.push(if random.bits(2).is_multiple_of(17) {
            0.0
        } else {
            value
        });
    }
    values
}

fn halves(values: &[f32]) -> Vec<[u8; 2]> {
    values
        .iter()
        .map(|&x| crate::float::f16_from_f32(x).to_le_bytes())
        .collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Runs `f` with every instance and demands the scalar one's bits.
fn same(what: &str, f: impl Fn(&Kernels) -> Vec<f32>) {
    let truth = bits(&f(force(Isa::Scalar)));
    for kernels in available() {
        assert_eq!(
            bits(&f(kernels)),
            truth,
            "{what} with {}",
            kernels.isa().name()
        );
    }
}

#[test]
fn what_is_not_finite_is_reported_by_all() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = floats(1, 64);
        x[40] = bad;
        for kernels in available() {
            assert!(!kernels.quantize_row(&x, &mut [Activation::default(); 2]));
            assert!(!kernels.rms_norm(&mut x.clone(), &[1.0; 64], 1e-5));
            assert!(!kernels.layer_norm(&mut x.clone(), &[1.0; 64], 1e-5));
        }
    }
}

#[test]
fn a_wish_is_clamped_to_the_cpu() {
    let names: Vec<_> = available().map(|kernels| kernels.isa().name()).collect();
    assert_eq!(names[0], "scalar");
    for isa in Isa::ALL {
        assert!(force(isa).isa() <= isa);
        assert_eq!(Isa::from_name(isa.name()), Some(isa));
    }
    assert_eq!(Isa::from_name("avx10"), None);
}
