//! How much the storage of keys and values moves what a model says: against f32, the reference,
//! the agreement of the likeliest token and the divergence of the distributions.
#![allow(clippy::unwrap_used)] // tests

use std::path::Path;
use std::sync::Arc;

use lightgpt::control::Control;
use lightgpt::gguf::Source;
use lightgpt::kv::KvFormat;
use lightgpt::model::{Model, OpenOptions};
use lightgpt::session::{Session, SessionOptions};
use lightgpt::team::{Team, TeamOptions};
use lightgpt::tokenizer::EncodeOptions;

const STORY: &str = "Once upon a time, there was a little girl named Lily. She loved to play in the \
                     park with her dog Max.";
const TOKENS: usize = 200;

fn session(model: &Arc<Model>, kv: KvFormat) -> Session {
    let team = Team::new(TeamOptions {
        threads: 1,
        ..TeamOptions::default()
    });
    let options = SessionOptions {
        kv: Some(kv),
        ..SessionOptions::default()
    };
    Session::new(Arc::clone(model), team.unwrap(), &options).unwrap()
}

/// The logits after the prompt and after each of the tokens that `next` chooses from them.
fn logits(
    session: &mut Session,
    prompt: &[u32],
    next: impl Fn(usize, &[f32]) -> u32,
) -> Vec<Vec<f32>> {
    session.feed(prompt).unwrap();
    let mut all = Vec::new();
    for i in 0..TOKENS {
        let logits = session.logits(&mut Control::none()).unwrap().to_vec();
        session.feed(&[next(i, &logits)]).unwrap();
        all.push(logits);
    }
    all
}

fn likeliest(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).reduce(|a, b| if logits[b] > logits[a] { b } else { a });
    best.unwrap() as u32
}

fn log_probabilities(logits: &[f32]) -> Vec<f64> {
    let max = f64::from(logits[likeliest(logits) as usize]);
    let sum: f64 = logits.iter().map(|x| (f64::from(*x) - max).exp()).sum();
    logits
        .iter()
        .map(|x| f64::from(*x) - max - sum.ln())
        .collect()
}

fn divergence(truth: &[f32], made: &[f32]) -> f64 {
    let (p, q) = (log_probabilities(truth), log_probabilities(made));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}

#[test]
fn rounded_keys_and_values_say_nearly_the_same() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tales-4m-q8_0.gguf");
    let options = OpenOptions::default();
    let model = Model::open(Source::Path(&path), &options, &mut Control::none()).unwrap();
    let mut prompt = Vec::new();
    let special = EncodeOptions {
        add_special: true,
        ..EncodeOptions::default()
    };
    let tokenizer = model.tokenizer().unwrap();
    tokenizer.encode(STORY, special, &mut prompt).unwrap();
    let truth = logits(&mut session(&model, KvFormat::F32), &prompt, |_, logits| {
        likeliest(logits)
    });
    for (kv, agreement, limit) in [(KvFormat::F16, 0.97, 1e-3), (KvFormat::Q8_0, 0.95, 2e-3)] {
        let follow = |i: usize, _: &[f32]| likeliest(&truth[i]);
        let made = logits(&mut session(&model, kv), &prompt, follow);
        let pairs = || truth.iter().zip(&made);
        let agreed = pairs()
            .filter(|(a, b)| likeliest(a) == likeliest(b))
            .count();
        let kl = pairs().map(|(a, b)| divergence(a, b)).sum::<f64>() / TOKENS as f64;
        assert!(
            agreed as f64 >= agreement * TOKENS as f64,
            "{kv:?}: {agreed} of {TOKENS}"
        );
        assert!(kl.abs() <= limit, "{kv:?}: {kl:e}");
        assert!(kl > 0.0, "{kv:?}: other bits, other logits");
    }
}
