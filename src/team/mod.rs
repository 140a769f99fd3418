//! The threads: phases of numbered tasks, claimed by a counter.
//!
//! The thread that calls [`Team::run`] always works and can finish everything alone; helpers may
//! arrive late or never. A phase ends when all claimed tasks are done; deadline and cancel are
//! read at each claim, so a phase pauses between tasks and goes on there later. The same code runs
//! on our helpers, on a host's executor, or on one thread.
#![allow(unsafe_code)]

mod affinity;
mod cores;
mod crew;
mod float_environment;
mod gate;
mod parts;
mod phase;
mod sync;

use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::control::{Flow, Signals, cancelled};
use crate::error::{Code, Error, Result};

pub use cores::physical_cores;
pub use crew::is_helper;
pub use float_environment::FloatEnvironment;
pub use parts::{Chunks, Partition, Tasks, Tile, Tiles};

use crew::Crew;
use phase::Phase;

/// The most threads a team may have.
pub const THREADS_MAX: usize = 256;

/// The largest [`TeamOptions::niceness`].
pub const NICENESS_MAX: u8 = 19;

/// Work below which a phase stays with the thread that runs it, in nanoseconds: two threads would not
/// be faster. Measured (`lightgpt tune`); results do not depend on it.
pub const ALONE_NS: usize = 4_000;

/// Tasks below it, in nanoseconds, are claimed in runs: the counter, and what neighbouring tasks
/// write, wander between cores with each claim.
const SHORT_NS: usize = 1_500;
/// The longest run.
const RUN_NS: usize = 16_000;

/// What a team is made of.
#[derive(Default)]
pub struct TeamOptions {
    /// Threads that work, the caller's included; 0: the physical cores that this process may use.
    pub threads: usize,
    /// CPUs that the helpers may run on (Linux); empty: those of the node, or all.
    pub cpus: Vec<usize>,
    /// NUMA node on whose CPUs the helpers run (Linux); `None`: any. On a machine with several
    /// nodes, a team a node: the calling thread should run on the same node, as the memory that it
    /// touches first, its session's, lies there.
    pub node: Option<usize>,
    /// Whether each helper is bound to one CPU (Linux), from the second of the list on: the first
    /// is left to the calling thread, which the library does not bind.
    pub pin: bool,
    /// How far the helpers stand back for other threads (Linux), from 0 to 19, as `nice` has it.
    pub niceness: u8,
    /// Stack of a helper in bytes; 0: 2 MiB.
    pub stack_bytes: usize,
    /// The host's own threads, instead of helpers of ours.
    pub executor: Option<Box<dyn Executor>>,
    /// Phases with less work than so many nanoseconds are not shared; `None`: [`ALONE_NS`].
    pub alone_ns: Option<usize>,
}

impl TeamOptions {
    /// The CPUs that helpers may run on; empty: those of the process.
    fn cpus(&self) -> Result<Vec<usize>> {
        let mut cpus = self.cpus.clone();
        if let Some(node) = self.node {
            let of_node = cores::node_cpus(node)?;
            match cpus.is_empty() {
                true => cpus = of_node,
                false => cpus.retain(|cpu| of_node.contains(cpu)),
            }
        }
        if cpus.is_empty() && self.pin {
            cpus = affinity::allowed().unwrap_or_default();
        }
        Ok(cpus)
    }
}

/// A host's own way to run something on several threads.
pub trait Executor: Send + Sync {
    /// Calls `body` up to `bodies` times, on any threads, at any time before it returns, or not at
    /// all; returns when every call that it made has returned.
    fn parallel_for(&self, bodies: usize, body: &(dyn Fn() + Sync));
}

/// Threads that work on phases; shared by any number of models and sessions.
///
/// Helpers sleep while no call is in progress and are joined when the team is dropped. When two
/// calls want them at once, the later one works alone for that phase.
pub struct Team {
    threads: usize,
    crew: Option<Crew>,
    executor: Option<Box<dyn Executor>>,
    alone_ns: usize,
}

