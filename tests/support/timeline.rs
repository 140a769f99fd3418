//! The engine as whole-model tests see it: one model, one session, f32 keys and values.
#![allow(dead_code)] // not every program uses all of it

use std::path::Path;
use std::sync::Arc;

use lightgpt::control::Control;
use lightgpt::error::Result;
use lightgpt::gguf::Source;
use lightgpt::kernel::{self, Kernels};
use lightgpt::kv::KvFormat;
use lightgpt::model::spec::Pooling;
use lightgpt::model::{Model, Network, OpenOptions};
use lightgpt::session::{EmbedOptions, Session, SessionOptions};
use lightgpt::team::{Team, TeamOptions};
use lightgpt::tokenizer::DecodeOptions;

/// One session on one model.
pub struct Timeline {
    model: Arc<Model>,
    session: Session,
}

impl Timeline {
    /// Opens the model at `path` with a session that keeps keys and values as f32.
    pub fn open(path: &Path, threads: usize) -> Timeline {
        Self::open_with(Source::Path(path), threads, kernel::detect())
    }

    /// The same of any source and with any kernels.
    pub fn open_with(source: Source<'_>, threads: usize, kernels: &'static Kernels) -> Timeline {
        Self::open_changed(source, threads, kernels, &mut |_| {})
    }

    /// The same with a network that `change` alters.
    pub fn open_changed(
        source: Source<'_>,
        threads: usize,
        kernels: &'static Kernels,
        change: &mut dyn FnMut(&mut Network),
    ) -> Timeline {
        let options = OpenOptions::default();
        let model = Model::open_changed(source, &options, &mut Control::none(), kernels, change);
        let model = model.unwrap_or_else(|error| panic!("{error}"));
        let team = TeamOptions {
            threads,
            alone_ns: Some(0),
            ..TeamOptions::default()
        };
        let team = Team::new(team).expect("a team");
        let options = SessionOptions {
            kv: Some(KvFormat::F32),
            ..SessionOptions::default()
        };
        let session = Session::new(Arc::clone(&model), team, &options).expect("a session");
        Timeline { model, session }
    }

    /// Tokens of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.model.network().expect("an open model").spec.vocab
    }

    /// Appends tokens; returns the logits after each of them, `(tokens, vocab)`.
    pub fn feed(&mut self, tokens: &[u32]) -> Vec<f32> {
        self.try_feed(tokens).expect("finite logits")
    }

    /// The same; `NONFINITE` of a model that gives no finite logits.
    pub fn try_feed(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let mut logits = Vec::new();
        self.session.feed(tokens).expect("tokens of the vocabulary");
        let mut each = |_, row: &[f32]| logits.extend(row);
        self.session
            .logits_of_each(&mut Control::none(), &mut each)?;
        Ok(logits)
    }

    /// Of an encoder: the rows of the last layer, (tokens, dim), then the scores of a pair of which
    /// the second text begins at `split`, or the embedding, as long as it is.
    pub fn encode(&mut self, tokens: &[u32], split: usize) -> Vec<f32> {
        let control = &mut Control::none();
        let mut embed = |pooling| {
            let options = EmbedOptions { pooling, raw: true };
            self.session
                .embed(tokens, &options, control)
                .expect("finite rows")
        };
        let mut made = embed(Some(Pooling::None));
        let network = self.model.network().expect("an open model");
        match network.spec.pooling {
            Pooling::Rank => {
                made.extend(self.session.rank(tokens, split, control).expect("a head"))
            }
            _ => made.extend(embed(None)),
        }
        made
    }

    /// The text of tokens that follow a begin token.
    pub fn text(&self, tokens: &[u32]) -> String {
        let tokenizer = self.model.tokenizer().expect("a tokenizer");
        let mut text = Vec::new();
        tokenizer
            .decode(tokens, DecodeOptions::default(), &mut text)
            .expect("tokens of the vocabulary");
        String::from_utf8(text).expect("UTF-8")
    }
}
