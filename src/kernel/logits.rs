//! Passes over a vocabulary's logits: what picking a token costs.
//!
//! Bodies as in `lanes`: written once, compiled for each CPU, the same bits everywhere. Sums are
//! taken in f32 within a block of 64 (lane = position mod 16, then the tree) and in f64 over the
//! blocks, in order. A logit of minus infinity is a token that is excluded.

use std::hint::black_box;

use crate::float::{self, sum_lanes};

use super::{Kernels, LANES};

/// Logits that share a maximum and a sum.
pub const BLOCK: usize = 64;

/// Cells of a [`Histogram`].
pub const CELLS: usize = 1024;

/// Masses by falling key. Position `i` adds to row `i mod 4`, so that neighbours in one cell do not
/// wait for each other.
pub type Histogram = [[f32; CELLS]; 4];

/// Differences below which a weight is 0; it keeps subnormal numbers, which are slow, out.
const DEEPEST: f32 = -80.0;

/// What maps keys to the cells of a [`Histogram`]: cell = `(top - key) * scale`, rounded; keys far
/// below, and excluded ones, fall into the last cell.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// The largest key.
    pub top: f32,
    /// Cells per unit.
    pub scale: f32,
}

impl Scale {
    /// Cells over the keys from `top` down to `top - range`.
    pub fn new(top: f32, range: f32) -> Self {
        Self {
            top,
            scale: (CELLS - 1) as f32 / range,
        }
    }

    /// The cell of a key that is not above `top`: falling, as keys rise.
    #[inline(always)]
    pub fn cell(self, key: f32) -> u32 {
        const LAST: f32 = (CELLS - 1) as f32;
        let cell = (self.top - key) * self.scale;
        // What is not a number counts as far below.
        let cell = if cell < LAST { cell } else { LAST };
        float::round_to_i32(cell) as u32 % CELLS as u32
    }
}

/// A position and the key it is ranked by.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Ranked {
    /// Larger is better.
    pub key: f32,
    /// Where it stands; the lower of two with one key is better.
    pub position: u32,
}

/// All pointers are unsafe to call without the CPU's features; see [`Kernels`].
pub(super) struct LogitFunctions {
    pub block_maxima: unsafe fn(&[f32], &mut [f32]) -> bool,
    pub block_sums: unsafe fn(&[f32], &mut [f32]),
    pub exp_weights: unsafe fn(&[f32], f32, &mut [f32], &mut [f32]) -> f64,
    pub weighted_depth: unsafe fn(&[f32], &[f32], f32) -> f64,
    pub moments: unsafe fn(&[f32], f32) -> [f64; 3],
    pub nearness: unsafe fn(&[f32], f32, &mut [f32]),
    pub count_from: unsafe fn(&[f32], f32) -> usize,
    pub mask: unsafe fn(&[f32], f32, f32, &mut [f32]),
    pub divide: unsafe fn(&mut [f32], f32),
    pub histogram: unsafe fn(&[f32], &[f32], Scale, &mut Histogram),
    pub find_cell: unsafe fn(&[f32], Scale, u32, &mut [Ranked]) -> usize,
    pub floor: unsafe fn(&mut [f32], f32),
}

