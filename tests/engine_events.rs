//! What those who listen may do to a queue: call it, stop, cancel, panic; and stages that fail. The
//! others do not notice.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/requests.rs"]
mod requests;
#[path = "support/tiny.rs"]
mod tiny;

use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use lightgpt::engine::{
    Happened, Listener, Outcome, Poll, Polled, Progress, Queue, QueueOptions, Request,
};
use lightgpt::error::{Code, Error, Result};
use lightgpt::kv::KvFormat;
use lightgpt::model::Model;
use lightgpt::sampler::{Candidates, Custom, CustomStage, Sampler, SamplerOptions};
use lightgpt::session::{Action, Finish};

use requests::{All, Asked, Draws, alone, listener};
use tiny::{SMALL, Sizes, Tiny, team};

const SIZES: Sizes = Sizes {
    context: 256,
    ..SMALL
};

fn small() -> Arc<Model> {
    Tiny::new(SIZES).with_tokenizer(SIZES.vocab).open()
}

/// Runs requests of others beside `one`, and looks at what they got.
fn beside(model: &Arc<Model>, one: impl FnOnce(&Arc<Queue>)) {
    let queue = Queue::new(model.clone(), team(2), &QueueOptions::default()).unwrap();
    let (queue, heard) = (Arc::new(queue), All::default());
    let mut draws = Draws(77);
    let mut others = Vec::new();
    let mut submit = || {
        let mut asked = Asked::draw(&mut draws, model, 40);
        // Token 10 is what breaks the broken model.
        asked.tokens.iter_mut().for_each(|token| *token %= 10);
        asked.generate.sampler = Sampler::new(&SamplerOptions {
            logit_bias: vec![(10, f32::NEG_INFINITY)],
            seed: Some(4),
            ..SamplerOptions::default()
        })
        .unwrap();
        let request = Request {
            listener: Some(listener(&heard)),
            ..asked.request()
        };
        others.push((queue.submit(request).unwrap(), asked));
    };
    (0..4).for_each(|_| submit());
    one(&queue);
    (0..4).for_each(|_| submit());
    while queue.step(Some(Duration::from_millis(1))).unwrap() == Progress::Pending {}
    for (id, asked) in &others {
        let expected = alone(asked, model, &team(1), KvFormat::F16);
        assert_eq!(heard.lock().unwrap()[id], expected);
    }
}

fn asked(tokens_max: usize) -> Asked {
    let mut draws = Draws(1);
    let mut asked = Asked::draw(&mut draws, &small(), 20);
    asked.generate.tokens_max = tokens_max;
    asked.generate.ignore_end = true;
    asked.generate.stops.clear();
    asked
}

