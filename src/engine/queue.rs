//! The queue as its users see it: submit, cancel, poll, and two ways to let it work.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use super::driver::Driver;
use super::metrics::Metrics;
use super::request::{Outcome, Polled, Request};
use super::sequence::{Sequence, is_in_host};
use super::shared::{Shared, Wanted};
use crate::budget::Budget;
use crate::control::{Flow, Signals};
use crate::error::{Code, Error, Result};
use crate::kv::KvFormat;
use crate::model::{Model, Spec};
use crate::session::{CHUNK_TOKENS, at_most};
use crate::team::{FloatEnvironment, Team};
use crate::tokenizer::EncodeOptions;

/// The most sequences that may run at a time.
pub const SEQUENCES_MAX: usize = 1024;
/// The most requests that may be there at a time.
pub const REQUESTS_MAX: usize = 1 << 20;

/// Sequences that run at a time, if the user does not say.
const SEQUENCES: usize = 16;
/// Requests that may be there, if the user does not say.
const REQUESTS: usize = 1024;
/// How long the one who works may be deaf to cancels.
const DEAF: Duration = Duration::from_millis(4);
/// The longest window: a day.
const WINDOW_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What a queue is made with.
#[derive(Debug, Clone, Default)]
pub struct QueueOptions {
    /// Tokens that a request may come to with its prompt; 0: as many as the model can attend over,
    /// which is also the most.
    pub context: usize,
    /// How keys and values are stored.
    pub kv: KvFormat,
    /// Prompt tokens of a pass, beside the next token of each sequence; 0: [`CHUNK_TOKENS`].
    pub chunk: usize,
    /// Sequences that run at a time, at most [`SEQUENCES_MAX`]; 0: 16. Others wait.
    pub sequences: usize,
    /// Requests that are there at a time, running, waiting, or with an end that was not polled; at
    /// most [`REQUESTS_MAX`]; 0: 1024.
    pub requests: usize,
    /// Account of all pages; `None`: the model's.
    pub budget: Option<Budget>,
    /// How long the first request waits for company when nothing runs, at most a day. A step without
    /// a budget does not wait.
    pub window: Duration,
}

impl QueueOptions {
    pub(super) fn sequences(&self) -> usize {
        default(self.sequences, SEQUENCES)
    }

    pub(super) fn chunk_tokens(&self) -> usize {
        default(self.chunk, CHUNK_TOKENS)
    }

    pub(super) fn context_tokens(&self, spec: &Spec) -> Result<usize> {
        at_most("context", self.context, spec.context)?;
        Ok(default(self.context, spec.context))
    }
}

fn default(given: usize, otherwise: usize) -> usize {
    match given {
        0 => otherwise,
        given => given,
    }
}

/// How far a step came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do.
    Pending,
    /// No request is there any more.
    Idle,
}

/// What a poll came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    /// An event.
    Event,
    /// None came in time.
    Nothing,
    /// No request is left that one could come from.
    Over,
}

/// Why the one who works stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// The time is over.
    Due,
    /// There is nothing to do.
    Idle,
    /// The first request waits for company, until then.
    Gathering(Instant),
    Paused,
    Closed,
}

/// Requests on one model, evaluated together.
///
/// Any thread may use it at any time. Events are told on the thread that works, where submitting and
/// cancelling are allowed, and working is `BUSY`.
#[derive(Debug)]
pub struct Queue {
    model: Arc<Model>,
    shared: Arc<Shared>,
    work: Mutex<Worker>,
    context: usize,
    kv: KvFormat,
    page_tokens: usize,
    sequences: usize,
    window: Duration,
    /// The most pages that there can be.
    pages_max: u64,
}

#[derive(Debug)]
struct Worker {
    driver: Driver,
    wanted: Wanted,
    /// When the first request came while nothing ran.
    since: Option<Instant>,
}

