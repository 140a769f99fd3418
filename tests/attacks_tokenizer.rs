//! Tokenizers in hostile files: refused with the key's name, or harmless.

use std::time::{Duration, Instant};

use lightgpt::error::{Code, Error};
use lightgpt::gguf::Value;
use lightgpt::tokenizer::DecodeOptions;

#[path = "support/vocabularies.rs"]
mod vocabularies;
use vocabularies::*;

/// Demands an error at `key`, which the file has.
fn check(error: &Error, code: Code, key: &str) {
    assert_eq!(error.code(), code, "{error}");
    let offset = error
        .place()
        .strip_prefix(&format!("key '{key}' at offset "));
    let offset = offset.unwrap_or_else(|| panic!("not at {key}: {error}"));
    assert!(offset.parse::<u64>().is_ok_and(|n| n >= 24), "{error}");
}

fn changed(at: usize, text: impl AsRef<[u8]>) -> Value {
    let mut tokens: Vec<Vec<u8>> = SPM_TOKENS
        .iter()
        .map(|token| token.as_bytes().into())
        .collect();
    tokens[at] = text.as_ref().into();
    strings(&tokens)
}

/// The entries with the change put over them are refused, naming the key that is the third.
fn are_refused(rows: Vec<(Entries, (&'static str, Value), &str)>) {
    for (entries, change, place) in rows {
        let start = Instant::now();
        let error = load(&with(entries, vec![change])).expect_err("refused");
        check(&error, Code::Format, place);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn hostile_lists_are_refused_by_name() {
    let mut types = SPM_TYPES;
    types[0] = 7;
    let mut scores = SPM_SCORES;
    scores[1] = f32::NAN;
    are_refused(vec![
        (spm(), (TOKENS, 1u32.into()), TOKENS),
        (spm(), (TOKENS, vec![1.0f32; 15].into()), TOKENS),
        (spm(), (TOKENS, strings::<&str>(&[])), TOKENS),
        (spm(), (TOKENS, strings(&["a"])), TYPES),
        (spm(), (TYPES, vec![1i32; 14].into()), TYPES),
        (spm(), (TYPES, vec![1i32; 16].into()), TYPES),
        (spm(), (TYPES, vec![1u8; 15].into()), TYPES),
        (
            spm(),
            (TYPES, vec![-1i32; 15].into()),
            "tokenizer.ggml.token_type[0]",
        ),
        (
            spm(),
            (TYPES, vec![u32::MAX; 15].into()),
            "tokenizer.ggml.token_type[0]",
        ),
        (
            spm(),
            (TYPES, types.to_vec().into()),
            "tokenizer.ggml.token_type[0]",
        ),
        (spm(), (SCORES, vec![0u8; 15].into()), SCORES),
        (spm(), (SCORES, vec![0.0f32; 14].into()), SCORES),
        (spm(), (SCORES, 0.0f32.into()), SCORES),
        (
            spm(),
            (SCORES, scores.to_vec().into()),
            "tokenizer.ggml.scores[1]",
        ),
    ]);
}

#[test]
fn hostile_ids_and_texts_are_refused_by_name() {
    let long = "x".repeat(2000);
    are_refused(vec![
        (spm(), (BOS, 15u32.into()), BOS),
        (spm(), (BOS, u32::MAX.into()), BOS),
        (spm(), (BOS, u64::MAX.into()), BOS),
        (spm(), (BOS, (-1i32).into()), BOS),
        (spm(), (BOS, "1".into()), BOS),
        (
            spm(),
            ("tokenizer.ggml.mask_token_id", 15u32.into()),
            "tokenizer.ggml.mask_token_id",
        ),
        (
            spm(),
            ("tokenizer.ggml.add_bos_token", 1u32.into()),
            "tokenizer.ggml.add_bos_token",
        ),
        (
            spm(),
            (TOKENS, changed(3, "<0x-1>")),
            "tokenizer.ggml.tokens[3]",
        ),
        (
            spm(),
            (TOKENS, changed(3, "<0xZZ>")),
            "tokenizer.ggml.tokens[3]",
        ),
        (
            spm(),
            (TOKENS, changed(3, "<0x>")),
            "tokenizer.ggml.tokens[3]",
        ),
        (
            spm(),
            (TOKENS, changed(3, "<0x+1>")),
            "tokenizer.ggml.tokens[3]",
        ),
        (
            spm(),
            (TOKENS, changed(3, "<0x100>")),
            "tokenizer.ggml.tokens[3]",
        ),
        (spm(), (TOKENS, changed(3, "")), "tokenizer.ggml.tokens[3]"),
        (
            spm(),
            (TOKENS, changed(6, "x".repeat(70_000))),
            "tokenizer.ggml.tokens[6]",
        ),
        (
            spm(),
            (TOKENS, changed(13, &long)),
            "tokenizer.ggml.tokens[13]",
        ),
    ]);
}

#[test]
fn hostile_merges_are_refused_by_name() {
    are_refused(vec![
        (
            bpe(),
            (MERGES, strings(&["a b", "ab"])),
            "tokenizer.ggml.merges[1]",
        ),
        (
            bpe(),
            (MERGES, strings(&["a b", ""])),
            "tokenizer.ggml.merges[1]",
        ),
        (
            bpe(),
            (MERGES, strings(&[" a"])),
            "tokenizer.ggml.merges[0]",
        ),
        (
            bpe(),
            (MERGES, strings(&["a "])),
            "tokenizer.ggml.merges[0]",
        ),
        (
            bpe(),
            (MERGES, strings(&["a z"])),
            "tokenizer.ggml.merges[0]",
        ),
        (
            bpe(),
            (MERGES, strings(&["c c"])),
            "tokenizer.ggml.merges[0]",
        ),
        (
            bpe(),
            (MERGES, strings(&["a b c"])),
            "tokenizer.ggml.merges[0]",
        ),
        (
            bpe(),
            (MERGES, strings(&[b"\xff \0"])),
            "tokenizer.ggml.merges[0]",
        ),
        (bpe(), (MERGES, vec![0u32].into()), MERGES),
        (bpe(), (PRE, 1u32.into()), PRE),
        (bpe(), (MODEL, 1u32.into()), MODEL),
    ]);
}

#[test]
fn what_is_missing_or_unknown_is_named() {
    for (key, entries) in [
        (TOKENS, spm()),
        (SCORES, spm()),
        (TOKENS, bpe()),
        (MERGES, bpe()),
    ] {
        let without = entries.into_iter().filter(|entry| entry.0 != key).collect();
        let error = load(&without).unwrap_err();
        assert_eq!(
            (error.code(), error.place()),
            (Code::Format, &*format!("key '{key}'"))
        );
    }
    for (key, value) in [(MODEL, "rwkv"), (PRE, "default"), (PRE, "of-tomorrow")] {
        let error = load(&with(bpe(), vec![(key, value.into())])).unwrap_err();
        check(&error, Code::Unsupported, key);
        assert!(error.to_string().contains(value), "{error}");
    }
    let error = load(&with(bpe(), vec![(PRE, "no".into())])).unwrap_err();
    assert!(error.to_string().contains("llama-bpe") && error.to_string().contains("starcoder"));
}

#[test]
fn odd_tokens_are_kept_as_bytes() {
    // Invalid UTF-8, NUL and emptiness as normal, control and user-defined tokens.
    let odd: [&[u8]; 4] = [b"\xff\xfe", b"a\0b", b"", b"\x80"];
    for bytes in odd {
        for at in [6, 1, 13] {
            let tokenizer = ready(with(spm(), vec![(TOKENS, changed(at, bytes))]));
            assert_eq!(tokenizer.token_bytes(at as u32), Some(bytes));
            for text in ["a\0b", "é中\u{80}", "", "<x> <s>"] {
                parse(&tokenizer, text);
                encode(&tokenizer, text);
            }
            let all = DecodeOptions {
                special: true,
                start: true,
            };
            let mut out = Vec::new();
            tokenizer.decode(&[at as u32], all, &mut out).unwrap();
            assert_eq!(out, bytes);
        }
    }
    let mut tokens: Vec<&[u8]> = BPE_TOKENS.iter().map(|token| token.as_bytes()).collect();
    tokens[12] = b"\xff\xfe";
    tokens[8] = b"c\xffb";
    let tokenizer = ready(with(bpe(), vec![(TOKENS, strings(&tokens))]));
    assert_eq!(tokenizer.token_bytes(8), Some(&b"c\xffb"[..]));
    assert_eq!(encode(&tokenizer, "<x>abc"), [11, 6]);
}

#[test]
fn a_million_equal_tokens_load_in_linear_time() {
    let count = 1 << 20;
    let tokens = strings(&vec!["a"; count]);
    let start = Instant::now();
    let scored: Entries = vec![
        (MODEL, "llama".into()),
        (TOKENS, tokens.clone()),
        (SCORES, vec![0.0f32; count].into()),
        (TYPES, vec![4i32; count].into()),
    ];
    assert_eq!(encode(&ready(scored), "aa"), [0, 0]);
    let bytewise: Entries = vec![
        (MODEL, "gpt2".into()),
        (PRE, "llama-bpe".into()),
        (TOKENS, tokens),
        (MERGES, strings::<&str>(&[])),
    ];
    assert_eq!(encode(&ready(bytewise), "aa"), [0, 0]);
    let time = start.elapsed();
    // What is quadratic takes hours.
    assert!(time < Duration::from_secs(60), "{time:?}");
}
