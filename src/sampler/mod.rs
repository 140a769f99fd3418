//! From logits to a token: temperature, top-k, top-p, and a pick by the counter-based generator.
//!
//! The pick depends on (logits, options, seed, step) alone: no state is carried from token to
//! token, so rewinding, pausing and repeating need no care. Ties go to the lower token.

use std::cmp::Ordering;

use crate::error::{Code, Error, Result};
use crate::float;
use crate::random::{Random, entropy_seed};

/// How tokens are picked.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerOptions {
    /// Divides the logits; 0 picks the most likely token always.
    pub temperature: f32,
    /// Only this many of the most likely tokens are considered; 0: all.
    pub top_k: usize,
    /// Only the most likely tokens whose probabilities sum up to this are considered; 1: all.
    /// Source: Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020.
    pub top_p: f32,
    /// Seed of the picks; `None`: one from the operating system, see [`Sampler::seed`].
    pub seed: Option<u64>,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            seed: None,
        }
    }
}

/// Picks tokens; a clone with the same seed picks the same.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplerOptions,
    seed: u64,
    /// Reused from pick to pick.
    candidates: Vec<Candidate>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: u32,
    logit: f32,
    weight: f64,
}

impl Sampler {
    /// A sampler; `INVALID_ARGUMENT` for options out of range.
    pub fn new(options: &SamplerOptions) -> Result<Self> {
        let SamplerOptions {
            temperature, top_p, ..
        } = *options;
        let check = |holds: bool, name: &str, expected: &str, found: f32| {
            let message = || format!("expected {expected}, found {found}");
            holds
                .then_some(())
                .ok_or_else(|| Error::new(Code::InvalidArgument, name, message()))
        };
        let holds = temperature.is_finite() && temperature >= 0.0;
        check(
            holds,
            "temperature",
            "a finite number of at least 0",
            temperature,
        )?;
        check(
            top_p > 0.0 && top_p <= 1.0,
            "top_p",
            "a number above 0, at most 1",
            top_p,
        )?;
        let seed = options.seed.unwrap_or_else(entropy_seed);
        Ok(Self {
            options: options.clone(),
            seed,
            candidates: Vec::new(),
        })
    }

    /// The seed in use.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Makes room for a vocabulary, so that picks allocate nothing; or fails with `OUT_OF_MEMORY`.
    pub fn reserve(&mut self, vocab: usize) -> Result<()> {
        self.candidates.clear();
        self.candidates.try_reserve(vocab).map_err(|_| {
            let message = format!("no memory to choose from {vocab} tokens");
            Error::new(Code::OutOfMemory, "sampler", message)
        })
    }

    /// The token for `logits`, (vocab), at `step`: the token's position in its sequence.
    ///
    /// # Errors
    /// `NONFINITE` if a logit is not a number, or none is above minus infinity.
    pub fn sample(&mut self, logits: &[f32], step: u64) -> Result<u32> {
        let best = most_likely(logits)?;
        if self.options.temperature == 0.0 || self.options.top_k == 1 {
            return Ok(best);
        }
        self.weigh(logits, logits[best as usize]);
        let total = self.keep_top_p();
        let target = total
            * Random {
                seed: self.seed,
                step,
            }
            .unit_f64(0);
        let mut sum = 0.0;
        for candidate in &self.candidates {
            sum += candidate.weight;
            if sum > target {
                return Ok(candidate.token);
            }
        }
        Ok(best)
    }

    /// Fills `candidates` with the top-k tokens, the most likely first where order matters, and
    /// their weights.
    fn weigh(&mut self, logits: &[f32], best: f32) {
        let SamplerOptions {
            temperature,
            top_k,
            top_p,
            ..
        } = self.options;
        let candidates = &mut self.candidates;
        candidates.clear();
        candidates.extend(
            (0u32..)
                .zip(logits)
                .filter(|(_, l)| **l > f32::NEG_INFINITY)
                .map(|(token, &logit)| Candidate {
                    token,
                    logit,
                    weight: 0.0,
                }),
        );
        if top_k > 0 && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k - 1, more_likely);
            candidates.truncate(top_k);
        }
        if top_k > 0 || top_p < 1.0 {
            candidates.sort_unstable_by(more_likely);
        }
        for candidate in candidates {
            candidate.weight = f64::from(float::exp((candidate.logit - best) / temperature));
        }
    }

    /// Drops what top-p excludes; the sum of the weights that stay.
    fn keep_top_p(&mut self) -> f64 {
        let total: f64 = self
            .candidates
            .iter()
            .map(|candidate| candidate.weight)
            .sum();
        if self.options.top_p >= 1.0 {
            return total;
        }
        let wanted = total * f64::from(self.options.top_p);
        let mut sum = 0.0;
        let reached = self.candidates.iter().position(|candidate| {
            sum += candidate.weight;
            sum >= wanted
        });
        self.candidates
            .truncate(reached.map_or(usize::MAX, |last| last + 1));
        sum
    }
}

