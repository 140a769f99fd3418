//! One request in work: its tokens, what generates them, and who hears of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::pages::Known;
use super::request::{Event, Happened, Listener, Outcome, Request, Watch};
use super::scheduler::Job;
use super::shared::Shared;
use crate::control::cancelled;
use crate::error::{Code, Error, Result};
use crate::kv::{Domain, KvFormat};
use crate::model::Model;
use crate::sampler::PickRoom;
use crate::session::generation::{Finish, Generation, Said};
use crate::session::{Action, at_most};

/// A request in work.
#[derive(Debug)]
pub struct Sequence {
    pub id: u64,
    /// The prompt, and what was generated.
    tokens: Vec<u32>,
    context: usize,
    generation: Generation,
    said: Said,
    listener: Option<Listener>,
    pub watch: Watch,
    priority: i32,
    submitter: u64,
    pub deadline: Option<Instant>,
    /// With whom it shares what is evaluated.
    pub domain: Option<Domain>,
    /// Prompt tokens that were told to be evaluated.
    told: usize,
}

impl Sequence {
    /// Checks a request for a model, and what it may come to.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an empty prompt, a token that the model does not know, a priority or
    /// an option out of range; `CONTEXT_FULL`, `OUT_OF_MEMORY`.
    pub fn new(request: Request, model: &Model, (context, kv): (usize, KvFormat)) -> Result<Self> {
        let refuse = |place: &str, message: String| {
            Err(Error::new(Code::InvalidArgument, place.to_owned(), message))
        };
        let Request {
            tokens, generate, ..
        } = request;
        let vocab = model.network()?.spec.vocab;
        if tokens.is_empty() {
            return refuse(
                "request",
                "expected tokens to go on from, found none".into(),
            );
        }
        if let Some(i) = tokens.iter().position(|token| *token as usize >= vocab) {
            let message = format!("expected tokens below {vocab}, found {}", tokens[i]);
            return refuse(&format!("token {i}"), message);
        }
        if !super::PRIORITIES.contains(&request.priority) {
            let (low, high) = (super::PRIORITIES.start(), super::PRIORITIES.end());
            let found = request.priority;
            return refuse(
                "priority",
                format!("expected {low} to {high}, found {found}"),
            );
        }
        at_most("tokens", tokens.len(), context)
            .map_err(|e| Error::new(Code::ContextFull, "request", e.message()))?;
        let mut said = Said::new();
        let generation = Generation::new(&generate, model, &tokens, &mut said)?;
        let watch = Watch::new(tokens.len());
        let domain = model.domain(kv, context, request.salt);
        Ok(Self {
            id: 0,
            context,
            generation,
            said,
            listener: request.listener,
            priority: request.priority,
            submitter: request.submitter,
            deadline: request
                .deadline
                .and_then(|time| watch.submitted().checked_add(time)),
            watch,
            domain: domain.filter(|_| !request.unshared),
            told: 0,
            tokens,
        })
    }

    /// What the scheduler needs to know.
    pub fn job(&self) -> Job {
        Job {
            id: self.id,
            priority: self.priority,
            submitter: self.submitter,
            tokens: self.tokens.len(),
            tokens_max: self.tokens_max(),
        }
    }

    /// Tokens that it may come to.
    pub fn tokens_max(&self) -> usize {
        let most = self.tokens.len().saturating_add(self.generation.left());
        most.min(self.context)
    }

    /// All tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// What others may know of it.
    pub fn known(&self) -> Known<'_> {
        Known {
            tokens: &self.tokens,
            domain: self.domain,
        }
    }

    /// All tokens, when it is over.
    pub fn into_tokens(self) -> Vec<u32> {
        self.tokens
    }

    /// Whether events are polled.
    pub fn is_polled(&self) -> bool {
        self.listener.is_none()
    }

    /// Why no other token may come, if so.
    pub fn ending(&self) -> Option<Finish> {
        self.generation.ending(self.context - self.tokens.len())
    }

    /// Picks the next token by `logits`; `None`: the model ends here. A panic of a stage is an error
    /// of this request.
    pub fn pick(
        &mut self,
        model: &Model,
        logits: &[f32],
        room: &mut PickRoom,
    ) -> Result<Option<u32>> {
        let Self {
            generation,
            tokens,
            said,
            ..
        } = self;
        generation.sampler.swap_room(room);
        let pick = || generation.pick(model, logits, tokens, said);
        let picked = catch_unwind(AssertUnwindSafe(pick)).unwrap_or_else(|_| {
            let message = "a stage of the sampler panicked";
            Err(Error::new(Code::Internal, "sampler", message))
        });
        generation.sampler.swap_room(room);
        if picked.is_err() {
            *room = PickRoom::default();
        }
        picked
    }

    /// Tells that a token came.
    pub fn tell_token(&mut self, token: u32, shared: &Shared) -> Action {
        let position = self.tokens.len() - 1;
        self.tell(Happened::Token { token, position }, shared)
    }

    /// Tells that the first `done` tokens are evaluated, if they are of the prompt and this is new.
    pub fn tell_prefill(&mut self, done: usize, shared: &Shared) -> Action {
        let total = self.watch.timings.prompt_tokens as usize;
        let done = done.min(total);
        if done <= self.told {
            return Action::Continue;
        }
        self.told = done;
        self.said.text.clear();
        self.tell(Happened::Prefill { done, total }, shared)
    }

    /// Tells the end, and all text that was held back.
    pub fn tell_end(&mut self, outcome: &Outcome, shared: &Shared) {
        self.watch.end();
        self.generation.finish(&mut self.said);
        let timings = self.watch.timings;
        let happened = Happened::Ended {
            outcome,
            timings: &timings,
        };
        self.tell(happened, shared);
    }

    /// A listener that panics wants no more.
    fn tell(&mut self, happened: Happened<'_>, shared: &Shared) -> Action {
        let is_token = matches!(happened, Happened::Token { .. });
        let event = Event {
            request: self.id,
            happened,
            text: &self.said.text,
            log_probability: self.said.log_probability.filter(|_| is_token),
            top: if is_token { &self.said.top } else { &[] },
        };
        let Some(Listener(listener)) = &mut self.listener else {
            shared.keep(&event);
            return Action::Continue;
        };
        catch_unwind(AssertUnwindSafe(|| listener(&event))).unwrap_or(Action::Cancel)
    }
}

/// The end of a request whose pick failed: a stage of the host's own may cancel.
pub fn outcome_of(error: Error) -> Outcome {
    match error.code() == cancelled().code() {
        true => Outcome::Cancelled,
        false => Outcome::Failed(error),
    }
}
