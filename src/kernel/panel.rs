//! Products with quantized weights, a panel of rows at a time: lanes are output rows.
//!
//! A format unpacks 32 columns of all rows of a panel at once ([`Unpack`]); then each token takes
//! eight exact dot products and the float sequence of its kind (`docs/numerics.md`). One token
//! takes the integers from registers; several share a strip of 512 unpacked columns in the cache.

use crate::float::Hard;
use crate::quant::{Activation, Blocks};
use crate::team::Tile;

use super::ahead::{Ahead, lines};
use super::lanes;
use super::simd::{Rows, Simd};

/// Groups of 32 columns in a strip.
const STRIP: usize = 16;
/// The same for few tokens, whose strip is soon done with and should stay in the first cache.
const SHORT_STRIP: usize = 8;
/// Few tokens.
const FEW: usize = 16;
/// For one token, panels from here to the one that is fetched into the second cache.
const FAR: usize = 3;

/// The float sequence that takes the integers of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A scale.
    Scale,
    /// A scale, then a minimum.
    Min,
    /// A scale, then a minimum for each 16 columns.
    TwoMins,
    /// An integer scale for each 16 columns, then a scale.
    TwoScales,
    /// A scale for each 16 columns.
    EachScale,
}

impl Kind {
    /// Whether the 16 columns of each half have a sum of their own.
    const fn is_halved(self) -> bool {
        matches!(self, Self::TwoScales | Self::EachScale)
    }
}

/// A group of 32 columns of the rows of a panel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group<V: Simd> {
    /// Lane r of vector j: columns 4j .. 4j + 4 of row r, as bytes for [`Simd::dot`].
    pub q: [V::Int; 8],
    /// What one integer step is worth.
    pub scale: V::Float,
    /// Minima, or the integer scales, or the scales, as the kind has them.
    pub extra: [V::Float; 2],
}

impl<V: Simd> Group<V> {
    /// A group without minima or integer scales.
    #[inline(always)]
    pub fn new(q: [V::Int; 8], scale: V::Float) -> Self {
        // The kind does not look at `extra`.
        Self::with_extra(q, scale, [scale; 2])
    }

    /// A group with the minima or integer scales of its kind.
    #[inline(always)]
    pub fn with_extra(q: [V::Int; 8], scale: V::Float, extra: [V::Float; 2]) -> Self {
        Self { q, scale, extra }
    }
}

/// Takes the groups of a block, in the order of their columns.
pub(super) trait Sink<V: Simd> {
    /// The next group.
    fn take(&mut self, v: V, group: Group<V>);
}

/// A block format that can be unpacked for all rows of a panel at once.
pub(super) trait Unpack: Blocks {
    /// Its float sequence.
    const KIND: Kind;
    /// The largest byte, if they are unsigned below 128; else they are made by [`Simd::signed`].
    const LARGEST: Option<u32>;
    /// What has been added to the integers to make them unsigned.
    const OFFSET: i32 = 0;

    /// Where the dot products of a group start, so that they come out without the bytes' offset:
    /// that of all 32 columns, or those of 16 each, if the kind has sums of halves.
    #[inline(always)]
    fn start<V: Simd>(v: V, x: &Activation) -> [V::Int; 2] {
        // Minus the offset times a sum, given minus `factor` times that sum.
        let below = |start: i32, factor: i32| {
            let start = match Self::OFFSET % factor {
                0 => start * (Self::OFFSET / factor),
                _ => (start >> factor.ilog2()) * Self::OFFSET,
            };
            v.splat(start as u32)
        };
        match Self::LARGEST {
            None => [v.start_signed(x), v.splat(0)],
            Some(_) if Self::KIND.is_halved() => [below(x.start0, 32), below(x.start1, 32)],
            Some(_) => [below(x.start8, 8), v.splat(0)],
        }
    }

