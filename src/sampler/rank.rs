//! Cutting a ranking without sorting it.
//!
//! A ranking is by falling key, ties by rising position. By count: at least `count` keys reach the
//! `count`-th largest maximum of groups of keys, so only what reaches it is looked at. By mass: the
//! masses above a few keys tell between which two of them the sum is reached, in a sample first and
//! then in all, and only what lies there is sorted. Nothing of this depends on the CPU.

use std::cmp::Ordering;

use crate::float;
use crate::kernel::{BLOCK, Kernels, Keys, LANES, Ranked, Reach, STEPS, Steps};

/// As many are sorted rather than narrowed down.
const FEW: usize = 64;

/// How often a range of keys is divided.
const ROUNDS: usize = 3;

/// Of as many blocks one is in the sample.
const SAMPLED: usize = 8;

/// As few keys need no sample.
const SAMPLED_FROM: usize = 8192;

/// The fewest rows of a group of keys, 16 of which share their rows.
const GROUP_ROWS: usize = 4;

/// The last of a ranking that stays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cut {
    pub key: f32,
    /// Of several with the key, those up to this one stay.
    pub position: u32,
    /// Whether one with the same key does not stay.
    pub tied: bool,
}

impl Cut {
    /// All that is not excluded stays.
    pub const NONE: Self = Self::at(f32::MIN);

    /// What reaches the key stays.
    pub const fn at(key: f32) -> Self {
        Self {
            key,
            position: u32::MAX,
            tied: false,
        }
    }

    #[inline(always)]
    pub fn keeps(&self, key: f32, position: usize) -> bool {
        (key > self.key) | ((key == self.key) & (position <= self.position as usize))
    }

    /// The cut that keeps more.
    pub fn or(self, other: Self) -> Self {
        let (a, b) = (self.ranked(), other.ranked());
        if better(&a, &b) == Ordering::Greater {
            self
        } else {
            other
        }
    }

    fn ranked(&self) -> Ranked {
        let &Self { key, position, .. } = self;
        Ranked { key, position }
    }
}

/// What is ranked, and where there is room to do it.
#[derive(Debug)]
pub(super) struct Ranking<'a> {
    pub kernels: &'static Kernels,
    /// Minus infinity: excluded.
    pub keys: Keys<'a>,
    /// As long as the keys.
    pub order: &'a mut [Ranked],
}

/// Less: `a` stands before `b`.
pub(super) fn better(a: &Ranked, b: &Ranked) -> Ordering {
    b.key
        .partial_cmp(&a.key)
        .unwrap_or(Ordering::Equal)
        .then(a.position.cmp(&b.position))
}

