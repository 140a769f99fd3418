//! Cutting a ranking without sorting it.
//!
//! A ranking is by falling key, ties by rising position. By count: at least `count` keys reach the
//! `count`-th largest maximum of groups of keys, so only what reaches it is looked at. By mass: the
//! masses above a few keys tell between which two of them the sum is reached, in a sample first and
//! then in all, and only what lies there is sorted. Nothing of this depends on the CPU.

use std::cmp::Ordering;

use crate::float;
use crate::kernel::{BLOCK, Kernels, Keys, LANES, Ranked, STEPS, Steps};

/// As many are sorted rather than narrowed down.
const FEW: usize = 64;

/// How often these are narrowed down at most: a factor of 2^32.
const NARROWED: usize = 4;

/// How often a range of keys is divided.
const ROUNDS: usize = 2;

/// Of as many blocks one is in the sample.
const SAMPLED: usize = 12;

/// How often a guess is tried and mended.
const TRIES: usize = 3;

/// By which share of the range a guess may be wrong at most.
const WIDEST: f32 = 0.05;

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

    /// Nothing stays.
    pub const ALL: Self = Self::at(f32::INFINITY);

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

    /// Looks for the keys between which the masses reach the goal. `room`: [`group_room`].
    pub fn search(&self, weights: &[f32], goal: &Goal, maxima: &[f32], room: &mut [f32]) -> Search {
        let mut search = Search {
            kernels: self.kernels,
            top: goal.top,
            range: [goal.bound.max(f32::MIN), f32::INFINITY],
            sums: [goal.total, 0.0],
        };
        let reached = self.kernels.count_from(maxima, goal.reach);
        if 2 * reached > maxima.len() && self.keys.logits.len() > BLOCK {
            search.close_in(self.keys, weights, (goal.wanted, goal.total), room);
        }
        search
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

/// The mass that a ranking is to be cut at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Goal {
    pub wanted: f64,
    /// Of all.
    pub total: f64,
    /// No key is above it.
    pub top: f32,
    /// Keys below are certain not to be reached, up to rounding.
    pub bound: f32,
    /// Blocks with a maximum below have no key above `bound`.
    pub reach: f32,
}

/// Looks for the keys between which a sum of masses is reached, from the largest key down.
pub(super) struct Search {
    kernels: &'static Kernels,
    /// The largest key.
    top: f32,
    /// They are in it: at least the first and below the second.
    pub range: [f32; 2],
    /// The masses from these on; the first only where it was looked for.
    sums: [f64; 2],
}

impl Search {
    /// Cuts where the masses sum up to `wanted`; `order` is what lies in the range. It is mixed up.
    pub fn cut(&self, order: &mut [Ranked], weights: &[f32], wanted: f64) -> Cut {
        let (mut limits, mut sum, mut few) = (self.limits(), self.sums[1], order.len());
        for _ in 0..NARROWED {
            if few <= FEW {
                break;
            }
            let Some(cell) = Cell::reached(&order[..few], weights, wanted - sum, limits) else {
                break;
            };
            sum += cell.before;
            few = cell.gather(&mut order[..few]);
            limits = cell.limits();
        }
        let order = &mut order[..few];
        order.sort_unstable_by(better);
        let reached = order.iter().position(|ranked| {
            sum += f64::from(weights[ranked.position as usize]);
            sum >= wanted
        });
        let Some(at) = reached.or(few.checked_sub(1)) else {
            return Cut::NONE;
        };
        let Ranked { key, position } = order[at];
        Cut {
            key: key.max(f32::MIN),
            position,
            tied: order.get(at + 1).is_some_and(|next| next.key == key),
        }
    }

    /// Leaves a small range, by a guess from a sample if that holds.
    fn close_in(
        &mut self,
        keys: Keys<'_>,
        weights: &[f32],
        (wanted, total): (f64, f64),
        room: &mut [f32],
    ) {
        if keys.logits.len() < SAMPLED_FROM {
            for _ in 0..ROUNDS {
                self.divide(keys, weights, wanted, self.within());
            }
            return;
        }
        let sample = Sample::of(keys, weights, room);
        let share = sample.weights.len() as f64 / weights.len() as f64;
        let (mut centre, mut spread) = self.guess(&sample, (total - wanted) * share);
        let widest = WIDEST * (self.top - self.range[0]);
        let before = self.range;
        for _ in 0..TRIES {
            spread = if spread < widest { spread } else { widest };
            let at = [2.0, 0.5, -0.5, -2.0].map(|spreads| centre + spreads * spread);
            let masses = self.divide(keys, weights, wanted, at);
            let density = (masses[3] - masses[0]) / f64::from(4.0 * spread);
            if (self.range[0] > before[0] && self.range[1] < before[1]) || density <= 0.0 {
                return;
            }
            let step = ((masses[1] + masses[2]) / 2.0 - wanted) / density;
            let limit = f64::from(4.0 * widest);
            let step = step.clamp(-limit, limit) as f32;
            centre += step;
            spread = step.abs() / 8.0;
        }
    }

