//! Forks and shifts: whatever is forked, shifted, rewound and paused, each session says what one
//! says that was fed its tokens and nothing else, to the bit.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/tiny.rs"]
mod tiny;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use lightgpt::budget::Budget;
use lightgpt::control::{Control, Signals};
use lightgpt::error::Code;
use lightgpt::gguf::{LoadOptions, Source};
use lightgpt::kernel::{self, Window};
use lightgpt::kv::KvFormat;
use lightgpt::model::{Model, OpenOptions};
use lightgpt::sampler::{Sampler, SamplerOptions, Stage};
use lightgpt::session::{GenerateOptions, Session, SessionOptions, Step};
use lightgpt::team::Team;
use lightgpt::tokenizer::EncodeOptions;

use tiny::{Noise, SMALL, Sizes, Tiny, bits, open, open_path, team};

const SIZES: Sizes = Sizes {
    context: 700,
    ..SMALL
};

fn session(model: &Arc<Model>, team: &Arc<Team>, kv: KvFormat) -> Session {
    let options = SessionOptions {
        kv: Some(kv),
        chunk: 32,
        ..SessionOptions::default()
    };
    Session::new(model.clone(), team.clone(), &options).unwrap()
}

/// Demands that a session says what a new one says after the same tokens.
fn check(session: &mut Session, kv: KvFormat, team: &Arc<Team>) {
    let tokens = session.tokens().to_vec();
    let mut fresh = self::session(session.model(), team, kv);
    fresh.feed(&tokens).unwrap();
    assert!(bits(session) == bits(&mut fresh), "{} tokens", tokens.len());
}

fn due() -> Control<'static> {
    let signals = Signals {
        deadline: Some(Instant::now()),
        ..Signals::default()
    };
    Control {
        signals,
        progress: None,
    }
}

fn sampled(seed: u64, tokens_max: usize) -> GenerateOptions {
    let options = SamplerOptions {
        temperature: 1.5,
        seed: Some(seed),
        ..Default::default()
    };
    GenerateOptions {
        tokens_max,
        ignore_end: true,
        ..GenerateOptions::new(Sampler::new(&options).unwrap())
    }
}

/// Steps a turn to its end; its text.
fn finish(session: &mut Session) -> String {
    let mut text = String::new();
    loop {
        let step = session.step(&mut Control::none()).unwrap();
        text.push_str(session.text());
        if matches!(step, Step::Finished(_)) {
            return text;
        }
    }
}

/// One random call on one of the sessions, each of which stays whole.
fn operate(sessions: &mut Vec<Session>, noise: &mut Noise, vocab: usize) {
    let one = noise.next(sessions.len());
    let len = sessions[one].tokens().len();
    match noise.next(10) {
        0 | 1 if sessions.len() < 6 => {
            let fork = sessions[one].fork().unwrap();
            assert_eq!(fork.tokens(), sessions[one].tokens());
            sessions.push(fork);
        }
        2 if sessions.len() > 2 => drop(sessions.swap_remove(one)),
        3 => sessions[one].rewind(noise.next(len + 1)).unwrap(),
        4 => {
            let keep = noise.next(len + 1);
            let dropped = noise.next(len - keep + 1);
            sessions[one].shift(keep, dropped).unwrap();
        }
        5 if len > 0 => {
            sessions[one].begin(&sampled(len as u64, 9)).unwrap();
            // A part of a turn, perhaps with a pass in the middle.
            for _ in 0..noise.next(30) {
                if let Step::Finished(_) = sessions[one].step(&mut due()).unwrap() {
                    break;
                }
            }
            if sessions.len() < 6 {
                let fork = sessions[one].fork().unwrap();
                sessions.push(fork);
                finish_if_begun(sessions.last_mut().unwrap());
            }
            finish_if_begun(&mut sessions[one]);
        }
        6 => {
            sessions[one].prefill(&mut due()).unwrap();
        }
        _ => {
            let room = sessions[one].context() - len;
            let more = noise.next(90).min(room);
            let tokens: Vec<u32> = (0..more).map(|_| noise.next(vocab) as u32).collect();
            sessions[one].feed(&tokens).unwrap();
        }
    }
}

fn finish_if_begun(session: &mut Session) {
    // Only a turn that was begun refuses to be fed.
    if session.feed(&[]).is_err() {
        finish(session);
    }
}

