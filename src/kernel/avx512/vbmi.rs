//! With VBMI (Ice Lake, Zen 4 and later): lookups in tables of bytes in place of gathers. Formats that
//! do not become faster are those of VNNI.

use std::arch::x86_64::*;

use super::{Avx512, vnni};
use crate::kernel::panel::{self, Unpack};
use crate::kernel::simd::{Points, Simd};
use crate::kernel::{Functions, Input, Isa, Kernels};
use crate::quant::{Format, GROUP, IQ2_XXS, IQ3_S, IQ3_XXS};
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
            Format::IQ3_XXS => blocks::<IQ3_XXS>(weights, x, next, out),
            Format::IQ3_S => blocks::<IQ3_S>(weights, x, next, out),
            _ => (vnni::KERNELS.functions.matmul)(format, weights, x, next, out),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2")]
#[inline(never)]
fn blocks<B: Unpack>(weights: &[u8], x: &Input<'_>, next: &[u8], out: &mut Tile<'_, f32>) {
    let groups = x.columns / GROUP;
    let x = &x.quants[out.row_range().start * groups..];
    // SAFETY: this function is compiled with the features.
    let vectors = unsafe { Avx512::<true, true>::new() };
    panel::matmul::<_, B, 3, 4>(vectors, weights, x, (groups, next), out)
}

/// Eight places in 64 bits, `more` bits behind these: a byte each.
const fn places(bits: [u8; 8], more: u8) -> i64 {
    i64::from_le_bytes(bits) + 0x0101_0101_0101_0101 * more as i64
}

/// Where the halves of two bytes begin, the even ones first, and those of the next two; then the same
/// of the other four bytes.
const HALVES_OF_FOUR: [i64; 2] = [
    places([0, 8, 4, 12, 16, 24, 20, 28], 0),
    places([0, 8, 4, 12, 16, 24, 20, 28], 32),
];
/// Bytes 0 and 1 of four rows, each of two rows, then of the other two; then bytes 2 and 3.
const PAIRS_OF_ROWS: [u8; 16] = [0, 4, 1, 5, 8, 12, 9, 13, 2, 6, 3, 7, 10, 14, 11, 15];
/// The lowest byte of each of these rows, and the bit in it that belongs to the byte.
const TOPS_OF_ROWS: [u8; 16] = [0, 4, 0, 4, 8, 12, 8, 12, 0, 4, 0, 4, 8, 12, 8, 12];
const TOPS: [u8; 16] = [1, 1, 2, 2, 1, 1, 2, 2, 4, 4, 8, 8, 4, 4, 8, 8];

/// Four of [`Simd::points`]: the codes of two columns at once are looked up in registers, and then spread.
#[inline(always)]
pub(super) fn points<const VNNI: bool, const VBMI: bool, const N: usize>(
    v: Avx512<VNNI, VBMI>,
    points: &Points<N>,
    low: __m512i,
    high: __m512i,
) -> [__m512i; 4] {
    let mut q = [low; 4];
    // SAFETY: `v` proves the features where VBMI is true, and only then this is called.
    unsafe {
        let number = _mm512_shuffle_epi8(low, each16(PAIRS_OF_ROWS));
        let tops = _mm512_shuffle_epi8(high, each16(TOPS_OF_ROWS));
        let ninth = _mm512_test_epi8_mask(tops, each16(TOPS));
        let even = look_up(&points.codes[0], number, ninth);
        let odd = look_up(&points.codes[1], number, ninth);
        // Points of two rows and two numbers in 64 bits; of a byte the lower half counts then.
        let both = [
            _mm512_unpacklo_epi8(even, odd),
            _mm512_unpackhi_epi8(even, odd),
        ];
        for j in 0..4 {
            let from = _mm512_set1_epi64(HALVES_OF_FOUR[j % 2]);
            let codes = _mm512_multishift_epi64_epi8(from, both[j / 2]);
            q[j] = match points.is_even {
                true => {
                    let codes = v.and(codes, v.splat(0x0f0f_0f0f));
                    v.or(codes, _mm512_set1_epi8(points.values[0]))
                }
                false => v.lookup(points.values, codes),
            };
        }
    }
    q
}

/// The elements of a table of `N` bytes, 256 or 512; `ninth` says in which half of 512 they are.
///
/// # Safety
/// The CPU has VBMI.
#[inline(always)]
unsafe fn look_up<const N: usize>(table: &[u8; N], number: __m512i, ninth: u64) -> __m512i {
    const { assert!(N == 256 || N == 512) }
    let mut quarters = [number; 4];
    // SAFETY: VBMI is the caller's promise; 64 bytes are read from so many.
    unsafe {
        let (parts, eighth) = (table.as_chunks::<64>().0, _mm512_movepi8_mask(number));
        for i in 0..N / 128 {
            let a = _mm512_loadu_si512(parts[2 * i].as_ptr().cast());
            let b = _mm512_loadu_si512(parts[2 * i + 1].as_ptr().cast());
            quarters[i] = _mm512_permutex2var_epi8(a, number, b);
        }
        let [a, b, c, d] = quarters;
        let first = _mm512_mask_blend_epi8(eighth, a, b);
        match N {
            256 => first,
            _ => _mm512_mask_blend_epi8(ninth, first, _mm512_mask_blend_epi8(eighth, c, d)),
        }
    }
}

/// The same 16 bytes everywhere.
#[inline(always)]
fn each16(bytes: [u8; 16]) -> __m512i {
    // SAFETY: whoever calls this has AVX-512; 16 bytes are read from 16.
    unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(bytes.as_ptr().cast())) }
}
