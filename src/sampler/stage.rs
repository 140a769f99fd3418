//! The stages of a sampler, their parameters and what these may be.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::sampler::candidates::Candidates;
use crate::sampler::dry::Dry;
use crate::sampler::infill::Infill;
use crate::sampler::penalty::{Penalties, check_bias, expect};

/// A step from logits to a token. Each says its source in its own file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Stage {
    /// Adds to the logits of tokens; minus infinity excludes a token.
    LogitBias(Vec<(u32, f32)>),
    /// Repetition, frequency and presence penalties.
    Penalties(Penalties),
    /// Penalties for going on with a repetition.
    Dry(Dry),
    /// Keeps so many of the most likely tokens; 0: all.
    TopK(usize),
    /// Keeps the most likely tokens with a sum of probabilities.
    TopP {
        /// The sum, above 0; 1: all.
        p: f32,
        /// Never fewer tokens than this.
        min_keep: usize,
    },
    /// Keeps the tokens that are likely enough, compared with the most likely one.
    MinP {
        /// Their ratio, 0 to 1; 0: all.
        p: f32,
        /// Never fewer tokens than this.
        min_keep: usize,
    },
    /// Keeps the tokens whose surprise is nearest to the expected one, with a sum of probabilities.
    Typical {
        /// The sum, above 0; 1: all.
        p: f32,
        /// Never fewer tokens than this.
        min_keep: usize,
    },
    /// Keeps the logits within so many standard deviations of the largest; 0: all.
    TopNSigma(f32),
    /// Excludes the top choices but the last, now and then.
    Xtc {
        /// How often; 0: never.
        probability: f32,
        /// What a top choice is: at least this likely. Above 0.5 there is never more than one.
        threshold: f32,
        /// Never fewer tokens than this.
        min_keep: usize,
    },
    /// Divides the logits; 0 keeps the most likely token alone.
    Temperature(f32),
    /// Divides the logits by a temperature that rises with the entropy.
    DynamicTemperature {
        /// Middle of the temperatures.
        temperature: f32,
        /// How far they lie from it at most, not below 0; 0: not at all.
        range: f32,
        /// Power of the share of the largest entropy; 1: linear.
        exponent: f32,
    },
    /// For filling a gap in a text.
    Infill(#[serde(skip)] Infill),
    /// Picks the most likely token.
    Greedy,
    /// Picks by the distribution.
    Pick,
    /// Picks so that the surprise of the tokens comes near a target, by a fit of Zipf's law.
    Mirostat {
        /// The target, in bits.
        tau: f32,
        /// How fast the limit of the surprise is corrected.
        eta: f32,
    },
    /// The same, by cutting at a surprise.
    Mirostat2 {
        /// The target, in bits.
        tau: f32,
        /// How fast the limit of the surprise is corrected.
        eta: f32,
    },
    /// Picks so that the probability of the tokens comes near a target.
    AdaptiveP {
        /// The target, 0 to 1.
        target: f32,
        /// Weight of the past, 0 to 0.99: about `1 / (1 - decay)` tokens count.
        decay: f32,
    },
    /// One of the user's own; the last here, lest what is skipped shift the numbers of others.
    #[serde(skip)]
    Custom(Custom),
}

/// A stage of the user's own.
pub trait CustomStage: Send + Sync {
    /// Changes the candidates, or chooses one of them. An error ends the pick with that error.
    ///
    /// For reproducible picks it should depend on nothing but the candidates.
    fn apply(&mut self, candidates: &mut Candidates<'_>) -> Result<()>;

    /// Another one in the same state, for a copy of the sampler.
    fn duplicate(&self) -> Box<dyn CustomStage>;
}

/// Holds a [`CustomStage`] in a chain.
pub struct Custom(pub Box<dyn CustomStage>);

impl Clone for Custom {
    fn clone(&self) -> Self {
        Self(self.0.duplicate())
    }
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Custom")
    }
}

impl Stage {
    /// `INVALID_ARGUMENT` naming a parameter that is out of range.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::LogitBias(bias) => check_bias(bias),
            Self::Penalties(penalties) => penalties.check(),
            Self::Dry(dry) => dry.check(),
            Self::TopP { p, .. } => share_above_0("top_p", *p),
            Self::MinP { p, .. } => share("min_p", *p),
            Self::Typical { p, .. } => share_above_0("typical_p", *p),
            Self::TopNSigma(n) => at_least_0("top_n_sigma", *n),
            Self::Xtc {
                probability,
                threshold,
                ..
            } => {
                share("xtc_probability", *probability)?;
                share("xtc_threshold", *threshold)
            }
            Self::Temperature(temperature) => at_least_0("temperature", *temperature),
            Self::DynamicTemperature {
                temperature,
                range,
                exponent,
            } => {
                at_least_0("temperature", *temperature)?;
                at_least_0("dynamic_temperature_range", *range)?;
                at_least_0("dynamic_temperature_exponent", *exponent)
            }
            Self::Mirostat { tau, eta } | Self::Mirostat2 { tau, eta } => {
                at_least_0("mirostat_tau", *tau)?;
                at_least_0("mirostat_eta", *eta)
            }
            Self::AdaptiveP { target, decay } => {
                share("adaptive_target", *target)?;
                let holds = (0.0..=0.99).contains(decay);
                expect(holds, "adaptive_decay", "a number from 0 to 0.99", *decay)
            }
            Self::TopK(_) | Self::Infill(_) | Self::Custom(_) | Self::Greedy | Self::Pick => Ok(()),
        }
    }

    /// Whether it changes nothing and draws nothing.
    pub(super) fn is_neutral(&self) -> bool {
        match self {
            Self::LogitBias(bias) => bias.is_empty(),
            Self::Penalties(penalties) => penalties.is_neutral(),
            Self::Dry(dry) => dry.is_neutral(),
            Self::TopK(count) => *count == 0,
            Self::TopP { p, .. } | Self::Typical { p, .. } => *p == 1.0,
            Self::MinP { p, .. } => *p == 0.0,
            Self::TopNSigma(n) => *n == 0.0,
            Self::Xtc {
                probability,
                threshold,
                ..
            } => *probability == 0.0 || *threshold > 0.5,
            Self::Temperature(temperature) => *temperature == 1.0,
            Self::DynamicTemperature {
                temperature, range, ..
            } => *temperature == 1.0 && *range == 0.0,
            _ => false,
        }
    }

    /// Whether it picks a token: only the last of a chain does.
    pub(super) fn picks(&self) -> bool {
        matches!(
            self,
            Self::Greedy
                | Self::Pick
                | Self::Mirostat { .. }
                | Self::Mirostat2 { .. }
                | Self::AdaptiveP { .. }
        )
    }

    /// Whether it draws a random number.
    pub(super) fn draws(&self) -> bool {
        matches!(self, Self::Xtc { .. }) || (self.picks() && !matches!(self, Self::Greedy))
    }
}

fn at_least_0(name: &str, value: f32) -> Result<()> {
    let holds = value.is_finite() && value >= 0.0;
    expect(holds, name, "a finite number of at least 0", value)
}

fn share(name: &str, value: f32) -> Result<()> {
    let holds = (0.0..=1.0).contains(&value);
    expect(holds, name, "a number from 0 to 1", value)
}

fn share_above_0(name: &str, value: f32) -> Result<()> {
    let holds = value > 0.0 && value <= 1.0;
    expect(holds, name, "a number above 0, at most 1", value)
}