/// The token with the largest logit, the lowest of equals.
fn most_likely(logits: &[f32]) -> Result<u32> {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &logit) in (0u32..).zip(logits) {
        if logit.is_nan() {
            return Err(not_finite(&format!("logit {token} is not a number")));
        }
        if logit > best.1 {
            best = (token, logit);
        }
    }
    if best.1.is_infinite() {
        return Err(not_finite("no token has a finite largest logit"));
    }
    Ok(best.0)
}

fn more_likely(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

fn not_finite(message: &str) -> Error {
    Error::new(Code::NonFinite, "logits", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(temperature: f32, top_k: usize, top_p: f32) -> Sampler {
        Sampler::new(&SamplerOptions {
            temperature,
            top_k,
            top_p,
            seed: Some(7),
        })
        .unwrap()
    }

    /// How often each token is picked in 20,000 steps.
    fn frequencies(sampler: &mut Sampler, logits: &[f32]) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        for step in 0..20_000 {
            counts[sampler.sample(logits, step).unwrap() as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    fn ln(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln()).collect()
    }

    #[test]
    fn greedy_takes_the_lowest_of_the_largest() {
        assert_eq!(
            sampler(0.0, 0, 1.0).sample(&[1.0, 3.0, -2.0, 3.0], 0),
            Ok(1)
        );
        assert_eq!(
            sampler(1.0, 1, 1.0).sample(&[1.0, 3.0, -2.0, 3.0], 9),
            Ok(1)
        );
    }

    #[test]
    fn picks_follow_the_distribution() {
        let p = [0.5, 0.25, 0.125, 0.125];
        for (f, p) in frequencies(&mut sampler(1.0, 0, 1.0), &ln(&p))
            .iter()
            .zip(p)
        {
            assert!((f - f64::from(p)).abs() < 0.01, "{f} {p}");
        }
        // At temperature 1/2 probabilities are squared: 16 : 4 : 1 : 1.
        let f = frequencies(&mut sampler(0.5, 0, 1.0), &ln(&p));
        for (f, p) in f
            .iter()
            .zip([16.0 / 22.0, 4.0 / 22.0, 1.0 / 22.0, 1.0 / 22.0])
        {
            assert!((f - p).abs() < 0.01, "{f} {p}");
        }
    }

    #[test]
    fn top_k_and_top_p_exclude_the_rest() {
        let logits = ln(&[0.1, 0.2, 0.4, 0.3]);
        let f = frequencies(&mut sampler(1.0, 2, 1.0), &logits);
        assert!(f[0] == 0.0 && f[1] == 0.0 && (f[2] - 4.0 / 7.0).abs() < 0.01);
        let f = frequencies(&mut sampler(1.0, 0, 0.65), &logits);
        assert!(f[0] == 0.0 && f[1] == 0.0 && (f[2] - 4.0 / 7.0).abs() < 0.01);
        let f = frequencies(&mut sampler(1.0, 0, 0.85), &logits);
        assert!(f[0] == 0.0 && (f[1] - 2.0 / 9.0).abs() < 0.01);
    }

    #[test]
    fn one_seed_picks_the_same_and_seeds_differ() {
        let logits = vec![0.0; 50];
        let picks = |seed| {
            let options = SamplerOptions {
                seed: Some(seed),
                ..SamplerOptions::default()
            };
            let mut sampler = Sampler::new(&options).unwrap();
            (0..20)
                .map(|step| sampler.sample(&logits, step).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(picks(1), picks(1));
        assert_ne!(picks(1), picks(2));
        let random = Sampler::new(&SamplerOptions::default()).unwrap();
        assert_ne!(
            random.seed(),
            Sampler::new(&SamplerOptions::default()).unwrap().seed()
        );
    }

    #[test]
    fn logits_without_a_choice_are_refused() {
        let mut s = sampler(1.0, 0, 1.0);
        assert_eq!(
            s.sample(&[0.0, f32::NAN], 0).unwrap_err().code(),
            Code::NonFinite
        );
        assert_eq!(
            s.sample(&[f32::NEG_INFINITY; 3], 0).unwrap_err().code(),
            Code::NonFinite
        );
        assert_eq!(s.sample(&[], 0).unwrap_err().code(), Code::NonFinite);
        assert_eq!(s.sample(&[f32::NEG_INFINITY, 2.0], 0), Ok(1));
    }

    #[test]
    fn options_out_of_range_are_refused() {
        for (temperature, top_p) in [(-1.0, 1.0), (f32::NAN, 1.0), (1.0, 0.0), (1.0, 1.5)] {
            let options = SamplerOptions {
                temperature,
                top_p,
                ..SamplerOptions::default()
            };
            assert_eq!(
                Sampler::new(&options).unwrap_err().code(),
                Code::InvalidArgument
            );
        }
    }
}
