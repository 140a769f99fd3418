//! The chain: order, stages of one's own, infill, options.

use super::*;

#[test]
fn the_order_of_stages_matters() {
    // Top-p behind temperature sees the sharper distribution: 0.7 of 16 : 4 : 1 : 1 is one token.
    let logits = [0.5f32, 0.25, 0.125, 0.125].map(f32::ln);
    let top_p = Stage::TopP {
        p: 0.7,
        min_keep: 1,
    };
    let count = |stages| {
        let mut sampler = Sampler::from_stages(stages, Some(1)).unwrap();
        sampler.distribution(&logits, &[], 0).unwrap().len()
    };
    assert_eq!(count(vec![Stage::Temperature(0.5), top_p.clone()]), 1);
    assert_eq!(count(vec![top_p, Stage::Temperature(0.5)]), 2);
    let options = |order: &[StageKind]| SamplerOptions {
        temperature: 0.5,
        top_p: 0.7,
        order: order.to_vec(),
        ..SamplerOptions::default()
    };
    let ways = [
        (vec![StageKind::Temperature, StageKind::TopP], 1),
        (vec![StageKind::TopP, StageKind::Temperature], 2),
        (vec![StageKind::Temperature], 4),
        (vec![], 4),
    ];
    for (order, left) in ways {
        assert_eq!(count(options(&order).stages().unwrap()), left);
    }
}

#[test]
fn only_the_last_stage_picks() {
    let stages = vec![Stage::Greedy, Stage::TopK(3)];
    let error = Sampler::from_stages(stages, None).unwrap_err();
    assert_eq!(
        (error.code(), error.place()),
        (Code::InvalidArgument, "stages")
    );
}

/// Keeps every other token; picks token 4 at step 4, fails at step 5.
#[derive(Debug)]
struct Even;

impl CustomStage for Even {
    fn apply(&mut self, candidates: &mut Candidates<'_>) -> Result<()> {
        assert_eq!(candidates.history(), [7]);
        match candidates.step() {
            4 => candidates.choose(candidates.position(4).unwrap()),
            5 => Err(Error::new(Code::Cancelled, "even", "no more")),
            6 => {
                candidates.logits_mut().fill(f32::NAN);
                Ok(())
            }
            7 => {
                candidates.retain(|_, _| false);
                Ok(())
            }
            8 => candidates.choose(99),
            _ => {
                candidates.retain(|token, logit| token % 2 == 0 && logit >= -3.0);
                let (tokens, logits) = candidates.parts_mut();
                assert_eq!(tokens.len(), logits.len());
                Ok(())
            }
        }
    }

    fn duplicate(&self) -> Box<dyn CustomStage> {
        Box::new(Self)
    }
}

#[test]
fn a_stage_of_ones_own() {
    let stages = vec![Stage::TopK(5), Stage::Custom(Custom(Box::new(Even)))];
    let mut sampler = Sampler::from_stages(stages, Some(1)).unwrap().clone();
    let logits = [0.0, 5.0, -1.0, 1.0, -2.0, -9.0, f32::NEG_INFINITY];
    let left = sampler.distribution(&logits, &[7], 0).unwrap();
    assert_eq!(left.iter().map(|c| c.token).collect::<Vec<_>>(), [0, 2, 4]);
    assert_eq!(sampler.sample(&logits, &[7], 4), Ok(4));
    assert_eq!(sampler.distribution(&logits, &[7], 4).unwrap().len(), 1);
    for (step, code) in [
        (5, Code::Cancelled),
        (6, Code::NonFinite),
        (7, Code::NonFinite),
        (8, Code::InvalidArgument),
    ] {
        assert_eq!(
            sampler.sample(&logits, &[7], step).unwrap_err().code(),
            code
        );
    }
    assert!(sampler.sample(&logits, &[7], 0).unwrap().is_multiple_of(2));
}

/// What infill leaves of texts with these probabilities; `None`: an end.
fn infill(texts: &[(Option<&str>, f32)], end: Option<u32>) -> Vec<(u32, f64)> {
    let bytes = texts
        .iter()
        .map(|(text, _)| (text.unwrap_or("").as_bytes(), text.is_none()));
    let stage = Stage::Infill(Infill::from_texts(bytes, end).unwrap());
    let logits: Vec<f32> = texts.iter().map(|(_, p)| p.ln()).collect();
    let mut sampler = Sampler::from_stages(vec![stage], Some(1)).unwrap();
    let left = sampler.distribution(&logits, &[], 0).unwrap();
    left.iter().map(|c| (c.token, c.probability)).collect()
}

