//! One timeline of tokens on a model: feed, generate, step, rewind, fork, shift.
//!
//! A session is a table of pages, its tokens, a sampler and a copy of its last logits; scratch and
//! threads belong to the model and the team. Any thread may use it, one at a time.
//!
//! A *turn* begins with the first tokens fed (or with `begin`) after the last one ended, and ends
//! when its generation finishes, or when its logits are taken by a caller who chooses tokens itself.
//! Cancelling takes the session back to before the turn.

mod branch;
mod embed;
mod evaluate;
mod file;
pub(crate) mod generation;
mod save;
mod stop;
mod turn;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::budget::{Budget, Shared, Tag};
use crate::chat::Chat;
use crate::control::Signals;
use crate::error::{Code, Error, Result};
use crate::kv::{Cache, Domain, KvFormat};
use crate::model::forward::Pass;
use crate::model::{CHAT_TEXT, ChatTemplate, Model, Network};
use crate::sampler::SamplerState;
use crate::team::Team;
use crate::tokenizer::EncodeOptions;

pub use embed::EmbedOptions;
pub use generation::{Finish, GenerateOptions, TOP_MAX};
pub use save::MAGIC;
pub use stop::{STOP_BYTES_MAX, STOPS_MAX};
pub use turn::{Action, Event, Step};

use generation::{Generation, Said};

/// Prompt tokens that one pass takes if the user does not say.
pub const CHUNK_TOKENS: usize = 256;

/// Tokens whose bookkeeping is allocated when a generation begins; behind them it grows with the
/// tokens.
const STEADY_TOKENS: usize = 1 << 20;

/// What a session is made with.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// Tokens it can hold; 0: as many as the model can attend over, which is also the most, or as
    /// before in a session that is restored.
    pub context: usize,
    /// How keys and values are stored; `None`: the default, or as before in a session that is restored,
    /// where anything else is refused.
    pub kv: Option<KvFormat>,
    /// Prompt tokens that one pass takes; 0: [`CHUNK_TOKENS`]. Does not change any result.
    pub chunk: usize,
    /// Account of its pages and logits; `None`: the model's.
    pub budget: Option<Budget>,
    /// Neither use what other sessions have evaluated, nor keep anything for them. Changes the time,
    /// not the result.
    pub unshared: bool,
    /// Share only with sessions of the same salt: how long a prompt takes tells whether another
    /// session has had its beginning, which not everyone may know.
    pub salt: u64,
}

impl SessionOptions {
    /// Prompt tokens of a pass.
    pub fn chunk_tokens(&self) -> usize {
        if self.chunk == 0 {
            CHUNK_TOKENS
        } else {
            self.chunk
        }
    }
}

/// What a session has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metrics {
    /// Tokens fed.
    pub prompt_tokens: u64,
    /// Time that took, in microseconds.
    pub prompt_us: u64,
    /// Tokens fed that had been evaluated before, by other sessions or this one.
    pub reused_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Time that took, in microseconds.
    pub generate_us: u64,
    /// Bytes of pages held, those shared with other sessions included.
    pub kv_bytes: u64,
}

/// Cancels what a session is doing, from any thread.
#[derive(Debug, Clone, Default)]
pub struct Canceller(Arc<Cancel>);

#[derive(Debug, Default)]
struct Cancel {
    /// A turn is open.
    active: AtomicBool,
    wanted: AtomicBool,
}

impl Canceller {
    /// Cancels the turn in progress; without one, does nothing.
    pub fn cancel(&self) {
        if self.0.active.load(Ordering::Relaxed) {
            self.0.wanted.store(true, Ordering::Relaxed);
        }
    }

    fn flag(&self) -> &AtomicBool {
        &self.0.wanted
    }

    fn turn_begins(&self) {
        if !self.0.active.swap(true, Ordering::Relaxed) {
            self.0.wanted.store(false, Ordering::Relaxed);
        }
    }

    fn turn_ends(&self) {
        self.0.active.store(false, Ordering::Relaxed);
        self.0.wanted.store(false, Ordering::Relaxed);
    }
}

/// The state of a turn's sampler at its end.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Learnt {
    /// Tokens there were then.
    tokens: usize,
    state: SamplerState,
}

/// One timeline of tokens.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    team: Arc<Team>,
    /// Account of its pages and logits.
    budget: Budget,
    context: usize,
    chunk: usize,
    /// The one sequence's pages.
    caches: [Cache; 1],
    /// With whom it shares what is evaluated.
    domain: Option<Domain>,
    /// Whether what is queued has been looked for in what others have evaluated.
    sought: bool,
    /// Whole pages that others can have.
    offered: usize,
    /// All tokens, evaluated or not.
    tokens: Vec<u32>,
    /// Tokens that the cache holds.
    evaluated: usize,
    /// Tokens that it has held: recurrent layers may have to go back further than was wanted.
    reached: usize,
    /// Tokens up to the last one that was fed: those behind it were generated.
    prompt_end: usize,
    /// (vocab), perhaps shared with forks; `None` in a fork of a session that had none.
    logits: Option<Shared<f32>>,
    /// Whether `logits` are those after the last evaluated token.
    has_logits: bool,
    /// The pass in progress, over the tokens from `evaluated` on.
    pass: Option<Pass>,
    /// Tokens there were when the turn began.
    turn_start: Option<usize>,
    generation: Option<Generation>,
    /// What the samplers of the turns so far have learnt; those that learn nothing are not there.
    learnt: Vec<Learnt>,
    /// Text and probabilities of the last event.
    said: Said,
    canceller: Canceller,
    metrics: Metrics,
    poisoned: bool,
}

