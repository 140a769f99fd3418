//! The engine as whole-model tests see it: one model, one session, f32 keys and values.

use std::path::Path;

/// One session on one model.
pub struct Timeline {}

impl Timeline {
    /// Opens the model at `path` with a session that keeps keys and values as f32.
    pub fn open(path: &Path, threads: usize) -> Timeline {
        unimplemented!("open {path:?} with {threads} threads: needs model, team and session")
    }

    /// Appends tokens; returns the logits after each of them, `(tokens, vocab)`.
    pub fn feed(&mut self, tokens: &[u32]) -> Vec<f32> {
        unimplemented!("feed {tokens:?}")
    }

    /// The text of tokens that follow a begin token.
    pub fn text(&self, tokens: &[u32]) -> String {
        unimplemented!("decode {tokens:?}")
    }
}
