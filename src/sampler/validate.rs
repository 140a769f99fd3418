//! Whether sampled frequencies follow a distribution: Pearson's chi-square test.
//!
//! Sources: Pearson, "On the criterion that a given system of deviations ...", 1900; the p-value is
//! the regularized upper incomplete gamma function (Abramowitz and Stegun, 1964, 6.5.29 and 6.5.31).

use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::float::{exp64, ln64};
use crate::sampler::buffers::room;
use crate::sampler::{Sampler, Stage};

/// The outcome of a chi-square test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChiSquare {
    /// The sum of `(observed - expected)^2 / expected`.
    pub statistic: f64,
    /// Classes minus 1.
    pub degrees: usize,
    /// How likely a statistic at least as large is, if the frequencies follow the distribution.
    pub p_value: f64,
}

/// Classes with a smaller expectation are joined: below, the test would not be good.
const EXPECTED_MIN: f64 = 5.0;

/// Compares what was observed, in each class, with what was expected; one length, one sum.
pub fn chi_square(observed: &[f64], expected: &[f64]) -> ChiSquare {
    let (mut classes, mut statistic) = (0, 0.0);
    let mut rest = (0.0, 0.0);
    let mut add = |observed: f64, expected: f64| {
        classes += 1;
        statistic += (observed - expected) * (observed - expected) / expected;
    };
    for (&observed, &expected) in observed.iter().zip(expected) {
        if expected >= EXPECTED_MIN {
            add(observed, expected);
        } else if expected > 0.0 || observed > 0.0 {
            rest = (rest.0 + observed, rest.1 + expected);
        }
    }
    if rest != (0.0, 0.0) {
        add(rest.0, rest.1);
    }
    let degrees = usize::saturating_sub(classes, 1);
    ChiSquare {
        statistic,
        degrees,
        p_value: upper_gamma(degrees as f64 / 2.0, statistic / 2.0),
    }
}

/// The most draws of [`check_frequencies`]: more say nothing more.
pub const DRAWS_MAX: u64 = 100_000_000;

/// Samples `draws` times, from the state the sampler is in, and compares the frequencies with the
/// distribution that its stages leave; the sampler does not change. Now and then `control` is told
/// of the draws done; its deadline is not used.
///
/// # Errors
/// As [`Sampler::sample`]; `INVALID_ARGUMENT` unless there are 1 to [`DRAWS_MAX`] draws;
/// `CANCELLED`.
pub fn check_frequencies(
    sampler: &Sampler,
    logits: &[f32],
    history: &[u32],
    draws: u64,
    control: &mut Control<'_>,
) -> Result<ChiSquare> {
    const DRAWS_PER_REPORT: u64 = 64;
    if !(1..=DRAWS_MAX).contains(&draws) {
        let message = format!("expected 1 to {DRAWS_MAX}, found {draws}");
        return Err(Error::new(Code::InvalidArgument, "draws", message));
    }
    let (mut sampler, state) = (sampler.clone(), sampler.state());
    // Such a stage may leave another distribution at each step.
    let moving = |stage: &Stage| matches!(stage, Stage::Xtc { .. } | Stage::Custom(_));
    let moves = sampler.stages().any(moving);
    let (mut observed, mut expected) = (room(logits.len())?, room(logits.len())?);
    observed.resize(logits.len(), 0.0);
    expected.resize(logits.len(), 0.0);
    for step in 0..draws {
        if step % DRAWS_PER_REPORT == 0 {
            control.report(step, draws)?;
        }
        if step == 0 || moves {
            let share = if moves { 1.0 } else { draws as f64 };
            for chance in sampler.distribution(logits, history, step)? {
                expected[chance.token as usize] += share * chance.probability;
            }
        }
        observed[sampler.sample(logits, history, step)? as usize] += 1.0;
        sampler.restore(state);
    }
    Ok(chi_square(&observed, &expected))
}

/// `Q(a, x)`, the share of the gamma function's integral that lies above x; 1 for a = 0.
fn upper_gamma(a: f64, x: f64) -> f64 {
    if a <= 0.0 || x <= 0.0 {
        return 1.0;
    }
    if !x.is_finite() {
        return 0.0;
    }
    let front = exp64(a * ln64(x) - x - ln_gamma(a));
    let value = if x < a + 1.0 {
        1.0 - front * lower_series(a, x)
    } else {
        front * upper_fraction(a, x)
    };
    value.clamp(0.0, 1.0)
}

const TERMS: usize = 100_000;
const PRECISION: f64 = 1e-15;

