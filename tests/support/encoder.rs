//! Golden encoders with words: their files hold no vocabulary.
#![allow(clippy::unwrap_used, dead_code)]

use std::path::{Path, PathBuf};

use lightgpt::control::Control;
use lightgpt::gguf::{Gguf, LoadOptions, Source, Strings, Value, Writer};

/// The file of a golden.
pub fn golden(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    folder.join(name).join("model.gguf")
}

/// The golden `name` with a vocabulary of 96 tokens, pieces of words of small letters: its bytes.
pub fn with_words(name: &str) -> Vec<u8> {
    with_words_and(name, &[])
}

/// The same with more keys.
pub fn with_words_and(name: &str, keys: &[(&str, Value)]) -> Vec<u8> {
    let options = LoadOptions::default();
    let path = golden(name);
    let gguf = Gguf::open(Source::Path(&path), &options, &mut Control::none()).unwrap();
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata().iter() {
        writer.set(key, value.clone()).unwrap();
    }
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(String::from);
    let letters = || 'a'..='z';
    let words = ["the", "dog", "cat", "ran", "home", "one", "two"];
    let tokens = special
        .into_iter()
        .chain(letters().map(|c| format!("\u{2581}{c}")))
        .chain(letters().map(|c| c.to_string()))
        .chain(words.map(|word| format!("\u{2581}{word}")));
    let mut tokens: Vec<String> = tokens.collect();
    let more = tokens.len()..96;
    tokens.extend(more.map(|i| format!("[unused{i}]")));
    let mut types = vec![1; 96];
    types[..4].fill(3);
    writer.set("tokenizer.ggml.model", "bert").unwrap();
    writer
        .set("tokenizer.ggml.tokens", tokens.iter().collect::<Strings>())
        .unwrap();
    writer.set("tokenizer.ggml.token_type", types).unwrap();
    for (key, id) in [("unknown", 1u32), ("cls", 2), ("seperator", 3)] {
        writer
            .set(&format!("tokenizer.ggml.{key}_token_id"), id)
            .unwrap();
    }
    for (key, value) in keys {
        writer.set(key, value.clone()).unwrap();
    }
    for tensor in gguf.tensors() {
        let dims = &tensor.dims[..tensor.dimensions as usize];
        writer
            .tensor(&tensor.name, tensor.format, dims, &tensor.bytes[..])
            .unwrap();
    }
    writer.to_bytes()
}

/// The same in a file of its own in `folder`.
pub fn file_with_words(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(format!("{name}.gguf"));
    std::fs::write(&path, with_words(name)).unwrap();
    path
}
