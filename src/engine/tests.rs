//! The scheduler with a fake model: whatever comes and goes, every job gets what it gets alone.

mod fake;
mod shares;

use std::collections::HashSet;

use fake::{World, alone};

use super::scheduler::Limits;
use crate::random::Random;

/// Draws numbers below others.
struct Draws(Random, u32);

impl Draws {
    fn new(seed: u64) -> Self {
        Self(Random { seed, step: 0 }, 0)
    }

    fn below(&mut self, n: usize) -> usize {
        self.1 += 1;
        (self.0.bits(self.1) % n as u64) as usize
    }
}

/// Jobs of all sizes come and go at random, in little memory.
#[test]
fn any_workload_ends_as_if_alone() {
    let (mut preempted, mut found) = (0, 0);
    for seed in 0..1000 {
        let mut draws = Draws::new(seed);
        let limits = Limits {
            sequences: 1 + draws.below(5),
            chunk: 1 + draws.below(200),
        };
        let new = [World::new, World::keeping][seed as usize % 2];
        let mut world = new(limits, 3 + draws.below(12));
        let jobs = 1 + draws.below(12);
        for _ in 0..jobs {
            let (prompt, made) = (1 + draws.below(300), 1 + draws.below(120));
            let priority = draws.below(9) as i32 - 4;
            world.submit(prompt, made, priority, draws.below(3) as u64);
            for _ in 0..draws.below(20) {
                world.pass();
            }
            if draws.below(4) == 0 {
                let id = 1 + draws.below(world.submitted());
                world.cancel(id as u64);
            }
        }
        preempted += world.finish();
        found += world.found();
        assert_eq!(world.ended.len(), jobs, "seed {seed}");
    }
    assert!(preempted > 500 && found > 10_000, "{preempted}, {found}");
}

/// All workloads of three jobs that matter at page borders, in memory for one and for two of them.
#[test]
fn small_workloads_are_tried_exhaustively() {
    const PROMPTS: [usize; 4] = [1, 63, 64, 65];
    const MADE: [usize; 3] = [1, 2, 66];
    let mut tried = HashSet::new();
    for case in 0..PROMPTS.len().pow(3) * MADE.len().pow(3) * 2 * 2 * 3 {
        let mut rest = case;
        let mut next = |n: usize| {
            let digit = rest % n;
            rest /= n;
            digit
        };
        let limits = Limits {
            sequences: 2 + next(2),
            chunk: [1, 70][next(2)],
        };
        let pages = 3 + next(3);
        let jobs: [(usize, usize); 3] =
            std::array::from_fn(|_| (PROMPTS[next(PROMPTS.len())], MADE[next(MADE.len())]));
        let mut world = World::new(limits, pages);
        for (i, (prompt, made)) in jobs.into_iter().enumerate() {
            world.submit(prompt, made, i as i32 - 1, 0);
            world.pass();
        }
        world.finish();
        assert_eq!(world.ended.len(), 3);
        tried.insert((jobs, pages, limits.sequences, limits.chunk));
    }
    assert_eq!(tried.len(), 64 * 27 * 12);
}

#[test]
fn what_does_not_fit_alone_is_refused_and_others_go_on() {
    let limits = Limits {
        sequences: 3,
        chunk: 64,
    };
    let mut world = World::new(limits, 2);
    let small = world.submit(30, 10, 0, 0);
    let large = world.submit(129, 1, 4, 0);
    // It fits at first, and then not any more.
    let growing = world.submit(100, 100, 0, 0);
    let other = world.submit(20, 90, -4, 1);
    world.finish();
    for id in [small, other] {
        let (prompt, made) = world.asked(id);
        assert_eq!(world.ended[&id], Some(alone(id, prompt, made)));
    }
    assert_eq!(
        (&world.ended[&large], &world.ended[&growing]),
        (&None, &None)
    );
}

#[test]
fn the_oldest_of_the_highest_priority_never_gives_way() {
    let limits = Limits {
        sequences: 4,
        chunk: 64,
    };
    let mut world = World::new(limits, 7);
    let first = world.submit(60, 250, 1, 0);
    for i in 0..6 {
        world.submit(60, 200, i % 2, 0);
    }
    while !world.ended.contains_key(&first) {
        world.pass();
        assert!(!world.preempted.contains(&first));
    }
    assert!(!world.preempted.is_empty());
    world.finish();
}

/// Every pass has a row for each sequence that decodes, whatever prompts come.
#[test]
fn prompts_do_not_hold_up_those_who_decode() {
    let limits = Limits {
        sequences: 4,
        chunk: 16,
    };
    let mut world = World::new(limits, 1000);
    let first = world.submit(10, 50, 0, 0);
    world.pass();
    for _ in 0..8 {
        world.submit(500, 1, 0, 1);
    }
    for _ in 1..50 {
        assert!(!world.ended.contains_key(&first));
        world.pass();
    }
    assert!(world.ended.contains_key(&first));
    world.finish();
}
