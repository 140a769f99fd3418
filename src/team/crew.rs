//! The helpers: threads that wait at a gate for phases, as long as the crew lives.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::gate::Gate;
use super::{FloatEnvironment, Phase, TeamOptions, affinity};
use crate::error::{Code, Error, Result};

const STACK_BYTES: usize = 2 << 20;

thread_local! {
    static HELPER: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is a helper of a team.
pub fn is_helper() -> bool {
    HELPER.get()
}

/// The helper threads of a team. Dropping it ends and joins them.
pub struct Crew {
    gate: Arc<Gate>,
    pool: Option<rayon::ThreadPool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Starts `helpers` threads, which run on `cpus`, if there are any.
    pub fn new(helpers: usize, cpus: &[usize], options: &TeamOptions) -> Result<Self> {
        let gate = Arc::new(Gate::new());
        let stack = if options.stack_bytes == 0 {
            STACK_BYTES
        } else {
            options.stack_bytes
        };
        let mut threads = Vec::new();
        let spawn = |helper: rayon::ThreadBuilder| -> io::Result<()> {
            let mut cpus = cpus.to_vec();
            if options.pin && !cpus.is_empty() {
                // The first is left to the thread that calls in.
                cpus = vec![cpus[(helper.index() + 1) % cpus.len()]];
            }
            let niceness = options.niceness;
            let builder = thread::Builder::new()
                .name(format!("lightgpt-{}", helper.index() + 1))
                .stack_size(stack);
            threads.push(builder.spawn(move || {
                HELPER.set(true);
                // What the system refuses changes where and when the thread runs, nothing else.
                let _ = cpus.is_empty() || affinity::restrict(&cpus);
                let _ = niceness == 0 || affinity::yield_to_others(niceness);
                helper.run();
            })?);
            Ok(())
        };
        let pool = affinity::without_signals(|| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(helpers)
                .spawn_handler(spawn)
                .build()
        });
        let pool = pool.map_err(|e| {
            Error::new(
                Code::OutOfMemory,
                "threads",
                format!("cannot start {helpers}: {e}"),
            )
        })?;
        let shared = Arc::clone(&gate);
        pool.spawn_broadcast(move |context| {
            let _environment = FloatEnvironment::enter();
            shared.stand_by(context.index());
        });
        Ok(Self {
            gate,
            pool: Some(pool),
            threads,
        })
    }

    /// Runs `work` while the first `helpers` may work on `phase`; none come if another call has
    /// them.
    pub fn with_help(&self, phase: &Phase<'_>, helpers: usize, work: impl FnOnce()) {
        self.gate.with_help(phase, helpers, work);
    }

    /// A call begins: helpers may wait awake.
    pub fn call_begins(&self) {
        self.gate.call_begins();
    }

    /// A call ends: with the last one, helpers go to sleep.
    pub fn call_ends(&self) {
        self.gate.call_ends();
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.gate.quit();
        drop(self.pool.take());
        for thread in self.threads.drain(..) {
            // A helper cannot panic: `Phase::perform` catches what tasks throw.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew")
            .field("helpers", &self.threads.len())
            .finish()
    }
}
