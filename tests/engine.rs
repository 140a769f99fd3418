//! Many requests at once: each gets what a session of its own would give, to the bit, whatever comes,
//! goes and fails beside it.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/requests.rs"]
mod requests;
#[path = "support/tiny.rs"]
mod tiny;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lightgpt::budget::Budget;
use lightgpt::engine::{Outcome, Progress, Queue, QueueOptions, Request};
use lightgpt::error::Code;
use lightgpt::kv::KvFormat;
use lightgpt::model::Model;
use lightgpt::team::Team;

use requests::{All, Asked, Draws, Heard, alone, listener, poll};
use tiny::{SMALL, Sizes, Tiny, open_path, team};

const SIZES: Sizes = Sizes {
    context: 256,
    ..SMALL
};

fn small() -> Arc<Model> {
    Tiny::new(SIZES).with_tokenizer(SIZES.vocab).open()
}

fn golden(name: &str) -> Arc<Model> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    open_path(&folder.join(name).join("model.gguf"))
}

/// A workload: what is drawn comes, waits, is cancelled, has too little time.
struct Load {
    model: Arc<Model>,
    team: Arc<Team>,
    queue: Queue,
    kv: KvFormat,
    asked: HashMap<u64, Asked>,
    heard: All,
}

impl Load {
    fn new(model: &Arc<Model>, threads: usize, draws: &mut Draws) -> Self {
        let kv = [KvFormat::F16, KvFormat::F32, KvFormat::Q8_0][draws.below(3)];
        let network = model.network().unwrap();
        let layout = network.layout(kv);
        let page = layout.page_charge();
        let pages = network.spec.context.div_ceil(64) + draws.below(5);
        let team = team(threads);
        let sequences = 1 + draws.below(6);
        let cap = page * pages as u64 + layout.state().charge() * sequences as u64;
        let options = QueueOptions {
            kv,
            sequences,
            chunk: 1 + draws.below(40).min(network.spec.context - 1),
            budget: (draws.below(2) == 0).then(|| Budget::new(Some(cap), None)),
            ..QueueOptions::default()
        };
        Self {
            queue: Queue::new(model.clone(), team.clone(), &options).unwrap(),
            model: model.clone(),
            team,
            kv,
            asked: HashMap::new(),
            heard: All::default(),
        }
    }

    fn submit(&mut self, draws: &mut Draws) -> u64 {
        let context = self.model.network().unwrap().spec.context;
        let mut asked = Asked::draw(draws, &self.model, context);
        if draws.below(2) == 0 {
            // Many begin alike.
            let alike = asked.tokens.iter_mut().take(draws.below(100));
            alike
                .enumerate()
                .for_each(|(i, token)| *token = i as u32 % 7);
        }
        let mut request = Request {
            priority: draws.below(9) as i32 - 4,
            submitter: draws.below(3) as u64,
            unshared: draws.below(8) == 0,
            salt: draws.below(8) as u64 / 7,
            ..asked.request()
        };
        if draws.below(2) == 0 {
            request.listener = Some(listener(&self.heard));
        }
        if draws.below(10) == 0 {
            request.deadline = Some(Duration::from_micros(draws.below(3000) as u64));
        }
        let id = self.queue.submit(request).unwrap();
        self.asked.insert(id, asked);
        id
    }

    fn finish(self) -> u64 {
        while self.queue.step(None).unwrap() == Progress::Pending {}
        poll(&self.queue, &self.heard);
        let heard = self.heard.lock().unwrap();
        assert_eq!(heard.len(), self.asked.len());
        let mut complete = 0;
        for (id, asked) in &self.asked {
            let found = &heard[id];
            let expected = alone(asked, &self.model, &self.team, self.kv);
            match found.outcome {
                Some(Outcome::Finished(_)) => {
                    assert_eq!(*found, expected, "{asked:?}");
                    complete += 1;
                }
                Some(Outcome::Cancelled | Outcome::Expired) => {
                    assert!(expected.tokens.starts_with(&found.tokens));
                    assert!(expected.scores.starts_with(&found.scores));
                    // What was held back is told at the end, even if it would begin a stop string.
                    let len = found.text.len().min(expected.text.len());
                    assert_eq!(found.text[..len], expected.text[..len]);
                }
                _ => panic!("{found:?}"),
            }
        }
        let metrics = self.queue.metrics();
        assert_eq!((metrics.waiting, metrics.running), (0, 0));
        assert_eq!(metrics.finished, complete);
        let ends = metrics.finished + metrics.cancelled + metrics.expired + metrics.failed;
        assert_eq!(
            (ends, metrics.submitted),
            (heard.len() as u64, heard.len() as u64)
        );
        let tokens: usize = heard.values().map(|heard| heard.tokens.len()).sum();
        assert_eq!(metrics.generated_tokens, tokens as u64);
        metrics.preemptions
    }
}

