//! Each stage against numbers worked out by hand from its definition.

use super::*;

/// ln of probabilities, so that a plain pick has them.
fn ln(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

/// What the stages leave, behind `history`.
fn left(stages: Vec<Stage>, logits: &[f32], history: &[u32]) -> Vec<Chance> {
    let mut sampler = Sampler::from_stages(stages, Some(7)).unwrap();
    sampler.distribution(logits, history, 0).unwrap()
}

fn tokens(stage: Stage, logits: &[f32]) -> Vec<u32> {
    let left = left(vec![stage], logits, &[]);
    left.iter().map(|chance| chance.token).collect()
}

/// Demands these probabilities, 0 for a token that must be gone.
fn same(found: &[Chance], expected: &[f64]) {
    let mut all = vec![0.0; expected.len()];
    for chance in found {
        all[chance.token as usize] = chance.probability;
    }
    for (found, expected) in all.iter().zip(expected) {
        assert!(
            (found - expected).abs() < 2e-6,
            "{all:?}, expected {expected:?}"
        );
    }
}

/// Demands probabilities proportional to `e^x`.
fn same_logits(found: &[Chance], logits: &[f64]) {
    let total: f64 = logits.iter().map(|x| x.exp()).sum();
    let expected: Vec<f64> = logits.iter().map(|x| x.exp() / total).collect();
    same(found, &expected);
}

#[test]
fn top_k() {
    let logits = ln(&[0.1, 0.2, 0.4, 0.3]);
    // 0.4 and 0.3 of 0.7 are left.
    let found = left(vec![Stage::TopK(2)], &logits, &[]);
    same(&found, &[0.0, 0.0, 4.0 / 7.0, 3.0 / 7.0]);
    assert_eq!(tokens(Stage::TopK(9), &logits), [0, 1, 2, 3]);
    // Ties go to the lower token.
    assert_eq!(tokens(Stage::TopK(2), &[1.0; 5]), [0, 1]);
    assert_eq!(tokens(Stage::TopK(3), &[0.0, 1.0, 0.0, 0.0]), [0, 1, 2]);
}

#[test]
fn top_p() {
    let logits = ln(&[0.1, 0.2, 0.4, 0.3]);
    let kept = |p, min_keep| tokens(Stage::TopP { p, min_keep }, &logits);
    // 0.4 < 0.65 <= 0.4 + 0.3; 0.7 < 0.75 <= 0.9; 0.9 < 0.95.
    assert_eq!(kept(0.3, 0), [2]);
    assert_eq!(kept(0.65, 0), [2, 3]);
    assert_eq!(kept(0.75, 0), [1, 2, 3]);
    assert_eq!(kept(0.95, 0), [0, 1, 2, 3]);
    assert_eq!(kept(0.3, 3), [1, 2, 3]);
    assert_eq!(kept(0.75, 2), [1, 2, 3]);
}

#[test]
fn min_p() {
    let logits = ln(&[0.1, 0.2, 0.4, 0.3]);
    let kept = |p, min_keep| tokens(Stage::MinP { p, min_keep }, &logits);
    // At least 0.6 * 0.4 = 0.24; 0.45 * 0.4 = 0.18; 1 * 0.4; 0.2 * 0.4 = 0.08.
    assert_eq!(kept(0.6, 1), [2, 3]);
    assert_eq!(kept(0.45, 1), [1, 2, 3]);
    assert_eq!(kept(1.0, 1), [2]);
    assert_eq!(kept(0.2, 1), [0, 1, 2, 3]);
    assert_eq!(kept(1.0, 2), [2, 3]);
}

#[test]
fn typical() {
    // Information 1, 2, 3, 3 bits; entropy 0.5 + 0.5 + 0.375 + 0.375 = 1.75 bits; distances 0.75,
    // 0.25, 1.25, 1.25: the order is 1, 0, 2, 3, the sums 0.25, 0.75, 0.875, 1.
    let logits = ln(&[0.5, 0.25, 0.125, 0.125]);
    let kept = |p, min_keep| tokens(Stage::Typical { p, min_keep }, &logits);
    assert_eq!(kept(0.2, 1), [1]);
    assert_eq!(kept(0.7, 1), [0, 1]);
    assert_eq!(kept(0.8, 1), [0, 1, 2]);
    assert_eq!(kept(0.9, 1), [0, 1, 2, 3]);
    assert_eq!(kept(0.2, 2), [0, 1]);
    assert_eq!(kept(0.2, 3), [0, 1, 2]);
}

#[test]
fn top_n_sigma() {
    // Mean 5; squares 9 + 1 + 1 + 1 + 0 + 0 + 4 + 16 = 32, of 8: deviation 2. 9 - 2 = 7, 9 - 4 = 5.
    let mut logits = vec![2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
    assert_eq!(tokens(Stage::TopNSigma(1.0), &logits), [6, 7]);
    assert_eq!(tokens(Stage::TopNSigma(2.0), &logits), [4, 5, 6, 7]);
    assert_eq!(tokens(Stage::TopNSigma(0.5), &logits), [7]);
    // What is excluded does not count.
    logits.insert(0, f32::NEG_INFINITY);
    assert_eq!(tokens(Stage::TopNSigma(1.0), &logits), [7, 8]);
    assert_eq!(tokens(Stage::TopNSigma(1.0), &[3.0; 4]), [0, 1, 2, 3]);
}

#[test]
fn xtc() {
    let logits = ln(&[0.05, 0.4, 0.2, 0.3, 0.05]);
    let stage = |threshold, min_keep| {
        let probability = 1.0;
        vec![Stage::Xtc {
            probability,
            threshold,
            min_keep,
        }]
    };
    // 0.4, 0.3 and 0.2 reach 0.15; 0.2 alone of them stays, of a mass of 0.3.
    let expected = [1.0 / 6.0, 0.0, 4.0 / 6.0, 0.0, 1.0 / 6.0];
    same(&left(stage(0.15, 1), &logits, &[]), &expected);
    // 0.4 and 0.3 reach 0.25: 0.6 is left.
    let expected = [1.0 / 12.0, 0.0, 4.0 / 12.0, 0.5, 1.0 / 12.0];
    same(&left(stage(0.25, 1), &logits, &[]), &expected);
    // One reaches 0.35; three would be left, fewer than four.
    let all = [0.05, 0.4, 0.2, 0.3, 0.05];
    same(&left(stage(0.35, 1), &logits, &[]), &all);
    same(&left(stage(0.15, 4), &logits, &[]), &all);
    same(&left(stage(0.15, 3), &logits, &[])[..1], &[1.0 / 6.0]);
}

#[test]
fn xtc_happens_as_often_as_it_should() {
    let logits = ln(&[0.6, 0.4]);
    let stage = Stage::Xtc {
        probability: 0.3,
        threshold: 0.1,
        min_keep: 1,
    };
    let mut sampler = Sampler::from_stages(vec![stage], Some(5)).unwrap();
    let mut times = 0;
    for step in 0..10_000 {
        let happened = sampler.distribution(&logits, &[], step).unwrap().len() == 1;
        assert_eq!(
            happened,
            Random { seed: 5, step }.unit_f64(0) < f64::from(0.3f32)
        );
        times += usize::from(happened);
    }
    assert!((2_800..3_200).contains(&times), "{times}");
}

#[test]
fn temperature() {
    // At 1/2 probabilities are squared: 16 : 4 : 1 : 1. At 2, their roots.
    let logits = ln(&[0.5, 0.25, 0.125, 0.125]);
    let at = |t| left(vec![Stage::Temperature(t)], &logits, &[]);
    same(&at(0.5), &[16.0, 4.0, 1.0, 1.0].map(|w| w / 22.0));
    let roots = [0.5f64, 0.25, 0.125, 0.125].map(f64::sqrt);
    let sum: f64 = roots.iter().sum();
    same(&at(2.0), &roots.map(|root| root / sum));
    same(&at(0.0), &[1.0, 0.0, 0.0, 0.0]);
    // Nothing overflows: the limit is the most likely token alone, or all that are as likely.
    for t in [1e-37, 2e-38, 1e-38, 1e-45] {
        let at = |logits: &[f32]| left(vec![Stage::Temperature(t)], logits, &[]);
        same(&at(&[1.0, 8.0, 9.0, 10.0]), &[0.0, 0.0, 0.0, 1.0]);
        same(&at(&[-20.0, 30.0, 29.0, 1.0]), &[0.0, 1.0, 0.0, 0.0]);
        same(&at(&[-20.0, -30.0, -19.0, -19.5]), &[0.0, 0.0, 1.0, 0.0]);
        same(&at(&[9.0, 8.0, 9.0, 1.0]), &[0.5, 0.0, 0.5, 0.0]);
        same(&at(&[0.0, -1.0, -30.0, -2.0]), &[1.0, 0.0, 0.0, 0.0]);
    }
}

#[test]
fn dynamic_temperature() {
    // Entropy 1.75 bits of 2: a share of 0.875; from 0.5 to 1.5 that is 1.375. With exponent 2 the
    // share is 0.765625: 1.265625.
    let p = [0.5f64, 0.25, 0.125, 0.125];
    let logits = ln(&p.map(|p| p as f32));
    for (exponent, t) in [(1.0, 1.375), (2.0, 1.265625)] {
        let stage = Stage::DynamicTemperature {
            temperature: 1.0,
            range: 0.5,
            exponent,
        };
        same_logits(&left(vec![stage], &logits, &[]), &p.map(|p| p.ln() / t));
    }
    // All alike: the largest entropy. Below 0 there is no temperature.
    let stage = |temperature, range| {
        vec![Stage::DynamicTemperature {
            temperature,
            range,
            exponent: 1.0,
        }]
    };
    same(&left(stage(1.0, 3.0), &[2.0, 2.0], &[]), &[0.5, 0.5]);
    same_logits(&left(stage(2.0, 0.0), &[1.0, 3.0], &[]), &[0.5, 1.5]);
    same(&left(stage(0.0, 0.0), &[1.0, 3.0], &[]), &[0.0, 1.0]);
}

#[test]
fn penalties() {
    let stage = |last| {
        vec![Stage::Penalties(Penalties {
            last,
            repetition: 2.0,
            frequency: 0.5,
            presence: 0.25,
        })]
    };
    let logits = [2.0, -2.0, 1.0, 0.0];
    // Token 0 twice: 2 / 2 - 2 * 0.5 - 0.25; token 1 once: -2 * 2 - 0.75; token 3: 0 - 0.75.
    let history = [9, 0, 1, 0, 3];
    let found = left(stage(usize::MAX), &logits, &history);
    same_logits(&found, &[-0.25, -4.75, 1.0, -0.75]);
    // The last two: tokens 0 and 3 once.
    let found = left(stage(2), &logits, &history);
    same_logits(&found, &[0.25, -2.0, 1.0, -0.75]);
    same_logits(&left(stage(2), &logits, &[]), &[2.0, -2.0, 1.0, 0.0]);
}

#[test]
fn logit_bias() {
    let logits = ln(&[0.25, 0.25, 0.5]);
    // Odds of token 0 doubled, token 2 gone: 2 : 1. Tokens that do not exist do not matter.
    let bias = vec![
        (0, 2f32.ln()),
        (2, f32::NEG_INFINITY),
        (70, 1.0),
        (2, 100.0),
    ];
    let found = left(vec![Stage::LogitBias(bias)], &logits, &[]);
    same(&found, &[2.0 / 3.0, 1.0 / 3.0, 0.0]);
    // Also where only a part of the tokens is left.
    let found = left(
        vec![
            Stage::TopK(2),
            Stage::LogitBias(vec![(0, 5.0), (2, 2f32.ln())]),
        ],
        &ln(&[0.1, 0.4, 0.5]),
        &[],
    );
    same(&found, &[0.0, 4.0 / 14.0, 10.0 / 14.0]);
}

/// The logits that DRY leaves of `[0; 8]`.
fn dry(breakers: &[&[u32]], last: usize, history: &[u32]) -> Vec<f64> {
    let stage = Stage::Dry(Dry {
        multiplier: 0.8,
        base: 1.75,
        allowed_length: 2,
        last,
        breakers: breakers.iter().map(|breaker| breaker.to_vec()).collect(),
    });
    let mut all = [0.0; 8];
    for chance in left(vec![stage], &[0.0; 8], history) {
        all[chance.token as usize] = chance.probability;
    }
    // Token 7 is never said.
    let base = all[7];
    all.iter().map(|p| (p / base).ln()).collect()
}

fn close(found: &[f64], expected: [f64; 8]) {
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-5, "{found:?}, expected {expected:?}");
    }
}

