//! What holds for all logits: sums, order, exclusion, at least one candidate, neutral parameters,
//! relabelling, the same picks on every CPU; and frequencies.

use super::*;
use crate::control::Control;

/// Reproducible logits of several shapes: flat, peaked, with ties, with excluded tokens.
fn logits(seed: u64, vocab: usize) -> Vec<f32> {
    let of = |step: u64, draw: u32| Random { seed, step }.unit_f32(draw);
    let width = 0.1 + 12.0 * of(u64::MAX, 0);
    let coarse = of(u64::MAX, 1) < 0.3;
    let excluded = if of(u64::MAX, 2) < 0.5 { 0.3 } else { 0.0 };
    let mut logits: Vec<f32> = (0..vocab as u64)
        .map(|i| {
            let sum: f32 = (0..4).map(|draw| of(i, draw)).sum();
            let x = (sum - 2.0) * width;
            let x = if coarse { x.round() } else { x };
            if of(i, 5) < excluded {
                f32::NEG_INFINITY
            } else {
                x
            }
        })
        .collect();
    logits[vocab / 2] = 1.0;
    logits
}

const SIZES: [usize; 12] = [1, 2, 3, 40, 63, 64, 65, 200, 1000, 1025, 5000, 20_000];

fn cases() -> impl Iterator<Item = (u64, Vec<f32>)> {
    let seeds = (0..).zip(SIZES.iter().cycle()).take(60);
    seeds.map(|(seed, vocab)| (seed, logits(seed, *vocab)))
}

/// A share that is not the same in each case.
fn share(seed: u64) -> f32 {
    0.02 + 0.96 * Random { seed, step: 0 }.unit_f32(9)
}

/// All stages that keep a part.
fn filters(seed: u64) -> Vec<Stage> {
    let p = share(seed);
    let min_keep = (seed % 4) as usize;
    vec![
        Stage::TopK(1 + (seed * seed % 90) as usize),
        Stage::TopK(1 + (seed * 331 % 2000) as usize),
        Stage::TopP { p, min_keep },
        Stage::MinP { p, min_keep },
        Stage::Typical { p, min_keep },
        Stage::TopNSigma(3.0 * p),
        Stage::Xtc {
            probability: 1.0,
            threshold: p / 2.0,
            min_keep,
        },
        Stage::Mirostat {
            tau: 8.0 * p,
            eta: 0.1,
        },
        Stage::Mirostat2 {
            tau: 8.0 * p,
            eta: 0.1,
        },
        Stage::Temperature(0.0),
    ]
}

fn others(seed: u64) -> Vec<Stage> {
    let p = share(seed);
    vec![
        Stage::Temperature(2.0 * p),
        Stage::DynamicTemperature {
            temperature: 1.0,
            range: p,
            exponent: 1.0 + p,
        },
        Stage::AdaptiveP {
            target: p,
            decay: 0.9,
        },
        Stage::Penalties(Penalties {
            last: 30,
            repetition: 1.0 + p,
            frequency: p,
            presence: -p,
        }),
        Stage::Dry(Dry {
            multiplier: p,
            base: 1.5,
            allowed_length: 1,
            last: 50,
            breakers: vec![vec![3]],
        }),
        Stage::LogitBias(vec![(0, p), (0, -2.0 * p)]),
        Stage::Infill(infill(SIZES[seed as usize % SIZES.len()])),
        Stage::Custom(Custom(Box::new(Upper))),
        Stage::Greedy,
        Stage::Pick,
    ]
}

/// Texts of which many begin with others; the token that ends is one that is never excluded.
fn infill(vocab: usize) -> Infill {
    let texts: Vec<String> = (0..vocab).map(|i| format!("{:b}", i % 300)).collect();
    let texts = (0..)
        .zip(&texts)
        .map(|(i, text)| (text.as_bytes(), i == vocab / 2));
    Infill::from_texts(texts, Some((vocab / 2) as u32)).unwrap()
}

/// Keeps what is at least a half.
struct Upper;

impl CustomStage for Upper {
    fn apply(&mut self, candidates: &mut Candidates<'_>) -> Result<()> {
        candidates.retain(|_, logit| logit >= 0.5);
        Ok(())
    }

