//! With VBMI and BITALG (Ice Lake, Zen 4 and later): lookups in tables of bytes in place of gathers,
//! and masks made of bits at any places. The other formats are those of VNNI.

use std::arch::x86_64::*;

use super::{Avx512, vnni};
use crate::kernel::panel::{self, Unpack};
use crate::kernel::simd::{Points, Simd};
use crate::kernel::{Functions, Input, Isa, Kernels};
use crate::quant::{Format, GROUP, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, Q1_0};
use crate::team::Tile;

pub static KERNELS: Kernels = Kernels {
    isa: Isa::Avx512Vbmi,
    functions: Functions {
        matmul,
        ..vnni::KERNELS.functions
    },
};

/// # Safety
/// The CPU has the features.
unsafe fn matmul(
    format: Format,
    weights: &[u8],
    x: &Input<'_>,
    next: &[u8],
    out: &mut Tile<'_, f32>,
) {
    // SAFETY: the features are the caller's promise; VNNI is one of them.
    unsafe {
        match format {
            Format::IQ2_XXS => blocks::<IQ2_XXS>(weights, x, next, out),
            Format::IQ2_XS => blocks::<IQ2_XS>(weights, x, next, out),
            Format::IQ2_S => blocks::<IQ2_S>(weights, x, next, out),
            Format::IQ3_XXS => blocks::<IQ3_XXS>(weights, x, next, out),
            Format::IQ3_S => blocks::<IQ3_S>(weights, x, next, out),
            Format::Q1_0 => blocks::<Q1_0>(weights, x, next, out),
            _ => (vnni::KERNELS.functions.matmul)(format, weights, x, next, out),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512bitalg")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2")]
#[inline(never)]
fn blocks<B: Unpack>(weights: &[u8], x: &Input<'_>, next: &[u8], out: &mut Tile<'_, f32>) {
    let groups = x.columns / GROUP;
    let x = &x.quants[out.row_range().start * groups..];
    // SAFETY: this function is compiled with the features.
    let vectors = unsafe { Avx512::<true, true>::new() };
    panel::matmul::<_, B, 3, 4>(vectors, weights, x, (groups, next), out)
}

/// Where bits 0 to 3 of two rows are in 64.
const FOUR_OF_TWO_ROWS: [u8; 8] = [0, 1, 2, 3, 32, 33, 34, 35];
/// Where the halves of two bytes begin, the even ones first, and those of the next two.
const HALVES_OF_FOUR: [u8; 8] = [0, 8, 4, 12, 16, 24, 20, 28];
/// Bytes 0 and 1 of four rows, each of two rows, then of the other two; then bytes 2 and 3.
const PAIRS_OF_ROWS: [u8; 16] = [0, 4, 1, 5, 8, 12, 9, 13, 2, 6, 3, 7, 10, 14, 11, 15];
/// The lowest byte of each of these rows, and the bit in it that belongs to the byte.
const TOPS_OF_ROWS: [u8; 16] = [0, 4, 0, 4, 8, 12, 8, 12, 0, 4, 0, 4, 8, 12, 8, 12];
const TOPS: [u8; 16] = [1, 1, 2, 2, 1, 1, 2, 2, 4, 4, 8, 8, 4, 4, 8, 8];

/// [`Simd::mirror_columns`]: the bits of two rows are gathered to be the mask of eight bytes.
#[inline(always)]
pub(super) fn mirror_columns<const VNNI: bool, const VBMI: bool>(
    _: Avx512<VNNI, VBMI>,
    q: &mut [__m512i; 8],
    bits: __m512i,
    total: u8,
) {
    for j in 0..8 {
        let from = each8(FOUR_OF_TWO_ROWS.map(|bit| bit + 4 * j as u8));
        // SAFETY: the vectors prove the features where VBMI is true, and only then this is called.
        q[j] = unsafe {
            let chosen = _mm512_bitshuffle_epi64_mask(bits, from);
            _mm512_mask_sub_epi8(q[j], chosen, _mm512_set1_epi8(total as i8), q[j])
        };
    }
}

/// [`Simd::points`]: the codes of two columns at once are looked up in registers, and then spread.
#[inline(always)]
pub(super) fn points<const VNNI: bool, const VBMI: bool, const N: usize>(
    v: Avx512<VNNI, VBMI>,
    points: &Points<N>,
    low: __m512i,
    high: __m512i,
) -> [__m512i; 4] {
    const { assert!(N == 256 || N == 512) }
    // SAFETY: as above.
    unsafe {
        let number = _mm512_shuffle_epi8(low, each16(PAIRS_OF_ROWS));
        let eighth = _mm512_movepi8_mask(number);
        let tops = _mm512_shuffle_epi8(high, each16(TOPS_OF_ROWS));
        let ninth = _mm512_test_epi8_mask(tops, each16(TOPS));
        let look_up = |codes: &[u8; N]| {
            let table = |i: usize| load(&codes[64 * i..]);
            let pair = |i| _mm512_permutex2var_epi8(table(i), number, table(i + 1));
            let half = |i| _mm512_mask_blend_epi8(eighth, pair(i), pair(i + 2));
            match N {
                256 => half(0),
                _ => _mm512_mask_blend_epi8(ninth, half(0), half(4)),
            }
        };
        let (even, odd) = (look_up(&points.codes[0]), look_up(&points.codes[1]));
        // Points of two rows and two numbers in 64 bits; of a byte the lower half counts then.
        let spread = |codes, start| {
            let from = each8(HALVES_OF_FOUR.map(|bit| bit + start));
            v.lookup(points.values, _mm512_multishift_epi64_epi8(from, codes))
        };
        let (some, others) = (
            _mm512_unpacklo_epi8(even, odd),
            _mm512_unpackhi_epi8(even, odd),
        );
        [
            spread(some, 0),
            spread(some, 32),
            spread(others, 0),
            spread(others, 32),
        ]
    }
}

/// The same eight bytes everywhere.
#[inline(always)]
fn each8(bytes: [u8; 8]) -> __m512i {
    // SAFETY: whoever calls this has AVX-512.
    unsafe { _mm512_set1_epi64(i64::from_le_bytes(bytes)) }
}

/// The same 16 bytes everywhere.
#[inline(always)]
fn each16(bytes: [u8; 16]) -> __m512i {
    // SAFETY: whoever calls this has AVX-512; 16 bytes are read from 16.
    unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(bytes.as_ptr().cast())) }
}

/// The first 64 bytes.
#[inline(always)]
fn load(bytes: &[u8]) -> __m512i {
    assert!(bytes.len() >= 64, "a vector of bytes");
    // SAFETY: whoever calls this has AVX-512; the length has just been checked.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}
