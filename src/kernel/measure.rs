//! What the arithmetic units and the memory of this CPU can do: loops to be timed, for comparison
//! with what the kernels reach.
//!
//! A [`Peak`] repeats one multiply-add on registers, in chains that do not wait for each other; the
//! best instruction of the ISA is looked up when it is made, so running it is safe.

use std::hint::black_box;

use super::{Isa, Kernels};

/// A loop of multiply-adds on registers.
#[derive(Clone, Copy)]
pub struct Peak {
    name: &'static str,
    per_round: u64,
    run: unsafe fn(u64),
}

impl Peak {
    /// The instruction or sequence, such as `fmadd`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs `rounds` rounds; how many multiply-adds that was. On the calling thread.
    pub fn run(&self, rounds: u64) -> u64 {
        // SAFETY: a `Peak` is only made for a CPU that was found to have its features.
        unsafe { (self.run)(rounds) };
        rounds * self.per_round
    }
}

impl std::fmt::Debug for Peak {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Peak").field(&self.name).finish()
    }
}

impl Kernels {
    /// The best dot product of bytes that this CPU has with vectors of this ISA.
    pub fn integer_peak(&self) -> Peak {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::PAIRS_512,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni | Isa::Avx512Vbmi => x86::DOT_512,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::PAIRS_256,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2Vnni => x86::DOT_256,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => arm::PAIRS,
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => arm::DOT,
            _ => plain::INTEGER,
        }
    }

    /// Multiply-add of f32.
    pub fn float_peak(&self) -> Peak {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Vbmi => x86::FLOAT_512,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx2Vnni => x86::FLOAT_256,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDot => arm::FLOAT,
            _ => plain::FLOAT,
        }
    }

    /// Reads all of `memory` once, in order, with vectors of this ISA; returns a checksum.
    pub fn read(&self, memory: &[u64]) -> u64 {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `self` proves the CPU's features.
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Vbmi => unsafe { x86::read_512(memory) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `self` proves the CPU's features.
            Isa::Avx2 | Isa::Avx2Vnni => unsafe { x86::read_256(memory) },
            _ => read(memory),
        }
    }
}

/// Adds the words of `memory` in lanes; compiled for each ISA.
#[inline(always)]
fn read(memory: &[u64]) -> u64 {
    let mut lanes = [0u64; 64];
    let (lines, rest) = memory.as_chunks::<64>();
    for line in lines {
        for (lane, word) in lanes.iter_mut().zip(line) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes
        .iter()
        .chain(rest)
        .fold(0, |sum, word| sum.wrapping_add(*word))
}

/// A loop over `$chains` accumulators: `$step` makes the next value of one of them.
macro_rules! peak {
    ($name:ident, $chains:literal, $accumulator:expr, $a:expr, $b:expr, $step:expr
        $(, $features:literal)?) => {
        $(#[target_feature(enable = $features)])?
        fn $name(rounds: u64) {
            let (a, b) = (black_box($a), black_box($b));
            // Equal chains would be made one.
            let mut sums = black_box([$accumulator; $chains]);
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = $step(*sum, a, b);
                }
            }
            black_box(sums);
        }
    };
}

/// What the compiler makes of plain loops, for any CPU.
mod plain {
    use super::{Peak, black_box};

    pub const INTEGER: Peak = Peak {
        name: "plain multiply-add of i16",
        per_round: 4 * 64,
        run: integer,
    };

    pub const FLOAT: Peak = Peak {
        name: "plain multiply, add of f32",
        per_round: 4 * 16,
        run: float,
    };

    fn integer(rounds: u64) {
        let (a, b) = ([3i16; 64], [5i16; 64]);
        let mut sums = [0i32; 32];
        for _ in 0..4 * rounds {
            let (a, b) = (black_box(&a), black_box(&b));
            for (i, sum) in sums.iter_mut().enumerate() {
                let pair = i32::from(a[2 * i]) * i32::from(b[2 * i])
                    + i32::from(a[2 * i + 1]) * i32::from(b[2 * i + 1]);
                *sum = sum.wrapping_add(pair);
            }
        }
        black_box(sums);
    }

