//! Which rows the next pass takes: bookkeeping of numbers, without a model, a clock or a float.
//!
//! Every sequence that decodes gets its row in every pass; beside them, prompts get a number of rows
//! together. A job runs when a slot is free and its tokens have pages, some of which may be there
//! before it comes. Where pages run out, the youngest of the lowest priority gives its own up and waits
//! again where it stood: its tokens stay known, and evaluating them again makes the same bits.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use super::waiting::{Place, Waiting};
use crate::error::{Error, Result};

pub use super::waiting::Job;

/// Tokens to grow into that a job gets room for when it comes.
const GROWTH: usize = 64;

/// What a pass may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sequences that run at a time.
    pub sequences: usize,
    /// Rows of a pass that are not the next token of a sequence.
    pub chunk: usize,
}

/// The pages of sequences that run, by slot.
pub trait Memory {
    /// A job comes to an empty slot: how many of its tokens are evaluated already, never all.
    fn enter(&mut self, slot: usize, id: u64) -> usize;

    /// Makes sure that the sequence in `slot` has room for `tokens`, the first of which is the next
    /// one to be evaluated; it may have it already. On failure it has what it had.
    fn reserve(&mut self, slot: usize, tokens: Range<usize>) -> Result<()>;

    /// The job leaves its slot, with `evaluated` tokens in its pages.
    fn release(&mut self, slot: usize, id: u64, evaluated: usize);
}

/// Rows of a sequence in a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The job.
    pub id: u64,
    /// Its slot.
    pub slot: usize,
    /// Position of the first row.
    pub start: usize,
    /// Rows.
    pub len: usize,
    /// Whether the last row is the last known token: its logits are wanted.
    pub output: bool,
}

/// What a plan did beside choosing rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The job runs from now on; so many of its tokens are evaluated already.
    Admitted(u64, usize),
    /// The job waits again; so many of its tokens were evaluated.
    Preempted(u64, usize),
    /// There is no room for the job, even alone; it has left.
    Refused(u64, Error),
}

/// Decides what runs.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    /// Sequences up to which others are admitted; at least 1.
    allowed: usize,
    waiting: Waiting,
    /// By slot.
    running: Vec<Option<Running>>,
    free: Vec<usize>,
    jobs: HashMap<u64, Whereabouts>,
    /// Jobs that ever came.
    arrivals: u64,
    changes: Vec<Change>,
    /// Slots, while a plan is made.
    ranked: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
enum Whereabouts {
    Waiting(Place),
    Running(usize),
}

#[derive(Debug, Clone, Copy)]
struct Running {
    job: Job,
    place: Place,
    /// Tokens in its pages.
    evaluated: usize,
    /// Tokens that were known when it was admitted.
    admitted: usize,
}

impl Running {
    /// Whether only its last token is not evaluated.
    fn decodes(&self) -> bool {
        self.evaluated + 1 == self.job.tokens
    }

    /// Higher for those that give way later: higher priorities, and in them the older.
    fn rank(&self) -> (usize, Reverse<u64>) {
        (self.place.class, Reverse(self.place.order))
    }
}

