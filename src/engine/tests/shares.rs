//! Who gets how much, when all want more than there is.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::super::scheduler::{Job, Limits, Memory, Scheduler};
use super::fake::World;
use crate::error::Result;

const LIMITS: Limits = Limits {
    sequences: 4,
    chunk: 32,
};

/// Keeps `per` jobs of each (priority, submitter, prompt, made) there, for `passes` passes; the rows
/// of each kind.
fn flood(kinds: &[(i32, u64, usize, usize)], per: usize, passes: usize) -> Vec<usize> {
    let mut world = World::new(LIMITS, 1000);
    let mut kind_of = HashMap::new();
    for _ in 0..passes {
        for (i, &(priority, submitter, prompt, made)) in kinds.iter().enumerate() {
            let of_kind = |(id, kind): (&u64, &usize)| *kind == i && !world.ended.contains_key(id);
            let there = kind_of
                .iter()
                .filter(|&(id, kind)| of_kind((id, kind)))
                .count();
            for _ in there..per {
                kind_of.insert(world.submit(prompt, made, priority, submitter), i);
            }
        }
        world.pass();
    }
    let mut rows = vec![0; kinds.len()];
    for (id, count) in &world.rows {
        rows[kind_of[id]] += count;
    }
    rows
}

fn near(found: usize, expected: usize, percent: usize) -> bool {
    found.abs_diff(expected) * 100 <= expected * percent
}

#[test]
fn each_priority_has_twice_the_share_of_the_next_lower() {
    let rows = flood(&[(0, 0, 40, 8), (1, 0, 40, 8)], 6, 1500);
    assert!(near(rows[1], 2 * rows[0], 15), "{rows:?}");
    let rows = flood(&[(-1, 0, 40, 8), (1, 0, 40, 8)], 6, 1500);
    assert!(near(rows[1], 4 * rows[0], 15), "{rows:?}");
}

#[test]
fn submitters_of_a_priority_share_evenly() {
    // One wants four times as many, another larger ones.
    let rows = flood(&[(0, 1, 40, 8), (0, 2, 40, 8), (0, 3, 80, 16)], 8, 1500);
    assert!(near(rows[0], rows[1], 10), "{rows:?}");
    assert!(near(rows[0], rows[2], 15), "{rows:?}");
}

#[test]
fn who_asks_seldom_is_not_behind_a_flood() {
    let mut world = World::new(LIMITS, 1000);
    for _ in 0..200 {
        world.submit(40, 8, 0, 1);
    }
    for _ in 0..10 {
        world.pass();
    }
    let id = world.submit(40, 1, 0, 2);
    let mut passes = 0;
    while !world.ended.contains_key(&id) {
        world.pass();
        passes += 1;
    }
    assert!(passes < 20, "{passes}");
    world.finish();
}

#[test]
fn a_higher_priority_does_not_wait_for_a_slot() {
    let mut world = World::new(LIMITS, 1000);
    for _ in 0..8 {
        world.submit(10, 300, -2, 0);
    }
    for _ in 0..30 {
        world.pass();
    }
    let id = world.submit(20, 1, 2, 0);
    world.pass();
    assert_eq!((world.rows[&id], world.preempted.len()), (20, 1));
    world.finish();
}

/// Short jobs of the highest priority never end; one of the lowest gets there all the same.
#[test]
fn the_lowest_priority_does_not_starve() {
    let mut world = World::new(LIMITS, 1000);
    let low = world.submit(40, 20, -4, 0);
    let mut passes = 0;
    while !world.ended.contains_key(&low) {
        while world.scheduler().waiting() < 3 {
            world.submit(8, 4, 4, 1);
        }
        world.pass();
        passes += 1;
        assert!(passes < 200_000);
    }
}

struct Endless;

impl Memory for Endless {
    fn enter(&mut self, _: usize, _: u64) -> usize {
        0
    }

    fn reserve(&mut self, _: usize, _: Range<usize>) -> Result<()> {
        Ok(())
    }

    fn release(&mut self, _: usize, _: u64, _: usize) {}
}

/// The shortest time of a plan and its evaluation while 16 decode and others wait.
fn pass_time(waiting: u64) -> Duration {
    let limits = Limits {
        sequences: 16,
        chunk: 256,
    };
    let mut scheduler = Scheduler::new(limits);
    for id in 0..16 + waiting {
        scheduler.submit(Job {
            id,
            priority: (id % 3) as i32,
            submitter: id % 7,
            tokens: 1,
            tokens_max: 1 << 30,
        });
    }
    let (mut parts, mut best) = (Vec::new(), Duration::MAX);
    for _ in 0..2000 {
        let began = Instant::now();
        scheduler.plan(&mut Endless, &mut parts);
        for part in &parts {
            scheduler.evaluated(part);
            scheduler.grow(part.slot);
        }
        assert_eq!(parts.len(), 16);
        scheduler.changes();
        best = best.min(began.elapsed());
    }
    best
}

#[test]
fn a_pass_costs_the_same_however_many_wait() {
    let (none, many) = (pass_time(0), pass_time(10_000));
    assert!(
        many < 3 * none + Duration::from_micros(2),
        "{none:?} {many:?}"
    );
}