#[test]
fn dry_penalizes_what_goes_on_with_a_repetition() {
    const ALL: usize = usize::MAX;
    let only = |token: usize, penalty: f64| {
        let mut expected = [0.0; 8];
        expected[token] = -penalty;
        expected
    };
    // 1 2 3 came before 4: a match of 3 tokens, 0.8 * 1.75^(3 - 2) = 1.4.
    let said = [1, 2, 3, 4, 1, 2, 3];
    close(&dry(&[], ALL, &said), only(4, 1.4));
    // 2 tokens: 0.8. One token: nothing.
    close(&dry(&[], ALL, &[5, 2, 3, 4, 1, 2, 3]), only(4, 0.8));
    close(&dry(&[], ALL, &[5, 6, 3, 4, 1, 2, 3]), only(4, 0.0));
    // Only the last 6 tokens are looked at: 2 3 alone match. In the last 3 nothing does.
    close(&dry(&[], 6, &said), only(4, 0.8));
    close(&dry(&[], 3, &said), only(4, 0.0));
    // Behind a breaker, 3 alone could match; with 1 as the breaker, 2 3.
    close(&dry(&[&[2]], ALL, &said), only(4, 0.0));
    close(&dry(&[&[1]], ALL, &said), only(4, 0.8));
    // A breaker is not penalized, and one of two tokens ends a match as well.
    close(&dry(&[&[4]], ALL, &said), only(4, 0.0));
    close(&dry(&[&[4, 1]], ALL, &said), only(4, 0.8));
    close(&dry(&[&[4, 2]], ALL, &said), only(4, 1.4));
    // Matches may overlap: 5 5 5 came before the last 5.
    close(&dry(&[], ALL, &[5, 5, 5, 5]), only(5, 1.4));
    // The longest match counts: 2 3 before 4, and 1 2 3 before 4; 2 3 before 6.
    let mut expected = only(4, 1.4);
    expected[6] = -0.8;
    close(
        &dry(&[], ALL, &[1, 2, 3, 4, 2, 3, 4, 0, 2, 3, 6, 1, 2, 3]),
        expected,
    );
    close(&dry(&[], ALL, &[]), only(0, 0.0));
    close(&dry(&[], ALL, &[3]), only(0, 0.0));
}