impl Scheduler {
    /// Nothing to do yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            allowed: limits.sequences,
            waiting: Waiting::default(),
            running: vec![None; limits.sequences],
            free: (0..limits.sequences).rev().collect(),
            jobs: HashMap::new(),
            arrivals: 0,
            changes: Vec::new(),
            ranked: Vec::with_capacity(limits.sequences),
        }
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Jobs that run.
    pub fn running(&self) -> usize {
        self.limits.sequences - self.free.len()
    }

    /// From now on lets a job run only while fewer than `sequences` run; those that do go on. Alone,
    /// any may.
    pub fn allow(&mut self, sequences: usize) {
        self.allowed = sequences.clamp(1, self.limits.sequences);
    }

    /// A job comes in.
    pub fn submit(&mut self, job: Job) {
        self.arrivals += 1;
        let place = self.waiting.arrive(job, self.arrivals);
        self.jobs.insert(job.id, Whereabouts::Waiting(place));
    }

    /// A job goes, wherever it is; one that is not there is none. Not between a plan and the end of
    /// its evaluation.
    pub fn leave(&mut self, id: u64, memory: &mut impl Memory) {
        match self.jobs.remove(&id) {
            Some(Whereabouts::Waiting(place)) => {
                self.waiting.remove(place);
            }
            Some(Whereabouts::Running(slot)) => {
                self.vacate(slot, memory);
            }
            None => {}
        }
    }

    /// Chooses the rows of the next pass: one for each sequence that decodes, then prompts. Empty
    /// when there is nothing to evaluate. See also [`Scheduler::changes`].
    pub fn plan(&mut self, memory: &mut impl Memory, parts: &mut Vec<Part>) {
        parts.clear();
        self.secure(memory);
        self.admit(memory);
        self.allot(parts);
    }

    /// What plans have changed since the last call.
    pub fn changes(&mut self) -> std::vec::Drain<'_, Change> {
        self.changes.drain(..)
    }

    /// The rows of a planned part are evaluated; whether the job came with them.
    pub fn evaluated(&mut self, part: &Part) -> bool {
        let Some(running) = &mut self.running[part.slot] else {
            return false;
        };
        running.evaluated = part.start + part.len;
        running.evaluated <= running.admitted
    }

    /// The sequence in `slot`, all of whose tokens are evaluated, gets one more.
    pub fn grow(&mut self, slot: usize) {
        if let Some(running) = &mut self.running[slot] {
            running.job.tokens += 1;
        }
    }

    /// Makes sure that sequences which decode have room for their next token, the first to give way
    /// last.
    fn secure(&mut self, memory: &mut impl Memory) {
        let mut ranked = std::mem::take(&mut self.ranked);
        ranked.clear();
        ranked.extend((0..self.running.len()).filter(|&slot| self.running[slot].is_some()));
        let rank = |slot: &usize| Reverse(self.running[*slot].map(|running| running.rank()));
        ranked.sort_unstable_by_key(rank);
        for &slot in &ranked {
            while let Some(running) = self.running[slot]
                && let Err(error) = memory.reserve(slot, running.evaluated..running.job.tokens)
            {
                match self.running() {
                    1 => self.refuse(slot, error, memory),
                    _ => self.preempt(self.last(), memory),
                }
            }
        }
        self.ranked = ranked;
    }

    /// Lets jobs that wait run, as long as there are slots and pages, or a lower priority that has
    /// had its share to take them from.
    fn admit(&mut self, memory: &mut impl Memory) {
        while let Some((place, job)) = self.waiting.next() {
            if self.running() > self.allowed {
                return;
            }
            let is_allowed = self.running() < self.allowed;
            let room = self.free.last().copied().filter(|_| is_allowed);
            let reserved = room.map(|slot| self.reserve_first(slot, &job, memory));
            if let (Some(slot), Some(Ok(evaluated))) = (room, &reserved) {
                self.start(slot, place, *evaluated);
                continue;
            }
            if let Some(slot) = self.yields_to(place.class) {
                self.preempt(slot, memory);
                continue;
            }
            if let (0, Some(slot), Some(Err(error))) = (self.running(), room, reserved) {
                self.start(slot, place, 0);
                self.refuse(slot, error, memory);
                continue;
            }
            return;
        }
    }

    /// Pages for all that is known of a job, and some to grow into: who comes back gets further
    /// before it may have to go again. Alone, it need not grow. How many tokens are evaluated already.
    fn reserve_first(&self, slot: usize, job: &Job, memory: &mut impl Memory) -> Result<usize> {
        let evaluated = memory.enter(slot, job.id);
        let grown = (job.tokens + GROWTH).min(job.tokens_max.max(job.tokens));
        let mut reserved = memory.reserve(slot, evaluated..grown);
        if reserved.is_err() && self.running() == 0 {
            reserved = memory.reserve(slot, evaluated..job.tokens);
        }
        if reserved.is_err() {
            memory.release(slot, job.id, evaluated);
        }
        reserved.map(|()| evaluated)
    }

    fn start(&mut self, slot: usize, place: Place, evaluated: usize) {
        let job = self.waiting.take(place).expect("it is the next");
        self.free.pop();
        self.jobs.insert(job.id, Whereabouts::Running(slot));
        self.running[slot] = Some(Running {
            job,
            place,
            evaluated,
            admitted: job.tokens,
        });
        self.changes.push(Change::Admitted(job.id, evaluated));
    }

    /// The slot that a job of `class` may take from a lower one, if that has had its share. It has
    /// made a token since it was admitted: who is never left alone long enough would never get on.
    fn yields_to(&self, class: usize) -> Option<usize> {
        let yields = |(slot, running): (usize, &Option<Running>)| {
            let running = running.as_ref()?;
            let other = running.place.class;
            let behind = self.waiting.clock(class) <= self.waiting.clock(other);
            let got_on = running.job.tokens > running.admitted;
            (other < class && behind && got_on).then_some((running.rank(), slot))
        };
        let all = self.running.iter().enumerate().filter_map(yields);
        all.min().map(|(_, slot)| slot)
    }

    /// The slot of the first to give way; one at least runs.
    fn last(&self) -> usize {
        let rank =
            |(slot, running): (usize, &Option<Running>)| Some((running.as_ref()?.rank(), slot));
        let first = self.running.iter().enumerate().filter_map(rank).min();
        first.expect("one runs").1
    }

    fn preempt(&mut self, slot: usize, memory: &mut impl Memory) {
        let running = self.running[slot]
            .take()
            .expect("the caller has seen it run");
        memory.release(slot, running.job.id, running.evaluated);
        self.free.push(slot);
        let Running { job, place, .. } = running;
        self.waiting.come_back(place, job);
        self.jobs.insert(job.id, Whereabouts::Waiting(place));
        let change = Change::Preempted(job.id, running.evaluated);
        self.changes.push(change);
    }

    fn refuse(&mut self, slot: usize, error: Error, memory: &mut impl Memory) {
        if let Some(running) = self.vacate(slot, memory) {
            self.jobs.remove(&running.job.id);
            self.changes.push(Change::Refused(running.job.id, error));
        }
    }

    fn vacate(&mut self, slot: usize, memory: &mut impl Memory) -> Option<Running> {
        let running = self.running[slot].take()?;
        memory.release(slot, running.job.id, running.evaluated);
        self.free.push(slot);
        let made = running.job.tokens - running.admitted;
        self.waiting.end(running.place, made as u64);
        Some(running)
    }

    /// Gives rows to those that run.
    fn allot(&mut self, parts: &mut Vec<Part>) {
        for (slot, running) in self.running.iter().enumerate() {
            let Some(running) = running.as_ref().filter(|running| running.decodes()) else {
                continue;
            };
            parts.push(Part {
                id: running.job.id,
                slot,
                start: running.evaluated,
                len: 1,
                output: true,
            });
            self.waiting.spend(running.place.class, 1);
        }
        let decoding = parts.len();
        let mut left = self.limits.chunk;
        while left > 0
            && let Some((slot, running)) = self.next_prompt(&parts[decoding..])
        {
            let rest = running.job.tokens - running.evaluated;
            let len = rest.min(left);
            left -= len;
            parts.push(Part {
                id: running.job.id,
                slot,
                start: running.evaluated,
                len,
                output: len == rest,
            });
            self.waiting.spend(running.place.class, len);
        }
    }

    /// The prompt that gets rows next: of the class whose clock is behind, the oldest.
    fn next_prompt(&self, planned: &[Part]) -> Option<(usize, Running)> {
        let running = self.running.iter().enumerate();
        let prompts = running.filter_map(|(slot, running)| Some((slot, (*running)?)));
        let open = |(slot, running): &(usize, Running)| {
            !running.decodes() && planned.iter().all(|part| part.slot != *slot)
        };
        prompts.filter(open).min_by_key(|(_, running)| {
            let (clock, rank) = (self.waiting.clock(running.place.class), running.rank());
            (clock, Reverse(rank))
        })
    }

    /// Whether nothing is kept of any job.
    #[cfg(test)]
    pub fn is_clean(&self) -> bool {
        self.jobs.is_empty() && self.running() == 0 && self.waiting.is_clean()
    }
}