    fn duplicate(&self) -> Box<dyn CustomStage> {
        Box::new(Self)
    }
}

fn history(seed: u64) -> Vec<u32> {
    let token = |step| (Random { seed, step }.bits(7) % 5) as u32;
    (0..60).map(token).collect()
}

fn sampler_of(stages: Vec<Stage>) -> Sampler {
    Sampler::from_stages(stages, Some(11)).unwrap()
}

#[test]
fn every_stage_leaves_a_distribution_of_allowed_tokens() {
    for (seed, logits) in cases() {
        for stage in filters(seed).into_iter().chain(others(seed)) {
            let name = format!("{stage:?}, case {seed}");
            let mut sampler = sampler_of(vec![stage]);
            let left = sampler.distribution(&logits, &history(seed), seed).unwrap();
            let sum: f64 = left.iter().map(|chance| chance.probability).sum();
            assert!((sum - 1.0).abs() < 1e-5, "{name}: {sum}");
            assert!(left.is_sorted_by(|a, b| a.token < b.token), "{name}");
            let allowed = |c: &Chance| logits[c.token as usize] > f32::NEG_INFINITY;
            assert!(left.iter().all(allowed), "{name}");
            for step in 0..5 {
                let mut sampler = sampler.clone();
                let now = sampler.distribution(&logits, &history(seed), step).unwrap();
                let token = sampler.sample(&logits, &history(seed), step).unwrap();
                assert!(now.iter().any(|c| c.token == token), "{name}: {token}");
            }
        }
    }
}

#[test]
fn a_filter_keeps_the_proportions() {
    for (seed, logits) in cases() {
        for stage in filters(seed) {
            let name = format!("{stage:?}, case {seed}");
            let left = sampler_of(vec![stage])
                .distribution(&logits, &[], 0)
                .unwrap();
            let first = left[0];
            for chance in &left {
                let difference = logits[chance.token as usize] - logits[first.token as usize];
                let ratio = (chance.probability / first.probability).ln();
                assert!((ratio - f64::from(difference)).abs() < 1e-3, "{name}");
            }
        }
    }
}

/// What a sort would keep: positions in order, up to where the sum of `p` is reached.
fn nucleus(order: &[usize], p: &[f64], wanted: f64, min_keep: usize) -> (Vec<u32>, f64) {
    let (mut sum, mut kept, mut margin) = (0.0, Vec::new(), f64::INFINITY);
    for &i in order {
        let enough = sum >= wanted && kept.len() >= min_keep.max(1);
        margin = f64::min(margin, (sum - wanted).abs());
        if enough {
            break;
        }
        kept.push(i as u32);
        sum += p[i];
    }
    kept.sort_unstable();
    (kept, margin)
}

#[test]
fn selection_equals_a_sort() {
    for (seed, logits) in cases() {
        let chances = sampler_of(vec![]).distribution(&logits, &[], 0).unwrap();
        let mut p = vec![0.0; logits.len()];
        for chance in &chances {
            p[chance.token as usize] = chance.probability;
        }
        let mut order: Vec<usize> = (0..logits.len())
            .filter(|i| logits[*i].is_finite())
            .collect();
        order.sort_by(|a, b| logits[*b].partial_cmp(&logits[*a]).unwrap().then(a.cmp(b)));
        let tokens = |stage| {
            let left = sampler_of(vec![stage])
                .distribution(&logits, &[], 0)
                .unwrap();
            left.iter().map(|chance| chance.token).collect::<Vec<_>>()
        };
        for count in [1, 2, 7, 40, 63, 64, 65, 500, 3000] {
            let mut expected: Vec<u32> = order.iter().take(count).map(|i| *i as u32).collect();
            expected.sort_unstable();
            assert_eq!(
                tokens(Stage::TopK(count)),
                expected,
                "top {count} of case {seed}"
            );
        }
        for (p_wanted, min_keep) in [(share(seed), 1), (0.9, 5), (0.05, 20), (0.999, 0)] {
            let stage = Stage::TopP {
                p: p_wanted,
                min_keep,
            };
            let (expected, margin) = nucleus(&order, &p, f64::from(p_wanted), min_keep);
            if margin > 1e-6 {
                assert_eq!(tokens(stage), expected, "top-p {p_wanted} of case {seed}");
            }
            let entropy: f64 = p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
            let distance = |i: &usize| (-p[*i].ln() - entropy).abs();
            let mut typical = order.clone();
            typical.sort_by(|a, b| distance(a).total_cmp(&distance(b)).then(a.cmp(b)));
            // Distances are rounded: the test is of cases where no two at the edge are near.
            let (expected, margin) = nucleus(&typical, &p, f64::from(p_wanted), min_keep);
            let at = expected.len();
            let clear =
                at == typical.len() || distance(&typical[at]) - distance(&typical[at - 1]) > 1e-4;
            if margin > 1e-6 && clear {
                let stage = Stage::Typical {
                    p: p_wanted,
                    min_keep,
                };
                assert_eq!(tokens(stage), expected, "typical {p_wanted} of case {seed}");
            }
        }
    }
}

