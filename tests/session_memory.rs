//! Sessions when memory or the file gives out: every cap, every failing allocation of the host, and
//! a file that changes. The call answers with a status, the session stays whole and goes on when it
//! can, and every counted byte comes back.
#![allow(unsafe_code)] // a host's allocator
#![allow(clippy::unwrap_used)] // a test

#[path = "support/tiny.rs"]
mod tiny;

use std::alloc::{Layout, alloc, dealloc};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use lightgpt::budget::{Budget, HostAllocator, Tag};
use lightgpt::control::Control;
use lightgpt::error::{Code, Error, Result};
use lightgpt::gguf::{LoadOptions, Source};
use lightgpt::kv::KvFormat;
use lightgpt::model::{Model, OpenOptions};
use lightgpt::sampler::{Sampler, SamplerOptions};
use lightgpt::session::{Action, GenerateOptions, Session, SessionOptions};

use tiny::{SMALL, Sizes, Tiny, team};

const SIZES: Sizes = Sizes {
    context: 256,
    ..SMALL
};

fn file(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("session-{name}.gguf"));
    let _ = fs::remove_file(&path);
    fs::write(&path, Tiny::new(SIZES).bytes()).unwrap();
    path
}

fn open(path: &Path, copy: bool, budget: &Budget) -> Result<Arc<Model>> {
    let load = LoadOptions {
        copy,
        budget: budget.clone(),
        ..LoadOptions::default()
    };
    let options = OpenOptions {
        load,
        ..OpenOptions::default()
    };
    Model::open(Source::Path(path), &options, &mut Control::none())
}

fn generate(session: &mut Session, tokens_max: usize) -> Result<()> {
    let sampler = Sampler::new(&SamplerOptions {
        seed: Some(2),
        ..Default::default()
    })?;
    let options = GenerateOptions {
        tokens_max,
        ignore_end: true,
        ..GenerateOptions::new(sampler)
    };
    session
        .generate(&options, &mut Control::none(), &mut |_| Action::Continue)
        .map(|_| ())
}

/// Tries `call` until it succeeds, at most `tries` times; `failed` looks at each error.
fn until<T>(
    tries: usize,
    mut call: impl FnMut() -> Result<T>,
    failed: &mut dyn FnMut(&Error),
) -> Option<T> {
    (0..tries).find_map(|_| call().inspect_err(|e| failed(e)).ok())
}

/// Opens, feeds 20 tokens, generates 100, feeds and wants logits of each: the tokens, or `None` if
/// one of these does not succeed in `tries` tries.
fn live(
    path: &Path,
    budget: &Budget,
    tries: usize,
    failed: &mut dyn FnMut(&Error),
) -> Option<Vec<u32>> {
    let model = until(tries, || open(path, true, budget), failed)?;
    let opened = budget.bytes();
    let team = team(2);
    let options = SessionOptions {
        chunk: 8,
        ..SessionOptions::default()
    };
    let new = || {
        Session::new(model.clone(), team.clone(), &options).inspect_err(|_| {
            assert_eq!(
                budget.bytes(),
                opened,
                "a session that is not there holds memory"
            );
        })
    };
    let mut session = until(tries, new, failed)?;
    let prompt: Vec<u32> = (0..20).map(|i| i % 11).collect();
    session.feed(&prompt).unwrap();
    let mut made = 0;
    let generated = until(
        tries,
        || {
            let outcome = generate(&mut session, 100 - made);
            made = session.tokens().len() - 20;
            outcome
        },
        failed,
    );
    assert_eq!(session.tokens()[..20], prompt);
    if generated.is_none() {
        // Whole: it can be rewound, fed and asked again, whatever comes of that.
        session.rewind(1).unwrap();
        session.feed(&[1]).unwrap();
        assert_eq!(session.tokens(), [0, 1]);
        let _ = until(
            1,
            || session.logits(&mut Control::none()).map(|_| ()),
            failed,
        );
        return None;
    }
    session.feed(&[1; 20]).unwrap();
    let mut seen = Vec::new();
    until(
        tries,
        || session.logits_of_each(&mut Control::none(), &mut |at, _| seen.push(at)),
        failed,
    )?;
    assert_eq!(seen[seen.len() - 20..], (120..140).collect::<Vec<_>>());
    Some(session.tokens().to_vec())
}

