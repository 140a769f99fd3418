//! All that depends on the CPU: one table of functions per ISA, each returning the bits of the
//! scalar twin of the same name.
//!
//! A `&'static Kernels` comes only from [`detect`], [`available`] or [`force`], so holding one
//! proves that this CPU can run it. The wrappers check sizes once, at the border.
#![allow(unsafe_code)]
// Kernels count: loops over lanes and tiles must unroll.
#![allow(clippy::needless_range_loop)]

mod ahead;
mod attention;
mod dense;
mod elementwise;
mod instance;
mod lanes;
mod logits;
mod measure;
mod panel;
mod piece;
mod recurrence;
mod room;
mod selection;
mod simd;
mod span;
mod unpack;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use std::fmt;
use std::sync::OnceLock;

use crate::float::f16_to_f32;
use crate::quant::{Activation, Format, GROUP};
use crate::team::Tile;

pub use elementwise::{Nonlinearity, Xielu};
pub use lanes::LANES;
pub use logits::{BLOCK, Reach, STEPS, SUMMED, Steps};
pub use measure::Peak;
pub use recurrence::Lane;
pub use room::Room;
pub use selection::{Keys, Ranked};
pub use span::{Attention, PAGE_SIZES, SPAN_TOKENS, Scoring, Window, result_len};

/// An instruction set that has kernels, from the plainest to the widest of each architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Any CPU.
    Scalar,
    /// 128-bit vectors of aarch64.
    Neon,
    /// The same with dot products of bytes.
    NeonDot,
    /// 256-bit vectors and FMA of x86-64.
    Avx2,
    /// The same with dot products of bytes.
    Avx2Vnni,
    /// 512-bit vectors of x86-64.
    Avx512,
    /// The same with dot products of bytes.
    Avx512Vnni,
    /// The same with lookups in tables of bytes.
    Avx512Vbmi,
}

impl Isa {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Scalar,
        Self::Neon,
        Self::NeonDot,
        Self::Avx2,
        Self::Avx2Vnni,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::Avx512Vbmi,
    ];

    /// Its name, as `LIGHTGPT_ISA` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Neon => "neon",
            Self::NeonDot => "neon-dot",
            Self::Avx2 => "avx2",
            Self::Avx2Vnni => "avx2-vnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx512Vbmi => "avx512-vbmi",
        }
    }

    /// The ISA of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|isa| isa.name() == name)
    }
}

/// The kernels of one ISA that this CPU has.
pub struct Kernels {
    isa: Isa,
    functions: Functions,
}

/// All pointers are unsafe to call without the CPU's features; see [`Kernels`].
#[derive(Clone, Copy)]
struct Functions {
    matmul: unsafe fn(Format, &[u8], &Input<'_>, &[u8], &mut Tile<'_, f32>),
    quantize_row: unsafe fn(&[f32], &mut [Activation]) -> bool,
    rms_norm: unsafe fn(&mut [f32], &[f32], f32) -> bool,
    layer_norm: unsafe fn(&mut [f32], &[f32], f32) -> bool,
    add: unsafe fn(&mut [f32], &[f32]),
    add_scaled: unsafe fn(&mut [f32], f32, &[f32]),
    multiply: unsafe fn(&mut [f32], &[f32]),
    scale: unsafe fn(&mut [f32], f32),
    clamp: unsafe fn(&mut [f32], f32),
    softcap: unsafe fn(&mut [f32], f32),
    activate: unsafe fn(Nonlinearity, &mut [f32]),
    swiglu: unsafe fn(&mut [f32], &[f32]),
    swiglu_clamped: unsafe fn(&mut [f32], &[f32], f32, f32),
    rope_interleaved: unsafe fn(&mut [f32], &[[f32; 2]]),
    rope_halves: unsafe fn(&mut [f32], &[[f32; 2]]),
    attend: unsafe fn(&Attention<'_>, &mut Room, &mut Tile<'_, f32>),
    join_spans: JoinSpans,
    recurrence: recurrence::RecurrenceFunctions,
    logits: logits::LogitFunctions,
}

