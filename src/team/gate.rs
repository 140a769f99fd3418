//! The gate that helpers go through to a phase, and leave before it ends.
//!
//! The gate is one word: a sequence number, a bit that says it is open, and how many helpers are
//! inside. A helper enters by raising the count of an open gate it has not been through yet; the
//! caller closes the gate and waits until the count is zero, so a phase on the caller's stack
//! outlives every helper in it. `tests/interleavings.rs` tries the orders in which threads can come.

use std::ptr;
use std::sync::PoisonError;

use super::phase::Phase;
use super::sync::{
    AtomicBool, AtomicU64, AtomicUsize, Condvar, LOOKS, Mutex, MutexGuard, Ordering, UnsafeCell,
    fence, spin_loop,
};

const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const SEQUENCE: u64 = !(OPEN | INSIDE);

/// What callers and helpers share.
pub struct Gate {
    word: AtomicU64,
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
unsafe impl Sync for Gate {}
// SAFETY: the pointer is only ever followed under the rule above.
unsafe impl Send for Gate {}

impl Gate {
    /// Closed, and nobody there.
    pub fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            phase: UnsafeCell::new(ptr::null()),
            helpers: AtomicUsize::new(0),
            taken: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            quit: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            opened: Condvar::new(),
            emptied: Condvar::new(),
        }
    }

    /// Runs `work` while the first `helpers` may work on `phase`; none come if another call has
    /// them.
    pub fn with_help(&self, phase: &Phase<'_>, helpers: usize, work: impl FnOnce()) {
        /// Closes the gate, also when `work` unwinds: `phase` is gone then.
        struct Closing<'a>(&'a Gate);
        impl Drop for Closing<'_> {
            fn drop(&mut self) {
                self.0.close();
                self.0.taken.store(false, Ordering::Release);
            }
        }

        if self.taken.swap(true, Ordering::Acquire) {
            return work();
        }
        // SAFETY: this caller has the helpers and the gate is closed and empty, so nobody reads.
        // The lifetime is lifted only until the gate is closed below, which `phase` outlives.
        self.phase
            .with_mut(|place| unsafe { *place = ptr::from_ref(phase).cast() });
        self.helpers.store(helpers, Ordering::Relaxed);
        self.open();
        let _closing = Closing(self);
        work();
    }

    /// A call begins: helpers may wait awake.
    pub fn call_begins(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// A call ends: with the last one, helpers go to sleep.
    pub fn call_ends(&self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }

    /// Ends the lives of all helpers.
    pub fn quit(&self) {
        self.quit.store(true, Ordering::Relaxed);
        let _guard = self.lock();
        self.opened.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) {
        let sequence = (self.word.load(Ordering::Relaxed) & SEQUENCE).wrapping_add(OPEN << 1);
        self.word.store(sequence | OPEN, Ordering::Release);
        // Either a helper on its way to sleep sees the open gate, or we see the sleeper.
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            let _guard = self.lock();
            self.opened.notify_all();
        }
    }

    fn close(&self) {
        self.word.fetch_and(!OPEN, Ordering::AcqRel);
        for _ in 0..LOOKS {
            if self.word.load(Ordering::Acquire) & INSIDE == 0 {
                return;
            }
            spin_loop();
        }
        let mut guard = self.lock();
        while self.word.load(Ordering::Acquire) & INSIDE != 0 {
            guard = self
                .emptied
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A helper's life: from phase to phase, until it is time to quit.
    pub fn stand_by(&self, helper: usize) {
        let mut been = 0;
        while let Some(sequence) = self.enter(been) {
            been = sequence;
            if helper < self.helpers.load(Ordering::Relaxed) {
                // SAFETY: inside the gate, so the caller keeps the phase alive until we leave.
                let phase = self.phase.with(|place| unsafe { &**place });
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
            let gate = self.word.load(Ordering::Acquire);
            if gate & SEQUENCE != last {
                // Perhaps it came too late; but phases follow each other.
                (looks, last) = (0, gate & SEQUENCE);
            }
            if Self::is_new(gate, been) {
                let entered = self.word.compare_exchange_weak(
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
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        while !self.quit.load(Ordering::Relaxed)
            && self.word.load(Ordering::Relaxed) & SEQUENCE == last
        {
            guard = self
                .opened
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }

    fn leave(&self) {
        let before = self.word.fetch_sub(1, Ordering::AcqRel);
        if before & OPEN == 0 && before & INSIDE == 1 {
            let _guard = self.lock();
            self.emptied.notify_all();
        }
    }
}
