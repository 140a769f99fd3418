//! Ranking the logits and keeping a part of them: the bodies of the passes that look at keys.
//!
//! As in `logits`: written once, compiled for each CPU, the same bits everywhere.

use crate::float;

use super::LANES;
use super::logits::{BLOCK, Reach, STEPS, SUMMED, Steps, add_block, block, settled};

/// What candidates are ranked by, made from their logits as it is read.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'a> {
    /// The logits.
    pub logits: &'a [f32],
    /// If given, the key is not the logit but how near it is to this: `-|logit - centre|`.
    pub centre: Option<f32>,
}

impl<'a> From<&'a [f32]> for Keys<'a> {
    fn from(logits: &'a [f32]) -> Self {
        let centre = None;
        Self { logits, centre }
    }
}

impl Keys<'_> {
    /// The key of a logit.
    #[inline(always)]
    pub fn of(&self, logit: f32) -> f32 {
        match self.centre {
            None => logit,
            Some(centre) => nearness_of(logit, centre),
        }
    }
}

#[inline(always)]
fn nearness_of(logit: f32, centre: f32) -> f32 {
    -(logit - centre).abs()
}

/// A position and the key it is ranked by.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Ranked {
    /// Larger is better.
    pub key: f32,
    /// Where it stands; the lower of two with one key is better.
    pub position: u32,
}

/// See [`Kernels::nearness`].
#[inline(always)]
pub(super) fn nearness(x: &[f32], centre: f32, out: &mut [f32]) {
    for (x, out) in x.iter().zip(out) {
        *out = nearness_of(*x, centre);
    }
}

/// See [`Kernels::mask`].
#[inline(always)]
pub(super) fn mask(keys: Keys<'_>, threshold: f32, fill: f32, values: &mut [f32]) {
    for (logit, value) in keys.logits.iter().zip(values) {
        let below = keys.of(*logit) < threshold;
        *value = if below { fill } else { *value };
    }
}

/// See [`Kernels::exclude`].
#[inline(always)]
pub(super) fn exclude(
    keys: Keys<'_>,
    [low, high]: [f32; 2],
    (weights, sums): (&mut [f32], &mut [f32]),
    found: &mut [Ranked],
) -> usize {
    let mut count = 0;
    let parts = keys.logits.chunks(SUMMED).zip(weights.chunks_mut(SUMMED));
    for (part, ((logits, weights), sum)) in parts.zip(sums).enumerate() {
        let mut lanes = [0.0; LANES];
        let (blocks, rest) = logits.as_chunks();
        let (weight_blocks, weight_rest) = weights.as_chunks_mut();
        for (logits, weights) in blocks.iter().zip(weight_blocks) {
            let above = exclude_block((logits, &keys), weights, [low, high]);
            add_block(&mut lanes, &above);
        }
        let first = part * (SUMMED / BLOCK);
        for (at, logits) in (first..).zip(blocks) {
            collect_block((logits, &keys), at, [low, high], found, &mut count);
        }
        if !rest.is_empty() {
            let (mut room, mut weights) = ([0.0; BLOCK], [0.0; BLOCK]);
            weights[..rest.len()].copy_from_slice(weight_rest);
            let logits = block(rest, 0, f32::NEG_INFINITY, &mut room);
            let above = exclude_block((logits, &keys), &mut weights, [low, high]);
            add_block(&mut lanes, &above);
            weight_rest.copy_from_slice(&weights[..rest.len()]);
            let at = first + blocks.len();
            collect_block((logits, &keys), at, [low, high], found, &mut count);
        }
        *sum = settled(&lanes);
    }
    count
}