/// The outcomes that a request with this listener is told.
fn outcome_with(
    model: &Arc<Model>,
    asked: &Asked,
    mut act: impl FnMut(&Happened<'_>) -> Action + Send + 'static,
) -> Outcome {
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let told = outcomes.clone();
    beside(model, |queue| {
        let listener = Listener(Box::new(move |event| {
            if let Happened::Ended { outcome, .. } = event.happened {
                told.lock().unwrap().push(outcome.clone());
            }
            act(&event.happened)
        }));
        let request = Request {
            listener: Some(listener),
            ..asked.request()
        };
        queue.submit(request).unwrap();
    });
    let mut outcomes = outcomes.lock().unwrap();
    assert_eq!(outcomes.len(), 1, "a request has one end");
    outcomes.remove(0)
}

#[test]
fn who_listens_may_stop_cancel_panic_and_be_slow() {
    let model = small();
    let third = |action: fn() -> Action| {
        let mut tokens = 0;
        outcome_with(&model, &asked(50), move |happened| {
            tokens += usize::from(matches!(happened, Happened::Token { .. }));
            if tokens == 3 {
                action()
            } else {
                Action::Continue
            }
        })
    };
    assert_eq!(third(|| Action::Stop), Outcome::Finished(Finish::Stopped));
    assert_eq!(third(|| Action::Cancel), Outcome::Cancelled);
    assert_eq!(third(|| panic!("on purpose")), Outcome::Cancelled);
    let slow = || {
        std::thread::sleep(Duration::from_millis(20));
        Action::Continue
    };
    assert_eq!(third(slow), Outcome::Finished(Finish::Length));
}

/// A listener submits, cancels others and itself, and is refused what would wait for itself.
#[test]
fn a_listener_may_call_its_own_queue() {
    let model = small();
    let own: Arc<OnceLock<Arc<Queue>>> = Arc::default();
    let children = All::default();
    let (queue, heard) = (own.clone(), children.clone());
    let mut tokens = 0;
    let outcome = outcome_with_queue(&model, own, &asked(50), move |request, happened| {
        let queue = queue.get().unwrap();
        tokens += usize::from(matches!(happened, Happened::Token { .. }));
        if tokens == 2 {
            assert_eq!(queue.step(None).unwrap_err().code(), Code::Busy);
            assert_eq!(queue.serve().unwrap_err().code(), Code::Busy);
            // Nor does it wait for itself.
            assert!(!queue.drain(None));
            assert_eq!(queue.poll(None, &mut Polled::default()), Poll::Over);
            queue.pause();
            queue.resume();
            let child = Request {
                listener: Some(listener(&heard)),
                ..asked(4).request()
            };
            queue.submit(child).unwrap();
        }
        if tokens == 5 {
            queue.cancel(request).unwrap();
        }
    });
    assert_eq!(outcome, Outcome::Cancelled);
    let children = children.lock().unwrap();
    let child = children.values().next().unwrap();
    assert_eq!(*child, alone(&asked(4), &model, &team(1), KvFormat::F16));
}

/// While a listener takes its time, only who works waits: others submit, cancel, poll and ask.
#[test]
fn a_slow_listener_holds_up_no_other_thread() {
    let model = small();
    let queue = Queue::new(model.clone(), team(1), &QueueOptions::default()).unwrap();
    let (begun, begins) = mpsc::channel();
    let (end, ends) = mpsc::channel();
    let heard = All::default();
    let mut hear = listener(&heard);
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| queue.serve());
        let mut slow = asked(2).request();
        let mut first = true;
        slow.listener = Some(Listener(Box::new(move |event| {
            if std::mem::replace(&mut first, false) {
                begun.send(()).unwrap();
                ends.recv().unwrap();
            }
            hear.0(event)
        })));
        let slow = queue.submit(slow).unwrap();
        begins.recv().unwrap();
        // It would never go on if one of these waited for it.
        let other = queue.submit(asked(4).request()).unwrap();
        let cancelled = queue.submit(asked(4).request()).unwrap();
        queue.cancel(cancelled).unwrap();
        queue.pause();
        queue.resume();
        let now = Some(Instant::now());
        assert_eq!(queue.poll(now, &mut Polled::default()), Poll::Nothing);
        assert!(!queue.drain(now));
        let metrics = queue.metrics();
        assert_eq!((metrics.submitted, metrics.finished), (3, 0));
        assert_eq!(queue.step(None).unwrap_err().code(), Code::Busy);
        end.send(()).unwrap();
        assert!(queue.drain(None));
        requests::poll(&queue, &heard);
        queue.close();
        serving.join().unwrap().unwrap();
        let heard = heard.lock().unwrap();
        assert_eq!(heard[&cancelled].outcome, Some(Outcome::Cancelled));
        for (id, asked) in [(slow, asked(2)), (other, asked(4))] {
            assert_eq!(heard[&id], alone(&asked, &model, &team(1), KvFormat::F16));
        }
    });
}

/// What a listener or a stage panics with while it is dropped goes no further either.
#[test]
fn what_panics_when_it_is_dropped_harms_nobody() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    let bomb = Bomb;
    let outcome = outcome_with(&small(), &asked(3), move |_| {
        let _here = &bomb;
        Action::Continue
    });
    assert_eq!(outcome, Outcome::Finished(Finish::Length));
}

/// A stage of a sampler that waits for its own queue does not wait.
#[test]
fn a_stage_may_call_its_own_queue() {
    #[derive(Clone)]
    struct Calls(Arc<OnceLock<Arc<Queue>>>, Arc<Mutex<usize>>);
    impl CustomStage for Calls {
        fn apply(&mut self, _: &mut Candidates<'_>) -> Result<()> {
            let queue = self.0.get().unwrap();
            assert_eq!(queue.step(None).unwrap_err().code(), Code::Busy);
            assert!(!queue.drain(None));
            queue.resume();
            *self.1.lock().unwrap() += 1;
            Ok(())
        }

        fn duplicate(&self) -> Box<dyn CustomStage> {
            Box::new(self.clone())
        }
    }
    let calls = Calls(Arc::default(), Arc::default());
    let options = SamplerOptions {
        custom: vec![(None, Custom(Box::new(calls.clone())))],
        ..SamplerOptions::default()
    };
    let mut asked = asked(5);
    asked.generate.sampler = Sampler::new(&options).unwrap();
    let outcome = outcome_with_queue(&small(), calls.0.clone(), &asked, |_, _| {});
    assert_eq!(outcome, Outcome::Finished(Finish::Length));
    assert_eq!(*calls.1.lock().unwrap(), 5);
}

