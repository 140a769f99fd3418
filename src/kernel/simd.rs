//! The vectors that kernels are written with: what a CPU must offer, and nothing that differs.
//!
//! A kernel is written once, generic over [`Simd`], and compiled for each ISA inside a function
//! with its features. Every operation is exact or rounds once, so all ISAs return the same bits.
//! A value of an implementing type is the proof that the CPU has the features.

use crate::quant::Activation;

/// Vectors of [`Simd::LANES`] 32-bit lanes.
///
/// The methods are `#[inline(always)]`: they turn into single instructions within a function that
/// is compiled with the ISA's features, and only there are they fast.
pub(super) trait Simd: Copy {
    /// Lanes of a vector, and rows of a panel.
    const LANES: usize;
    /// 32 bits a lane: integers, or four bytes.
    type Int: Copy;
    /// An f32 a lane.
    type Float: Copy;
    /// Sums of one or two products of bytes, 16 bits each.
    type Pairs: Copy;
    /// Whether small products are better added in 16 bits first.
    const PAIRS: bool;

    /// One value in all lanes.
    fn splat(self, x: u32) -> Self::Int;
    /// Bitwise and.
    fn and(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Bitwise or.
    fn or(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Bitwise exclusive or.
    fn xor(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Each lane moved to the left by `bits`.
    fn shl(self, a: Self::Int, bits: u32) -> Self::Int;
    /// Each lane moved to the right by `bits`, zeros coming in.
    fn shr(self, a: Self::Int, bits: u32) -> Self::Int;
    /// Each signed lane divided by `2^bits`, rounded down.
    fn sra(self, a: Self::Int, bits: u32) -> Self::Int;
    /// Sum of lanes, wrapping.
    fn add(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Difference of lanes, wrapping.
    fn sub(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Sum of bytes, wrapping.
    fn add_bytes(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Low halves of the products of 16-bit halves.
    fn mul_halves(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// 0xff where bytes are equal, else 0.
    fn equal_bytes(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Byte `i` of each lane becomes its byte `from[i]`, below 4.
    fn shuffle(self, a: Self::Int, from: [u8; 4]) -> Self::Int;
    /// Each byte, below 16, replaced by that element of the table.
    fn lookup(self, table: [i8; 16], a: Self::Int) -> Self::Int;

    /// Each byte that has a bit of that byte of `mask` in `bits` becomes `total` minus itself,
    /// modulo 256. A byte of `mask` is one bit.
    fn mirror(self, a: Self::Int, bits: Self::Int, mask: u32, total: u8) -> Self::Int;
    /// Column `i` of each row, of which vector `i / 4` has byte `i % 4`, becomes `total` minus itself
    /// where bit `i` of that row is set.
    #[inline(always)]
    fn mirror_columns(self, q: &mut [Self::Int; 8], bits: Self::Int, total: u8) {
        for byte in 0..4 {
            let bits = self.shuffle(bits, [byte as u8; 4]);
            let [first, second] = &mut q.as_chunks_mut::<2>().0[byte];
            *first = self.mirror(*first, bits, 0x0804_0201, total);
            *second = self.mirror(*second, bits, 0x8040_2010, total);
        }
    }

    /// Each lane, modulo `N`, a power of two, replaced by that element of the table.
    fn gather<const N: usize>(self, table: &[u32; N], a: Self::Int) -> Self::Int;

    /// The eight points of each row whose numbers are the bytes of `low`, each with a bit of `high`
    /// on top if there are 512: vector `j` has the bytes of number `j`, whose bit is bit `j`.
    #[inline(always)]
    fn points<const N: usize>(
        self,
        points: &Points<N>,
        low: [Self::Int; 2],
        high: Self::Int,
    ) -> [Self::Int; 8] {
        let [a, b, c, d] = gathered(self, points, low[0], high);
        let [e, f, g, h] = gathered(self, points, low[1], self.shr(high, 4));
        [a, b, c, d, e, f, g, h]
    }

    /// `LANES` integers as floats, exactly below 2^24.
    fn to_float(self, a: Self::Int) -> Self::Float;
    /// The floats of these bits.
    fn bits_to_float(self, a: Self::Int) -> Self::Float;
    /// The f16 in the low half of each lane; the high half is ignored.
    fn half_to_float(self, a: Self::Int) -> Self::Float;
    /// One value in all lanes.
    fn splat_float(self, x: f32) -> Self::Float;
    /// The first `LANES` values.
    fn load(self, x: &[f32]) -> Self::Float;
    /// The first `LANES` f32 of a file.
    fn load_bytes(self, x: &[[u8; 4]]) -> Self::Float;
    /// The first `LANES` f16 of a file.
    fn load_f16(self, x: &[[u8; 2]]) -> Self::Float;
    /// The first `LANES` bf16 of a file.
    fn load_bf16(self, x: &[[u8; 2]]) -> Self::Float;
    /// The first `LANES` signed bytes.
    fn load_i8(self, x: &[u8]) -> Self::Float;
    /// The sum of 16 lanes by the tree of [`crate::float::sum_lanes`].
    fn sum_lanes(self, lanes: &[f32; 16]) -> f32;
    /// Puts the lanes into the first `LANES` values.
    fn store(self, a: Self::Float, out: &mut [f32]);
    /// `b` where it is larger, else `a`, as [`crate::float::max`].
    fn max(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `b` where it is smaller, else `a`.
    fn min(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// Product of lanes.
    fn mul(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a * b + c`, rounded once.
    fn mul_add(self, a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;

    /// The bytes of `rows` from `at` on, 16 of each row: lane r of vector i has bytes 4i .. 4i + 4
    /// of row r.
    fn columns(self, rows: &Rows<'_>, at: usize) -> [Self::Int; 4];
    /// The four bytes of each row from `at` on.
    fn words(self, rows: &Rows<'_>, at: usize) -> Self::Int;

    /// Where the integer dot product of 8-bit weights with the sum that `x` keeps must start, so
    /// that they may be given by [`Simd::signed`].
    fn start_signed(self, x: &Activation) -> Self::Int;
    /// Signed bytes in the form that [`Simd::dot`] wants.
    fn signed(self, a: Self::Int) -> Self::Int;
    /// `acc` plus, in each lane, the dot product of four weights with four activations. Weights
    /// are made by [`Simd::signed`] or, but for [`Simd::PAIRS`], unsigned below 128. Exact.
    fn dot(self, acc: Self::Int, weights: Self::Int, x: u32) -> Self::Int;
    /// No products.
    fn no_pairs(self) -> Self::Pairs;
    /// Adds the products of four weights, unsigned below 128, with four activations. Exact if the
    /// products of all pairs that are ever added cannot exceed 16 bits.
    fn add_pairs(self, sums: Self::Pairs, weights: Self::Int, x: u32) -> Self::Pairs;
    /// `acc` plus, in each lane, the products that have been added.
    fn join_pairs(self, acc: Self::Int, sums: Self::Pairs) -> Self::Int;
    /// Asks for the cache line of a byte, which need not exist.
    fn prefetch(self, address: *const u8);
    /// The same for the cache behind the first.
    fn prefetch_far(self, address: *const u8);
}

/// The points of four numbers, gathered.
#[inline(always)]
pub(super) fn gathered<V: Simd, const N: usize>(
    v: V,
    points: &Points<N>,
    low: V::Int,
    high: V::Int,
) -> [V::Int; 4] {
    let mut q = [low; 4];
    for j in 0..4 {
        let byte = v.shr(low, 8 * j as u32);
        let number = match N {
            256 => byte,
            _ => {
                let ninth = v.and(v.shl(high, 8 - j as u32), v.splat(256));
                v.or(v.and(byte, v.splat(255)), ninth)
            }
        };
        q[j] = v.gather(&points.bytes, number);
    }
    q
}

/// `N` points (256 or 512) of four columns, each of which is one of eight values. Vectors of codes do
/// not cross cache lines.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Points<const N: usize> {
    /// The numbers of values, four bits each: of columns 0 and 2, and of 1 and 3.
    pub codes: [[u8; N]; 2],
    /// The values, a byte each.
    pub bytes: [u32; N],
    /// The values by their numbers.
    pub values: [i8; 16],
    /// Whether codes are twice these numbers, and a value is what it differs from the first in.
    pub is_even: bool,
}

impl<const N: usize> Points<N> {
    /// The points of a grid, which has the eight `values`, with `more` added to all of them.
    pub const fn new(grid: &[u32; N], values: [u8; 8], more: u8) -> Self {
        let mut points = Self {
            codes: [[0; N]; 2],
            bytes: *grid,
            values: [0; 16],
            is_even: (values[0] + more).is_multiple_of(16),
        };
        let mut code = 0;
        while code < values.len() {
            let value = values[code] + more;
            points.is_even = points.is_even && value == values[0] + more + 2 * code as u8;
            points.values[code] = value as i8;
            code += 1;
        }
        let mut at = 0;
        while at < 4 * N {
            let (point, column) = (at / 4, at % 4);
            points.bytes[point] += (more as u32) << (8 * column);
            let (value, mut code) = ((grid[point] >> (8 * column)) as u8, 0);
            while values[code] != value {
                code += 1;
            }
            if points.is_even {
                code *= 2;
            }
            points.codes[column % 2][point] |= (code << (4 * (column / 2))) as u8;
            at += 1;
        }
        points
    }
}

/// The rows of a panel: as many as a vector has lanes, `stride` bytes each, one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    bytes: &'a [u8],
    stride: usize,
}

impl<'a> Rows<'a> {
    /// `lanes` rows of `stride` bytes.
    #[inline(always)]
    pub fn new(bytes: &'a [u8], stride: usize, lanes: usize) -> Self {
        assert!(bytes.len() >= lanes * stride, "a panel has all its rows");
        // Offsets of rows are computed in 32 bits.
        assert!(stride < 1 << 26, "a row is below 64 MiB");
        Self { bytes, stride }
    }

    /// Where byte `at` of row 0 lies, of which `len` are read in each row.
    #[inline(always)]
    pub fn address(&self, at: usize, len: usize) -> *const u8 {
        assert!(at + len <= self.stride, "inside the row");
        self.bytes[at..].as_ptr()
    }

    /// Bytes from one row to the next.
    #[inline(always)]
    pub fn stride(&self) -> usize {
        self.stride
    }
}
