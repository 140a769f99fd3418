//! What all threads share of a queue: requests that come in, cancels, events that wait to be polled.
//!
//! One lock, held for a few instructions and never while anything is evaluated or told.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::metrics::Metrics;
use super::queue::Poll;
use super::request::{Event, Polled};
use super::sequence::Sequence;
use super::sync::{Condvar, Mutex, MutexGuard};
use crate::error::{Code, Error, Result};

/// What threads of a queue share.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
    /// Signalled when there is something to attend to.
    wanted: Condvar,
    /// Signalled when there is something to poll, and when a request is over.
    told: Condvar,
    requests_max: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Requests that are not over.
    alive: HashSet<u64>,
    /// Those among them that are polled.
    alive_polled: usize,
    /// Requests that are over, which their owner has not heard.
    unheard: usize,
    /// Number of the last request.
    last: u64,
    wanted: Wanted,
    /// Threads that wait for `told`.
    listeners: usize,
    events: VecDeque<Polled>,
    metrics: Metrics,
    refused: u64,
}

/// What others want of the one who works.
#[derive(Debug, Default)]
pub struct Wanted {
    /// To be taken up.
    pub requests: Vec<Sequence>,
    /// To be ended; each is named once, however often it is cancelled.
    pub cancels: BTreeSet<u64>,
    /// Something has changed since the last look.
    changed: bool,
    /// Work is to rest.
    pub paused: bool,
    /// No requests are taken.
    draining: bool,
    /// All is to end.
    pub closing: bool,
    /// A defect has stopped the queue.
    poisoned: bool,
}

