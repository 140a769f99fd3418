//! Random numbers as a pure function of (seed, step, draw): no state to save, and no order of calls
//! that could show. Whoever draws for the same token with the same seed draws the same number,
//! whatever was drafted, batched, paused or restored in between.
//!
//! The function is Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy
//! as 1, 2, 3", SC 2011): ten rounds of multiplication and exclusive or over a 128-bit counter with
//! a 64-bit key. It passes the statistical batteries of the paper.

use std::{
    hash::{BuildHasher, RandomState},
    process,
    time::SystemTime,
};

/// The random numbers of one step (for example one generated token) under a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Random {
    /// The user's seed.
    pub seed: u64,
    /// What is being drawn for: the position of the token in its timeline.
    pub step: u64,
}

impl Random {
    /// 64 random bits: number `draw` of this step.
    pub fn bits(self, draw: u32) -> u64 {
        let counter = [self.step as u32, (self.step >> 32) as u32, draw, 0];
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        let [a, b, _, _] = philox4x32(counter, key);
        u64::from(a) | u64::from(b) << 32
    }

    /// Uniform in [0, 1): a multiple of 2^-24.
    pub fn unit_f32(self, draw: u32) -> f32 {
        (self.bits(draw) >> 40) as f32 / (1 << 24) as f32
    }

    /// Uniform in [0, 1): a multiple of 2^-53.
    pub fn unit_f64(self, draw: u32) -> f64 {
        (self.bits(draw) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in (0, 1]: never 0, so its logarithm is finite.
    pub fn positive_f32(self, draw: u32) -> f32 {
        ((self.bits(draw) >> 40) + 1) as f32 / (1 << 24) as f32
    }

    /// Uniform in (0, 1]: never 0, so its logarithm is finite.
    pub fn positive_f64(self, draw: u32) -> f64 {
        ((self.bits(draw) >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}

/// A seed that differs from call to call, for users who give none. Not for cryptography.
///
/// The standard library keys its hash maps with random bytes of the operating system, once per
/// thread; hashing with such a key gives them out without a dependency. The process id and the time
/// keep a forked child from repeating its parent.
pub fn entropy_seed() -> u64 {
    RandomState::new().hash_one((process::id(), SystemTime::now()))
}

fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let left = u64::from(counter[0]) * 0xd251_1f53;
        let right = u64::from(counter[2]) * 0xcd9e_8d57;
        counter = [
            (right >> 32) as u32 ^ counter[1] ^ key[0],
            right as u32,
            (left >> 32) as u32 ^ counter[3] ^ key[1],
            left as u32,
        ];
        // The golden ratio and sqrt(3) - 1, as fractions of 2^32.
        key[0] = key[0].wrapping_add(0x9e37_79b9);
        key[1] = key[1].wrapping_add(0xbb67_ae85);
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that the authors publish with Random123.
    #[test]
    fn known_answers_of_the_authors() {
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        for (counter, key, expected) in [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [!0; 4],
                [!0; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                pi,
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox4x32(counter, key), expected);
        }
    }

    #[test]
    fn units_stay_in_their_intervals_and_are_even() {
        let (mut sum, mut buckets) = (0.0, [0; 16]);
        for step in 0..20_000 {
            let random = Random { seed: 7, step };
            for draw in 0..4 {
                let x = random.unit_f64(draw);
                assert!((0.0..1.0).contains(&x) && (0.0..1.0).contains(&random.unit_f32(draw)));
                assert!(random.positive_f32(draw) > 0.0 && random.positive_f32(draw) <= 1.0);
                assert!((random.positive_f64(draw) - x - 2f64.powi(-53)).abs() < 1e-15);
                sum += x;
                buckets[(x * 16.0) as usize] += 1;
            }
        }
        assert!(
            (sum / 80_000.0 - 0.5f64).abs() < 0.005,
            "mean {}",
            sum / 80_000.0
        );
        assert!(
            buckets.iter().all(|&n| (4_700..5_300).contains(&n)),
            "{buckets:?}"
        );
    }

    #[test]
    fn every_part_of_the_key_matters() {
        let base = Random { seed: 1, step: 2 };
        let others = [
            Random {
                seed: 1 << 40,
                step: 2,
            }
            .bits(3),
            Random {
                seed: 1,
                step: 1 << 40,
            }
            .bits(3),
            base.bits(4),
            Random { seed: 2, step: 1 }.bits(3),
        ];
        assert!(others.iter().all(|&bits| bits != base.bits(3)));
        assert_eq!(base.bits(3), Random { seed: 1, step: 2 }.bits(3));
        assert_ne!(entropy_seed(), entropy_seed());
    }
}