impl Queue {
    /// A queue without requests. Nothing works before someone lets it.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for options out of range, `UNSUPPORTED` for an encoder, `MEMORY_CAP`,
    /// `OUT_OF_MEMORY`.
    pub fn new(model: Arc<Model>, team: Arc<Team>, options: &QueueOptions) -> Result<Self> {
        at_most("sequences", options.sequences, SEQUENCES_MAX)?;
        at_most("requests", options.requests, REQUESTS_MAX)?;
        if !model.network()?.spec.predicts {
            let message = "an encoder embeds texts and generates none";
            return Err(Error::new(Code::Unsupported, "model", message));
        }
        let context = options.context_tokens(&model.network()?.spec)?;
        at_most("chunk", options.chunk, model.network()?.spec.context)?;
        let shared = Arc::new(Shared::new(default(options.requests, REQUESTS)));
        let mut driver = Driver::new(model.clone(), team, options, shared.clone())?;
        driver.publish();
        let budget = options.budget.as_ref().unwrap_or(model.budget());
        // What recurrent layers keep is there from the start, for each sequence that may run.
        let room = budget
            .cap()
            .map(|cap| cap.saturating_sub(driver.kv_bytes()));
        Ok(Self {
            pages_max: room.unwrap_or(u64::MAX) / driver.layout().page_charge().max(1),
            page_tokens: driver.layout().page_tokens(),
            context,
            kv: options.kv,
            sequences: options.sequences(),
            window: options.window.min(WINDOW_MAX),
            shared,
            work: Mutex::new(Worker {
                driver,
                wanted: Wanted::default(),
                since: None,
            }),
            model,
        })
    }

    /// The model it runs on.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The tokens of a prompt.
    ///
    /// # Errors
    /// `CONTEXT_FULL` for a text of more than a request may come to; `UNSUPPORTED` without a
    /// tokenizer; `OUT_OF_MEMORY`.
    pub fn tokenize(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        let tokenizer = self.model.tokenizer()?;
        tokenizer.encode_with(text, options, self.context, Signals::default(), &mut tokens)?;
        Ok(tokens)
    }

    /// Takes a request; its number. It is told exactly one end.
    ///
    /// # Errors
    /// `BUSY` if as many are there as may be, or none are taken; `INVALID_ARGUMENT` for an empty
    /// prompt, a token that the model does not know, an option out of range; `CONTEXT_FULL` for a
    /// prompt of more than the context; `MEMORY_CAP` for one that does not fit the budget even
    /// alone; `OUT_OF_MEMORY`, `POISONED`.
    pub fn submit(&self, request: Request) -> Result<u64> {
        let sequence = Sequence::new(request, &self.model, (self.context, self.kv))?;
        let pages = sequence.tokens().len().div_ceil(self.page_tokens) as u64;
        if pages > self.pages_max {
            let most = self.pages_max;
            let message = format!("{pages} pages are needed, the cap allows {most}");
            return Err(Error::new(Code::MemoryCap, "memory", message));
        }
        self.shared.submit(sequence)
    }

    /// Ends a request: its last event comes soon.
    ///
    /// # Errors
    /// `NOT_FOUND` if it is over, or never was.
    pub fn cancel(&self, request: u64) -> Result<()> {
        self.shared.cancel(request)
    }

    /// Takes the next event of the requests without a listener, and waits for one until `until`
    /// (`None`: as long as there can be one); in an event it does not wait.
    pub fn poll(&self, until: Option<Instant>, event: &mut Polled) -> Poll {
        match self.shared.poll(patience(until)) {
            Ok(polled) => {
                *event = polled;
                Poll::Event
            }
            Err(rest) => rest,
        }
    }

    /// Works for about `budget`, or until no request is there; it may pause inside a token.
    ///
    /// # Errors
    /// `BUSY` if another thread works, or in an event; `POISONED`; `INTERNAL` for a defect of the
    /// library, which ends all requests.
    pub fn step(&self, budget: Option<Duration>) -> Result<Progress> {
        let mut worker = self.worker()?;
        self.shared.check_sound()?;
        let until = budget.and_then(|budget| Instant::now().checked_add(budget));
        let rest = self.guarded(&mut worker, until, budget.is_some())?;
        Ok(match rest {
            Rest::Idle | Rest::Closed => Progress::Idle,
            Rest::Due | Rest::Gathering(_) | Rest::Paused => Progress::Pending,
        })
    }

    /// Works until the queue is closed, and sleeps while there is nothing to do.
    ///
    /// # Errors
    /// As [`Queue::step`].
    pub fn serve(&self) -> Result<()> {
        let mut worker = self.worker()?;
        loop {
            self.shared.check_sound()?;
            let rest = self.guarded(&mut worker, None, true)?;
            let deadline = worker.driver.next_deadline();
            match rest {
                Rest::Closed => return Ok(()),
                Rest::Gathering(end) => {
                    let until = deadline.map_or(end, |deadline| deadline.min(end));
                    self.shared.wait_wanted(Some(until));
                }
                Rest::Idle | Rest::Paused => self.shared.wait_wanted(deadline),
                Rest::Due => {}
            }
        }
    }

    /// Lets work rest, from the next place where it can pause.
    pub fn pause(&self) {
        self.shared.pause();
    }

