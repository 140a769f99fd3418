//! Times, and which of them this process did not have.

use std::time::Duration;

pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub fn percent_more(ratio: f64) -> f64 {
    100.0 * (ratio - 1.0)
}

pub fn spread(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    let Some(max) = values.last() else {
        return "none".into();
    };
    let at = |percent: usize| values[values.len() * percent / 100];
    format!(
        "p50 {:.1}, p90 {:.1}, p99 {:.1}, max {max:.1} of {}",
        at(50),
        at(90),
        at(99),
        values.len()
    )
}

/// For how long threads of this process could have run, but others did.
pub fn waited() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let ns = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').nth(1)?.parse::<u64>().ok()
    });
    Duration::from_nanos(ns.sum())
}

/// Time of all CPUs that the machine under this one gave to others.
pub fn stolen() -> Duration {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = text
        .split_whitespace()
        .nth(8)
        .and_then(|ticks| ticks.parse::<u64>().ok());
    // Ticks of user programs are hundredths of a second.
    Duration::from_millis(10 * ticks.unwrap_or(0))
}
