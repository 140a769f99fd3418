//! 256-bit vectors and FMA (x86-64-v3: Haswell, Zen and later), with or without AVX-VNNI.

use std::arch::x86_64::*;

use super::simd::{Rows, Simd};
use crate::quant::{self, Activation, GROUP};

/// Proof of AVX2, FMA, F16C and, if so, AVX-VNNI: made only inside functions that are compiled with
/// them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2<const VNNI: bool>(());

impl<const VNNI: bool> Avx2<VNNI> {
    /// # Safety
    /// The CPU has the features.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        Self(())
    }
}

/// Calls intrinsics whose only demand is the CPU's features.
macro_rules! cpu {
    ($call:expr) => {
        // SAFETY: a value of `Avx2` proves the features.
        unsafe { $call }
    };
}

/// A count for shifts by a value.
#[inline(always)]
fn count(bits: u32) -> __m128i {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_cvtsi32_si128(bits as i32) }
}

/// The rest of the tree of [`crate::float::sum_lanes`], from 8 lanes on.
///
/// # Safety
/// The CPU has AVX.
#[inline(always)]
pub(super) unsafe fn sum_halves(sums: __m256) -> f32 {
    // SAFETY: AVX is the caller's promise.
    unsafe {
        let high = _mm256_extractf128_ps::<1>(sums);
        let s4 = _mm_add_ps(_mm256_castps256_ps128(sums), high);
        let s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
        _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)))
    }
}

/// The sums of the first and the last 16 integers.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn sums(q: &[i8; GROUP]) -> [i32; 2] {
    // SAFETY: AVX2 is the caller's promise; 32 bytes are read from 32.
    unsafe {
        // Made unsigned by adding 128, eight bytes are summed at once.
        let q = _mm256_loadu_si256(q.as_ptr().cast());
        let q = _mm256_xor_si256(q, _mm256_set1_epi8(-128));
        let s8 = _mm256_sad_epu8(q, _mm256_setzero_si256());
        let s16 = _mm256_add_epi64(s8, _mm256_unpackhi_epi64(s8, s8));
        let first = _mm_cvtsi128_si32(_mm256_castsi256_si128(s16));
        let last = _mm_cvtsi128_si32(_mm256_extracti128_si256::<1>(s16));
        [first - 128 * 16, last - 128 * 16]
    }
}

