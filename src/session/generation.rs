//! How text comes of logits: what a generation was told, what it still needs, what it said last.
//!
//! A session's turn and a request of a batch both go through [`Generation`]: same logits, same
//! tokens, same text.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::model::Model;
use crate::sampler::{Sampler, SavedSampler, Scored, log_probability, top_log_probabilities};
use crate::session::stop::Stops;
use crate::session::{at_most, reserve};
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
    ///
    /// [`Session::log_probability`]: crate::session::Session::log_probability
    pub log_probabilities: bool,
    /// Give this many of the most likely tokens beside each, see
    /// [`Session::top_log_probabilities`]; at most [`TOP_MAX`].
    ///
    /// [`Session::top_log_probabilities`]: crate::session::Session::top_log_probabilities
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

/// What a generation still needs.
#[derive(Debug, Clone)]
pub(crate) struct Generation {
    pub(crate) sampler: Sampler,
    /// Tokens that may still come; `usize::MAX` means any number.
    left: usize,
    ignore_end: bool,
    stops: Stops,
    /// A stop string has come.
    stopped: bool,
    log_probabilities: bool,
    top: usize,
    decoder: StreamDecoder,
}

/// A [`Generation`] that can be written and read back.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedGeneration {
    sampler: SavedSampler,
    left: usize,
    ignore_end: bool,
    stops: Stops,
    stopped: bool,
    log_probabilities: bool,
    top: usize,
    decoder: StreamDecoder,
}

impl SavedGeneration {
    /// The generation, on the model that it was saved with.
    ///
    /// # Errors
    /// `FORMAT` for what no generation can have saved, `OUT_OF_MEMORY`.
    pub fn restore(self, model: &Model, said: &mut Said) -> Result<Generation> {
        if self.top > TOP_MAX || !self.decoder.is_sound() || !self.stops.is_sound() {
            let message = "what it holds back is more than there can be";
            return Err(Error::new(Code::Format, "saved generation", message));
        }
        reserve(&mut said.top, self.top)?;
        Ok(Generation {
            sampler: self.sampler.restore(model.tokenizer().ok())?,
            left: self.left,
            ignore_end: self.ignore_end,
            stops: self.stops,
            stopped: self.stopped,
            log_probabilities: self.log_probabilities,
            top: self.top,
            decoder: self.decoder,
        })
    }
}

/// What a generation said last.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    /// Whole code points that became certain.
    pub text: String,
    /// Of the last token, if it was asked for.
    pub log_probability: Option<f64>,
    /// Most likely tokens beside the last one, if they were asked for.
    pub top: Vec<Scored>,
}

impl Said {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            text: String::with_capacity(256),
            log_probability: None,
            top: Vec::new(),
        }
    }
}

impl Generation {
    /// Begins to generate behind `tokens`; `said` gets what is said then.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a stop string out of range or too many tokens beside each,
    /// `OUT_OF_MEMORY`.
    pub fn new(
        options: &GenerateOptions,
        model: &Model,
        tokens: &[u32],
        said: &mut Said,
    ) -> Result<Self> {
        let stops = Stops::new(&options.stops)?;
        let top = options.top_log_probabilities;
        at_most("top_log_probabilities", top, TOP_MAX)?;
        said.text.clear();
        said.log_probability = None;
        said.top.clear();
        reserve(&mut said.top, top)?;
        Ok(Self {
            sampler: options.sampler.clone(),
            left: match options.tokens_max {
                0 => usize::MAX,
                tokens => tokens,
            },
            ignore_end: options.ignore_end,
            stops,
            stopped: false,
            log_probabilities: options.log_probabilities,
            top,
            decoder: StreamDecoder::new(DecodeOptions {
                special: false,
                start: is_blank(model, tokens),
            }),
        })
    }

    /// What makes the same generation again.
    ///
    /// # Errors
    /// `UNSUPPORTED` if a stage of the sampler is one of the user's own.
    pub(super) fn saved(&self) -> Result<SavedGeneration> {
        Ok(SavedGeneration {
            sampler: self.sampler.saved()?,
            left: self.left,
            ignore_end: self.ignore_end,
            stops: self.stops.clone(),
            stopped: self.stopped,
            log_probabilities: self.log_probabilities,
            top: self.top,
            decoder: self.decoder.clone(),
        })
    }

    /// Tokens that may still come.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Why no other token may come, if so, where the context has room for `room` more.
    pub fn ending(&self, room: usize) -> Option<Finish> {
        if self.stopped {
            return Some(Finish::StopString);
        }
        if self.left == 0 {
            return Some(Finish::Length);
        }
        (room == 0).then_some(Finish::ContextFull)
    }

    /// Picks the token behind `tokens` by their `logits`, appends it and decodes its text; `None`:
    /// the model ends here.
    ///
    /// # Errors
    /// Those of the sampler, with nothing appended; `OUT_OF_MEMORY`.
    pub fn pick(
        &mut self,
        model: &Model,
        logits: &[f32],
        tokens: &mut Vec<u32>,
        said: &mut Said,
    ) -> Result<Option<u32>> {
        let token = self.sampler.sample(logits, tokens, tokens.len() as u64)?;
        let tokenizer = model.tokenizer().ok();
        if !self.ignore_end && tokenizer.is_some_and(|t| t.is_end(token)) {
            return Ok(None);
        }
        reserve(tokens, 1)?;
        if self.log_probabilities {
            said.log_probability = Some(log_probability(logits, token)?);
        }
        if self.top > 0 {
            top_log_probabilities(logits, self.top, &mut said.top)?;
        }
        self.left -= 1;
        tokens.push(token);
        said.text.clear();
        if let Some(tokenizer) = tokenizer {
            self.decoder.push(tokenizer, token, &mut said.text)?;
            self.stopped = self.stops.push(&mut said.text);
        }
        Ok(Some(token))
    }

    /// Says what was still held back: no token will come.
    pub fn finish(&mut self, said: &mut Said) {
        said.text.clear();
        if !self.stopped {
            self.decoder.finish(&mut said.text);
            self.stops.push(&mut said.text);
            self.stops.finish(&mut said.text);
        }
    }
}

/// Whether nothing but control tokens is there: what comes is the start of a text.
fn is_blank(model: &Model, tokens: &[u32]) -> bool {
    model.tokenizer().is_ok_and(|tokenizer| {
        let control = |token: &u32| tokenizer.attribute(*token) == Some(Attribute::Control);
        tokens.iter().all(control)
    })
}
