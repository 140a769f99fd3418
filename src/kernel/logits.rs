//! Passes over a vocabulary's logits: what picking a token costs.
//!
//! Bodies as in `lanes`: written once, compiled for each CPU, the same bits everywhere. Sums are
//! taken in f32 within 256, or fewer (lane = position mod 16, then the tree), and in f64 over these, in
//! order. A logit of minus infinity is a token that is excluded.

use std::hint::black_box;

use crate::float::{self, sum_lanes};

use super::selection::{Keys, Ranked};
use super::{Kernels, LANES};

/// Logits that share a maximum.
pub const BLOCK: usize = 64;

/// Weights that share a sum: the tree that ends it costs as much as a block.
pub const SUMMED: usize = 4 * BLOCK;

/// Thresholds of one pass of [`Kernels::masses_from`].
pub const STEPS: usize = 4;

/// A value for each threshold.
pub type Steps<T> = [T; STEPS];

/// See [`Kernels::masses_from`].
type MassesFrom = unsafe fn(Keys<'_>, &[f32], &Steps<f32>) -> Steps<f64>;

/// See [`Kernels::exclude`].
type Exclude = unsafe fn(Keys<'_>, [f32; 2], (&mut [f32], &mut [f32]), &mut [Ranked]) -> usize;

/// The maxima of blocks, and what a block's must reach to be looked at.
pub type Reach<'a> = (&'a [f32], f32);

/// Differences below which a weight is 0; it keeps subnormal numbers, which are slow, out.
const DEEPEST: f32 = -80.0;

/// All pointers are unsafe to call without the CPU's features; see [`Kernels`].
#[derive(Clone, Copy)]
pub(super) struct LogitFunctions {
    pub block_maxima: unsafe fn(&[f32], &mut [f32]) -> bool,
    pub sums: unsafe fn(&[f32], &mut [f32]) -> f64,
    pub exp_weights: unsafe fn(&[f32], f32, &mut [f32], &mut [f32]) -> f64,
    pub weighted_depth: unsafe fn(&[f32], &[f32], f32) -> f64,
    pub moments: unsafe fn(&[f32], f32) -> [f64; 3],
    pub nearness: unsafe fn(&[f32], f32, &mut [f32]),
    pub count_from: unsafe fn(&[f32], f32) -> usize,
    pub mask: unsafe fn(Keys<'_>, f32, f32, &mut [f32]),
    pub exclude: Exclude,
    pub divide: unsafe fn(&mut [f32], f32),
    pub masses_from: MassesFrom,
    pub group_maxima: unsafe fn(&[f32], usize, &mut [f32]),
    pub collect: unsafe fn(Keys<'_>, [f32; 2], Reach<'_>, &mut [Ranked]) -> usize,
    pub floor: unsafe fn(&mut [f32], f32),
}

impl Kernels {
    /// The largest logit of each block of 64; false if one is not a number or plus infinity.
    pub fn block_maxima(&self, x: &[f32], maxima: &mut [f32]) -> bool {
        assert_eq!(maxima.len(), x.len().div_ceil(BLOCK), "a maximum a block");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.block_maxima)(x, maxima) }
    }

    /// The sum of each 256; returns the whole sum.
    pub fn sums(&self, x: &[f32], sums: &mut [f32]) -> f64 {
        assert_eq!(sums.len(), x.len().div_ceil(SUMMED), "a sum for each 256");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.sums)(x, sums) }
    }

    /// `weights = exp(x - max)`, 0 where that is below 2e-35, and the sum of each 256;
    /// returns the whole sum. No `x` is above `max`.
    pub fn exp_weights(&self, x: &[f32], max: f32, weights: &mut [f32], sums: &mut [f32]) -> f64 {
        assert_eq!(x.len(), weights.len(), "one length");
        assert_eq!(sums.len(), x.len().div_ceil(SUMMED), "a sum for each 256");
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
    pub fn mask(&self, keys: Keys<'_>, threshold: f32, fill: f32, values: &mut [f32]) {
        assert_eq!(keys.logits.len(), values.len(), "one length");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.mask)(keys, threshold, fill, values) }
    }

    /// `weights = 0` where `keys` are below `low`, the sum of each 256 weights whose keys are at
    /// least `high`, and the keys from `low` up to, without it, `high`, by rising position; returns
    /// how many these are. `low` is finite.
    pub fn exclude(
        &self,
        keys: Keys<'_>,
        range: [f32; 2],
        (weights, sums): (&mut [f32], &mut [f32]),
        found: &mut [Ranked],
    ) -> usize {
        assert_eq!(keys.logits.len(), weights.len(), "one length");
        let parts = weights.len().div_ceil(SUMMED);
        assert_eq!(sums.len(), parts, "a sum for each 256");
        assert!(found.len() >= keys.logits.len(), "room for all");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.exclude)(keys, range, (weights, sums), found) }
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

    /// For each threshold the sum of the weights whose keys reach it.
    pub fn masses_from(
        &self,
        keys: Keys<'_>,
        weights: &[f32],
        thresholds: &Steps<f32>,
    ) -> Steps<f64> {
        assert_eq!(keys.logits.len(), weights.len(), "one length");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.masses_from)(keys, weights, thresholds) }
    }

    /// The maxima of groups: of each `rows` rows of 16, one for each of the 16 columns.
    pub fn group_maxima(&self, x: &[f32], rows: usize, maxima: &mut [f32]) {
        let groups = x.len().div_ceil(rows * LANES) * LANES;
        assert_eq!(maxima.len(), groups, "a maximum a group");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.group_maxima)(x, rows, maxima) }
    }

    /// The keys from `low` up to, without it, `high`, by rising position; returns how many. Only
    /// blocks of 64 whose largest logits reach `reach` are looked at.
    pub fn collect(
        &self,
        keys: Keys<'_>,
        range: [f32; 2],
        (maxima, reach): Reach<'_>,
        found: &mut [Ranked],
    ) -> usize {
        assert!(found.len() >= keys.logits.len(), "room for all");
        assert_eq!(
            maxima.len(),
            keys.logits.len().div_ceil(BLOCK),
            "a maximum a block"
        );
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.logits.collect)(keys, range, (maxima, reach), found) }
    }
}