impl Team {
    /// Starts the helpers: `threads - 1` of them, none with an executor.
    pub fn new(options: TeamOptions) -> Result<Arc<Self>> {
        let threads = match options.threads {
            0 => physical_cores(),
            threads => threads,
        };
        if threads > THREADS_MAX {
            let message = format!("expected at most {THREADS_MAX}, found {threads}");
            return Err(Error::new(Code::InvalidArgument, "threads", message));
        }
        if options.niceness > NICENESS_MAX {
            let found = options.niceness;
            let message = format!("expected at most {NICENESS_MAX}, found {found}");
            return Err(Error::new(Code::InvalidArgument, "niceness", message));
        }
        let cpus = options.cpus()?;
        let crew = match (threads, &options.executor) {
            (1, _) | (_, Some(_)) => None,
            _ => Some(Crew::new(threads - 1, &cpus, &options)?),
        };
        Ok(Arc::new(Self {
            threads,
            crew,
            executor: options.executor,
            alone_ns: options.alone_ns.unwrap_or(ALONE_NS),
        }))
    }

    /// Threads that may work at once, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Whether a phase that takes about `work_ns` nanoseconds on one thread is shared.
    pub fn shares(&self, work_ns: usize) -> bool {
        work_ns >= self.alone_ns
    }

    /// How many of `tasks`, which take about `work_ns` nanoseconds in all, a thread claims at once: runs
    /// of short ones, as many for each thread.
    fn claim(&self, tasks: usize, work_ns: usize) -> usize {
        if work_ns / tasks >= SHORT_NS {
            return 1;
        }
        let runs = work_ns.div_ceil(self.threads * RUN_NS).max(1);
        tasks.div_ceil(self.threads * runs)
    }

    /// Begins a call: phases will follow each other closely, so helpers wait awake in between, and
    /// this thread's float control word is the default until the call ends.
    pub fn call(&self) -> Call<'_> {
        if let Some(crew) = &self.crew {
            crew.call_begins();
        }
        Call {
            crew: self.crew.as_ref(),
            _environment: FloatEnvironment::enter(),
        }
    }

    /// Runs the tasks of a phase from `*next` on, until all are done or the deadline has passed;
    /// each call runs at least one task. `body` gets the task's number and its part of `parts`.
    ///
    /// On return `*next` is the first task that has not run. Fails with `CANCELLED` when the flag
    /// is set, and with the first error or panic of a task; the phase cannot go on then.
    pub fn run<P, F>(
        &self,
        signals: &Signals<'_>,
        next: &mut usize,
        parts: P,
        body: F,
    ) -> Result<Flow>
    where
        P: Partition,
        F: Fn(usize, &mut P::Part) -> Result<()> + Sync,
    {
        let tasks = parts.tasks();
        if *next >= tasks {
            return Ok(Flow::Done);
        }
        if signals.cancelled() {
            return Err(cancelled());
        }
        let call = |task: usize| {
            // SAFETY: `Phase` claims each task below `tasks` once.
            body(task, &mut unsafe { parts.part(task) })
        };
        let first = *next;
        let helpers = match self.shares(parts.work_ns()) {
            true => self.threads.min(tasks - first) - 1,
            false => 0,
        };
        let claim = self.claim(tasks, parts.work_ns());
        let phase = Phase::new(&call, (first, tasks), claim, *signals);
        let work = || {
            phase.perform(first);
            phase.work();
        };
        match (&self.executor, &self.crew) {
            (Some(executor), _) if helpers > 0 => {
                phase.perform(first);
                executor.parallel_for(helpers, &|| {
                    let _environment = FloatEnvironment::enter();
                    phase.work();
                });
                phase.work();
            }
            (None, Some(crew)) if helpers > 0 => crew.with_help(&phase, helpers, work),
            _ => work(),
        }
        phase.end(next)
    }
}

/// Starts a thread of the library: its signals are blocked, but for its own faults.
///
/// # Errors
/// `OUT_OF_MEMORY` if the system starts none.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let builder = thread::Builder::new().name(name.into());
    affinity::without_signals(|| builder.spawn(body)).map_err(|e| {
        let message = format!("cannot start one: {e}");
        Error::new(Code::OutOfMemory, "thread", message)
    })
}

impl fmt::Debug for TeamOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TeamOptions")
            .field("threads", &self.threads)
            .field("cpus", &self.cpus)
            .field("node", &self.node)
            .field("pin", &self.pin)
            .field("niceness", &self.niceness)
            .field("stack_bytes", &self.stack_bytes)
            .field("executor", &self.executor.is_some())
            .field("alone_ns", &self.alone_ns)
            .finish()
    }
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Team")
            .field("threads", &self.threads)
            .field("executor", &self.executor.is_some())
            .finish()
    }
}

/// A call in progress; see [`Team::call`].
#[derive(Debug)]
pub struct Call<'a> {
    crew: Option<&'a Crew>,
    _environment: FloatEnvironment,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(crew) = self.crew {
            crew.call_ends();
        }
    }
}

#[cfg(test)]
mod tests;
