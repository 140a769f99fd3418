//! How many tokens of a prompt a pass should take.

use std::sync::Arc;

use crate::control::{Control, Flow};
use crate::error::Result;
use crate::model::Model;
use crate::session::{CHUNK_TOKENS, Session, SessionOptions};
use crate::team::Team;

use super::ratio::{Ratio, median};
use super::turns::take_turns;
use super::{Effort, Teams};

/// Tokens of the prompt, if the model has room for them.
const TOKENS: usize = 512;

/// The speed of a prompt in chunks.
#[derive(Debug, Clone, Copy)]
pub struct Chunk {
    /// Tokens that a pass takes.
    pub tokens: usize,
    /// Whether it is built in.
    pub is_built_in: bool,
    /// Tokens a second.
    pub rate: f64,
    /// How much faster than the chunks that are built in.
    pub over_built_in: Ratio,
}

/// Evaluates a prompt in chunks of several sizes.
///
/// # Errors
/// As [`Session::prefill`].
pub fn chunks(model: &Arc<Model>, teams: &Teams, effort: Effort) -> Result<Vec<Chunk>> {
    let spec = &model.network()?.spec;
    let count = TOKENS.min(spec.context);
    let tokens: Vec<u32> = (0..count).map(|i| (i * 7919 % spec.vocab) as u32).collect();
    let team: &Team = &teams.chosen;
    let sizes = [64, 128, 256, 512];
    let mut sessions = Vec::new();
    for chunk in sizes {
        let options = SessionOptions {
            context: count,
            chunk,
            ..SessionOptions::default()
        };
        sessions.push(Session::new(model.clone(), teams.chosen.clone(), &options)?);
    }
    let ways: Vec<(&Team, usize)> = (0..sizes.len()).map(|size| (team, size)).collect();
    let times = take_turns(&ways, effort.turns.div_ceil(10), &mut |_, &size| {
        let session = &mut sessions[size];
        session.rewind(0)?;
        session.feed(&tokens)?;
        while session.prefill(&mut Control::none())? == Flow::Paused {}
        Ok(())
    })?;
    let built_in = sizes.iter().position(|&size| size == CHUNK_TOKENS);
    let built_in = &times[built_in.expect("one of the sizes")];
    let all = sizes.iter().zip(&times).map(|(&tokens, times)| Chunk {
        tokens,
        is_built_in: tokens == CHUNK_TOKENS,
        rate: 1e9 * count as f64 / median(times),
        over_built_in: Ratio::of(built_in, times),
    });
    Ok(all.collect())
}
