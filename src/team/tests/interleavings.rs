//! The gate and the claims in every order in which threads can come, and with all that a CPU may
//! show them of each other's writes: the sources as they are, compiled with the locks, counters and
//! cells of `loom`, which runs each test once for every order.
//!
//! The number of times that a thread may be stopped between its own waits is bounded, and a thread
//! looks once where it looks a thousand times outside; else there would be too many orders.

#[path = "../gate.rs"]
#[allow(clippy::duplicate_mod)] // with other locks
mod gate;
#[path = "../phase.rs"]
#[allow(clippy::duplicate_mod)] // with other locks
mod phase;

/// What the sources find in place of `team/sync.rs`.
mod sync {
    pub use loom::cell::UnsafeCell;
    pub use loom::hint::spin_loop;
    pub use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
    pub use loom::sync::{Condvar, Mutex, MutexGuard};

    pub const LOOKS: usize = 1;
}

use std::sync::Arc;

use loom::thread;

use crate::control::{Flow, Signals};
use crate::error::{Code, Error, Result};
use gate::Gate;
use phase::Phase;
use sync::UnsafeCell;

/// Runs `test` in all orders in which no thread is stopped more than `stops` times.
fn in_all_orders(stops: usize, test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(stops);
    model.check(test);
}

/// Results of tasks, which loom watches: who looks must have waited for who wrote.
struct Results<const TASKS: usize>([UnsafeCell<u32>; TASKS]);

// SAFETY: loom fails the test if two threads use a cell at a time.
unsafe impl<const TASKS: usize> Sync for Results<TASKS> {}

impl<const TASKS: usize> Results<TASKS> {
    fn new() -> Self {
        Self(std::array::from_fn(|_| UnsafeCell::new(0)))
    }

    fn count(&self, task: usize) {
        // SAFETY: as above.
        self.0[task].with_mut(|count| unsafe { *count += 1 });
    }

    fn counts(&self) -> [u32; TASKS] {
        // SAFETY: as above.
        std::array::from_fn(|task| self.0[task].with(|count| unsafe { *count }))
    }
}

/// A call as `Team::run` makes it: all tasks from `first` on.
fn run(
    gate: &Gate,
    helpers: usize,
    (first, tasks): (usize, usize),
    body: &Body<'_>,
) -> Result<Flow> {
    gate.call_begins();
    let phase = Phase::new(body, (first, tasks), 1, Signals::default());
    gate.with_help(&phase, helpers, || {
        phase.perform(first);
        phase.work();
    });
    gate.call_ends();
    let mut next = first;
    let flow = phase.end(&mut next)?;
    assert_eq!(next, tasks);
    Ok(flow)
}

type Body<'a> = dyn Fn(usize) -> Result<()> + Sync + 'a;

/// So many helpers at a gate, which quit when `calls` is over.
fn with_helpers(helpers: usize, calls: impl FnOnce(&Arc<Gate>)) {
    let gate = Arc::new(Gate::new());
    let stand_by = |helper| {
        let gate = gate.clone();
        thread::spawn(move || gate.stand_by(helper))
    };
    let threads: Vec<_> = (0..helpers).map(stand_by).collect();
    calls(&gate);
    gate.quit();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Two phases, one behind the other, each gone when its call ends: each task runs once, and the
/// caller sees what it has done.
#[test]
fn tasks_run_once_and_are_seen() {
    in_all_orders(3, || {
        with_helpers(1, |gate| {
            for _ in 0..2 {
                two_tasks(gate);
            }
        });
    });
}

/// A call of two tasks, each of which runs once.
fn two_tasks(gate: &Gate) {
    let results = Results::<2>::new();
    let flow = run(gate, 1, (0, 2), &|task| {
        results.count(task);
        Ok(())
    });
    assert_eq!(flow, Ok(Flow::Done));
    assert_eq!(results.counts(), [1, 1]);
}

/// Helpers that a phase has no tasks for pass through the gate all the same.
#[test]
fn helpers_come_late_or_are_not_wanted() {
    in_all_orders(2, || {
        with_helpers(2, |gate| {
            let results = Results::<3>::new();
            let flow = run(gate, 1, (1, 3), &|task| {
                results.count(task);
                Ok(())
            });
            assert_eq!(flow, Ok(Flow::Done));
            assert_eq!(results.counts(), [0, 1, 1]);
        });
    });
}

/// Two callers want the helper at once: one of them works alone.
#[test]
fn two_calls_do_not_mix() {
    in_all_orders(2, || {
        with_helpers(1, |gate| {
            let other = gate.clone();
            let other = thread::spawn(move || two_tasks(&other));
            two_tasks(gate);
            other.join().unwrap();
        });
    });
}

/// A task that fails, on whatever thread, ends the phase, and its error is the call's.
#[test]
fn the_error_of_a_task_arrives() {
    in_all_orders(2, || {
        with_helpers(1, |gate| {
            let results = Results::<3>::new();
            let failed = run(gate, 1, (0, 3), &|task| {
                results.count(task);
                match task {
                    1 => Err(Error::new(Code::NonFinite, "task", "on purpose")),
                    _ => Ok(()),
                }
            });
            assert_eq!(failed.unwrap_err().code(), Code::NonFinite);
            let [first, second, third] = results.counts();
            assert!(first == 1 && second == 1 && third <= 1);
        });
    });
}

/// Helpers that have nothing to do quit, whether they sleep, are about to, or have not begun.
#[test]
fn idle_helpers_quit() {
    in_all_orders(3, || with_helpers(2, |_| {}));
}