impl Ranking<'_> {
    /// Cuts after `count`; the keys are logits. `maxima` are those of their blocks; `room`:
    /// [`group_room`].
    ///
    /// If there is room, what was looked at stays in `order`, by rising position: the number that
    /// is returned, of which the cut keeps some; else that is 0.
    pub fn by_count(&mut self, count: usize, maxima: &[f32], room: &mut [f32]) -> (Cut, usize) {
        if count == 0 || count >= self.keys.logits.len() {
            return (Cut::NONE, 0);
        }
        let threshold = self.threshold(count, maxima, room);
        let range = [threshold, f32::INFINITY];
        let reach = (maxima, threshold);
        let found = self.kernels.collect(self.keys, range, reach, self.order);
        if count >= found {
            return (Cut::at(threshold), found);
        }
        let kept = if 2 * found <= self.order.len() {
            found
        } else {
            0
        };
        self.order.copy_within(..kept, found);
        let found = &mut self.order[kept..kept + found];
        let (_, last, rest) = found.select_nth_unstable_by(count - 1, better);
        let cut = Cut {
            key: last.key,
            position: last.position,
            tied: rest.iter().any(|other| other.key == last.key),
        };
        (cut, kept)
    }

    /// Cuts where the masses sum up to `wanted`, of `total` in all. Keys below `bound` are certain
    /// not to be reached, up to rounding, and none is above `top`; blocks with a maximum below
    /// `reach` have none above `bound`. `room`: [`group_room`].
    pub fn by_mass(
        &mut self,
        weights: &[f32],
        (wanted, total): (f64, f64),
        (top, bound): (f32, f32),
        (maxima, reach): Reach<'_>,
        room: &mut [f32],
    ) -> Cut {
        let mut search = Search {
            kernels: self.kernels,
            top,
            range: [bound.max(f32::MIN), f32::INFINITY],
            sum: 0.0,
        };
        let reached = maxima.iter().filter(|max| **max >= reach).count();
        if 2 * reached > maxima.len() && self.keys.logits.len() > BLOCK {
            search.close_in(self.keys, weights, (wanted, total), room);
        }
        let Search { mut sum, range, .. } = search;
        let reach = (maxima, reach);
        let mut found = self.kernels.collect(self.keys, range, reach, self.order);
        while found > FEW {
            let order = &mut self.order[..found];
            let Some((fewer, before)) = narrow(order, weights, wanted - sum) else {
                break;
            };
            sum += before;
            found = fewer;
        }
        let order = &mut self.order[..found];
        order.sort_unstable_by(better);
        let reached = order.iter().position(|ranked| {
            sum += f64::from(weights[ranked.position as usize]);
            sum >= wanted
        });
        let Some(at) = reached.or(found.checked_sub(1)) else {
            return Cut::NONE;
        };
        let Ranked { key, position } = order[at];
        Cut {
            key: key.max(f32::MIN),
            position,
            tied: order.get(at + 1).is_some_and(|next| next.key == key),
        }
    }

    /// A finite number that at least `count` keys reach, if there are as many: the `count`-th
    /// largest maximum, of groups that are as large as they may be for that.
    fn threshold(&self, count: usize, maxima: &[f32], room: &mut [f32]) -> f32 {
        let groups = if 2 * count > maxima.len() {
            let rows = (self.keys.logits.len() / (2 * LANES * count)).max(GROUP_ROWS);
            let groups = self.keys.logits.len().div_ceil(rows * LANES) * LANES;
            self.kernels
                .group_maxima(self.keys.logits, rows, &mut room[..groups]);
            groups
        } else {
            // Of whole blocks: larger groups make fewer maxima to choose from.
            let group = (maxima.len() / (3 * count)).max(1);
            for (maxima, room) in maxima.chunks(group).zip(&mut *room) {
                let max = |a, b: &f32| float::max(a, *b);
                *room = maxima.iter().fold(f32::NEG_INFINITY, max);
            }
            maxima.len().div_ceil(group)
        };
        if count > groups {
            return f32::MIN;
        }
        let falling = |a: &f32, b: &f32| b.total_cmp(a);
        let (_, threshold, _) = room[..groups].select_nth_unstable_by(count - 1, falling);
        threshold.max(f32::MIN)
    }
}

/// Looks for the keys between which a sum of masses is reached, from the largest key down.
struct Search {
    kernels: &'static Kernels,
    /// The largest key.
    top: f32,
    /// They are in it: at least the first and below the second.
    range: [f32; 2],
    /// The masses above it.
    sum: f64,
}

impl Search {
    /// Leaves a small range, by a guess from a sample if that holds.
    fn close_in(
        &mut self,
        keys: Keys<'_>,
        weights: &[f32],
        (wanted, total): (f64, f64),
        room: &mut [f32],
    ) {
        let (sample, sample_weights) = if keys.logits.len() < SAMPLED_FROM {
            (keys, weights)
        } else {
            sample(keys, weights, room)
        };
        // The few large weights may not be in the sample: what is not reached tells more.
        let all = [f32::NEG_INFINITY; STEPS];
        let [sampled, ..] = self.kernels.masses_from(sample, sample_weights, &all);
        let share = sample.logits.len() as f64 / keys.logits.len() as f64;
        let mut guess = Self { ..*self };
        for _ in 0..ROUNDS {
            let wanted = sampled - (total - wanted) * share;
            guess.divide(sample, sample_weights, wanted, guess.within());
        }
        let [low, high] = guess.limits();
        // Where few large weights lie on both sides, the guess is off by several widths.
        let width = high - low;
        let around = [high + 2.0 * width, high, low, low - 2.0 * width];
        let before = self.range;
        self.divide(keys, weights, wanted, around);
        if self.range[0] == before[0] {
            let at = [4.0, 8.0, 16.0, 48.0].map(|widths| low - widths * width);
            self.divide(keys, weights, wanted, at);
        } else if self.range[1] == before[1] {
            let at = [48.0, 16.0, 8.0, 4.0].map(|widths| high + widths * width);
            self.divide(keys, weights, wanted, at);
        }
    }

