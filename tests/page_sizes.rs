//! The size of pages shows in no result: not in logits, forks, what is reused, nor in saved sessions.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/tiny.rs"]
mod tiny;

use std::path::Path;
use std::sync::Arc;

use lightgpt::control::Control;
use lightgpt::error::Code;
use lightgpt::gguf::Source;
use lightgpt::kv::{KvFormat, PAGE_SIZES, PAGE_TOKENS};
use lightgpt::model::{Model, OpenOptions};
use lightgpt::session::{Session, SessionOptions};
use lightgpt::team::Team;

use tiny::{Noise, bits, generate, team};

/// Models of the kinds of attention and states that there are.
const MODELS: [&str; 9] = [
    "llama-gqa",
    "llama-head-dim",
    "gemma3",
    "llama4-long",
    "gpt-oss",
    "deepseek3",
    "bloom",
    "mamba",
    "falcon-h1",
];

fn open(name: &str, page_tokens: usize) -> Arc<Model> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let options = OpenOptions {
        page_tokens,
        ..OpenOptions::default()
    };
    let path = golden.join(name).join("model.gguf");
    Model::open(Source::Path(&path), &options, &mut Control::none()).unwrap()
}

fn session(model: &Arc<Model>, team: &Arc<Team>, kv: KvFormat) -> Session {
    let options = SessionOptions {
        kv: Some(kv),
        chunk: 37,
        ..SessionOptions::default()
    };
    Session::new(model.clone(), team.clone(), &options).unwrap()
}

fn prompt(model: &Model, len: usize) -> Vec<u32> {
    let mut noise = Noise(11);
    let vocab = model.network().unwrap().spec.vocab;
    (0..len).map(|_| noise.next(vocab) as u32).collect()
}

/// What a session comes to that reads, writes, is forked, goes on as its fork and goes back, one that
/// begins like it, and what the first one is saved as.
fn timeline(model: &Arc<Model>, team: &Arc<Team>, kv: KvFormat) -> (Vec<Vec<u32>>, Vec<u8>) {
    let len = model.network().unwrap().spec.context.min(400) - 60;
    let prompt = prompt(model, len);
    let mut all = Vec::new();
    let mut one = session(model, team, kv);
    one.feed(&prompt).unwrap();
    all.push(bits(&mut one));
    let mut fork = one.fork().unwrap();
    for session in [&mut one, &mut fork] {
        generate(session, 7, 9);
        session.feed(&prompt[..5]).unwrap();
        all.push(bits(session));
        all.push(session.tokens().to_vec());
    }
    one.rewind(len - 13).unwrap();
    one.feed(&prompt[..3]).unwrap();
    all.push(bits(&mut one));
    let mut saved = Vec::new();
    one.save(true, &mut saved).unwrap();
    assert_eq!(saved.len(), one.saved_bytes(true).unwrap());
    drop((one, fork));
    let mut other = session(model, team, kv);
    other.feed(&prompt).unwrap();
    other.feed(&prompt[..20]).unwrap();
    all.push(bits(&mut other));
    assert!(other.metrics().reused_tokens > 8);
    (all, saved)
}

#[test]
fn the_size_of_pages_does_not_show() {
    let team = team(2);
    for name in MODELS {
        let models = PAGE_SIZES.map(|tokens| open(name, tokens));
        for kv in [KvFormat::F32, KvFormat::F16, KvFormat::Q8_0] {
            let all = models.each_ref().map(|model| timeline(model, &team, kv));
            let [(first, _), others @ ..] = &all;
            for (other, _) in others {
                assert!(other == first, "{name} {kv:?}");
            }
            // From each size to each.
            for (_, saved) in &all {
                for model in &models {
                    let options = SessionOptions::default();
                    let input = &mut saved.as_slice();
                    let restored = Session::restore(model.clone(), team.clone(), &options, input);
                    let mut restored = restored.unwrap();
                    // The last but two: what the session came to that was saved.
                    assert!(
                        bits(&mut restored) == first[first.len() - 2],
                        "{name} {kv:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn only_sizes_that_there_are_can_be_chosen() {
    let network_page = |page_tokens| {
        open("llama-gqa", page_tokens)
            .network()
            .unwrap()
            .page_tokens
    };
    assert_eq!(network_page(0), PAGE_TOKENS);
    assert_eq!(PAGE_SIZES.map(network_page), PAGE_SIZES);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama-gqa/model.gguf");
    for page_tokens in [1, 8, 48, 128, 256] {
        let options = OpenOptions {
            page_tokens,
            ..OpenOptions::default()
        };
        let refused = Model::open(Source::Path(&path), &options, &mut Control::none());
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    }
}

/// A text of a few tokens takes one page.
#[test]
fn small_pages_take_less_for_short_texts() {
    let team = team(1);
    let bytes = |page_tokens| {
        let model = open("llama-gqa", page_tokens);
        let mut session = session(&model, &team, KvFormat::F32);
        session.feed(&[1, 2, 3, 4]).unwrap();
        bits(&mut session);
        let estimate = model.memory_estimate(4, KvFormat::F32, 4).unwrap();
        assert_eq!(estimate.kv, session.metrics().kv_bytes);
        estimate.kv
    };
    assert!(2 * bytes(16) < bytes(64));
}