/// `1/a + x/(a(a+1)) + x^2/(a(a+1)(a+2)) + ...`
fn lower_series(a: f64, x: f64) -> f64 {
    let mut term = 1.0 / a;
    let mut sum = term;
    for n in 1..TERMS {
        term *= x / (a + n as f64);
        sum += term;
        if term < sum * PRECISION {
            break;
        }
    }
    sum
}

/// `1/(x+1-a- 1(1-a)/(x+3-a- 2(2-a)/(x+5-a- ...)))`, from the front by Lentz's method.
fn upper_fraction(a: f64, x: f64) -> f64 {
    let tiny = 1e-300;
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1.0 / tiny, 1.0 / b);
    let mut value = d;
    for n in 1..TERMS {
        let n = n as f64;
        let numerator = -n * (n - a);
        b += 2.0;
        let near = |y: f64| if y.abs() < tiny { tiny } else { y };
        d = 1.0 / near(numerator * d + b);
        c = near(b + numerator / c);
        value *= d * c;
        if (d * c - 1.0).abs() < PRECISION {
            break;
        }
    }
    value
}

/// The logarithm of the gamma function for `a > 0`: Stirling's series above 10, where its five
/// terms suffice, and the recurrence `gamma(a) = gamma(a + 1) / a` below.
fn ln_gamma(mut a: f64) -> f64 {
    let mut product = 1.0;
    while a < 10.0 {
        product *= a;
        a += 1.0;
    }
    let z = 1.0 / (a * a);
    let series = [
        1.0 / 12.0,
        -1.0 / 360.0,
        1.0 / 1260.0,
        -1.0 / 1680.0,
        1.0 / 1188.0,
    ];
    let tail = series.iter().rev().fold(0.0, |sum, term| sum * z + term) / a;
    (a - 0.5) * ln64(a) - a + 0.5 * ln64(2.0 * std::f64::consts::PI) + tail - ln64(product)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_functions() {
        // (n - 1)! and sqrt(pi).
        for (a, truth) in [(1.0, 1.0f64), (2.0, 1.0), (5.0, 24.0), (11.0, 3_628_800.0)] {
            assert!((ln_gamma(a) - truth.ln()).abs() < 1e-12, "{a}");
        }
        assert!((ln_gamma(0.5) - std::f64::consts::PI.ln() / 2.0).abs() < 1e-12);
        // Two degrees of freedom: exp(-x / 2) exactly.
        for x in [0.1, 1.0, 3.0, 10.0, 50.0] {
            assert!(
                (upper_gamma(1.0, x / 2.0) - (-x / 2.0f64).exp()).abs() < 1e-12,
                "{x}"
            );
        }
        // The 5 % points of printed tables, for 1, 10, 100 and 1000 degrees of freedom.
        for (degrees, x) in [(1.0, 3.841459), (10.0, 18.307038), (100.0, 124.342113)] {
            let p = upper_gamma(degrees / 2.0, x / 2.0);
            assert!((p - 0.05).abs() < 1e-7, "{degrees}: {p}");
        }
        assert!((upper_gamma(500.0, 1074.679 / 2.0) - 0.05).abs() < 1e-5);
        assert_eq!(
            (upper_gamma(0.0, 0.0), upper_gamma(3.0, f64::INFINITY)),
            (1.0, 0.0)
        );
    }

    #[test]
    fn a_die_by_hand() {
        // 60 throws: (5-10)^2/10 + (8-10)^2/10 + (9-10)^2/10 + (8-10)^2/10 + (10-10)^2/10
        // + (20-10)^2/10 = 2.5 + 0.4 + 0.1 + 0.4 + 0 + 10 = 13.4; p = 0.0199 with 5 degrees.
        let found = chi_square(&[5.0, 8.0, 9.0, 8.0, 10.0, 20.0], &[10.0; 6]);
        assert!((found.statistic - 13.4).abs() < 1e-12 && found.degrees == 5);
        assert!((found.p_value - 0.0199).abs() < 1e-4, "{}", found.p_value);
    }

    #[test]
    fn rare_classes_are_joined_and_impossible_ones_refused() {
        let found = chi_square(&[10.0, 3.0, 2.0], &[9.0, 3.0, 3.0]);
        assert_eq!(found.degrees, 1);
        assert!((found.statistic - (1.0 / 9.0 + 1.0 / 6.0)).abs() < 1e-12);
        let found = chi_square(&[10.0, 1.0], &[11.0, 0.0]);
        assert_eq!(found.p_value, 0.0);
        assert_eq!(chi_square(&[7.0], &[7.0]).p_value, 1.0);
    }
}
