//! Products with float weights: lanes are columns, 16 for each output, and one tree at the end.
//!
//! Several tokens share a strip of rows that has been widened to f32 in the cache; their lanes wait
//! in memory from strip to strip. One token takes the rows as they are.

use crate::float::Hard;
use crate::quant::{BF16, F16, F32, Floats, dot_floats};
use crate::team::Tile;

use super::ahead::{Ahead, LINE};
use super::simd::Simd;

/// Lanes of an output.
const LANES: usize = 16;
/// Columns of a strip: with its tokens it fits into the first cache.
const COLUMNS: usize = 512;
/// Tokens whose lanes are kept at once.
const TOKENS: usize = 64;
/// Rows that one token is multiplied with at once.
const ROWS: usize = 8;

/// A float format whose values can be loaded as vectors.
pub(super) trait Widen: Floats {
    /// The first `V::LANES` values, exactly.
    fn widen<V: Simd>(v: V, values: &[Self::Bytes]) -> V::Float;
}

impl Widen for F32 {
    #[inline(always)]
    fn widen<V: Simd>(v: V, values: &[[u8; 4]]) -> V::Float {
        v.load_bytes(values)
    }
}

impl Widen for F16 {
    #[inline(always)]
    fn widen<V: Simd>(v: V, values: &[[u8; 2]]) -> V::Float {
        v.load_f16(values)
    }
}

impl Widen for BF16 {
    #[inline(always)]
    fn widen<V: Simd>(v: V, values: &[[u8; 2]]) -> V::Float {
        v.load_bf16(values)
    }
}

/// `out` = the tokens of `x`, (tokens, stride), of which `columns` count, times `weights`, the rows
/// of the tile's columns. `U` vectors are the lanes of an output; a register tile has `R` rows and
/// `T` tokens. `next`: see [`super::Kernels::matmul`].
#[inline(always)]
pub(super) fn matmul<V: Simd, F: Widen, const U: usize, const R: usize, const T: usize>(
    v: V,
    weights: &[u8],
    x: &[f32],
    (stride, columns, next): (usize, usize, &[u8]),
    out: &mut Tile<'_, f32>,
) {
    let product = Product::<V, F> {
        v,
        weights: F::values(weights),
        x,
        stride,
        columns,
        next,
    };
    let (rows, tokens) = (out.column_range().len(), out.row_range().len());
    let mut row = 0;
    if tokens == 1 {
        while row + ROWS <= rows {
            product.one::<U>(row, out);
            row += ROWS;
        }
    } else {
        while row + R <= rows {
            for first in (0..tokens).step_by(TOKENS) {
                let count = TOKENS.min(tokens - first);
                product.many::<U, R, T>(row, first..first + count, out);
            }
            row += R;
        }
    }
    let row_bytes = columns * F::FORMAT.block_bytes();
    for row in row..rows {
        let weights = &weights[row * row_bytes..][..row_bytes];
        for token in 0..tokens {
            let x = &x[token * stride..][..columns];
            out.row_mut(token)[row] = dot_floats::<F, Hard>(weights, x);
        }
    }
}

/// The lanes of the outputs of `R` rows.
type Sums<const R: usize> = [[f32; LANES]; R];

/// The operands of a product.
struct Product<'a, V, F: Floats> {
    v: V,
    weights: &'a [F::Bytes],
    x: &'a [f32],
    stride: usize,
    columns: usize,
    next: &'a [u8],
}