/// Random workloads in steps of random length; how often pages were given up.
fn random_loads(model: &Arc<Model>, seeds: std::ops::Range<u64>) -> u64 {
    let mut preemptions = 0;
    for seed in seeds {
        let mut draws = Draws(seed * 7919 + 1);
        let mut load = Load::new(model, 1 + draws.below(3), &mut draws);
        let mut ids = Vec::new();
        for _ in 0..2 + draws.below(14) {
            ids.push(load.submit(&mut draws));
            for _ in 0..draws.below(12) {
                let budget = Duration::from_micros(1 + draws.below(400) as u64);
                load.queue.step(Some(budget)).unwrap();
            }
            if draws.below(5) == 0 {
                // It may be over.
                let _ = load.queue.cancel(ids[draws.below(ids.len())]);
            }
            if draws.below(3) == 0 {
                poll(&load.queue, &load.heard);
            }
        }
        preemptions += load.finish();
    }
    preemptions
}

#[test]
fn company_does_not_show() {
    let preemptions = random_loads(&small(), 0..40);
    assert!(preemptions > 0);
}

/// Windows, latent attention, experts, positions of other kinds, recurrent layers.
#[test]
fn company_does_not_show_in_other_architectures() {
    for name in [
        "gemma3",
        "deepseek2",
        "mixtral",
        "bloom",
        "phi3-longrope",
        "gpt2",
        "llama4",
        "mamba",
        "falcon-h1",
        "lfm2moe",
        "qwen3next",
    ] {
        random_loads(&golden(name), 100..104);
    }
}

#[test]
fn a_thread_serves_many_that_submit() {
    let (model, mut draws) = (small(), Draws(5));
    let load = Load::new(&model, 2, &mut draws);
    let Load { queue, kv, .. } = load;
    let heard = All::default();
    let asked = std::thread::scope(|scope| {
        let serving = scope.spawn(|| queue.serve());
        let submit = |seed: u64| {
            let (queue, model, heard) = (&queue, &model, &heard);
            scope.spawn(move || {
                let mut draws = Draws(seed);
                let mut all = HashMap::new();
                for _ in 0..12 {
                    let asked = Asked::draw(&mut draws, model, SIZES.context);
                    let request = Request {
                        listener: Some(listener(heard)),
                        submitter: seed,
                        ..asked.request()
                    };
                    all.insert(queue.submit(request).unwrap(), asked);
                    std::thread::sleep(Duration::from_micros(draws.below(2000) as u64));
                }
                all
            })
        };
        let submitters: Vec<_> = (1..=3).map(submit).collect();
        let asked: HashMap<u64, Asked> = submitters
            .into_iter()
            .flat_map(|s| s.join().unwrap())
            .collect();
        assert!(queue.drain(None));
        let refused = queue.submit(asked[&1].request()).unwrap_err();
        assert_eq!(refused.code(), Code::Busy);
        assert_eq!(queue.step(None).unwrap_err().code(), Code::Busy);
        queue.close();
        serving.join().unwrap().unwrap();
        asked
    });
    let heard = heard.lock().unwrap();
    assert_eq!((asked.len(), heard.len()), (36, 36));
    for (id, asked) in &asked {
        assert_eq!(heard[id], alone(asked, &model, &team(1), kv));
    }
}

/// The tokens of one who waits alone do not start before the window is over; company starts it.
#[test]
fn the_first_waits_for_company() {
    let (model, mut draws) = (small(), Draws(9));
    let options = QueueOptions {
        sequences: 2,
        window: Duration::MAX,
        ..QueueOptions::default()
    };
    let queue = Queue::new(model.clone(), team(1), &options).unwrap();
    let ask = |draws: &mut Draws| Asked::draw(draws, &model, 16).request();
    queue.submit(ask(&mut draws)).unwrap();
    let short = Duration::from_millis(1);
    assert_eq!(queue.step(Some(short)), Ok(Progress::Pending));
    assert_eq!(queue.metrics().passes, 0);
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| queue.serve());
        queue.submit(ask(&mut draws)).unwrap();
        assert!(queue.drain(None));
        queue.close();
        serving.join().unwrap().unwrap();
    });
    let metrics = queue.metrics();
    assert_eq!((metrics.finished, metrics.submitted), (2, 2));
    assert!(metrics.rows_max >= 2);
}

