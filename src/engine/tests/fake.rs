//! A model without floats: what it stores can be looked at, and its tokens tell what it has seen.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::super::scheduler::{Change, Job, Limits, Memory, Part, Scheduler};
use crate::error::{Code, Error, Result};

/// Tokens of a page.
const PAGE_TOKENS: usize = 64;

/// A job as its owner knows it.
#[derive(Debug, Clone)]
struct Owner {
    tokens: Vec<u64>,
    prompt: usize,
    made: usize,
}

/// Pages that count, and what they hold.
#[derive(Debug)]
struct Pages {
    left: usize,
    /// By slot.
    held: Vec<usize>,
    /// Tokens by slot.
    stored: Vec<Vec<u64>>,
    /// Whether what jobs leave behind is kept, where its pages do not count; some of it is found again.
    keeps: bool,
    behind: HashMap<u64, Vec<u64>>,
    found: usize,
}

impl Memory for Pages {
    fn enter(&mut self, slot: usize, id: u64) -> usize {
        assert!(self.stored[slot].is_empty() && self.held[slot] == 0);
        let mut tokens = self.behind.remove(&id).unwrap_or_default();
        // Sometimes all of it, and never more than there is room for.
        tokens.truncate(self.left * PAGE_TOKENS);
        tokens.truncate(tokens.len() - tokens.len() / 3 * (id % 3) as usize);
        let found = tokens.len();
        self.held[slot] = found.div_ceil(PAGE_TOKENS);
        self.left -= self.held[slot];
        self.stored[slot] = tokens;
        self.found += found;
        found
    }

    fn reserve(&mut self, slot: usize, tokens: Range<usize>) -> Result<()> {
        assert_eq!(tokens.start, self.stored[slot].len(), "the next one");
        let pages = tokens.end.div_ceil(PAGE_TOKENS);
        let more = pages.saturating_sub(self.held[slot]);
        if more > self.left {
            return Err(Error::new(Code::MemoryCap, "pages", "no more"));
        }
        self.left -= more;
        self.held[slot] += more;
        Ok(())
    }

    fn release(&mut self, slot: usize, id: u64, evaluated: usize) {
        self.left += std::mem::take(&mut self.held[slot]);
        let tokens = std::mem::take(&mut self.stored[slot]);
        assert_eq!(tokens.len(), evaluated);
        if self.keeps {
            self.behind.insert(id, tokens);
        }
    }
}

/// A scheduler, a model, and the owners of jobs.
#[derive(Debug)]
pub struct World {
    scheduler: Scheduler,
    limits: Limits,
    pages: Pages,
    cap: usize,
    alive: HashMap<u64, Owner>,
    asked: HashMap<u64, (usize, usize)>,
    /// What each made; `None` if it was refused.
    pub ended: HashMap<u64, Option<Vec<u64>>>,
    pub preempted: Vec<u64>,
    /// Rows of each job so far.
    pub rows: HashMap<u64, usize>,
    cancelled: HashSet<u64>,
    parts: Vec<Part>,
}

/// The token behind others.
fn next(tokens: &[u64]) -> u64 {
    let mix = |hash: u64, token: &u64| {
        (hash ^ token)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(23)
    };
    tokens.iter().fold(tokens.len() as u64, mix)
}

fn prompt(id: u64, len: usize) -> Vec<u64> {
    (0..len as u64).map(|i| next(&[id, i])).collect()
}

/// What a job makes alone.
pub fn alone(id: u64, len: usize, made: usize) -> Vec<u64> {
    let mut tokens = prompt(id, len);
    for _ in 0..made {
        tokens.push(next(&tokens));
    }
    tokens.split_off(len)
}

impl World {
    pub fn new(limits: Limits, pages: usize) -> Self {
        Self {
            scheduler: Scheduler::new(limits),
            limits,
            pages: Pages {
                left: pages,
                held: vec![0; limits.sequences],
                stored: vec![Vec::new(); limits.sequences],
                keeps: false,
                behind: HashMap::new(),
                found: 0,
            },
            cap: pages,
            alive: HashMap::new(),
            asked: HashMap::new(),
            ended: HashMap::new(),
            preempted: Vec::new(),
            rows: HashMap::new(),
            cancelled: HashSet::new(),
            parts: Vec::new(),
        }
    }

    /// The same, where jobs that come back find some of their tokens again.
    pub fn keeping(limits: Limits, pages: usize) -> Self {
        let mut world = Self::new(limits, pages);
        world.pages.keeps = true;
        world
    }

    /// Tokens that were found again.
    pub fn found(&self) -> usize {
        self.pages.found
    }