/// Blocks that are unlike the others, so that no sample of every so many blocks tells the whole.
#[test]
fn a_misleading_sample_changes_nothing() {
    for at in 0..8 {
        for shift in [-6.0, -0.5, 0.5, 6.0] {
            let of = |i: u64| Random { seed: at, step: i }.unit_f32(0) * 2.0;
            let other = |i: u64| if i / 64 % 8 == at { shift } else { 0.0 };
            let logits: Vec<f32> = (0..16_500).map(|i| of(i) + other(i)).collect();
            let chances = sampler_of(vec![]).distribution(&logits, &[], 0).unwrap();
            let p: Vec<f64> = chances.iter().map(|chance| chance.probability).collect();
            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
            for share in [0.3, 0.9, 0.99] {
                let (expected, margin) = nucleus(&order, &p, f64::from(share), 1);
                let stage = Stage::TopP {
                    p: share,
                    min_keep: 1,
                };
                let left = sampler_of(vec![stage])
                    .distribution(&logits, &[], 0)
                    .unwrap();
                let found = left.iter().map(|chance| chance.token);
                assert!(
                    margin < 1e-6 || found.eq(expected),
                    "{share} of {at}, {shift}"
                );
            }
        }
    }
}

#[test]
fn neutral_parameters_change_nothing() {
    let min_keep = 1;
    let neutral = vec![
        Stage::LogitBias(vec![]),
        Stage::Penalties(Penalties {
            last: 64,
            repetition: 1.0,
            frequency: 0.0,
            presence: 0.0,
        }),
        Stage::Dry(Dry {
            multiplier: 0.0,
            base: 1.75,
            allowed_length: 2,
            last: 64,
            breakers: vec![],
        }),
        Stage::TopNSigma(0.0),
        Stage::TopK(0),
        Stage::TopP { p: 1.0, min_keep },
        Stage::MinP { p: 0.0, min_keep },
        Stage::Typical { p: 1.0, min_keep },
        Stage::Xtc {
            probability: 0.0,
            threshold: 0.1,
            min_keep,
        },
        Stage::Temperature(1.0),
    ];
    let off = SamplerOptions {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        seed: Some(11),
        ..SamplerOptions::default()
    };
    for (seed, logits) in cases().take(24) {
        let mut plain = sampler_of(vec![]);
        let mut chain = sampler_of(neutral.clone());
        let mut options = Sampler::new(&off).unwrap();
        let all = plain.distribution(&logits, &[], 0).unwrap();
        assert_eq!(chain.distribution(&logits, &history(seed), 0).unwrap(), all);
        assert_eq!(
            options.distribution(&logits, &history(seed), 0).unwrap(),
            all
        );
        for step in 0..20 {
            let token = plain.sample(&logits, &[], step).unwrap();
            assert_eq!(chain.sample(&logits, &[0, 0], step).unwrap(), token);
            assert_eq!(options.sample(&logits, &[0, 0], step).unwrap(), token);
        }
    }
}