    /// Leaves that part of the range, divided at falling keys, in which the sum is `wanted`.
    fn divide(&mut self, keys: Keys<'_>, weights: &[f32], wanted: f64, at: Steps<f32>) {
        let masses = self.kernels.masses_from(keys, weights, &at);
        for (at, mass) in at.into_iter().zip(masses) {
            if mass >= wanted {
                self.range[0] = at;
                return;
            }
            (self.range[1], self.sum) = (at, mass);
        }
    }

    /// The range, to be calculated with.
    fn limits(&self) -> [f32; 2] {
        let [low, high] = self.range;
        [low, if high < self.top { high } else { self.top }]
    }

    /// Keys that divide the range evenly.
    fn within(&self) -> Steps<f32> {
        let [low, high] = self.limits();
        let step = (high - low) / (STEPS + 1) as f32;
        let mut at = [0.0; STEPS];
        for (i, at) in (1..).zip(&mut at) {
            *at = high - i as f32 * step;
        }
        at
    }
}

/// Copies some blocks of logits and weights.
fn sample<'r>(keys: Keys<'r>, weights: &[f32], room: &'r mut [f32]) -> (Keys<'r>, &'r [f32]) {
    let logits = keys.logits.as_chunks::<BLOCK>().0;
    let weights = weights.as_chunks::<BLOCK>().0;
    let len = logits.len() / SAMPLED * BLOCK;
    let (logit_room, weight_room) = room[..2 * len].split_at_mut(len);
    let every = |blocks: &[[f32; BLOCK]], room: &mut [f32]| {
        let chosen = blocks.iter().skip(SAMPLED / 2).step_by(SAMPLED);
        for (room, block) in room.as_chunks_mut().0.iter_mut().zip(chosen) {
            *room = *block;
        }
    };
    every(logits, logit_room);
    every(weights, weight_room);
    let logits = logit_room;
    (Keys { logits, ..keys }, weight_room)
}

/// How many numbers a ranking of `keys` needs room for.
pub(super) fn group_room(keys: usize) -> usize {
    keys.div_ceil(GROUP_ROWS * LANES) * LANES
}

/// Divides the range of keys into cells and keeps the cell in which the masses reach `wanted`;
/// returns how many that are, and the mass of those before. `None` if it cannot be narrowed.
fn narrow(order: &mut [Ranked], weights: &[f32], wanted: f64) -> Option<(usize, f64)> {
    const CELLS: usize = 256; // on the stack
    let (mut low, mut top) = (f32::INFINITY, f32::NEG_INFINITY);
    for ranked in &*order {
        low = if ranked.key < low { ranked.key } else { low };
        top = if ranked.key > top { ranked.key } else { top };
    }
    let scale = (CELLS - 1) as f32 / (top - low);
    // Rises as keys fall; the cast saturates.
    let cell = |key: f32| (((top - key) * scale) as usize).min(CELLS - 1);
    let mut masses = [0.0f64; CELLS];
    for ranked in &*order {
        masses[cell(ranked.key)] += f64::from(weights[ranked.position as usize]);
    }
    let mut before = 0.0;
    let reached = masses.iter().position(|mass| {
        let reached = before + mass >= wanted;
        before += if reached { 0.0 } else { *mass };
        reached
    })?;
    let mut kept = 0;
    for i in 0..order.len() {
        let ranked = order[i];
        order[kept] = ranked;
        kept += usize::from(cell(ranked.key) == reached);
    }
    (0 < kept && kept < order.len()).then_some((kept, before))
}
