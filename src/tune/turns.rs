//! Ways of doing one thing take turns, so that what disturbs the machine disturbs all of them.

use std::time::{Duration, Instant};

use crate::error::Result;
use crate::team::Team;

/// What comes before a turn and does not count: helpers wake up, caches fill.
const WARM_UP: Duration = Duration::from_micros(100);
/// A turn lasts about so many parts of the warm-up: far longer than reading the clock.
const TURN: f64 = 0.5;

/// Nanoseconds of a call of `run` in each turn: (ways, turns).
pub fn take_turns<T>(
    ways: &[(&Team, T)],
    turns: usize,
    run: &mut dyn FnMut(&Team, &T) -> Result<()>,
) -> Result<Vec<Vec<f64>>> {
    let mut times = vec![Vec::with_capacity(turns); ways.len()];
    for _ in 0..turns {
        for ((team, way), times) in ways.iter().zip(&mut times) {
            let _call = team.call();
            let (began, mut calls) = (Instant::now(), 0);
            while began.elapsed() < WARM_UP {
                run(team, way)?;
                calls += 1;
            }
            let calls = (TURN * f64::from(calls)).ceil() as u32;
            let began = Instant::now();
            for _ in 0..calls {
                run(team, way)?;
            }
            times.push(began.elapsed().as_nanos() as f64 / f64::from(calls));
        }
    }
    Ok(times)
}
