//! Measured choices for this machine: whether a phase is better shared or done by one thread, how
//! products are cut into tiles, what integers are worth against floats, how many tokens of a prompt
//! a pass should take.
//!
//! Everything runs as in a forward pass: the same phases, cut the same way, on teams. Ways of doing
//! one thing take turns, and a ratio is made of the times of one turn.

mod operations;
mod products;
mod prompt;
mod ratio;
mod turns;

use std::sync::Arc;

use crate::error::Result;
use crate::kernel::{self, Kernels};
use crate::team::{Team, TeamOptions};

pub use operations::{Operation, operations};
pub use products::{Cut, PRODUCT_SIDE, Product, Shape, cut, products, shapes};
pub use prompt::{Chunk, chunks};
pub use ratio::Ratio;

use turns::take_turns;

/// What is slower by less is not slower.
pub const SLACK: f64 = 0.03;

/// How thoroughly to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Turns of each way.
    pub turns: usize,
    /// Leaves out sizes between others.
    pub is_quick: bool,
}

impl Effort {
    /// Every size, with narrow intervals: some minutes.
    pub const FULL: Self = Self {
        turns: 50,
        is_quick: false,
    };
    /// Some sizes: seconds.
    pub const QUICK: Self = Self {
        turns: 10,
        is_quick: true,
    };
}

/// Teams that differ in what they share.
#[derive(Debug)]
pub struct Teams {
    /// One thread.
    serial: Arc<Team>,
    /// Shares every phase.
    parallel: Arc<Team>,
    /// Shares what is worth it.
    chosen: Arc<Team>,
}

impl Teams {
    /// Teams with these options, but for one that has a single thread and one that shares all.
    pub fn new(options: impl Fn() -> TeamOptions) -> Result<Self> {
        let serial = TeamOptions {
            threads: 1,
            ..TeamOptions::default()
        };
        let parallel = TeamOptions {
            alone_ns: Some(0),
            ..options()
        };
        Ok(Self {
            serial: Team::new(serial)?,
            parallel: Team::new(parallel)?,
            chosen: Team::new(options())?,
        })
    }

    /// Threads of those that share.
    pub fn threads(&self) -> usize {
        self.chosen.threads()
    }
}

/// How an operation fares with one thread and with all.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// About what it takes on one thread, as the team is told; 0 if it is a single task.
    pub estimate_ns: usize,
    /// Whether the team shares it.
    pub is_shared: bool,
    /// Medians: with one thread, shared in any case, and as the team chooses.
    pub serial_ns: f64,
    /// See `serial_ns`.
    pub parallel_ns: f64,
    /// See `serial_ns`.
    pub chosen_ns: f64,
    /// How much faster it is when shared.
    pub parallel: Ratio,
    /// How much faster it is as the team chooses.
    pub chosen: Ratio,
}

/// What measurements say about the rule that all threads are never slower than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The interval lies above a slowdown of [`SLACK`].
    Kept,
    /// It lies on both sides.
    Open,
    /// It lies below.
    Broken,
}

impl Comparison {
    /// Measures `operation`.
    pub fn of(operation: &Operation, teams: &Teams, effort: Effort) -> Result<Self> {
        let mut run = operation.prepare()?;
        let ways = [&teams.serial, &teams.parallel, &teams.chosen].map(|team| (&**team, ()));
        let mut estimate_ns = 0;
        let times = take_turns(&ways, effort.turns, &mut |team, ()| {
            estimate_ns = run(team)?;
            Ok(())
        })?;
        let [serial, parallel, chosen] = &times[..] else {
            unreachable!("as many as ways");
        };
        Ok(Self {
            estimate_ns,
            is_shared: estimate_ns > 0 && teams.chosen.shares(estimate_ns),
            serial_ns: ratio::median(serial),
            parallel_ns: ratio::median(parallel),
            chosen_ns: ratio::median(chosen),
            parallel: Ratio::of(serial, parallel),
            chosen: Ratio::of(serial, chosen),
        })
    }

    /// Whether the chosen way keeps the rule.
    pub fn verdict(&self) -> Verdict {
        let least = 1.0 - SLACK;
        match (self.chosen.low >= least, self.chosen.high >= least) {
            (true, _) => Verdict::Kept,
            (false, true) => Verdict::Open,
            (false, false) => Verdict::Broken,
        }
    }
}

/// The kernels that are measured.
fn kernels() -> &'static Kernels {
    kernel::detect()
}

#[cfg(test)]
mod tests;