#[test]
fn a_permutation_of_the_tokens_only_relabels() {
    for seed in 0..20 {
        let vocab = 700;
        let of = |step| Random { seed, step }.unit_f32(0) * 9.0;
        let logits: Vec<f32> = (0..vocab as u64).map(of).collect();
        // 700 and 333 have no common divisor.
        let moved = |token: usize| (token * 333 + 5) % vocab;
        let mut permuted = vec![0.0; vocab];
        for (token, logit) in logits.iter().enumerate() {
            permuted[moved(token)] = *logit;
        }
        for stage in filters(seed).into_iter().chain(others(seed)) {
            let by_token = |stage: &Stage| {
                matches!(
                    stage,
                    Stage::Penalties(_) | Stage::Dry(_) | Stage::LogitBias(_) | Stage::Infill(_)
                )
            };
            if by_token(&stage) {
                continue;
            }
            let mut sampler = sampler_of(vec![stage.clone()]);
            let left = sampler.distribution(&logits, &[], seed).unwrap();
            let other = sampler.distribution(&permuted, &[], seed).unwrap();
            assert_eq!(left.len(), other.len(), "{stage:?}");
            for chance in left {
                let token = moved(chance.token as usize) as u32;
                let same = other.iter().find(|c| c.token == token).unwrap();
                let error = (same.probability / chance.probability - 1.0).abs();
                assert!(error < 1e-5, "{stage:?}");
            }
        }
    }
}

#[test]
fn picks_are_the_same_on_every_isa_and_after_a_restore() {
    for (seed, logits) in cases() {
        for stage in filters(seed).into_iter().chain(others(seed)) {
            let picks = |mut sampler: Sampler| {
                let start = sampler.state();
                let mut all = Vec::new();
                for round in 0..2 {
                    for step in 0..4 {
                        all.push(sampler.sample(&logits, &history(seed), step).unwrap());
                    }
                    if round == 0 {
                        sampler.restore(start);
                    }
                }
                let Chance { probability, .. } = sampler.distribution(&logits, &[], 9).unwrap()[0];
                (
                    all,
                    sampler.state().memory.map(f64::to_bits),
                    probability.to_bits(),
                )
            };
            let sampler = sampler_of(vec![Stage::Temperature(0.9), stage.clone()]);
            let truth = picks(
                sampler
                    .clone()
                    .with_kernels(kernel::force(kernel::Isa::Scalar)),
            );
            assert_eq!(truth.0[..4], truth.0[4..], "{stage:?}");
            for kernels in kernel::available() {
                let found = picks(sampler.clone().with_kernels(kernels));
                assert_eq!(found, truth, "{stage:?}, {}", kernels.isa().name());
            }
        }
    }
}

#[test]
fn frequencies_follow_the_distribution() {
    let min_keep = 1;
    let logits = logits(3, 60);
    let chains: Vec<Vec<Stage>> = vec![
        vec![],
        vec![Stage::Temperature(0.7)],
        SamplerOptions::default().stages().unwrap(),
        vec![Stage::TopP { p: 0.8, min_keep }],
        vec![Stage::Typical { p: 0.8, min_keep }],
        vec![Stage::MinP { p: 0.05, min_keep }, Stage::Temperature(1.5)],
        vec![Stage::Xtc {
            probability: 0.5,
            threshold: 0.05,
            min_keep,
        }],
        vec![Stage::Mirostat { tau: 3.0, eta: 0.1 }],
        vec![Stage::Mirostat2 { tau: 3.0, eta: 0.1 }],
        vec![
            Stage::MinP { p: 0.05, min_keep },
            Stage::AdaptiveP {
                target: 0.1,
                decay: 0.9,
            },
        ],
    ];
    for stages in chains {
        let name = format!("{stages:?}");
        let sampler = Sampler::from_stages(stages, Some(1)).unwrap();
        let found =
            check_frequencies(&sampler, &logits, &[], 100_000, &mut Control::none()).unwrap();
        println!("{name}: {found:?}");
        assert!(found.p_value > 1e-3, "{name}: {found:?}");
    }
    // A larger vocabulary, many blocks.
    let sampler = sampler_of(vec![]);
    let found = check_frequencies(
        &sampler,
        &vec![0.0; 3_000],
        &[],
        300_000,
        &mut Control::none(),
    )
    .unwrap();
    println!("3000 alike: {found:?}");
    assert!(found.p_value > 1e-3 && found.degrees == 2_999, "{found:?}");
}
