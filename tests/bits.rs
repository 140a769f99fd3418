//! Nothing but model and tokens may show in the logits: not the threads, the chunks of a prompt,
//! the ISA, a pause, nor whose threads do the work. All comparisons are of bits.

#![allow(clippy::unwrap_used)] // the helpers of a test fail like the test

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use lightgpt::control::{Control, Flow, Signals};
use lightgpt::gguf::Source;
use lightgpt::kernel::{self, Isa, Kernels};
use lightgpt::kv::KvFormat;
use lightgpt::model::{Model, OpenOptions};
use lightgpt::session::{Session, SessionOptions};
use lightgpt::team::{Executor, Team, TeamOptions};

/// Models with float weights, one with blocks over several pages, and what attends through windows
/// over several spans, by experts, with sinks or narrow vectors, or keeps states of all kinds.
fn models() -> [(PathBuf, usize); 11] {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    [
        (root.join("tests/golden/llama-mha-odd/model.gguf"), 70),
        (root.join("tests/golden/llama-gqa/model.gguf"), 70),
        (root.join("models/tales-4m-q8_0.gguf"), 150),
        (root.join("tests/golden/cohere2-long/model.gguf"), 300),
        (root.join("tests/golden/gpt-oss/model.gguf"), 50),
        (root.join("tests/golden/deepseek3/model.gguf"), 40),
        (root.join("tests/golden/lfm2/model.gguf"), 40),
        (root.join("tests/golden/mamba/model.gguf"), 70),
        (root.join("tests/golden/mamba2/model.gguf"), 40),
        (root.join("tests/golden/falcon-h1/model.gguf"), 40),
        (root.join("tests/golden/qwen3next/model.gguf"), 70),
    ]
}

fn open(path: &Path, kernels: &'static Kernels) -> Arc<Model> {
    let options = OpenOptions::default();
    Model::open_with(Source::Path(path), &options, &mut Control::none(), kernels).unwrap()
}

fn team(threads: usize) -> Arc<Team> {
    Team::new(TeamOptions {
        threads,
        alone_ns: Some(0),
        ..TeamOptions::default()
    })
    .unwrap()
}

fn session(model: &Arc<Model>, team: &Arc<Team>, kv: KvFormat, chunk: usize) -> Session {
    let options = SessionOptions {
        kv: Some(kv),
        chunk,
        ..SessionOptions::default()
    };
    Session::new(Arc::clone(model), Arc::clone(team), &options).unwrap()
}

