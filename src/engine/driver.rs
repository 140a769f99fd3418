//! The one who works: carries plans out pass by pass, and can pause wherever a pass can.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::metrics::Metrics;
use super::pages::{Known, Pages, Shelf};
use super::queue::QueueOptions;
use super::request::{Outcome, micros};
use super::scheduler::{Change, Limits, Part, Scheduler};
use super::sequence::{Sequence, outcome_of};
use super::shared::{Shared, Wanted};
use crate::control::{Flow, Signals};
use crate::error::{Code, Error, Result};
use crate::kv::{Domain, Layout};
use crate::model::forward::{Goal, Pass};
use crate::model::{Model, Row, Scratch, Size};
use crate::sampler::PickRoom;
use crate::session::{Action, Finish};
use crate::team::Team;

/// A model, a team, and the requests that run on them.
#[derive(Debug)]
pub struct Driver {
    pub model: Arc<Model>,
    pub team: Arc<Team>,
    shared: Arc<Shared>,
    context: usize,
    scheduler: Scheduler,
    pages: Pages,
    sequences: HashMap<u64, Sequence>,
    /// When requests expire.
    deadlines: BTreeSet<(Instant, u64)>,
    /// Over, but perhaps still in the plan that is carried out.
    leaving: Vec<Left>,
    plan: Plan,
    /// Not here while a pass has it.
    scratch: Option<Scratch>,
    room: PickRoom,
    /// Time spent in passes.
    evaluating: Duration,
    metrics: Metrics,
}

/// What is left of a request that is over: others may have its pages.
#[derive(Debug)]
struct Left {
    id: u64,
    tokens: Vec<u32>,
    domain: Option<Domain>,
}

/// Rows that are being evaluated. A pass takes all parts, or one at a time once all have failed
/// together: only those that fail alone are to blame.
#[derive(Debug, Default)]
struct Plan {
    parts: Vec<Part>,
    /// Parts that need nothing more.
    done: usize,
    alone: bool,
    pass: Option<Pass>,
    /// What of the pass is done: nothing, or its rows and the first parts' tokens.
    picked: Option<(usize, usize)>,
}

impl Plan {
    fn is_over(&self) -> bool {
        self.done == self.parts.len()
    }

    /// The parts of the pass in progress, or of the next one.
    fn current(&self) -> &[Part] {
        let end = match self.alone {
            true => self.done + 1,
            false => self.parts.len(),
        };
        &self.parts[self.done..end]
    }
}

impl Driver {
    pub fn new(
        model: Arc<Model>,
        team: Arc<Team>,
        options: &QueueOptions,
        shared: Arc<Shared>,
    ) -> Result<Self> {
        let network = model.network()?;
        let context = options.context_tokens(&network.spec)?;
        let limits = Limits {
            sequences: options.sequences(),
            chunk: options.chunk_tokens(),
        };
        let size = Size {
            rows: limits.sequences + limits.chunk,
            outputs: limits.sequences,
            context,
        };
        let budget = options.budget.as_ref().unwrap_or(model.budget());
        let scratch = || Scratch::new(&network.spec, size, model.budget());
        let scratch = model.prefixes().with_room(model.budget(), scratch)?;
        let pages = Pages::new(&model, options.kv, budget, limits.sequences)?;
        Ok(Self {
            shared,
            context,
            scheduler: Scheduler::new(limits),
            pages,
            sequences: HashMap::new(),
            deadlines: BTreeSet::new(),
            leaving: Vec::new(),
            plan: Plan::default(),
            scratch: Some(scratch),
            room: PickRoom::on(&model.budget().sibling(None)),
            evaluating: Duration::ZERO,
            metrics: Metrics {
                sequences_max: limits.sequences as u64,
                ..Metrics::default()
            },
            model,
            team,
        })
    }

    /// Whether no request is there.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Where everything lies in its pages.
    pub fn layout(&self) -> &Layout {
        self.pages.layout()
    }

    /// Bytes of keys, values and states.
    pub fn kv_bytes(&self) -> u64 {
        self.pages.bytes()
    }

    /// Requests that run.
    pub fn running(&self) -> usize {
        self.scheduler.running()
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.scheduler.waiting()
    }

