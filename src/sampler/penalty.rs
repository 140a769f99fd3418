//! Stages that change the logits of given tokens: logit bias, penalties for what was said.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::sampler::candidates::Candidates;

/// Penalties for tokens among the last ones of the sequence.
///
/// Sources: repetition: Keskar et al., "CTRL: A Conditional Transformer Language Model for
/// Controllable Generation", 2019, with its division turned into a multiplication for logits below
/// 0, so that it always lowers; frequency and presence: the definition in OpenAI's API reference,
/// `x - count * frequency - [count > 0] * presence`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Penalties {
    /// Tokens that are looked back on; 0: none, `usize::MAX`: all.
    pub last: usize,
    /// Divides logits above 0 and multiplies the others; 1: off.
    pub repetition: f32,
    /// Subtracted for each occurrence; 0: off.
    pub frequency: f32,
    /// Subtracted once; 0: off.
    pub presence: f32,
}

impl Penalties {
    pub(super) fn check(&self) -> Result<()> {
        let Self {
            repetition,
            frequency,
            presence,
            ..
        } = *self;
        let positive = repetition.is_finite() && repetition > 0.0;
        expect(
            positive,
            "repetition_penalty",
            "a finite number above 0",
            repetition,
        )?;
        for (name, value) in [
            ("frequency_penalty", frequency),
            ("presence_penalty", presence),
        ] {
            expect(value.is_finite(), name, "a finite number", value)?;
        }
        Ok(())
    }

    pub(super) fn is_neutral(&self) -> bool {
        self.last == 0 || (self.repetition == 1.0 && self.frequency == 0.0 && self.presence == 0.0)
    }

    pub(super) fn apply(&self, candidates: &mut Candidates<'_>) {
        let history = candidates.history();
        let window = &history[history.len().saturating_sub(self.last)..];
        let mut counts = std::mem::take(&mut candidates.buffers.counts);
        for token in window {
            if let Some(count) = counts.get_mut(*token as usize) {
                *count += 1;
            }
        }
        for token in window {
            let count = counts.get_mut(*token as usize).map_or(0, std::mem::take);
            if count == 0 {
                continue;
            }
            change(candidates, *token, |x| {
                let x = if x > 0.0 {
                    x / self.repetition
                } else {
                    x * self.repetition
                };
                x - (count as f32 * self.frequency + self.presence)
            });
        }
        candidates.buffers.counts = counts;
    }
}

pub(super) fn check_bias(bias: &[(u32, f32)]) -> Result<()> {
    for &(token, value) in bias {
        let holds = value.is_finite() || value == f32::NEG_INFINITY;
        let expected = format!("a finite number or minus infinity for token {token}");
        expect(holds, "logit_bias", &expected, value)?;
    }
    Ok(())
}

/// Adds to the logits of given tokens; minus infinity excludes.
///
/// Source: the definition in OpenAI's API reference.
pub(super) fn bias(candidates: &mut Candidates<'_>, bias: &[(u32, f32)]) {
    for &(token, value) in bias {
        change(candidates, token, |x| x + value);
        if value == f32::NEG_INFINITY
            && let Some(position) = candidates.position(token)
        {
            candidates.exclude(position);
        }
    }
}

/// Changes the logit of a token that is not excluded; it stays finite.
pub(super) fn change(candidates: &mut Candidates<'_>, token: u32, f: impl FnOnce(f32) -> f32) {
    let Some(position) = candidates.position(token) else {
        return;
    };
    let logit = &mut candidates.logits_mut()[position];
    if *logit > f32::NEG_INFINITY {
        *logit = f(*logit).clamp(f32::MIN, f32::MAX);
    }
}

/// `INVALID_ARGUMENT` unless `holds`.
pub(super) fn expect(holds: bool, name: &str, expected: &str, found: f32) -> Result<()> {
    if holds {
        return Ok(());
    }
    let message = format!("expected {expected}, found {found}");
    Err(Error::new(Code::InvalidArgument, name, message))
}
