//! What a queue does beside evaluating.

use std::time::{Duration, Instant};

use lightgpt::engine::Metrics;
use lightgpt::error::Result;

use crate::times::{micros, spread};
use crate::{SEQUENCES, Setting, WAITING};

/// What a queue does beside evaluating.
pub fn queue(setting: &Setting<'_>) -> Result<()> {
    let mut shares = Vec::new();
    let mut tokens = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        for (waiting, tokens) in [0, WAITING].into_iter().zip(&mut tokens) {
            let (share, us) = beside_evaluating(setting, waiting)?;
            tokens.push(us);
            if waiting == 0 {
                shares.push(share);
            }
        }
    }
    println!(
        "  queue of 16, time beside passes, %: {}",
        spread(&mut shares)
    );
    let [few, many] = &mut tokens;
    println!("    us a token, nobody waits:     {}", spread(few));
    println!("    us a token, {WAITING} wait:       {}", spread(many));
    Ok(())
}

/// Of 16 requests that decode: the percent of the time that is not spent in passes, and microseconds
/// of it for each token.
fn beside_evaluating(setting: &Setting<'_>, waiting: usize) -> Result<(f64, f64)> {
    let context = setting.context()?;
    let queue = setting.queue()?;
    let tokens = 32.min(context / 4);
    for seed in 0..SEQUENCES as u64 {
        queue.submit(setting.request(seed, 4, tokens)?)?;
    }
    let step = |until: fn(&Metrics) -> u64, least: u64| -> Result<Metrics> {
        while until(&queue.metrics()) < least {
            queue.step(Some(Duration::from_millis(2)))?;
        }
        Ok(queue.metrics())
    };
    step(|metrics| metrics.first_tokens, SEQUENCES as u64)?;
    for seed in 0..waiting as u64 {
        queue.submit(setting.request(seed, 4, tokens)?)?;
    }
    // They are taken up in the next step.
    let taken = queue.metrics().generated_tokens + 1;
    let before = step(|metrics| metrics.generated_tokens, taken)?;
    let began = Instant::now();
    let after = step(|metrics| metrics.finished, 1)?;
    let all = micros(began.elapsed());
    let outside = all - (after.pass_us - before.pass_us) as f64;
    let made = (after.generated_tokens - before.generated_tokens) as f64;
    Ok((100.0 * outside / all, outside / made))
}