#[test]
fn every_cap_is_kept_and_leaves_everything_whole() {
    let path = file("cap");
    let budget = Budget::default();
    let truth = live(&path, &budget, 1, &mut |e| panic!("{e}")).unwrap();
    assert_eq!(budget.bytes(), 0, "all memory is back");
    let most = budget.bytes_max();
    let (mut refused, mut lived) = (0, 0);
    for cap in (0..most + 256).step_by(64) {
        let budget = Budget::new(Some(cap), None);
        let mut failed = |e: &Error| assert_eq!(e.code(), Code::MemoryCap, "{cap}: {e}");
        match live(&path, &budget, 2, &mut failed) {
            Some(tokens) => {
                assert_eq!(tokens, truth, "{cap}");
                lived += 1;
            }
            None => refused += 1,
        }
        assert!(budget.bytes_max() <= cap);
        assert_eq!(budget.bytes(), 0, "{cap}: all memory is back");
    }
    assert!(
        refused > 100 && lived > 3,
        "{refused} refused, {lived} lived of {most}"
    );
}

/// Memory of a host: filled with rubbish, and out of it at call number `fails_at`, or from then on.
#[derive(Default)]
struct Host {
    calls: AtomicUsize,
    held: AtomicUsize,
    fails_at: usize,
    forever: bool,
}

struct Shared(Arc<Host>);

impl HostAllocator for Shared {
    fn allocate(&self, bytes: usize, align: usize, _: Tag) -> Option<NonNull<u8>> {
        let call = self.0.calls.fetch_add(1, Ordering::Relaxed);
        if call == self.0.fails_at || self.0.forever && call > self.0.fails_at {
            return None;
        }
        let layout = Layout::from_size_align(bytes, align).ok()?;
        self.0.held.fetch_add(bytes, Ordering::Relaxed);
        // SAFETY: the budget never asks for no bytes.
        let memory = NonNull::new(unsafe { alloc(layout) })?;
        // SAFETY: all of it was just given.
        unsafe { memory.write_bytes(0xff, bytes) };
        Some(memory)
    }

    unsafe fn release(&self, memory: NonNull<u8>, bytes: usize, align: usize, _: Tag) {
        let layout = Layout::from_size_align(bytes, align).unwrap();
        self.0.held.fetch_sub(bytes, Ordering::Relaxed);
        // SAFETY: `allocate` gave it with the same layout.
        unsafe { dealloc(memory.as_ptr(), layout) }
    }
}

fn host(fails_at: usize, forever: bool) -> (Arc<Host>, Budget) {
    let host = Arc::new(Host {
        fails_at,
        forever,
        ..Host::default()
    });
    let budget = Budget::new(None, Some(Box::new(Shared(host.clone()))));
    (host, budget)
}

#[test]
fn every_failing_allocation_of_the_host_is_survived() {
    let path = file("host");
    let truth = live(&path, &Budget::default(), 1, &mut |e| panic!("{e}")).unwrap();
    let (counted, budget) = host(usize::MAX, false);
    assert_eq!(
        live(&path, &budget, 1, &mut |e| panic!("{e}")),
        Some(truth.clone())
    );
    let calls = counted.calls.load(Ordering::Relaxed);
    assert!(calls > 12, "{calls}");
    let mut refused = 0;
    for fails_at in 0..calls {
        for forever in [false, true] {
            let (host, budget) = host(fails_at, forever);
            let mut errors = 0;
            let mut failed = |e: &Error| {
                assert_eq!(e.code(), Code::OutOfMemory, "{fails_at}: {e}");
                errors += 1;
            };
            let lived = live(&path, &budget, 2, &mut failed);
            if forever {
                assert_eq!(lived, None, "{fails_at}");
            } else {
                // Where pages are kept for others, they give way instead.
                assert!(errors <= 1, "{fails_at}: {errors}");
                assert_eq!(lived.as_ref(), Some(&truth), "{fails_at}");
                refused += errors;
            }
            assert_eq!(budget.bytes(), 0, "{fails_at}: all memory is back");
            assert_eq!(host.held.load(Ordering::Relaxed), 0, "{fails_at}");
        }
    }
    assert!(refused > calls / 2, "{refused} of {calls}");
}

