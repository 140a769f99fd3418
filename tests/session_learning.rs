//! What mirostat and adaptive-p learn goes on over the turns of a session, and back with them.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/tiny.rs"]
mod tiny;

use std::sync::Arc;

use lightgpt::control::Control;
use lightgpt::error::Code;
use lightgpt::model::Model;
use lightgpt::sampler::{Sampler, Stage};
use lightgpt::session::{Action, Event, Finish, GenerateOptions, Session, SessionOptions, Step};

use tiny::{SMALL, Tiny, team};

fn learners() -> [Stage; 3] {
    let (tau, eta) = (2.5, 0.9);
    [
        Stage::Mirostat { tau, eta },
        Stage::Mirostat2 { tau, eta },
        Stage::AdaptiveP {
            target: 0.2,
            decay: 0.8,
        },
    ]
}

fn options(stage: &Stage, tokens_max: usize) -> GenerateOptions {
    let sampler = Sampler::from_stages(vec![stage.clone()], Some(3)).unwrap();
    GenerateOptions {
        tokens_max,
        ignore_end: true,
        ..GenerateOptions::new(sampler)
    }
}

fn turn(session: &mut Session, stage: &Stage, tokens_max: usize) {
    let mut listen = |_: &Event<'_>| Action::Continue;
    let finish = session.generate(
        &options(stage, tokens_max),
        &mut Control::none(),
        &mut listen,
    );
    assert_eq!(finish, Ok(Finish::Length));
}

fn fed(model: &Arc<Model>, tokens: &[u32]) -> Session {
    let mut session = Session::new(model.clone(), team(1), &SessionOptions::default()).unwrap();
    session.feed(tokens).unwrap();
    session
}

#[test]
fn turns_go_on_where_the_last_one_ended() {
    let model = Tiny::new(SMALL).open();
    for stage in learners() {
        let mut whole = fed(&model, &[1, 4, 7]);
        turn(&mut whole, &stage, 40);
        let mut session = fed(&model, &[1, 4, 7]);
        for tokens in [10, 1, 9, 20] {
            turn(&mut session, &stage, tokens);
        }
        assert_eq!(session.tokens(), whole.tokens(), "{stage:?}");

        // It does matter: a session that has not learnt goes on in another way.
        let mut other = fed(&model, &whole.tokens()[..23]);
        turn(&mut other, &stage, 20);
        assert_ne!(other.tokens(), whole.tokens(), "{stage:?}");
    }
}

#[test]
fn what_is_taken_back_has_taught_nothing() {
    let model = Tiny::new(SMALL).open();
    for stage in learners() {
        let mut session = fed(&model, &[1, 4, 7]);
        turn(&mut session, &stage, 10);
        session.feed(&[2, 5]).unwrap();
        turn(&mut session, &stage, 20);
        let whole = session.tokens().to_vec();

        // A rewind into the second turn goes back to the end of the first.
        for kept in [13, 15, 20] {
            session.rewind(kept).unwrap();
            session.rewind(13).unwrap();
            session.feed(&[2, 5]).unwrap();
            turn(&mut session, &stage, 20);
            assert_eq!(session.tokens(), whole, "{stage:?}, {kept}");
        }
        // A cancel, in the middle and at the very end.
        for at in [1, 12, 22] {
            session.rewind(13).unwrap();
            session.feed(&[2, 5]).unwrap();
            let mut events = 0;
            let mut cancel = |_: &Event<'_>| {
                events += 1;
                match events == at {
                    true => Action::Cancel,
                    false => Action::Continue,
                }
            };
            let outcome = session.generate(&options(&stage, 20), &mut Control::none(), &mut cancel);
            assert_eq!(outcome.unwrap_err().code(), Code::Cancelled);
            session.feed(&[2, 5]).unwrap();
            turn(&mut session, &stage, 20);
            assert_eq!(session.tokens(), whole, "{stage:?}, {at}");
        }
        // All of it.
        session.rewind(0).unwrap();
        session.feed(&[1, 4, 7]).unwrap();
        turn(&mut session, &stage, 10);
        assert_eq!(session.tokens(), &whole[..13], "{stage:?}");
    }
}

#[test]
fn only_the_same_stage_goes_on() {
    let model = Tiny::new(SMALL).open();
    let [_, stage, other] = learners();
    let Stage::Mirostat2 { tau, .. } = stage else {
        unreachable!("as above")
    };
    let nearly = Stage::Mirostat2 { tau, eta: 0.2 };
    let mut session = fed(&model, &[1, 4, 7]);
    turn(&mut session, &stage, 10);
    for between in [&other, &nearly, &Stage::Greedy] {
        // A first turn of another stage is as in a session that has learnt nothing.
        let mut fresh = fed(&model, session.tokens());
        turn(&mut fresh, between, 5);
        turn(&mut session, between, 5);
        assert_eq!(session.tokens(), fresh.tokens(), "{between:?}");
    }
    // And after these the first stage goes on with what it had learnt.
    let mut sampler = options(&stage, 0).sampler;
    let mut replay = fed(&model, &[1, 4, 7]);
    for _ in 0..10 {
        let logits = replay.logits(&mut Control::none()).unwrap().to_vec();
        let (tokens, place) = (replay.tokens().to_vec(), replay.tokens().len() as u64);
        let token = sampler.sample(&logits, &tokens, place).unwrap();
        replay.feed(&[token]).unwrap();
    }
    assert_eq!(replay.tokens(), &session.tokens()[..13]);
    let mut taught = fed(&model, session.tokens());
    let mut given = options(&stage, 12);
    given.sampler = sampler;
    taught
        .generate(&given, &mut Control::none(), &mut |_| Action::Continue)
        .unwrap();
    session.begin(&options(&stage, 12)).unwrap();
    while !matches!(
        session.step(&mut Control::none()).unwrap(),
        Step::Finished(_)
    ) {}
    assert_eq!(session.tokens(), taught.tokens());
}