#[test]
fn every_request_is_told_its_end_when_the_queue_goes() {
    let (model, mut draws) = (small(), Draws(3));
    for steps in 0..4 {
        let mut load = Load::new(&model, 1, &mut draws);
        for _ in 0..5 {
            let mut request = Asked::draw(&mut draws, &model, SIZES.context).request();
            request.listener = Some(listener(&load.heard));
            load.queue.submit(request).unwrap();
        }
        for _ in 0..steps {
            load.queue.step(Some(Duration::from_micros(300))).unwrap();
        }
        let heard = std::mem::take(&mut load.heard);
        drop(load);
        let heard = heard.lock().unwrap();
        assert_eq!(heard.len(), 5);
        let over = |heard: &Heard| heard.outcome.is_some();
        assert!(heard.values().all(over), "{heard:?}");
    }
}

#[test]
fn what_a_queue_cannot_take_is_refused() {
    let (model, mut draws) = (small(), Draws(11));
    let new = |options: &QueueOptions| Queue::new(model.clone(), team(1), options);
    for (sequences, requests, context, chunk) in [
        (1025, 0, 0, 0),
        (0, (1 << 20) + 1, 0, 0),
        (0, 0, SIZES.context + 1, 0),
        (0, 0, 0, SIZES.context + 1),
    ] {
        let refused = new(&QueueOptions {
            sequences,
            requests,
            context,
            chunk,
            ..QueueOptions::default()
        });
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    }
    let budget = Budget::new(Some(25_000), None);
    let queue = new(&QueueOptions {
        requests: 2,
        context: 200,
        budget: Some(budget.clone()),
        kv: KvFormat::F32,
        ..QueueOptions::default()
    });
    let queue = queue.unwrap();
    let asked = Asked::draw(&mut draws, &model, 20);
    let code = |request: Request| queue.submit(request).unwrap_err().code();
    let with = |tokens: Vec<u32>| Request {
        tokens,
        ..asked.request()
    };
    assert_eq!(code(with(vec![])), Code::InvalidArgument);
    assert_eq!(code(with(vec![11])), Code::InvalidArgument);
    assert_eq!(code(with(vec![1; 201])), Code::ContextFull);
    // Three pages fit: each has 2 layers x 2 heads x 64 tokens x 8 values x 4 bytes.
    assert_eq!(code(with(vec![1; 193])), Code::MemoryCap);
    for priority in [-5, 5] {
        let request = Request {
            priority,
            ..asked.request()
        };
        assert_eq!(code(request), Code::InvalidArgument);
    }
    let first = queue.submit(asked.request()).unwrap();
    queue.submit(asked.request()).unwrap();
    assert_eq!(code(asked.request()), Code::Busy);
    assert_eq!(queue.cancel(99).unwrap_err().code(), Code::NotFound);
    while queue.step(None).unwrap() == Progress::Pending {}
    assert_eq!(queue.cancel(first).unwrap_err().code(), Code::NotFound);
    // An end that nobody has heard still counts.
    assert_eq!(code(asked.request()), Code::Busy);
    poll(&queue, &All::default());
    queue.submit(asked.request()).unwrap();
    assert_eq!(queue.metrics().refused, 2);
    drop((queue, model));
    assert_eq!(budget.bytes(), 0);
}

#[test]
fn a_queue_that_rests_does_nothing_but_end_requests() {
    let (model, mut draws) = (small(), Draws(13));
    let queue = Queue::new(model.clone(), team(1), &QueueOptions::default()).unwrap();
    queue.pause();
    let asked = Asked::draw(&mut draws, &model, 20);
    let late = Request {
        deadline: Some(Duration::from_millis(1)),
        ..asked.request()
    };
    let ids = [asked.request(), late, asked.request()].map(|r| queue.submit(r).unwrap());
    let heard = All::default();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| queue.serve());
        queue.cancel(ids[0]).unwrap();
        let began = Instant::now();
        while heard.lock().unwrap().len() < 2 && began.elapsed() < Duration::from_secs(600) {
            poll(&queue, &heard);
        }
        assert_eq!(queue.metrics().passes, 0);
        queue.resume();
        assert!(queue.drain(None));
        queue.close();
        serving.join().unwrap().unwrap();
    });
    poll(&queue, &heard);
    let heard = heard.lock().unwrap();
    assert_eq!(heard[&ids[0]].outcome, Some(Outcome::Cancelled));
    assert_eq!(heard[&ids[1]].outcome, Some(Outcome::Expired));
    assert_eq!(
        heard[&ids[2]],
        alone(&asked, &model, &team(1), KvFormat::F16)
    );
}
