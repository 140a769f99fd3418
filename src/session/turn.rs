//! Generating: one token after the other, pushed to a callback or pulled step by step.

use std::time::Instant;

use crate::control::{Control, Flow, Signals, cancelled};
use crate::error::{Code, Error, Result};
use crate::sampler::Scored;
use crate::session::generation::{Finish, GenerateOptions, Generation};
use crate::session::{Learnt, STEADY_TOKENS, Session, reserve};
use crate::team::FloatEnvironment;

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
        let model = self.model.clone();
        let mut generation = Generation::new(options, &model, &self.tokens, &mut self.said)?;
        let history = self.reserve_tokens(options)?;
        let sampler = &mut generation.sampler;
        // It comes and goes with the turn: no cap is held against it.
        sampler.charge(&model.budget().sibling(None));
        let vocab = model.network()?.spec.vocab;
        let room = || sampler.reserve(vocab, history);
        model.prefixes().with_room(model.budget(), room)?;
        if sampler.learns() {
            let mut latest = self.learnt.iter().rev();
            latest.find(|learnt| sampler.restore(learnt.state));
            reserve(&mut self.learnt, 1)?;
        }
        self.want_logits()?;
        self.turn_begins();
        self.generation = Some(generation);
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
        &self.said.text
    }

    /// The natural logarithm of the last token's probability, as the model gives it before any
    /// sampling; `None` if that was not asked for.
    pub fn log_probability(&self) -> Option<f64> {
        self.said.log_probability
    }

    /// The tokens that were most likely where the last one was picked, the most likely first.
    pub fn top_log_probabilities(&self) -> &[Scored] {
        &self.said.top
    }

    /// Works until there is something to say, or until the deadline of `control` has passed.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` without [`Session::begin`]; else as [`Session::prefill`].
    pub fn step(&mut self, control: &mut Control<'_>) -> Result<Step> {
        self.check_sound()?;
        let _environment = FloatEnvironment::enter();
        self.said.text.clear();
        let Some(generation) = &self.generation else {
            let message = "no generation is in progress; begin one first";
            return Err(Error::new(Code::InvalidArgument, "session", message));
        };
        let ending = generation.ending(self.context - self.tokens.len());
        self.heed_cancel(control.signals)?;
        if let Some(finish) = ending {
            return Ok(self.finish(finish));
        }
        if self.evaluated == self.tokens.len() {
            return self.pick();
        }
        let prompt = self.evaluated < self.prompt_end;
        if self.evaluate(control.signals)? == Flow::Paused {
            return Ok(Step::Pending);
        }
        if !prompt && self.evaluated == self.tokens.len() {
            // The choice is no task, and may take its time: it can wait for the next step.
            return match control.signals.due() {
                true => Ok(Step::Pending),
                false => self.pick(),
            };
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
            text: &self.said.text,
            log_probability: self.said.log_probability.filter(|_| is_token),
            top: if is_token { &self.said.top } else { &[] },
        }
    }

    /// Picks the next token from the logits, queues it, and decodes its text.
    fn pick(&mut self) -> Result<Step> {
        let began = Instant::now();
        let generation = self.generation.as_mut().expect("step has checked it");
        let logits = self.logits.as_deref();
        let logits = logits.expect("the last token was evaluated for its logits");
        let (tokens, said) = (&mut self.tokens, &mut self.said);
        let picked = generation.pick(&self.model, logits, tokens, said);
        let token = match picked {
            Ok(Some(token)) => token,
            Ok(None) => return Ok(self.finish(Finish::End)),
            Err(error) => {
                // A stage of the user's own may cancel.
                if error.code() == Code::Cancelled {
                    self.roll_back();
                }
                return Err(error);
            }
        };
        self.metrics.generated_tokens += 1;
        self.metrics.generate_us += began.elapsed().as_micros() as u64;
        Ok(Step::Token(token))
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
        self.said.text.clear();
        if let Some(generation) = &mut self.generation {
            generation.finish(&mut self.said);
        }
        self.learn();
        self.turn_ends();
        self.offer(false);
        Step::Finished(finish)
    }
}