    peak!(
        float,
        4,
        [0f32; 16],
        [0.5f32; 16],
        [0.25f32; 16],
        |sum: [f32; 16], a: [f32; 16], b: [f32; 16]| {
            std::array::from_fn(|i| sum[i] * a[i] + b[i])
        }
    );
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Peak, black_box};
    use std::arch::x86_64::*;

    pub const FLOAT_512: Peak = Peak {
        name: "vfmadd, 512 bits",
        per_round: 16 * 16,
        run: float_512,
    };

    pub const FLOAT_256: Peak = Peak {
        name: "vfmadd, 256 bits",
        per_round: 12 * 8,
        run: float_256,
    };

    pub const DOT_512: Peak = Peak {
        name: "vpdpbusd, 512 bits",
        per_round: 16 * 64,
        run: dot_512,
    };

    pub const PAIRS_512: Peak = Peak {
        name: "vpmaddubsw, vpmaddwd, vpaddd, 512 bits",
        per_round: 16 * 64,
        run: pairs_512,
    };

    pub const DOT_256: Peak = Peak {
        name: "vpdpbusd, 256 bits",
        per_round: 12 * 32,
        run: dot_256,
    };

    pub const PAIRS_256: Peak = Peak {
        name: "vpmaddubsw, vpmaddwd, vpaddd, 256 bits",
        per_round: 12 * 32,
        run: pairs_256,
    };

    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn read_512(memory: &[u64]) -> u64 {
        super::read(memory)
    }

    #[target_feature(enable = "avx2")]
    pub fn read_256(memory: &[u64]) -> u64 {
        super::read(memory)
    }

    peak!(
        float_512,
        16,
        _mm512_setzero_ps(),
        _mm512_set1_ps(0.5),
        _mm512_set1_ps(0.25),
        |sum, a, b| _mm512_fmadd_ps(sum, a, b),
        "avx512f"
    );
    peak!(
        float_256,
        12,
        _mm256_setzero_ps(),
        _mm256_set1_ps(0.5),
        _mm256_set1_ps(0.25),
        |sum, a, b| _mm256_fmadd_ps(sum, a, b),
        "avx2,fma"
    );
    peak!(
        dot_512,
        16,
        _mm512_setzero_si512(),
        _mm512_set1_epi8(3),
        _mm512_set1_epi8(5),
        |sum, a, b| _mm512_dpbusd_epi32(sum, a, b),
        "avx512f,avx512vnni"
    );
    peak!(
        dot_256,
        12,
        _mm256_setzero_si256(),
        _mm256_set1_epi8(3),
        _mm256_set1_epi8(5),
        |sum, a, b| _mm256_dpbusd_avx_epi32(sum, a, b),
        "avx2,avxvnni"
    );
    // What is multiplied changes from round to round: else it would be multiplied once.
    peak!(
        pairs_512,
        16,
        _mm512_setzero_si512(),
        _mm512_set1_epi16(1),
        _mm512_set1_epi8(5),
        |sum, ones, b| {
            let pairs = _mm512_madd_epi16(_mm512_maddubs_epi16(sum, b), ones);
            _mm512_add_epi32(sum, pairs)
        },
        "avx512f,avx512bw"
    );
    peak!(
        pairs_256,
        12,
        _mm256_setzero_si256(),
        _mm256_set1_epi16(1),
        _mm256_set1_epi8(5),
        |sum, ones, b| {
            let pairs = _mm256_madd_epi16(_mm256_maddubs_epi16(sum, b), ones);
            _mm256_add_epi32(sum, pairs)
        },
        "avx2"
    );
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{Peak, black_box};
    use std::arch::aarch64::*;

    pub const FLOAT: Peak = Peak {
        name: "fmla, 128 bits",
        per_round: 24 * 4,
        run: float,
    };

    pub const DOT: Peak = Peak {
        name: "sdot, 128 bits",
        per_round: 24 * 16,
        run: dot,
    };

    pub const PAIRS: Peak = Peak {
        name: "smull, sadalp, 128 bits",
        per_round: 16 * 8,
        run: pairs,
    };

    peak!(
        float,
        24,
        vdupq_n_f32(0.0),
        vdupq_n_f32(0.5),
        vdupq_n_f32(0.25),
        |sum, a, b| vfmaq_f32(sum, a, b),
        "neon"
    );
    peak!(
        dot,
        24,
        vdupq_n_s32(0),
        vdupq_n_s8(3),
        vdupq_n_s8(5),
        |mut sum: int32x4_t, a: int8x16_t, b: int8x16_t| {
            // SAFETY: the caller has `dotprod`; only registers are used. (std's intrinsic for it
            // is not stable.)
            unsafe {
                std::arch::asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum,
                    in(vreg) a, in(vreg) b, options(pure, nomem, nostack));
            }
            sum
        },
        "neon,dotprod"
    );

    // What is multiplied changes from round to round: else it would be multiplied once.
    peak!(
        pairs,
        16,
        vdupq_n_s32(0),
        vdup_n_s8(3),
        vdup_n_s8(5),
        |sum: int32x4_t, a: int8x8_t, b: int8x8_t| {
            let changing = veor_s8(vget_low_s8(vreinterpretq_s8_s32(sum)), a);
            vpadalq_s16(sum, vmull_s8(changing, b))
        },
        "neon"
    );
}

#[cfg(test)]
mod tests {
    use crate::kernel::available;

    #[test]
    fn loops_run_and_reading_sees_every_word() {
        let memory: Vec<u64> = (1..=1000).collect();
        for kernels in available() {
            for peak in [kernels.integer_peak(), kernels.float_peak()] {
                assert!(peak.run(10) >= 10 * 8, "{peak:?}");
            }
            assert_eq!(kernels.read(&memory), 500_500);
            assert_eq!(kernels.read(&memory[1..]), 500_499);
        }
    }
}
