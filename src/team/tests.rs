mod interleavings;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::*;

fn team(threads: usize) -> Arc<Team> {
    Team::new(TeamOptions {
        threads,
        alone_ns: Some(0),
        ..TeamOptions::default()
    })
    .unwrap()
}

/// Runs bodies one after the other in an order of its own, or only some of them.
struct Host {
    bodies: usize,
    threads: bool,
}

impl Executor for Host {
    fn parallel_for(&self, bodies: usize, body: &(dyn Fn() + Sync)) {
        let count = bodies.min(self.bodies);
        if !self.threads {
            return (0..count).for_each(|_| body());
        }
        std::thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(body);
            }
        });
    }
}

fn hosts() -> Vec<Arc<Team>> {
    let host = |bodies, threads| {
        let executor: Option<Box<dyn Executor>> = Some(Box::new(Host { bodies, threads }));
        Team::new(TeamOptions {
            threads: 3,
            executor,
            alone_ns: Some(0),
            ..TeamOptions::default()
        })
        .unwrap()
    };
    vec![
        host(0, false),
        host(1, false),
        host(9, false),
        host(9, true),
    ]
}

#[test]
fn every_task_runs_once_on_any_team() {
    let mut teams = hosts();
    teams.extend([1, 2, 3, 8].map(team));
    for team in teams {
        let _call = team.call();
        for tasks in [0, 1, 2, 3, 7, 100] {
            let mut data = vec![0u32; tasks * 3];
            let mut next = 0;
            let flow = team.run(
                &Signals::default(),
                &mut next,
                Chunks::new(&mut data, 3),
                |task, part| {
                    for value in &mut **part {
                        *value += task as u32 + 1;
                    }
                    Ok(())
                },
            );
            assert_eq!((flow.unwrap(), next), (Flow::Done, tasks));
            assert!(
                data.iter()
                    .enumerate()
                    .all(|(i, &value)| value == i as u32 / 3 + 1)
            );
        }
    }
}

