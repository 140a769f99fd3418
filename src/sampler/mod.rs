//! From logits to a token: a chain of stages, each in a file that names its source.
//!
//! A pick depends on (stages, seed, logits, tokens so far, step) and on nothing else; only
//! mirostat and adaptive-p learn something from pick to pick, which [`Sampler::state`] saves and
//! [`Sampler::restore`] brings back. Random numbers are drawn by (seed, step, draw), the drawing
//! stages of a chain numbered from 0; a stage that is off is no part of the chain. All arithmetic
//! is that of [`crate::float`] in a fixed order: same seed, same tokens, on every CPU. Ties go to
//! the lower token.

mod buffers;
mod candidates;
pub mod diversity;
mod dry;
mod infill;
mod options;
mod penalty;
mod pick;
mod probability;
mod rank;
mod saved;
mod stage;
mod temperature;
mod truncate;
mod validate;

use std::mem;

use serde::{Deserialize, Serialize};

use crate::budget::Budget;
use crate::error::{Code, Error, Result};
use crate::kernel::{self, Kernels};
use crate::random::{Random, entropy_seed};

pub use candidates::Candidates;
pub use dry::Dry;
pub use infill::Infill;
pub use options::{Mirostat, SamplerOptions, StageKind};
pub use penalty::Penalties;
pub use probability::{Scored, log_probability, top_log_probabilities};
pub use saved::SavedSampler;
pub use stage::{Custom, CustomStage, Stage};
pub use validate::{ChiSquare, DRAWS_MAX, check_frequencies, chi_square};

use buffers::Buffers;

/// Picks tokens; a clone in the same state picks the same.
#[derive(Debug)]
pub struct Sampler {
    kernels: &'static Kernels,
    seed: u64,
    /// The last one picks, and no other.
    links: Vec<Link>,
    state: SamplerState,
    buffers: Buffers,
}

/// Memory of picks for samplers that pick one after the other: they need it once.
#[derive(Debug, Default)]
pub struct PickRoom(Buffers);

impl PickRoom {
    /// Nothing yet, to be charged to `budget`.
    pub fn on(budget: &Budget) -> Self {
        Self(Buffers::on(budget))
    }
}

/// What a sampler has learnt from its picks; small, so that it can be kept for every turn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SamplerState {
    learner: Learner,
    /// Mirostat: the limit of the surprise, mu. Adaptive-p: the sum of the probabilities of the
    /// tokens so far, each weighted by its age, and the sum of these weights.
    memory: [f64; 2],
}

/// The stage that learns, and what it was told to reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Learner {
    Nobody,
    Mirostat { tau: f32, eta: f32 },
    Mirostat2 { tau: f32, eta: f32 },
    AdaptiveP { target: f32, decay: f32 },
}

#[derive(Debug, Clone)]
struct Link {
    stage: Stage,
    /// Number of its random number.
    draw: u32,
}

/// A token with its probability after all stages.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chance {
    /// The token.
    pub token: u32,
    /// Above 0; those of all tokens sum up to 1.
    pub probability: f64,
}

impl Clone for Sampler {
    /// Without the memory that [`Sampler::reserve`] has made.
    fn clone(&self) -> Self {
        Self {
            kernels: self.kernels,
            seed: self.seed,
            links: self.links.clone(),
            state: self.state,
            buffers: Buffers::default(),
        }
    }
}

impl Sampler {
    /// A sampler with the chain that the options stand for.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming a parameter that is out of range.
    pub fn new(options: &SamplerOptions) -> Result<Self> {
        Self::from_stages(options.stages()?, options.seed)
    }

    /// A sampler of these stages, first to last. Without one that picks, a pick by the distribution
    /// is added. `seed`: `None` for one from the operating system.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming a parameter that is out of range, or a stage behind one that picks.
    pub fn from_stages(mut stages: Vec<Stage>, seed: Option<u64>) -> Result<Self> {
        stages.iter().try_for_each(Stage::check)?;
        if let Some(at) = stages.iter().position(Stage::picks)
            && at + 1 < stages.len()
        {
            let message = format!("stage {at} picks, but {} follow", stages.len() - at - 1);
            return Err(Error::new(Code::InvalidArgument, "stages", message));
        }
        stages.retain(|stage| !stage.is_neutral());
        if !stages.last().is_some_and(Stage::picks) {
            stages.push(Stage::Pick);
        }
        let mut draws = 0;
        let links = stages.into_iter().map(|stage| {
            let draw = draws;
            draws += u32::from(stage.draws());
            Link { stage, draw }
        });
        let mut sampler = Self {
            kernels: kernel::detect(),
            seed: seed.unwrap_or_else(entropy_seed),
            links: links.collect(),
            state: SamplerState {
                learner: Learner::Nobody,
                memory: [0.0; 2],
            },
            buffers: Buffers::default(),
        };
        sampler.reset();
        Ok(sampler)
    }

