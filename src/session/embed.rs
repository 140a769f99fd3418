//! Embeddings of texts and scores of pairs: passes of their own, beside the session's timeline.

use crate::control::{Control, Flow, Signals, cancelled};
use crate::error::{Code, Error, Result};
use crate::kv::Cache;
use crate::model::embedding::{Pool, no_head, normalise};
use crate::model::forward::{Goal, Pass};
use crate::model::spec::Pooling;
use crate::model::{Row, Size};
use crate::session::{Session, reserve};
use crate::team::FloatEnvironment;
use crate::tokenizer::EncodeOptions;

/// How a text is embedded. The default: as the model's file says, of length 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EmbedOptions {
    /// How the rows of its tokens become one; `None`: as the file says, or the mean if it does not,
    /// for models that predict tokens the last.
    pub pooling: Option<Pooling>,
    /// Leave embeddings as long as they are.
    pub raw: bool,
}

/// The key of what a pair of texts is put into for models that rank.
const PAIR_TEMPLATE: &str = "tokenizer.chat_template.rerank";

/// A text as tokens, and where its second part begins, if it has one.
#[derive(Clone, Copy)]
struct Input<'a> {
    tokens: &'a [u32],
    second: usize,
}

/// What a call looks at while it works.
struct Call<'a, 'c> {
    control: &'a mut Control<'c>,
    /// The caller's and the session's.
    signals: Signals<'a>,
}

impl Session {
    /// The embedding of a text that is `tokens`: (rows, width), a row unless the pooling is none,
    /// then a row for each token, as the last layer leaves it.
    ///
    /// It is computed from the text alone, and leaves the session as it was. An encoder takes it in
    /// one pass, so the scratch grows with it. The deadline of `control` is not used.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for no tokens or one that the model does not know, `CONTEXT_FULL` for more
    /// than the session's context, `UNSUPPORTED` if the file says that the model ranks and the
    /// options do not say otherwise, `CANCELLED`, `NONFINITE`, `MEMORY_CAP`, `OUT_OF_MEMORY`,
    /// `FILE_CHANGED`.
    pub fn embed(
        &mut self,
        tokens: &[u32],
        options: &EmbedOptions,
        control: &mut Control<'_>,
    ) -> Result<Vec<f32>> {
        let pooling = self.pooling(options)?;
        self.cancellable(control, |session, call| {
            let second = tokens.len();
            let input = Input { tokens, second };
            let mut made = match pooling {
                Pooling::None => session.rows(input, call)?,
                _ => {
                    let row = session.pooled(input, pooling, call)?;
                    let network = session.model.network()?;
                    network.embedding(row, &session.team, call.signals)?
                }
            };
            if !options.raw {
                let width = made.len() / session.embedding_rows(tokens.len(), options)?;
                made.chunks_exact_mut(width).for_each(normalise);
            }
            Ok(made)
        })
    }

    /// Tokenizes a text for [`Session::embed`].
    ///
    /// # Errors
    /// `CONTEXT_FULL` if it is too long, `UNSUPPORTED` without a tokenizer.
    pub fn tokenize(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        let tokenizer = self.model.tokenizer()?;
        tokenizer.encode_with(text, options, self.context, Signals::default(), &mut tokens)?;
        Ok(tokens)
    }

    /// Numbers that [`Session::embed`] gives for so many tokens.
    ///
    /// # Errors
    /// `UNSUPPORTED` as it.
    pub fn embedding_len(&self, tokens: usize, options: &EmbedOptions) -> Result<usize> {
        let spec = &self.network()?.spec;
        Ok(match self.pooling(options)? {
            Pooling::None => tokens.saturating_mul(spec.dim),
            _ => spec.embedding_width(),
        })
    }

    /// The scores that the model's head gives a text that is `tokens`, of which those from `second`
    /// on are of its second part, if the model tells parts apart. A model that ranks gives one: how
    /// well the second part, a document, answers the first, a question. Else as [`Session::embed`].
    ///
    /// # Errors
    /// As [`Session::embed`]; `UNSUPPORTED` for a model without such a head.
    pub fn rank(
        &mut self,
        tokens: &[u32],
        second: usize,
        control: &mut Control<'_>,
    ) -> Result<Vec<f32>> {
        let head = self.network()?.spec.head.ok_or_else(no_head)?;
        self.cancellable(control, |session, call| {
            let input = Input { tokens, second };
            let row = session.pooled(input, head.pooling, call)?;
            let network = session.model.network()?;
            network.scores(row, &session.team, call.signals)
        })
    }

    /// Scores that [`Session::rank`] gives.
    ///
    /// # Errors
    /// `UNSUPPORTED` for a model without a head.
    pub fn scores(&self) -> Result<usize> {
        let head = self.network()?.spec.head.ok_or_else(no_head)?;
        Ok(head.scores())
    }

    /// Tokenizes a question and a document for [`Session::rank`], by the template of the model's file
    /// if it has one for pairs.
    ///
    /// # Errors
    /// As [`Session::rank`]; `UNSUPPORTED` without a tokenizer, and for a decoder without such a
    /// template.
    pub fn rerank(&mut self, pair: [&str; 2], control: &mut Control<'_>) -> Result<Vec<f32>> {
        let mut tokens = Vec::new();
        let (signals, tokenizer) = (control.signals, self.model.tokenizer()?);
        let head = self.network()?.spec.head.ok_or_else(no_head)?;
        let second = match self.model.gguf().metadata().str(PAIR_TEMPLATE)? {
            Some(template) => {
                let texts = (template, pair);
                tokenizer.encode_template(texts, self.context, signals, &mut tokens)?;
                tokens.len()
            }
            None if head.odds => {
                let message = "expected a text that asks a decoder for yes or no, found none";
                return Err(Error::new(Code::Unsupported, PAIR_TEMPLATE, message));
            }
            None => tokenizer.encode_pair(pair, self.context, signals, &mut tokens)?,
        };
        self.rank(&tokens, second, control)
    }