/// Takes the weights below `low`; returns those from `high` on.
#[inline(always)]
fn exclude_block(
    (logits, keys): (&[f32; BLOCK], &Keys<'_>),
    weights: &mut [f32; BLOCK],
    [low, high]: [f32; 2],
) -> [f32; BLOCK] {
    let mut above = [0.0; BLOCK];
    for i in 0..BLOCK {
        let below = keys.of(logits[i]) < low;
        weights[i] = if below { 0.0 } else { weights[i] };
    }
    for i in 0..BLOCK {
        let below = keys.of(logits[i]) < high;
        above[i] = if below { 0.0 } else { weights[i] };
    }
    above
}

/// See [`Kernels::masses_from`]. Sums are taken in f32 within 2,048, in f64 over these.
#[inline(always)]
pub(super) fn masses_from(keys: Keys<'_>, weights: &[f32], thresholds: &Steps<f32>) -> Steps<f64> {
    match keys.centre {
        None => masses_of(keys.logits, |logit| logit, weights, thresholds),
        Some(centre) => {
            let key = |logit| nearness_of(logit, centre);
            masses_of(keys.logits, key, weights, thresholds)
        }
    }
}

#[inline(always)]
fn masses_of(
    logits: &[f32],
    key: impl Fn(f32) -> f32,
    weights: &[f32],
    thresholds: &Steps<f32>,
) -> Steps<f64> {
    const SPAN: usize = 2048;
    let mut masses = [0.0; STEPS];
    for (logits, weights) in logits.chunks(SPAN).zip(weights.chunks(SPAN)) {
        let mut lanes = [[0.0; LANES]; STEPS];
        let (rows, rest) = logits.as_chunks();
        let (weight_rows, weight_rest) = weights.as_chunks();
        for (logits, weights) in rows.iter().zip(weight_rows) {
            add_reached(&mut lanes, (logits, &key), weights, thresholds);
        }
        if !rest.is_empty() {
            let weights = row(weight_rest);
            add_reached(&mut lanes, (&row(rest), &key), &weights, thresholds);
        }
        for (mass, lanes) in masses.iter_mut().zip(&lanes) {
            *mass += f64::from(settled(lanes));
        }
    }
    masses
}

#[inline(always)]
fn add_reached(
    lanes: &mut [[f32; LANES]; STEPS],
    (logits, key): (&[f32; LANES], &impl Fn(f32) -> f32),
    weights: &[f32; LANES],
    thresholds: &Steps<f32>,
) {
    for i in 0..LANES {
        let (key, weight) = (key(logits[i]), weights[i]);
        for step in 0..STEPS {
            lanes[step][i] += if key >= thresholds[step] { weight } else { 0.0 };
        }
    }
}

/// The end of a list, filled up with zeros.
#[inline(always)]
fn row(x: &[f32]) -> [f32; LANES] {
    let mut row = [0.0; LANES];
    row[..x.len()].copy_from_slice(x);
    row
}

/// See [`Kernels::group_maxima`].
#[inline(always)]
pub(super) fn group_maxima(x: &[f32], rows: usize, maxima: &mut [f32]) {
    let groups = x.chunks(rows * LANES);
    for (x, maxima) in groups.zip(maxima.as_chunks_mut::<LANES>().0) {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let (rows, rest) = x.as_chunks::<LANES>();
        for x in rows {
            for i in 0..LANES {
                lanes[i] = float::max(lanes[i], x[i]);
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane = float::max(*lane, *x);
        }
        *maxima = lanes;
    }
}

/// See [`Kernels::collect`].
#[inline(always)]
pub(super) fn collect(
    keys: Keys<'_>,
    range: [f32; 2],
    (maxima, reach): Reach<'_>,
    found: &mut [Ranked],
) -> usize {
    let (blocks, rest) = keys.logits.as_chunks();
    let mut count = 0;
    for (at, (logits, max)) in blocks.iter().zip(maxima).enumerate() {
        if *max >= reach {
            collect_block((logits, &keys), at, range, found, &mut count);
        }
    }
    if !rest.is_empty() {
        let mut room = [0.0; BLOCK];
        let logits = block(rest, 0, f32::NEG_INFINITY, &mut room);
        collect_block((logits, &keys), blocks.len(), range, found, &mut count);
    }
    count
}

#[inline(always)]
fn collect_block(
    (logits, keys): (&[f32; BLOCK], &Keys<'_>),
    at: usize,
    [low, high]: [f32; 2],
    found: &mut [Ranked],
    count: &mut usize,
) {
    let mut hits = [0u8; BLOCK];
    for i in 0..BLOCK {
        let key = keys.of(logits[i]);
        hits[i] = u8::from((key >= low) & (key < high));
    }
    for (word, hits) in hits.as_chunks().0.iter().enumerate() {
        let mut hits = u64::from_le_bytes(*hits);
        while hits != 0 {
            let i = word * 8 + hits.trailing_zeros() as usize / 8;
            found[*count] = Ranked {
                key: keys.of(logits[i]),
                position: (at * BLOCK + i) as u32,
            };
            *count += 1;
            hits &= hits - 1;
        }
    }
}
