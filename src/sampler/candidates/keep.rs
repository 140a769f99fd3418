//! What stays of the candidates: by rank, by a cut, by position.
//!
//! If few blocks hold what stays, it is moved together; else the others are excluded where they
//! stand: in the weights if there are some, in the logits only when a stage wants these.

use std::mem;

use crate::error::Result;
use crate::kernel::{BLOCK, Ranked, SUMMED};
use crate::sampler::buffers::Buffers;
use crate::sampler::candidates::Candidates;
use crate::sampler::rank::{Cut, Goal, Ranking, better};

impl Candidates<'_> {
    /// What is needed to rank the logits: maxima, ranking, room, weights.
    pub(in crate::sampler) fn ranking(&mut self) -> Result<Ranks<'_>> {
        self.largest()?;
        self.total = None;
        let blocks = self.len.div_ceil(BLOCK);
        let buffers = &mut self.buffers;
        Ok(Ranks {
            ranking: Ranking {
                kernels: self.kernels,
                keys: match self.borrowed {
                    true => self.input.into(),
                    false => buffers.logits[..self.len].into(),
                },
                order: &mut buffers.order[..self.len],
            },
            maxima: &buffers.maxima[..blocks],
            room: &mut buffers.room,
            weights: &mut buffers.weights[..self.len],
        })
    }

    /// Where the `count` largest logits end.
    pub(in crate::sampler) fn cut_count(&mut self, count: usize) -> Result<Cut> {
        Ok(self.rank_count(count)?.0)
    }

    /// Keeps the `count` largest logits.
    pub(in crate::sampler) fn keep_count(&mut self, count: usize) -> Result<()> {
        let (cut, found) = self.rank_count(count)?;
        if found == 0 {
            return self.keep(cut);
        }
        self.gather_kept(cut, found);
        Ok(())
    }

    fn rank_count(&mut self, count: usize) -> Result<(Cut, usize)> {
        let Ranks {
            mut ranking,
            maxima,
            room,
            ..
        } = self.ranking()?;
        Ok(ranking.by_count(count, maxima, room))
    }

    /// The `count` best, the best first.
    pub(in crate::sampler) fn best(&mut self, count: usize) -> Result<&[Ranked]> {
        let cut = self.cut_count(count)?;
        let Ranks {
            ranking, maxima, ..
        } = self.ranking()?;
        let (range, reach) = ([cut.key, f32::INFINITY], (maxima, cut.key));
        let found = ranking
            .kernels
            .collect(ranking.keys, range, reach, ranking.order);
        let best = &mut ranking.order[..found];
        best.sort_unstable_by(better);
        Ok(&best[..found.min(count)])
    }

    /// Keeps what a cut of the logits keeps.
    pub(in crate::sampler) fn keep(&mut self, cut: Cut) -> Result<()> {
        self.largest()?;
        let blocks = self.len.div_ceil(BLOCK);
        let maxima = &self.buffers.maxima[..blocks];
        let reach = self.kernels.count_from(maxima, cut.key);
        if 2 * reach <= blocks || self.len <= BLOCK {
            return self.compress(cut);
        }
        let weighed = self.reference.is_some();
        if !weighed {
            self.own();
        }
        if weighed {
            self.exclude_by(cut);
        } else {
            let logits = &mut self.buffers.logits[..self.len];
            if cut.tied {
                let behind = &mut logits[cut.position as usize + 1..];
                let tied = behind.iter_mut().filter(|logit| **logit == cut.key);
                tied.for_each(|logit| *logit = f32::NEG_INFINITY);
            }
            self.kernels.floor(logits, cut.key);
        }
        // Maxima of blocks that lost all of theirs are too large: they only cost time. The largest
        // of all stays where it is.
        Ok(())
    }

    /// Keeps the largest logits, or those nearest to a centre, that reach the mass of the goal, and
    /// what `least` keeps; needs the weights.
    pub(in crate::sampler) fn keep_mass(
        &mut self,
        centre: Option<f32>,
        goal: &Goal,
        least: Cut,
    ) -> Result<()> {
        let kernels = self.kernels;
        let Ranks {
            mut ranking,
            maxima,
            room,
            weights,
        } = self.ranking()?;
        ranking.keys.centre = centre;
        let mut search = ranking.search(weights, goal, maxima, room);
        let low = search.range[0].min(least.key);
        search.range[0] = low;
        let Ranking { keys, order, .. } = ranking;
        let reached = kernels.count_from(maxima, low);
        if centre.is_none() && 2 * reached <= maxima.len() {
            let found = kernels.collect(keys, search.range, (maxima, low), order);
            let cut = search.cut(&mut order[..found], weights, goal.wanted);
            return self.compress(cut.or(least));
        }
        let sums = &mut room[..weights.len().div_ceil(SUMMED)];
        let found = kernels.exclude(keys, search.range, (weights, sums), order);
        let order = &mut order[..found];
        let cut = search.cut(order, weights, goal.wanted).or(least);
        for ranked in order {
            let at = ranked.position as usize;
            let kept = cut.keeps(ranked.key, at);
            weights[at] = if kept { weights[at] } else { 0.0 };
            sums[at / SUMMED] += weights[at];
        }
        self.total = Some(whole(sums));
        self.pending = true;
        if centre.is_some() {
            self.largest = None;
        }
        Ok(())
    }

    /// Takes the weight of what a cut of the logits does not keep.
    fn exclude_by(&mut self, cut: Cut) {
        let Buffers {
            logits,
            weights,
            room,
            order,
            ..
        } = &mut self.buffers;
        let logits = match self.borrowed {
            true => self.input,
            false => &logits[..self.len],
        };
        let weights = &mut weights[..self.len];
        if cut.tied {
            let behind = cut.position as usize + 1;
            let pairs = logits[behind..].iter().zip(&mut weights[behind..]);
            let tied = pairs.filter(|(logit, _)| **logit == cut.key);
            tied.for_each(|(_, weight)| *weight = 0.0);
        }
        let sums = &mut room[..self.len.div_ceil(SUMMED)];
        let range = [cut.key; 2];
        let weights_sums = (weights, &mut *sums);
        self.kernels
            .exclude(logits.into(), range, weights_sums, order);
        self.total = Some(whole(sums));
        self.pending = true;
    }

    /// Excludes in the logits what the weights exclude: a stage that wants logits needs that. A
    /// weight that is 0 for being small goes with them.
    pub(in crate::sampler) fn settle(&mut self) {
        if !mem::take(&mut self.pending) {
            return;
        }
        self.own();
        let Buffers {
            logits, weights, ..
        } = &mut self.buffers;
        let (weights, logits) = (&weights[..self.len], &mut logits[..self.len]);
        let kernels = self.kernels;
        kernels.mask(weights.into(), f32::MIN_POSITIVE, f32::NEG_INFINITY, logits);
    }

    /// Excludes the token at a position.
    pub(in crate::sampler) fn exclude(&mut self, position: usize) {
        self.own();
        self.buffers.logits[position] = f32::NEG_INFINITY;
        self.buffers.weights[position] = 0.0;
        self.total = None;
    }

    /// Leaves the token at a position alone.
    pub(in crate::sampler) fn keep_only(&mut self, position: usize) {
        self.replace_all(self.token(position));
    }

    /// Leaves one token alone, whatever it was before.
    pub(in crate::sampler) fn replace_all(&mut self, token: u32) {
        self.buffers.tokens[0] = token;
        self.buffers.logits[0] = 0.0;
        self.len = 1;
        self.all = false;
        self.borrowed = false;
        self.largest = None;
        self.reference = None;
    }

    /// To be called after tokens were excluded one by one.
    pub(in crate::sampler) fn excluded_some(&mut self) {
        self.largest = None;
    }

    /// Takes the places of excluded tokens away.
    pub(in crate::sampler) fn compact(&mut self) -> Result<()> {
        self.compress(Cut::NONE)
    }

    /// Moves together what a cut keeps of the first candidates in `buffers.order`, which stand by
    /// rising position.
    fn gather_kept(&mut self, cut: Cut, found: usize) {
        let Buffers {
            tokens,
            logits,
            weights,
            order,
            ..
        } = &mut self.buffers;
        let mut kept = 0;
        for ranked in &order[..found] {
            let from = ranked.position as usize;
            tokens[kept] = if self.all {
                ranked.position
            } else {
                tokens[from]
            };
            logits[kept] = ranked.key;
            weights[kept] = weights[from];
            kept += usize::from(cut.keeps(ranked.key, from));
        }
        self.all = false;
        self.borrowed = false;
        self.len = kept;
        self.largest = None;
    }

    /// Moves what a cut of the logits keeps together.
    fn compress(&mut self, cut: Cut) -> Result<()> {
        let Ranks {
            ranking, maxima, ..
        } = self.ranking()?;
        let (range, reach) = ([cut.key, f32::INFINITY], (maxima, cut.key));
        let found = ranking
            .kernels
            .collect(ranking.keys, range, reach, ranking.order);
        self.gather_kept(cut, found);
        Ok(())
    }
}

/// The sum of sums.
fn whole(sums: &[f32]) -> f64 {
    sums.iter().map(|sum| f64::from(*sum)).sum()
}

/// What ranking the logits takes.
pub(in crate::sampler) struct Ranks<'a> {
    pub ranking: Ranking<'a>,
    pub maxima: &'a [f32],
    pub room: &'a mut [f32],
    pub weights: &'a mut [f32],
}