impl Shared {
    pub fn new(requests_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            wanted: Condvar::new(),
            told: Condvar::new(),
            requests_max,
        }
    }

    /// Takes a request; its number.
    pub fn submit(&self, mut sequence: Sequence) -> Result<u64> {
        let mut state = self.lock();
        state.wanted.check_sound()?;
        if let Err(error) = state.check_open(self.requests_max) {
            state.refused += 1;
            return Err(error);
        }
        state.last += 1;
        let (id, polled) = (state.last, sequence.is_polled());
        sequence.id = id;
        state.alive.insert(id);
        state.alive_polled += usize::from(polled);
        state.wanted.requests.push(sequence);
        self.change(state, |_| {});
        Ok(id)
    }

    /// Wants a request to end; `NOT_FOUND` if there is none that is not over.
    pub fn cancel(&self, id: u64) -> Result<()> {
        let state = self.lock();
        if !state.alive.contains(&id) {
            let message = "it is over, or never was";
            return Err(Error::new(Code::NotFound, format!("request {id}"), message));
        }
        self.change(state, |wanted| {
            wanted.cancels.insert(id);
        });
        Ok(())
    }

    pub fn pause(&self) {
        self.change(self.lock(), |wanted| wanted.paused = true);
    }

    /// Work goes on, and requests are taken again.
    pub fn resume(&self) {
        self.change(self.lock(), |wanted| {
            (wanted.paused, wanted.draining) = (false, false);
        });
    }

    /// No more requests are taken.
    pub fn drain(&self) {
        self.change(self.lock(), |wanted| wanted.draining = true);
    }

    /// Also ends the waits of all others.
    pub fn close(&self) {
        self.change(self.lock(), |wanted| wanted.closing = true);
        self.told.notify_all();
    }

    /// A defect has stopped the queue.
    pub fn poison(&self) {
        self.change(self.lock(), |wanted| wanted.poisoned = true);
    }

    pub fn check_sound(&self) -> Result<()> {
        self.lock().wanted.check_sound()
    }

    fn change(&self, mut state: MutexGuard<'_, State>, change: impl FnOnce(&mut Wanted)) {
        change(&mut state.wanted);
        state.wanted.changed = true;
        self.wanted.notify_all();
    }

    /// Takes over what others want; `into` keeps its room.
    pub fn wanted(&self, into: &mut Wanted) {
        let wanted = &mut self.lock().wanted;
        into.requests.append(&mut wanted.requests);
        into.cancels.append(&mut wanted.cancels);
        wanted.changed = false;
        (into.paused, into.closing) = (wanted.paused, wanted.closing);
    }

    /// Waits until something has changed since the last look, or until a time.
    pub fn wait_wanted(&self, until: Option<Instant>) {
        let mut state = self.lock();
        while !state.wanted.changed {
            let Some(state_then) = wait(&self.wanted, state, until) else {
                return;
            };
            state = state_then;
        }
    }

    /// Keeps an event until it is polled. With its last one a request is over.
    pub fn keep(&self, event: &Event<'_>) {
        let polled = Polled::keep(event);
        let mut state = self.lock();
        if polled.is_end() {
            state.alive.remove(&event.request);
            state.alive_polled -= 1;
            state.unheard += 1;
        }
        state.events.push_back(polled);
        if state.listeners > 0 {
            self.told.notify_all();
        }
    }

    /// A request is over, and its owner has heard it or can.
    pub fn forget(&self, id: u64) {
        let mut state = self.lock();
        state.alive.remove(&id);
        if state.listeners > 0 {
            self.told.notify_all();
        }
    }

    /// The next event, which is waited for until `until`; or why there is none.
    pub fn poll(&self, until: Option<Instant>) -> Result<Polled, Poll> {
        let mut state = self.lock();
        loop {
            if let Some(event) = state.events.pop_front() {
                state.unheard -= usize::from(event.is_end());
                return Ok(event);
            }
            if state.alive_polled == 0 || state.wanted.closing {
                return Err(Poll::Over);
            }
            state = self.listen(state, until).ok_or(Poll::Nothing)?;
        }
    }

    /// Waits until all requests are over; whether they are.
    pub fn wait_empty(&self, until: Option<Instant>) -> bool {
        let mut state = self.lock();
        while !state.alive.is_empty() && !state.wanted.closing {
            match self.listen(state, until) {
                Some(state_then) => state = state_then,
                None => return false,
            }
        }
        state.alive.is_empty()
    }

    fn listen<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        until: Option<Instant>,
    ) -> Option<MutexGuard<'a, State>> {
        state.listeners += 1;
        let mut state = wait(&self.told, state, until);
        match &mut state {
            Some(state) => state.listeners -= 1,
            None => self.lock().listeners -= 1,
        }
        state
    }

    pub fn publish(&self, metrics: &Metrics) {
        self.lock().metrics = *metrics;
    }

    pub fn metrics(&self) -> Metrics {
        let state = self.lock();
        let metrics = state.metrics;
        Metrics {
            waiting: (state.alive.len() as u64).saturating_sub(metrics.running),
            submitted: state.last,
            refused: state.refused,
            ..metrics
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check_open(&self, requests_max: usize) -> Result<()> {
        let refuse = |message: String| Err(Error::new(Code::Busy, "queue", message));
        if self.wanted.draining || self.wanted.closing {
            return refuse("it takes no new requests".into());
        }
        match self.alive.len() + self.unheard < requests_max {
            true => Ok(()),
            false => refuse(format!(
                "{requests_max} requests are there, the most there may be"
            )),
        }
    }
}

impl Wanted {
    fn check_sound(&self) -> Result<()> {
        match self.poisoned {
            false => Ok(()),
            true => Err(Error::new(
                Code::Poisoned,
                "queue",
                "a defect of the library stopped it; free the queue",
            )),
        }
    }
}

/// Waits for a signal; `None`, without the lock, if the time is over.
fn wait<'a, T>(
    signal: &Condvar,
    guard: MutexGuard<'a, T>,
    until: Option<Instant>,
) -> Option<MutexGuard<'a, T>> {
    let Some(until) = until else {
        let guard = signal.wait(guard);
        return Some(guard.unwrap_or_else(PoisonError::into_inner));
    };
    let left = until.saturating_duration_since(Instant::now());
    if left == Duration::ZERO {
        return None;
    }
    let (guard, _) = signal
        .wait_timeout(guard, left)
        .unwrap_or_else(PoisonError::into_inner);
    Some(guard)
}