/// Some tokens of the vocabulary, the same each time.
fn prompt(model: &Model, len: usize) -> Vec<u32> {
    let vocab = model.network().unwrap().spec.vocab as u32;
    (0..len as u32)
        .map(|i| (i * 2_654_435 + 17) % vocab)
        .collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

/// The logits after a prompt and after three tokens more, one by one.
fn logits(session: &mut Session, len: usize) -> Vec<u32> {
    let tokens = prompt(session.model(), len + 3);
    session.feed(&tokens[..len]).unwrap();
    let mut all = bits(session.logits(&mut Control::none()).unwrap());
    for token in &tokens[len..] {
        session.feed(&[*token]).unwrap();
        all.extend(bits(session.logits(&mut Control::none()).unwrap()));
    }
    all
}

#[test]
fn threads_and_chunks_do_not_show() {
    for (path, len) in models() {
        let model = open(&path, kernel::detect());
        for kv in [KvFormat::F32, KvFormat::F16, KvFormat::Q8_0] {
            let truth = logits(&mut session(&model, &team(1), kv, len), len);
            for threads in [1, 2, 3] {
                let team = team(threads);
                for chunk in [1, 7, 64, len] {
                    let made = logits(&mut session(&model, &team, kv, chunk), len);
                    assert!(
                        made == truth,
                        "{path:?} {kv:?} {threads} threads, chunk {chunk}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_isa_does_not_show() {
    for (path, len) in models() {
        let run = |kernels: &'static Kernels, kv| {
            let model = open(&path, kernels);
            logits(&mut session(&model, &team(2), kv, 0), len)
        };
        for kv in [KvFormat::F32, KvFormat::F16, KvFormat::Q8_0] {
            let truth = run(kernel::force(Isa::Scalar), kv);
            for kernels in kernel::available() {
                assert!(
                    run(kernels, kv) == truth,
                    "{path:?} {kv:?} {:?}",
                    kernels.isa()
                );
            }
        }
    }
}

#[test]
fn a_pass_paused_after_every_task_goes_on_to_the_same_bits() {
    for (path, len) in models() {
        let model = open(&path, kernel::detect());
        let truth = logits(&mut session(&model, &team(1), KvFormat::F16, 0), len);
        for threads in [1, 3] {
            let mut session = session(&model, &team(threads), KvFormat::F16, 50);
            let tokens = prompt(&model, len + 3);
            let (mut made, mut pauses) = (Vec::new(), 0);
            for part in [&tokens[..len], &tokens[len..][..1], &tokens[len + 1..][..1]] {
                session.feed(part).unwrap();
                let due = || Signals {
                    deadline: Some(Instant::now()),
                    ..Signals::default()
                };
                while session
                    .prefill(&mut Control {
                        signals: due(),
                        progress: None,
                    })
                    .unwrap()
                    == Flow::Paused
                {
                    pauses += 1;
                }
                made.extend(bits(session.logits(&mut Control::none()).unwrap()));
            }
            assert!(truth.starts_with(&made), "{path:?} {threads} threads");
            let layers = model.network().unwrap().spec.layers;
            assert!(pauses > 3 * 10 * layers, "only {pauses} pauses");
        }
    }
}

/// A host that lets helpers in late, out of order, on other threads, or never.
struct Host {
    calls: AtomicUsize,
    never: bool,
}

impl Executor for Host {
    fn parallel_for(&self, bodies: usize, body: &(dyn Fn() + Sync)) {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        if self.never {
            return;
        }
        match call % 4 {
            0 => {}
            1 => (0..bodies).for_each(|_| body()),
            _ => std::thread::scope(|scope| {
                for late in 0..bodies {
                    scope.spawn(move || {
                        std::thread::sleep(std::time::Duration::from_micros(late as u64 * 30));
                        body();
                    });
                }
            }),
        }
    }
}

#[test]
fn a_host_executor_does_not_show() {
    for (path, len) in models() {
        let model = open(&path, kernel::detect());
        let truth = logits(&mut session(&model, &team(1), KvFormat::F16, 0), len);
        for never in [false, true] {
            let executor: Option<Box<dyn Executor>> = Some(Box::new(Host {
                calls: AtomicUsize::new(0),
                never,
            }));
            let team = Team::new(TeamOptions {
                threads: 4,
                executor,
                alone_ns: Some(0),
                ..TeamOptions::default()
            });
            let made = logits(&mut session(&model, &team.unwrap(), KvFormat::F16, 0), len);
            assert!(made == truth, "{path:?} never: {never}");
        }
    }
}

#[test]
fn rewinding_and_feeding_again_does_not_show() {
    for (path, len) in models() {
        let model = open(&path, kernel::detect());
        let truth = logits(&mut session(&model, &team(1), KvFormat::F16, 0), len);
        let mut session = session(&model, &team(2), KvFormat::F16, 0);
        let tokens = prompt(&model, len + 3);
        session.feed(&tokens[..len / 2]).unwrap();
        session.feed(&[1, 2, 3, 1, 2, 3]).unwrap();
        session.logits(&mut Control::none()).unwrap();
        session.rewind(len / 2).unwrap();
        let before = bits(session.logits(&mut Control::none()).unwrap());
        session.feed(&tokens[len / 2..len]).unwrap();
        let after = bits(session.logits(&mut Control::none()).unwrap());
        assert!(truth.starts_with(&after), "{path:?}");
        session.rewind(len / 2).unwrap();
        let again = bits(session.logits(&mut Control::none()).unwrap());
        assert!(before == again, "{path:?}");
    }
}

#[test]
fn two_sessions_on_one_model_and_team_do_not_disturb_each_other() {
    for (path, len) in models() {
        let model = open(&path, kernel::detect());
        let team = team(2);
        let truth = logits(&mut session(&model, &team, KvFormat::F16, 0), len);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let made = logits(&mut session(&model, &team, KvFormat::F16, 0), len);
                    assert!(made == truth, "{path:?}");
                });
            }
        });
    }
}
