//! How soon a cancel is answered.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use lightgpt::control::Control;
use lightgpt::engine::{Happened, Listener};
use lightgpt::error::{Code, Result};
use lightgpt::random::Random;
use lightgpt::session::Action;

use crate::times::{micros, spread};
use crate::{SEQUENCES, Setting};

/// How soon cancels from another thread are answered, at any time of a prompt and of its text.
pub fn cancel(setting: &Setting<'_>) -> Result<()> {
    let context = setting.context()?;
    let (prompt, tokens) = (300.min(context / 4), 8);
    for behind in [0, context / 4, context / 2] {
        let mut session = setting.session()?;
        if behind > 0 {
            session.feed(&setting.tokens(1, behind)?)?;
            session.logits(&mut Control::none())?;
        }
        let mut turn = |after: Option<Duration>| -> Result<f64> {
            session.feed(&setting.tokens(2, prompt)?)?;
            let canceller = session.canceller();
            let other = after.map(|after| {
                std::thread::spawn(move || {
                    std::thread::sleep(after);
                    let asked = Instant::now();
                    canceller.cancel();
                    asked
                })
            });
            let generate = setting.generate(tokens)?;
            let began = Instant::now();
            let outcome =
                session.generate(&generate, &mut Control::none(), &mut |_| Action::Continue);
            let ended = Instant::now();
            let since = match other {
                Some(other) => other.join().expect("it only sleeps"),
                None => began,
            };
            match outcome {
                Err(error) if error.code() != Code::Cancelled => return Err(error),
                _ => session.rewind(behind)?,
            }
            Ok(micros(ended.saturating_duration_since(since)))
        };
        let whole = turn(None)?;
        let mut latencies = Vec::new();
        for step in 0..setting.arguments.cancels as u64 {
            let part = (Random { seed: 3, step }.bits(0) % 1000) as f64 / 1000.0;
            latencies.push(turn(Some(Duration::from_secs_f64(whole * part * 1e-6)))?);
        }
        println!(
            "  cancel behind {behind} tokens, us: {}",
            spread(&mut latencies)
        );
    }
    cancel_in_queue(setting, prompt)
}

/// The same for requests of a queue that works by itself.
fn cancel_in_queue(setting: &Setting<'_>, prompt: usize) -> Result<()> {
    let queue = setting.queue()?;
    let mut latencies = Vec::new();
    std::thread::scope(|scope| -> Result<()> {
        let serving = scope.spawn(|| queue.serve());
        for step in 0..setting.arguments.cancels as u64 {
            let mut others = Vec::new();
            for seed in 1..SEQUENCES as u64 {
                others.push(queue.submit(setting.request(seed, 16, 64)?)?);
            }
            let (told, tells) = mpsc::channel();
            let mut request = setting.request(0, prompt, 64)?;
            request.listener = Some(Listener(Box::new(move |event| {
                if matches!(event.happened, Happened::Ended { .. }) {
                    // Nobody listens if all is over.
                    let _ = told.send(Instant::now());
                }
                Action::Continue
            })));
            let id = queue.submit(request)?;
            let after = Random { seed: 5, step }.bits(0) % 400_000;
            std::thread::sleep(Duration::from_micros(after));
            let asked = Instant::now();
            if queue.cancel(id).is_ok() {
                let ended = tells.recv().expect("every request is told its end");
                latencies.push(micros(ended.saturating_duration_since(asked)));
            }
            for id in others {
                // It may be over.
                let _ = queue.cancel(id);
            }
        }
        queue.close();
        serving.join().expect("it answers errors")
    })?;
    println!("  cancel in a queue of 16, us: {}", spread(&mut latencies));
    Ok(())
}
