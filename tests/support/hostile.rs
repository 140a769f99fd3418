//! What the attacks on whole models share: a valid tiny model with one thing changed, opened by
//! every loader under a stopwatch and a counting allocator, and run.
#![allow(dead_code)] // not every program uses all of it

use std::sync::Arc;

use lightgpt::control::Control;
use lightgpt::error::{Code, Result};
use lightgpt::gguf::Value;
use lightgpt::model::{Model, OpenOptions};
use lightgpt::sampler::{Sampler, SamplerOptions};
use lightgpt::session::{Action, GenerateOptions, Session, SessionOptions};

use crate::attack::{LOADERS, Loader, measured};
use crate::tiny::{SMALL, Tiny, team};

pub fn open(name: &str, bytes: &[u8], loader: Loader) -> Result<Arc<Model>> {
    measured(name, bytes, loader, &mut |source, load| {
        let options = OpenOptions {
            load: load.clone(),
            ..OpenOptions::default()
        };
        Model::open(source, &options, &mut Control::none())
    })
}

/// Changes a valid model and demands `code` and a message with every one of `places`.
pub fn refused(name: &str, change: impl Fn(&mut Tiny), code: Code, places: &[&str]) {
    let mut tiny = Tiny::new(SMALL);
    change(&mut tiny);
    let bytes = tiny.bytes();
    for loader in LOADERS {
        let Err(e) = open(name, &bytes, loader) else {
            panic!("{name} by {loader:?} was opened");
        };
        assert_eq!(e.code(), code, "{name} by {loader:?}: {e}");
        for place in places {
            let text = e.to_string();
            assert!(
                text.contains(place),
                "{name} by {loader:?}: no {place:?} in: {text}"
            );
        }
    }
}

pub fn broken(name: &str, change: impl Fn(&mut Tiny), places: &[&str]) {
    refused(name, change, Code::Format, places);
}

/// Demands that key `llama.<key>` with `value` is refused, with a message with `places`.
pub fn bad_key(key: &str, value: impl Into<Value>, places: &[&str]) {
    let value = value.into();
    let name = format!("r37-{key}");
    let mut all = vec![key];
    all.extend(places);
    broken(
        &name,
        |tiny| _ = tiny.set(&format!("llama.{key}"), value.clone()),
        &all,
    );
}

/// Changes a valid model and demands that it opens, and that it runs or says why not.
pub fn accepted(name: &str, change: impl Fn(&mut Tiny)) -> Result<()> {
    let mut tiny = Tiny::new(SMALL);
    change(&mut tiny);
    let bytes = tiny.bytes();
    let outcomes = LOADERS.map(|loader| run(&open(name, &bytes, loader).unwrap(), 0));
    assert!(
        outcomes[0] == outcomes[1] && outcomes[1] == outcomes[2],
        "{outcomes:?}"
    );
    let [outcome, ..] = outcomes;
    if let Err(e) = &outcome {
        assert_eq!(e.code(), Code::NonFinite, "{name}: {e}");
    }
    outcome
}

/// Feeds three tokens and generates two more.
pub fn run(model: &Arc<Model>, context: usize) -> Result<()> {
    let options = SessionOptions {
        context,
        ..SessionOptions::default()
    };
    let mut session = Session::new(model.clone(), team(1), &options)?;
    let vocab = model.network()?.spec.vocab as u32;
    let tokens = [1, 2, 3].map(|token| token % vocab);
    session.feed(&tokens[..session.context().min(3)])?;
    let sampler = Sampler::new(&SamplerOptions {
        seed: Some(1),
        ..Default::default()
    })?;
    let options = GenerateOptions {
        tokens_max: 2,
        ignore_end: true,
        ..GenerateOptions::new(sampler)
    };
    session.generate(&options, &mut Control::none(), &mut |_| Action::Continue)?;
    let logits = session.logits(&mut Control::none())?;
    assert!(logits.iter().all(|logit| logit.is_finite()), "{logits:?}");
    Ok(())
}
