//! A queue for a long time: requests come from several threads, more than it takes, with random
//! priorities, deadlines and cancels, in little memory. None is lost or told twice, each complete one
//! is what a session gives, and the process has in the end what it had.
#![cfg(target_os = "linux")] // /proc tells what a process has
#![allow(clippy::unwrap_used)] // a test

#[path = "support/requests.rs"]
mod requests;
#[path = "support/tiny.rs"]
mod tiny;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lightgpt::budget::Budget;
use lightgpt::engine::{Event, Happened, Listener, Outcome, Queue, QueueOptions, Request};
use lightgpt::error::Code;
use lightgpt::kv::KvFormat;
use lightgpt::model::Model;
use lightgpt::session::Action;

use requests::{Asked, Draws, Heard, alone};
use tiny::{SMALL, Sizes, Tiny, open_path, team};

const SUBMITTERS: usize = 3;
/// Different requests: each is evaluated alone once.
const KINDS: usize = 48;

/// Bytes of resident memory, threads, open files.
fn held() -> (usize, usize, usize) {
    let status = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = status.split(' ').nth(1).unwrap().parse().unwrap();
    let count = |folder: &str| fs::read_dir(folder).unwrap().count();
    (
        pages * 4096,
        count("/proc/self/task"),
        count("/proc/self/fd"),
    )
}

/// What one request of a kind is told.
fn listener(ends: &Arc<[AtomicUsize; 4]>, expected: &Arc<Heard>) -> Listener {
    let (ends, expected) = (ends.clone(), expected.clone());
    let mut heard = Heard::default();
    Listener(Box::new(move |event: &Event<'_>| {
        heard.hear(event);
        if let Happened::Ended { outcome, .. } = event.happened {
            let end = match outcome {
                Outcome::Finished(_) => {
                    assert_eq!(heard, *expected);
                    0
                }
                Outcome::Cancelled => 1,
                Outcome::Expired => 2,
                Outcome::Failed(_) => 3,
            };
            ends[end].fetch_add(1, Ordering::Relaxed);
        }
        Action::Continue
    }))
}

/// What submitters share.
struct Soak {
    queue: Queue,
    kinds: Vec<(Asked, Arc<Heard>)>,
    ends: Arc<[AtomicUsize; 4]>,
    refused: AtomicUsize,
    /// What the process has after a quarter.
    warm: OnceLock<usize>,
}

impl Soak {
    /// Submits so many requests, some of which are cancelled.
    fn submit(&self, submitter: usize, requests: usize) {
        let mut draws = Draws(submitter as u64 + 100);
        for i in 0..requests {
            let (asked, expected) = &self.kinds[draws.below(KINDS)];
            let deadline =
                (draws.below(12) == 0).then(|| Duration::from_micros(draws.below(20_000) as u64));
            let priority = draws.below(9) as i32 - 4;
            let id = loop {
                let request = Request {
                    priority,
                    submitter: submitter as u64,
                    deadline,
                    listener: Some(listener(&self.ends, expected)),
                    ..asked.request()
                };
                match self.queue.submit(request) {
                    Ok(id) => break id,
                    Err(error) => assert_eq!(error.code(), Code::Busy),
                }
                self.refused.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(200));
            };
            if draws.below(10) == 0 {
                // It may be over.
                let _ = self.queue.cancel(id.saturating_sub(draws.below(8) as u64));
            }
            if submitter == 0 && i == requests / 4 {
                self.warm.set(held().0).unwrap();
            }
        }
    }
}

/// Different requests of a model, half of them forks of one prompt, and what each gives alone.
fn kinds(model: &Arc<Model>) -> Vec<(Asked, Arc<Heard>)> {
    let spec = &model.network().unwrap().spec;
    let (context, vocab) = (spec.context, spec.vocab);
    let mut draws = Draws(1);
    let token = |_| draws.below(vocab) as u32;
    let trunk: Vec<u32> = (0..context / 4).map(token).collect();
    let kind = |i| {
        let mut asked = Asked::draw(&mut draws, model, context);
        if i % 2 == 0 {
            asked.tokens.truncate(context / 8);
            asked.tokens.splice(..0, trunk.iter().copied());
        }
        let expected = alone(&asked, model, &team(1), KvFormat::F16);
        (asked, Arc::new(expected))
    };
    (0..KINDS).map(kind).collect()
}

fn soak(model: Arc<Model>, requests: usize) {
    let kinds = kinds(&model);
    let layout = model.network().unwrap().layout(KvFormat::F16);
    let page = layout.page_charge();
    let budget = Budget::new(Some(9 * page), None);
    let options = QueueOptions {
        sequences: 6,
        requests: 40,
        chunk: 32,
        budget: Some(budget.clone()),
        ..QueueOptions::default()
    };
    let soak = Soak {
        queue: Queue::new(model.clone(), team(2), &options).unwrap(),
        kinds,
        ends: Arc::default(),
        refused: AtomicUsize::new(0),
        warm: OnceLock::new(),
    };
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| soak.queue.serve());
        let soak = &soak;
        let submit = |i| scope.spawn(move || soak.submit(i, requests / SUBMITTERS));
        let submitters: Vec<_> = (0..SUBMITTERS).map(submit).collect();
        submitters.into_iter().for_each(|s| s.join().unwrap());
        assert!(soak.queue.drain(None));
        let (before, then) = (*soak.warm.get().unwrap(), held().0);
        assert!(
            then < before + before / 100 + (1 << 20),
            "{before} bytes, then {then}"
        );
        soak.queue.close();
        serving.join().unwrap().unwrap();
    });
    let ends = soak
        .ends
        .each_ref()
        .map(|count| count.load(Ordering::Relaxed));
    assert_eq!(ends.iter().sum::<usize>(), requests, "{ends:?}");
    assert!(
        ends[0] > requests / 2 && ends[1] > 0 && ends[2] > 0 && ends[3] == 0,
        "{ends:?}"
    );
    let metrics = soak.queue.metrics();
    assert!(metrics.preemptions > 0 && metrics.refused == soak.refused.into_inner() as u64);
    drop((soak.queue, model));
    assert_eq!(budget.bytes(), 0);
}

#[test]
fn a_thousand_requests() {
    let (_, threads, files) = held();
    let sizes = Sizes {
        context: 256,
        ..SMALL
    };
    let tiny = Tiny::new(sizes).with_tokenizer(sizes.vocab);
    soak(tiny.open(), 999);
    let (_, threads_then, files_then) = held();
    assert!(threads_then <= threads && files_then <= files);
}

#[test]
#[ignore = "takes minutes"]
fn twenty_thousand_requests() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tales-4m-q8_0.gguf");
    soak(open_path(&path), 21_000);
}
