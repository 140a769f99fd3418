//! 128-bit vectors, which every aarch64 CPU has, with or without the dot products of Armv8.4.
//!
//! A panel is 8 rows, two registers: two chains of sums hide the latency of a dot product, and one
//! broadcast of activations serves both.

use std::arch::aarch64::*;
use std::arch::asm;

use super::simd::{Rows, Simd};
use crate::quant::{self, Activation, GROUP};

/// Proof of NEON and, if so, of `sdot`: made only inside functions that are compiled with them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Neon<const DOT: bool>(());

impl<const DOT: bool> Neon<DOT> {
    /// # Safety
    /// The CPU has the features.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        Self(())
    }
}

/// Lanes 0 .. 4 and 4 .. 8.
type Pair<T> = [T; 2];

/// Calls intrinsics whose only demand is the CPU's features.
macro_rules! cpu {
    ($call:expr) => {
        // SAFETY: a value of `Neon` proves the features.
        unsafe { $call }
    };
}

/// The same of both halves.
#[inline(always)]
fn each<A: Copy, T>(a: Pair<A>, f: impl Fn(A) -> T) -> Pair<T> {
    [f(a[0]), f(a[1])]
}

/// The same of the halves of two vectors.
#[inline(always)]
fn each2<A: Copy, B: Copy, T>(a: Pair<A>, b: Pair<B>, f: impl Fn(A, B) -> T) -> Pair<T> {
    [f(a[0], b[0]), f(a[1], b[1])]
}

/// The bytes of a register.
#[inline(always)]
fn bytes(a: uint32x4_t) -> uint8x16_t {
    // SAFETY: NEON is part of every aarch64 CPU that has vectors.
    unsafe { vreinterpretq_u8_u32(a) }
}

/// The register of these bytes.
#[inline(always)]
fn words(a: uint8x16_t) -> uint32x4_t {
    // SAFETY: NEON is part of every aarch64 CPU that has vectors.
    unsafe { vreinterpretq_u32_u8(a) }
}

impl<const DOT: bool> Neon<DOT> {
    /// 16 bytes of four rows from `row` on, transposed: lane r of vector i has bytes 4i .. 4i + 4
    /// of row r.
    #[inline(always)]
    fn quarter(self, start: *const u8, stride: usize, row: usize) -> [uint32x4_t; 4] {
        // SAFETY: `Rows::address` has checked that 16 bytes of each of its 8 rows can be read from
        // `start` on; the features are proven.
        let load = |r: usize| unsafe { words(vld1q_u8(start.wrapping_add((row + r) * stride))) };
        let (a, b, c, d) = (load(0), load(1), load(2), load(3));
        cpu!({
            let wide = |a| vreinterpretq_u64_u32(a);
            let (even, odd) = (wide(vtrn1q_u32(a, b)), wide(vtrn2q_u32(a, b)));
            let (even2, odd2) = (wide(vtrn1q_u32(c, d)), wide(vtrn2q_u32(c, d)));
            [
                vreinterpretq_u32_u64(vtrn1q_u64(even, even2)),
                vreinterpretq_u32_u64(vtrn1q_u64(odd, odd2)),
                vreinterpretq_u32_u64(vtrn2q_u64(even, even2)),
                vreinterpretq_u32_u64(vtrn2q_u64(odd, odd2)),
            ]
        })
    }

    #[inline(always)]
    fn load_halves(self, x: &[[u8; 2]]) -> Pair<uint16x4_t> {
        assert!(x.len() >= Self::LANES, "a vector of values");
        // SAFETY: the features are proven; the length has just been checked.
        let halves = unsafe { vreinterpretq_u16_u8(vld1q_u8(x.as_ptr().cast())) };
        cpu!([vget_low_u16(halves), vget_high_u16(halves)])
    }