    /// About where a sample leaves `rest`, and by how much that may be wrong. The few large weights
    /// may not be in the sample: what is not reached tells more than what is.
    fn guess(&self, sample: &Sample<'_>, rest: f64) -> (f32, f32) {
        let none = [f32::NEG_INFINITY; STEPS];
        let [total, ..] = self.kernels.masses_from(sample.keys, sample.weights, &none);
        let mut guess = Self {
            sums: [total, 0.0],
            ..*self
        };
        for _ in 0..ROUNDS {
            guess.divide(sample.keys, sample.weights, total - rest, guess.within());
        }
        let [low, high] = guess.limits();
        let [more, less] = guess.sums;
        let width = f64::from(high - low) / (more - less);
        let above = (total - rest - less) * width;
        let centre = high - if above > 0.0 { above as f32 } else { 0.0 };
        let at = [centre, low, low, f32::NEG_INFINITY];
        let [reached, .., all] = self.kernels.masses_from(sample.keys, sample.squares, &at);
        (centre, ((all - reached).sqrt() * width) as f32)
    }

    /// Leaves that part of the range, divided at falling keys, in which the sum is `wanted`; returns
    /// the sums there.
    fn divide(
        &mut self,
        keys: Keys<'_>,
        weights: &[f32],
        wanted: f64,
        at: Steps<f32>,
    ) -> Steps<f64> {
        let masses = self.kernels.masses_from(keys, weights, &at);
        for (at, mass) in at.into_iter().zip(masses) {
            if mass >= wanted && at > self.range[0] {
                (self.range[0], self.sums[0]) = (at, mass);
            }
            if mass < wanted && at < self.range[1] {
                (self.range[1], self.sums[1]) = (at, mass);
            }
        }
        masses
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

/// A part of the keys, with their weights and the squares of these.
struct Sample<'a> {
    keys: Keys<'a>,
    weights: &'a [f32],
    squares: &'a [f32],
}

impl<'a> Sample<'a> {
    /// Copies some blocks to `room`.
    fn of(keys: Keys<'_>, weights: &[f32], room: &'a mut [f32]) -> Self {
        /// Weights with smaller squares do not matter.
        const LEAST: f32 = 1e-18;
        let len = weights.len() / (SAMPLED * BLOCK) * BLOCK;
        let (logits, room) = room.split_at_mut(len);
        let (sample, squares) = room.split_at_mut(len);
        let every = |from: &[f32], to: &mut [f32]| {
            let blocks = from.as_chunks::<BLOCK>().0.iter().skip(SAMPLED / 2);
            for (to, block) in to.as_chunks_mut().0.iter_mut().zip(blocks.step_by(SAMPLED)) {
                *to = *block;
            }
        };
        every(keys.logits, logits);
        every(weights, sample);
        for (square, weight) in squares.iter_mut().zip(&*sample) {
            *square = if *weight > LEAST {
                weight * weight
            } else {
                0.0
            };
        }
        Self {
            keys: Keys { logits, ..keys },
            weights: sample,
            squares: &squares[..len],
        }
    }
}

/// How many numbers a ranking of `keys` needs room for.
pub(super) fn group_room(keys: usize) -> usize {
    keys.div_ceil(GROUP_ROWS * LANES) * LANES
}

/// One of the cells that a range of keys is divided into.
struct Cell {
    at: usize,
    /// The masses in the cells above it.
    before: f64,
    top: f32,
    scale: f32,
}

impl Cell {
    const COUNT: usize = 256; // on the stack

    /// The cell in which the masses reach `wanted`, if one does.
    fn reached(
        order: &[Ranked],
        weights: &[f32],
        wanted: f64,
        [low, top]: [f32; 2],
    ) -> Option<Self> {
        let mut cell = Self {
            at: 0,
            before: 0.0,
            top,
            scale: Self::COUNT as f32 / (top - low),
        };
        let mut masses = [0.0f64; Self::COUNT];
        for ranked in order {
            masses[cell.of(ranked.key)] += f64::from(weights[ranked.position as usize]);
        }
        for mass in masses {
            if cell.before + mass >= wanted {
                return Some(cell);
            }
            cell.before += mass;
            cell.at += 1;
        }
        None
    }

    /// The cell of a key: rises as keys fall.
    fn of(&self, key: f32) -> usize {
        // The cast saturates.
        (((self.top - key) * self.scale) as i32).clamp(0, Self::COUNT as i32 - 1) as usize
    }

    /// Moves what lies in the cell to the front; returns how many that are.
    fn gather(&self, order: &mut [Ranked]) -> usize {
        let mut kept = 0;
        for i in 0..order.len() {
            if self.of(order[i].key) == self.at {
                order.swap(kept, i);
                kept += 1;
            }
        }
        kept
    }

    /// Its range of keys, about.
    fn limits(&self) -> [f32; 2] {
        [self.at + 1, self.at].map(|cells| self.top - cells as f32 / self.scale)
    }
}