impl<V: Simd, F: Widen> Product<'_, V, F> {
    fn row(&self, row: usize) -> &[F::Bytes] {
        &self.weights[row * self.columns..][..self.columns]
    }

    /// [`ROWS`] rows from `row` on, and one token.
    #[inline(always)]
    fn one<const U: usize>(&self, row: usize, out: &mut Tile<'_, f32>) {
        let v = self.v;
        let mut rows = [self.row(row); ROWS];
        for r in 0..ROWS {
            rows[r] = self.row(row + r);
        }
        // The rows behind these are one piece of memory: it is asked for in order.
        // Behind the last is what this thread will probably take next.
        let mut next = rows[ROWS - 1].as_ptr_range().end.cast::<u8>();
        if row + 2 * ROWS > out.column_range().len() {
            next = self.next.as_ptr();
        }
        let step = ROWS * LANES * F::FORMAT.block_bytes();
        let x = &self.x[..self.columns];
        let whole = self.columns / LANES * LANES;
        let mut sums = [[v.splat_float(0.0); U]; ROWS];
        for at in (0..whole).step_by(LANES) {
            for line in 0..step / LINE {
                v.prefetch_far(next.wrapping_add(at / LANES * step + line * LINE));
            }
            for u in 0..U {
                let at = at + u * V::LANES;
                let x = v.load(&x[at..]);
                for r in 0..ROWS {
                    let weights = F::widen(v, &rows[r][at..]);
                    sums[r][u] = v.mul_add(weights, x, sums[r][u]);
                }
            }
        }
        let mut lanes = [[0.0; LANES]; ROWS];
        for r in 0..ROWS {
            for u in 0..U {
                v.store(sums[r][u], &mut lanes[r][u * V::LANES..]);
            }
            self.rest(row + r, 0, whole, &mut lanes[r]);
            out.row_mut(0)[row + r] = v.sum_lanes(&lanes[r]);
        }
    }

    /// `R` rows from `row` on, and a block of tokens.
    #[inline(always)]
    fn many<const U: usize, const R: usize, const T: usize>(
        &self,
        row: usize,
        tokens: std::ops::Range<usize>,
        out: &mut Tile<'_, f32>,
    ) {
        let mut strip = [[0.0; COLUMNS]; R];
        let mut sums = [[[0.0; LANES]; R]; TOKENS];
        let whole = self.columns / LANES * LANES;
        for first in (0..whole).step_by(COLUMNS) {
            let count = COLUMNS.min(whole - first);
            self.widen_rows(row, first..first + count, &mut strip);
            let mut ahead = self.ahead::<R>(row, first + count, tokens.len().div_ceil(T));
            for token in (0..tokens.len()).step_by(T) {
                ahead.fetch(self.v);
                let place = (tokens.start, first, count);
                self.tile::<U, R, T>(&strip, place, token, &mut sums[..tokens.len()]);
            }
        }
        for (sums, token) in sums.iter_mut().zip(tokens) {
            for r in 0..R {
                self.rest(row + r, token, whole, &mut sums[r]);
                out.row_mut(token)[row + r] = self.v.sum_lanes(&sums[r]);
            }
        }
    }

    /// What follows a strip that ends before column `end` of the rows from `row` on: the next one of
    /// these rows, or the first one of those that come next. It is asked for in `times` parts.
    #[inline(always)]
    fn ahead<const R: usize>(&self, row: usize, end: usize, times: usize) -> Ahead {
        let at = if end < self.columns / LANES * LANES {
            end
        } else {
            0
        };
        let row = if at > 0 { row } else { row + R };
        let start = match self.weights.get(row * self.columns + at..) {
            Some(weights) if !weights.is_empty() => weights.as_ptr().cast(),
            _ => self.next.as_ptr(),
        };
        let value = F::FORMAT.block_bytes();
        let bytes = COLUMNS.min(self.columns - at) * value;
        Ahead::new(start, (R, self.columns * value, bytes), times)
    }

    #[inline(always)]
    fn widen_rows<const R: usize>(
        &self,
        row: usize,
        columns: std::ops::Range<usize>,
        strip: &mut [[f32; COLUMNS]; R],
    ) {
        for r in 0..R {
            let row = &self.row(row + r)[columns.clone()];
            for at in (0..row.len()).step_by(V::LANES) {
                let values = F::widen(self.v, &row[at..]);
                self.v.store(values, &mut strip[r][at..]);
            }
        }
    }

    /// Adds `count` columns of a strip, which begins at column `first`, to the lanes of `T` tokens of
    /// the block that begins at token `start`. Behind its last token, it stands in for those that
    /// are missing.
    #[inline(always)]
    fn tile<const U: usize, const R: usize, const T: usize>(
        &self,
        strip: &[[f32; COLUMNS]; R],
        (start, first, count): (usize, usize, usize),
        token: usize,
        sums_of: &mut [Sums<R>],
    ) {
        let v = self.v;
        let last = sums_of.len() - 1;
        let mut x: [&[f32]; T] = [&[]; T];
        // Those of the tokens that come next, which are fetched meanwhile.
        let mut next = x;
        let mut sums = [[[v.splat_float(0.0); U]; T]; R];
        for t in 0..T {
            let token = last.min(token + t);
            x[t] = &self.x[(start + token) * self.stride + first..][..count];
            next[t] = &self.x[(start + last.min(token + T)) * self.stride + first..][..count];
            for r in 0..R {
                for u in 0..U {
                    sums[r][t][u] = v.load(&sums_of[token][r][u * V::LANES..]);
                }
            }
        }
        for at in (0..count).step_by(LANES) {
            for u in 0..U {
                let at = at + u * V::LANES;
                let mut weights = [v.splat_float(0.0); R];
                for r in 0..R {
                    weights[r] = v.load(&strip[r][at..]);
                }
                for t in 0..T {
                    if u == 0 {
                        v.prefetch(next[t][at..].as_ptr().cast());
                    }
                    let x = v.load(&x[t][at..]);
                    for r in 0..R {
                        sums[r][t][u] = v.mul_add(weights[r], x, sums[r][t][u]);
                    }
                }
            }
        }
        for t in 0..T {
            for r in 0..R {
                for u in 0..U {
                    let lanes = &mut sums_of[last.min(token + t)][r];
                    v.store(sums[r][t][u], &mut lanes[u * V::LANES..]);
                }
            }
        }
    }

    /// Adds the columns behind the last whole lanes, from `whole` on.
    #[inline(always)]
    fn rest(&self, row: usize, token: usize, whole: usize, lanes: &mut [f32; LANES]) {
        let x = &self.x[token * self.stride..][whole..self.columns];
        for ((lane, weight), x) in lanes.iter_mut().zip(&self.row(row)[whole..]).zip(x) {
            *lane = F::load(weight).mul_add(*x, *lane);
        }
    }
}