fn timelines(model: &Arc<Model>, kv: KvFormat, calls: usize) {
    let (team, mut noise) = (team(2), Noise(calls as u64));
    let vocab = model.network().unwrap().spec.vocab;
    let mut sessions = vec![session(model, &team, kv)];
    for call in 0..calls {
        operate(&mut sessions, &mut noise, vocab);
        if call % 10 == 9 {
            let one = noise.next(sessions.len());
            if !sessions[one].tokens().is_empty() {
                check(&mut sessions[one], kv, &team);
            }
        }
    }
    for session in &mut sessions {
        if !session.tokens().is_empty() {
            check(session, kv, &team);
        }
    }
}

#[test]
fn random_timelines_say_what_their_tokens_say() {
    let model = Tiny::new(SIZES).open();
    for kv in [KvFormat::F32, KvFormat::F16, KvFormat::Q8_0] {
        timelines(&model, kv, 300);
    }
    let latent = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/deepseek3/model.gguf");
    timelines(&open_path(&latent), KvFormat::F16, 100);
}

/// The same where old keys are forgotten.
#[test]
fn windows_forget_and_nobody_sees_it() {
    let options = OpenOptions::default();
    for windows in [
        [Window::Sliding(40), Window::Sliding(90)],
        [Window::Chunked(50), Window::Sliding(300)],
    ] {
        let source = Source::Owned(Tiny::new(SIZES).bytes());
        let model = Model::open_changed(
            source,
            &options,
            &mut Control::none(),
            kernel::detect(),
            &mut |network| {
                for (layer, window) in network.spec.each.iter_mut().zip(windows) {
                    layer.window = window;
                }
            },
        )
        .unwrap();
        timelines(&model, KvFormat::F16, 300);

        // In one pass nothing is forgotten before its end.
        let tokens: Vec<u32> = (0..690).map(|i| i * i % 11).collect();
        let whole = SessionOptions {
            chunk: 700,
            ..SessionOptions::default()
        };
        let mut whole = Session::new(model.clone(), team(1), &whole).unwrap();
        let mut cut = session(&model, &team(1), KvFormat::F16);
        whole.feed(&tokens).unwrap();
        cut.feed(&tokens).unwrap();
        assert!(bits(&mut whole) == bits(&mut cut), "{windows:?}");
        let estimate = model.memory_estimate(700, KvFormat::F16, 32).unwrap();
        assert!(cut.metrics().kv_bytes <= estimate.kv);
        let all = Tiny::new(SIZES)
            .open()
            .memory_estimate(690, KvFormat::F16, 32);
        assert!(estimate.kv < all.unwrap().kv);
        // Back to where everything is gone.
        cut.rewind(10).unwrap();
        check(&mut cut, KvFormat::F16, &team(1));
    }
}

#[test]
fn forks_in_the_middle_of_a_turn_end_like_their_origin() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tales-4m-q8_0.gguf");
    let model = open_path(&path);
    let special = EncodeOptions {
        add_special: true,
        ..EncodeOptions::default()
    };
    let mirostat = Stage::Mirostat2 { tau: 4.0, eta: 0.5 };
    let mirostat = Sampler::from_stages(vec![mirostat], Some(9)).unwrap();
    for sampler in [sampled(3, 0).sampler, mirostat] {
        let options = GenerateOptions {
            tokens_max: 40,
            stops: vec!["the e".into(), " and they".into()],
            log_probabilities: true,
            ..GenerateOptions::new(sampler)
        };
        let mut origin = session(&model, &team(2), KvFormat::F16);
        origin.feed_text("Once upon a time", special).unwrap();
        origin.begin(&options).unwrap();
        let (mut text, mut forks) = (String::new(), Vec::new());
        for step in 0.. {
            if step % 7 == 3 {
                forks.push((origin.fork().unwrap(), text.clone()));
            }
            // Some steps end inside a token.
            let control = &mut if step % 2 == 0 {
                due()
            } else {
                Control::none()
            };
            let done = matches!(origin.step(control).unwrap(), Step::Finished(_));
            text.push_str(origin.text());
            if done {
                break;
            }
        }
        assert!(forks.len() > 3, "{}", forks.len());
        for (mut fork, mut start) in forks {
            start.push_str(&finish(&mut fork));
            assert_eq!(start, text);
            assert_eq!(fork.tokens(), origin.tokens());
            // The next turn too: what was learnt went along.
            let mut other = origin.fork().unwrap();
            fork.begin(&options).unwrap();
            other.begin(&options).unwrap();
            assert_eq!(finish(&mut fork), finish(&mut other));
            assert_eq!(fork.tokens(), other.tokens());
        }
    }
}