#[test]
fn thousands_of_short_phases_lose_nothing() {
    let team = team(3);
    let _call = team.call();
    let count = AtomicU32::new(0);
    for _ in 0..20_000 {
        let mut next = 0;
        team.run(&Signals::default(), &mut next, Tasks(4), |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
    }
    assert_eq!(count.into_inner(), 80_000);
}

#[test]
fn what_is_too_short_to_be_shared_stays_with_the_caller() {
    let team = Team::new(TeamOptions {
        threads: 2,
        alone_ns: Some(1000),
        ..TeamOptions::default()
    });
    let team = team.unwrap();
    assert!(team.shares(1000) && !team.shares(999));
    let caller = std::thread::current().id();
    let threads = |work_ns: usize, wait_for: u32| {
        let arrived = AtomicU32::new(0);
        let mut threads = [caller; 100];
        let parts = Chunks::new(&mut threads, 1).taking(work_ns);
        team.run(&Signals::default(), &mut 0, parts, |task, thread| {
            thread[0] = std::thread::current().id();
            // The caller's first task ends when a helper has come.
            arrived.fetch_add(
                u32::from(task == 0 || thread[0] != caller),
                Ordering::Relaxed,
            );
            while task == 0 && arrived.load(Ordering::Relaxed) < wait_for {
                std::thread::yield_now();
            }
            Ok(())
        })
        .unwrap();
        threads
    };
    assert!(threads(999, 1).iter().all(|&thread| thread == caller));
    assert!(threads(1000, 2).iter().any(|&thread| thread != caller));
}

#[test]
fn a_past_deadline_runs_one_task_a_call() {
    for team in [team(1), team(3)] {
        let signals = Signals {
            deadline: Some(Instant::now()),
            cancel: [None; 2],
        };
        let mut data = [0; 5];
        let mut next = 0;
        for task in 1..=5 {
            let flow = team.run(&signals, &mut next, Chunks::new(&mut data, 1), |_, part| {
                part[0] += 1;
                Ok(())
            });
            let expected = if task == 5 { Flow::Done } else { Flow::Paused };
            assert_eq!((flow.unwrap(), next), (expected, task));
        }
        assert_eq!(data, [1; 5]);
    }
}

#[test]
fn short_tasks_are_claimed_in_runs_as_many_for_each_thread() {
    let team = team(2);
    assert_eq!(team.claim(16, 4_000), 8);
    assert_eq!(team.claim(512, 40_000), 128);
    assert_eq!(team.claim(3, 0), 2);
    // Long ones, one by one.
    assert_eq!(team.claim(10, 15_000), 1);
    assert_eq!(team.claim(7, usize::MAX), 1);
}

#[test]
fn a_phase_goes_on_behind_the_runs_that_were_claimed() {
    let team = team(3);
    let _call = team.call();
    for _ in 0..200 {
        let (mut data, mut next, mut calls) = ([0u8; 3000], 0, 0);
        loop {
            let deadline = Some(Instant::now() + Duration::from_micros(3));
            let signals = Signals {
                deadline,
                cancel: [None; 2],
            };
            let parts = Chunks::new(&mut data, 1).taking(200_000);
            let flow = team.run(&signals, &mut next, parts, |task, part| {
                part[0] += 1;
                std::hint::black_box((0..task % 50).sum::<usize>());
                Ok(())
            });
            calls += 1;
            if flow.unwrap() == Flow::Done {
                break;
            }
            assert!(data[..next].iter().all(|&runs| runs == 1), "{calls}");
            assert!(data[next..].iter().all(|&runs| runs == 0), "{calls}");
        }
        assert_eq!((data, next), ([1; 3000], 3000));
    }
}

#[test]
fn cancel_stops_between_tasks() {
    let team = team(2);
    let flag = AtomicBool::new(false);
    let signals = Signals {
        deadline: None,
        cancel: [Some(&flag), None],
    };
    let mut next = 0;
    let outcome = team.run(&signals, &mut next, Tasks(1000), |task, _| {
        if task == 10 {
            flag.store(true, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_micros(100));
        Ok(())
    });
    assert_eq!(outcome.unwrap_err().code(), Code::Cancelled);
    assert_eq!(
        team.run(&signals, &mut 0, Tasks(1), |_, _| Ok(()))
            .unwrap_err()
            .code(),
        Code::Cancelled
    );
}

#[test]
fn a_panic_or_an_error_releases_everyone() {
    let team = team(3);
    for _ in 0..50 {
        let outcome = team.run(&Signals::default(), &mut 0, Tasks(64), |task, _| {
            assert_ne!(task, 20, "the task's own words");
            Ok(())
        });
        let error = outcome.unwrap_err();
        assert_eq!(error.code(), Code::Internal);
        assert!(error.to_string().contains("the task's own words"));
    }
    let outcome = team.run(&Signals::default(), &mut 0, Tasks(64), |_, _| {
        Err(cancelled())
    });
    assert_eq!(outcome.unwrap_err().code(), Code::Cancelled);
    assert_eq!(
        team.run(&Signals::default(), &mut 0, Tasks(64), |_, _| Ok(())),
        Ok(Flow::Done)
    );
}

#[test]
fn tiles_cover_a_matrix_once() {
    let team = team(3);
    for (rows, columns, tile) in [
        (1, 1, (1, 1)),
        (5, 7, (2, 3)),
        (4, 16, (4, 16)),
        (3, 10, (8, 4)),
    ] {
        let mut data = vec![0u32; rows * columns];
        let tiles = Tiles::new(&mut data, columns, tile);
        let counted = tiles.tasks();
        assert_eq!(counted, rows.div_ceil(tile.0) * columns.div_ceil(tile.1));
        team.run(&Signals::default(), &mut 0, tiles, |_, tile| {
            for row in tile.row_range() {
                let start = (row * columns + tile.column_range().start) as u32;
                let first = tile.row_range().start;
                for (i, value) in tile.row_mut(row - first).iter_mut().enumerate() {
                    *value += start + i as u32 + 1;
                }
            }
            Ok(())
        })
        .unwrap();
        assert!(
            data.iter()
                .enumerate()
                .all(|(i, &value)| value == i as u32 + 1)
        );
    }
}

#[test]
fn two_calls_at_once_share_one_team() {
    let team = team(2);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let mut data = [0u8; 40];
                    team.run(
                        &Signals::default(),
                        &mut 0,
                        Chunks::new(&mut data, 1),
                        |_, part| {
                            part[0] += 1;
                            Ok(())
                        },
                    )
                    .unwrap();
                    assert_eq!(data, [1; 40]);
                }
            });
        }
    });
}

#[test]
fn too_many_threads_are_refused() {
    let outcome = Team::new(TeamOptions {
        threads: THREADS_MAX + 1,
        ..TeamOptions::default()
    });
    assert_eq!(outcome.unwrap_err().code(), Code::InvalidArgument);
    assert!(physical_cores() >= 1);
}

#[test]
fn a_node_that_is_not_there_and_a_niceness_that_is_none_are_refused() {
    let refused = |options: TeamOptions, place: &str| {
        let error = Team::new(options).unwrap_err();
        assert_eq!(
            (error.code(), error.place()),
            (Code::InvalidArgument, place)
        );
    };
    let node = Some(usize::MAX);
    refused(
        TeamOptions {
            node,
            ..TeamOptions::default()
        },
        "node",
    );
    let niceness = NICENESS_MAX + 1;
    refused(
        TeamOptions {
            niceness,
            ..TeamOptions::default()
        },
        "niceness",
    );
}

#[test]
fn pinned_helpers_work_like_others() {
    let options = TeamOptions {
        threads: 3,
        pin: true,
        niceness: 1,
        alone_ns: Some(0),
        ..TeamOptions::default()
    };
    let team = Team::new(options).unwrap();
    let mut data = [0u8; 100];
    let parts = Chunks::new(&mut data, 1);
    let body = |_, part: &mut &mut [u8]| {
        part[0] += 1;
        Ok(())
    };
    team.run(&Signals::default(), &mut 0, parts, body).unwrap();
    assert_eq!(data, [1; 100]);
}
