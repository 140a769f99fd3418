//! Embeddings and scores: nothing but model, text and options shows in them, the session does not
//! notice, and what cannot be done is said.
#![allow(clippy::unwrap_used)] // tests

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use lightgpt::budget::Budget;
use lightgpt::control::Control;
use lightgpt::error::{Code, Error};
use lightgpt::gguf::Source;
use lightgpt::kernel::{self, Isa, Kernels};
use lightgpt::kv::KvFormat;
use lightgpt::model::spec::Pooling;
use lightgpt::model::{Model, OpenOptions};
use lightgpt::sampler::{Sampler, SamplerOptions};
use lightgpt::session::{EmbedOptions, GenerateOptions, Session, SessionOptions, Step};
use lightgpt::team::{Team, TeamOptions};
use lightgpt::tokenizer::EncodeOptions;

#[path = "support/encoder.rs"]
mod encoder;

const SPECIAL: EncodeOptions = EncodeOptions {
    add_special: true,
    parse_special: false,
};

/// Decoders with layers that keep a state.
const RECURRENT: [&str; 5] = ["mamba", "mamba2", "lfm2", "falcon-h1", "qwen35"];

fn open(source: Source<'_>, kernels: &'static Kernels) -> Arc<Model> {
    let options = OpenOptions::default();
    Model::open_with(source, &options, &mut Control::none(), kernels).unwrap()
}

fn model(name: &str) -> Arc<Model> {
    open(Source::Path(&encoder::golden(name)), kernel::detect())
}

fn tales() -> Arc<Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tales-4m-q8_0.gguf");
    open(Source::Path(&path), kernel::detect())
}

fn session(model: &Arc<Model>, threads: usize, options: &SessionOptions) -> Session {
    let team = TeamOptions {
        threads,
        ..TeamOptions::default()
    };
    Session::new(Arc::clone(model), Team::new(team).unwrap(), options).unwrap()
}

fn plain(model: &Arc<Model>) -> Session {
    session(model, 1, &SessionOptions::default())
}

fn greedy() -> Sampler {
    let options = SamplerOptions {
        temperature: 0.0,
        ..SamplerOptions::default()
    };
    Sampler::new(&options).unwrap()
}

fn by(pooling: Pooling, raw: bool) -> EmbedOptions {
    let pooling = Some(pooling);
    EmbedOptions { pooling, raw }
}

fn tokens(model: &Model, len: usize) -> Vec<u32> {
    let vocab = model.network().unwrap().spec.vocab as u32;
    (0..len as u32)
        .map(|i| (i * 2_654_435 + 17) % vocab)
        .collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn embed(session: &mut Session, tokens: &[u32], options: &EmbedOptions) -> Vec<f32> {
    session
        .embed(tokens, options, &mut Control::none())
        .unwrap()
}

#[test]
fn only_model_text_and_options_show() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (path, len) in [
        (encoder::golden("bert"), 90),
        (encoder::golden("jina-bert-v2-code"), 96),
        (encoder::golden("modern-bert"), 70),
        (encoder::golden("gemma-embedding"), 96),
        (encoder::golden("mamba"), 90),
        (encoder::golden("mamba2"), 90),
        (encoder::golden("lfm2"), 90),
        (encoder::golden("falcon-h1"), 90),
        (encoder::golden("qwen35"), 90),
        (root.join("models/tales-4m-q8_0.gguf"), 250),
    ] {
        let mut expected = None;
        for isa in [Isa::Scalar, kernel::detect().isa()] {
            let kernels = kernel::force(isa);
            let model = open(Source::Path(&path), kernels);
            for (threads, chunk) in [(1, 0), (2, 7), (3, 64)] {
                if isa == Isa::Scalar && (threads > 1 || len > 100) {
                    continue;
                }
                let options = SessionOptions {
                    chunk,
                    ..SessionOptions::default()
                };
                let mut session = session(&model, threads, &options);
                let tokens = tokens(&model, len);
                let all = [Pooling::Mean, Pooling::First, Pooling::Last, Pooling::None];
                let made = all.map(|pooling| embed(&mut session, &tokens, &by(pooling, false)));
                let made = bits(&made.concat());
                let same = expected.get_or_insert_with(|| made.clone()) == &made;
                assert!(
                    same,
                    "{path:?}: {isa:?}, {threads} threads, chunks of {chunk}"
                );
            }
        }
    }
}