    /// The dot products of a register: signed bytes on both sides, exact.
    #[inline(always)]
    fn dot4(self, acc: uint32x4_t, weights: uint32x4_t, x: uint32x4_t) -> uint32x4_t {
        if DOT {
            let mut acc = acc;
            // SAFETY: the feature is proven; only registers are used. (The intrinsic for it is not
            // stable.)
            unsafe {
                asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) acc, in(vreg) weights,
                    in(vreg) x, options(pure, nomem, nostack, preserves_flags));
            }
            return acc;
        }
        cpu!({
            let (w, x) = (vreinterpretq_s8_u32(weights), vreinterpretq_s8_u32(x));
            let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
            let high = vmull_high_s8(w, x);
            // A pair is at most 2 * 128 * 127 < 2^15.
            let pairs = vpaddq_s16(low, high);
            vreinterpretq_u32_s32(vpadalq_s16(vreinterpretq_s32_u32(acc), pairs))
        })
    }
}

impl<const DOT: bool> Simd for Neon<DOT> {
    const LANES: usize = 8;
    type Int = Pair<uint32x4_t>;
    type Float = Pair<float32x4_t>;
    /// Of bytes 0 .. 8 and 8 .. 16 of each register.
    type Pairs = Pair<Pair<int16x8_t>>;
    const PAIRS: bool = !DOT;

    #[inline(always)]
    fn splat(self, x: u32) -> Self::Int {
        [cpu!(vdupq_n_u32(x)); 2]
    }

    #[inline(always)]
    fn and(self, a: Self::Int, b: Self::Int) -> Self::Int {
        each2(a, b, |a, b| cpu!(vandq_u32(a, b)))
    }

    #[inline(always)]
    fn or(self, a: Self::Int, b: Self::Int) -> Self::Int {
        each2(a, b, |a, b| cpu!(vorrq_u32(a, b)))
    }

    #[inline(always)]
    fn xor(self, a: Self::Int, b: Self::Int) -> Self::Int {
        each2(a, b, |a, b| cpu!(veorq_u32(a, b)))
    }

    #[inline(always)]
    fn shl(self, a: Self::Int, bits: u32) -> Self::Int {
        each(a, |a| cpu!(vshlq_u32(a, vdupq_n_s32(bits as i32))))
    }

    #[inline(always)]
    fn shr(self, a: Self::Int, bits: u32) -> Self::Int {
        each(a, |a| cpu!(vshlq_u32(a, vdupq_n_s32(-(bits as i32)))))
    }

    #[inline(always)]
    fn sra(self, a: Self::Int, bits: u32) -> Self::Int {
        each(a, |a| {
            cpu!(vreinterpretq_u32_s32(vshlq_s32(
                vreinterpretq_s32_u32(a),
                vdupq_n_s32(-(bits as i32))
            )))
        })
    }

    #[inline(always)]
    fn add(self, a: Self::Int, b: Self::Int) -> Self::Int {
        each2(a, b, |a, b| cpu!(vaddq_u32(a, b)))
    }

    #[inline(always)]
    fn sub(self, a: Self::Int, b: Self::Int) -> Self::Int {
        each2(a, b, |a, b| cpu!(vsubq_u32(a, b)))
    }

    #[inline(always)]
    fn add_bytes(self, a: Self::Int, b: Self::Int) -> Self::Int {
        each2(a, b, |a, b| words(cpu!(vaddq_u8(bytes(a), bytes(b)))))
    }

    #[inline(always)]
    fn mul_halves(self, a: Self::Int, b: Self::Int) -> Self::Int {
        each2(a, b, |a, b| {
            cpu!(vreinterpretq_u32_u16(vmulq_u16(
                vreinterpretq_u16_u32(a),
                vreinterpretq_u16_u32(b)
            )))
        })
    }

    #[inline(always)]
    fn equal_bytes(self, a: Self::Int, b: Self::Int) -> Self::Int {
        each2(a, b, |a, b| words(cpu!(vceqq_u8(bytes(a), bytes(b)))))
    }

