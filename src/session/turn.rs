//! Generating: one token after the other, pushed to a callback or pulled step by step.

use std::time::Instant;

use crate::control::{Control, Flow, Signals, cancelled};
use crate::error::{Code, Error, Result};
use crate::sampler::{Sampler, Scored, log_probability, top_log_probabilities};
use crate::session::stop::Stops;
use crate::session::{Learnt, STEADY_TOKENS, Session, at_most, reserve};
use crate::team::FloatEnvironment;
use crate::tokenizer::{Attribute, DecodeOptions, StreamDecoder};

/// How a turn's text is generated.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Picks the tokens: a copy does, and this one stays as it is. What mirostat or adaptive-p
    /// learns goes on from turn to turn of a session: the copy continues where the last turn ended
    /// whose sampler had the same last stage with the same parameters, and with what this one has
    /// learnt only if there was none. A turn that is cancelled or fails has taught nothing.
    pub sampler: Sampler,
    /// Tokens to generate at most; 0: until the end or until the context is full.
    pub tokens_max: usize,
    /// Go on after a token that ends generation.
    pub ignore_end: bool,
    /// Texts that end generation; they are not shown. The first to be complete counts.
    pub stops: Vec<String>,
    /// Give the log-probability of each token, see [`Session::log_probability`].
    pub log_probabilities: bool,
    /// Give this many of the most likely tokens beside each, see
    /// [`Session::top_log_probabilities`]; at most [`TOP_MAX`].
    pub top_log_probabilities: usize,
}

/// The most tokens that can be asked for beside each generated one.
pub const TOP_MAX: usize = 256;

impl GenerateOptions {
    /// Tokens of `sampler` until the model ends or the context is full.
    pub fn new(sampler: Sampler) -> Self {
        Self {
            sampler,
            tokens_max: 0,
            ignore_end: false,
            stops: Vec::new(),
            log_probabilities: false,
            top_log_probabilities: 0,
        }
    }
}

/// What the generation of a turn still needs.
#[derive(Debug, Clone)]
pub(super) struct Generation {
    sampler: Sampler,
    /// Tokens that may still come; `usize::MAX` means any number.
    left: usize,
    ignore_end: bool,
    stops: Stops,
    /// A stop string has come.
    stopped: bool,
    log_probabilities: bool,
    top: usize,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it.
    End,
    /// As many tokens as were asked for.
    Length,
    /// The context has no room for another token.
    ContextFull,
    /// A stop string came.
    StopString,
    /// The callback wanted no more.
    Stopped,
}

/// What one step of a generation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The deadline has passed; step again.
    Pending,
    /// More of the prompt is evaluated: tokens of it that are, and all.
    Prefill {
        /// Tokens evaluated so far, of all in the session.
        done: usize,
        /// All tokens in the session.
        total: usize,
    },
    /// A token; its text, if it completes any, is [`Session::text`].
    Token(u32),
    /// The generation has ended; [`Session::text`] is what was still held back.
    Finished(Finish),
}

/// What a callback sees: a step, and its text. The texts of all events joined are the whole text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event<'a> {
    /// What happened; never [`Step::Pending`].
    pub step: Step,
    /// Whole code points; may be empty.
    pub text: &'a str,
    /// See [`Session::log_probability`].
    pub log_probability: Option<f64>,
    /// See [`Session::top_log_probabilities`].
    pub top: &'a [Scored],
}

/// What a callback wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Go on.
    Continue,
    /// End here and keep everything.
    Stop,
    /// Take everything back to before the turn.
    Cancel,
}

impl Session {
    /// Begins to generate after the tokens that are there. Steps do the work.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if the session is empty or a stop string out of range, `BUSY` if a
    /// generation is in progress, `OUT_OF_MEMORY`.
    pub fn begin(&mut self, options: &GenerateOptions) -> Result<()> {
        self.check_idle()?;
        self.check_sound()?;
        self.heed_cancel(Signals::default())?;
        let stops = Stops::new(&options.stops)?;
        at_most(
            "top_log_probabilities",
            options.top_log_probabilities,
            TOP_MAX,
        )?;
        reserve(&mut self.top, options.top_log_probabilities)?;
        let mut sampler = options.sampler.clone();
        sampler.reserve(self.network()?.spec.vocab, self.reserve_tokens(options)?)?;
        if sampler.learns() {
            let mut latest = self.learnt.iter().rev();
            latest.find(|learnt| sampler.restore(learnt.state));
            reserve(&mut self.learnt, 1)?;
        }
        self.want_logits()?;
        self.turn_begins();
        self.generation = Some(Generation {
            sampler,
            left: if options.tokens_max == 0 {
                usize::MAX
            } else {
                options.tokens_max
            },
            ignore_end: options.ignore_end,
            stops,
            stopped: false,
            log_probabilities: options.log_probabilities,
            top: options.top_log_probabilities,
        });
        self.log_probability = None;
        self.top.clear();
        self.decoder = StreamDecoder::new(DecodeOptions {
            special: false,
            start: self.is_blank(),
        });
        self.text.clear();
        Ok(())
    }

    /// Makes room for the tokens to come, so that they allocate nothing but pages; how many there
    /// may be then.
    fn reserve_tokens(&mut self, options: &GenerateOptions) -> Result<usize> {
        let len = self.tokens.len();
        let most = match options.tokens_max {
            0 => self.context,
            more => self.context.min(len.saturating_add(more)),
        };
        let most = most.min(STEADY_TOKENS).max(len);
        reserve(&mut self.tokens, most - len)?;
        self.caches[0].reserve_table(most)?;
        Ok(most)
    }

    /// Text of the last step.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The natural logarithm of the last token's probability, as the model gives it before any
    /// sampling; `None` if that was not asked for.
    pub fn log_probability(&self) -> Option<f64> {
        self.log_probability
    }