    /// Rows that [`Session::embed`] gives for so many tokens.
    ///
    /// # Errors
    /// `UNSUPPORTED` as it.
    pub fn embedding_rows(&self, tokens: usize, options: &EmbedOptions) -> Result<usize> {
        Ok(match self.pooling(options)? {
            Pooling::None => tokens,
            _ => 1,
        })
    }

    fn pooling(&self, options: &EmbedOptions) -> Result<Pooling> {
        let spec = &self.network()?.spec;
        match options.pooling.unwrap_or(spec.pooling) {
            Pooling::Rank => {
                let message = "its file says that it ranks pairs of texts: rerank, or say how its \
                               rows become an embedding";
                Err(Error::new(Code::Unsupported, "model", message))
            }
            pooling => Ok(pooling),
        }
    }

    /// Runs `body` so that the session's canceller stops it.
    fn cancellable<T>(
        &mut self,
        control: &mut Control<'_>,
        body: impl FnOnce(&Self, &mut Call<'_, '_>) -> Result<T>,
    ) -> Result<T> {
        self.check_sound()?;
        let _environment = FloatEnvironment::enter();
        let canceller = self.canceller.clone();
        canceller.turn_begins();
        let signals = Signals {
            deadline: None,
            cancel: [control.signals.cancel[0], Some(canceller.flag())],
        };
        let result = body(self, &mut Call { control, signals });
        if self.turn_start.is_none() {
            canceller.turn_ends();
        }
        result
    }

    /// The row that those of a text become: (dim).
    fn pooled(
        &self,
        input: Input<'_>,
        pooling: Pooling,
        call: &mut Call<'_, '_>,
    ) -> Result<Vec<f32>> {
        let last = input.tokens.len().saturating_sub(1);
        let wanted = |position: usize| match pooling {
            Pooling::First => position == 0,
            Pooling::Last => position == last,
            _ => true,
        };
        let mut pool = Pool::new(pooling, self.network()?.spec.dim)?;
        self.evaluate_apart(input, &wanted, call, &mut |row| pool.push(row))?;
        pool.finish()
    }

    /// The rows of a text: (tokens, dim).
    fn rows(&self, input: Input<'_>, call: &mut Call<'_, '_>) -> Result<Vec<f32>> {
        let mut rows = Vec::new();
        let dim = self.network()?.spec.dim;
        reserve(&mut rows, input.tokens.len().saturating_mul(dim))?;
        self.evaluate_apart(input, &|_| true, call, &mut |row| rows.extend(row))?;
        Ok(rows)
    }

    /// Evaluates a text in pages of its own, and gives the rows of positions that are `wanted`.
    fn evaluate_apart(
        &self,
        input: Input<'_>,
        wanted: &dyn Fn(usize) -> bool,
        call: &mut Call<'_, '_>,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<()> {
        let Input { tokens, second } = input;
        self.check_embeds(tokens)?;
        self.model.gguf().check_unchanged()?;
        let network = self.model.network()?;
        let spec = &network.spec;
        let segments = spec.embedding.segments.saturating_sub(1);
        let chunk = match spec.is_causal() {
            true => self.chunk,
            false => tokens.len(),
        };
        let mut caches = [self.caches[0].fork(0)?];
        for start in (0..tokens.len()).step_by(chunk) {
            let end = tokens.len().min(start + chunk);
            let prefixes = self.model.prefixes();
            prefixes.reserve(&mut caches[0], start..end)?;
            let rows = (start..end).map(|position| Row {
                sequence: 0,
                position,
                context: self.context,
                token: tokens[position],
                segment: segments.min(usize::from(position >= second)),
                wants_output: wanted(position),
            });
            let size = Size {
                rows: end - start,
                outputs: 0,
                context: self.context,
            };
            let budget = self.model.budget();
            let take = || network.scratch.take(spec, size, budget);
            let scratch = prefixes.with_room(budget, take)?;
            let mut pass = Pass::new(network, scratch, rows, Goal::Rows, self.team.threads());
            let outcome = self.run_whole(&mut pass, &mut caches, call.signals);
            if outcome.is_ok() {
                let outputs = pass.rows().iter().filter(|row| row.wants_output).count();
                (0..outputs).for_each(|i| each(pass.row(i, spec.dim)));
            }
            network.scratch.give(pass.into_scratch());
            outcome?;
            caches[0].forget(spec.first_seen(end));
            call.control.report(end as u64, tokens.len() as u64)?;
        }
        Ok(())
    }

    /// Runs a pass to its end.
    fn run_whole(&self, pass: &mut Pass, caches: &mut [Cache], signals: Signals<'_>) -> Result<()> {
        let network = self.model.network()?;
        loop {
            if signals.cancelled() {
                return Err(cancelled());
            }
            if pass.run(network, &self.team, caches, signals)? == Flow::Done {
                return Ok(());
            }
        }
    }

    /// Whether a text can be embedded: as [`Session::embed`] would say before it begins.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `CONTEXT_FULL`.
    pub fn check_embeds(&self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            let message = "expected at least one token, found none";
            return Err(Error::new(Code::InvalidArgument, "text", message));
        }
        if tokens.len() > self.context {
            let (found, most) = (tokens.len(), self.context);
            let message = format!("expected at most {most} tokens, the context, found {found}");
            return Err(Error::new(Code::ContextFull, "text", message));
        }
        self.check_tokens(tokens)
    }
}