    #[inline(always)]
    fn shuffle(self, a: Self::Int, from: [u8; 4]) -> Self::Int {
        let index = u32::from_le_bytes(from);
        const LANES: [u32; 4] = [0, 0x0404_0404, 0x0808_0808, 0x0c0c_0c0c];
        // SAFETY: the features are proven; 16 bytes are read from 16.
        let lanes = unsafe { vld1q_u32(LANES.as_ptr()) };
        let index = bytes(cpu!(vaddq_u32(lanes, vdupq_n_u32(index))));
        each(a, |a| words(cpu!(vqtbl1q_u8(bytes(a), index))))
    }

    #[inline(always)]
    fn lookup(self, table: [i8; 16], a: Self::Int) -> Self::Int {
        // SAFETY: the features are proven; 16 bytes are read from 16.
        let table = unsafe { vreinterpretq_u8_s8(vld1q_s8(table.as_ptr())) };
        each(a, |a| words(cpu!(vqtbl1q_u8(table, bytes(a)))))
    }

    #[inline(always)]
    fn mirror(self, a: Self::Int, bits: Self::Int, mask: u32, total: u8) -> Self::Int {
        let (mask, total) = cpu!((bytes(vdupq_n_u32(mask)), vdupq_n_u8(total)));
        each2(a, bits, |a, bits| {
            words(cpu!({
                let chosen = vtstq_u8(bytes(bits), mask);
                vbslq_u8(chosen, vsubq_u8(total, bytes(a)), bytes(a))
            }))
        })
    }

    #[inline(always)]
    fn gather<const N: usize>(self, table: &[u32; N], a: Self::Int) -> Self::Int {
        const { assert!(N.is_power_of_two()) }
        each(a, |a| {
            let mut lanes = [0; 4];
            // SAFETY: the features are proven; 16 bytes are written to 16.
            unsafe { vst1q_u32(lanes.as_mut_ptr(), a) };
            for lane in &mut lanes {
                *lane = table[*lane as usize & (N - 1)];
            }
            // SAFETY: the features are proven; 16 bytes are read from 16.
            unsafe { vld1q_u32(lanes.as_ptr()) }
        })
    }

    #[inline(always)]
    fn to_float(self, a: Self::Int) -> Self::Float {
        each(a, |a| cpu!(vcvtq_f32_s32(vreinterpretq_s32_u32(a))))
    }

    #[inline(always)]
    fn bits_to_float(self, a: Self::Int) -> Self::Float {
        each(a, |a| cpu!(vreinterpretq_f32_u32(a)))
    }