    /// When the next request expires.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|deadline| deadline.0)
    }

    /// Hears what others want: new requests, cancels; and whose time is over.
    pub fn attend(&mut self, wanted: &mut Wanted) {
        for sequence in wanted.requests.drain(..) {
            self.enter(sequence);
        }
        while let Some(id) = wanted.cancels.pop_first() {
            self.end(id, &Outcome::Cancelled);
        }
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= Instant::now()
        {
            self.end(id, &Outcome::Expired);
        }
        if self.plan.is_over() {
            self.dismiss();
        }
    }

    /// Ends all requests.
    pub fn end_all(&mut self, outcome: &Outcome) {
        self.drop_pass();
        self.plan.done = self.plan.parts.len();
        let mut ids: Vec<u64> = self.sequences.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.end(id, outcome);
        }
        self.dismiss();
    }

    /// Whether rows are being evaluated.
    pub fn is_working(&self) -> bool {
        !self.plan.is_over()
    }

    /// While memory is short, fewer requests are admitted.
    pub fn heed_pressure(&mut self) {
        let sequences = self.metrics.allowed(self.model.pressure());
        self.scheduler.allow(sequences as usize);
    }

    /// Plans the next pass; whether there is anything to evaluate.
    pub fn plan(&mut self) -> bool {
        self.dismiss();
        self.plan.alone = false;
        self.plan.done = 0;
        let (pages, sequences) = (&mut self.pages, &self.sequences);
        let known = |id: u64| sequences.get(&id).map(Sequence::known);
        let mut shelf = Shelf { pages, known };
        self.scheduler.plan(&mut shelf, &mut self.plan.parts);
        let changes: Vec<Change> = self.scheduler.changes().collect();
        for change in changes {
            match change {
                Change::Admitted(id, found) => self.admitted(id, found),
                Change::Preempted(id, evaluated) => {
                    if let Some(sequence) = self.sequences.get_mut(&id) {
                        sequence.watch.give_up(evaluated);
                    }
                    self.metrics.preemptions += 1;
                }
                Change::Refused(id, error) => self.end(id, &Outcome::Failed(error)),
            }
        }
        !self.plan.is_over()
    }

    /// A request runs, for the first time or again, with so many tokens that need not be evaluated.
    fn admitted(&mut self, id: u64, found: usize) {
        let Some(sequence) = self.sequences.get_mut(&id) else {
            return;
        };
        if sequence.domain.is_some() {
            self.model.prefixes().count(found);
        }
        let run = sequence.watch.run(found);
        self.metrics.admitted(&run, &sequence.watch.timings);
    }

    /// Carries the plan out, until it is done or the deadline has passed.
    pub fn work(&mut self, signals: Signals<'_>) -> Flow {
        let began = Instant::now();
        let flow = self.carry_out(signals);
        self.metrics.busy_us += micros(began.elapsed());
        flow
    }

    /// Lets others see what has been done.
    pub fn publish(&mut self) {
        self.metrics.running = self.scheduler.running() as u64;
        self.metrics.pass_us = micros(self.evaluating);
        self.metrics.kv_bytes = self.kv_bytes();
        self.shared.publish(&self.metrics);
    }

    fn carry_out(&mut self, signals: Signals<'_>) -> Flow {
        while !self.plan.is_over() {
            let wanted = |part: &Part| self.sequences.contains_key(&part.id);
            if !self.plan.current().iter().any(wanted) {
                self.end_pass();
                continue;
            }
            if self.plan.picked.is_none() {
                match self.evaluate(signals) {
                    Ok(Flow::Done) => {
                        self.plan.picked = Some((0, 0));
                        if signals.due() {
                            return Flow::Paused;
                        }
                    }
                    Ok(Flow::Paused) => return Flow::Paused,
                    Err(error) => {
                        self.blame(error);
                        continue;
                    }
                }
            }
            while let Some((part, output)) = self.plan.picked
                && let Some(&next) = self.plan.current().get(part)
            {
                self.plan.picked = Some((part + 1, output + usize::from(next.output)));
                self.settle(&next, output);
                if signals.due() {
                    return Flow::Paused;
                }
            }
            self.end_pass();
        }
        Flow::Done
    }

    /// Runs the pass, which begins if there is none.
    fn evaluate(&mut self, signals: Signals<'_>) -> Result<Flow> {
        let pass = match self.plan.pass.take() {
            Some(pass) => pass,
            None => self.begin_pass()?,
        };
        let pass = self.plan.pass.insert(pass);
        let network = self.model.network()?;
        let began = Instant::now();
        let flow = pass.run(network, &self.team, self.pages.caches(), signals);
        self.evaluating += began.elapsed();
        flow
    }

    fn begin_pass(&mut self) -> Result<Pass> {
        self.model.gguf().check_unchanged()?;
        let missing = || Error::new(Code::Internal, "batch", "the scratch is gone");
        let scratch = self.scratch.take().ok_or_else(missing)?;
        let parts = self.plan.current();
        let rows = parts.iter().flat_map(|part| {
            // Who is over was asked for in vain; any tokens will do.
            let tokens = self.sequences.get(&part.id).map(Sequence::tokens);
            let (context, last) = (self.context, part.start + part.len - 1);
            (part.start..=last).map(move |position| Row {
                sequence: part.slot,
                position,
                context,
                token: tokens.map_or(0, |tokens| tokens[position]),
                segment: 0,
                wants_output: part.output && position == last,
            })
        });
        let network = self.model.network()?;
        let pass = Pass::new(network, scratch, rows, Goal::Logits, self.team.threads());
        self.metrics.pass(parts.len(), pass.rows().len());
        Ok(pass)
    }

    /// What the pass gives a part: it is evaluated, and perhaps there is a token.
    fn settle(&mut self, part: &Part, output: usize) {
        // Rows of one who was over when the pass began had any tokens.
        let Some(sequence) = self.sequences.get_mut(&part.id) else {
            return;
        };
        let is_prompt = self.scheduler.evaluated(part);
        let done = part.start + part.len;
        let seen = self.model.network().map(|it| it.spec.first_seen(done));
        if let Ok(first) = seen {
            // Before it goes, others may have it.
            if is_prompt && (part.output || first > 0) {
                self.pages.offer(part.slot, sequence.known(), done, false);
            }
            self.pages.forget(part.slot, first);
        }
        let shared = &self.shared;
        let mut action = sequence.tell_prefill(done, shared);
        if part.output
            && action == Action::Continue
            && let (Some(pass), Ok(network)) = (&self.plan.pass, self.model.network())
        {
            let logits = pass.logits(output, network.spec.vocab);
            match sequence.pick(&self.model, logits, &mut self.room) {
                Ok(Some(token)) => {
                    self.scheduler.grow(part.slot);
                    let gap = sequence.watch.token();
                    self.metrics.token(&sequence.watch.timings, gap);
                    action = sequence.tell_token(token, shared);
                }
                Ok(None) => return self.end(part.id, &Outcome::Finished(Finish::End)),
                Err(error) => return self.end(part.id, &outcome_of(error)),
            }
        }
        let ending = sequence.ending().map(Outcome::Finished);
        let outcome = match action {
            Action::Continue => ending,
            Action::Stop => Some(Outcome::Finished(Finish::Stopped)),
            Action::Cancel => Some(Outcome::Cancelled),
        };
        if let Some(outcome) = outcome {
            self.end(part.id, &outcome);
        }
    }

    /// A pass has failed: its only sequence, or one of them.
    fn blame(&mut self, error: Error) {
        let parts = self.plan.current();
        match parts {
            &[Part { id, .. }] => {
                self.end_pass();
                self.end(id, &Outcome::Failed(error));
            }
            _ => {
                self.drop_pass();
                self.plan.alone = true;
            }
        }
    }

    fn end_pass(&mut self) {
        self.plan.done += self.plan.current().len();
        self.drop_pass();
    }

    fn drop_pass(&mut self) {
        self.plan.picked = None;
        if let Some(pass) = self.plan.pass.take() {
            self.scratch = Some(pass.into_scratch());
        }
    }

    fn enter(&mut self, sequence: Sequence) {
        let (id, deadline) = (sequence.id, sequence.deadline);
        let ending = sequence.ending();
        self.scheduler.submit(sequence.job());
        self.deadlines
            .extend(deadline.map(|deadline| (deadline, id)));
        self.sequences.insert(id, sequence);
        if let Some(finish) = ending {
            self.end(id, &Outcome::Finished(finish));
        }
    }

    /// A request is over; one that is not there has been over before.
    fn end(&mut self, id: u64, outcome: &Outcome) {
        let Some(mut sequence) = self.sequences.remove(&id) else {
            return;
        };
        if let Some(deadline) = sequence.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        // First, so that who hears of the end finds it in the numbers.
        self.metrics.ended(outcome);
        self.publish();
        sequence.tell_end(outcome, &self.shared);
        // After a defect nobody knows what pages hold.
        let failed = matches!(outcome, Outcome::Failed(_));
        self.leaving.push(Left {
            id,
            domain: sequence.domain.filter(|_| !failed),
            tokens: sequence.into_tokens(),
        });
        self.shared.forget(id);
    }

    /// After a defect, of which nobody knows what it has done to pages: none are offered any more.
    pub fn distrust(&mut self) {
        for sequence in self.sequences.values_mut() {
            sequence.domain = None;
        }
        for left in &mut self.leaving {
            left.domain = None;
        }
    }

    /// Frees what requests that are over had.
    fn dismiss(&mut self) {
        for left in self.leaving.drain(..) {
            let known = |_: u64| {
                Some(Known {
                    tokens: &left.tokens,
                    domain: left.domain,
                })
            };
            let pages = &mut self.pages;
            let mut shelf = Shelf { pages, known };
            self.scheduler.leave(left.id, &mut shelf);
        }
    }
}
