//! Sessions on models that keep states: whatever is taken back, paused or asked again, the bits are
//! those of a session that did nothing of it.
#![allow(clippy::unwrap_used)] // tests

#[path = "support/tiny.rs"]
mod tiny;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use lightgpt::budget::Budget;
use lightgpt::control::{Control, Flow, Signals};
use lightgpt::error::Code;
use lightgpt::gguf::Source;
use lightgpt::kernel;
use lightgpt::kv::KvFormat;
use lightgpt::model::{Model, Network, OpenOptions};
use lightgpt::sampler::{Sampler, SamplerOptions};
use lightgpt::session::{Action, GenerateOptions, Session, SessionOptions, Step};
use lightgpt::team::Team;

/// A model of each kind of state.
const MODELS: [&str; 5] = ["lfm2", "mamba", "mamba2", "falcon-h1", "qwen3next"];

fn path(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/golden").join(name).join("model.gguf")
}

fn each_model(test: impl Fn(&Arc<Model>, &Arc<Team>)) {
    let team = tiny::team(2);
    for name in MODELS {
        let model = tiny::open_path(&path(name));
        test(&model, &team);
    }
}

fn session(model: &Arc<Model>, team: &Arc<Team>, chunk: usize) -> Session {
    let options = SessionOptions {
        context: 120,
        chunk,
        unshared: true,
        ..SessionOptions::default()
    };
    Session::new(Arc::clone(model), Arc::clone(team), &options).unwrap()
}

fn token(i: usize) -> u32 {
    ((i * 2_654_435 + 17) % 96) as u32
}