impl<const VNNI: bool> Avx2<VNNI> {
    /// 16 bytes of rows e and 4 + e.
    #[inline(always)]
    fn quarter(self, start: *const u8, stride: usize, e: usize) -> __m256i {
        let row = |r: usize| start.wrapping_add(r * stride).cast::<__m128i>();
        // SAFETY: the features are proven; `Rows::address` has checked that 16 bytes of each of
        // its 8 rows can be read from `start` on.
        unsafe {
            let a = _mm256_castsi128_si256(_mm_loadu_si128(row(e)));
            _mm256_inserti128_si256::<1>(a, _mm_loadu_si128(row(e + 4)))
        }
    }
}

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    const LANES: usize = 8;
    type Int = __m256i;
    type Float = __m256;
    type Pairs = __m256i;
    const PAIRS: bool = !VNNI;

    #[inline(always)]
    fn splat(self, x: u32) -> __m256i {
        cpu!(_mm256_set1_epi32(x as i32))
    }

    #[inline(always)]
    fn and(self, a: __m256i, b: __m256i) -> __m256i {
        cpu!(_mm256_and_si256(a, b))
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        cpu!(_mm256_or_si256(a, b))
    }

    #[inline(always)]
    fn xor(self, a: __m256i, b: __m256i) -> __m256i {
        cpu!(_mm256_xor_si256(a, b))
    }

    #[inline(always)]
    fn shl(self, a: __m256i, bits: u32) -> __m256i {
        cpu!(_mm256_sll_epi32(a, count(bits)))
    }

    #[inline(always)]
    fn shr(self, a: __m256i, bits: u32) -> __m256i {
        cpu!(_mm256_srl_epi32(a, count(bits)))
    }

    #[inline(always)]
    fn sra(self, a: __m256i, bits: u32) -> __m256i {
        cpu!(_mm256_sra_epi32(a, count(bits)))
    }

    #[inline(always)]
    fn add(self, a: __m256i, b: __m256i) -> __m256i {
        cpu!(_mm256_add_epi32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m256i, b: __m256i) -> __m256i {
        cpu!(_mm256_sub_epi32(a, b))
    }

    #[inline(always)]
    fn add_bytes(self, a: __m256i, b: __m256i) -> __m256i {
        cpu!(_mm256_add_epi8(a, b))
    }

    #[inline(always)]
    fn mul_halves(self, a: __m256i, b: __m256i) -> __m256i {
        cpu!(_mm256_mullo_epi16(a, b))
    }

    #[inline(always)]
    fn equal_bytes(self, a: __m256i, b: __m256i) -> __m256i {
        cpu!(_mm256_cmpeq_epi8(a, b))
    }

    #[inline(always)]
    fn shuffle(self, a: __m256i, from: [u8; 4]) -> __m256i {
        let index = u32::from_le_bytes(from);
        cpu!({
            let lanes = _mm_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c);
            let lanes = _mm256_broadcastsi128_si256(lanes);
            _mm256_shuffle_epi8(a, _mm256_add_epi8(lanes, _mm256_set1_epi32(index as i32)))
        })
    }

    #[inline(always)]
    fn lookup(self, table: [i8; 16], a: __m256i) -> __m256i {
        // SAFETY: the features are proven; 16 bytes are read from 16.
        let table = unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())) };
        cpu!(_mm256_shuffle_epi8(table, a))
    }

    #[inline(always)]
    fn mirror(self, a: __m256i, bits: __m256i, mask: u32, total: u8) -> __m256i {
        let mask = self.splat(mask);
        cpu!({
            let chosen = _mm256_cmpeq_epi8(_mm256_and_si256(bits, mask), mask);
            // -a is the complement of a plus 1.
            let rest = _mm256_and_si256(chosen, _mm256_set1_epi8(total.wrapping_add(1) as i8));
            _mm256_add_epi8(_mm256_xor_si256(a, chosen), rest)
        })
    }

    #[inline(always)]
    fn gather<const N: usize>(self, table: &[u32; N], a: __m256i) -> __m256i {
        const { assert!(N.is_power_of_two()) }
        let index = self.and(a, self.splat(N as u32 - 1));
        // SAFETY: the features are proven; indices are below the table's length.
        unsafe { _mm256_i32gather_epi32::<4>(table.as_ptr().cast(), index) }
    }

    #[inline(always)]
    fn to_float(self, a: __m256i) -> __m256 {
        cpu!(_mm256_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn bits_to_float(self, a: __m256i) -> __m256 {
        cpu!(_mm256_castsi256_ps(a))
    }

    #[inline(always)]
    fn half_to_float(self, a: __m256i) -> __m256 {
        cpu!({
            // The low halves of each 128 bits, then those of both together.
            let low = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 0, 1, 4, 5, 8, 9, 12, 13);
            let packed = _mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(low));
            let packed = _mm256_permute4x64_epi64::<0b1000>(packed);
            _mm256_cvtph_ps(_mm256_castsi256_si128(packed))
        })
    }

    #[inline(always)]
    fn splat_float(self, x: f32) -> __m256 {
        cpu!(_mm256_set1_ps(x))
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> __m256 {
        assert!(x.len() >= Self::LANES, "a vector of values");
        // SAFETY: the features are proven; the length has just been checked.
        unsafe { _mm256_loadu_ps(x.as_ptr()) }
    }

    #[inline(always)]
    fn load_bytes(self, x: &[[u8; 4]]) -> __m256 {
        assert!(x.len() >= Self::LANES, "a vector of values");
        // SAFETY: the features are proven; the length has just been checked.
        unsafe { _mm256_loadu_ps(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_f16(self, x: &[[u8; 2]]) -> __m256 {
        assert!(x.len() >= Self::LANES, "a vector of values");
        // SAFETY: the features are proven; the length has just been checked.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[[u8; 2]]) -> __m256 {
        assert!(x.len() >= Self::LANES, "a vector of values");
        // SAFETY: the features are proven; the length has just been checked.
        unsafe {
            let halves = _mm_loadu_si128(x.as_ptr().cast());
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
        }
    }

    #[inline(always)]
    fn load_i8(self, x: &[u8]) -> __m256 {
        assert!(x.len() >= Self::LANES, "a vector of values");
        // SAFETY: the features are proven; the length has just been checked.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(x.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn sum_lanes(self, lanes: &[f32; 16]) -> f32 {
        // SAFETY: the features are proven; each half holds 8 values.
        unsafe {
            let low = _mm256_loadu_ps(lanes.as_ptr());
            let high = _mm256_loadu_ps(lanes[8..].as_ptr());
            sum_halves(_mm256_add_ps(low, high))
        }
    }

    #[inline(always)]
    fn store(self, a: __m256, out: &mut [f32]) {
        assert!(out.len() >= Self::LANES, "room for a vector");
        // SAFETY: the features are proven; the length has just been checked.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), a) }
    }

    // The instructions return their second operand unless the first is larger, or smaller.
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        cpu!(_mm256_max_ps(b, a))
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        cpu!(_mm256_min_ps(b, a))
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        cpu!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        cpu!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn columns(self, rows: &Rows<'_>, at: usize) -> [__m256i; 4] {
        let (start, stride) = (rows.address(at, 16), rows.stride());
        let a = self.quarter(start, stride, 0);
        let b = self.quarter(start, stride, 1);
        let c = self.quarter(start, stride, 2);
        let d = self.quarter(start, stride, 3);
        cpu!({
            let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
            let (ab2, cd2) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(ab, cd),
                _mm256_unpackhi_epi64(ab, cd),
                _mm256_unpacklo_epi64(ab2, cd2),
                _mm256_unpackhi_epi64(ab2, cd2),
            ]
        })
    }

    #[inline(always)]
    fn words(self, rows: &Rows<'_>, at: usize) -> __m256i {
        let start = rows.address(at, 4);
        let stride = rows.stride() as i32;
        // SAFETY: the features are proven; `Rows` has checked that four bytes of each of its 8
        // rows can be read from `start` on, and that the offsets fit.
        unsafe {
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let offsets = _mm256_mullo_epi32(lanes, _mm256_set1_epi32(stride));
            _mm256_i32gather_epi32::<1>(start.cast(), offsets)
        }
    }

    #[inline(always)]
    fn start_signed(self, x: &Activation) -> __m256i {
        cpu!(_mm256_set1_epi32(if VNNI { x.start128 } else { 0 }))
    }

    /// With VNNI unsigned, by adding 128.
    #[inline(always)]
    fn signed(self, a: __m256i) -> __m256i {
        match VNNI {
            true => cpu!(_mm256_xor_si256(a, _mm256_set1_epi8(-128))),
            false => a,
        }
    }

    #[inline(always)]
    fn dot(self, acc: __m256i, weights: __m256i, x: u32) -> __m256i {
        let x = self.splat(x);
        if VNNI {
            return cpu!(_mm256_dpbusd_avx_epi32(acc, weights, x));
        }
        cpu!({
            // Weights without sign by activations with both: pairs stay within 2 * 128 * 127.
            let x = _mm256_sign_epi8(x, weights);
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), x);
            self.join_pairs(acc, pairs)
        })
    }

    #[inline(always)]
    fn no_pairs(self) -> __m256i {
        self.splat(0)
    }

    #[inline(always)]
    fn add_pairs(self, sums: __m256i, weights: __m256i, x: u32) -> __m256i {
        let x = self.splat(x);
        cpu!(_mm256_add_epi16(sums, _mm256_maddubs_epi16(weights, x)))
    }

    #[inline(always)]
    fn join_pairs(self, acc: __m256i, sums: __m256i) -> __m256i {
        cpu!(_mm256_add_epi32(
            acc,
            _mm256_madd_epi16(sums, _mm256_set1_epi16(1))
        ))
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: a prefetch reads nothing that the program can see, at any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    fn prefetch_far(self, address: *const u8) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }
}