impl Kernels {
    /// The largest logit of each block of 64; false if one is not a number or plus infinity.
    pub fn block_maxima(&self, x: &[f32], maxima: &mut [f32]) -> bool {
        assert_eq!(maxima.len(), x.len().div_ceil(BLOCK), "a maximum a block");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.block_maxima)(x, maxima) }
    }

    /// The sum of each block of 64.
    pub fn block_sums(&self, x: &[f32], sums: &mut [f32]) {
        assert_eq!(sums.len(), x.len().div_ceil(BLOCK), "a sum a block");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.block_sums)(x, sums) }
    }

    /// `weights = exp(x - max)`, 0 where that is below 2e-35, and the sum of each block of 64;
    /// returns the whole sum. No `x` is above `max`.
    pub fn exp_weights(&self, x: &[f32], max: f32, weights: &mut [f32], sums: &mut [f32]) -> f64 {
        assert_eq!(x.len(), weights.len(), "one length");
        assert_eq!(sums.len(), x.len().div_ceil(BLOCK), "a sum a block");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.exp_weights)(x, max, weights, sums) }
    }

    /// The sum of `weights * (max - x)`, without what has no weight.
    pub fn weighted_depth(&self, x: &[f32], weights: &[f32], max: f32) -> f64 {
        assert_eq!(x.len(), weights.len(), "one length");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.weighted_depth)(x, weights, max) }
    }

    /// How many logits are not excluded, the sum of their `x - centre`, and that of its squares.
    pub fn moments(&self, x: &[f32], centre: f32) -> [f64; 3] {
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.moments)(x, centre) }
    }

    /// `out = -|x - centre|`.
    pub fn nearness(&self, x: &[f32], centre: f32, out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "one length");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.nearness)(x, centre, out) }
    }

    /// How many of `x` are at least `threshold`.
    pub fn count_from(&self, x: &[f32], threshold: f32) -> usize {
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.count_from)(x, threshold) }
    }

    /// `values = fill` where `keys` are below `threshold`.
    pub fn mask(&self, keys: &[f32], threshold: f32, fill: f32, values: &mut [f32]) {
        assert_eq!(keys.len(), values.len(), "one length");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.mask)(keys, threshold, fill, values) }
    }

    /// Excludes the logits below `threshold`.
    pub fn floor(&self, x: &mut [f32], threshold: f32) {
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.floor)(x, threshold) }
    }

    /// `x /= divisor`, a positive number; what is not excluded stays finite.
    pub fn divide(&self, x: &mut [f32], divisor: f32) {
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.divide)(x, divisor) }
    }

    /// Adds each weight to the cell of its key.
    pub fn histogram(&self, keys: &[f32], weights: &[f32], scale: Scale, masses: &mut Histogram) {
        assert_eq!(keys.len(), weights.len(), "one length");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.histogram)(keys, weights, scale, masses) }
    }

    /// The keys in a cell, by rising position; returns how many.
    pub fn find_cell(&self, keys: &[f32], scale: Scale, cell: u32, found: &mut [Ranked]) -> usize {
        assert!(found.len() >= keys.len(), "room for all");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.find_cell)(keys, scale, cell, found) }
    }
}

/// Block number `at` of `x`; the last one is filled up in `room`.
#[inline(always)]
fn block<'a>(x: &'a [f32], at: usize, fill: f32, room: &'a mut [f32; BLOCK]) -> &'a [f32; BLOCK] {
    let x = &x[at * BLOCK..];
    if let Some(block) = x.first_chunk() {
        return block;
    }
    *room = [fill; BLOCK];
    for (room, x) in room.iter_mut().zip(x) {
        *room = *x;
    }
    room
}

/// See [`Kernels::block_maxima`].
#[inline(always)]
pub(super) fn block_maxima(x: &[f32], maxima: &mut [f32]) -> bool {
    let mut bad = [0.0; LANES];
    for (at, max) in maxima.iter_mut().enumerate() {
        let mut room = [0.0; BLOCK];
        let mut lanes = [f32::NEG_INFINITY; LANES];
        for x in block(x, at, f32::NEG_INFINITY, &mut room)
            .as_chunks::<LANES>()
            .0
        {
            for i in 0..LANES {
                lanes[i] = float::max(lanes[i], x[i]);
            }
            for i in 0..LANES {
                // What is not a number is not below infinity either.
                bad[i] = if x[i] < f32::INFINITY { bad[i] } else { 1.0 };
            }
        }
        *max = max_lanes(&black_box(lanes));
    }
    bad == [0.0; LANES]
}

