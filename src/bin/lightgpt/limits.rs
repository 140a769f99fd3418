//! What the machine can do at best, measured: bytes read from memory, multiply-adds. Speeds are
//! held against it.

use std::hint::black_box;
use std::time::Instant;

use lightgpt::budget::{Budget, Buffer, Tag};
use lightgpt::control::Signals;
use lightgpt::error::Error;
use lightgpt::kernel::{Kernels, Peak};
use lightgpt::pressure::Watch;
use lightgpt::team::{Chunks, Tasks, Team};

/// What one task reads, in words: 1 MiB.
const READ_TASK: usize = 1 << 17;

/// Measurements of each kind, of which the best counts.
const ROUNDS: usize = 8;

/// A buffer of `bytes`, or as much as `share` of the free memory allows, with something in it:
/// pages that were never written may all be one.
pub fn memory(team: &Team, bytes: u64, share: u64) -> Result<Buffer<u64>, Error> {
    let memory = Watch::machine().memory();
    let free = memory.available.unwrap_or(1 << 30);
    let free = memory.limit.map_or(free, |limit| limit.min(free));
    let words = bytes.min(free / share).max(1 << 20) as usize / size_of::<u64>();
    let mut buffer = Budget::default().allocate(Tag::Misc, words)?;
    let chunks = Chunks::new(&mut buffer[..], READ_TASK);
    team.run(&Signals::default(), &mut 0, chunks, |task, chunk| {
        chunk.fill(task as u64 + 1);
        Ok(())
    })?;
    Ok(buffer)
}

/// Bytes a second that a plain read of `memory` gets.
pub fn read_rate(team: &Team, kernels: &Kernels, memory: &[u64]) -> Result<f64, Error> {
    let tasks = Tasks(memory.len().div_ceil(READ_TASK));
    let seconds = fastest(team, tasks, &|task| {
        let start = task * READ_TASK;
        let end = memory.len().min(start + READ_TASK);
        black_box(kernels.read(&memory[start..end]));
    })?;
    Ok(size_of_val(memory) as f64 / seconds)
}

/// Multiply-adds a second.
pub fn peak_rate(team: &Team, peak: Peak) -> Result<f64, Error> {
    const TASK_SECONDS: f64 = 0.001;
    let (mut rounds, mut done, mut seconds) = (1000, 0, 0.0);
    while seconds < TASK_SECONDS {
        rounds *= 2;
        let began = Instant::now();
        done = peak.run(rounds);
        seconds = began.elapsed().as_secs_f64();
    }
    let tasks = Tasks(8 * team.threads());
    let seconds = fastest(team, tasks, &|_| {
        peak.run(rounds);
    })?;
    Ok(done as f64 * tasks.0 as f64 / seconds)
}

/// Seconds that all tasks take, in the best of several rounds.
fn fastest(team: &Team, tasks: Tasks, body: &(dyn Fn(usize) + Sync)) -> Result<f64, Error> {
    let _call = team.call();
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        team.run(&Signals::default(), &mut 0, tasks, |task, ()| {
            body(task);
            Ok(())
        })?;
        best = best.min(began.elapsed().as_secs_f64());
    }
    Ok(best)
}
