//! Those who submit, cancel, poll, drain and close against the one who works, in every order in which
//! they can come: `shared.rs` as it is, compiled with the locks of `loom`, which runs each test once
//! for every order and fails one in which all threads wait. Nothing here has a clock: time never ends
//! a wait.

#[path = "../shared.rs"]
#[allow(clippy::duplicate_mod)] // with other locks
#[allow(dead_code)] // not all of it is tried
mod shared;

/// What the source finds in place of the locks of std.
mod sync {
    pub use loom::sync::{Condvar, Mutex, MutexGuard};
}

/// Requests without a model.
mod sequence {
    #[derive(Debug, Default)]
    pub struct Sequence {
        pub id: u64,
        pub polled: bool,
    }

    impl Sequence {
        pub fn is_polled(&self) -> bool {
            self.polled
        }
    }
}

use std::collections::BTreeMap;
use std::sync::Arc;

use loom::thread;

use crate::engine::{metrics, queue, request};
use crate::error::{Code, Result};
use crate::session::Finish;
use queue::Poll;
use request::{Event, Happened, Outcome, Polled, Timings};
use sequence::Sequence;
use shared::{Shared, Wanted};

/// Runs `test` in all orders in which no thread is stopped more than `stops` times.
fn in_all_orders(stops: usize, test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(stops);
    model.check(test);
}

/// A request whose owner polls.
fn polled() -> Sequence {
    Sequence {
        polled: true,
        ..Sequence::default()
    }
}

/// What `Queue::serve` does, with a model that makes each text in so many rounds.
fn serve(shared: &Shared, rounds: usize) {
    let mut wanted = Wanted::default();
    let mut running: BTreeMap<u64, (Sequence, usize)> = BTreeMap::new();
    loop {
        shared.wanted(&mut wanted);
        for sequence in wanted.requests.drain(..) {
            running.insert(sequence.id, (sequence, rounds));
        }
        while let Some(id) = wanted.cancels.pop_first() {
            if let Some((sequence, _)) = running.remove(&id) {
                end(shared, &sequence, &Outcome::Cancelled);
            }
        }
        if wanted.closing {
            for (sequence, _) in running.values() {
                end(shared, sequence, &Outcome::Cancelled);
            }
            return;
        }
        if wanted.paused || running.is_empty() {
            shared.wait_wanted(None);
            continue;
        }
        running.retain(|_, (sequence, left)| {
            *left -= 1;
            if *left == 0 {
                end(shared, sequence, &Outcome::Finished(Finish::Length));
            }
            *left > 0
        });
    }
}

fn end(shared: &Shared, sequence: &Sequence, outcome: &Outcome) {
    if sequence.polled {
        shared.keep(&Event {
            request: sequence.id,
            happened: Happened::Ended {
                outcome,
                timings: &Timings::default(),
            },
            text: "",
            log_probability: None,
            top: &[],
        });
    }
    shared.forget(sequence.id);
}

/// The requests whose ends can be polled, until there are none.
fn poll_all(shared: &Shared) -> Vec<u64> {
    let mut ended = Vec::new();
    let mut hear = |polled: &Polled| ended.extend(polled.event().map(|event| event.request));
    loop {
        match shared.poll(None) {
            Ok(polled) => hear(&polled),
            Err(why) => {
                assert_eq!(why, Poll::Over);
                return ended;
            }
        }
    }
}

/// A thread that serves, and what others do meanwhile; then the queue is closed.
fn while_serving(requests_max: usize, rounds: usize, others: impl FnOnce(&Arc<Shared>)) {
    let shared = Arc::new(Shared::new(requests_max));
    let serving = {
        let shared = shared.clone();
        thread::spawn(move || serve(&shared, rounds))
    };
    others(&shared);
    shared.close();
    serving.join().unwrap();
    assert!(shared.wait_empty(None));
}

/// Every request that is taken is told one end, whoever submits it, and those that are polled are
/// heard; back-pressure refuses and takes nothing.
#[test]
fn all_that_is_taken_ends_once() {
    in_all_orders(3, || {
        while_serving(1, 1, |shared| {
            let other = {
                let shared = shared.clone();
                thread::spawn(move || shared.submit(polled()))
            };
            let mut taken: Vec<u64> = Vec::new();
            let mut count = |outcome: Result<u64>| match outcome {
                Ok(id) => taken.push(id),
                Err(error) => assert_eq!(error.code(), Code::Busy),
            };
            count(shared.submit(polled()));
            count(other.join().unwrap());
            taken.sort_unstable();
            let mut heard = poll_all(shared);
            heard.sort_unstable();
            assert!(!taken.is_empty() && heard == taken);
            assert_eq!(shared.metrics().refused + taken.len() as u64, 2);
        });
    });
}

/// A cancel beside the end: one end is told, and who cancels too late hears that.
#[test]
fn a_cancel_ends_a_request_at_most_once() {
    in_all_orders(3, || {
        while_serving(4, 2, |shared| {
            let id = shared.submit(polled()).unwrap();
            let other = {
                let shared = shared.clone();
                thread::spawn(move || match shared.cancel(id) {
                    Ok(()) => {}
                    Err(error) => assert_eq!(error.code(), Code::NotFound),
                })
            };
            assert_eq!(poll_all(shared), [id]);
            other.join().unwrap();
        });
    });
}

/// A drain waits for all, and lets nobody in; a resume does.
#[test]
fn a_drain_leaves_nobody() {
    in_all_orders(3, || {
        while_serving(4, 1, |shared| {
            let other = {
                let shared = shared.clone();
                thread::spawn(move || match shared.submit(Sequence::default()) {
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.code(), Code::Busy),
                })
            };
            shared.drain();
            assert!(shared.wait_empty(None));
            other.join().unwrap();
            assert_eq!(shared.metrics().waiting, 0);
            assert!(shared.submit(Sequence::default()).is_err());
            shared.resume();
            shared.submit(Sequence::default()).unwrap();
            shared.drain();
            assert!(shared.wait_empty(None));
        });
    });
}

/// A queue that rests wakes up again, and a close reaches it also while it rests.
#[test]
fn a_pause_ends() {
    for resumes in [true, false] {
        in_all_orders(3, move || {
            while_serving(4, 1, |shared| {
                shared.pause();
                let id = shared.submit(polled()).unwrap();
                if resumes {
                    shared.resume();
                    assert_eq!(poll_all(shared), [id]);
                }
            });
        });
    }
}

/// Closing ends the waits of all others: who polls, who drains, who serves.
#[test]
fn a_close_ends_all_waits() {
    in_all_orders(2, || {
        let shared = Arc::new(Shared::new(4));
        shared.pause();
        shared.submit(polled()).unwrap();
        let start = |wait: fn(&Shared)| {
            let shared = shared.clone();
            thread::spawn(move || wait(&shared))
        };
        let waiting = [
            start(|shared| serve(shared, 1)),
            start(|shared| assert!(poll_all(shared).len() <= 1)),
            start(|shared| {
                shared.wait_empty(None);
            }),
        ];
        shared.close();
        for thread in waiting {
            thread.join().unwrap();
        }
    });
}
