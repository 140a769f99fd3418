//! 512-bit vectors (Skylake-X, Zen 4 and later), with or without VNNI, and with VBMI besides.

pub(super) mod vbmi;

use std::arch::x86_64::*;

use super::avx2::{sum_halves, sums};
use super::simd::{self, Points, Rows, Simd};
use crate::quant::{self, Activation, GROUP};

/// Proof of AVX-512 F, BW, DQ, VL and, if so, VNNI and VBMI: made only inside functions that are
/// compiled with them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx512<const VNNI: bool, const VBMI: bool>(());

impl<const VNNI: bool, const VBMI: bool> Avx512<VNNI, VBMI> {
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
        // SAFETY: a value of `Avx512` proves the features.
        unsafe { $call }
    };
}

/// A count for shifts by a value.
#[inline(always)]
fn count(bits: u32) -> __m128i {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_cvtsi32_si128(bits as i32) }
}

impl<const VNNI: bool, const VBMI: bool> Avx512<VNNI, VBMI> {
    /// 16 bytes of rows e, 4 + e, 8 + e and 12 + e.
    #[inline(always)]
    fn quarter(self, start: *const u8, stride: usize, e: usize) -> __m512i {
        let row = |r: usize| start.wrapping_add(r * stride).cast::<__m128i>();
        // SAFETY: the features are proven; `Rows::address` has checked that 16 bytes of each of
        // its 16 rows can be read from `start` on.
        unsafe {
            let a = _mm512_castsi128_si512(_mm_loadu_si128(row(e)));
            let a = _mm512_inserti32x4::<1>(a, _mm_loadu_si128(row(e + 4)));
            let a = _mm512_inserti32x4::<2>(a, _mm_loadu_si128(row(e + 8)));
            _mm512_inserti32x4::<3>(a, _mm_loadu_si128(row(e + 12)))
        }
    }
}

impl<const VNNI: bool, const VBMI: bool> Avx512<VNNI, VBMI> {
    /// Four of [`Simd::points`], looked up in registers or gathered. (No closure: those have no
    /// features, and are not inlined.)
    #[inline(always)]
    fn points4<const N: usize>(
        self,
        points: &Points<N>,
        low: __m512i,
        high: __m512i,
        in_registers: bool,
    ) -> [__m512i; 4] {
        match in_registers {
            true => vbmi::points(self, points, low, high),
            false => simd::gathered(self, points, low, high),
        }
    }
}

impl<const VNNI: bool, const VBMI: bool> Simd for Avx512<VNNI, VBMI> {
    const LANES: usize = 16;
    type Int = __m512i;
    type Float = __m512;
    type Pairs = __m512i;
    const PAIRS: bool = !VNNI;

