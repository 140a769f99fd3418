//! Time of a pick: 32,000 and 150,000 logits in the cache, one thread.

#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};

use lightgpt::float;
use lightgpt::random::Random;
use lightgpt::sampler::{
    Dry, Penalties, Sampler, SamplerOptions, Stage, log_probability, top_log_probabilities,
};

/// Normally distributed logits (Box and Muller), and a few that stand out if `peaked`.
fn logits(vocab: usize, deviation: f32, peaked: bool) -> Vec<f32> {
    let one = |i: usize| {
        let random = Random {
            seed: 1,
            step: i as u64,
        };
        let radius = (-2.0 * float::ln(random.positive_f32(0))).sqrt();
        let angle = random.unit_f32(1) * std::f32::consts::TAU;
        let peak = if peaked && random.bits(2).is_multiple_of(500) {
            random.unit_f32(3) * 12.0
        } else {
            0.0
        };
        deviation * radius * float::cos(angle) + peak
    };
    (0..vocab).map(one).collect()
}

fn chains() -> Vec<(&'static str, Vec<Stage>)> {
    let min_keep = 1;
    let history = 64;
    vec![
        (
            "top-k 40, top-p 0.95, temperature",
            SamplerOptions::default()
                .stages()
                .expect("the defaults hold"),
        ),
        ("greedy", vec![Stage::Greedy]),
        ("pick", vec![]),
        ("temperature", vec![Stage::Temperature(0.8)]),
        ("top-p 0.95", vec![Stage::TopP { p: 0.95, min_keep }]),
        ("min-p 0.05", vec![Stage::MinP { p: 0.05, min_keep }]),
        ("typical 0.95", vec![Stage::Typical { p: 0.95, min_keep }]),
        ("top-k 1000", vec![Stage::TopK(1000)]),
        ("top-n-sigma 1", vec![Stage::TopNSigma(1.0)]),
        (
            "xtc",
            vec![Stage::Xtc {
                probability: 1.0,
                threshold: 0.1,
                min_keep,
            }],
        ),
        ("mirostat", vec![Stage::Mirostat { tau: 5.0, eta: 0.1 }]),
        ("mirostat 2", vec![Stage::Mirostat2 { tau: 5.0, eta: 0.1 }]),
        (
            "min-p, adaptive-p",
            vec![
                Stage::MinP { p: 0.05, min_keep },
                Stage::AdaptiveP {
                    target: 0.5,
                    decay: 0.9,
                },
            ],
        ),
        (
            "penalties, DRY, top-k 40",
            vec![
                Stage::Penalties(Penalties {
                    last: history,
                    repetition: 1.1,
                    frequency: 0.1,
                    presence: 0.1,
                }),
                Stage::Dry(Dry {
                    multiplier: 0.8,
                    base: 1.75,
                    allowed_length: 2,
                    last: 1024,
                    breakers: vec![vec![13]],
                }),
                Stage::TopK(40),
            ],
        ),
    ]
}

fn pick(criterion: &mut Criterion) {
    let history: Vec<u32> = (0..1024u32).map(|i| i * i % 97).collect();
    for vocab in [32_000, 150_000] {
        for (shape, deviation, peaked) in [("peaked", 2.5, true), ("flat", 1.0, false)] {
            let logits = logits(vocab, deviation, peaked);
            let mut group = criterion.benchmark_group(format!("{vocab} {shape}"));
            for (name, stages) in chains() {
                let mut sampler = Sampler::from_stages(stages, Some(1)).expect("valid stages");
                sampler.reserve(vocab, history.len()).expect("memory");
                let mut step = 0;
                group.bench_function(name, |bench| {
                    bench.iter(|| {
                        step += 1;
                        sampler.sample(black_box(&logits), &history, step)
                    });
                });
            }
            let mut top = Vec::with_capacity(32);
            group.bench_function("log-probability", |bench| {
                bench.iter(|| log_probability(black_box(&logits), 7));
            });
            group.bench_function("top 20 log-probabilities", |bench| {
                bench.iter(|| top_log_probabilities(black_box(&logits), 20, &mut top));
            });
            group.finish();
        }
    }
}

criterion_group!(benches, pick);
criterion_main!(benches);