impl Session {
    /// An empty session.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for options out of range, `MEMORY_CAP`, `OUT_OF_MEMORY`.
    pub fn new(model: Arc<Model>, team: Arc<Team>, options: &SessionOptions) -> Result<Self> {
        let network = model.network()?;
        let spec = &network.spec;
        let context = if options.context == 0 {
            spec.context
        } else {
            options.context
        };
        at_most("context", context, spec.context)?;
        let chunk = options.chunk_tokens().min(context);
        let budget = options.budget.as_ref().unwrap_or(model.budget());
        let kv = options.kv.unwrap_or_default();
        let layout = Arc::new(network.layout(kv));
        let domain = model.domain(kv, context, options.salt);
        let cache = || Cache::new(Arc::clone(&layout), budget.clone(), 0);
        Ok(Self {
            caches: [model.prefixes().with_room(budget, cache)?],
            domain: domain.filter(|_| !options.unshared),
            sought: false,
            offered: 0,
            logits: Some(
                model
                    .prefixes()
                    .with_room(budget, || budget.allocate_shared(Tag::Misc, spec.logits()))?,
            ),
            budget: budget.clone(),
            team,
            context,
            chunk,
            tokens: Vec::new(),
            evaluated: 0,
            reached: 0,
            prompt_end: 0,
            has_logits: false,
            pass: None,
            turn_start: None,
            generation: None,
            learnt: Vec::new(),
            said: Said::new(),
            canceller: Canceller::default(),
            metrics: Metrics::default(),
            poisoned: false,
            model,
        })
    }

    /// The model it runs on.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// All tokens so far, fed and generated.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens it can hold.
    pub fn context(&self) -> usize {
        self.context
    }

    /// What it has done so far.
    pub fn metrics(&self) -> Metrics {
        Metrics {
            kv_bytes: self.caches[0].bytes(),
            ..self.metrics
        }
    }