/// Bytes that a session with a full context has charged, beyond those of its model.
fn charged(model: &Arc<Model>, options: &SessionOptions, threads: usize) -> u64 {
    let before = model.budget().bytes();
    let mut session = Session::new(model.clone(), team(threads), options).unwrap();
    let tokens: Vec<u32> = (0..session.context()).map(|i| i as u32 % 11).collect();
    session.feed(&tokens).unwrap();
    session.logits(&mut Control::none()).unwrap();
    model.budget().bytes() - before
}

#[test]
fn the_estimate_is_what_a_full_session_is_charged() {
    let path = file("estimate");
    for (context, chunk, threads, kv) in [
        (0, 0, 1, KvFormat::F16),
        (0, 7, 2, KvFormat::F32),
        (100, 0, 3, KvFormat::F16),
        (64, 64, 1, KvFormat::F32),
        (65, 1000, 2, KvFormat::F16),
        (1, 1, 1, KvFormat::F16),
        (65, 10, 2, KvFormat::Q8_0),
    ] {
        let options = SessionOptions {
            context,
            chunk,
            kv: Some(kv),
            ..SessionOptions::default()
        };
        let model = open(&path, false, &Budget::default()).unwrap();
        let rows = options.chunk_tokens();
        let estimate = model.memory_estimate(context, kv, rows).unwrap();
        let total = estimate.kv + estimate.scratch + estimate.logits;
        assert_eq!(charged(&model, &options, threads), total, "{options:?}");
    }
}

#[test]
fn estimates_of_what_cannot_be_made_are_refused() {
    let model = open(&file("refused"), false, &Budget::default()).unwrap();
    let estimate = |context, rows| {
        let estimate = model.memory_estimate(context, KvFormat::F16, rows);
        estimate.map_err(|e| e.code())
    };
    for context in [257, usize::MAX] {
        assert_eq!(estimate(context, 1), Err(Code::InvalidArgument));
    }
    assert_eq!(estimate(0, usize::MAX), estimate(256, 256));
}

#[test]
fn norms_and_biases_are_held_by_the_cap() {
    let path = file("norms");
    let budget = Budget::default();
    let model = open(&path, false, &budget).unwrap();
    let norms = budget.tag_bytes(Tag::Misc);
    assert!(norms >= 5 * 16 * 4, "{norms}");
    drop(model);
    assert_eq!(budget.bytes(), 0);
    for (cap, code) in [(norms, None), (norms - 1, Some(Code::MemoryCap))] {
        let outcome = open(&path, false, &Budget::new(Some(cap), None));
        assert_eq!(outcome.err().map(|e| e.code()), code);
    }
}

#[test]
fn a_file_changed_under_an_open_model_stops_its_sessions() {
    let (mapped, copied) = (file("mapped"), file("copied"));
    for (path, copy) in [(&mapped, false), (&copied, true)] {
        let model = open(path, copy, &Budget::default()).unwrap();
        let options = SessionOptions::default();
        let mut session = Session::new(model.clone(), team(1), &options).unwrap();
        session.feed(&[1, 2, 3]).unwrap();
        generate(&mut session, 3).unwrap();
        let then = SystemTime::now() - Duration::from_secs(1000);
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(then)
            .unwrap();
        session.feed(&[4]).unwrap();
        let tokens = session.tokens().to_vec();
        for _ in 0..2 {
            let outcome = generate(&mut session, 3);
            let code = outcome.map_err(|e| e.code());
            assert_eq!(code, if copy { Ok(()) } else { Err(Code::FileChanged) });
            assert_eq!(session.tokens()[..tokens.len()], tokens);
        }
        let code = session
            .logits(&mut Control::none())
            .map(|_| ())
            .map_err(|e| e.code());
        assert_eq!(code, if copy { Ok(()) } else { Err(Code::FileChanged) });
        session.rewind(2).unwrap();
    }
}