    /// The groups of the block that lies `at` bytes into each row.
    fn unpack_rows<V: Simd>(v: V, rows: &Rows<'_>, at: usize, sink: &mut impl Sink<V>);
}

/// `out` = the tokens of `x`, (tokens, groups), times `weights`, the rows of the tile's columns.
/// A register tile has `P` panels and `T` tokens. `next`: see [`super::Kernels::matmul`].
#[inline(always)]
pub(super) fn matmul<V: Simd, F: Unpack, const P: usize, const T: usize>(
    v: V,
    weights: &[u8],
    x: &[Activation],
    (groups, next): (usize, &[u8]),
    out: &mut Tile<'_, f32>,
) {
    let rows = out.column_range().len();
    if rows < V::LANES {
        return lanes::matmul_blocks::<F, Hard>(weights, x, groups, out);
    }
    let mut product = Product {
        v,
        weights,
        row_bytes: groups / F::GROUPS * F::FORMAT.block_bytes(),
        x,
        groups,
        next,
    };
    match F::KIND {
        // In a large tile, the second accumulators take the place of a panel.
        kind if kind.is_halved() && P * T > 6 => product.all::<F, 2, T>(rows, out),
        // What puts signs right takes registers, too, and is shared by tokens.
        _ if V::PAIRS && F::LARGEST.is_none() => product.all::<F, 1, 4>(rows, out),
        _ => product.all::<F, P, T>(rows, out),
    }
}

/// The operands of a product.
struct Product<'a, V> {
    v: V,
    weights: &'a [u8],
    row_bytes: usize,
    x: &'a [Activation],
    groups: usize,
    next: &'a [u8],
}

impl<V: Simd> Product<'_, V> {
    /// All `rows` of the matrix: `P` panels at once, then one at a time.
    #[inline(always)]
    fn all<F: Unpack, const P: usize, const T: usize>(
        &mut self,
        rows: usize,
        out: &mut Tile<'_, f32>,
    ) {
        let tokens = out.row_range().len();
        let mut row = 0;
        while row < rows {
            // The last panel may compute some rows again.
            let start = row.min(rows - V::LANES);
            if tokens == 1 {
                self.one::<F>(start, out);
                row = start + V::LANES;
            } else if row + P * V::LANES <= rows {
                self.many::<F, P, T>(start, out);
                row += P * V::LANES;
            } else {
                self.many::<F, 1, T>(start, out);
                row = start + V::LANES;
            }
        }
    }

    fn rows(&self, row: usize) -> Rows<'_> {
        let bytes = &self.weights[row * self.row_bytes..];
        Rows::new(bytes, self.row_bytes, V::LANES)
    }

    /// Where a row begins; behind the last one is what comes next.
    fn address(&self, row: usize) -> *const u8 {
        let at = row * self.row_bytes;
        match at.checked_sub(self.weights.len()) {
            None => self.weights.as_ptr().wrapping_add(at),
            Some(at) => self.next.as_ptr().wrapping_add(at),
        }
    }

    /// A panel of rows from `row` on, and one token.
    #[inline(always)]
    fn one<F: Unpack>(&mut self, row: usize, out: &mut Tile<'_, f32>) {
        let v = self.v;
        let block_bytes = F::FORMAT.block_bytes();
        let rows = self.rows(row);
        let mut sum = One::<V, F> {
            x: &[],
            group: 0,
            sum: v.splat_float(0.0),
            next: self.address(row + V::LANES),
            later: self.address(row + FAR * V::LANES),
            format: std::marker::PhantomData,
        };
        let blocks = (0..self.row_bytes).step_by(block_bytes);
        for (at, x) in blocks.zip(self.x.chunks_exact(F::GROUPS)) {
            (sum.x, sum.group) = (x, 0);
            F::unpack_rows(v, &rows, at, &mut sum);
        }
        v.store(sum.sum, &mut out.row_mut(0)[row..]);
    }

    /// `P` panels of rows from `row` on, and all tokens.
    #[inline(always)]
    fn many<F: Unpack, const P: usize, const T: usize>(
        &mut self,
        row: usize,
        out: &mut Tile<'_, f32>,
    ) {
        let v = self.v;
        let block_bytes = F::FORMAT.block_bytes();
        let empty = Group::<V>::new([v.splat(0); 8], v.splat_float(0.0));
        let mut strip = [[empty; P]; STRIP];
        let tokens = out.row_range().len();
        let len = if tokens > FEW { STRIP } else { SHORT_STRIP };
        for first in (0..self.groups).step_by(len) {
            let count = len.min(self.groups - first);
            let from = first / F::GROUPS * block_bytes;
            let to = (first + count) / F::GROUPS * block_bytes;
            for p in 0..P {
                let rows = self.rows(row + p * V::LANES);
                let mut fill = Fill {
                    strip: &mut strip,
                    panel: p,
                    group: 0,
                };
                for at in (from..to).step_by(block_bytes) {
                    F::unpack_rows(v, &rows, at, &mut fill);
                }
            }
            let strip = &strip[..count];
            let mut ahead = self.ahead::<P>((row, to), to - from, count * tokens.div_ceil(T));
            for token in (0..tokens).step_by(T) {
                self.tile::<F, P, T>(strip, (row, token), (first, &mut ahead), out);
            }
        }
    }

    /// What follows a strip that ends `to` bytes into the rows from `row` on, of which it has
    /// `bytes` each: the next one of these rows, or the first one of those that come next. It is
    /// asked for in `times` parts.
    #[inline(always)]
    fn ahead<const P: usize>(
        &self,
        (row, to): (usize, usize),
        bytes: usize,
        times: usize,
    ) -> Ahead {
        let rows = P * V::LANES;
        let (row, at) = if to < self.row_bytes {
            (row, to)
        } else {
            (row + rows, 0)
        };
        let shape = (rows, self.row_bytes, bytes.min(self.row_bytes - at));
        Ahead::new(self.address(row).wrapping_add(at), shape, times)
    }

    /// Adds a strip, from group `first` on, to the outputs of `P` panels and `T` tokens. Behind the
    /// last token, it stands in for those that are missing.
    #[inline(always)]
    fn tile<F: Unpack, const P: usize, const T: usize>(
        &self,
        strip: &[[Group<V>; P]],
        (row, token): (usize, usize),
        (first, ahead): (usize, &mut Ahead),
        out: &mut Tile<'_, f32>,
    ) {
        let v = self.v;
        let mut x: [&[Activation]; T] = [&[]; T];
        let mut sums = [[v.splat_float(0.0); T]; P];
        let last = out.row_range().len() - 1;
        for t in 0..T {
            let token = last.min(token + t);
            x[t] = &self.x[token * self.groups + first..][..strip.len()];
            if first > 0 {
                let out = &out.row_mut(token)[row..];
                for p in 0..P {
                    sums[p][t] = v.load(&out[p * V::LANES..]);
                }
            }
        }
        for (g, panels) in strip.iter().enumerate() {
            let mut tokens = [&x[0][g]; T];
            for t in 0..T {
                tokens[t] = &x[t][g];
            }
            ahead.fetch(v);
            group::<V, F, P, T>(v, panels, tokens, &mut sums);
        }
        for t in 0..T {
            let out = &mut out.row_mut(last.min(token + t))[row..];
            for p in 0..P {
                v.store(sums[p][t], &mut out[p * V::LANES..]);
            }
        }
    }
}

