//! Sequences that decode together, in a queue.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use lightgpt::engine::{
    Event, Happened, Listener, Outcome, Progress, Queue, QueueOptions, Request,
};
use lightgpt::error::{Error, Result};
use lightgpt::model::Model;
use lightgpt::sampler::{Sampler, SamplerOptions};
use lightgpt::session::{Action, GenerateOptions};
use lightgpt::team::Team;

use super::{Arguments, Measurement};

/// Prompt tokens of each sequence.
pub const DEPTH: usize = 16;

/// A queue, and what it is asked for.
pub struct Batch {
    queue: Queue,
    sequences: usize,
    steps: usize,
    vocab: usize,
}

/// What the sequences have come to.
#[derive(Default)]
struct Seen {
    first_tokens: usize,
    /// When all had their first token.
    began: Option<Instant>,
    error: Option<Error>,
}

impl Batch {
    pub fn new(
        one: &Measurement,
        arguments: &Arguments,
        model: &Arc<Model>,
        team: &Arc<Team>,
    ) -> Result<Self> {
        let steps = arguments.steps as usize;
        let context = DEPTH + steps + 1;
        let options = QueueOptions {
            context,
            kv: arguments.kv.into(),
            // All prompts are one pass, so that all decode from the same time on.
            chunk: (one.sequences * DEPTH).min(model.network()?.spec.context),
            sequences: one.sequences,
            ..QueueOptions::default()
        };
        Ok(Self {
            queue: Queue::new(model.clone(), team.clone(), &options)?,
            sequences: one.sequences,
            steps,
            vocab: model.network()?.spec.vocab,
        })
    }

    /// Seconds of the steps of all sequences, behind their first tokens.
    pub fn measure(&self) -> Result<f64> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        for sequence in 0..self.sequences {
            // As the other engines are given them in `bench/peers.py`.
            let token = |at| ((at * 7919 + sequence * 104_729) % self.vocab) as u32;
            let mut request = Request::new((0..DEPTH).map(token).collect(), self.generate()?);
            let (seen, mut tokens) = (Arc::clone(&seen), 0);
            let sequences = self.sequences;
            request.listener = Some(Listener(Box::new(move |event| {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.hear(event, &mut tokens, sequences);
                Action::Continue
            })));
            self.queue.submit(request)?;
        }
        while self.queue.step(None)? == Progress::Pending {}
        let end = Instant::now();
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.error.take() {
            Some(error) => Err(error),
            None => Ok(seen.began.map_or(0.0, |began| (end - began).as_secs_f64())),
        }
    }

    /// The first token, which the prompt gives, and the steps; the most likely ones.
    fn generate(&self) -> Result<GenerateOptions> {
        let greedy = SamplerOptions {
            temperature: 0.0,
            ..SamplerOptions::default()
        };
        Ok(GenerateOptions {
            tokens_max: self.steps + 1,
            ignore_end: true,
            ..GenerateOptions::new(Sampler::new(&greedy)?)
        })
    }
}

impl Seen {
    fn hear(&mut self, event: &Event<'_>, tokens: &mut usize, sequences: usize) {
        match event.happened {
            Happened::Prefill { .. } => {}
            Happened::Token { .. } => {
                *tokens += 1;
                self.first_tokens += usize::from(*tokens == 1);
                if self.first_tokens == sequences {
                    self.began.get_or_insert_with(Instant::now);
                }
            }
            Happened::Ended { outcome, .. } => {
                if let Outcome::Failed(error) = outcome {
                    self.error = Some(error.clone());
                }
            }
        }
    }
}