    /// The tokens that were most likely where the last one was picked, the most likely first.
    pub fn top_log_probabilities(&self) -> &[Scored] {
        &self.top
    }

    /// Works until there is something to say, or until the deadline of `control` has passed.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` without [`Session::begin`]; else as [`Session::prefill`].
    pub fn step(&mut self, control: &mut Control<'_>) -> Result<Step> {
        self.check_sound()?;
        let _environment = FloatEnvironment::enter();
        self.text.clear();
        let Some(generation) = &self.generation else {
            let message = "no generation is in progress; begin one first";
            return Err(Error::new(Code::InvalidArgument, "session", message));
        };
        let (stopped, left) = (generation.stopped, generation.left);
        self.heed_cancel(control.signals)?;
        if stopped {
            return Ok(self.finish(Finish::StopString));
        }
        if left == 0 {
            return Ok(self.finish(Finish::Length));
        }
        if self.tokens.len() == self.context {
            return Ok(self.finish(Finish::ContextFull));
        }
        if self.evaluated == self.tokens.len() {
            return self.pick();
        }
        let prompt = self.evaluated < self.prompt_end;
        if self.evaluate(control.signals)? == Flow::Paused {
            return Ok(Step::Pending);
        }
        if !prompt {
            return self.pick();
        }
        let (done, total) = (self.evaluated, self.tokens.len());
        self.report(control, done, total)?;
        Ok(Step::Prefill { done, total })
    }

    /// Generates until the end, giving every event to `on_event` on this thread.
    ///
    /// # Errors
    /// `CANCELLED` when the callback or the canceller says so; else as [`Session::step`]. Other
    /// errors end the generation and keep its tokens and the turn: generate again, or rewind.
    pub fn generate(
        &mut self,
        options: &GenerateOptions,
        control: &mut Control<'_>,
        on_event: &mut dyn FnMut(&Event<'_>) -> Action,
    ) -> Result<Finish> {
        self.begin(options)?;
        // The last event comes after the turn has ended, and may still cancel it.
        let start = self.turn_start;
        let mut wanted = true;
        loop {
            let step = match wanted {
                true => self.step(control).inspect_err(|_| self.generation = None)?,
                false => self.finish(Finish::Stopped),
            };
            if step == Step::Pending {
                continue;
            }
            let action = on_event(&self.event(step));
            match (action, step) {
                (Action::Cancel, _) => {
                    self.turn_start = start;
                    self.roll_back();
                    return Err(cancelled());
                }
                (_, Step::Finished(finish)) => return Ok(finish),
                (Action::Stop, _) => wanted = false,
                (Action::Continue, _) => {}
            }
        }
    }

    /// The last step as an event.
    pub fn event(&self, step: Step) -> Event<'_> {
        let is_token = matches!(step, Step::Token(_));
        Event {
            step,
            text: &self.text,
            log_probability: self.log_probability.filter(|_| is_token),
            top: if is_token { &self.top } else { &[] },
        }
    }

    /// Picks the next token from the logits, queues it, and decodes its text.
    fn pick(&mut self) -> Result<Step> {
        let began = Instant::now();
        let generation = self.generation.as_mut().expect("step has checked it");
        let place = self.tokens.len() as u64;
        let logits = self.logits.as_deref();
        let logits = logits.expect("the last token was evaluated for its logits");
        let picked = generation.sampler.sample(logits, &self.tokens, place);
        let token = match picked {
            Ok(token) => token,
            Err(error) => {
                // A stage of the user's own may cancel.
                if error.code() == Code::Cancelled {
                    self.roll_back();
                }
                return Err(error);
            }
        };
        let tokenizer = self.model.tokenizer().ok();
        if !generation.ignore_end && tokenizer.is_some_and(|t| t.is_end(token)) {
            return Ok(self.finish(Finish::End));
        }
        reserve(&mut self.tokens, 1)?;
        if generation.log_probabilities {
            self.log_probability = Some(log_probability(logits, token)?);
        }
        if generation.top > 0 {
            top_log_probabilities(logits, generation.top, &mut self.top)?;
        }
        generation.left -= 1;
        self.tokens.push(token);
        self.metrics.generated_tokens += 1;
        if let Some(tokenizer) = tokenizer {
            self.decoder.push(tokenizer, token, &mut self.text)?;
            generation.stopped = generation.stops.push(&mut self.text);
        }
        self.metrics.generate_us += began.elapsed().as_micros() as u64;
        Ok(Step::Token(token))
    }

    /// Whether nothing but control tokens is there: what comes is the start of a text.
    fn is_blank(&self) -> bool {
        self.model.tokenizer().is_ok_and(|tokenizer| {
            let control = |token: &u32| tokenizer.attribute(*token) == Some(Attribute::Control);
            self.tokens.iter().all(control)
        })
    }

    /// Keeps what the sampler has learnt, unless the turn leaves no token.
    fn learn(&mut self) {
        let tokens = self.tokens.len();
        if let (Some(generation), Some(start)) = (&self.generation, self.turn_start)
            && generation.sampler.learns()
            && tokens > start
        {
            let state = generation.sampler.state();
            self.learnt.push(Learnt { tokens, state });
        }
    }

    /// Ends the generation and the turn; `text` is what was still held back.
    fn finish(&mut self, finish: Finish) -> Step {
        self.text.clear();
        if let Some(generation) = &mut self.generation
            && !generation.stopped
        {
            self.decoder.finish(&mut self.text);
            generation.stops.push(&mut self.text);
            generation.stops.finish(&mut self.text);
        }
        self.learn();
        self.turn_ends();
        Step::Finished(finish)
    }
}