/// Spans, their distance and number, a sink, and the joined row.
type JoinSpans = unsafe fn(&[f32], (usize, usize), f32, &mut [f32]);

/// The rows that a matrix is multiplied with, in both forms that formats may want.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Values of a row that count.
    pub columns: usize,
    /// Distance between rows of `floats`.
    pub stride: usize,
    /// (rows, stride); for float formats.
    pub floats: &'a [f32],
    /// (rows, columns / 32); for block formats.
    pub quants: &'a [Activation],
}

impl<'a> Input<'a> {
    /// Rows of `columns` values, one right behind the other.
    pub fn new(columns: usize, floats: &'a [f32], quants: &'a [Activation]) -> Self {
        Self {
            columns,
            stride: columns,
            floats,
            quants,
        }
    }
}

/// Stored keys or values.
#[derive(Debug, Clone, Copy)]
pub enum Plane<'a> {
    /// As they were computed.
    F32(&'a [f32]),
    /// Rounded to f16, little-endian.
    F16(&'a [[u8; 2]]),
    /// Integers with a scale for each block.
    Q8(Scaled<'a>),
}

/// Signed bytes, each worth the scale of its block.
#[derive(Debug, Clone, Copy)]
pub struct Scaled<'a> {
    /// As long as the plane.
    pub bytes: &'a [u8],
    /// f16, little-endian, a row of blocks after the other.
    pub scales: &'a [[u8; 2]],
    /// Rows of a block, of one column each; or 1, if blocks are 32 columns of a row.
    pub rows: usize,
}

impl Scaled<'_> {
    /// The scales of blocks in `row`, from that of `column` on; rows have `width` values.
    #[inline(always)]
    fn scales(&self, row: usize, width: usize, column: usize) -> &[[u8; 2]] {
        match self.rows {
            1 => &self.scales[row * width.div_ceil(GROUP) + column / GROUP..],
            rows => &self.scales[row / rows * width + column..],
        }
    }
}

/// The best kernels of this CPU, or what `LIGHTGPT_ISA` names, if the CPU has it.
pub fn detect() -> &'static Kernels {
    static CHOICE: OnceLock<&'static Kernels> = OnceLock::new();
    CHOICE.get_or_init(|| {
        let wish = std::env::var("LIGHTGPT_ISA")
            .ok()
            .and_then(|name| Isa::from_name(&name));
        force(wish.unwrap_or(Isa::Avx512Vbmi))
    })
}

/// The kernels of the widest ISA that this CPU has and that is not above `isa`.
pub fn force(isa: Isa) -> &'static Kernels {
    available()
        .filter(|kernels| kernels.isa <= isa)
        .last()
        .unwrap_or(&scalar::KERNELS)
}

/// The kernels that this CPU can run, the plainest first.
pub fn available() -> impl Iterator<Item = &'static Kernels> {
    std::iter::once(&scalar::KERNELS).chain(native().into_iter().flatten())
}

#[cfg(target_arch = "aarch64")]
fn native() -> [Option<&'static Kernels>; 2] {
    let dot = std::arch::is_aarch64_feature_detected!("dotprod");
    [
        Some(&neon::plain::KERNELS),
        dot.then_some(&neon::dot::KERNELS),
    ]
}