    pub fn submitted(&self) -> usize {
        self.asked.len()
    }

    pub fn asked(&self, id: u64) -> (usize, usize) {
        self.asked[&id]
    }

    pub fn scheduler(&mut self) -> &mut Scheduler {
        &mut self.scheduler
    }

    pub fn submit(&mut self, len: usize, made: usize, priority: i32, submitter: u64) -> u64 {
        let id = self.asked.len() as u64 + 1;
        self.asked.insert(id, (len, made));
        let owner = Owner {
            tokens: prompt(id, len),
            prompt: len,
            made,
        };
        self.alive.insert(id, owner);
        self.scheduler.submit(Job {
            id,
            priority,
            submitter,
            tokens: len,
            tokens_max: len + made,
        });
        id
    }

    pub fn cancel(&mut self, id: u64) {
        if let Some(owner) = self.alive.remove(&id) {
            self.cancelled.insert(id);
            self.end(id, Some(owner));
            self.scheduler.leave(id, &mut self.pages);
        }
    }

    /// Plans and evaluates a pass; whether there was one.
    pub fn pass(&mut self) -> bool {
        let mut parts = std::mem::take(&mut self.parts);
        self.scheduler.plan(&mut self.pages, &mut parts);
        let changes: Vec<Change> = self.scheduler.changes().collect();
        for change in changes {
            match change {
                Change::Admitted(id, _) => assert!(self.alive.contains_key(&id)),
                Change::Preempted(id, _) => self.preempted.push(id),
                Change::Refused(id, error) => {
                    assert_eq!(error.code(), Code::MemoryCap);
                    assert!(self.alive.remove(&id).is_some());
                    self.end(id, None);
                }
            }
        }
        self.check(&parts);
        for part in &parts {
            self.evaluate(part);
        }
        let any = !parts.is_empty();
        self.parts = parts;
        any
    }

    fn check(&self, parts: &[Part]) {
        let rows: usize = parts.iter().map(|part| part.len).sum();
        let next_tokens = parts.iter().filter(|part| part.len == 1 && part.output);
        assert!(rows <= next_tokens.count() + self.limits.chunk);
        let slots: HashSet<usize> = parts.iter().map(|part| part.slot).collect();
        assert_eq!(slots.len(), parts.len(), "a slot has one part");
        let held: usize = self.pages.held.iter().sum();
        assert_eq!(held + self.pages.left, self.cap);
    }

    fn evaluate(&mut self, part: &Part) {
        let owner = self.alive.get_mut(&part.id).expect("it is not over");
        let stored = &mut self.pages.stored[part.slot];
        assert_eq!(stored.len(), part.start, "rows follow each other");
        stored.extend(&owner.tokens[part.start..part.start + part.len]);
        assert!(stored.len().div_ceil(PAGE_TOKENS) <= self.pages.held[part.slot]);
        assert_eq!(part.output, stored.len() == owner.tokens.len());
        *self.rows.entry(part.id).or_default() += part.len;
        self.scheduler.evaluated(part);
        if !part.output {
            return;
        }
        // What the model has seen, not what the owner knows.
        owner.tokens.push(next(stored));
        self.scheduler.grow(part.slot);
        if owner.tokens.len() == owner.prompt + owner.made {
            let owner = self.alive.remove(&part.id);
            self.end(part.id, owner);
            self.scheduler.leave(part.id, &mut self.pages);
        }
    }

    fn end(&mut self, id: u64, owner: Option<Owner>) {
        let made = owner.map(|owner| owner.tokens[owner.prompt..].to_vec());
        assert!(self.ended.insert(id, made).is_none(), "{id} ends twice");
    }

    /// Runs until nothing is left, and looks at what everyone got; how often pages were given up.
    pub fn finish(&mut self) -> usize {
        let mut passes = 0;
        while self.pass() {
            passes += 1;
            assert!(passes < 100_000, "no progress");
        }
        assert!(self.alive.is_empty(), "{:?}", self.alive.keys());
        assert!(self.scheduler.is_clean());
        assert_eq!(self.pages.left, self.cap);
        for (id, made) in &self.ended {
            let (len, wanted) = self.asked[id];
            match made {
                Some(made) => {
                    let expected = alone(*id, len, wanted);
                    assert_eq!(made[..], expected[..made.len()]);
                    assert!(made.len() == wanted || self.cancelled.contains(id));
                }
                None => assert!((len + wanted).div_ceil(PAGE_TOKENS) > self.cap),
            }
        }
        self.preempted.len()
    }
}
