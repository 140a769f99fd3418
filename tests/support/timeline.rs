//! The engine as whole-model tests see it: one model, one session, f32 keys and values.

use std::path::Path;

use lightgpt::control::Control;
use lightgpt::gguf::Source;
use lightgpt::kv::KvFormat;
use lightgpt::model::{Model, OpenOptions};
use lightgpt::session::{Session, SessionOptions};
use lightgpt::team::{Team, TeamOptions};

/// One session on one model.
pub struct Timeline(Session);

impl Timeline {
    /// Opens the model at `path` with a session that keeps keys and values as f32.
    pub fn open(path: &Path, threads: usize) -> Timeline {
        let model = Model::open(Source::Path(path), &OpenOptions::default(), &mut Control::none());
        let team = Team::new(TeamOptions { threads, ..TeamOptions::default() });
        let options = SessionOptions { kv: KvFormat::F32, ..SessionOptions::default() };
        let session = Session::new(model.expect("opens"), team.expect("starts"), &options);
        Timeline(session.expect("fits"))
    }

    /// Appends tokens; returns the logits after each of them, `(tokens, vocab)`.
    pub fn feed(&mut self, tokens: &[u32]) -> Vec<f32> {
        let mut all = Vec::new();
        self.0.feed(tokens).expect("they fit");
        let mut collect = |_: usize, logits: &[f32]| all.extend_from_slice(logits);
        self.0.logits_of_each(&mut Control::none(), &mut collect).expect("evaluates");
        all
    }

    /// The text of tokens that follow a begin token.
    pub fn text(&self, tokens: &[u32]) -> String {
        let mut text = Vec::new();
        let tokenizer = self.0.model().tokenizer().expect("the model has one");
        tokenizer.decode(tokens, Default::default(), &mut text).expect("decodes");
        String::from_utf8(text).expect("whole code points")
    }
}
