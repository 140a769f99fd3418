//! Sessions under misuse: wrong arguments, wrong order, cancels at any moment. Every call answers
//! with a status, and what it did not do leaves no trace: tokens and logits are those of before, to
//! the bit.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/tiny.rs"]
mod tiny;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lightgpt::control::{Control, Flow, Signals};
use lightgpt::error::{Code, Result};
use lightgpt::model::Model;
use lightgpt::sampler::{Sampler, SamplerOptions};
use lightgpt::session::{Action, Event, Finish, GenerateOptions, Session, SessionOptions, Step};
use lightgpt::tokenizer::EncodeOptions;

use tiny::{Noise, SMALL, Tiny, open_path, session, team};

fn options(tokens_max: usize) -> GenerateOptions {
    let options = SamplerOptions {
        temperature: 1.5,
        seed: Some(5),
        ..Default::default()
    };
    GenerateOptions {
        tokens_max,
        ignore_end: true,
        ..GenerateOptions::new(Sampler::new(&options).unwrap())
    }
}

fn generate(session: &mut Session, tokens_max: usize) -> Result<Finish> {
    session.generate(&options(tokens_max), &mut Control::none(), &mut |_| {
        Action::Continue
    })
}

/// Tokens and the bits of the logits.
fn state(session: &mut Session) -> (Vec<u32>, Vec<u32>) {
    let logits = session.logits(&mut Control::none()).unwrap();
    let bits = logits.iter().map(|logit| logit.to_bits()).collect();
    (session.tokens().to_vec(), bits)
}

