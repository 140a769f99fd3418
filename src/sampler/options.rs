//! A sampler's parameters as plain fields, and the chain they stand for.

use crate::error::{Code, Error, Result};
use crate::sampler::dry::Dry;
use crate::sampler::infill::Infill;
use crate::sampler::penalty::Penalties;
use crate::sampler::{Custom, Stage};

/// How tokens are picked. All is off in the default, except for temperature 0.8, top-k 40 and
/// top-p 0.95.
#[derive(Debug, Clone)]
pub struct SamplerOptions {
    /// Divides the logits; 0 picks the most likely token always.
    pub temperature: f32,
    /// Only this many of the most likely tokens are considered; 0: all.
    pub top_k: usize,
    /// Only the most likely tokens whose probabilities sum up to this are considered; 1: all.
    pub top_p: f32,
    /// Seed of the picks; `None`: one from the operating system, see `Sampler::seed`.
    pub seed: Option<u64>,

    /// How far the temperature moves with the entropy, up and down; 0: off.
    pub dynamic_temperature_range: f32,
    /// Power of the share of the largest entropy.
    pub dynamic_temperature_exponent: f32,
    /// Only tokens at least this likely, compared with the most likely one; 0: off.
    pub min_p: f32,
    /// Only the tokens of the most expected surprise, up to this sum of probabilities; 1: off.
    pub typical_p: f32,
    /// Only logits within so many standard deviations of the largest; 0: off.
    pub top_n_sigma: f32,
    /// How often the top choices but the last are excluded; 0: off.
    pub xtc_probability: f32,
    /// How likely a top choice is at least.
    pub xtc_threshold: f32,
    /// Top-p, min-p, typical and XTC leave at least this many tokens (at least 1 in any case).
    pub min_keep: usize,

    /// Tokens that the penalties look back on; 0: none, `usize::MAX`: all.
    pub penalty_last: usize,
    /// Divides the logits of these tokens; 1: off.
    pub repetition_penalty: f32,
    /// Subtracted from the logit for each occurrence; 0: off.
    pub frequency_penalty: f32,
    /// Subtracted from the logits of these tokens; 0: off.
    pub presence_penalty: f32,
    /// Strength of DRY; 0: off.
    pub dry_multiplier: f32,
    /// Growth of DRY with each token repeated.
    pub dry_base: f32,
    /// The shortest repetition that DRY penalizes, in tokens.
    pub dry_allowed_length: usize,
    /// Tokens that DRY looks back on; 0: none, `usize::MAX`: all.
    pub dry_last: usize,
    /// Token sequences that no repetition reaches across.
    pub dry_breakers: Vec<Vec<u32>>,
    /// Added to the logits of tokens; minus infinity excludes a token.
    pub logit_bias: Vec<(u32, f32)>,
    /// Fills gaps in a text of this vocabulary; `None`: off.
    pub infill: Option<Infill>,

    /// Whether mirostat picks. It takes the place of the stages from top-n-sigma to XTC.
    pub mirostat: Mirostat,
    /// Mirostat's target, in bits a token.
    pub mirostat_tau: f32,
    /// Mirostat's rate of learning.
    pub mirostat_eta: f32,
    /// Adaptive-p's target; below 0: off.
    pub adaptive_target: f32,
    /// Adaptive-p's weight of the past.
    pub adaptive_decay: f32,

    /// The stages before the pick, first to last.
    pub order: Vec<StageKind>,
    /// Stages of the user's own, each in front of a stage of `order` (its first place there, also
    /// where that stage is off), or of the pick: `None`. Of several in one place, the first here
    /// comes first.
    pub custom: Vec<(Option<StageKind>, Custom)>,
}

/// Versions of mirostat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mirostat {
    /// It does not pick.
    #[default]
    Off,
    /// By a fit of Zipf's law.
    One,
    /// By cutting at a surprise.
    Two,
}

/// The stages that stand before the pick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StageKind {
    /// Logit bias.
    LogitBias,
    /// Repetition, frequency and presence penalties.
    Penalties,
    /// DRY.
    Dry,
    /// Top-n-sigma.
    TopNSigma,
    /// Top-k.
    TopK,
    /// Typical.
    Typical,
    /// Top-p.
    TopP,
    /// Min-p.
    MinP,
    /// XTC.
    Xtc,
    /// Temperature, fixed or dynamic.
    Temperature,
    /// Infill.
    Infill,
}

impl StageKind {
    /// All, in the default order.
    pub const ALL: [Self; 11] = [
        Self::LogitBias,
        Self::Penalties,
        Self::Dry,
        Self::TopNSigma,
        Self::TopK,
        Self::Typical,
        Self::TopP,
        Self::MinP,
        Self::Xtc,
        Self::Temperature,
        Self::Infill,
    ];

