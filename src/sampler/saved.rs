//! Samplers as values that can be written and read back.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::sampler::{Custom, Infill, Sampler, SamplerState, Stage};
use crate::tokenizer::Tokenizer;

/// A sampler without the memory it works in: seed, stages, what it has learnt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedSampler {
    seed: u64,
    stages: Vec<Stage>,
    state: SamplerState,
}

impl Sampler {
    /// What makes the same sampler again.
    ///
    /// # Errors
    /// `UNSUPPORTED` if a stage is one of the user's own: it is code.
    pub fn saved(&self) -> Result<SavedSampler> {
        if let Some(at) = self
            .stages()
            .position(|stage| matches!(stage, Stage::Custom(Custom(_))))
        {
            let message = format!("stage {at} is one of the user's own, which cannot be saved");
            return Err(Error::new(Code::Unsupported, "sampler", message));
        }
        Ok(SavedSampler {
            seed: self.seed(),
            stages: self.stages().cloned().collect(),
            state: self.state(),
        })
    }
}

impl SavedSampler {
    /// The sampler, in the state it was in; `tokenizer` is that of its model.
    ///
    /// # Errors
    /// `FORMAT` for what no sampler can have saved, `OUT_OF_MEMORY`.
    pub fn restore(self, tokenizer: Option<&Tokenizer>) -> Result<Sampler> {
        let Self {
            seed,
            mut stages,
            state,
        } = self;
        for stage in &mut stages {
            if let (Stage::Infill(infill), Some(tokenizer)) = (stage, tokenizer) {
                *infill = Infill::new(tokenizer)?;
            }
        }
        let damaged = |message: &str| Error::new(Code::Format, "sampler", message);
        let mut sampler = Sampler::from_stages(stages, Some(seed))
            .map_err(|error| damaged(&error.to_string()))?;
        match state.is_sound() && sampler.restore(state) {
            true => Ok(sampler),
            false => Err(damaged("what it has learnt does not fit its last stage")),
        }
    }
}

impl SamplerState {
    /// Whether it is one that picks can lead to.
    pub fn is_sound(&self) -> bool {
        self.memory.iter().all(|memory| memory.is_finite())
    }
}