    /// The stages, first to last, without those that are off.
    pub fn stages(&self) -> impl Iterator<Item = &Stage> {
        self.links.iter().map(|link| &link.stage)
    }

    /// The same sampler on other kernels; it picks the same.
    #[must_use]
    pub fn with_kernels(mut self, kernels: &'static Kernels) -> Self {
        self.kernels = kernels;
        self
    }

    /// The seed in use.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Makes room for a vocabulary and for so many tokens before the one that is picked, so that
    /// picks allocate nothing; or fails with `OUT_OF_MEMORY`.
    pub fn reserve(&mut self, vocab: usize, history: usize) -> Result<()> {
        self.buffers.reserve(vocab, history)
    }

    /// Charges the memory of its picks to `budget` from now on.
    pub fn charge(&mut self, budget: &Budget) {
        self.buffers = Buffers::on(budget);
    }

    /// Exchanges the memory of its picks. What a failed pick leaves in it is not for others.
    pub fn swap_room(&mut self, room: &mut PickRoom) {
        mem::swap(&mut self.buffers, &mut room.0);
    }

    /// Whether it learns from its picks: its last stage is mirostat or adaptive-p.
    pub fn learns(&self) -> bool {
        self.state.learner != Learner::Nobody
    }

    /// What it has learnt.
    pub fn state(&self) -> SamplerState {
        self.state
    }

    /// Takes it back to a state it, or a clone, was in; says whether the state is one for it. That
    /// of a sampler whose last stage is another, or has other parameters, changes nothing.
    pub fn restore(&mut self, state: SamplerState) -> bool {
        let fits = state.learner == self.state.learner;
        if fits {
            self.state = state;
        }
        fits
    }

    /// Takes it back to the start.
    pub fn reset(&mut self) {
        let learner = match self.links.last().map(|link| &link.stage) {
            Some(&Stage::Mirostat { tau, eta }) => Learner::Mirostat { tau, eta },
            Some(&Stage::Mirostat2 { tau, eta }) => Learner::Mirostat2 { tau, eta },
            Some(&Stage::AdaptiveP { target, decay }) => Learner::AdaptiveP { target, decay },
            _ => Learner::Nobody,
        };
        let memory = match learner {
            Learner::Nobody => [0.0; 2],
            Learner::Mirostat { tau, .. } | Learner::Mirostat2 { tau, .. } => {
                [2.0 * f64::from(tau), 0.0]
            }
            // As if all tokens so far had met the target.
            Learner::AdaptiveP { target, decay } => {
                let weights = 1.0 / (1.0 - f64::from(decay));
                [f64::from(target) * weights, weights]
            }
        };
        self.state = SamplerState { learner, memory };
    }

    /// The token for `logits`, (vocab), at `step`: the token's position in its sequence. `history`
    /// are the tokens before it; penalties and DRY look at them.
    ///
    /// # Errors
    /// `NONFINITE` if a logit is not a number or plus infinity, or no token is left to pick; what a
    /// stage of the user's own answers.
    pub fn sample(&mut self, logits: &[f32], history: &[u32], step: u64) -> Result<u32> {
        self.with_candidates(logits, history, step, |sampler, candidates| {
            let prepared = sampler.prepare(candidates)?;
            let position = sampler.pick(candidates, &prepared)?;
            sampler.learn(candidates, &prepared, position);
            Ok(candidates.token(position))
        })
    }

    /// The distribution that `sample` would pick from, tokens rising; the state stays as it is.
    pub fn distribution(
        &mut self,
        logits: &[f32],
        history: &[u32],
        step: u64,
    ) -> Result<Vec<Chance>> {
        self.with_candidates(logits, history, step, |sampler, candidates| {
            let prepared = sampler.prepare(candidates)?;
            if prepared.chosen.is_some() || sampler.is_greedy() {
                let position = sampler.pick(candidates, &prepared)?;
                candidates.keep_only(position);
            }
            let total = candidates.weigh()?;
            let chance = |(i, weight): (usize, &f32)| Chance {
                token: candidates.token(i),
                probability: f64::from(*weight) / total,
            };
            let weights = candidates.weights().iter().enumerate();
            let possible = weights.filter(|(_, w)| **w > 0.0);
            let mut chances = buffers::room(possible.clone().count())?;
            chances.extend(possible.map(chance));
            Ok(chances)
        })
    }

