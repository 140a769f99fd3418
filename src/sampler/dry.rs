//! DRY ("don't repeat yourself"): a penalty for tokens that would go on with a repetition.
//!
//! Source: the definition by its author (p-e-w, "DRY: A modern repetition penalty that reliably
//! prevents looping", 2024). If the sequence ends as it did before some earlier token, over a match
//! of n tokens, that token loses `multiplier * base^(n - allowed)`, for n of at least `allowed`.
//! The lengths of all matches are the Z-function of the reversed sequence (Gusfield, "Algorithms on
//! Strings, Trees and Sequences", 1997, chapter 1): linear time.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::float;
use crate::sampler::candidates::Candidates;
use crate::sampler::penalty::{change, expect};

/// The parameters of DRY.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dry {
    /// Strength; 0: off. 0.8 is customary.
    pub multiplier: f32,
    /// Growth of the penalty with each token of the match; at least 1. 1.75 is customary.
    pub base: f32,
    /// The shortest match that is penalized, with `multiplier`. 2 is customary.
    pub allowed_length: usize,
    /// Tokens that are looked back on; 0: none, `usize::MAX`: all.
    pub last: usize,
    /// Token sequences that no match reaches across. A breaker of one token is never penalized.
    pub breakers: Vec<Vec<u32>>,
}

impl Dry {
    pub(super) fn check(&self) -> Result<()> {
        let Self {
            multiplier, base, ..
        } = *self;
        let holds = multiplier.is_finite() && multiplier >= 0.0;
        expect(
            holds,
            "dry_multiplier",
            "a finite number of at least 0",
            multiplier,
        )?;
        let holds = base.is_finite() && base >= 1.0;
        expect(holds, "dry_base", "a finite number of at least 1", base)?;
        if self.breakers.iter().any(Vec::is_empty) {
            let message = "expected a token in each sequence, found an empty one";
            return Err(Error::new(Code::InvalidArgument, "dry_breakers", message));
        }
        Ok(())
    }

    pub(super) fn is_neutral(&self) -> bool {
        self.multiplier == 0.0 || self.last == 0
    }

    pub(super) fn apply(&self, candidates: &mut Candidates<'_>) {
        let history = candidates.history();
        let window = &history[history.len().saturating_sub(self.last)..];
        let limit = self.unbroken(window);
        let shortest = self.allowed_length.max(1);
        if limit < shortest {
            return;
        }
        let mut longest = std::mem::take(&mut candidates.buffers.counts);
        let mut matches = std::mem::take(&mut candidates.buffers.matches);
        matches.clear();
        matches.resize(window.len(), 0);
        suffix_matches(window, &mut matches);
        // matches[i] belongs to the token i places before the end of the window.
        for (token, length) in window.iter().rev().zip(&matches[1..]) {
            let length = (*length as usize).min(limit);
            if length >= shortest
                && let Some(longest) = longest.get_mut(*token as usize)
            {
                *longest = (*longest).max(length as u32);
            }
        }
        for token in window {
            let length = longest.get_mut(*token as usize).map_or(0, std::mem::take);
            if length > 0 && !self.breakers.iter().any(|breaker| breaker[..] == [*token]) {
                let penalty = self.penalty(length as usize);
                change(candidates, *token, |x| x - penalty);
            }
        }
        candidates.buffers.counts = longest;
        candidates.buffers.matches = matches;
    }

    fn penalty(&self, length: usize) -> f32 {
        let power = float::pow64(self.base.into(), (length - self.allowed_length) as f64);
        (f64::from(self.multiplier) * power).min(f32::MAX.into()) as f32
    }

    /// How many tokens stand behind the last breaker.
    fn unbroken(&self, window: &[u32]) -> usize {
        let ends_with_breaker = |end: &usize| {
            let ends = |breaker: &Vec<u32>| window[..*end].ends_with(breaker);
            self.breakers.iter().any(ends)
        };
        let end = (0..=window.len()).rev().find(ends_with_breaker);
        window.len() - end.unwrap_or(0)
    }
}

/// `matches[i]`: how many tokens the whole window and the window without its last `i` tokens have
/// in common at their ends.
fn suffix_matches(window: &[u32], matches: &mut [u32]) {
    let token = |i: usize| window[window.len() - 1 - i];
    // [start, end) is the match found so far that reaches farthest back.
    let (mut start, mut end) = (0, 0);
    for i in 1..window.len() {
        let mut length = if i < end {
            (matches[i - start] as usize).min(end - i)
        } else {
            0
        };
        while i + length < window.len() && token(length) == token(i + length) {
            length += 1;
        }
        if i + length > end {
            (start, end) = (i, i + length);
        }
        matches[i] = length as u32;
    }
}