/// The largest lane, found by the tree of [`sum_lanes`].
#[inline(always)]
fn max_lanes(lanes: &[f32; LANES]) -> f32 {
    let (mut m8, mut m4) = ([0.0; 8], [0.0; 4]);
    for i in 0..8 {
        m8[i] = float::max(lanes[i], lanes[i + 8]);
    }
    for i in 0..4 {
        m4[i] = float::max(m8[i], m8[i + 4]);
    }
    float::max(float::max(m4[0], m4[2]), float::max(m4[1], m4[3]))
}

/// See [`Kernels::block_sums`].
#[inline(always)]
pub(super) fn block_sums(x: &[f32], sums: &mut [f32]) {
    for (at, sum) in sums.iter_mut().enumerate() {
        *sum = block_sum(block(x, at, 0.0, &mut [0.0; BLOCK]));
    }
}

/// The lanes go through memory, lest the tree be woven into the loops around it.
#[inline(always)]
fn block_sum(block: &[f32; BLOCK]) -> f32 {
    let mut lanes = [0.0; LANES];
    for x in block.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            lanes[i] += x[i];
        }
    }
    sum_lanes(&black_box(lanes))
}

/// See [`Kernels::exp_weights`].
#[inline(always)]
pub(super) fn exp_weights(x: &[f32], max: f32, weights: &mut [f32], sums: &mut [f32]) -> f64 {
    let mut total = 0.0;
    for (at, sum) in sums.iter_mut().enumerate() {
        let (mut room, mut out) = ([0.0; BLOCK], [0.0; BLOCK]);
        let x = block(x, at, f32::NEG_INFINITY, &mut room);
        for i in 0..BLOCK {
            let depth = x[i] - max;
            let value = float::exp_within(depth);
            out[i] = if depth > DEEPEST { value } else { 0.0 };
        }
        *sum = block_sum(&out);
        total += f64::from(*sum);
        let weights = &mut weights[at * BLOCK..];
        match weights.first_chunk_mut() {
            Some(weights) => *weights = out,
            None => weights.copy_from_slice(&out[..weights.len()]),
        }
    }
    total
}

/// See [`Kernels::weighted_depth`].
#[inline(always)]
pub(super) fn weighted_depth(x: &[f32], weights: &[f32], max: f32) -> f64 {
    let mut total = 0.0;
    for at in 0..x.len().div_ceil(BLOCK) {
        let (mut room, mut weight_room) = ([0.0; BLOCK], [0.0; BLOCK]);
        let x = block(x, at, 0.0, &mut room);
        let weights = block(weights, at, 0.0, &mut weight_room);
        let mut depths = [0.0; BLOCK];
        for i in 0..BLOCK {
            let depth = weights[i] * (max - x[i]);
            depths[i] = if weights[i] > 0.0 { depth } else { 0.0 };
        }
        total += f64::from(block_sum(&depths));
    }
    total
}

/// See [`Kernels::moments`].
#[inline(always)]
pub(super) fn moments(x: &[f32], centre: f32) -> [f64; 3] {
    let mut totals = [0.0; 3];
    for at in 0..x.len().div_ceil(BLOCK) {
        let mut room = [0.0; BLOCK];
        let x = block(x, at, f32::NEG_INFINITY, &mut room);
        let (mut ones, mut distances, mut squares) = ([0.0; BLOCK], [0.0; BLOCK], [0.0; BLOCK]);
        for i in 0..BLOCK {
            let there = x[i] > f32::NEG_INFINITY;
            let distance = x[i] - centre;
            let distance = if there { distance } else { 0.0 };
            ones[i] = if there { 1.0 } else { 0.0 };
            distances[i] = distance;
            squares[i] = distance * distance;
        }
        totals[0] += f64::from(block_sum(&ones));
        totals[1] += f64::from(block_sum(&distances));
        totals[2] += f64::from(block_sum(&squares));
    }
    totals
}