#[test]
fn dry_stays_finite() {
    let history = vec![3; 5_000];
    let stage = Stage::Dry(Dry {
        multiplier: 2.0,
        base: 3.0,
        allowed_length: 0,
        last: usize::MAX,
        breakers: vec![],
    });
    let found = left(
        vec![stage.clone(), Stage::Temperature(1e-30)],
        &[1.0; 4],
        &history,
    );
    assert!(found.iter().all(|chance| chance.token != 3) && found.len() == 3);
    // The one token there is, is picked however much it is penalized.
    assert_eq!(
        left(
            vec![stage],
            &[f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY],
            &[1; 900]
        )
        .len(),
        1
    );
}

#[test]
fn mirostat() {
    // Zipf's law with s = 2 over 8 tokens: the fit gives s itself, e = 1. With tau 1.5, mu = 3:
    // k = (1 * 2^3 / (1 - 1/8))^(1/2) = sqrt(9.142857) = 3.02.
    let weights: Vec<f64> = (1..=8).map(|i| f64::from(i).powi(-2)).collect();
    let logits: Vec<f32> = weights.iter().map(|w| w.ln() as f32).collect();
    let stage = |tau| vec![Stage::Mirostat { tau, eta: 0.1 }];
    let mut sampler = Sampler::from_stages(stage(1.5), Some(3)).unwrap();
    let found = sampler.distribution(&logits, &[], 0).unwrap();
    let kept: f64 = weights[..3].iter().sum();
    let expected: Vec<f64> = (0..8)
        .map(|i| if i < 3 { weights[i] / kept } else { 0.0 })
        .collect();
    same(&found, &expected);
    // The surprise is that under the model: mu = 3 - 0.1 (-log2 p - 1.5).
    let token = sampler.sample(&logits, &[], 0).unwrap();
    let p = weights[token as usize] / weights.iter().sum::<f64>();
    let [mu, _] = sampler.state().memory;
    assert!((mu - (3.0 - 0.1 * (-p.log2() - 1.5))).abs() < 1e-6, "{mu}");
    // A limit of 0 bits leaves one; a flat distribution has no exponent, and all stay.
    assert_eq!(tokens(stage(0.0)[0].clone(), &logits), [0]);
    assert_eq!(tokens(stage(5.0)[0].clone(), &[1.0; 5]).len(), 5);
    assert_eq!(tokens(stage(5.0)[0].clone(), &[1.0]), [0]);
}