    /// Ends a pause or a drain.
    pub fn resume(&self) {
        self.shared.resume();
    }

    /// Takes no more requests, until it is resumed; those that are there go on. Waits until `until`
    /// for their end (`None`: as long as it takes; in an event not at all), and says whether all are
    /// over.
    pub fn drain(&self, until: Option<Instant>) -> bool {
        self.shared.drain();
        self.shared.wait_empty(patience(until))
    }

    /// Ends all requests, and the thread that serves; none is taken any more.
    pub fn close(&self) {
        self.shared.close();
    }

    /// What it has done so far, and what its model holds.
    pub fn metrics(&self) -> Metrics {
        self.shared.metrics().with_model(&self.model)
    }

    fn worker(&self) -> Result<MutexGuard<'_, Worker>> {
        match self.work.try_lock() {
            Ok(worker) => Ok(worker),
            Err(TryLockError::Poisoned(error)) => Ok(error.into_inner()),
            Err(TryLockError::WouldBlock) => {
                let message = "another thread works, or this is one of its events";
                Err(Error::new(Code::Busy, "queue", message))
            }
        }
    }

    /// A panic ends all requests and the queue, and nothing else.
    fn guarded(&self, worker: &mut Worker, until: Option<Instant>, gather: bool) -> Result<Rest> {
        let run = || self.run(worker, until, gather);
        catch_unwind(AssertUnwindSafe(run)).map_err(|_| {
            self.shared.poison();
            let defect = Error::new(Code::Internal, "queue", "a defect of the library");
            let end = || {
                worker.driver.distrust();
                self.shared.wanted(&mut worker.wanted);
                worker.driver.attend(&mut worker.wanted);
                worker.driver.end_all(&Outcome::Failed(defect.clone()));
            };
            // What is too broken even for that is dropped with the queue.
            let _ = catch_unwind(AssertUnwindSafe(end));
            defect
        })
    }

    /// Works until `until`, or until there is nothing to do. `gather`: the first request may wait
    /// for company.
    fn run(&self, worker: &mut Worker, until: Option<Instant>, gather: bool) -> Rest {
        let _environment = FloatEnvironment::enter();
        let team = worker.driver.team.clone();
        // Between the passes, helpers wait awake.
        let _call = team.call();
        let rest = self.rounds(worker, until, gather);
        worker.driver.publish();
        rest
    }

    fn rounds(&self, worker: &mut Worker, until: Option<Instant>, gather: bool) -> Rest {
        loop {
            let Worker {
                driver,
                wanted,
                since,
            } = &mut *worker;
            self.shared.wanted(wanted);
            driver.attend(wanted);
            driver.publish();
            if wanted.closing {
                driver.end_all(&Outcome::Cancelled);
                return Rest::Closed;
            }
            if wanted.paused {
                return Rest::Paused;
            }
            if !driver.is_working() {
                if gather && let Some(end) = self.gathering(driver, since) {
                    return Rest::Gathering(end);
                }
                driver.heed_pressure();
                if !driver.plan() {
                    // Those that were refused, if any, are gone.
                    match driver.waiting() {
                        0 => return Rest::Idle,
                        _ => continue,
                    }
                }
            }
            let deaf = Instant::now() + DEAF;
            let signals = Signals {
                deadline: Some(until.map_or(deaf, |until| until.min(deaf))),
                ..Signals::default()
            };
            let flow = driver.work(signals);
            if signals.due() && until.is_some_and(|until| Instant::now() >= until) {
                let over = flow == Flow::Done && driver.is_empty();
                return if over { Rest::Idle } else { Rest::Due };
            }
        }
    }

    /// Until when the first request waits for company.
    fn gathering(&self, driver: &Driver, since: &mut Option<Instant>) -> Option<Instant> {
        let waiting = driver.waiting();
        if self.window.is_zero() || driver.running() > 0 || waiting == 0 {
            *since = None;
            return None;
        }
        let end = *since.get_or_insert_with(Instant::now) + self.window;
        if waiting >= self.sequences || Instant::now() >= end {
            *since = None;
            return None;
        }
        Some(end)
    }
}

/// Until when this thread may wait for a queue.
fn patience(until: Option<Instant>) -> Option<Instant> {
    match is_in_host() {
        true => Some(Instant::now()),
        false => until,
    }
}

impl Drop for Queue {
    /// Every request is told its end.
    fn drop(&mut self) {
        self.shared.close();
        // Who works has a reference, so nobody does.
        if let Ok(mut worker) = self.worker() {
            let _ = self.guarded(&mut worker, None, false);
        }
    }
}
