//! How soon a cancel from another thread is answered in the middle of a long prompt.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/tiny.rs"]
mod tiny;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lightgpt::control::Control;
use lightgpt::error::Code;
use lightgpt::model::Model;
use lightgpt::quant::Format;
use lightgpt::session::{Session, SessionOptions};

use tiny::{Noise, Sizes, Tiny, open_path, team};

/// About 30 MB of weights.
const LARGE: Sizes = Sizes {
    dim: 512,
    heads: 8,
    kv_heads: 8,
    k_dim: 64,
    v_dim: 64,
    hidden: 1536,
    layers: 8,
    vocab: 4096,
    context: 2048,
};

/// What a caller may count on.
const LATENCY: Duration = Duration::from_millis(20);
/// A busy machine may stop us for a while.
const LATENCY_MAX: Duration = Duration::from_millis(100);

fn model() -> Arc<Model> {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cancel-latency.gguf");
    let _ = fs::remove_file(&path);
    fs::write(&path, Tiny::with(LARGE, &|_| Format::Q8_0).bytes()).unwrap();
    open_path(&path)
}

#[test]
fn a_cancel_in_a_long_prompt_is_answered_soon() {
    let model = model();
    assert!(model.weight_bytes() > 25 << 20, "{}", model.weight_bytes());
    let mut noise = Noise(9);
    let prompt: Vec<u32> = (0..1500).map(|_| noise.next(LARGE.vocab) as u32).collect();
    for threads in [1, 2] {
        let options = SessionOptions::default();
        let mut session = Session::new(model.clone(), team(threads), &options).unwrap();
        let mut latencies: Vec<Duration> = (0..50)
            .map(|_| {
                session.feed(&prompt).unwrap();
                let canceller = session.canceller();
                let wait = Duration::from_micros(1000 + noise.next(60_000) as u64);
                let cancel = std::thread::spawn(move || {
                    std::thread::sleep(wait);
                    let asked = Instant::now();
                    canceller.cancel();
                    asked
                });
                let outcome = session.prefill(&mut Control::none());
                let answered = Instant::now();
                let code = outcome.expect_err("the prompt takes longer").code();
                assert_eq!((code, session.tokens().len()), (Code::Cancelled, 0));
                answered.saturating_duration_since(cancel.join().unwrap())
            })
            .collect();
        latencies.sort_unstable();
        let (p50, p99) = (latencies[25], latencies[49]);
        println!("{threads} threads: cancel answered in p50 {p50:?}, p99 {p99:?}");
        assert!(p50 < LATENCY, "{threads} threads: {p50:?}");
        assert!(p99 < LATENCY_MAX, "{threads} threads: {p99:?}");
    }
}
