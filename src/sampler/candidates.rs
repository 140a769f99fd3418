//! The tokens that may still be picked, and their logits.
//!
//! Tokens stand in rising order. As long as no stage has changed anything, the logits are those of
//! the caller; as long as few are excluded, an excluded one keeps its place with a logit of minus
//! infinity. Weights are `exp(logit - reference)`: proportional to the probabilities.

mod keep;

use crate::error::{Code, Error, Result};
use crate::float;
use crate::kernel::{BLOCK, Kernels, SUMMED};
use crate::sampler::buffers::Buffers;

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
    /// The sum of the weights, while `buffers.room` has those of their parts.
    total: Option<f64>,
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
            total: None,
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
        let Buffers {
            logits,
            maxima,
            room,
            ..
        } = &mut self.buffers;
        let (maxima, room) = (&mut maxima[..blocks], &mut room[..blocks.div_ceil(BLOCK)]);
        let logits = if self.borrowed {
            self.input
        } else {
            &logits[..self.len]
        };
        self.total = None;
        let sound = self.kernels.block_maxima(logits, maxima);
        self.kernels.block_maxima(maxima, room);
        let largest = room
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

    /// Makes the weights and the sums of their parts in `buffers.room`; returns the whole sum.
    pub(super) fn weigh(&mut self) -> Result<f64> {
        if self.reference.is_some() {
            let total = self.total.unwrap_or_else(|| self.sum_blocks());
            if total > 0.0 {
                self.total = Some(total);
                return Ok(total);
            }
        }
        let [total, _] = self.weigh_anew(false)?;
        Ok(total)
    }

    /// Makes the weights; returns their sum and, if wanted, that of their depths: each times how far
    /// its logit lies below the largest.
    fn weigh_anew(&mut self, deep: bool) -> Result<[f64; 2]> {
        /// What the next pass still finds in the cache.
        const NEAR: usize = 8 * SUMMED;
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
        let (mut total, mut depth) = (0.0, 0.0);
        let parts = logits.chunks(NEAR).zip(weights.chunks_mut(NEAR));
        for ((logits, weights), sums) in parts.zip(room.chunks_mut(NEAR / SUMMED)) {
            let weights = &mut weights[..logits.len()];
            let sums = &mut sums[..logits.len().div_ceil(SUMMED)];
            total += self.kernels.exp_weights(logits, largest, weights, sums);
            if deep {
                depth += self.kernels.weighted_depth(logits, weights, largest);
            }
        }
        self.total = Some(total);
        Ok([total, depth])
    }

    /// Sums each part of the weights into `buffers.room`; returns the whole sum.
    fn sum_blocks(&mut self) -> f64 {
        let Buffers { weights, room, .. } = &mut self.buffers;
        let sums = &mut room[..self.len.div_ceil(SUMMED)];
        self.kernels.sums(&weights[..self.len], sums)
    }

    /// The weights made last, (len).
    pub(super) fn weights(&self) -> &[f32] {
        &self.buffers.weights[..self.len]
    }

    /// The logit that weighs 1.
    pub(super) fn reference(&self) -> f32 {
        self.reference.unwrap_or(0.0)
    }

    /// Makes the weights; returns their sum, and the entropy of the distribution, in nats.
    ///
    /// With `p = w / total`: `-sum p ln p = ln total + sum w (reference - x) / total`.
    pub(super) fn weigh_entropy(&mut self) -> Result<(f64, f64)> {
        let [total, depth] = if self.reference.is_none() {
            self.weigh_anew(true)?
        } else {
            let total = self.weigh()?;
            let (logits, weights) = (self.logits(), self.weights());
            let reference = self.reference();
            let depth = self.kernels.weighted_depth(logits, weights, reference);
            [total, depth]
        };
        Ok((total, float::ln64(total) + depth / total))
    }

    /// How many are not excluded.
    pub(super) fn count(&self) -> usize {
        self.kernels.count_from(self.logits(), f32::MIN)
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
