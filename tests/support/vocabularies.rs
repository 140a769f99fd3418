//! Small vocabularies made in code, for several test programs.

#![allow(clippy::unwrap_used, dead_code)]

use lightgpt::control::Control;
use lightgpt::error::Result;
use lightgpt::gguf::{Gguf, LoadOptions, Source, Strings, Value, Writer};
use lightgpt::tokenizer::{EncodeOptions, Tokenizer};

pub type Entries = Vec<(&'static str, Value)>;

pub const MODEL: &str = "tokenizer.ggml.model";
pub const PRE: &str = "tokenizer.ggml.pre";
pub const TOKENS: &str = "tokenizer.ggml.tokens";
pub const TYPES: &str = "tokenizer.ggml.token_type";
pub const SCORES: &str = "tokenizer.ggml.scores";
pub const MERGES: &str = "tokenizer.ggml.merges";
pub const BOS: &str = "tokenizer.ggml.bos_token_id";

pub fn load(entries: &Entries) -> Result<Option<Tokenizer>> {
    let mut writer = Writer::new();
    for (key, value) in entries {
        writer.set(key, value.clone()).unwrap();
    }
    let options = LoadOptions::default();
    let file = Gguf::open(
        Source::Owned(writer.to_bytes()),
        &options,
        &mut Control::none(),
    );
    Tokenizer::load(file.unwrap().metadata())
}

/// The entries with `changes` put over them.
pub fn with(mut entries: Entries, changes: Entries) -> Entries {
    entries.extend(changes);
    entries
}

pub fn strings<S: AsRef<[u8]>>(items: &[S]) -> Value {
    items.iter().collect::<Strings>().into()
}

/// Byte-level: ids 0.. are the tokens below in their order.
pub const BPE_TOKENS: [&str; 14] = [
    "a", "b", "c", "Ġ", "ab", "bc", "abc", "Ġa", "cab", "<|end|>", "<eot>", "<x>", "<xy>", "Ã",
];
pub const BPE_TYPES: [i32; 14] = [1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 4, 4, 1];

pub fn bpe() -> Entries {
    vec![
        (MODEL, "gpt2".into()),
        (TOKENS, strings(&BPE_TOKENS)),
        (TYPES, BPE_TYPES.to_vec().into()),
        (MERGES, strings(&["a b", "b c", "ab c", "Ġ a"])),
    ]
}

pub const SPM_TOKENS: [&str; 15] = [
    "<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "▁", "a", "b", "▁a", "ab", "▁ab", "ba", "aa",
    "<x>", "▁▁",
];
pub const SPM_TYPES: [i32; 15] = [2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 1, 1, 4, 1];
pub const SPM_SCORES: [f32; 15] = [
    0.0, 0.0, 0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -2.0, -1.0, -3.0, -1.0, -4.0, 0.0, -5.0,
];

pub fn spm() -> Entries {
    vec![
        (MODEL, "llama".into()),
        (TOKENS, strings(&SPM_TOKENS)),
        (TYPES, SPM_TYPES.to_vec().into()),
        (SCORES, SPM_SCORES.to_vec().into()),
    ]
}

pub fn ready(entries: Entries) -> Tokenizer {
    load(&entries).unwrap().unwrap()
}

pub fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer
        .encode(text, EncodeOptions::default(), &mut ids)
        .unwrap();
    ids
}

pub fn parse(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    let options = EncodeOptions {
        add_special: true,
        parse_special: true,
    };
    tokenizer.encode(text, options, &mut ids).unwrap();
    ids
}