/// The rows of decoders are what their logits are made of, also where layers keep a state.
#[test]
fn rows_of_decoders_are_those_of_their_logits() {
    for name in ["qwen3", "granite"].into_iter().chain(RECURRENT) {
        let model = model(name);
        let options = SessionOptions {
            kv: Some(KvFormat::F32),
            chunk: 9,
            ..SessionOptions::default()
        };
        let (mut session, tokens) = (session(&model, 2, &options), tokens(&model, 40));
        let rows = embed(&mut session, &tokens, &by(Pooling::None, true));
        let mut logits = Vec::new();
        session.feed(&tokens).unwrap();
        let mut each = |_, row: &[f32]| logits.extend_from_slice(row);
        session
            .logits_of_each(&mut Control::none(), &mut each)
            .unwrap();
        let network = model.network().unwrap();
        let (dim, vocab) = (network.spec.dim, network.spec.vocab);
        let output = &network.weights.output.as_ref().unwrap().weight;
        let mut weights = vec![0.0; dim];
        for token in 0..vocab {
            output.decode_row(token, &mut weights).unwrap();
            for (row, logits) in rows.chunks_exact(dim).zip(logits.chunks_exact(vocab)) {
                let products = row.iter().zip(&weights);
                let sum: f64 = products.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                let logit = sum * f64::from(network.spec.logit_scale);
                assert!((logit - f64::from(logits[token])).abs() < 1e-4, "{name}");
            }
        }
    }
}