/// Adds a group of `P` panels and `T` tokens to their sums.
#[inline(always)]
fn group<V: Simd, F: Unpack, const P: usize, const T: usize>(
    v: V,
    panels: &[Group<V>; P],
    x: [&Activation; T],
    sums: &mut [[V::Float; T]; P],
) {
    let mut starts = [[v.splat(0); T]; 2];
    for t in 0..T {
        let [a, b] = F::start(v, x[t]);
        starts[0][t] = a;
        starts[1][t] = b;
    }
    let mut integers = [[starts[0]; P]; 2];
    if F::KIND.is_halved() {
        for half in 0..2 {
            integers[half] = dots::<V, F, P, T>(v, panels, x, starts[half], 4 * half..4 * half + 4);
        }
    } else {
        integers[0] = dots::<V, F, P, T>(v, panels, x, starts[0], 0..8);
    }
    for p in 0..P {
        for t in 0..T {
            let both = [integers[0][p][t], integers[1][p][t]];
            sums[p][t] = add::<V, F>(v, both, &panels[p], x[t], sums[p][t]);
        }
    }
}

/// The integers of some vectors of a group, from `starts` on.
#[inline(always)]
fn dots<V: Simd, F: Unpack, const P: usize, const T: usize>(
    v: V,
    panels: &[Group<V>; P],
    x: [&Activation; T],
    starts: [V::Int; T],
    vectors: std::ops::Range<usize>,
) -> [[V::Int; T]; P] {
    let mut integers = [starts; P];
    let steps = steps::<V, F>();
    if steps == 0 {
        // Products of one panel and token would wait for each other: two sums wait half as long.
        let is_alone = P * T == 1;
        let mut others = [[v.splat(0); T]; P];
        for j in vectors {
            let sums = match is_alone && j % 2 == 1 {
                true => &mut others,
                false => &mut integers,
            };
            for t in 0..T {
                let word = word(x[t], j);
                for p in 0..P {
                    sums[p][t] = v.dot(sums[p][t], panels[p].q[j], word);
                }
            }
        }
        if is_alone {
            integers[0][0] = v.add(integers[0][0], others[0][0]);
        }
        return integers;
    }
    for start in vectors.step_by(steps) {
        let mut pairs = [[v.no_pairs(); T]; P];
        for j in start..start + steps {
            for t in 0..T {
                let word = word(x[t], j);
                for p in 0..P {
                    pairs[p][t] = v.add_pairs(pairs[p][t], panels[p].q[j], word);
                }
            }
        }
        for p in 0..P {
            for t in 0..T {
                integers[p][t] = v.join_pairs(integers[p][t], pairs[p][t]);
            }
        }
    }
    integers
}

