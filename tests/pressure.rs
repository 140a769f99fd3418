//! While memory is short, a queue lets fewer requests run and a model keeps less for sessions to
//! come; what they give stays the same. The system is a folder of files.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/requests.rs"]
mod requests;
#[path = "support/tiny.rs"]
mod tiny;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use lightgpt::control::Control;
use lightgpt::engine::{Progress, Queue, QueueOptions, Request};
use lightgpt::gguf::Source;
use lightgpt::kv::KvFormat;
use lightgpt::model::{Model, OpenOptions};
use lightgpt::pressure::{Level, Watch};
use lightgpt::sampler::{Sampler, SamplerOptions};
use lightgpt::session::GenerateOptions;

use requests::{All, Asked, alone, listener};
use tiny::{SMALL, Sizes, Tiny, session, team};

/// A machine of 1,000,000 kB.
struct Machine(PathBuf);

impl Machine {
    fn new(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("proc")).unwrap();
        let machine = Self(folder);
        machine.has(500_000);
        machine
    }

    /// So many kB are available, and everyone has had the time to see it.
    fn has(&self, available: u64) {
        let text = format!("MemTotal: 1000000 kB\nMemAvailable: {available} kB\n");
        fs::write(self.0.join("proc/meminfo"), text).unwrap();
        sleep(Duration::from_millis(110));
    }

    fn model(&self) -> Arc<Model> {
        let sizes = Sizes {
            context: 512,
            ..SMALL
        };
        let options = OpenOptions {
            prefix_bytes_max: Some(100_000),
            watch: Some(Arc::new(Watch::new(&self.0))),
            ..OpenOptions::default()
        };
        let source = Source::Owned(Tiny::new(sizes).with_tokenizer(sizes.vocab).bytes());
        Model::open(source, &options, &mut Control::none()).unwrap()
    }
}

fn asked(seed: u64) -> Asked {
    let options = SamplerOptions {
        seed: Some(seed),
        ..SamplerOptions::default()
    };
    let mut generate = GenerateOptions::new(Sampler::new(&options).unwrap());
    (generate.tokens_max, generate.ignore_end) = (30, true);
    let tokens = vec![1, seed as u32 % 11, 5];
    Asked { tokens, generate }
}

#[test]
fn fewer_requests_run_and_give_the_same() {
    let machine = Machine::new("pressure-queue");
    let (model, team) = (machine.model(), team(2));
    for (available, running, level) in [(500_000, 8, 0), (90_000, 4, 1), (10_000, 1, 2)] {
        machine.has(available);
        let options = QueueOptions {
            sequences: 8,
            ..QueueOptions::default()
        };
        let queue = Queue::new(model.clone(), team.clone(), &options).unwrap();
        let all = All::default();
        let told: Vec<(u64, Asked)> = (0..12)
            .map(|seed| {
                let asked = asked(seed);
                let request = Request {
                    listener: Some(listener(&all)),
                    ..asked.request()
                };
                (queue.submit(request).unwrap(), asked)
            })
            .collect();
        let mut most = 0;
        while queue.step(Some(Duration::from_micros(200))).unwrap() == Progress::Pending {
            most = most.max(queue.metrics().running);
        }
        assert_eq!(most, running, "{available} kB");
        let metrics = queue.metrics();
        assert_eq!((metrics.finished, metrics.preemptions), (12, 0));
        assert_eq!((metrics.pressure, metrics.pressure_events), (level, level));
        assert_eq!(
            (metrics.sequences_max, metrics.sequences_allowed),
            (8, running)
        );
        for (id, asked) in told {
            let expected = alone(&asked, &model, &team, KvFormat::F16);
            assert_eq!(all.lock().unwrap()[&id].tokens, expected.tokens);
        }
    }
}

#[test]
fn those_that_run_go_on_and_others_come_back_when_it_is_over() {
    let machine = Machine::new("pressure-change");
    let (model, team) = (machine.model(), team(1));
    let queue = Queue::new(model, team, &QueueOptions::default()).unwrap();
    for seed in 0..4 {
        queue.submit(asked(seed).request()).unwrap();
    }
    let step = || queue.step(Some(Duration::from_micros(1))).unwrap();
    let until = |running: u64| {
        while queue.metrics().running != running {
            assert_eq!(step(), Progress::Pending);
        }
    };
    until(4);
    machine.has(10_000);
    queue.submit(asked(4).request()).unwrap();
    while queue.metrics().pressure == 0 {
        assert_eq!(step(), Progress::Pending);
    }
    let metrics = queue.metrics();
    assert_eq!(
        (metrics.running, metrics.waiting, metrics.preemptions),
        (4, 1, 0)
    );
    assert_eq!((metrics.pressure, metrics.sequences_allowed), (2, 1));
    machine.has(500_000);
    until(5);
    while step() == Progress::Pending {}
    let metrics = queue.metrics();
    assert_eq!(
        (metrics.finished, metrics.pressure, metrics.pressure_events),
        (5, 0, 1)
    );
}

#[test]
fn the_prefix_cache_shrinks_and_grows() {
    let machine = Machine::new("pressure-prefixes");
    let (model, team) = (machine.model(), team(1));
    let kept = || model.prefixes().statistics().bytes;
    let evaluate = |seed: u32| {
        let mut session = session(&model, &team);
        let tokens: Vec<u32> = (0..256).map(|i| (i * seed + i / 7) % 11).collect();
        session.feed(&tokens).unwrap();
        session.prefill(&mut Control::none()).unwrap();
    };
    for seed in 1..12 {
        evaluate(seed);
    }
    let full = kept();
    assert!((80_000..=100_000).contains(&full), "{full}");
    machine.has(90_000);
    assert_eq!(model.pressure(), Level::Short);
    assert!((40_000..=50_000).contains(&kept()), "{}", kept());
    evaluate(12);
    assert!(kept() <= 50_000);
    machine.has(10_000);
    evaluate(13);
    assert_eq!((kept(), model.prefixes().bytes_allowed()), (0, 0));
    assert_eq!(model.watch().last(), Level::VeryShort);
    machine.has(500_000);
    evaluate(14);
    assert!(kept() > 0 && model.prefixes().bytes_allowed() == 100_000);
}

#[test]
fn by_default_memory_stays_below_what_is_allowed() {
    let machine = Machine::new("pressure-cap");
    assert_eq!(Watch::new(&machine.0).cap(), Some(819_200_000));
    let cap = OpenOptions::default().load.budget.cap();
    assert_eq!(cap, Watch::machine().cap());
    #[cfg(target_os = "linux")]
    assert!(cap.unwrap() > 1 << 20);
}
