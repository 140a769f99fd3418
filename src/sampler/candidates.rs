//! The tokens that may still be picked, and their logits.
//!
//! Tokens stand in rising order. As long as no stage has changed anything, the logits are those of
//! the caller; as long as few are excluded, an excluded one keeps its place with a logit of minus
//! infinity. Weights are `exp(logit - reference)`: proportional to the probabilities.

use std::mem;

use crate::error::{Code, Error, Result};
use crate::float;
use crate::kernel::{BLOCK, Kernels, Ranked};
use crate::sampler::buffers::Buffers;
use crate::sampler::rank::{Cut, Ranking, better};

/// The tokens that may still be picked. A stage of one's own sees and changes them.
#[derive(Debug)]
pub struct Candidates<'a> {
    pub(super) kernels: &'static Kernels,
    pub(super) buffers: Buffers,
    input: &'a [f32],
    history: &'a [u32],
    step: u64,
    len: usize,
    /// The logits are still the caller's.
    borrowed: bool,
    /// Token `i` is at position `i`; `buffers.tokens` is not written.
    all: bool,
    /// The largest logit, while it and `buffers.maxima` hold.
    largest: Option<f32>,
    /// What the weights refer to, while they hold.
    reference: Option<f32>,
    /// What has no weight is excluded, but its logit is still there.
    pending: bool,
    chosen: Option<usize>,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(
        kernels: &'static Kernels,
        mut buffers: Buffers,
        input: &'a [f32],
        history: &'a [u32],
        step: u64,
    ) -> Result<Self> {
        buffers.reserve(input.len(), 0)?;
        Ok(Self {
            kernels,
            buffers,
            input,
            history,
            step,
            len: input.len(),
            borrowed: true,
            all: true,
            largest: None,
            reference: None,
            pending: false,
            chosen: None,
        })
    }

    /// The tokens before the one that is picked.
    pub fn history(&self) -> &'a [u32] {
        self.history
    }

    /// The step that is picked for: the token's position in its sequence.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// How many tokens there are, excluded ones with a place included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The token at a position below `len`. Positions and tokens rise together.
    pub fn token(&self, position: usize) -> u32 {
        if self.all {
            position as u32
        } else {
            self.buffers.tokens[position]
        }
    }

    /// The position of a token, unless it is gone.
    pub fn position(&self, token: u32) -> Option<usize> {
        if self.all {
            let position = token as usize;
            return (position < self.len).then_some(position);
        }
        self.buffers.tokens[..self.len].binary_search(&token).ok()
    }

    /// The logits, (len); minus infinity: excluded.
    pub fn logits(&self) -> &[f32] {
        if self.borrowed {
            self.input
        } else {
            &self.buffers.logits[..self.len]
        }
    }

    /// The logits to change; minus infinity excludes a token for good.
    pub fn logits_mut(&mut self) -> &mut [f32] {
        self.own();
        self.largest = None;
        self.reference = None;
        &mut self.buffers.logits[..self.len]
    }

    /// The tokens, rising, and their logits to change; both (len).
    pub fn parts_mut(&mut self) -> (&[u32], &mut [f32]) {
        self.name_tokens();
        self.logits_mut();
        let Buffers { tokens, logits, .. } = &mut self.buffers;
        (&tokens[..self.len], &mut logits[..self.len])
    }

    /// Excludes the tokens for which `keep`, given token and logit, is false.
    pub fn retain(&mut self, mut keep: impl FnMut(u32, f32) -> bool) {
        let (tokens, logits) = self.parts_mut();
        for (token, logit) in tokens.iter().zip(logits) {
            if *logit > f32::NEG_INFINITY && !keep(*token, *logit) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// Picks the token at a position: the stages behind this one are skipped.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if there is none, or it is excluded.
    pub fn choose(&mut self, position: usize) -> Result<()> {
        match self.logits().get(position) {
            Some(logit) if *logit > f32::NEG_INFINITY => {
                self.chosen = Some(position);
                Ok(())
            }
            _ => {
                let message = format!("position {position} holds no candidate");
                Err(Error::new(Code::InvalidArgument, "choose", message))
            }
        }
    }

    pub(super) fn chosen(&self) -> Option<usize> {
        self.chosen
    }

    pub(super) fn into_buffers(self) -> Buffers {
        self.buffers
    }

    /// The largest logit.
    ///
    /// # Errors
    /// `NONFINITE` if there is none, or one that is not a number or plus infinity.
    pub(super) fn largest(&mut self) -> Result<f32> {
        if let Some(largest) = self.largest {
            return Ok(largest);
        }
        let blocks = self.len.div_ceil(BLOCK);
        let maxima = &mut self.buffers.maxima[..blocks];
        let logits = if self.borrowed {
            self.input
        } else {
            &self.buffers.logits[..self.len]
        };
        let sound = self.kernels.block_maxima(logits, maxima);
        let largest = maxima
            .iter()
            .fold(f32::NEG_INFINITY, |a, b| float::max(a, *b));
        if !sound || largest == f32::NEG_INFINITY {
            return Err(self.unsound());
        }
        self.largest = Some(largest);
        Ok(largest)
    }

    #[cold]
    fn unsound(&self) -> Error {
        let bad = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
        let message = match self.logits().iter().position(bad) {
            Some(at) => format!("token {}: {}", self.token(at), self.logits()[at]),
            None => "no token is left to pick".into(),
        };
        Error::new(Code::NonFinite, "logits", message)
    }

    /// Makes the weights and the sums of their blocks in `buffers.room`; returns the whole sum.
    pub(super) fn weigh(&mut self) -> Result<f64> {
        if self.reference.is_some() {
            let total = self.sum_blocks();
            if total > 0.0 {
                return Ok(total);
            }
        }
        let largest = self.largest()?;
        self.reference = Some(largest);
        let Buffers {
            logits,
            weights,
            room,
            ..
        } = &mut self.buffers;
        let logits = if self.borrowed {
            self.input
        } else {
            &logits[..self.len]
        };
        let (weights, sums) = (
            &mut weights[..self.len],
            &mut room[..logits.len().div_ceil(BLOCK)],
        );
        Ok(self.kernels.exp_weights(logits, largest, weights, sums))
    }

    /// Sums the weights of each block into `buffers.room`; returns the whole sum.
    fn sum_blocks(&mut self) -> f64 {
        let Buffers { weights, room, .. } = &mut self.buffers;
        let sums = &mut room[..self.len.div_ceil(BLOCK)];
        self.kernels.block_sums(&weights[..self.len], sums);
        sums.iter().map(|sum| f64::from(*sum)).sum()
    }

    /// The weights made last, (len).
    pub(super) fn weights(&self) -> &[f32] {
        &self.buffers.weights[..self.len]
    }

    /// The logit that weighs 1.
    pub(super) fn reference(&self) -> f32 {
        self.reference.unwrap_or(0.0)
    }

    /// The entropy of the distribution, in nats; `total` is the sum of the weights.
    ///
    /// With `p = w / total`: `-sum p ln p = ln total + sum w (reference - x) / total`.
    pub(super) fn entropy(&self, total: f64) -> f64 {
        let (logits, weights) = (self.logits(), self.weights());
        let depth = self
            .kernels
            .weighted_depth(logits, weights, self.reference());
        float::ln64(total) + depth / total
    }

    /// How many are not excluded.
    pub(super) fn count(&self) -> usize {
        self.kernels.count_from(self.logits(), f32::MIN)
    }

    /// What is needed to rank the logits: maxima, ranking, room, weights.
    pub(super) fn ranking(&mut self) -> Result<Ranks<'_>> {
        self.largest()?;
        let blocks = self.len.div_ceil(BLOCK);
        let buffers = &mut self.buffers;
        Ok(Ranks {
            ranking: Ranking {
                kernels: self.kernels,
                keys: if self.borrowed {
                    self.input
                } else {
                    &buffers.logits[..self.len]
                },
                order: &mut buffers.order[..self.len],
            },
            maxima: &buffers.maxima[..blocks],
            room: &mut buffers.room,
            weights: &buffers.weights[..self.len],
        })
    }

    /// Where the `count` largest logits end.
    pub(super) fn cut_count(&mut self, count: usize) -> Result<Cut> {
        Ok(self.rank_count(count)?.0)
    }

    /// Keeps the `count` largest logits.
    pub(super) fn keep_count(&mut self, count: usize) -> Result<()> {
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
    pub(super) fn best(&mut self, count: usize) -> Result<&[Ranked]> {
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
    pub(super) fn keep(&mut self, cut: Cut) -> Result<()> {
        self.largest()?;
        let blocks = self.len.div_ceil(BLOCK);
        let maxima = &self.buffers.maxima[..blocks];
        let reach = maxima.iter().filter(|max| **max >= cut.key).count();
        if 2 * reach <= blocks || self.len <= BLOCK {
            return self.compress(cut);
        }
        let weighed = self.reference.is_some();
        if !weighed {
            self.own();
        }
        let Buffers {
            logits, weights, ..
        } = &mut self.buffers;
        if weighed {
            let logits = if self.borrowed {
                self.input
            } else {
                &logits[..self.len]
            };
            exclude(self.kernels, logits, cut, &mut weights[..self.len]);
            self.pending = true;
        } else {
            let logits = &mut logits[..self.len];
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

    /// Keeps what a cut of `buffers.keys` keeps; needs the weights.
    pub(super) fn keep_by_keys(&mut self, cut: Cut) {
        let Buffers { weights, keys, .. } = &mut self.buffers;
        let (keys, weights) = (&keys[..self.len], &mut weights[..self.len]);
        exclude(self.kernels, keys, cut, weights);
        self.pending = true;
        self.largest = None;
    }

    /// Excludes in the logits what the weights exclude: a stage that wants logits needs that. A
    /// weight that is 0 for being small goes with them.
    pub(super) fn settle(&mut self) {
        if !mem::take(&mut self.pending) {
            return;
        }
        self.own();
        let Buffers {
            logits, weights, ..
        } = &mut self.buffers;
        let (weights, logits) = (&weights[..self.len], &mut logits[..self.len]);
        let kernels = self.kernels;
        kernels.mask(weights, f32::MIN_POSITIVE, f32::NEG_INFINITY, logits);
    }

    /// Excludes the token at a position.
    pub(super) fn exclude(&mut self, position: usize) {
        self.own();
        self.buffers.logits[position] = f32::NEG_INFINITY;
        self.buffers.weights[position] = 0.0;
    }

    /// Leaves the token at a position alone.
    pub(super) fn keep_only(&mut self, position: usize) {
        self.replace_all(self.token(position));
    }

    /// Leaves one token alone, whatever it was before.
    pub(super) fn replace_all(&mut self, token: u32) {
        self.buffers.tokens[0] = token;
        self.buffers.logits[0] = 0.0;
        self.len = 1;
        self.all = false;
        self.borrowed = false;
        self.largest = None;
        self.reference = None;
    }

    /// To be called after tokens were excluded one by one.
    pub(super) fn excluded_some(&mut self) {
        self.largest = None;
    }

    /// Takes the places of excluded tokens away.
    pub(super) fn compact(&mut self) -> Result<()> {
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

    /// Copies the caller's logits.
    fn own(&mut self) {
        if self.borrowed {
            self.buffers.logits[..self.len].copy_from_slice(self.input);
            self.borrowed = false;
        }
    }

    fn name_tokens(&mut self) {
        if self.all {
            for (token, place) in (0..).zip(&mut self.buffers.tokens[..self.len]) {
                *place = token;
            }
            self.all = false;
        }
    }
}

/// Takes the weight of what a cut of the keys does not keep.
fn exclude(kernels: &Kernels, keys: &[f32], cut: Cut, weights: &mut [f32]) {
    if cut.tied {
        let behind = cut.position as usize + 1;
        let pairs = keys[behind..].iter().zip(&mut weights[behind..]);
        let tied = pairs.filter(|(key, _)| **key == cut.key);
        tied.for_each(|(_, weight)| *weight = 0.0);
    }
    kernels.mask(keys, cut.key, 0.0, weights);
}

/// What ranking the logits takes.
pub(super) struct Ranks<'a> {
    pub ranking: Ranking<'a>,
    pub maxima: &'a [f32],
    pub room: &'a mut [f32],
    pub weights: &'a [f32],
}