    #[inline(always)]
    fn half_to_float(self, a: Self::Int) -> Self::Float {
        each(a, |a| {
            cpu!(vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(a))))
        })
    }

    #[inline(always)]
    fn splat_float(self, x: f32) -> Self::Float {
        [cpu!(vdupq_n_f32(x)); 2]
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::Float {
        assert!(x.len() >= Self::LANES, "a vector of values");
        // SAFETY: the features are proven; the length has just been checked.
        unsafe { [vld1q_f32(x.as_ptr()), vld1q_f32(x.as_ptr().add(4))] }
    }

    #[inline(always)]
    fn load_bytes(self, x: &[[u8; 4]]) -> Self::Float {
        assert!(x.len() >= Self::LANES, "a vector of values");
        // SAFETY: the features are proven; the length has just been checked.
        unsafe {
            let half = |at: usize| vreinterpretq_f32_u8(vld1q_u8(x[at..].as_ptr().cast()));
            [half(0), half(4)]
        }
    }

    #[inline(always)]
    fn load_f16(self, x: &[[u8; 2]]) -> Self::Float {
        each(self.load_halves(x), |halves| {
            cpu!(vcvt_f32_f16(vreinterpret_f16_u16(halves)))
        })
    }

    #[inline(always)]
    fn load_bf16(self, x: &[[u8; 2]]) -> Self::Float {
        each(self.load_halves(x), |halves| {
            cpu!(vreinterpretq_f32_u32(vshll_n_u16::<16>(halves)))
        })
    }

    #[inline(always)]
    fn load_i8(self, x: &[u8]) -> Self::Float {
        assert!(x.len() >= Self::LANES, "a vector of values");
        // SAFETY: the features are proven; the length has just been checked.
        let halves = unsafe { vmovl_s8(vld1_s8(x.as_ptr().cast())) };
        cpu!([
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(halves))),
            vcvtq_f32_s32(vmovl_s16(vget_high_s16(halves))),
        ])
    }

    #[inline(always)]
    fn sum_lanes(self, lanes: &[f32; 16]) -> f32 {
        let s8 = cpu!(each2(self.load(lanes), self.load(&lanes[8..]), |a, b| {
            vaddq_f32(a, b)
        }));
        cpu!({
            let s4 = vaddq_f32(s8[0], s8[1]);
            vpadds_f32(vadd_f32(vget_low_f32(s4), vget_high_f32(s4)))
        })
    }

    #[inline(always)]
    fn store(self, a: Self::Float, out: &mut [f32]) {
        assert!(out.len() >= Self::LANES, "room for a vector");
        // SAFETY: the features are proven; the length has just been checked.
        unsafe {
            vst1q_f32(out.as_mut_ptr(), a[0]);
            vst1q_f32(out.as_mut_ptr().add(4), a[1]);
        }
    }

    // Compared and selected: the instructions for maxima have rules of their own for NaN.
    #[inline(always)]
    fn max(self, a: Self::Float, b: Self::Float) -> Self::Float {
        each2(a, b, |a, b| cpu!(vbslq_f32(vcgtq_f32(b, a), b, a)))
    }

    #[inline(always)]
    fn min(self, a: Self::Float, b: Self::Float) -> Self::Float {
        each2(a, b, |a, b| cpu!(vbslq_f32(vcltq_f32(b, a), b, a)))
    }

    #[inline(always)]
    fn mul(self, a: Self::Float, b: Self::Float) -> Self::Float {
        each2(a, b, |a, b| cpu!(vmulq_f32(a, b)))
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float {
        let half = |i: usize| cpu!(vfmaq_f32(c[i], a[i], b[i]));
        [half(0), half(1)]
    }

    #[inline(always)]
    fn columns(self, rows: &Rows<'_>, at: usize) -> [Self::Int; 4] {
        let (start, stride) = (rows.address(at, 16), rows.stride());
        let [a, b, c, d] = self.quarter(start, stride, 0);
        let [e, f, g, h] = self.quarter(start, stride, 4);
        [[a, e], [b, f], [c, g], [d, h]]
    }

    #[inline(always)]
    fn words(self, rows: &Rows<'_>, at: usize) -> Self::Int {
        let (start, stride) = (rows.address(at, 4), rows.stride());
        // SAFETY: `Rows::address` has checked that four bytes of each of its 8 rows can be read
        // from `start` on.
        let word = |r: usize| unsafe { start.add(r * stride).cast::<u32>().read_unaligned() };
        let four = |r: usize| {
            let words = [word(r), word(r + 1), word(r + 2), word(r + 3)];
            // SAFETY: the features are proven; 16 bytes are read from 16.
            unsafe { vld1q_u32(words.as_ptr()) }
        };
        [four(0), four(4)]
    }

    /// Signed bytes have no offset here.
    #[inline(always)]
    fn start_signed(self, _: &Activation) -> Self::Int {
        self.splat(0)
    }

    #[inline(always)]
    fn signed(self, a: Self::Int) -> Self::Int {
        a
    }

    #[inline(always)]
    fn dot(self, acc: Self::Int, weights: Self::Int, x: u32) -> Self::Int {
        let x = cpu!(vdupq_n_u32(x));
        each2(acc, weights, |acc, weights| self.dot4(acc, weights, x))
    }

    #[inline(always)]
    fn no_pairs(self) -> Self::Pairs {
        [[cpu!(vdupq_n_s16(0)); 2]; 2]
    }

    #[inline(always)]
    fn add_pairs(self, sums: Self::Pairs, weights: Self::Int, x: u32) -> Self::Pairs {
        let x = cpu!(vreinterpretq_s8_u32(vdupq_n_u32(x)));
        each2(sums, weights, |[low, high], weights| {
            cpu!({
                let weights = vreinterpretq_s8_u32(weights);
                let low = vmlal_s8(low, vget_low_s8(weights), vget_low_s8(x));
                [low, vmlal_high_s8(high, weights, x)]
            })
        })
    }

    #[inline(always)]
    fn join_pairs(self, acc: Self::Int, sums: Self::Pairs) -> Self::Int {
        each2(acc, sums, |acc, [low, high]| {
            cpu!({
                // Two neighbours are a pair, which fits by the contract of `add_pairs`.
                let pairs = vpaddq_s16(low, high);
                vreinterpretq_u32_s32(vpadalq_s16(vreinterpretq_s32_u32(acc), pairs))
            })
        })
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: a prefetch reads nothing that the program can see, at any address.
        unsafe {
            asm!("prfm pldl1keep, [{0}]", in(reg) address,
                options(readonly, nostack, preserves_flags));
        }
    }

    #[inline(always)]
    fn prefetch_far(self, address: *const u8) {
        // SAFETY: as above.
        unsafe {
            asm!("prfm pldl2keep, [{0}]", in(reg) address,
                options(readonly, nostack, preserves_flags));
        }
    }
}

