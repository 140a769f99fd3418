//! Who is next of those that wait: shares by priority, and in a priority by submitter.
//!
//! Each priority has a clock that runs with the rows it gets, half as fast as that of the next
//! lower one; the one whose clock is behind is next, so none starves (start-time fair queueing:
//! Goyal, Vin and Cheng, SIGCOMM 1996). In a priority, the submitter is next that was served least,
//! in tokens; what one submits stays in order. A job that comes in costs O(log n); a token O(1).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;

/// Priorities; each gets twice the share of the one below it.
pub const PRIORITIES: RangeInclusive<i32> = -4..=4;
/// Numbers of them: class 0 is the lowest.
const CLASSES: usize = 9;
/// Rows beyond its share that a class has to wait for at most.
const DEBT_ROWS: u64 = 1024;

/// A request as the scheduler sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// Its number; those that are there have different ones.
    pub id: u64,
    /// One of [`PRIORITIES`].
    pub priority: i32,
    /// Who shares a priority's rows with other submitters.
    pub submitter: u64,
    /// Tokens that are known: the prompt, and what was generated.
    pub tokens: usize,
    /// Tokens that it may come to.
    pub tokens_max: usize,
}

/// Where a job stands: its class, its submitter, and its place among the submitter's jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub class: usize,
    pub submitter: u64,
    /// Rises with each job.
    pub order: u64,
}

/// Jobs that wait, and the clocks of all.
#[derive(Debug, Default)]
pub struct Waiting {
    classes: [Class; CLASSES],
    len: usize,
}

#[derive(Debug, Default)]
struct Class {
    clock: u64,
    /// Jobs that wait or run.
    jobs: usize,
    /// What the submitter had been served that was taken last.
    floor: u64,
    /// Those with jobs that wait or run.
    flows: HashMap<u64, Flow>,
    /// Served tokens and submitter of those with jobs that wait.
    ready: BTreeSet<(u64, u64)>,
}

/// The jobs of a submitter in a class.
#[derive(Debug, Default)]
struct Flow {
    served: u64,
    running: usize,
    waiting: BTreeMap<u64, Job>,
}

/// The class of a priority.
pub fn class(priority: i32) -> usize {
    let above_lowest = priority.clamp(*PRIORITIES.start(), *PRIORITIES.end()) - PRIORITIES.start();
    above_lowest.unsigned_abs() as usize
}

/// How far rows move the clock of a class.
fn cost(class: usize, rows: u64) -> u64 {
    rows << (CLASSES - 1 - class)
}

impl Waiting {
    /// Jobs that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// A new job, behind those of its submitter that are there. `order` rises with each.
    pub fn arrive(&mut self, job: Job, order: u64) -> Place {
        let place = Place {
            class: class(job.priority),
            submitter: job.submitter,
            order,
        };
        self.wake(place.class);
        self.classes[place.class].jobs += 1;
        self.insert(place, job);
        place
    }

    /// A job that was running waits again, where it stood before.
    pub fn come_back(&mut self, place: Place, job: Job) {
        self.insert(place, job);
        // Only now: its submitter had something to do all the time.
        let flow = self.classes[place.class].flows.get_mut(&place.submitter);
        flow.expect("a running job has a flow").running -= 1;
    }

    /// The job that is next, and its class.
    pub fn next(&self) -> Option<(Place, Job)> {
        let waiting = |class: &&usize| !self.classes[**class].ready.is_empty();
        let classes: [usize; CLASSES] = std::array::from_fn(|i| CLASSES - 1 - i);
        // Of equals the first counts, the highest.
        let class = classes
            .iter()
            .filter(waiting)
            .min_by_key(|class| self.classes[**class].clock);
        let class = *class?;
        let &(_, submitter) = self.classes[class].ready.first()?;
        let jobs = &self.classes[class].flows[&submitter].waiting;
        let (&order, &job) = jobs.first_key_value()?;
        let place = Place {
            class,
            submitter,
            order,
        };
        Some((place, job))
    }

