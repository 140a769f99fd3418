//! Requests of a queue and what they give alone, in a session of their own.
#![allow(dead_code)] // not every program uses all of it

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use lightgpt::control::Control;
use lightgpt::engine::{Event, Happened, Listener, Outcome, Poll, Polled, Queue, Request};
use lightgpt::kv::KvFormat;
use lightgpt::model::Model;
use lightgpt::sampler::{Mirostat, Sampler, SamplerOptions};
use lightgpt::session::{Action, Finish, GenerateOptions, Session, SessionOptions, Step};
use lightgpt::team::Team;

/// Draws numbers below others.
pub struct Draws(pub u64);

impl Draws {
    pub fn below(&mut self, n: usize) -> usize {
        // The multiplier and increment of Knuth's MMIX generator.
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }
}

/// What a request asks for.
#[derive(Debug, Clone)]
pub struct Asked {
    pub tokens: Vec<u32>,
    pub generate: GenerateOptions,
}

impl Asked {
    /// Something of every kind.
    pub fn draw(draws: &mut Draws, model: &Model, context: usize) -> Self {
        let vocab = model.network().unwrap().spec.vocab;
        let longest = match draws.below(3) {
            0 => context.min(256) / 2,
            _ => 12.min(context / 2),
        };
        let len = 1 + draws.below(longest);
        let tokens: Vec<u32> = (0..len).map(|_| draws.below(vocab) as u32).collect();
        let mut options = SamplerOptions {
            temperature: [0.0, 0.8, 3.0][draws.below(3)],
            seed: Some(draws.below(1000) as u64),
            ..SamplerOptions::default()
        };
        match draws.below(4) {
            0 => options.mirostat = Mirostat::Two,
            1 => (options.penalty_last, options.repetition_penalty) = (64, 1.3),
            _ => {}
        }
        let mut generate = GenerateOptions::new(Sampler::new(&options).unwrap());
        // Until the context is full, where that is not far.
        let most = if context > 256 { 60 } else { 0 };
        generate.tokens_max = [1 + draws.below(12), 1 + draws.below(100), most][draws.below(3)];
        generate.ignore_end = draws.below(2) == 0;
        generate.log_probabilities = draws.below(3) == 0;
        generate.top_log_probabilities = [0, 0, 3][draws.below(3)];
        if draws.below(3) == 0 {
            generate.stops = vec!["t7t".into(), "9t1".into()];
        }
        Self { tokens, generate }
    }

    pub fn request(&self) -> Request {
        Request::new(self.tokens.clone(), self.generate.clone())
    }
}

/// What was heard of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Heard {
    pub tokens: Vec<u32>,
    pub text: String,
    /// Bits of log-probabilities, of each token and of those beside it.
    pub scores: Vec<u64>,
    pub outcome: Option<Outcome>,
}

impl Heard {
    pub fn hear(&mut self, event: &Event<'_>) {
        assert_eq!(self.outcome, None, "an event behind the last one");
        self.text.push_str(event.text);
        match event.happened {
            Happened::Prefill { done, total } => assert!(self.tokens.is_empty() && done <= total),
            Happened::Token { token, .. } => {
                self.tokens.push(token);
                self.score(event.log_probability, event.top);
            }
            Happened::Ended { outcome, timings } => {
                assert_eq!(timings.generated_tokens as usize, self.tokens.len());
                self.outcome = Some(outcome.clone());
            }
        }
    }

    fn score(&mut self, one: Option<f64>, top: &[lightgpt::sampler::Scored]) {
        self.scores.extend(one.map(f64::to_bits));
        self.scores
            .extend(top.iter().map(|scored| scored.log_probability.to_bits()));
    }

    pub fn finish(&self) -> Option<Finish> {
        match self.outcome {
            Some(Outcome::Finished(finish)) => Some(finish),
            _ => None,
        }
    }
}

/// What a session gives.
pub fn alone(asked: &Asked, model: &Arc<Model>, team: &Arc<Team>, kv: KvFormat) -> Heard {
    let options = SessionOptions {
        kv: Some(kv),
        unshared: true,
        ..SessionOptions::default()
    };
    let mut session = Session::new(model.clone(), team.clone(), &options).unwrap();
    session.feed(&asked.tokens).unwrap();
    let mut heard = Heard::default();
    let finish = session
        .generate(&asked.generate, &mut Control::none(), &mut |event| {
            heard.text.push_str(event.text);
            if let Step::Token(token) = event.step {
                heard.tokens.push(token);
                heard.score(event.log_probability, event.top);
            }
            Action::Continue
        })
        .unwrap();
    heard.outcome = Some(Outcome::Finished(finish));
    heard
}

/// What is heard of all requests.
pub type All = Arc<Mutex<HashMap<u64, Heard>>>;

/// Tells `all`.
pub fn listener(all: &All) -> Listener {
    let all = all.clone();
    Listener(Box::new(move |event| {
        all.lock()
            .unwrap()
            .entry(event.request)
            .or_default()
            .hear(event);
        Action::Continue
    }))
}

/// Polls what is there.
pub fn poll(queue: &Queue, all: &All) {
    let mut polled = Polled::default();
    while queue.poll(Some(std::time::Instant::now()), &mut polled) == Poll::Event {
        let event = polled.event().expect("one came");
        all.lock()
            .unwrap()
            .entry(event.request)
            .or_default()
            .hear(&event);
    }
}