    /// Its name for people: small letters, words joined by `_`.
    pub fn name(self) -> &'static str {
        match self {
            Self::LogitBias => "logit_bias",
            Self::Penalties => "penalties",
            Self::Dry => "dry",
            Self::TopNSigma => "top_n_sigma",
            Self::TopK => "top_k",
            Self::Typical => "typical",
            Self::TopP => "top_p",
            Self::MinP => "min_p",
            Self::Xtc => "xtc",
            Self::Temperature => "temperature",
            Self::Infill => "infill",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether mirostat takes its place.
    fn truncates(self) -> bool {
        use StageKind::{MinP, TopK, TopNSigma, TopP, Typical, Xtc};
        matches!(self, TopNSigma | TopK | Typical | TopP | MinP | Xtc)
    }
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            seed: None,
            dynamic_temperature_range: 0.0,
            dynamic_temperature_exponent: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            top_n_sigma: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            min_keep: 0,
            penalty_last: 64,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_last: 64,
            dry_breakers: Vec::new(),
            logit_bias: Vec::new(),
            infill: None,
            mirostat: Mirostat::Off,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            adaptive_target: -1.0,
            adaptive_decay: 0.9,
            order: StageKind::ALL.to_vec(),
            custom: Vec::new(),
        }
    }
}

impl SamplerOptions {
    /// The chain these options stand for: the stages of `order`, then the one that picks.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming a parameter that is out of range, used or not.
    pub fn stages(&self) -> Result<Vec<Stage>> {
        for kind in StageKind::ALL {
            if let Some(stage) = self.stage(kind) {
                stage.check()?;
            }
        }
        let (tau, eta) = (self.mirostat_tau, self.mirostat_eta);
        Stage::Mirostat { tau, eta }.check()?;
        let adaptive = Stage::AdaptiveP {
            target: self.adaptive_target.max(0.0),
            decay: self.adaptive_decay,
        };
        // A NaN is no target, but the maximum above hides it.
        let target = self.adaptive_target;
        super::penalty::expect(!target.is_nan(), "adaptive_target", "a number", target)?;
        adaptive.check()?;
        self.check_places()?;
        let pick = match self.mirostat {
            Mirostat::One => Stage::Mirostat { tau, eta },
            Mirostat::Two => Stage::Mirostat2 { tau, eta },
            Mirostat::Off if target >= 0.0 => adaptive,
            Mirostat::Off if self.is_greedy() => Stage::Greedy,
            Mirostat::Off => Stage::Pick,
        };
        // A greedy pick needs no truncation before it, but a stage of the user's own may see it.
        let greedy = matches!(pick, Stage::Greedy) && self.custom.is_empty();
        let without = self.mirostat != Mirostat::Off || greedy;
        let mut stages = Vec::new();
        for (place, kind) in self.order.iter().enumerate() {
            if !self.order[..place].contains(kind) {
                stages.extend(self.custom_before(Some(*kind)));
            }
            if !(without && kind.truncates()) {
                stages.extend(self.stage(*kind));
            }
        }
        stages.extend(self.custom_before(None));
        stages.push(pick);
        Ok(stages)
    }

    /// The user's own stages for a place.
    fn custom_before(&self, place: Option<StageKind>) -> impl Iterator<Item = Stage> {
        let there = self
            .custom
            .iter()
            .filter(move |(before, _)| *before == place);
        there.map(|(_, custom)| Stage::Custom(custom.clone()))
    }

    fn check_places(&self) -> Result<()> {
        let places = self.custom.iter().filter_map(|(before, _)| *before);
        match places.into_iter().find(|kind| !self.order.contains(kind)) {
            None => Ok(()),
            Some(kind) => {
                let message = format!("there is no stage {} to stand in front of", kind.name());
                Err(Error::new(Code::InvalidArgument, "custom", message))
            }
        }
    }

    /// Whether the most likely token is picked whatever is truncated.
    fn is_greedy(&self) -> bool {
        self.temperature == 0.0
            && self.dynamic_temperature_range == 0.0
            && self.typical_p == 1.0
            && self.xtc_probability == 0.0
            && self.infill.is_none()
            && self.order.contains(&StageKind::Temperature)
    }

    fn stage(&self, kind: StageKind) -> Option<Stage> {
        let min_keep = self.min_keep;
        Some(match kind {
            StageKind::LogitBias => Stage::LogitBias(self.logit_bias.clone()),
            StageKind::Penalties => Stage::Penalties(Penalties {
                last: self.penalty_last,
                repetition: self.repetition_penalty,
                frequency: self.frequency_penalty,
                presence: self.presence_penalty,
            }),
            StageKind::Dry => Stage::Dry(Dry {
                multiplier: self.dry_multiplier,
                base: self.dry_base,
                allowed_length: self.dry_allowed_length,
                last: self.dry_last,
                breakers: self.dry_breakers.clone(),
            }),
            StageKind::TopNSigma => Stage::TopNSigma(self.top_n_sigma),
            StageKind::TopK => Stage::TopK(self.top_k),
            StageKind::Typical => Stage::Typical {
                p: self.typical_p,
                min_keep,
            },
            StageKind::TopP => Stage::TopP {
                p: self.top_p,
                min_keep,
            },
            StageKind::MinP => Stage::MinP {
                p: self.min_p,
                min_keep,
            },
            StageKind::Xtc => Stage::Xtc {
                probability: self.xtc_probability,
                threshold: self.xtc_threshold,
                min_keep,
            },
            StageKind::Temperature => Stage::DynamicTemperature {
                temperature: self.temperature,
                range: self.dynamic_temperature_range,
                exponent: self.dynamic_temperature_exponent,
            },
            StageKind::Infill => Stage::Infill(self.infill.clone()?),
        })
    }
}