/// Block number `at` of `x`; the last one is filled up in `room`.
#[inline(always)]
pub(super) fn block<'a>(
    x: &'a [f32],
    at: usize,
    fill: f32,
    room: &'a mut [f32; BLOCK],
) -> &'a [f32; BLOCK] {
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
    let (mut bad, mut room) = ([0.0; LANES], [0.0; BLOCK]);
    for (at, max) in maxima.iter_mut().enumerate() {
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

/// See [`Kernels::sums`].
#[inline(always)]
pub(super) fn sums(x: &[f32], sums: &mut [f32]) -> f64 {
    let (mut total, mut room) = (0.0, [0.0; BLOCK]);
    for (x, sum) in x.chunks(SUMMED).zip(sums) {
        let mut lanes = [0.0; LANES];
        for at in 0..x.len().div_ceil(BLOCK) {
            add_block(&mut lanes, block(x, at, 0.0, &mut room));
        }
        *sum = settled(&lanes);
        total += f64::from(*sum);
    }
    total
}

/// Changes weights by their logits, in blocks that are filled up with `fill`, and sums them.
#[inline(always)]
pub(super) fn change_and_sum(
    (x, fill): (&[f32], f32),
    weights: &mut [f32],
    sums: &mut [f32],
    change: impl Fn(&[f32; BLOCK], &mut [f32; BLOCK]),
) -> f64 {
    let mut total = 0.0;
    let parts = x.chunks(SUMMED).zip(weights.chunks_mut(SUMMED));
    for ((x, weights), sum) in parts.zip(sums) {
        let mut lanes = [0.0; LANES];
        let (blocks, rest) = x.as_chunks();
        let (weight_blocks, weight_rest) = weights.as_chunks_mut();
        for (x, weights) in blocks.iter().zip(weight_blocks) {
            change(x, weights);
            add_block(&mut lanes, weights);
        }
        if !rest.is_empty() {
            let (mut room, mut weights) = ([0.0; BLOCK], [0.0; BLOCK]);
            weights[..rest.len()].copy_from_slice(weight_rest);
            change(block(rest, 0, fill, &mut room), &mut weights);
            weight_rest.copy_from_slice(&weights[..rest.len()]);
            weights[rest.len()..].fill(0.0);
            add_block(&mut lanes, &weights);
        }
        *sum = settled(&lanes);
        total += f64::from(*sum);
    }
    total
}

#[inline(always)]
pub(super) fn add_block(lanes: &mut [f32; LANES], block: &[f32; BLOCK]) {
    for x in block.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            lanes[i] += x[i];
        }
    }
}

/// The sum of lanes, which go through memory, lest the tree be woven into the loops around it.
#[inline(always)]
pub(super) fn settled(lanes: &[f32; LANES]) -> f32 {
    sum_lanes(&black_box(*lanes))
}

/// See [`Kernels::exp_weights`].
#[inline(always)]
pub(super) fn exp_weights(x: &[f32], max: f32, weights: &mut [f32], sums: &mut [f32]) -> f64 {
    change_and_sum((x, f32::NEG_INFINITY), weights, sums, |x, weights| {
        for i in 0..BLOCK {
            let depth = x[i] - max;
            let value = float::exp_within(depth);
            weights[i] = if depth > DEEPEST { value } else { 0.0 };
        }
    })
}

/// See [`Kernels::weighted_depth`].
#[inline(always)]
pub(super) fn weighted_depth(x: &[f32], weights: &[f32], max: f32) -> f64 {
    // Of the sums only the whole one is wanted, so the tree is climbed once for several blocks.
    const SEVERAL: usize = 8 * BLOCK;
    let mut total = 0.0;
    let (mut room, mut weight_room) = ([0.0; BLOCK], [0.0; BLOCK]);
    for (x, weights) in x.chunks(SEVERAL).zip(weights.chunks(SEVERAL)) {
        // One chain of sums would take longer than the loads.
        let mut several = [0.0; BLOCK];
        for at in 0..x.len().div_ceil(BLOCK) {
            let x = block(x, at, 0.0, &mut room);
            let weights = block(weights, at, 0.0, &mut weight_room);
            for i in 0..BLOCK {
                let depth = weights[i] * (max - x[i]);
                several[i] += if weights[i] > 0.0 { depth } else { 0.0 };
            }
        }
        let mut lanes = [0.0; LANES];
        add_block(&mut lanes, &black_box(several));
        total += f64::from(settled(&lanes));
    }
    total
}

/// See [`Kernels::moments`].
#[inline(always)]
pub(super) fn moments(x: &[f32], centre: f32) -> [f64; 3] {
    let (mut totals, mut room) = ([0.0; 3], [0.0; BLOCK]);
    for at in 0..x.len().div_ceil(BLOCK) {
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
        for (total, values) in totals.iter_mut().zip([&ones, &distances, &squares]) {
            let mut lanes = [0.0; LANES];
            add_block(&mut lanes, values);
            *total += f64::from(settled(&lanes));
        }
    }
    totals
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