#[test]
fn mirostat2() {
    // Surprises 1, 2, 3, 3 bits. tau 1.25: mu = 2.5 keeps two of them, 2 : 1.
    let p = [0.5f32, 0.25, 0.125, 0.125];
    let stage = |tau| vec![Stage::Mirostat2 { tau, eta: 0.1 }];
    let mut sampler = Sampler::from_stages(stage(1.25), Some(3)).unwrap();
    let found = sampler.distribution(&ln(&p), &[], 0).unwrap();
    same(&found, &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
    // Token 0: mu = 2.5 - 0.1 (1 - 1.25) = 2.525; token 1: 2.5 - 0.1 (2 - 1.25) = 2.425.
    let token = sampler.sample(&ln(&p), &[], 0).unwrap();
    let [mu, _] = sampler.state().memory;
    assert!((mu - [2.525, 2.425][token as usize]).abs() < 1e-6, "{mu}");
    assert_eq!(tokens(stage(0.2)[0].clone(), &ln(&p)), [0]);
    sampler.reset();
    assert_eq!(sampler.state().memory, [2.5, 0.0]);
}

#[test]
fn adaptive_p() {
    // Target 0.3, distances 2/3, 0 and 1/3 in units of 0.3: 5 - 10 * 4/9 / (5/3) = 7/3;
    // 5; 5 - 10 * 1/9 / (4/3) = 25/6.
    let logits = ln(&[0.5, 0.3, 0.2]);
    let stage = Stage::AdaptiveP {
        target: 0.3,
        decay: 0.9,
    };
    let mut sampler = Sampler::from_stages(vec![stage], Some(3)).unwrap();
    let found = sampler.distribution(&logits, &[], 0).unwrap();
    same_logits(&found, &[7.0 / 3.0, 5.0, 25.0 / 6.0]);
    // The memory: 0.3 * 10 and 10; then p + 0.9 * 3 and 1 + 0.9 * 10.
    let token = sampler.sample(&logits, &[], 0).unwrap();
    let [sum, weight] = sampler.state().memory;
    let p = [0.5, 0.3, 0.2][token as usize];
    assert!(
        (sum - (p + 2.7)).abs() < 1e-5 && (weight - 10.0).abs() < 1e-5,
        "{sum} {weight}"
    );
    // The next target is 0.6 - (p + 2.7) / 10 = 0.33 - p / 10.
    let target = 0.33 - p / 10.0;
    let d = [0.5, 0.3, 0.2].map(|p: f64| (p - target).abs() / 0.3);
    let found = sampler.distribution(&logits, &[], 1).unwrap();
    same_logits(&found, &d.map(|d| 5.0 - 10.0 * d * d / (1.0 + d)));
    // What is excluded gets no logit.
    let found = sampler
        .distribution(&[0.0, f32::NEG_INFINITY], &[], 1)
        .unwrap();
    assert_eq!(found.len(), 1);
}

#[test]
fn adaptive_p_reaches_its_target() {
    // Probabilities near 1/2, 1/4, ...: the mean probability of what is picked comes to 0.3.
    let stage = Stage::AdaptiveP {
        target: 0.3,
        decay: 0.9,
    };
    let mut sampler = Sampler::from_stages(vec![stage], Some(3)).unwrap();
    let mut sum = 0.0;
    for step in 0..4_000 {
        let steep = 0.6 + 0.2 * Random { seed: 1, step }.unit_f32(0);
        let logits: Vec<f32> = (0..8).map(|i| -steep * i as f32).collect();
        let token = sampler.sample(&logits, &[], step).unwrap();
        sum += log_probability(&logits, token).unwrap().exp();
    }
    assert!((sum / 4_000.0 - 0.3).abs() < 0.03, "{}", sum / 4_000.0);
}
