//! Stages that keep a part of the candidates: top-k, top-p, min-p, typical, top-n-sigma, XTC.
//!
//! Each leaves at least one candidate. Where a token lies on the very edge of a sum, rounding
//! decides, the same way on every CPU.

use crate::error::Result;
use crate::float;
use crate::kernel::BLOCK;
use crate::random::Random;
use crate::sampler::buffers::Buffers;
use crate::sampler::candidates::Candidates;
use crate::sampler::rank::{Cut, Goal, Ranking};

/// Keeps the `count` largest logits.
///
/// Source: Fan, Lewis and Dauphin, "Hierarchical Neural Story Generation", 2018.
pub(super) fn top_k(candidates: &mut Candidates<'_>, count: usize) -> Result<()> {
    if count >= candidates.len() {
        return Ok(());
    }
    candidates.keep_count(count)
}

/// Keeps the smallest set of the most likely tokens whose probabilities sum up to `p`.
///
/// Source: Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020.
pub(super) fn top_p(candidates: &mut Candidates<'_>, p: f32, min_keep: usize) -> Result<()> {
    let total = candidates.weigh()?;
    let largest = candidates.largest()?;
    let bound = bound(candidates, total, p);
    let goal = Goal {
        wanted: total * f64::from(p),
        total,
        top: largest,
        bound,
        reach: bound,
    };
    let least = match min_keep {
        ..2 => Cut::ALL,
        _ => candidates.cut_count(min_keep)?,
    };
    candidates.keep_mass(None, &goal, least)
}

/// Keeps what is at least `p` times as likely as the most likely token.
///
/// Source: Nguyen et al., "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM
/// Outputs", 2024.
pub(super) fn min_p(candidates: &mut Candidates<'_>, p: f32, min_keep: usize) -> Result<()> {
    let threshold = candidates.largest()? + float::ln(p);
    keep_at_least(candidates, Cut::at(threshold.max(f32::MIN)), min_keep)
}

/// Keeps the smallest set of tokens whose information content is nearest to the entropy and whose
/// probabilities sum up to `p`.
///
/// `|-ln p_i - H| = |x_i - c|`, where `c` is the logit of a token with the information content H.
/// Source: Meister, Pimentel, Wiher and Cotterell, "Locally Typical Sampling", 2022.
pub(super) fn typical(candidates: &mut Candidates<'_>, p: f32, min_keep: usize) -> Result<()> {
    let (total, entropy) = candidates.weigh_entropy()?;
    let largest = candidates.largest()?;
    let reference = f64::from(candidates.reference());
    let centre = (reference + float::ln64(total) - entropy) as f32;
    let farthest = (largest - centre).max(centre - bound(candidates, total, p));

    let goal = Goal {
        wanted: total * f64::from(p),
        total,
        top: 0.0,
        bound: -farthest,
        // What is farther away lies below: the largest logit does not.
        reach: centre - farthest,
    };
    let least = match min_keep {
        ..2 => Cut::ALL,
        _ => nearest(candidates, centre, min_keep),
    };
    candidates.keep_mass(Some(centre), &goal, least)
}

/// Where the `count` logits nearest to `centre` end.
fn nearest(candidates: &mut Candidates<'_>, centre: f32, count: usize) -> Cut {
    let (len, kernels) = (candidates.len(), candidates.kernels);
    let mut keys = std::mem::take(&mut candidates.buffers.keys);
    kernels.nearness(candidates.logits(), centre, &mut keys[..len]);
    let Buffers {
        order,
        maxima,
        room,
        ..
    } = &mut candidates.buffers;
    let maxima = &mut maxima[..len.div_ceil(BLOCK)];
    kernels.block_maxima(&keys[..len], maxima);
    let mut ranking = Ranking {
        kernels,
        keys: keys[..len].into(),
        order: &mut order[..len],
    };
    let cut = ranking.by_count(count, maxima, room).0;
    candidates.buffers.keys = keys;
    cut
}

/// Keeps the logits that lie at most `n` standard deviations below the largest.
///
/// Source: Tang et al., "Top-n sigma: Not All Logits Are You Need", 2024. The deviation is that of
/// the candidates: `sqrt(sum (x - mean)^2 / count)`.
pub(super) fn top_n_sigma(candidates: &mut Candidates<'_>, n: f32) -> Result<()> {
    let largest = candidates.largest()?;
    let [count, sum, squares] = candidates.kernels.moments(candidates.logits(), largest);
    let mean = sum / count;
    let variance = (squares / count - mean * mean).max(0.0);
    let threshold = largest - (f64::from(n) * variance.sqrt()) as f32;
    candidates.keep(Cut::at(threshold.max(f32::MIN)))
}

/// With a given probability, takes away all tokens that are at least as likely as `threshold`,
/// except for the least likely of them.
///
/// Source: the definition by its author (p-e-w, "Exclude Top Choices", 2024).
pub(super) fn xtc(
    candidates: &mut Candidates<'_>,
    (probability, threshold): (f32, f32),
    min_keep: usize,
    (random, draw): (Random, u32),
) -> Result<()> {
    if random.unit_f64(draw) >= f64::from(probability) {
        return Ok(());
    }
    let least = (candidates.weigh()? * f64::from(threshold)) as f32;
    let likely = candidates
        .kernels
        .count_from(candidates.weights(), least.max(f32::MIN_POSITIVE));
    if likely < 2 || candidates.count() - (likely - 1) < min_keep {
        return Ok(());
    }
    candidates.best(likely)?;
    let order = std::mem::take(&mut candidates.buffers.order);
    for ranked in &order[..likely - 1] {
        candidates.exclude(ranked.position as usize);
    }
    candidates.buffers.order = order;
    candidates.excluded_some();
    Ok(())
}

/// Keeps what a cut keeps, but not fewer than `min_keep`.
fn keep_at_least(candidates: &mut Candidates<'_>, cut: Cut, min_keep: usize) -> Result<()> {
    let cut = if min_keep > 1 {
        cut.or(candidates.cut_count(min_keep)?)
    } else {
        cut
    };
    candidates.keep(cut)
}

/// A logit below which nothing is needed to reach the share `p` of the mass: were all tokens
/// there, they would not have `1 - p` of it.
fn bound(candidates: &Candidates<'_>, total: f64, p: f32) -> f32 {
    const MARGIN: f64 = 0.01;
    let rest = (1.0 - f64::from(p)) * total / candidates.len() as f64;
    (f64::from(candidates.reference()) + float::ln64(rest) - MARGIN) as f32
}