#[test]
fn a_fork_is_cancelled_by_itself() {
    let model = Tiny::new(SIZES).open();
    let mut origin = session(&model, &team(1), KvFormat::F16);
    origin.feed(&[1, 2, 3]).unwrap();
    let before = bits(&mut origin);
    origin.feed(&[4, 5]).unwrap();
    let mut fork = origin.fork().unwrap();
    fork.canceller().cancel();
    assert_eq!(fork.feed(&[6]).unwrap_err().code(), Code::Cancelled);
    assert_eq!((fork.tokens(), origin.tokens().len()), (&[1, 2, 3][..], 5));
    assert!(bits(&mut fork) == before);
    origin.feed(&[6]).unwrap();
    assert_eq!(fork.metrics().prompt_tokens, 0);
    check(&mut origin, KvFormat::F16, &team(1));
}

#[test]
fn shifts_are_held_to_what_is_there() {
    let model = Tiny::new(SIZES).open();
    let mut session = session(&model, &team(1), KvFormat::F16);
    let tokens: Vec<u32> = (0..100).map(|i| i * 7 % 11).collect();
    session.feed(&tokens).unwrap();
    for (keep, dropped) in [(0, 101), (101, 0), (60, 41), (1, usize::MAX)] {
        let refused = session.shift(keep, dropped).map_err(|e| e.code());
        assert_eq!(refused, Err(Code::InvalidArgument));
    }
    session.shift(100, 0).unwrap();
    assert_eq!(session.tokens(), tokens);
    session.shift(4, 50).unwrap();
    assert_eq!(session.tokens(), [&tokens[..4], &tokens[54..]].concat());
    check(&mut session, KvFormat::F16, &team(1));

    // In the middle of a turn, which goes on; what was begun before it can still be cancelled.
    session.feed(&[1, 2]).unwrap();
    session.begin(&sampled(1, 8)).unwrap();
    while session.tokens().len() < 56 {
        session.step(&mut Control::none()).unwrap();
    }
    assert_eq!(
        session.shift(0, session.tokens().len()).unwrap_err().code(),
        Code::InvalidArgument
    );
    session.shift(2, 30).unwrap();
    let mut cancelled = session.fork().unwrap();
    cancelled.canceller().cancel();
    assert!(cancelled.step(&mut Control::none()).is_err());
    assert_eq!(cancelled.tokens(), &session.tokens()[..50 - 30]);
    finish(&mut session);
    assert_eq!(session.tokens().len(), 50 - 30 + 2 + 8);
    check(&mut session, KvFormat::F16, &team(1));
    session.shift(0, 30).unwrap();
    assert!(session.tokens().is_empty());
}

/// A cap that leaves no room for a copy: the fork stays whole, and goes on when there is room.
#[test]
fn a_cap_leaves_forks_whole() {
    let bytes = Tiny::new(SIZES).bytes();
    let tokens: Vec<u32> = (0..100).map(|i| i * 7 % 11).collect();
    let mut refused = 0;
    let budget = Budget::default();
    let mut most = u64::MAX;
    for cap in 0.. {
        let cap = if cap == 0 { u64::MAX } else { most - 64 * cap };
        let budget = match cap {
            u64::MAX => budget.clone(),
            cap => Budget::new(Some(cap), None),
        };
        let model = open(bytes.clone(), LoadOptions::default());
        let options = SessionOptions {
            budget: Some(budget.clone()),
            ..SessionOptions::default()
        };
        let Ok(mut origin) = Session::new(model, team(1), &options) else {
            break;
        };
        origin.feed(&tokens).unwrap();
        if origin.logits(&mut Control::none()).is_err() {
            break;
        }
        let mut fork = origin.fork().unwrap();
        fork.feed(&[1]).unwrap();
        origin.feed(&[2]).unwrap();
        let outcome = fork.logits(&mut Control::none()).map(|_| ());
        if let Err(error) = outcome {
            assert_eq!(error.code(), Code::MemoryCap);
            refused += 1;
            assert_eq!(fork.tokens().len(), 101);
            drop(origin.fork().unwrap());
            // The origin gives up what they share.
            origin.rewind(0).unwrap();
            if fork.logits(&mut Control::none()).is_err() {
                fork.rewind(64).unwrap();
            }
        }
        if most == u64::MAX {
            most = budget.bytes_max();
        }
        drop((origin, fork));
        assert_eq!(budget.bytes(), 0);
    }
    assert!(refused > 10, "{refused}");
}