#[cfg(target_arch = "x86_64")]
fn native() -> [Option<&'static Kernels>; 5] {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2");
    let avx512 = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let vnni = avx512 && is_x86_feature_detected!("avx512vnni");
    let vbmi =
        vnni && is_x86_feature_detected!("avx512vbmi") && is_x86_feature_detected!("avx512bitalg");
    [
        avx2.then_some(&avx2::plain::KERNELS),
        (avx2 && is_x86_feature_detected!("avxvnni")).then_some(&avx2::vnni::KERNELS),
        avx512.then_some(&avx512::plain::KERNELS),
        vnni.then_some(&avx512::vnni::KERNELS),
        vbmi.then_some(&avx512::vbmi::KERNELS),
    ]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn native() -> [Option<&'static Kernels>; 0] {
    []
}

impl Kernels {
    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Multiply-adds that one task should have at most, so that a pass can pause or stop soon.
    pub fn task_max(&self) -> usize {
        match self.isa {
            Isa::Scalar => 1 << 21,
            Isa::Neon | Isa::Avx2 => 1 << 23,
            Isa::NeonDot | Isa::Avx2Vnni | Isa::Avx512 => 1 << 24,
            Isa::Avx512Vnni | Isa::Avx512Vbmi => 48 << 20,
        }
    }

    /// About how many nanoseconds so many multiply-adds of blocks with several tokens take on one
    /// thread.
    pub fn work_ns(&self, multiply_adds: usize) -> usize {
        /// What a task of the most work takes.
        const TASK_NS: usize = 200_000;
        multiply_adds / (self.task_max() / TASK_NS)
    }

    /// Multiplies: element (token, column) of `out` becomes the dot product of row `token` of `x`
    /// and a weight row. `weights` holds the rows of the tile's columns, in order; `next` is what this
    /// thread will probably multiply with then, if that is known: single tokens fetch it ahead.
    ///
    /// # Panics
    /// If the sizes do not fit, or `format` is not computable.
    pub fn matmul(
        &self,
        format: Format,
        weights: &[u8],
        x: &Input<'_>,
        next: &[u8],
        out: &mut Tile<'_, f32>,
    ) {
        let next = if next.is_empty() { weights } else { next };
        let row_bytes = format
            .bytes(x.columns as u64)
            .expect("rows are whole blocks") as usize;
        let tokens = out.row_range().end;
        assert_eq!(
            weights.len(),
            out.column_range().len() * row_bytes,
            "a weight row a column"
        );
        if format.block_len() > 1 {
            assert!(
                x.quants.len() >= tokens * (x.columns / GROUP),
                "quantized rows"
            );
        } else {
            assert!(x.columns <= x.stride, "the stride holds a row");
            assert!(
                x.floats.len() + x.stride >= tokens * x.stride + x.columns,
                "float rows"
            );
        }
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.matmul)(format, weights, x, next, out) }
    }

    /// Quantizes a row of 32 values per element of `out`; false if one is not finite.
    pub fn quantize_row(&self, x: &[f32], out: &mut [Activation]) -> bool {
        assert_eq!(x.len(), out.len() * GROUP, "whole groups");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.quantize_row)(x, out) }
    }

    /// `x = x / rms(x) * weight`, of one length; false if the sum of squares is not finite.
    pub fn rms_norm(&self, x: &mut [f32], weight: &[f32], epsilon: f32) -> bool {
        assert_eq!(x.len(), weight.len(), "one length");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.rms_norm)(x, weight, epsilon) }
    }

    /// `x = (x - mean(x)) / deviation(x) * weight`, of one length; false if the sum of squares is not
    /// finite.
    pub fn layer_norm(&self, x: &mut [f32], weight: &[f32], epsilon: f32) -> bool {
        assert_eq!(x.len(), weight.len(), "one length");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.layer_norm)(x, weight, epsilon) }
    }

    /// `out += x`, of one length.
    pub fn add(&self, out: &mut [f32], x: &[f32]) {
        assert_eq!(out.len(), x.len(), "one length");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.add)(out, x) }
    }

    /// `out += factor * x`, of one length, rounded once.
    pub fn add_scaled(&self, out: &mut [f32], factor: f32, x: &[f32]) {
        assert_eq!(out.len(), x.len(), "one length");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.add_scaled)(out, factor, x) }
    }

    /// `out *= x`, of one length.
    pub fn multiply(&self, out: &mut [f32], x: &[f32]) {
        assert_eq!(out.len(), x.len(), "one length");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.multiply)(out, x) }
    }

    /// `x *= factor`.
    pub fn scale(&self, x: &mut [f32], factor: f32) {
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.scale)(x, factor) }
    }

    /// Values outside `[-limit, limit]` become the nearer end.
    pub fn clamp(&self, x: &mut [f32], limit: f32) {
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.clamp)(x, limit) }
    }

    /// `x = cap * tanh(x / cap)`.
    pub fn softcap(&self, x: &mut [f32], cap: f32) {
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.softcap)(x, cap) }
    }

    /// Applies an activation function to each value.
    pub fn activate(&self, function: Nonlinearity, x: &mut [f32]) {
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.activate)(function, x) }
    }

    /// `gate = g * sigmoid(alpha * g) * (u + 1)`, of one length; `g` is the gate, at most `limit`, `u`
    /// the value of `up` within `[-limit, limit]`.
    pub fn swiglu_clamped(&self, gate: &mut [f32], up: &[f32], alpha: f32, limit: f32) {
        assert_eq!(gate.len(), up.len(), "one length");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.swiglu_clamped)(gate, up, alpha, limit) }
    }

    /// `gate = silu(gate) * up`, of one length.
    pub fn swiglu(&self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "one length");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.swiglu)(gate, up) }
    }

    /// Turns the pairs (2i, 2i + 1) of `head` by `turns[i]` = (cosine, sine); what `turns` does
    /// not reach stays.
    pub fn rope_interleaved(&self, head: &mut [f32], turns: &[[f32; 2]]) {
        assert!(2 * turns.len() <= head.len(), "a pair for each turn");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.rope_interleaved)(head, turns) }
    }

    /// Turns the pairs (i, i + n) of `head` by `turns[i]` = (cosine, sine), n the number of turns;
    /// what `turns` does not reach stays.
    pub fn rope_halves(&self, head: &mut [f32], turns: &[[f32; 2]]) {
        assert!(2 * turns.len() <= head.len(), "a pair for each turn");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.rope_halves)(head, turns) }
    }

    /// Attention of queries to the keys of a span: `out` becomes (rows, heads, [`result_len`]), the
    /// values weighted by `exp(score - largest)`, the largest score and the sum of the weights. Rows
    /// that see no key of the span are left alone.
    ///
    /// # Panics
    /// If the sizes do not fit.
    pub fn attend(&self, work: &Attention<'_>, room: &mut Room, out: &mut Tile<'_, f32>) {
        work.check(out.row_range().len(), out.column_range().len());
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.attend)(work, room, out) }
    }

    /// Joins the results of `count` spans, which begin `stride` apart, into one softmax row. `sink` is
    /// a score without a value; minus infinity if there is none.
    pub fn join_spans(
        &self,
        spans: &[f32],
        (stride, count): (usize, usize),
        sink: f32,
        out: &mut [f32],
    ) {
        assert!(count > 0 && stride >= out.len() + 2, "spans hold rows");
        let last = (count - 1) * stride;
        assert!(spans.len() >= last + out.len() + 2, "as many spans");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.join_spans)(spans, (stride, count), sink, out) }
    }
}

impl Plane<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(plane) => plane.len(),
            Self::F16(plane) => plane.len(),
            Self::Q8(plane) => plane.bytes.len(),
        }
    }

    /// Decodes values of a row, of which there are `width`, from `column` on, a multiple of 32.
    #[inline(always)]
    pub fn decode(&self, row: usize, width: usize, column: usize, out: &mut [f32]) {
        let start = row * width + column;
        match self {
            Self::F32(plane) => out.copy_from_slice(&plane[start..][..out.len()]),
            Self::F16(plane) => {
                for (out, half) in out.iter_mut().zip(&plane[start..]) {
                    *out = f16_to_f32(u16::from_le_bytes(*half));
                }
            }
            Self::Q8(plane) => {
                let scales = plane.scales(row, width, column);
                // Blocks begin at multiples of 32, and so does `column`.
                let block = if plane.rows == 1 { GROUP } else { 1 };
                for (i, (out, byte)) in out.iter_mut().zip(&plane.bytes[start..]).enumerate() {
                    let scale = f16_to_f32(u16::from_le_bytes(scales[i / block]));
                    *out = f32::from(*byte as i8) * scale;
                }
            }
        }
    }
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kernels").field(&self.isa).finish()
    }
}

#[cfg(test)]
mod tests;
