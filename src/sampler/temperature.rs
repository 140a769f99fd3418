//! Temperature, fixed and by entropy.
//!
//! Sources: Ackley, Hinton and Sejnowski, "A Learning Algorithm for Boltzmann Machines", 1985;
//! dynamic: the definition by its author (kalomaze, "Dynamic Temperature Sampling", 2023; in use as
//! "entropy sampling"): `T = min + (max - min) (H / ln n)^exponent` for n candidates of entropy H.

use crate::error::Result;
use crate::float;
use crate::sampler::candidates::Candidates;
use crate::sampler::pick;

/// Divides the logits; 0 keeps the most likely token alone. Where the largest quotient would be
/// beyond what f32 holds, the tokens with the largest logit are kept.
pub(super) fn fixed(candidates: &mut Candidates<'_>, temperature: f32) -> Result<()> {
    if temperature == 1.0 {
        return Ok(());
    }
    if temperature == 0.0 {
        let best = pick::best(candidates)?;
        candidates.keep_only(best);
        return Ok(());
    }
    let kernels = candidates.kernels;
    if temperature < 1.0 {
        // Numbers so large are far more than any depth apart: only equals of the largest remain.
        let largest = candidates.largest()?;
        if largest.abs() / temperature > f32::MAX / 2.0 {
            kernels.floor(candidates.logits_mut(), largest);
            return Ok(());
        }
    }
    kernels.divide(candidates.logits_mut(), temperature);
    Ok(())
}

/// Divides the logits by a temperature within `range` of `temperature`.
pub(super) fn dynamic(
    candidates: &mut Candidates<'_>,
    temperature: f32,
    range: f32,
    exponent: f32,
) -> Result<()> {
    let count = candidates.count();
    if range == 0.0 || count < 2 {
        return fixed(candidates, temperature);
    }
    let (_, entropy) = candidates.weigh_entropy()?;
    let share = entropy / float::ln64(count as f64);
    let share = float::pow64(share.clamp(0.0, 1.0), exponent.into());
    let (low, high) = ((temperature - range).max(0.0), temperature + range);
    let chosen = f64::from(low) + f64::from(high - low) * share;
    fixed(candidates, chosen as f32)
}