/// As [`quant::quantize_row`].
#[inline(always)]
fn quantize_row<const VNNI: bool>(v: Avx2<VNNI>, x: &[f32], out: &mut [Activation]) -> bool {
    let mut finite = true;
    for (x, out) in x.as_chunks::<GROUP>().0.iter().zip(out) {
        let parts = [
            v.load(x),
            v.load(&x[8..]),
            v.load(&x[16..]),
            v.load(&x[24..]),
        ];
        let largest = cpu!({
            let magnitude = _mm256_set1_epi32(i32::MAX);
            let mut bits = [_mm256_setzero_si256(); 4];
            for i in 0..4 {
                bits[i] = _mm256_and_si256(_mm256_castps_si256(parts[i]), magnitude);
            }
            let (a, b) = (
                _mm256_max_epu32(bits[0], bits[1]),
                _mm256_max_epu32(bits[2], bits[3]),
            );
            let m8 = _mm256_max_epu32(a, b);
            let m4 = _mm256_extracti128_si256::<1>(m8);
            let m4 = _mm_max_epu32(_mm256_castsi256_si128(m8), m4);
            let m2 = _mm_max_epu32(m4, _mm_unpackhi_epi64(m4, m4));
            let m1 = _mm_max_epu32(m2, _mm_srli_epi64::<32>(m2));
            _mm_cvtsi128_si32(m1) as u32
        });
        let Some((inverse, scale)) = quant::scales(largest) else {
            finite &= quant::is_finite(largest);
            *out = Activation::default();
            continue;
        };
        let mut q = [0; GROUP];
        // SAFETY: the features are proven; 32 bytes are written to 32.
        unsafe {
            let inverse = _mm256_set1_ps(inverse);
            let mut integers = [_mm256_setzero_si256(); 4];
            for i in 0..4 {
                integers[i] = _mm256_cvtps_epi32(_mm256_mul_ps(parts[i], inverse));
            }
            let low = _mm256_packs_epi32(integers[0], integers[1]);
            let high = _mm256_packs_epi32(integers[2], integers[3]);
            // Packing works on halves of 128 bits: four integers each, to be put in order.
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let packed = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
            _mm256_storeu_si256(q.as_mut_ptr().cast(), packed);
        }
        // SAFETY: the features are proven.
        *out = Activation::with_sums(q, scale, unsafe { sums(&q) });
    }
    finite
}

/// Without AVX-VNNI.
pub(super) mod plain {
    crate::kernel::instance::instance!(
        Isa::Avx2,
        crate::float::Hard,
        super::Avx2<false>,
        panels [2, 2],
        floats [2, 3, 2],
        attention [2],
        "avx2,fma,f16c,bmi1,bmi2"
    );
}

/// With AVX-VNNI (Alder Lake, Zen 5 and later).
pub(super) mod vnni {
    crate::kernel::instance::instance!(
        Isa::Avx2Vnni,
        crate::float::Hard,
        super::Avx2<true>,
        panels [3, 2],
        floats [2, 3, 2],
        attention [2],
        "avx2,fma,f16c,bmi1,bmi2,avxvnni"
    );
}