fn outcome_with_queue(
    model: &Arc<Model>,
    own: Arc<OnceLock<Arc<Queue>>>,
    asked: &Asked,
    mut act: impl FnMut(u64, &Happened<'_>) + Send + 'static,
) -> Outcome {
    let outcome = Arc::new(Mutex::new(None));
    let told = outcome.clone();
    beside(model, |queue| {
        own.set(queue.clone()).unwrap();
        let listener = Listener(Box::new(move |event| {
            if let Happened::Ended { outcome, .. } = event.happened {
                *told.lock().unwrap() = Some(outcome.clone());
            }
            act(event.request, &event.happened);
            Action::Continue
        }));
        let request = Request {
            listener: Some(listener),
            ..asked.request()
        };
        queue.submit(request).unwrap();
    });
    outcome.lock().unwrap().take().unwrap()
}

/// A stage that does something bad at its third choice.
#[derive(Clone, Copy)]
struct Bad(fn() -> Result<()>, u32);

impl CustomStage for Bad {
    fn apply(&mut self, _: &mut Candidates<'_>) -> Result<()> {
        self.1 += 1;
        if self.1 == 3 { (self.0)() } else { Ok(()) }
    }

    fn duplicate(&self) -> Box<dyn CustomStage> {
        Box::new(*self)
    }
}

#[test]
fn a_stage_that_fails_ends_its_own_request() {
    let model = small();
    let with = |act: fn() -> Result<()>| {
        let options = SamplerOptions {
            custom: vec![(None, Custom(Box::new(Bad(act, 0))))],
            penalty_last: 8,
            repetition_penalty: 1.1,
            ..SamplerOptions::default()
        };
        let mut asked = asked(50);
        asked.generate.sampler = Sampler::new(&options).unwrap();
        outcome_with(&model, &asked, |_| Action::Continue)
    };
    let error = |code| Error::new(code, "stage", "on purpose");
    assert_eq!(
        with(|| Err(Error::new(Code::Cancelled, "stage", "on purpose"))),
        Outcome::Cancelled
    );
    let failed = with(|| Err(Error::new(Code::NonFinite, "stage", "on purpose")));
    assert_eq!(failed, Outcome::Failed(error(Code::NonFinite)));
    let Outcome::Failed(panicked) = with(|| panic!("on purpose")) else {
        panic!("it failed");
    };
    assert_eq!(panicked.code(), Code::Internal);
}

/// A token whose embedding is infinite fails the pass; only the request that has it is to blame.
#[test]
fn only_the_request_that_fails_alone_is_to_blame() {
    let mut tiny = Tiny::new(SIZES).with_tokenizer(SIZES.vocab);
    let embedding = tiny.tensor("token_embd.weight");
    let mut bytes = embedding.bytes.to_vec();
    let row = SIZES.dim * 4;
    for value in bytes[10 * row..11 * row].as_chunks_mut().0 {
        *value = f32::INFINITY.to_le_bytes();
    }
    embedding.bytes = bytes.into();
    let model = tiny.open();
    let mut asked = asked(5);
    asked.tokens = vec![1, 10, 2];
    let outcome = outcome_with(&model, &asked, |_| Action::Continue);
    let Outcome::Failed(error) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(error.code(), Code::NonFinite);
}

/// A cancel is answered while a long prompt is evaluated, and others go on.
#[test]
fn a_cancel_does_not_wait_for_a_pass() {
    let sizes = Sizes {
        dim: 256,
        hidden: 1024,
        layers: 6,
        context: 2048,
        ..SMALL
    };
    let model = Tiny::new(sizes).open();
    let options = QueueOptions {
        chunk: 2048,
        ..QueueOptions::default()
    };
    let queue = Queue::new(model, team(1), &options).unwrap();
    let ended = Arc::new(Mutex::new(None));
    let mut fastest = Duration::MAX;
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| queue.serve());
        for _ in 0..10 {
            let told = ended.clone();
            let mut asked = asked(1);
            asked.tokens = vec![1; 2000];
            let listener = Listener(Box::new(move |event| {
                if matches!(event.happened, Happened::Ended { .. }) {
                    *told.lock().unwrap() = Some(Instant::now());
                }
                Action::Continue
            }));
            let request = Request {
                listener: Some(listener),
                ..asked.request()
            };
            let id = queue.submit(request).unwrap();
            std::thread::sleep(Duration::from_millis(3));
            let began = Instant::now();
            assert_eq!(queue.cancel(id), Ok(()));
            let end = loop {
                if let Some(end) = ended.lock().unwrap().take() {
                    break end;
                }
                std::thread::yield_now();
            };
            fastest = fastest.min(end - began);
        }
        queue.close();
        serving.join().unwrap().unwrap();
    });
    assert!(fastest < Duration::from_millis(20), "{fastest:?}");
}