/// As [`quant::quantize_row`].
#[inline(always)]
fn quantize_row<const DOT: bool>(v: Neon<DOT>, x: &[f32], out: &mut [Activation]) -> bool {
    let mut finite = true;
    for (x, out) in x.as_chunks::<GROUP>().0.iter().zip(out) {
        let parts = [
            v.load(x),
            v.load(&x[8..]),
            v.load(&x[16..]),
            v.load(&x[24..]),
        ];
        let largest = cpu!({
            let mut most = vdupq_n_u32(0);
            for part in parts.as_flattened() {
                let bits = vreinterpretq_u32_f32(vabsq_f32(*part));
                most = vmaxq_u32(most, bits);
            }
            vmaxvq_u32(most)
        });
        let Some((inverse, scale)) = quant::scales(largest) else {
            finite &= quant::is_finite(largest);
            *out = Activation::default();
            continue;
        };
        let mut q = [0; GROUP];
        let mut sums = [0; 2];
        // SAFETY: the features are proven; 16 bytes are written to each half of 32.
        unsafe {
            let inverse = vdupq_n_f32(inverse);
            // Rounds ties to even.
            let integer = |a| vmovn_s32(vcvtnq_s32_f32(vmulq_f32(a, inverse)));
            for half in 0..2 {
                let [a, b] = each(parts[2 * half], integer);
                let [c, d] = each(parts[2 * half + 1], integer);
                let (low, high) = (vcombine_s16(a, b), vcombine_s16(c, d));
                let bytes = vmovn_high_s16(vmovn_s16(low), high);
                sums[half] = i32::from(vaddlvq_s8(bytes));
                vst1q_s8(q[16 * half..].as_mut_ptr(), bytes);
            }
        }
        *out = Activation::with_sums(q, scale, sums);
    }
    finite
}

/// Without dot products.
pub(super) mod plain {
    crate::kernel::instance::instance!(
        Isa::Neon,
        crate::float::Hard,
        super::Neon<false>,
        panels [2, 2],
        floats [2, 2, 3],
        attention [2],
        "neon"
    );
}

/// With `sdot` (Cortex-A55 and A76, Neoverse N1, Apple A11 and later).
pub(super) mod dot {
    crate::kernel::instance::instance!(
        Isa::NeonDot,
        crate::float::Hard,
        super::Neon<true>,
        panels [2, 3],
        floats [2, 2, 3],
        attention [2],
        "neon,dotprod"
    );
}
