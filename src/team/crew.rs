//! The helpers: they wait for a phase, enter it through a gate, and leave it before it ends.
//!
//! The gate is one word: a sequence number, a bit that says it is open, and how many helpers are
//! inside. A helper enters by raising the count of an open gate it has not been through yet; the
//! caller closes the gate and waits until the count is zero, so a phase on the caller's stack
//! outlives every helper in it.

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::hint::spin_loop;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::{FloatEnvironment, Phase, TeamOptions, affinity};
use crate::error::{Code, Error, Result};

/// How often a waiting thread looks before it sleeps: some 30 microseconds.
const LOOKS: usize = 1000;

const STACK_BYTES: usize = 2 << 20;

const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const SEQUENCE: u64 = !(OPEN | INSIDE);

thread_local! {
    static HELPER: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is a helper of a team.
pub fn is_helper() -> bool {
    HELPER.get()
}

/// The helper threads of a team. Dropping it ends and joins them.
pub struct Crew {
    post: Arc<Post>,
    pool: Option<rayon::ThreadPool>,
    threads: Vec<JoinHandle<()>>,
}

/// What callers and helpers share.
struct Post {
    gate: AtomicU64,
    /// The phase behind the gate; written only while the gate is closed and nobody is inside.
    phase: UnsafeCell<*const Phase<'static>>,
    /// How many helpers the phase has tasks for.
    helpers: AtomicUsize,
    /// Whether a caller has the helpers.
    taken: AtomicBool,
    /// Calls in progress: between their phases helpers wait awake for a while.
    calls: AtomicUsize,
    quit: AtomicBool,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    /// Signalled when the gate opens, and to quit.
    opened: Condvar,
    /// Signalled when the last helper has left a closed gate.
    emptied: Condvar,
}

// SAFETY: `phase` is written by the one caller that has `taken` the helpers, while nobody is
// inside; helpers read it only inside. A `Phase` is shared by reference, which its fields allow.
unsafe impl Sync for Post {}
// SAFETY: the pointer is only ever followed under the rule above.
unsafe impl Send for Post {}

impl Crew {
    /// Starts `helpers` threads, which run on `cpus`, if there are any.
    pub fn new(helpers: usize, cpus: &[usize], options: &TeamOptions) -> Result<Self> {
        let post = Arc::new(Post {
            gate: AtomicU64::new(0),
            phase: UnsafeCell::new(ptr::null()),
            helpers: AtomicUsize::new(0),
            taken: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            quit: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            opened: Condvar::new(),
            emptied: Condvar::new(),
        });
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
        let shared = Arc::clone(&post);
        pool.spawn_broadcast(move |context| shared.stand_by(context.index()));
        Ok(Self {
            post,
            pool: Some(pool),
            threads,
        })
    }

    /// Runs `work` while the first `helpers` may work on `phase`; none come if another call has
    /// them.
    pub fn with_help(&self, phase: &Phase<'_>, helpers: usize, work: impl FnOnce()) {
        /// Closes the gate, also when `work` unwinds: `phase` is gone then.
        struct Gate<'a>(&'a Post);
        impl Drop for Gate<'_> {
            fn drop(&mut self) {
                self.0.close();
                self.0.taken.store(false, Ordering::Release);
            }
        }

        let post = &*self.post;
        if post.taken.swap(true, Ordering::Acquire) {
            return work();
        }
        // SAFETY: this caller has the helpers and the gate is closed and empty, so nobody reads.
        // The lifetime is lifted only until the gate is closed below, which `phase` outlives.
        unsafe { *post.phase.get() = ptr::from_ref(phase).cast() };
        post.helpers.store(helpers, Ordering::Relaxed);
        post.open();
        let _gate = Gate(post);
        work();
    }

    /// A call begins: helpers may wait awake.
    pub fn call_begins(&self) {
        self.post.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// A call ends: with the last one, helpers go to sleep.
    pub fn call_ends(&self) {
        self.post.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.post.quit.store(true, Ordering::SeqCst);
        {
            let _guard = self.post.lock();
            self.post.opened.notify_all();
        }
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

impl Post {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) {
        let sequence = (self.gate.load(Ordering::Relaxed) & SEQUENCE).wrapping_add(OPEN << 1);
        self.gate.store(sequence | OPEN, Ordering::SeqCst);
        // Either a helper on its way to sleep sees the open gate, or we see the sleeper.
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = self.lock();
            self.opened.notify_all();
        }
    }

    fn close(&self) {
        self.gate.fetch_and(!OPEN, Ordering::AcqRel);
        for _ in 0..LOOKS {
            if self.gate.load(Ordering::Acquire) & INSIDE == 0 {
                return;
            }
            spin_loop();
        }
        let mut guard = self.lock();
        while self.gate.load(Ordering::Acquire) & INSIDE != 0 {
            guard = self
                .emptied
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A helper's life.
    fn stand_by(&self, helper: usize) {
        let _environment = FloatEnvironment::enter();
        let mut been = 0;
        while let Some(sequence) = self.enter(been) {
            been = sequence;
            if helper < self.helpers.load(Ordering::Relaxed) {
                // SAFETY: inside the gate, so the caller keeps the phase alive until we leave.
                let phase = unsafe { &**self.phase.get() };
                phase.work();
            }
            self.leave();
        }
    }

    /// Waits for a phase that is not number `been` and enters it; `None`: time to quit.
    fn enter(&self, been: u64) -> Option<u64> {
        let (mut looks, mut last) = (0, been);
        loop {
            if self.quit.load(Ordering::Relaxed) {
                return None;
            }
            let gate = self.gate.load(Ordering::Acquire);
            if gate & SEQUENCE != last {
                // Perhaps it came too late; but phases follow each other.
                (looks, last) = (0, gate & SEQUENCE);
            }
            if Self::is_new(gate, been) {
                let entered = self.gate.compare_exchange_weak(
                    gate,
                    gate + 1,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                );
                if entered.is_ok() {
                    return Some(gate & SEQUENCE);
                }
            } else if looks == LOOKS || self.calls.load(Ordering::Relaxed) == 0 {
                self.sleep(last);
            } else {
                looks += 1;
                spin_loop();
            }
        }
    }

    fn is_new(gate: u64, been: u64) -> bool {
        gate & OPEN != 0 && gate & SEQUENCE != been
    }

    /// Sleeps until the gate opens after number `last`. Who wakes too late for a short phase stays
    /// awake for the next one: else each would have to wake it again, in vain.
    fn sleep(&self, last: u64) {
        let mut guard = self.lock();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !self.quit.load(Ordering::SeqCst)
            && self.gate.load(Ordering::SeqCst) & SEQUENCE == last
        {
            guard = self
                .opened
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn leave(&self) {
        let before = self.gate.fetch_sub(1, Ordering::AcqRel);
        if before & OPEN == 0 && before & INSIDE == 1 {
            let _guard = self.lock();
            self.emptied.notify_all();
        }
    }
}
