//! What a session says of probabilities: of the tokens it makes, and of those it is given.
#![allow(clippy::unwrap_used)] // the helpers of a test fail like the test

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use lightgpt::control::{Control, Signals};
use lightgpt::error::Code;
use lightgpt::gguf::Source;
use lightgpt::model::{Model, OpenOptions};
use lightgpt::sampler::{Sampler, SamplerOptions, log_probability};
use lightgpt::session::{Action, GenerateOptions, Session, SessionOptions, Step, TOP_MAX};
use lightgpt::team::{Team, TeamOptions};

fn session() -> Session {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama-gqa/model.gguf");
    let options = OpenOptions::default();
    let model = Model::open(Source::Path(&path), &options, &mut Control::none()).unwrap();
    let team = Team::new(TeamOptions::default()).unwrap();
    Session::new(model, team, &SessionOptions::default()).unwrap()
}

fn options(temperature: f32) -> GenerateOptions {
    let sampler = Sampler::new(&SamplerOptions {
        temperature,
        seed: Some(5),
        ..SamplerOptions::default()
    });
    GenerateOptions {
        tokens_max: 12,
        ignore_end: true,
        log_probabilities: true,
        top_log_probabilities: 3,
        ..GenerateOptions::new(sampler.unwrap())
    }
}

#[test]
fn scores_are_the_log_softmax_before_each_token() {
    let tokens = [
        7, 3, 99, 3, 3, 120, 1, 64, 2, 5, 8, 13, 21, 34, 55, 89, 17, 4, 4, 9,
    ];
    let mut session = session();
    session.feed(&[1, 2]).unwrap();
    let scores = session.score(&tokens, &mut Control::none()).unwrap();
    assert_eq!(session.tokens().len(), 2 + tokens.len());
    session.rewind(2).unwrap();
    for (token, score) in tokens.iter().zip(scores) {
        let logits = session.logits(&mut Control::none()).unwrap();
        assert_eq!(
            log_probability(logits, *token).unwrap().to_bits(),
            score.to_bits()
        );
        let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        let truth = f64::from(logits[*token as usize]) - sum.ln();
        assert!((score - truth).abs() < 1e-5, "{score} {truth}");
        session.feed(&[*token]).unwrap();
    }
}

#[test]
fn generated_tokens_come_with_their_probabilities() {
    for temperature in [0.0, 1.0] {
        let mut session = session();
        session.feed(&[1, 2]).unwrap();
        let mut made = Vec::new();
        session
            .generate(&options(temperature), &mut Control::none(), &mut |event| {
                match event.step {
                    Step::Token(token) => {
                        assert_eq!(event.top.len(), 3);
                        let falling = |w: &[_]| w[0] >= w[1];
                        let top: Vec<f64> = event.top.iter().map(|s| s.log_probability).collect();
                        assert!(top.windows(2).all(falling));
                        if temperature == 0.0 {
                            assert_eq!(event.top[0].token, token);
                            assert_eq!(event.log_probability, Some(top[0]));
                        }
                        made.push((token, event.log_probability.unwrap()));
                    }
                    _ => assert!(event.top.is_empty() && event.log_probability.is_none()),
                }
                Action::Continue
            })
            .unwrap();
        session.rewind(2).unwrap();
        let tokens: Vec<u32> = made.iter().map(|m| m.0).collect();
        let scores = session.score(&tokens, &mut Control::none()).unwrap();
        assert_eq!(scores, made.iter().map(|m| m.1).collect::<Vec<_>>());
    }
}

#[test]
fn scored_tokens_belong_to_the_turn() {
    let mut session = session();
    let cancel = AtomicBool::new(false);
    let signals = Signals {
        cancel: [Some(&cancel), None],
        ..Signals::default()
    };
    let mut control = Control {
        signals,
        progress: None,
    };
    for cancelled_before in [true, false] {
        session.feed(&[1, 2]).unwrap();
        cancel.store(cancelled_before, Ordering::Relaxed);
        let code = match session.score(&[3, 4], &mut control) {
            Err(error) => error.code(),
            Ok(scores) => {
                assert_eq!((scores.len(), session.tokens().len()), (2, 4));
                session.canceller().cancel();
                session.feed(&[5]).unwrap_err().code()
            }
        };
        assert_eq!(code, Code::Cancelled);
        assert!(session.tokens().is_empty());
    }
    // What does not fit leaves all that was there, and the turn open.
    session.feed(&[1, 2]).unwrap();
    let refused = session.score(&[3; 100_000], &mut control).unwrap_err();
    assert_eq!(refused.code(), Code::ContextFull);
    assert_eq!(session.tokens(), [1, 2]);
    session.canceller().cancel();
    assert_eq!(session.feed(&[5]).unwrap_err().code(), Code::Cancelled);
    assert!(session.tokens().is_empty());
    // Nothing is scored within a generation.
    session.feed(&[1]).unwrap();
    session.begin(&options(1.0)).unwrap();
    let busy = session.score(&[3], &mut control).unwrap_err();
    assert_eq!(busy.code(), Code::Busy);
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let mut session = session();
    let mut code = |tokens: &[u32]| {
        session
            .score(tokens, &mut Control::none())
            .map_err(|error| error.code())
    };
    assert_eq!(code(&[3]), Err(Code::InvalidArgument));
    assert_eq!(code(&[]), Ok(vec![]));
    session.feed(&[1]).unwrap();
    let mut code = |tokens: &[u32]| {
        session
            .score(tokens, &mut Control::none())
            .map_err(|error| error.code())
    };
    assert_eq!(code(&[1 << 20]), Err(Code::InvalidArgument));
    assert_eq!(code(&[3; 100_000]), Err(Code::ContextFull));
    let mut options = options(1.0);
    options.top_log_probabilities = TOP_MAX + 1;
    assert_eq!(
        session.begin(&options).unwrap_err().code(),
        Code::InvalidArgument
    );
}