    fn with_candidates<R>(
        &mut self,
        logits: &[f32],
        history: &[u32],
        step: u64,
        work: impl FnOnce(&mut Self, &mut Candidates<'_>) -> Result<R>,
    ) -> Result<R> {
        let buffers = mem::take(&mut self.buffers);
        let mut candidates = Candidates::new(self.kernels, buffers, logits, history, step)?;
        let result = work(self, &mut candidates);
        self.buffers = candidates.into_buffers();
        result
    }

    fn is_greedy(&self) -> bool {
        let last = self.links.last().map(|link| &link.stage);
        matches!(last, Some(Stage::Greedy))
    }

    /// Runs the chain up to the pick itself.
    fn prepare(&mut self, candidates: &mut Candidates<'_>) -> Result<Prepared> {
        let random = Random {
            seed: self.seed,
            step: candidates.step(),
        };
        let mut prepared = Prepared::default();
        candidates.largest()?;
        for link in &mut self.links {
            let [memory, weights] = self.state.memory;
            if !matches!(link.stage, Stage::Pick) {
                candidates.settle();
            }
            match &mut link.stage {
                Stage::LogitBias(bias) => penalty::bias(candidates, bias),
                Stage::Penalties(penalties) => penalties.apply(candidates),
                Stage::Dry(dry) => dry.apply(candidates),
                Stage::TopK(count) => truncate::top_k(candidates, *count)?,
                Stage::TopP { p, min_keep } => truncate::top_p(candidates, *p, *min_keep)?,
                Stage::MinP { p, min_keep } => truncate::min_p(candidates, *p, *min_keep)?,
                Stage::Typical { p, min_keep } => truncate::typical(candidates, *p, *min_keep)?,
                Stage::TopNSigma(n) => truncate::top_n_sigma(candidates, *n)?,
                Stage::Xtc {
                    probability,
                    threshold,
                    min_keep,
                } => {
                    let parameters = (*probability, *threshold);
                    truncate::xtc(candidates, parameters, *min_keep, (random, link.draw))?;
                }
                Stage::Temperature(temperature) => temperature::fixed(candidates, *temperature)?,
                Stage::DynamicTemperature {
                    temperature,
                    range,
                    exponent,
                } => temperature::dynamic(candidates, *temperature, *range, *exponent)?,
                Stage::Infill(infill) => infill.apply(candidates)?,
                Stage::Custom(custom) => {
                    candidates.compact()?;
                    custom.0.apply(candidates)?;
                    candidates.largest()?;
                    if let Some(chosen) = candidates.chosen() {
                        prepared.chosen = Some(chosen);
                        return Ok(prepared);
                    }
                }
                Stage::Greedy | Stage::Pick => {}
                Stage::Mirostat { .. } => {
                    prepared.normalizer = pick::normalizer(candidates)?;
                    pick::mirostat(candidates, memory)?;
                }
                Stage::Mirostat2 { .. } => {
                    prepared.normalizer = pick::normalizer(candidates)?;
                    pick::mirostat2(candidates, prepared.normalizer, memory)?;
                }
                Stage::AdaptiveP { target, .. } => {
                    let wanted = 2.0 * f64::from(*target) - memory / weights;
                    pick::adaptive(candidates, wanted.clamp(0.0, 1.0))?;
                }
            }
            prepared.draw = link.draw;
        }
        Ok(prepared)
    }

    /// The position of the token that is picked.
    fn pick(&self, candidates: &mut Candidates<'_>, prepared: &Prepared) -> Result<usize> {
        if let Some(chosen) = prepared.chosen {
            return Ok(chosen);
        }
        if self.is_greedy() {
            return pick::best(candidates);
        }
        let random = Random {
            seed: self.seed,
            step: candidates.step(),
        };
        pick::by_weight(candidates, random.unit_f64(prepared.draw))
    }

    /// Lets the stage that picks see what was picked.
    fn learn(&mut self, candidates: &Candidates<'_>, prepared: &Prepared, position: usize) {
        let [memory, weights] = &mut self.state.memory;
        if prepared.chosen.is_some() {
            return;
        }
        match self.state.learner {
            Learner::Nobody => {}
            Learner::Mirostat { tau, eta } | Learner::Mirostat2 { tau, eta } => {
                let logit = f64::from(candidates.logits()[position]);
                let surprise = (prepared.normalizer - logit) / std::f64::consts::LN_2;
                *memory -= f64::from(eta) * (surprise - f64::from(tau));
            }
            Learner::AdaptiveP { decay, .. } => {
                let decay = f64::from(decay);
                let probability = f64::from(candidates.buffers.keys[position]);
                *memory = probability + decay * *memory;
                *weights = 1.0 + decay * *weights;
            }
        }
    }
}

/// What the stages before the pick leave to it.
#[derive(Debug, Default)]
struct Prepared {
    /// A stage of the user's own has picked this position.
    chosen: Option<usize>,
    draw: u32,
    /// The logarithm of the sum of `e^x` over all candidates that mirostat saw.
    normalizer: f64,
}

#[cfg(test)]
mod tests;