/// See [`Kernels::nearness`].
#[inline(always)]
pub(super) fn nearness(x: &[f32], centre: f32, out: &mut [f32]) {
    for (x, out) in x.iter().zip(out) {
        *out = -(x - centre).abs();
    }
}

/// See [`Kernels::count_from`].
#[inline(always)]
pub(super) fn count_from(x: &[f32], threshold: f32) -> usize {
    let mut count = 0;
    for block in x.chunks(1 << 16) {
        let mut lanes = [0u32; LANES];
        let (rows, rest) = block.as_chunks::<LANES>();
        for x in rows {
            for i in 0..LANES {
                lanes[i] += u32::from(x[i] >= threshold);
            }
        }
        for x in rest {
            lanes[0] += u32::from(*x >= threshold);
        }
        count += lanes.iter().sum::<u32>() as usize;
    }
    count
}

/// See [`Kernels::mask`].
#[inline(always)]
pub(super) fn mask(keys: &[f32], threshold: f32, fill: f32, values: &mut [f32]) {
    for (key, value) in keys.iter().zip(values) {
        *value = if *key < threshold { fill } else { *value };
    }
}

/// See [`Kernels::floor`].
#[inline(always)]
pub(super) fn floor(x: &mut [f32], threshold: f32) {
    for x in x {
        *x = if *x < threshold {
            f32::NEG_INFINITY
        } else {
            *x
        };
    }
}

/// See [`Kernels::divide`].
#[inline(always)]
pub(super) fn divide(x: &mut [f32], divisor: f32) {
    for x in x {
        let y = *x / divisor;
        let y = if y > f32::MAX { f32::MAX } else { y };
        let y = if y < f32::MIN { f32::MIN } else { y };
        *x = if *x > f32::NEG_INFINITY { y } else { *x };
    }
}

/// See [`Kernels::histogram`].
#[inline(always)]
pub(super) fn histogram(keys: &[f32], weights: &[f32], scale: Scale, masses: &mut Histogram) {
    let [a, b, c, d] = masses;
    for at in 0..keys.len().div_ceil(BLOCK) {
        let (mut room, mut weight_room) = ([0.0; BLOCK], [0.0; BLOCK]);
        let keys = block(keys, at, f32::NEG_INFINITY, &mut room);
        let weights = block(weights, at, 0.0, &mut weight_room);
        // Through memory: taking vectors apart lane by lane is slower.
        let cells = black_box(cells_of(keys, scale));
        for i in (0..BLOCK).step_by(4) {
            a[cells[i] as usize % CELLS] += weights[i];
            b[cells[i + 1] as usize % CELLS] += weights[i + 1];
            c[cells[i + 2] as usize % CELLS] += weights[i + 2];
            d[cells[i + 3] as usize % CELLS] += weights[i + 3];
        }
    }
}

#[inline(always)]
fn cells_of(keys: &[f32; BLOCK], scale: Scale) -> [u32; BLOCK] {
    let mut cells = [0; BLOCK];
    for i in 0..BLOCK {
        cells[i] = scale.cell(keys[i]);
    }
    cells
}

/// See [`Kernels::find_cell`].
#[inline(always)]
pub(super) fn find_cell(keys: &[f32], scale: Scale, cell: u32, found: &mut [Ranked]) -> usize {
    let mut count = 0;
    for at in 0..keys.len().div_ceil(BLOCK) {
        let mut room = [0.0; BLOCK];
        let cells = cells_of(block(keys, at, f32::NEG_INFINITY, &mut room), scale);
        let hit = |hits, own: &u32| hits | u32::from(*own == cell);
        let hits = cells.iter().fold(0, hit);
        if hits == 0 {
            continue;
        }
        let first = at * BLOCK;
        for (i, &key) in keys.iter().enumerate().skip(first).take(BLOCK) {
            let position = i as u32;
            found[count] = Ranked { key, position };
            count += usize::from(cells[i - first] == cell);
        }
    }
    count
}
