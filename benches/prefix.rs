//! Chats that share a system prompt: how many tokens need not be evaluated again, and how soon the
//! first token comes, beside sessions that share nothing.
//!
//! `cargo bench --bench prefix -- MODEL.gguf`; without a model, the one that comes with the project,
//! with shorter chats. Every turn is a session of its own that is fed all tokens before it, as a
//! server without sessions does.

#![allow(clippy::print_stdout, missing_docs)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lightgpt::control::Control;
use lightgpt::error::Result;
use lightgpt::gguf::Source;
use lightgpt::model::{Model, OpenOptions};
use lightgpt::random::Random;
use lightgpt::sampler::{Sampler, SamplerOptions};
use lightgpt::session::{Action, GenerateOptions, Session, SessionOptions, Step};
use lightgpt::team::{Team, TeamOptions};

const CHATS: usize = 16;
const TURNS: usize = 4;
/// Tokens of the system prompt, if the context has room for them.
const SYSTEM: usize = 512;

/// What a run of all chats came to.
struct Outcome {
    /// Time to the first token of each turn.
    first: Vec<Duration>,
    reused: u64,
    fed: u64,
    tokens: Vec<Vec<u32>>,
}

fn main() -> Result<()> {
    let given = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tales-4m-q8_0.gguf");
    let path = PathBuf::from(given.as_deref().unwrap_or(own));
    let options = OpenOptions::default();
    let model = Model::open(Source::Path(&path), &options, &mut Control::none())?;
    let team = Team::new(TeamOptions::default())?;
    // The first run also brings the file into memory.
    run(&model, &team, true)?;
    let alone = run(&model, &team, true)?;
    let shared = run(&model, &team, false)?;
    assert_eq!(alone.tokens, shared.tokens, "the same tokens either way");
    let turns = alone.first.len() as u32;
    let mean = |outcome: &Outcome| outcome.first.iter().sum::<Duration>() / turns;
    let (slow, fast) = (mean(&alone), mean(&shared));
    println!("{CHATS} chats of {TURNS} turns, {} tokens fed", shared.fed);
    println!(
        "reused: {} of them, {:.1} %",
        shared.reused,
        percent(&shared)
    );
    println!(
        "first token after {slow:.1?} alone, {fast:.1?} shared: {:.1}x sooner",
        slow.as_secs_f64() / fast.as_secs_f64()
    );
    println!("{:?}", model.prefixes().statistics());
    Ok(())
}

fn percent(outcome: &Outcome) -> f64 {
    100.0 * outcome.reused as f64 / outcome.fed as f64
}

fn run(model: &Arc<Model>, team: &Arc<Team>, unshared: bool) -> Result<Outcome> {
    let spec = &model.network()?.spec;
    let system = SYSTEM.min(spec.context / 2);
    let part = system / 16;
    let words = |seed: u64, len: usize| -> Vec<u32> {
        let word = |step| (Random { seed, step }.bits(0) % spec.vocab as u64) as u32;
        (0..len as u64).map(word).collect()
    };
    let mut outcome = Outcome {
        first: Vec::new(),
        reused: 0,
        fed: 0,
        tokens: vec![words(0, system); CHATS],
    };
    let options = SessionOptions {
        unshared,
        ..SessionOptions::default()
    };
    for turn in 0..TURNS {
        for chat in 0..CHATS {
            let tokens = &mut outcome.tokens[chat];
            tokens.extend(words((1 + turn * CHATS + chat) as u64, part));
            let mut session = Session::new(model.clone(), team.clone(), &options)?;
            let began = Instant::now();
            session.feed(tokens)?;
            let sampler = SamplerOptions {
                seed: Some(chat as u64),
                ..SamplerOptions::default()
            };
            let generate = GenerateOptions {
                tokens_max: part,
                ignore_end: true,
                ..GenerateOptions::new(Sampler::new(&sampler)?)
            };
            let mut first = None;
            session.generate(&generate, &mut Control::none(), &mut |event| {
                if matches!(event.step, Step::Token(_)) {
                    first.get_or_insert_with(|| began.elapsed());
                }
                Action::Continue
            })?;
            outcome.first.extend(first);
            outcome.fed += tokens.len() as u64;
            outcome.reused += session.metrics().reused_tokens;
            *tokens = session.tokens().to_vec();
        }
    }
    Ok(outcome)
}
