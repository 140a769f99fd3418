//! Speed of the tokenizer: English and Japanese text to tokens, and loading a vocabulary.

#![allow(clippy::print_stderr, missing_docs)]

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use lightgpt::control::Control;
use lightgpt::gguf::{Gguf, LoadOptions, Source};
use lightgpt::tokenizer::{DecodeOptions, EncodeOptions, Tokenizer};

const VOCABULARIES: [&str; 8] = [
    "llama-spm",
    "phi-3",
    "gpt-2",
    "llama-bpe",
    "qwen2",
    "falcon",
    "starcoder",
    "deepseek-coder",
];

fn shared(path: &str) -> Option<PathBuf> {
    let full = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../shared")
        .join(path);
    if full.exists() {
        return Some(full);
    }
    eprintln!("SKIPPED: ../shared/{path} is not there");
    None
}

fn encode(criterion: &mut Criterion) {
    let english = shared("data/text/stories/tinystories.txt");
    let japanese = shared("data/text/multilingual/wagahaiwa_nekodearu.ja.txt");
    for (language, path) in [("english", english), ("japanese", japanese)] {
        let Some(path) = path else {
            return;
        };
        let text = std::fs::read_to_string(path).expect("a readable text");
        let mut group = criterion.benchmark_group(language);
        group
            .throughput(Throughput::Bytes(text.len() as u64))
            .sample_size(20);
        for name in VOCABULARIES {
            let Some(path) = shared(&format!("data/vocab/ggml-vocab-{name}.gguf")) else {
                return;
            };
            let options = LoadOptions::default();
            let file = Gguf::open(Source::Path(&path), &options, &mut Control::none());
            let file = file.expect("a vocabulary");
            let tokenizer = Tokenizer::load(file.metadata()).expect("a vocabulary");
            let tokenizer = tokenizer.expect("a tokenizer");
            let mut ids = Vec::new();
            group.bench_function(name, |bench| {
                bench.iter(|| {
                    ids.clear();
                    let options = EncodeOptions::default();
                    tokenizer
                        .encode(black_box(&text), options, &mut ids)
                        .expect("encodes");
                });
            });
            if language == "english" {
                let mut bytes = Vec::new();
                group.bench_function(format!("{name} decode"), |bench| {
                    bench.iter(|| {
                        bytes.clear();
                        let options = DecodeOptions::default();
                        tokenizer
                            .decode(black_box(&ids), options, &mut bytes)
                            .expect("decodes");
                    });
                });
                group.bench_function(format!("{name} load"), |bench| {
                    bench.iter(|| Tokenizer::load(black_box(file.metadata())));
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, encode);
criterion_main!(benches);
