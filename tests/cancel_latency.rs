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

/// What is promised, held against the median: a busy machine may stop us for a while now and then.
const MEDIAN_MAX: Duration = Duration::from_millis(20);
const P90_MAX: Duration = Duration::from_millis(100);

/// The best of so many rounds counts, each of so many cancels.
const ROUNDS: usize = 3;
const CANCELS: usize = 50;

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
        let in_time = (0..ROUNDS).any(|_| {
            let mut latencies: Vec<Duration> = (0..CANCELS)
                .map(|_| latency(&mut session, &prompt, noise.next(60_000) as u64))
                .collect();
            latencies.sort_unstable();
            let [p50, p90, p99] = [50, 90, 99].map(|p| latencies[CANCELS * p / 100]);
            let max = latencies[CANCELS - 1];
            println!("{threads} threads: cancel answered in p50 {p50:?}, p90 {p90:?}, p99 {p99:?}, max {max:?}");
            p50 < MEDIAN_MAX && p90 < P90_MAX
        });
        assert!(in_time, "{threads} threads: late in every round");
    }
}

/// How long the session takes to answer a cancel that comes `after` microseconds and one
/// millisecond.
fn latency(session: &mut Session, prompt: &[u32], after: u64) -> Duration {
    session.feed(prompt).unwrap();
    let canceller = session.canceller();
    let cancel = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_micros(1000 + after));
        let asked = Instant::now();
        canceller.cancel();
        asked
    });
    let outcome = session.prefill(&mut Control::none());
    let answered = Instant::now();
    let code = outcome.expect_err("the prompt takes longer").code();
    assert_eq!((code, session.tokens().len()), (Code::Cancelled, 0));
    answered.saturating_duration_since(cancel.join().unwrap())
}
