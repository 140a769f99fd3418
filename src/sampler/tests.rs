//! The chain as a whole; the stages by hand and by their properties are in the modules.

mod chain;
mod definitions;
mod properties;

use super::*;

fn sampler(temperature: f32, top_k: usize, top_p: f32) -> Sampler {
    Sampler::new(&SamplerOptions {
        temperature,
        top_k,
        top_p,
        seed: Some(7),
        ..SamplerOptions::default()
    })
    .unwrap()
}

/// How often each token is picked in 20,000 steps.
fn frequencies(sampler: &mut Sampler, logits: &[f32]) -> Vec<f64> {
    let mut counts = vec![0.0; logits.len()];
    for step in 0..20_000 {
        counts[sampler.sample(logits, &[], step).unwrap() as usize] += 1.0 / 20_000.0;
    }
    counts
}

fn ln(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

#[test]
fn greedy_takes_the_lowest_of_the_largest() {
    assert_eq!(
        sampler(0.0, 0, 1.0).sample(&[1.0, 3.0, -2.0, 3.0], &[], 0),
        Ok(1)
    );
    assert_eq!(
        sampler(1.0, 1, 1.0).sample(&[1.0, 3.0, -2.0, 3.0], &[], 9),
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
            .map(|step| sampler.sample(&logits, &[], step).unwrap())
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
        s.sample(&[0.0, f32::NAN], &[], 0).unwrap_err().code(),
        Code::NonFinite
    );
    assert_eq!(
        s.sample(&[f32::NEG_INFINITY; 3], &[], 0)
            .unwrap_err()
            .code(),
        Code::NonFinite
    );
    assert_eq!(s.sample(&[], &[], 0).unwrap_err().code(), Code::NonFinite);
    assert_eq!(s.sample(&[f32::NEG_INFINITY, 2.0], &[], 0), Ok(1));
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
