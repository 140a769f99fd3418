//! The stages that pick: greedy, by the distribution, mirostat 1 and 2, adaptive-p.
//!
//! A pick by the distribution finds where `u` times the sum of all weights lies among the weights,
//! tokens in rising order; `u` is a number of the counter-based generator.

use crate::error::Result;
use crate::float;
use crate::kernel::{BLOCK, SUMMED};
use crate::sampler::candidates::Candidates;

/// The position of the largest logit, the lowest token of equals.
pub(super) fn best(candidates: &mut Candidates<'_>) -> Result<usize> {
    let largest = candidates.largest()?;
    let blocks = candidates.len().div_ceil(BLOCK);
    let maxima = &candidates.buffers.maxima[..blocks];
    let block = maxima.iter().position(|max| *max == largest).unwrap_or(0);
    let behind = &candidates.logits()[block * BLOCK..];
    let within = behind.iter().position(|logit| *logit == largest);
    Ok(block * BLOCK + within.unwrap_or(0))
}

/// The position at the share `u` of the mass.
pub(super) fn by_weight(candidates: &mut Candidates<'_>, u: f64) -> Result<usize> {
    let target = u * candidates.weigh()?;
    let (mut sum, mut last) = (0.0, None);
    let parts = candidates.weights().chunks(SUMMED);
    for (part, (weights, mass)) in parts.zip(candidates.buffers.room.iter()).enumerate() {
        let next = sum + f64::from(*mass);
        if next > target {
            for (i, weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
                sum += f64::from(*weight);
                last = Some(part * SUMMED + i);
                if sum > target {
                    break;
                }
            }
            break;
        }
        sum = next;
    }
    // A block's sum is rounded: what lies behind its last weight belongs to that.
    last.map_or_else(|| best(candidates), Ok)
}

/// The logarithm of the sum of `e^x`.
pub(super) fn normalizer(candidates: &mut Candidates<'_>) -> Result<f64> {
    let total = candidates.weigh()?;
    Ok(f64::from(candidates.reference()) + float::ln64(total))
}

/// Keeps the tokens that mirostat would pick from; `limit` is the surprise in bits, mu.
///
/// Source: Basu, Ramachandran, Keskar and Varshney, "Mirostat: A Neural Text Decoding Algorithm
/// that Directly Controls Perplexity", 2021, algorithm 1: the exponent s of Zipf's law is fitted to
/// the 100 most likely tokens, and k is such that the top k have the surprise wanted:
/// `k = (e 2^mu / (1 - N^-e))^(1/s)`, `e = s - 1`, for N tokens.
pub(super) fn mirostat(candidates: &mut Candidates<'_>, limit: f64) -> Result<()> {
    const FITTED: usize = 100;
    let all = candidates.count() as f64;
    let best = candidates.best(FITTED)?;
    let (mut products, mut squares) = (0.0, 0.0);
    for (i, pair) in (1..).zip(best.windows(2)) {
        // ln((i + 1) / i) and ln(p_i / p_(i+1)).
        let t = float::ln64(f64::from(i + 1) / f64::from(i));
        let b = f64::from(pair[0].key) - f64::from(pair[1].key);
        products += t * b;
        squares += t * t;
    }
    if best.len() < 2 {
        return Ok(());
    }
    let s = products / squares;
    let e = s - 1.0;
    let power = float::pow64(2.0, limit);
    // (1 - N^-e) / e tends to ln N.
    let spread = if e.abs() < 1e-9 {
        float::ln64(all)
    } else {
        (1.0 - float::pow64(all, -e)) / e
    };
    let k = float::pow64(power / spread, 1.0 / s);
    // The cast saturates; what is not a number becomes 0.
    candidates.keep_count((k as usize).max(1))
}

/// Keeps the tokens whose surprise is at most `limit` bits, or the most likely one.
///
/// Source: the authors' second version ("mirostat 2.0" in their published program), which cuts by
/// surprise instead of fitting Zipf's law.
pub(super) fn mirostat2(
    candidates: &mut Candidates<'_>,
    normalizer: f64,
    limit: f64,
) -> Result<()> {
    let largest = candidates.largest()?;
    let threshold = (normalizer - limit * std::f64::consts::LN_2) as f32;
    let cut = crate::sampler::rank::Cut::at(threshold.clamp(f32::MIN, largest));
    candidates.keep(cut)
}

/// Turns the candidates' probabilities into logits that are largest near `target`; the
/// probabilities are left in `buffers.keys`.
///
/// Source: the definition by its authors (MrJackSpade and ddh0, "Adaptive-P", 2025):
/// `5 - 10 d^2 / (1 + d)`, where d is the distance to the target in units of 0.3.
pub(super) fn adaptive(candidates: &mut Candidates<'_>, target: f64) -> Result<()> {
    candidates.compact()?;
    let total = candidates.weigh()?;
    let mut probabilities = std::mem::take(&mut candidates.buffers.keys);
    for (p, weight) in probabilities.iter_mut().zip(candidates.weights()) {
        *p = (f64::from(*weight) / total) as f32;
    }
    let target = target as f32;
    for (logit, p) in candidates.logits_mut().iter_mut().zip(probabilities.iter()) {
        let d = (p - target).abs() / 0.3;
        *logit = 5.0 - 10.0 * d * d / (1.0 + d);
    }
    candidates.buffers.keys = probabilities;
    Ok(())
}
