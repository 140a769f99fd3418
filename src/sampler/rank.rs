//! Cutting a ranking without sorting it.
//!
//! A ranking is by falling key, ties by rising position. By count: at least `count` keys reach the
//! `count`-th largest block maximum, so only blocks that reach it are looked at. By mass: a
//! histogram of masses over the keys finds the cell in which the sum is reached, and only what lies
//! in it is sorted. Nothing of this depends on the CPU.

use std::cmp::Ordering;

use crate::float;
use crate::kernel::{BLOCK, CELLS, Histogram, Kernels, LANES, Ranked, Scale};

/// As many are sorted rather than narrowed down.
const FEW: usize = 64;

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
    pub keys: &'a [f32],
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
    /// Cuts after `count`. `maxima` are those of the blocks of keys, `room` is as long.
    ///
    /// If there is room, what was looked at stays in `order`, by rising position: the number that
    /// is returned, of which the cut keeps some; else that is 0.
    pub fn by_count(&mut self, count: usize, maxima: &[f32], room: &mut [f32]) -> (Cut, usize) {
        if count == 0 || count >= self.keys.len() {
            return (Cut::NONE, 0);
        }
        let threshold = threshold(count, maxima, room);
        let found = self.collect(threshold, (maxima, threshold));
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

    /// Cuts where the masses sum up to `wanted`. Keys below `bound` are certain not to be reached,
    /// up to rounding, and none is above `top`; blocks with a maximum below `reach` have none above
    /// `bound`.
    pub fn by_mass(
        &mut self,
        weights: &[f32],
        wanted: f64,
        (top, bound): (f32, f32),
        (maxima, reach): (&[f32], f32),
        masses: &mut Histogram,
    ) -> Cut {
        let mut sum = 0.0;
        let reached = maxima.iter().filter(|max| **max >= reach).count();
        let mut found = if 2 * reached <= maxima.len() || self.keys.len() <= BLOCK {
            self.collect(bound.max(f32::MIN), (maxima, reach))
        } else {
            let scale = Scale::new(top, top - bound);
            masses.as_flattened_mut().fill(0.0);
            self.kernels.histogram(self.keys, weights, scale, masses);
            let Some((cell, before)) = find(masses, wanted) else {
                return Cut::NONE;
            };
            sum = before;
            self.kernels.find_cell(self.keys, scale, cell, self.order)
        };
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

    /// The keys that reach `threshold`, by rising position, of the blocks whose maxima reach `reach`;
    /// returns how many.
    fn collect(&mut self, threshold: f32, (maxima, reach): (&[f32], f32)) -> usize {
        let mut found = 0;
        for (block, (keys, max)) in self.keys.chunks(BLOCK).zip(maxima).enumerate() {
            if *max < reach {
                continue;
            }
            for (row, keys) in keys.chunks(LANES).enumerate() {
                if !keys
                    .iter()
                    .fold(false, |any, key| any | (*key >= threshold))
                {
                    continue;
                }
                for (i, &key) in keys.iter().enumerate() {
                    let position = (block * BLOCK + row * LANES + i) as u32;
                    self.order[found] = Ranked { key, position };
                    found += usize::from(key >= threshold);
                }
            }
        }
        found
    }
}

/// A finite number that at least `count` keys reach, if there are as many: the `count`-th largest
/// maximum, of groups of blocks that are as large as they may be for that.
fn threshold(count: usize, maxima: &[f32], room: &mut [f32]) -> f32 {
    const GROUPS: usize = 3;
    let group = (maxima.len() / (GROUPS * count)).max(1);
    let mut groups = 0;
    for (maxima, room) in maxima.chunks(group).zip(&mut *room) {
        *room = maxima
            .iter()
            .fold(f32::NEG_INFINITY, |a, b| float::max(a, *b));
        groups += 1;
    }
    if count > groups {
        return f32::MIN;
    }
    let falling = |a: &f32, b: &f32| b.total_cmp(a);
    let (_, threshold, _) = room[..groups].select_nth_unstable_by(count - 1, falling);
    threshold.max(f32::MIN)
}

/// The first cell in which the sum of the masses reaches `wanted`, and the sum before it.
fn find(masses: &Histogram, wanted: f64) -> Option<(u32, f64)> {
    let mut sum = 0.0;
    let [a, b, c, d] = masses;
    for cell in 0..CELLS {
        let next = sum + f64::from((a[cell] + b[cell]) + (c[cell] + d[cell]));
        if next >= wanted {
            return Some((cell as u32, sum));
        }
        sum = next;
    }
    None
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