    /// The job of `place` begins to run. Its submitter is charged for the tokens that are known.
    pub fn take(&mut self, place: Place) -> Option<Job> {
        let job = self.extract(place)?;
        let class = &mut self.classes[place.class];
        let flow = class.flows.entry(place.submitter).or_default();
        class.floor = class.floor.max(flow.served);
        flow.running += 1;
        self.serve(place, job.tokens as u64);
        Some(job)
    }

    /// A job that was waiting goes.
    pub fn remove(&mut self, place: Place) -> Option<Job> {
        let job = self.extract(place)?;
        self.gone(place);
        Some(job)
    }

    /// A job that was running goes, for whose submitter `tokens` were made.
    pub fn end(&mut self, place: Place, tokens: u64) {
        self.serve(place, tokens);
        let flow = self.classes[place.class].flows.get_mut(&place.submitter);
        flow.expect("a running job has a flow").running -= 1;
        self.gone(place);
    }

    /// A class gets rows.
    pub fn spend(&mut self, class: usize, rows: usize) {
        let clock = &mut self.classes[class].clock;
        *clock = clock.saturating_add(cost(class, rows as u64));
    }

    /// The clock of a class: of two, the one that is behind is next.
    pub fn clock(&self, class: usize) -> u64 {
        self.classes[class].clock
    }

    /// A class without jobs is about to get one. It has saved nothing up meanwhile, and what it had
    /// beyond its share, when nobody else may have wanted it, is forgiven for the most part.
    fn wake(&mut self, class: usize) {
        if self.classes[class].jobs > 0 {
            return;
        }
        let busy = self.classes.iter().filter(|class| class.jobs > 0);
        let Some(least) = busy.map(|class| class.clock).min() else {
            self.classes.iter_mut().for_each(|class| class.clock = 0);
            return;
        };
        let most = least.saturating_add(cost(class, DEBT_ROWS));
        let clock = &mut self.classes[class].clock;
        *clock = (*clock).clamp(least, most);
    }

    fn insert(&mut self, place: Place, job: Job) {
        let class = &mut self.classes[place.class];
        let flow = class.flows.entry(place.submitter).or_default();
        if flow.waiting.is_empty() {
            // Nor has a submitter that had nothing to do.
            if flow.running == 0 {
                flow.served = flow.served.max(class.floor);
            }
            class.ready.insert((flow.served, place.submitter));
        }
        flow.waiting.insert(place.order, job);
        self.len += 1;
    }

    fn extract(&mut self, place: Place) -> Option<Job> {
        let class = &mut self.classes[place.class];
        let flow = class.flows.get_mut(&place.submitter)?;
        let job = flow.waiting.remove(&place.order)?;
        if flow.waiting.is_empty() {
            class.ready.remove(&(flow.served, place.submitter));
        }
        self.len -= 1;
        Some(job)
    }

    fn serve(&mut self, place: Place, tokens: u64) {
        let class = &mut self.classes[place.class];
        let Some(flow) = class.flows.get_mut(&place.submitter) else {
            return;
        };
        let before = (flow.served, place.submitter);
        flow.served = flow.served.saturating_add(tokens);
        if class.ready.remove(&before) {
            class.ready.insert((flow.served, place.submitter));
        }
    }

    /// One job fewer: what has none keeps nothing.
    fn gone(&mut self, place: Place) {
        let class = &mut self.classes[place.class];
        class.jobs -= 1;
        let flow = &class.flows[&place.submitter];
        if flow.running == 0 && flow.waiting.is_empty() {
            class.flows.remove(&place.submitter);
        }
    }

    /// Whether nothing is kept of any job.
    #[cfg(test)]
    pub fn is_clean(&self) -> bool {
        let clean =
            |class: &Class| class.jobs == 0 && class.flows.is_empty() && class.ready.is_empty();
        self.len == 0 && self.classes.iter().all(clean)
    }
}