#[test]
fn infill_by_hand() {
    let (hel, hell, hello) = (Some("hel"), Some("hell"), Some("hello"));
    // The end has 0.1 * 5 = 0.5 < 0.9. "hel" gets 0.8, "dummy" is below 0.2; 0.8 and 0.1 are left,
    // more than 0.9 / 2 the one.
    let texts = [
        (hel, 0.5),
        (hell, 0.2),
        (hello, 0.1),
        (Some("dummy"), 0.1),
        (None, 0.1),
    ];
    let found = infill(&texts, Some(4));
    assert!(found.len() == 2 && found[0].0 == 0 && found[1].0 == 4);
    assert!((found[0].1 - 8.0 / 9.0).abs() < 1e-6);
    // The likeliest of those with a common beginning stays.
    let found = infill(
        &[(hel, 0.1), (hell, 0.2), (hello, 0.6), (Some("a"), 0.1)],
        None,
    );
    assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), [2]);
    // 0.3 * 4 > 0.7: the end.
    let texts = [
        (Some("a"), 0.3),
        (Some("b"), 0.2),
        (None, 0.3),
        (Some("c"), 0.2),
    ];
    assert_eq!(infill(&texts, None), [(2, 1.0)]);
    // 0.45 and 0.3 of 0.75 are left; the even share of 3 is 0.25: both stay, of 1 / 1.
    let texts = [
        (Some("a"), 0.45),
        (Some("b"), 0.3),
        (Some("c"), 0.15),
        (Some("d"), 0.1),
    ];
    let found = infill(&texts, None);
    assert!(found.len() == 2 && (found[0].1 - 0.6).abs() < 1e-6);
    // All below 0.2, and no end among them: the token that ends a turn.
    let letters = ["a", "b", "c", "d", "e", "f"].map(|letter| (Some(letter), 1.0 / 6.0));
    assert_eq!(infill(&letters, Some(9)), [(9, 1.0)]);
}

#[test]
fn options_name_what_is_out_of_range() {
    type Change = fn(&mut SamplerOptions, f32);
    let fields: [(&str, Change, &[f32]); 16] = [
        ("temperature", |o, x| o.temperature = x, &[-1.0]),
        ("top_p", |o, x| o.top_p = x, &[0.0, 1.5, -0.1]),
        ("min_p", |o, x| o.min_p = x, &[1.5, -0.1]),
        ("typical_p", |o, x| o.typical_p = x, &[0.0, 1.5]),
        ("top_n_sigma", |o, x| o.top_n_sigma = x, &[-1.0]),
        (
            "xtc_probability",
            |o, x| o.xtc_probability = x,
            &[-0.1, 1.1],
        ),
        ("xtc_threshold", |o, x| o.xtc_threshold = x, &[-0.1, 1.1]),
        (
            "repetition_penalty",
            |o, x| o.repetition_penalty = x,
            &[0.0, -1.0],
        ),
        ("frequency_penalty", |o, x| o.frequency_penalty = x, &[]),
        ("presence_penalty", |o, x| o.presence_penalty = x, &[]),
        ("dry_multiplier", |o, x| o.dry_multiplier = x, &[-1.0]),
        ("dry_base", |o, x| o.dry_base = x, &[0.5]),
        ("mirostat_tau", |o, x| o.mirostat_tau = x, &[-1.0]),
        ("mirostat_eta", |o, x| o.mirostat_eta = x, &[-1.0]),
        ("adaptive_target", |o, x| o.adaptive_target = x, &[1.1]),
        ("adaptive_decay", |o, x| o.adaptive_decay = x, &[-0.1, 1.0]),
    ];
    for (name, change, values) in fields {
        for value in values.iter().chain(&[f32::NAN, f32::INFINITY]) {
            let mut options = SamplerOptions::default();
            change(&mut options, *value);
            let error = Sampler::new(&options).unwrap_err();
            let found = (error.code(), error.place());
            assert_eq!(found, (Code::InvalidArgument, name), "{value}");
        }
    }
    let options = SamplerOptions {
        logit_bias: vec![(1, f32::INFINITY)],
        ..SamplerOptions::default()
    };
    assert_eq!(Sampler::new(&options).unwrap_err().place(), "logit_bias");
    let options = SamplerOptions {
        dry_breakers: vec![vec![]],
        ..SamplerOptions::default()
    };
    assert_eq!(Sampler::new(&options).unwrap_err().place(), "dry_breakers");
}

#[test]
fn options_stand_for_chains() {
    let kinds = |options: &SamplerOptions| {
        let sampler = Sampler::new(options).unwrap();
        let name = |stage: &Stage| {
            let text = format!("{stage:?}");
            text[..text.find([' ', '(']).unwrap_or(text.len())].to_string()
        };
        sampler.stages().map(name).collect::<Vec<_>>()
    };
    let base = SamplerOptions::default();
    assert_eq!(kinds(&base), ["TopK", "TopP", "DynamicTemperature", "Pick"]);
    let options = SamplerOptions {
        mirostat: Mirostat::Two,
        ..base.clone()
    };
    assert_eq!(kinds(&options), ["DynamicTemperature", "Mirostat2"]);
    let options = SamplerOptions {
        adaptive_target: 0.4,
        min_p: 0.05,
        top_k: 0,
        top_p: 1.0,
        ..base.clone()
    };
    assert_eq!(kinds(&options), ["MinP", "DynamicTemperature", "AdaptiveP"]);
    let options = SamplerOptions {
        temperature: 0.0,
        repetition_penalty: 1.1,
        ..base
    };
    assert_eq!(
        kinds(&options),
        ["Penalties", "DynamicTemperature", "Greedy"]
    );
    for kind in StageKind::ALL {
        assert_eq!(StageKind::from_name(kind.name()), Some(kind));
    }
}