#[test]
fn poolings_are_what_they_say() {
    let model = model("bert");
    let (mut session, tokens) = (plain(&model), tokens(&model, 20));
    let rows = embed(&mut session, &tokens, &by(Pooling::None, true));
    let dim = rows.len() / 20;
    let mut made = |pooling, raw| embed(&mut session, &tokens, &by(pooling, raw));
    assert_eq!(made(Pooling::First, true), rows[..dim]);
    assert_eq!(made(Pooling::Last, true), rows[19 * dim..]);
    let mean = made(Pooling::Mean, true);
    for (i, mean) in mean.iter().enumerate() {
        let sum: f64 = (0..20).map(|row| f64::from(rows[row * dim + i])).sum();
        assert!((sum / 20.0 - f64::from(*mean)).abs() < 1e-6);
    }
    let length = |row: &[f32]| {
        row.iter()
            .map(|x| f64::from(*x).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    let unit = made(Pooling::Mean, false);
    assert!((length(&unit) - 1.0).abs() < 1e-6);
    for (unit, raw) in unit.iter().zip(&mean) {
        assert!((f64::from(*unit) * length(&mean) - f64::from(*raw)).abs() < 1e-6);
    }
    for row in made(Pooling::None, false).chunks(dim) {
        assert!((length(row) - 1.0).abs() < 1e-6);
    }
    // The file says that it is the mean; the last row of a decoder if its file does not.
    assert_eq!(embed(&mut session, &tokens, &EmbedOptions::default()), unit);
    let model = tales();
    let (mut session, tokens) = (plain(&model), [1, 403, 407]);
    let default = embed(&mut session, &tokens, &EmbedOptions::default());
    assert_eq!(
        default,
        embed(&mut session, &tokens, &by(Pooling::Last, false))
    );
    assert_eq!(session.embedding_len(3, &EmbedOptions::default()), Ok(256));
    assert_eq!(session.embedding_len(3, &by(Pooling::None, false)), Ok(768));
}

#[test]
fn a_session_does_not_notice() {
    let model = tales();
    let options = SessionOptions {
        kv: Some(KvFormat::F32),
        ..SessionOptions::default()
    };
    let story = |embeds: bool| {
        let mut session = session(&model, 2, &options);
        session.feed_text("Once upon a time", SPECIAL).unwrap();
        let sampler = greedy();
        let generate = GenerateOptions {
            tokens_max: 20,
            ..GenerateOptions::new(sampler)
        };
        let mut all = Vec::new();
        let mut look = |session: &mut Session| {
            if embeds {
                let tokens = tokens(&model, 50);
                all.push(bits(&embed(session, &tokens, &EmbedOptions::default())));
            }
        };
        look(&mut session);
        session.begin(&generate).unwrap();
        loop {
            look(&mut session);
            let step = session.step(&mut Control::none()).unwrap();
            if matches!(step, Step::Finished(_)) {
                break;
            }
        }
        look(&mut session);
        assert!(all.iter().all(|made| *made == all[0]));
        let logits = bits(session.logits(&mut Control::none()).unwrap());
        (session.tokens().to_vec(), logits)
    };
    assert!(story(true) == story(false));
}

#[test]
fn states_of_a_session_stay() {
    for name in RECURRENT {
        let model = model(name);
        let tokens = tokens(&model, 50);
        let run = |embeds: bool| {
            let (mut session, mut all) = (plain(&model), Vec::new());
            let mut look = |session: &mut Session| {
                if embeds {
                    embed(session, &tokens[..30], &EmbedOptions::default());
                }
                all.extend(bits(session.logits(&mut Control::none()).unwrap()));
            };
            for part in tokens.chunks(13) {
                session.feed(part).unwrap();
                look(&mut session);
            }
            for keep in [45, 20] {
                session.rewind(keep).unwrap();
                look(&mut session);
            }
            all
        };
        assert!(run(true) == run(false), "{name}");
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>, code: Code, part: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

#[test]
fn an_encoder_generates_nothing_and_says_so() {
    let model = model("bert");
    let mut session = plain(&model);
    let part = "bert is an encoder";
    refused(session.feed(&[1]), Code::Unsupported, part);
    refused(session.feed_text("a", SPECIAL), Code::Unsupported, part);
    refused(
        session.logits(&mut Control::none()),
        Code::Unsupported,
        part,
    );
    refused(
        session.score(&[1], &mut Control::none()),
        Code::Unsupported,
        part,
    );
    let sampler = greedy();
    refused(
        session.begin(&GenerateOptions::new(sampler)),
        Code::Unsupported,
        part,
    );
    assert!(session.tokens().is_empty());
    let estimate = model.memory_estimate(0, KvFormat::F16, 8).unwrap();
    assert!(estimate.logits < 96 * 4, "no place for logits");
}

#[test]
fn what_cannot_be_embedded_is_refused() {
    let model = model("bert");
    let mut session = plain(&model);
    let mut embed = |tokens: &[u32]| {
        let options = EmbedOptions::default();
        session.embed(tokens, &options, &mut Control::none())
    };
    refused(embed(&[]), Code::InvalidArgument, "at least one token");
    refused(
        embed(&[96]),
        Code::InvalidArgument,
        "expected tokens below 96",
    );
    let long = "at most 96 tokens, the context, found 97";
    refused(embed(&[5; 97]), Code::ContextFull, long);
    assert!(embed(&[5; 96]).is_ok());
    let (stop, mut seen) = (AtomicBool::new(true), 0);
    let control = &mut Control::cancellable(&stop);
    let options = EmbedOptions::default();
    refused(
        session.embed(&[5], &options, control),
        Code::Cancelled,
        "cancelled",
    );
    let mut report = |done, total| {
        seen += 1;
        assert_eq!((done, total), (9, 9));
        true
    };
    let mut control = Control {
        progress: Some(&mut report),
        ..Control::none()
    };
    session.embed(&[5; 9], &options, &mut control).unwrap();
    assert_eq!(seen, 1);
    refused(
        session.rank(&[5], 1, &mut Control::none()),
        Code::Unsupported,
        "no cls.weight",
    );
    let text = session.tokenize("a", SPECIAL);
    refused(text, Code::Unsupported, "no tokenizer");
}

#[test]
fn memory_is_given_back_and_its_cap_holds() {
    let model = model("bert");
    let budget = Budget::new(Some(30_000), None);
    let options = SessionOptions {
        budget: Some(budget.clone()),
        ..SessionOptions::default()
    };
    let mut session = session(&model, 1, &options);
    let before = budget.bytes();
    embed(&mut session, &tokens(&model, 60), &EmbedOptions::default());
    assert_eq!(budget.bytes(), before);
    let (tokens, options) = (tokens(&model, 90), EmbedOptions::default());
    let result = session.embed(&tokens, &options, &mut Control::none());
    refused(result, Code::MemoryCap, "cap of 30000");
    assert_eq!(budget.bytes(), before);
    embed(&mut session, &tokens[..60], &options);
}

/// A decoder is asked for yes or no in a text of its file.
#[test]
fn decoders_score_pairs_in_a_template() {
    let template = "[CLS]does {document} tell of {query}[SEP]";
    let with = |template: Option<&str>| {
        let keys = template.map(|text| ("tokenizer.chat_template.rerank", text.into()));
        let bytes = encoder::with_words_and("qwen3-rank", keys.as_slice());
        open(Source::Owned(bytes), kernel::detect())
    };
    let model = with(Some(template));
    let mut session = plain(&model);
    let pair = ["the dog ran", "one cat ran home"];
    let mut rerank = |pair| session.rerank(pair, &mut Control::none());
    let score = rerank(pair).unwrap();
    let (swapped, marked) = (
        ["one cat ran home", "the dog ran"],
        ["the dog ran[SEP]", pair[1]],
    );
    let [swapped, marked] = [swapped, marked].map(|pair| rerank(pair).unwrap());
    assert!(score.len() == 1 && score != swapped && score != marked);
    refused(
        rerank(["a", &"the dog ran home ".repeat(100)]),
        Code::ContextFull,
        "at most 256 tokens",
    );
    // What is asked is one text; but what looks like a mark in the texts of users is none.
    let options = EncodeOptions {
        add_special: true,
        parse_special: true,
    };
    let mut rank = |text: &str| {
        let tokens = session.tokenize(text, options).unwrap();
        let (second, control) = (tokens.len(), &mut Control::none());
        (session.rank(&tokens, second, control).unwrap(), tokens)
    };
    let (expected, tokens) = rank("[CLS]does one cat ran home tell of the dog ran[SEP]");
    assert!(score == expected && tokens.contains(&3), "{tokens:?}");
    let (parsed, _) = rank("[CLS]does one cat ran home tell of the dog ran[SEP][SEP]");
    assert_ne!(marked, parsed);
    // It predicts tokens, too, and embeds if asked how.
    session.feed(&tokens).unwrap();
    assert_eq!(session.logits(&mut Control::none()).unwrap().len(), 96);
    embed(&mut session, &tokens, &by(Pooling::Last, false));

    let mut session = plain(&with(None));
    let without = session.rerank(pair, &mut Control::none());
    refused(without, Code::Unsupported, "chat_template.rerank");
    for template in ["{query}", "{document}[SEP]", ""] {
        let mut session = plain(&with(Some(template)));
        let lacks = session.rerank(pair, &mut Control::none());
        refused(lacks, Code::Unsupported, "{query} and {document}");
    }
}

#[test]
fn pairs_are_scored_by_models_that_can() {
    let bytes = encoder::with_words("bert-rank");
    let model = open(Source::Owned(bytes), kernel::detect());
    let mut session = plain(&model);
    let options = EmbedOptions::default();
    let result = session.embed(&[2, 4, 3], &options, &mut Control::none());
    refused(result, Code::Unsupported, "rerank");
    assert_eq!(session.scores(), Ok(1));
    let mut rerank = |pair| session.rerank(pair, &mut Control::none());
    let score = rerank(["the dog ran", "one dog ran home"]).unwrap();
    assert_eq!(score.len(), 1);
    let swapped = rerank(["one dog ran home", "the dog ran"]).unwrap();
    assert_ne!(score, swapped);
    let long = "the dog ran home ".repeat(40);
    refused(rerank(["a", &long]), Code::ContextFull, "at most 95 tokens");
    // Which tokens belong to the second text counts.
    let both = [2, 4, 5, 3, 6, 7, 3];
    let mut rank = |second| session.rank(&both, second, &mut Control::none()).unwrap();
    assert_ne!(rank(4), rank(7));
    // It embeds if asked how.
    embed(&mut session, &both, &by(Pooling::First, false));
}