    /// Cancels this session's work from other threads.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Queues tokens behind those that are there; the next call that needs them evaluates them.
    ///
    /// # Errors
    /// `UNSUPPORTED` for an encoder, `INVALID_ARGUMENT` for a token that the model does not know,
    /// `CONTEXT_FULL` if they do not fit, `BUSY` while a generation is in progress, `CANCELLED` if the
    /// turn was cancelled since the last call. Nothing is queued then.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<()> {
        self.check_sound()?;
        self.check_predicts()?;
        self.check_idle()?;
        self.heed_cancel(Signals::default())?;
        self.check_tokens(tokens)?;
        let room = self.context - self.tokens.len();
        if tokens.len() > room {
            let message = format!("{} more tokens do not fit, {room} would", tokens.len());
            return Err(Error::new(Code::ContextFull, "context", message));
        }
        reserve(&mut self.tokens, tokens.len())?;
        self.turn_begins();
        self.tokens.extend_from_slice(tokens);
        self.sought = false;
        self.prompt_end = self.tokens.len();
        self.metrics.prompt_tokens += tokens.len() as u64;
        Ok(())
    }

    /// Renders a chat, tokenizes the prompt and queues it; returns how many tokens it is. A prompt is
    /// the whole chat: the session should be new, or rewound to its begin.
    ///
    /// # Errors
    /// As [`Session::feed_text`] and [`Model::chat_text`].
    pub fn feed_chat(&mut self, chat: &Chat, template: ChatTemplate<'_>) -> Result<usize> {
        self.check_sound()?;
        let prompt = self.model.chat_text(chat, template)?;
        self.feed_text(&prompt, CHAT_TEXT)
    }

    /// Tokenizes text and queues it; returns how many tokens it is.
    ///
    /// # Errors
    /// As [`Session::feed`]; `CANCELLED` takes the session back to before the turn.
    pub fn feed_text(&mut self, text: &str, options: EncodeOptions) -> Result<usize> {
        self.check_sound()?;
        self.check_predicts()?;
        self.check_idle()?;
        let room = self.context - self.tokens.len();
        let outside_turn = self.turn_start.is_none();
        // A long text can be cancelled, so the turn begins before it is one.
        self.turn_begins();
        let canceller = self.canceller.clone();
        let signals = Signals {
            cancel: [None, Some(canceller.flag())],
            ..Signals::default()
        };
        let mut tokens = Vec::new();
        let encoded = match self.model.tokenizer() {
            Ok(tokenizer) => tokenizer.encode_with(text, options, room, signals, &mut tokens),
            Err(error) => Err(error),
        };
        match encoded.and_then(|()| self.feed(&tokens)) {
            Ok(()) => Ok(tokens.len()),
            Err(error) => {
                match error.code() {
                    Code::Cancelled => self.roll_back(),
                    _ if outside_turn => self.turn_ends(),
                    _ => {}
                }
                Err(error)
            }
        }
    }

    /// Keeps the first `tokens` tokens and drops the rest; ends the turn. What samplers have learnt
    /// goes back to the end of the last turn that is kept as a whole. Where all layers have windows,
    /// a rewind behind what they see means that all tokens are evaluated again.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if there are not as many.
    pub fn rewind(&mut self, tokens: usize) -> Result<()> {
        self.check_sound()?;
        at_most("tokens", tokens, self.tokens.len())?;
        self.keep(tokens);
        Ok(())
    }

    /// Declares the session unusable, after a panic in one of its calls.
    pub fn poison(&mut self) {
        self.poisoned = true;
    }

    /// Keeps the first `tokens` tokens and ends the turn.
    fn keep(&mut self, tokens: usize) {
        self.drop_pass();
        if tokens < self.tokens.len() {
            self.has_logits = false;
        }
        self.tokens.truncate(tokens);
        self.reached = self.reached.min(tokens);
        self.prompt_end = self.prompt_end.min(tokens);
        self.keep_evaluated(self.evaluated.min(tokens));
        self.learnt.retain(|learnt| learnt.tokens <= tokens);
        self.turn_ends();
    }

    /// Keeps what the cache holds of the first `tokens` tokens. If what those behind them see is
    /// forgotten, that is nothing, and all are evaluated again.
    fn keep_evaluated(&mut self, tokens: usize) {
        self.go_back(tokens);
        if self.first_seen() < self.caches[0].forgotten() {
            self.evaluated = 0;
            self.prompt_end = self.tokens.len();
        }
        self.caches[0].truncate(self.evaluated);
        let page_tokens = self.caches[0].layout().page_tokens();
        self.offered = self.offered.min(self.evaluated / page_tokens);
        self.sought = false;
    }

    /// What lies behind the first `tokens` tokens is to be evaluated again, or behind fewer, where
    /// recurrent layers have kept no state after these.
    fn go_back(&mut self, tokens: usize) {
        self.evaluated = self.caches[0].state().reach(tokens);
        if self.evaluated < tokens {
            self.prompt_end = self.tokens.len();
        }
    }

    /// The first position whose keys a token to come sees, or the last one if it is evaluated again.
    fn first_seen(&self) -> usize {
        let last = self.evaluated.saturating_sub(1);
        self.network()
            .map_or(0, |network| network.spec.first_seen(last))
    }

    /// Back to before the turn.
    fn roll_back(&mut self) {
        self.keep(self.turn_start.unwrap_or(self.tokens.len()));
    }

    fn network(&self) -> Result<&Network> {
        self.model.network()
    }

    fn check_sound(&self) -> Result<()> {
        match self.poisoned {
            false => Ok(()),
            true => Err(Error::new(
                Code::Poisoned,
                "session",
                "a defect of the library stopped an earlier call; free the session",
            )),
        }
    }

    /// Whether the model predicts tokens.
    fn check_predicts(&self) -> Result<()> {
        if self.network()?.spec.predicts {
            return Ok(());
        }
        let name = self.model.architecture();
        let message = format!("{name} is an encoder: it embeds texts and generates none");
        Err(Error::new(Code::Unsupported, "model", message))
    }

    /// Whether the model knows all tokens.
    fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let vocab = self.network()?.spec.vocab;
        let unknown = |(_, token): &(usize, &u32)| **token as usize >= vocab;
        let Some((i, token)) = tokens.iter().enumerate().find(unknown) else {
            return Ok(());
        };
        let message = format!("expected tokens below {vocab}, found {token}");
        Err(Error::new(
            Code::InvalidArgument,
            format!("token {i}"),
            message,
        ))
    }

    fn check_idle(&self) -> Result<()> {
        if self.generation.is_none() {
            return Ok(());
        }
        let message = "a generation is in progress; step it to its end, rewind or cancel";
        Err(Error::new(Code::Busy, "session", message))
    }

    fn turn_begins(&mut self) {
        if self.turn_start.is_none() {
            self.turn_start = Some(self.tokens.len());
            self.caches[0].state_mut().keep(self.evaluated);
        }
        self.canceller.turn_begins();
    }

    fn turn_ends(&mut self) {
        self.turn_start = None;
        self.generation = None;
        self.canceller.turn_ends();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.drop_pass();
        if !self.poisoned {
            self.offer(true);
        }
    }
}

/// Refuses numbers above `max`.
pub(crate) fn at_most(name: &str, found: usize, max: usize) -> Result<()> {
    if found <= max {
        return Ok(());
    }
    let message = format!("expected at most {max}, found {found}");
    Err(Error::new(Code::InvalidArgument, name, message))
}

fn reserve<T>(list: &mut Vec<T>, more: usize) -> Result<()> {
    list.try_reserve(more).map_err(|_| {
        let message = format!("no memory for {more} more tokens");
        Error::new(Code::OutOfMemory, "session", message)
    })
}
