//! Steps with a budget: how far they go beyond it, what they cost beside running freely, how soon a
//! cancel is answered, what waking the helpers costs, and what a queue does beside evaluating.
//!
//! `cargo bench --bench steps -- MODEL.gguf [--budget 2000] [--steps 2000] [--cancels 40]
//! [--threads 1,2] [--only steps,cancel,waking,queue]`; without a model, the one that comes with the
//! project. What is compared takes turns, A B A B. Time in which the system let a thread wait for a
//! CPU, or the machine belonged to others, is told beside.

#![allow(clippy::print_stdout, missing_docs)]

mod cancel;
mod frames;
mod queue;
mod times;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lightgpt::control::Control;
use lightgpt::engine::{Listener, Queue, QueueOptions, Request};
use lightgpt::error::{Code, Error, Result};
use lightgpt::gguf::Source;
use lightgpt::model::{Model, OpenOptions};
use lightgpt::random::Random;
use lightgpt::sampler::{Sampler, SamplerOptions};
use lightgpt::session::{Action, GenerateOptions, Session, SessionOptions};
use lightgpt::team::{Team, TeamOptions};

/// Requests that run together.
const SEQUENCES: usize = 16;
/// Requests that wait behind them.
const WAITING: usize = 1000;

struct Arguments {
    model: PathBuf,
    budget: Duration,
    steps: usize,
    cancels: usize,
    threads: Vec<usize>,
    only: Option<String>,
}

fn main() -> Result<()> {
    let arguments = arguments()?;
    let source = Source::Path(&arguments.model);
    let model = Model::open(source, &OpenOptions::default(), &mut Control::none())?;
    println!("{}", arguments.model.display());
    for &threads in &arguments.threads {
        let team = Team::new(TeamOptions {
            threads,
            ..TeamOptions::default()
        })?;
        let setting = Setting {
            arguments: &arguments,
            model: &model,
            team: &team,
        };
        println!("\n{threads} threads, budget {:?}", arguments.budget);
        type Measure = fn(&Setting<'_>) -> Result<()>;
        let all: [(&str, Measure); 4] = [
            ("steps", frames::steps),
            ("cancel", cancel::cancel),
            ("waking", frames::waking),
            ("queue", queue::queue),
        ];
        for (name, measure) in all {
            let only = arguments.only.as_deref();
            if only.is_none_or(|only| only.split(',').any(|wanted| wanted == name)) {
                measure(&setting)?;
            }
        }
    }
    Ok(())
}

fn arguments() -> Result<Arguments> {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tales-4m-q8_0.gguf");
    let mut arguments = Arguments {
        model: own.into(),
        budget: Duration::from_millis(2),
        steps: 2000,
        cancels: 40,
        threads: vec![1, 2],
        only: None,
    };
    let wrong = |what: String| Error::new(Code::InvalidArgument, "arguments", what);
    // Cargo says itself that this is a bench.
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        if !word.starts_with("--") {
            arguments.model = word.into();
            continue;
        }
        let value = words
            .next()
            .ok_or_else(|| wrong(format!("{word}: no value")))?;
        let number = |text: &str| {
            let parsed = text.parse::<usize>();
            parsed.map_err(|_| wrong(format!("{word}: expected a number, found {text}")))
        };
        match &word[..] {
            "--budget" => arguments.budget = Duration::from_micros(number(&value)? as u64),
            "--steps" => arguments.steps = number(&value)?.max(1),
            "--cancels" => arguments.cancels = number(&value)?.max(1),
            "--threads" => {
                arguments.threads = value.split(',').map(number).collect::<Result<_>>()?;
            }
            "--only" => arguments.only = Some(value),
            _ => return Err(wrong(format!("{word} is not known"))),
        }
    }
    Ok(arguments)
}

struct Setting<'a> {
    arguments: &'a Arguments,
    model: &'a Arc<Model>,
    team: &'a Arc<Team>,
}

impl Setting<'_> {
    fn context(&self) -> Result<usize> {
        Ok(self.model.network()?.spec.context)
    }

    fn tokens(&self, seed: u64, len: usize) -> Result<Vec<u32>> {
        let vocab = self.model.network()?.spec.vocab as u64;
        let token = |step| (Random { seed, step }.bits(0) % vocab) as u32;
        Ok((0..len as u64).map(token).collect())
    }

    fn session(&self) -> Result<Session> {
        let options = SessionOptions {
            unshared: true,
            ..SessionOptions::default()
        };
        Session::new(self.model.clone(), self.team.clone(), &options)
    }

    fn queue(&self) -> Result<Queue> {
        let options = QueueOptions {
            sequences: SEQUENCES,
            requests: SEQUENCES + WAITING,
            ..QueueOptions::default()
        };
        Queue::new(self.model.clone(), self.team.clone(), &options)
    }

    fn generate(&self, tokens_max: usize) -> Result<GenerateOptions> {
        let sampler = SamplerOptions {
            seed: Some(1),
            ..SamplerOptions::default()
        };
        Ok(GenerateOptions {
            tokens_max,
            ignore_end: true,
            ..GenerateOptions::new(Sampler::new(&sampler)?)
        })
    }

    fn request(&self, seed: u64, prompt: usize, tokens_max: usize) -> Result<Request> {
        let tokens = self.tokens(seed, prompt)?;
        let mut request = Request::new(tokens, self.generate(tokens_max)?);
        request.listener = Some(Listener(Box::new(|_| Action::Continue)));
        Ok(request)
    }
}