    #[inline(always)]
    fn splat(self, x: u32) -> __m512i {
        cpu!(_mm512_set1_epi32(x as i32))
    }

    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        cpu!(_mm512_and_si512(a, b))
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        cpu!(_mm512_or_si512(a, b))
    }

    #[inline(always)]
    fn xor(self, a: __m512i, b: __m512i) -> __m512i {
        cpu!(_mm512_xor_si512(a, b))
    }

    #[inline(always)]
    fn shl(self, a: __m512i, bits: u32) -> __m512i {
        cpu!(_mm512_sll_epi32(a, count(bits)))
    }

    #[inline(always)]
    fn shr(self, a: __m512i, bits: u32) -> __m512i {
        cpu!(_mm512_srl_epi32(a, count(bits)))
    }

    #[inline(always)]
    fn sra(self, a: __m512i, bits: u32) -> __m512i {
        cpu!(_mm512_sra_epi32(a, count(bits)))
    }

    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        cpu!(_mm512_add_epi32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512i, b: __m512i) -> __m512i {
        cpu!(_mm512_sub_epi32(a, b))
    }

    #[inline(always)]
    fn add_bytes(self, a: __m512i, b: __m512i) -> __m512i {
        cpu!(_mm512_add_epi8(a, b))
    }

    #[inline(always)]
    fn mul_halves(self, a: __m512i, b: __m512i) -> __m512i {
        cpu!(_mm512_mullo_epi16(a, b))
    }

    #[inline(always)]
    fn equal_bytes(self, a: __m512i, b: __m512i) -> __m512i {
        cpu!(_mm512_movm_epi8(_mm512_cmpeq_epi8_mask(a, b)))
    }

    #[inline(always)]
    fn shuffle(self, a: __m512i, from: [u8; 4]) -> __m512i {
        let index = u32::from_le_bytes(from);
        cpu!({
            let lanes = _mm512_set4_epi32(0x0c0c_0c0c, 0x0808_0808, 0x0404_0404, 0);
            _mm512_shuffle_epi8(a, _mm512_add_epi8(lanes, _mm512_set1_epi32(index as i32)))
        })
    }

    #[inline(always)]
    fn lookup(self, table: [i8; 16], a: __m512i) -> __m512i {
        // SAFETY: the features are proven; 16 bytes are read from 16.
        let table = unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())) };
        cpu!(_mm512_shuffle_epi8(table, a))
    }

    #[inline(always)]
    fn mirror(self, a: __m512i, bits: __m512i, mask: u32, total: u8) -> __m512i {
        let mask = self.splat(mask);
        cpu!({
            let chosen = _mm512_test_epi8_mask(bits, mask);
            _mm512_mask_sub_epi8(a, chosen, _mm512_set1_epi8(total as i8), a)
        })
    }

    #[inline(always)]
    fn gather<const N: usize>(self, table: &[u32; N], a: __m512i) -> __m512i {
        const { assert!(N.is_power_of_two()) }
        let index = self.and(a, self.splat(N as u32 - 1));
        // SAFETY: the features are proven; indices are below the table's length.
        unsafe { _mm512_i32gather_epi32::<4>(index, table.as_ptr().cast()) }
    }

    #[inline(always)]
    fn points<const N: usize>(
        self,
        points: &Points<N>,
        low: [__m512i; 2],
        high: __m512i,
    ) -> [__m512i; 8] {
        // Of 512, every other four are gathered, which keeps other parts of the CPU busy.
        let [a, b, c, d] = self.points4(points, low[0], high, VBMI);
        let [e, f, g, h] = self.points4(points, low[1], self.shr(high, 4), VBMI && N == 256);
        [a, b, c, d, e, f, g, h]
    }

    #[inline(always)]
    fn to_float(self, a: __m512i) -> __m512 {
        cpu!(_mm512_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn bits_to_float(self, a: __m512i) -> __m512 {
        cpu!(_mm512_castsi512_ps(a))
    }

    #[inline(always)]
    fn half_to_float(self, a: __m512i) -> __m512 {
        cpu!(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)))
    }

    #[inline(always)]
    fn splat_float(self, x: f32) -> __m512 {
        cpu!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> __m512 {
        assert!(x.len() >= Self::LANES, "a vector of values");
        // SAFETY: the features are proven; the length has just been checked.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }

    #[inline(always)]
    fn load_bytes(self, x: &[[u8; 4]]) -> __m512 {
        assert!(x.len() >= Self::LANES, "a vector of values");
        // SAFETY: the features are proven; the length has just been checked.
        unsafe { _mm512_loadu_ps(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_f16(self, x: &[[u8; 2]]) -> __m512 {
        assert!(x.len() >= Self::LANES, "a vector of values");
        // SAFETY: the features are proven; the length has just been checked.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[[u8; 2]]) -> __m512 {
        assert!(x.len() >= Self::LANES, "a vector of values");
        // SAFETY: the features are proven; the length has just been checked.
        unsafe {
            let halves = _mm256_loadu_si256(x.as_ptr().cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
        }
    }

    #[inline(always)]
    fn load_i8(self, x: &[u8]) -> __m512 {
        assert!(x.len() >= Self::LANES, "a vector of values");
        // SAFETY: the features are proven; the length has just been checked.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
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
    fn store(self, a: __m512, out: &mut [f32]) {
        assert!(out.len() >= Self::LANES, "room for a vector");
        // SAFETY: the features are proven; the length has just been checked.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), a) }
    }

    // The instructions return their second operand unless the first is larger, or smaller.
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_max_ps(b, a))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_min_ps(b, a))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        cpu!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn columns(self, rows: &Rows<'_>, at: usize) -> [__m512i; 4] {
        let (start, stride) = (rows.address(at, 16), rows.stride());
        let a = self.quarter(start, stride, 0);
        let b = self.quarter(start, stride, 1);
        let c = self.quarter(start, stride, 2);
        let d = self.quarter(start, stride, 3);
        cpu!({
            let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
            let (ab2, cd2) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(ab, cd),
                _mm512_unpackhi_epi64(ab, cd),
                _mm512_unpacklo_epi64(ab2, cd2),
                _mm512_unpackhi_epi64(ab2, cd2),
            ]
        })
    }

    #[inline(always)]
    fn words(self, rows: &Rows<'_>, at: usize) -> __m512i {
        let start = rows.address(at, 4);
        let stride = rows.stride() as i32;
        // SAFETY: the features are proven; `Rows` has checked that four bytes of each of its 16
        // rows can be read from `start` on, and that the offsets fit.
        unsafe {
            let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            let offsets = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(stride));
            _mm512_i32gather_epi32::<1>(offsets, start.cast())
        }
    }

    #[inline(always)]
    fn start_signed(self, x: &Activation) -> __m512i {
        cpu!(_mm512_set1_epi32(if VNNI { x.start128 } else { 0 }))
    }

    /// With VNNI unsigned, by adding 128.
    #[inline(always)]
    fn signed(self, a: __m512i) -> __m512i {
        match VNNI {
            true => cpu!(_mm512_xor_si512(a, _mm512_set1_epi8(-128))),
            false => a,
        }
    }

    #[inline(always)]
    fn dot(self, acc: __m512i, weights: __m512i, x: u32) -> __m512i {
        let x = self.splat(x);
        if VNNI {
            return cpu!(_mm512_dpbusd_epi32(acc, weights, x));
        }
        cpu!({
            // Weights without sign by activations with both: pairs stay within 2 * 128 * 127.
            let negative = _mm512_movepi8_mask(weights);
            let x = _mm512_mask_sub_epi8(x, negative, _mm512_setzero_si512(), x);
            let pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(weights), x);
            self.join_pairs(acc, pairs)
        })
    }

    #[inline(always)]
    fn no_pairs(self) -> __m512i {
        self.splat(0)
    }

    #[inline(always)]
    fn add_pairs(self, sums: __m512i, weights: __m512i, x: u32) -> __m512i {
        let x = self.splat(x);
        cpu!(_mm512_add_epi16(sums, _mm512_maddubs_epi16(weights, x)))
    }

    #[inline(always)]
    fn join_pairs(self, acc: __m512i, sums: __m512i) -> __m512i {
        cpu!(_mm512_add_epi32(
            acc,
            _mm512_madd_epi16(sums, _mm512_set1_epi16(1))
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
fn quantize_row<const VNNI: bool>(
    v: Avx512<VNNI, false>,
    x: &[f32],
    out: &mut [Activation],
) -> bool {
    let mut finite = true;
    for (x, out) in x.as_chunks::<GROUP>().0.iter().zip(out) {
        let (a, b) = (v.load(&x[..16]), v.load(&x[16..]));
        let largest = cpu!({
            let sign = _mm512_set1_epi32(i32::MIN);
            let a = _mm512_andnot_si512(sign, _mm512_castps_si512(a));
            let b = _mm512_andnot_si512(sign, _mm512_castps_si512(b));
            _mm512_reduce_max_epu32(_mm512_max_epu32(a, b))
        });
        let Some((inverse, scale)) = quant::scales(largest) else {
            finite &= quant::is_finite(largest);
            *out = Activation::default();
            continue;
        };
        let mut q = [0; GROUP];
        // SAFETY: the features are proven; 16 bytes are written to each half of 32.
        unsafe {
            let inverse = _mm512_set1_ps(inverse);
            let (a, b) = (_mm512_mul_ps(a, inverse), _mm512_mul_ps(b, inverse));
            let low = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a));
            let high = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(b));
            _mm_storeu_si128(q.as_mut_ptr().cast(), low);
            _mm_storeu_si128(q[16..].as_mut_ptr().cast(), high);
        }
        // SAFETY: AVX-512 has AVX2.
        *out = Activation::with_sums(q, scale, unsafe { sums(&q) });
    }
    finite
}

/// Without VNNI.
pub(super) mod plain {
    crate::kernel::instance::instance!(
        Isa::Avx512,
        crate::float::Hard,
        super::Avx512<false, false>,
        panels [3, 2],
        floats [1, 6, 4],
        attention [4],
        "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2"
    );
}

/// With VNNI (Cascade Lake, Zen 4 and later).
pub(super) mod vnni {
    crate::kernel::instance::instance!(
        Isa::Avx512Vnni,
        crate::float::Hard,
        super::Avx512<true, false>,
        panels [3, 4],
        floats [1, 6, 4],
        attention [4],
        "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c,bmi1,bmi2"
    );
}