fn tokens(range: std::ops::Range<usize>) -> Vec<u32> {
    range.map(token).collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

fn logits(session: &mut Session) -> Vec<u32> {
    bits(session.logits(&mut Control::none()).unwrap())
}

/// The logits after each of the first tokens.
fn truth(model: &Arc<Model>, team: &Arc<Team>, len: usize) -> Vec<Vec<u32>> {
    let mut session = session(model, team, 0);
    session.feed(&tokens(0..len)).unwrap();
    let mut all = Vec::new();
    let mut each = |_, row: &[f32]| all.push(bits(row));
    session
        .logits_of_each(&mut Control::none(), &mut each)
        .unwrap();
    assert_eq!(all.len(), len);
    all
}

#[test]
fn a_rewind_to_any_token_leaves_the_bits_of_a_fresh_run() {
    each_model(|model, team| {
        let truth = truth(model, team, 40);
        for chunk in [1, 7, 64] {
            let mut session = session(model, team, chunk);
            for keep in [39, 38, 37, 30, 12, 1, 0, 25, 39] {
                let there = session.tokens().len();
                session.feed(&tokens(there..40)).unwrap();
                assert!(logits(&mut session) == truth[39], "all after {there}");
                session.rewind(keep).unwrap();
                if keep > 0 {
                    assert!(logits(&mut session) == truth[keep - 1], "{chunk}: {keep}");
                }
            }
        }
    });
}

#[test]
fn logits_that_are_asked_again_are_the_same() {
    each_model(|model, team| {
        let truth = truth(model, team, 30);
        let mut session = session(model, team, 0);
        session.feed(&tokens(0..29)).unwrap();
        assert!(logits(&mut session) == truth[28]);
        for _ in 0..3 {
            // What is fed and dropped takes the logits along.
            session.feed(&[3, 4]).unwrap();
            session.rewind(29).unwrap();
            assert!(logits(&mut session) == truth[28]);
        }
        session.feed(&tokens(29..30)).unwrap();
        assert!(logits(&mut session) == truth[29]);
    });
}

#[test]
fn logits_of_each_are_those_of_new_tokens() {
    each_model(|model, team| {
        let truth = truth(model, team, 40);
        let mut session = session(model, team, 0);
        session.feed(&tokens(0..33)).unwrap();
        logits(&mut session);
        session.rewind(20).unwrap();
        session.feed(&tokens(20..40)).unwrap();
        let mut seen = Vec::new();
        let mut each = |position: usize, row: &[f32]| {
            assert!(bits(row) == truth[position], "at {position}");
            seen.push(position);
        };
        session
            .logits_of_each(&mut Control::none(), &mut each)
            .unwrap();
        assert!(seen.iter().copied().eq(20..40), "{seen:?}");
    });
}

#[test]
fn a_paused_pass_that_is_dropped_leaves_nothing() {
    each_model(|model, team| {
        let truth = truth(model, team, 40);
        for pauses in [1, 5, 23, 60] {
            let mut session = session(model, team, 16);
            session.feed(&tokens(0..20)).unwrap();
            logits(&mut session);
            session.feed(&tokens(20..40)).unwrap();
            for _ in 0..pauses {
                let signals = Signals {
                    deadline: Some(Instant::now()),
                    ..Signals::default()
                };
                let control = &mut Control {
                    signals,
                    progress: None,
                };
                if session.prefill(control).unwrap() == Flow::Done {
                    break;
                }
            }
            session.rewind(20).unwrap();
            assert!(logits(&mut session) == truth[19], "after {pauses} pauses");
            session.feed(&tokens(20..40)).unwrap();
            assert!(logits(&mut session) == truth[39], "after {pauses} pauses");
        }
    });
}

#[test]
fn a_cancelled_turn_is_rolled_back() {
    each_model(|model, team| {
        let truth = truth(model, team, 24);
        let mut session = session(model, team, 8);
        session.feed(&tokens(0..24)).unwrap();
        assert!(logits(&mut session) == truth[23]);
        let options = greedy(12);
        let mut run = |stop_at: usize| {
            let mut made = Vec::new();
            let outcome = session.generate(&options, &mut Control::none(), &mut |event| {
                if let Step::Token(token) = event.step {
                    made.push(token);
                }
                match made.len() == stop_at {
                    true => Action::Cancel,
                    false => Action::Continue,
                }
            });
            (outcome, made)
        };
        let (outcome, cancelled) = run(9);
        assert_eq!(outcome.unwrap_err().code(), Code::Cancelled);
        let (outcome, made) = run(usize::MAX);
        outcome.unwrap();
        assert_eq!(made[..9], cancelled);
        assert_eq!(made.len(), 12);
        // The last token was not evaluated; going back to the prompt is going back to its state.
        session.rewind(24).unwrap();
        assert!(logits(&mut session) == truth[23]);
    });
}

fn greedy(tokens_max: usize) -> GenerateOptions {
    let sampler = Sampler::new(&SamplerOptions {
        temperature: 0.0,
        ..SamplerOptions::default()
    });
    GenerateOptions {
        tokens_max,
        ignore_end: true,
        ..GenerateOptions::new(sampler.unwrap())
    }
}

/// Greedy tokens, chunk by chunk of what has to be evaluated first.
fn generated(session: &mut Session, tokens_max: usize) -> Vec<u32> {
    let options = greedy(tokens_max);
    let there = session.tokens().len();
    session
        .generate(&options, &mut Control::none(), &mut |_| Action::Continue)
        .unwrap();
    session.tokens()[there..].to_vec()
}

#[test]
fn a_turn_goes_on_from_the_middle_of_another() {
    each_model(|model, team| {
        let mut session = session(model, team, 4);
        session.feed(&tokens(0..10)).unwrap();
        let made = generated(&mut session, 40);
        for keep in [45, 30, 11, 10] {
            session.rewind(keep).unwrap();
            assert_eq!(generated(&mut session, 50 - keep), made[keep - 10..]);
        }
    });
}

#[test]
fn forks_and_shifts_are_as_if_they_were_alone() {
    each_model(|model, team| {
        let truth = truth(model, team, 40);
        let mut one = session(model, team, 8);
        one.feed(&tokens(0..20)).unwrap();
        logits(&mut one);
        one.feed(&tokens(20..30)).unwrap();
        let mut other = one.fork().unwrap();
        other.feed(&[1, 2, 3]).unwrap();
        logits(&mut other);
        one.feed(&tokens(30..40)).unwrap();
        assert!(logits(&mut one) == truth[39]);
        other.rewind(30).unwrap();
        other.feed(&tokens(30..40)).unwrap();
        assert!(logits(&mut other) == truth[39]);
        drop(one);
        other.rewind(20).unwrap();
        assert!(logits(&mut other) == truth[19]);

        let mut shifted = session(model, team, 8);
        shifted.feed(&tokens(0..3)).unwrap();
        shifted.feed(&[9, 8, 7, 6]).unwrap();
        shifted.feed(&tokens(3..40)).unwrap();
        logits(&mut shifted);
        shifted.shift(3, 4).unwrap();
        assert!(logits(&mut shifted) == truth[39]);
    });
}

/// Pages of what another session has evaluated come without its states.
#[test]
fn sessions_with_states_share_no_prefixes() {
    each_model(|model, team| {
        let truth = truth(model, team, 100);
        for _ in 0..2 {
            let mut session = session(model, team, 0);
            session.feed(&tokens(0..100)).unwrap();
            assert!(logits(&mut session) == truth[99]);
            assert_eq!(session.metrics().reused_tokens, 0);
        }
    });
}

#[test]
fn the_memory_of_states_is_counted_and_capped() {
    each_model(|model, team| {
        let estimate = model.memory_estimate(120, KvFormat::F16, 120).unwrap();
        let budget = Budget::default();
        let options = SessionOptions {
            context: 120,
            budget: Some(budget.clone()),
            ..SessionOptions::default()
        };
        let open =
            |options: &SessionOptions| Session::new(Arc::clone(model), Arc::clone(team), options);
        let mut session = open(&options).unwrap();
        session.feed(&tokens(0..120)).unwrap();
        logits(&mut session);
        assert_eq!(budget.bytes(), estimate.kv + estimate.logits);
        let cap = Budget::new(Some(100), None);
        let options = SessionOptions {
            budget: Some(cap),
            ..options
        };
        assert_eq!(open(&options).unwrap_err().code(), Code::MemoryCap);
    });
}

#[test]
fn a_state_that_grows_without_bound_is_an_error() {
    for name in ["mamba", "mamba2", "qwen3next"] {
        let mut change = |network: &mut Network| {
            let layers = network.weights.layers.iter_mut();
            let states = layers.filter_map(|layer| layer.recurrent.as_mut()?.state.as_mut());
            states.for_each(|state| state.decay.fill(40.0));
        };
        let (path, options) = (path(name), OpenOptions::default());
        let (source, kernels) = (Source::Path(&path), kernel::detect());
        let control = &mut Control::none();
        let model = Model::open_changed(source, &options, control, kernels, &mut change).unwrap();
        let mut session = session(&model, &tiny::team(1), 8);
        session.feed(&tokens(0..24)).unwrap();
        for _ in 0..2 {
            let error = session.logits(&mut Control::none()).unwrap_err();
            assert_eq!(error.code(), Code::NonFinite, "{error}");
        }
        session.rewind(0).unwrap();
        session.feed(&tokens(0..1)).unwrap();
        logits(&mut session);
    }
}
