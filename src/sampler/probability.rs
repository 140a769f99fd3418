//! Log-probabilities of tokens, straight from the logits: `x - ln(sum of e^x)`, with the largest
//! logit taken out first so that nothing overflows, and sums in f64. No memory but what is given.

use crate::error::{Code, Error, Result};
use crate::float;
use crate::kernel::{self, BLOCK, Kernels, Ranked, SUMMED};
use crate::sampler::rank::better;

/// A token and the logarithm of its probability.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The token.
    pub token: u32,
    /// The natural logarithm of its probability, at most 0.
    pub log_probability: f64,
}

/// The natural logarithm of a token's probability; minus infinity if its logit is that.
///
/// # Errors
/// `INVALID_ARGUMENT` if there is no such token, `NONFINITE` as `Sampler::sample`.
pub fn log_probability(logits: &[f32], token: u32) -> Result<f64> {
    let Some(logit) = logits.get(token as usize) else {
        let message = format!("expected a token below {}, found {token}", logits.len());
        return Err(Error::new(Code::InvalidArgument, "token", message));
    };
    let normalizer = normalizer(kernel::detect(), logits)?;
    Ok(normalizer.log_probability(*logit))
}

/// The `count` most likely tokens, the most likely first, ties by rising token; fewer if there are
/// not as many with a probability above 0. Allocates nothing if `out` has room for them.
///
/// # Errors
/// `NONFINITE` as `Sampler::sample`.
pub fn top_log_probabilities(logits: &[f32], count: usize, out: &mut Vec<Scored>) -> Result<()> {
    let kernels = kernel::detect();
    let normalizer = normalizer(kernels, logits)?;
    out.clear();
    if count == 0 {
        return Ok(());
    }
    // `out` is sorted, and holds logits until the end.
    let mut maxima = [0.0; CHUNK / BLOCK];
    let mut token = 0;
    for chunk in logits.chunks(CHUNK) {
        let maxima = &mut maxima[..chunk.len().div_ceil(BLOCK)];
        kernels.block_maxima(chunk, maxima);
        for (block, max) in chunk.chunks(BLOCK).zip(&*maxima) {
            if out.len() < count || out.last().is_some_and(|last| *max > last.logit()) {
                for (token, logit) in (token..).zip(block) {
                    insert(out, count, token, *logit);
                }
            }
            token += block.len() as u32;
        }
    }
    for scored in out {
        scored.log_probability = normalizer.log_probability(scored.logit());
    }
    Ok(())
}

/// Logits that are looked at together, and whose weights lie on the stack.
const CHUNK: usize = 1024;

impl Scored {
    /// While the list is made: the logit.
    fn logit(&self) -> f32 {
        self.log_probability as f32
    }

    fn ranked(&self) -> Ranked {
        Ranked {
            key: self.logit(),
            position: self.token,
        }
    }
}

fn insert(best: &mut Vec<Scored>, count: usize, token: u32, logit: f32) {
    let full = best.len() == count;
    if logit == f32::NEG_INFINITY || (full && best.last().is_some_and(|last| logit <= last.logit()))
    {
        return;
    }
    let new = Scored {
        token,
        log_probability: logit.into(),
    };
    let before = |other: &Scored| better(&other.ranked(), &new.ranked()).is_lt();
    let at = best.partition_point(before);
    if full {
        best.pop();
    }
    best.insert(at, new);
}

/// The logarithm of the sum of `e^x`, in two parts: a large logit would swallow the other.
struct Normalizer {
    largest: f32,
    /// That of the sum of `e^(x - largest)`.
    rest: f64,
}

impl Normalizer {
    fn log_probability(&self, logit: f32) -> f64 {
        (f64::from(logit) - f64::from(self.largest)) - self.rest
    }
}

fn normalizer(kernels: &Kernels, logits: &[f32]) -> Result<Normalizer> {
    let (mut maxima, mut weights) = ([0.0; CHUNK / BLOCK], [0.0; CHUNK]);
    let (mut sound, mut largest) = (true, f32::NEG_INFINITY);
    for chunk in logits.chunks(CHUNK) {
        let maxima = &mut maxima[..chunk.len().div_ceil(BLOCK)];
        sound &= kernels.block_maxima(chunk, maxima);
        largest = maxima.iter().fold(largest, |a, b| float::max(a, *b));
    }
    if !sound || largest == f32::NEG_INFINITY {
        let message = "a logit is not a number or infinite, or none is above minus infinity";
        return Err(Error::new(Code::NonFinite, "logits", message));
    }
    let chunks = logits.chunks(CHUNK);
    let sums = chunks.map(|chunk| {
        let sums = &mut maxima[..chunk.len().div_ceil(SUMMED)];
        kernels.exp_weights(chunk, largest, &mut weights[..chunk.len()], sums)
    });
    let rest = float::ln64(sums.sum());
    Ok(Normalizer { largest, rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_probabilities_by_hand() {
        // Probabilities 1/2, 1/4, 1/8, 1/8, and a shift that must not matter.
        let logits: Vec<f32> = [0.5f32, 0.25, 0.125, 0.125].map(|p| p.ln() + 3.0).to_vec();
        for (token, p) in [(0, 0.5f64), (1, 0.25), (2, 0.125), (3, 0.125)] {
            let found = log_probability(&logits, token).unwrap();
            assert!((found - p.ln()).abs() < 1e-6, "{found} {}", p.ln());
        }
        let mut top = Vec::new();
        top_log_probabilities(&logits, 3, &mut top).unwrap();
        assert_eq!(top.iter().map(|s| s.token).collect::<Vec<_>>(), [0, 1, 2]);
        top_log_probabilities(&logits, 9, &mut top).unwrap();
        let sum: f64 = top.iter().map(|s| s.log_probability.exp()).sum();
        assert!(top.len() == 4 && (sum - 1.0).abs() < 1e-6);
        top_log_probabilities(&logits, 0, &mut top).unwrap();
        assert!(top.is_empty());
    }

    #[test]
    fn huge_and_excluded_logits() {
        let logits = [1e30, f32::NEG_INFINITY, 1e30, -1e30];
        assert!((log_probability(&logits, 0).unwrap() + 2f64.ln()).abs() < 1e-6);
        assert_eq!(log_probability(&logits, 1).unwrap(), f64::NEG_INFINITY);
        assert!(log_probability(&logits, 3).unwrap() < -1e30);
        assert_eq!(
            log_probability(&logits, 4).unwrap_err().code(),
            Code::InvalidArgument
        );
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(
                log_probability(&[0.0, bad], 0).unwrap_err().code(),
                Code::NonFinite
            );
        }
        assert!(log_probability(&[f32::NEG_INFINITY], 0).is_err());
    }

    #[test]
    fn the_top_of_a_vocabulary_is_that_of_a_sort() {
        let logits: Vec<f32> = (0..5_000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 22) as f32 / 64.0)
            .collect();
        let mut sorted: Vec<u32> = (0..5_000).collect();
        sorted.sort_by(|a, b| {
            logits[*b as usize]
                .total_cmp(&logits[*a as usize])
                .then(a.cmp(b))
        });
        let mut top = Vec::new();
        for count in [1, 2, 20, 300] {
            top_log_probabilities(&logits, count, &mut top).unwrap();
            let tokens: Vec<u32> = top.iter().map(|s| s.token).collect();
            assert_eq!(tokens, sorted[..count]);
            let own = log_probability(&logits, tokens[count - 1]).unwrap();
            assert_eq!(top[count - 1].log_probability.to_bits(), own.to_bits());
        }
    }
}