/// The float sequence of a group.
#[inline(always)]
fn add<V: Simd, F: Unpack>(
    v: V,
    [first, second]: [V::Int; 2],
    group: &Group<V>,
    x: &Activation,
    sum: V::Float,
) -> V::Float {
    let [a, b] = group.extra;
    if F::KIND == Kind::EachScale {
        let scale = v.splat_float(x.scale);
        let sum = v.mul_add(v.to_float(first), v.mul(a, scale), sum);
        return v.mul_add(v.to_float(second), v.mul(b, scale), sum);
    }
    let mut total = v.to_float(first);
    if F::KIND == Kind::TwoScales {
        // Exact: the whole sum is below 2^24.
        total = v.mul_add(v.to_float(second), b, v.mul(total, a));
    }
    let scale = v.mul(group.scale, v.splat_float(x.scale));
    let sum = v.mul_add(total, scale, sum);
    match F::KIND {
        Kind::Scale | Kind::TwoScales | Kind::EachScale => sum,
        Kind::Min => v.mul_add(a, v.splat_float(x.t), sum),
        Kind::TwoMins => {
            let sum = v.mul_add(a, v.splat_float(x.t0), sum);
            v.mul_add(b, v.splat_float(x.t1), sum)
        }
    }
}

/// Activations 4j .. 4j + 4.
#[inline(always)]
fn word(x: &Activation, j: usize) -> u32 {
    let [a, b, c, d] = x.q.as_chunks::<4>().0[j];
    u32::from_le_bytes([a as u8, b as u8, c as u8, d as u8])
}

/// The sum of one token, which takes groups as they are unpacked.
struct One<'a, V: Simd, F> {
    /// Of the groups of a block.
    x: &'a [Activation],
    group: usize,
    sum: V::Float,
    /// Part of the panel after this one: a panel is one piece of memory, asked for in order.
    next: *const u8,
    /// The same of a panel behind that.
    later: *const u8,
    format: std::marker::PhantomData<F>,
}

impl<V: Simd, F: Unpack> Sink<V> for One<'_, V, F> {
    #[inline(always)]
    fn take(&mut self, v: V, panel: Group<V>) {
        let x = &self.x[self.group];
        self.group += 1;
        let mut sums = [[self.sum]];
        group::<V, F, 1, 1>(v, &[panel], [x], &mut sums);
        self.sum = sums[0][0];
        let bytes = V::LANES * F::FORMAT.block_bytes() / F::GROUPS;
        lines(bytes).for_each(|at| {
            v.prefetch(self.next.wrapping_add(at));
            v.prefetch_far(self.later.wrapping_add(at));
        });
        self.next = self.next.wrapping_add(bytes);
        self.later = self.later.wrapping_add(bytes);
    }
}

/// Fills the strip of one panel.
struct Fill<'a, V: Simd, const P: usize> {
    strip: &'a mut [[Group<V>; P]; STRIP],
    panel: usize,
    group: usize,
}

impl<V: Simd, const P: usize> Sink<V> for Fill<'_, V, P> {
    #[inline(always)]
    fn take(&mut self, _: V, group: Group<V>) {
        self.strip[self.group][self.panel] = group;
        self.group += 1;
    }
}

/// How many vectors of a group may add their products in 16 bits: 8, or 4 of half a group, 4, 2, 1,
/// or 0 where products are better added in 32 bits.
#[inline(always)]
const fn steps<V: Simd, F: Unpack>() -> usize {
    match F::LARGEST {
        Some(largest) if V::PAIRS => {
            // Two products in each sum.
            let fitting = i16::MAX as u32 / (2 * 127 * largest);
            let (power, most) = (fitting.ilog2(), if F::KIND.is_halved() { 2 } else { 3 });
            1 << if power < most { power } else { most }
        }
        _ => 0,
    }
}