/// A session with a finished turn behind it.
fn after_a_turn(model: &Arc<Model>, threads: usize) -> Session {
    let chunk = 4; // several events while a prompt is evaluated
    let options = SessionOptions {
        chunk,
        ..SessionOptions::default()
    };
    let mut session = Session::new(model.clone(), team(threads), &options).unwrap();
    session.feed(&[1, 4, 7]).unwrap();
    assert_eq!(generate(&mut session, 3), Ok(Finish::Length));
    session
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

#[test]
fn wrong_arguments_are_refused_and_change_nothing() {
    let model = Tiny::new(SMALL).open();
    for (context, code) in [
        (65, Code::InvalidArgument),
        (usize::MAX, Code::InvalidArgument),
    ] {
        let options = SessionOptions {
            context,
            ..SessionOptions::default()
        };
        let e = Session::new(model.clone(), team(1), &options).unwrap_err();
        assert_eq!(e.code(), code, "{e}");
    }
    let options = SessionOptions {
        chunk: usize::MAX,
        ..SessionOptions::default()
    };
    let mut session = Session::new(model.clone(), team(1), &options).unwrap();
    session.feed(&[1, 2, 3]).unwrap();
    let before = state(&mut session);
    for tokens in [&[11][..], &[1, u32::MAX], &[1, 2, 1 << 31]] {
        let e = session.feed(tokens).unwrap_err();
        assert_eq!(e.code(), Code::InvalidArgument, "{e}");
        assert_eq!(e.place(), format!("token {}", tokens.len() - 1));
    }
    assert_eq!(
        session.feed(&[0; 62]).unwrap_err().code(),
        Code::ContextFull
    );
    for tokens in [4, usize::MAX] {
        assert_eq!(
            session.rewind(tokens).unwrap_err().code(),
            Code::InvalidArgument
        );
    }
    assert_eq!(
        session
            .feed_text("x", EncodeOptions::default())
            .unwrap_err()
            .code(),
        Code::Unsupported
    );
    assert_eq!(state(&mut session), before);
    session.feed(&[]).unwrap();
    assert_eq!(state(&mut session), before);
    session.feed(&[0; 61]).unwrap();
    assert_eq!(session.feed(&[0]).unwrap_err().code(), Code::ContextFull);
    assert_eq!(generate(&mut session, 5), Ok(Finish::ContextFull));
    assert_eq!(session.tokens().len(), 64);
    session.rewind(3).unwrap();
    assert_eq!(state(&mut session), before);
}

#[test]
fn wrong_order_is_refused_and_changes_nothing() {
    let model = Tiny::new(SMALL).open();
    let mut session = session(&model, &team(1));
    let control = &mut Control::none();
    assert_eq!(
        session.step(control).unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(
        session.begin(&options(2)).unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(
        session.logits(control).unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(
        generate(&mut session, 2).unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(session.prefill(control), Ok(Flow::Done));
    session.rewind(0).unwrap();

    session.feed(&[1, 2, 3]).unwrap();
    session.begin(&options(2)).unwrap();
    for _ in 0..2 {
        assert_eq!(session.begin(&options(9)).unwrap_err().code(), Code::Busy);
        assert_eq!(generate(&mut session, 9).unwrap_err().code(), Code::Busy);
    }
    // The turn goes on as if nobody had asked.
    let mut steps = Vec::new();
    while !matches!(steps.last(), Some(Step::Finished(_))) {
        steps.push(session.step(control).unwrap());
    }
    assert_eq!(steps.len(), 4, "{steps:?}");
    assert_eq!(
        session.step(control).unwrap_err().code(),
        Code::InvalidArgument
    );
    let stepped = session.tokens().to_vec();
    session.rewind(3).unwrap();
    generate(&mut session, 2).unwrap();
    assert_eq!(session.tokens(), stepped);

    // A rewind ends a generation, wherever it is.
    session.rewind(2).unwrap();
    session.begin(&options(2)).unwrap();
    assert_eq!(session.step(&mut due()), Ok(Step::Pending));
    // Nothing is fed into its middle.
    let (text, plain) = ("a", EncodeOptions::default());
    assert_eq!(session.feed(&[1]).unwrap_err().code(), Code::Busy);
    let fed = session.feed_text(text, plain);
    assert_eq!(fed.unwrap_err().code(), Code::Busy);
    assert_eq!(session.tokens().len(), 2);
    session.rewind(1).unwrap();
    assert_eq!(
        session.step(control).unwrap_err().code(),
        Code::InvalidArgument
    );
    let rewound = state(&mut session);
    session.rewind(0).unwrap();
    session.feed(&[1]).unwrap();
    assert_eq!(state(&mut session), rewound);

    session.poison();
    for code in [
        session.feed(&[1]).unwrap_err().code(),
        session.rewind(0).unwrap_err().code(),
        session.begin(&options(1)).unwrap_err().code(),
        session.step(control).unwrap_err().code(),
        session.prefill(control).unwrap_err().code(),
        session.logits(control).unwrap_err().code(),
    ] {
        assert_eq!(code, Code::Poisoned);
    }
}

/// How a callback can cancel the call that it is in.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Answer,
    Canceller,
    Flag,
}

#[test]
fn a_cancel_in_any_event_takes_the_turn_back() {
    let model = Tiny::new(SMALL).open();
    let mut session = after_a_turn(&model, 1);
    let before = state(&mut session);
    let prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9];
    session.feed(&prompt).unwrap();
    let mut events = 0;
    let mut count = |_: &Event<'_>| {
        events += 1;
        Action::Continue
    };
    session
        .generate(&options(5), &mut Control::none(), &mut count)
        .unwrap();
    let whole = state(&mut session);
    assert_eq!(events, 3 + 5 + 1);
    for way in [Way::Answer, Way::Canceller, Way::Flag] {
        for at in 0..events {
            session.rewind(before.0.len()).unwrap();
            session.feed(&prompt).unwrap();
            let (canceller, flag) = (session.canceller(), AtomicBool::new(false));
            let mut seen = 0;
            let mut cancel = |_: &Event<'_>| {
                seen += 1;
                match way {
                    _ if seen != at + 1 => return Action::Continue,
                    Way::Answer => return Action::Cancel,
                    Way::Canceller => canceller.cancel(),
                    Way::Flag => flag.store(true, Ordering::Relaxed),
                }
                Action::Continue
            };
            let mut control = Control::cancellable(&flag);
            let outcome = session.generate(&options(5), &mut control, &mut cancel);
            // Behind the last event only the answer to it can cancel.
            if at + 1 == events && way != Way::Answer {
                assert_eq!(outcome, Ok(Finish::Length), "{way:?} {at}");
                assert_eq!(state(&mut session), whole);
                continue;
            }
            assert_eq!(outcome.unwrap_err().code(), Code::Cancelled, "{way:?} {at}");
            assert_eq!(seen, at + 1, "no event after a cancel");
            assert_eq!(state(&mut session), before, "{way:?} {at}");
            session.feed(&prompt).unwrap();
            generate(&mut session, 5).unwrap();
            assert_eq!(state(&mut session), whole, "{way:?} {at}");
        }
    }
}

#[test]
fn bad_stop_strings_begin_nothing() {
    let model = Tiny::new(SMALL).with_tokenizer(11).open();
    let mut session = after_a_turn(&model, 1);
    let before = state(&mut session);
    for stops in [vec![""; 1], vec!["a"; 65], vec!["a", ""]] {
        let stops = stops.iter().map(ToString::to_string).collect();
        let options = GenerateOptions {
            stops,
            ..options(3)
        };
        let e = session.begin(&options).unwrap_err();
        assert_eq!(
            (e.code(), e.place()),
            (Code::InvalidArgument, "options.stops")
        );
        // No turn is open: there is nothing to cancel.
        session.canceller().cancel();
        assert_eq!(state(&mut session), before);
    }
    generate(&mut session, 3).unwrap();
}

#[test]
fn a_stop_in_any_event_keeps_what_is_there() {
    let model = Tiny::new(SMALL).open();
    let mut session = after_a_turn(&model, 1);
    let start = session.tokens().len();
    for at in 0..9 {
        session.rewind(start).unwrap();
        session.feed(&[1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap();
        let mut steps = Vec::new();
        let mut stop = |event: &Event<'_>| {
            steps.push(event.step);
            if steps.len() == at + 1 {
                Action::Stop
            } else {
                Action::Continue
            }
        };
        let finish = session
            .generate(&options(5), &mut Control::none(), &mut stop)
            .unwrap();
        assert_eq!(
            finish,
            if at == 8 {
                Finish::Length
            } else {
                Finish::Stopped
            }
        );
        assert_eq!(steps.last(), Some(&Step::Finished(finish)));
        let tokens = steps
            .iter()
            .filter(|step| matches!(step, Step::Token(_)))
            .count();
        assert_eq!(session.tokens().len(), start + 9 + tokens);
        state(&mut session);
    }
    // The event that tells of the stop may still cancel.
    session.rewind(start).unwrap();
    let before = state(&mut session);
    session.feed(&[1, 2]).unwrap();
    let mut answer = |event: &Event<'_>| match event.step {
        Step::Finished(Finish::Stopped) => Action::Cancel,
        _ => Action::Stop,
    };
    let outcome = session.generate(&options(5), &mut Control::none(), &mut answer);
    assert_eq!(outcome.unwrap_err().code(), Code::Cancelled);
    assert_eq!(state(&mut session), before);
}

#[test]
fn cancels_between_calls_and_by_progress() {
    let model = Tiny::new(SMALL).open();
    let mut session = after_a_turn(&model, 1);
    let before = state(&mut session);
    let canceller = session.canceller();
    // Without a turn there is nothing to cancel.
    canceller.cancel();
    session.feed(&[1, 2, 3]).unwrap();
    assert_eq!(session.prefill(&mut Control::none()), Ok(Flow::Done));
    // The turn is still open.
    canceller.cancel();
    assert_eq!(session.feed(&[4]).unwrap_err().code(), Code::Cancelled);
    assert_eq!(state(&mut session), before);
    // In the middle of a pass.
    session.feed(&[1, 2, 3]).unwrap();
    session.begin(&options(5)).unwrap();
    assert_eq!(session.step(&mut due()), Ok(Step::Pending));
    canceller.cancel();
    assert_eq!(
        session.step(&mut due()).unwrap_err().code(),
        Code::Cancelled
    );
    assert_eq!(state(&mut session), before);
    // A rewind ends the turn, and with it the wish to cancel.
    session.feed(&[1, 2, 3]).unwrap();
    canceller.cancel();
    session.rewind(before.0.len()).unwrap();
    assert_eq!(state(&mut session), before);
    // Generated tokens of a step by step turn go too.
    session.begin(&options(5)).unwrap();
    assert!(matches!(
        session.step(&mut Control::none()),
        Ok(Step::Token(_))
    ));
    canceller.cancel();
    assert_eq!(
        session.step(&mut Control::none()).unwrap_err().code(),
        Code::Cancelled
    );
    assert_eq!(state(&mut session), before);
    // By the report of progress, at each of its calls.
    for at in 1..=3 {
        session.feed(&[1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap();
        let mut reports = 0;
        let mut report = |_: u64, _: u64| {
            reports += 1;
            reports < at
        };
        let mut control = Control {
            progress: Some(&mut report),
            ..Control::none()
        };
        assert_eq!(
            session.prefill(&mut control).unwrap_err().code(),
            Code::Cancelled
        );
        assert_eq!(state(&mut session), before);
    }
}

fn tales() -> Arc<Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tales-4m-q8_0.gguf");
    open_path(&path)
}

#[test]
fn cancels_from_another_thread_at_random_moments() {
    let model = tales();
    let vocab = model.network().unwrap().spec.vocab;
    let mut noise = Noise(1);
    let prompt: Vec<u32> = (0..60).map(|_| noise.next(vocab) as u32).collect();
    for threads in [1, 3] {
        let mut session = after_a_turn(&model, threads);
        let before = state(&mut session);
        session.feed(&prompt).unwrap();
        let began = Instant::now();
        generate(&mut session, 10).unwrap();
        let long = began.elapsed().as_micros() as usize;
        let whole = state(&mut session);
        let cancelled = AtomicUsize::new(0);
        for _ in 0..40 {
            session.rewind(before.0.len()).unwrap();
            session.feed(&prompt).unwrap();
            let canceller = session.canceller();
            let wait = Duration::from_micros(noise.next(long) as u64);
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    std::thread::sleep(wait);
                    canceller.cancel();
                });
                match generate(&mut session, 10) {
                    Ok(_) => assert_eq!(session.tokens(), whole.0),
                    Err(e) => {
                        assert_eq!(e.code(), Code::Cancelled, "{e}");
                        assert_eq!(session.tokens(), before.0);
                        cancelled.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            session.rewind(before.0.len()).unwrap();
            assert_eq!(state(&mut session), before);
        }
        let cancelled = cancelled.into_inner();
        println!("{threads} threads: {cancelled} of 40 cancelled in time");
        assert!(cancelled > 0, "none of 40 was cancelled");
        session.feed(&prompt).unwrap();
        generate(&mut session, 10).unwrap();
        assert_eq!(state(&mut session), whole);
    }
}
