//! Every key of every architecture with values that it should not have: a model is refused, or it
//! runs; nothing panics, and no key decides how much memory is taken.
#![allow(clippy::unwrap_used)] // tests

#[path = "support/golden.rs"]
mod golden;
#[path = "support/timeline.rs"]
mod timeline;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use lightgpt::control::Control;
use lightgpt::error::{Code, Result};
use lightgpt::gguf::{Array, Gguf, LoadOptions, Source, Value, Writer};
use lightgpt::model::{Model, OpenOptions};
use lightgpt::session::{EmbedOptions, Session, SessionOptions};
use lightgpt::team::{Team, TeamOptions};

/// One golden an architecture.
fn goldens() -> Vec<PathBuf> {
    let all = golden::own_cases().into_iter();
    let named = all.map(|folder| (golden::Case::read(&folder).architecture, folder));
    named.collect::<BTreeMap<_, _>>().into_values().collect()
}

/// The file with one key changed, or left out.
fn changed(gguf: &Gguf, key: &str, value: Option<&Value>) -> Vec<u8> {
    let mut writer = Writer::new();
    for (name, old) in gguf.metadata().iter() {
        match (name == key, value) {
            (false, _) => _ = writer.set(name, old.clone()).unwrap(),
            (true, Some(value)) => _ = writer.set(name, value.clone()).unwrap(),
            (true, None) => {}
        }
    }
    for tensor in gguf.tensors() {
        let dims = &tensor.dims[..tensor.dimensions as usize];
        let bytes = &tensor.bytes[..];
        writer
            .tensor(&tensor.name, tensor.format, dims, bytes)
            .unwrap();
    }
    writer.to_bytes()
}

/// Values of the kind of `value` that a key had better not have.
fn hostile(value: &Value) -> Vec<Value> {
    match value {
        Value::U32(_) => [0, 1, 3, 1000, 1 << 24, u32::MAX].map(Value::U32).into(),
        Value::F32(_) => [0.0, -1.0, 1e-30, 1e30, f32::NAN, f32::INFINITY]
            .map(Value::F32)
            .into(),
        Value::Bool(flag) => vec![Value::Bool(!flag)],
        Value::Array(Array::F32(items)) => vec![
            Value::from(items[1..].to_vec()),
            Value::from(vec![f32::NAN; items.len()]),
            Value::from(vec![1e30; items.len()]),
        ],
        Value::Array(Array::I32(items)) => vec![
            Value::from(items[1..].to_vec()),
            Value::from(vec![0; items.len()]),
            Value::from(vec![-1; items.len()]),
            Value::from((0..items.len() as i32).collect::<Vec<_>>()),
            Value::from(vec![i32::MAX; items.len()]),
        ],
        Value::Array(Array::Bool(items)) => vec![
            Value::from(items[1..].to_vec()),
            Value::from(vec![true; items.len()]),
        ],
        _ => vec![Value::U32(7)],
    }
}

#[test]
fn keys_that_should_not_be_so_are_refused_or_run() {
    let team = Team::new(TeamOptions {
        threads: 1,
        ..TeamOptions::default()
    });
    let team = team.unwrap();
    let (mut refused, mut ran) = (0, 0);
    for folder in goldens() {
        let bytes = fs::read(folder.join("model.gguf")).unwrap();
        let options = LoadOptions::default();
        let gguf = Gguf::open(Source::Owned(bytes), &options, &mut Control::none()).unwrap();
        for (key, value) in gguf.metadata().iter() {
            if key.starts_with("general.") || key.starts_with("tokenizer.") {
                continue;
            }
            let changes = hostile(value).into_iter().map(Some).chain([None]);
            for value in changes {
                match run(&team, changed(&gguf, key, value.as_ref())) {
                    Ok(()) => ran += 1,
                    Err(error) => {
                        let expected = [Code::Format, Code::Unsupported, Code::NonFinite];
                        assert!(
                            expected.contains(&error.code()),
                            "{folder:?}: {key} {value:?}: {error}"
                        );
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(refused > 1000 && ran > 100, "{refused} refused, {ran} ran");
}

/// Opens a model and evaluates some tokens.
fn run(team: &Arc<Team>, bytes: Vec<u8>) -> Result<()> {
    let options = OpenOptions::default();
    let model = Model::open(Source::Owned(bytes), &options, &mut Control::none())?;
    let options = SessionOptions {
        context: model.network()?.spec.context.min(16),
        ..SessionOptions::default()
    };
    let mut session = Session::new(model, Arc::clone(team), &options)?;
    let tokens: Vec<u32> = (0..options.context.min(12) as u32).collect();
    let control = &mut Control::none();
    if !session.model().network()?.spec.predicts {
        let (options, split) = (EmbedOptions::default(), tokens.len() / 2);
        let ranks = session.scores().is_ok();
        return match ranks {
            true => session.rank(&tokens, split, control).map(drop),
            false => session.embed(&tokens, &options, control).map(drop),
        };
    }
    session.feed(&tokens)?;
    session.logits(control)?;
    Ok(())
}
