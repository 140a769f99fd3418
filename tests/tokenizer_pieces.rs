//! Vocabularies of encoders: what the libraries that made them say (`tests/tokenizers/make.py`), and
//! the rules that those do not show.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lightgpt::control::{Control, Signals};
use lightgpt::error::Code;
use lightgpt::gguf::{Array, Gguf, LoadOptions, Source, Value, Writer};
use lightgpt::tokenizer::{DecodeOptions, EncodeOptions, Tokenizer};

mod support;
use support::shared;
#[path = "support/vocabularies.rs"]
mod vocabularies;
use vocabularies::{
    Entries, MODEL, SCORES, TOKENS, TYPES, encode, load, parse, ready, strings, with,
};

fn file(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokenizers");
    folder.join(format!("{name}.gguf"))
}

fn open(path: &Path) -> Gguf {
    let options = LoadOptions::default();
    Gguf::open(Source::Path(path), &options, &mut Control::none()).unwrap()
}

/// The tokenizer of a file whose keys are changed.
fn changed(path: &Path, changes: &[(&str, bool)]) -> Tokenizer {
    let gguf = open(path);
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata().iter() {
        writer.set(key, value.clone()).unwrap();
    }
    for (key, value) in changes {
        writer.set(key, *value).unwrap();
    }
    let options = LoadOptions::default();
    let source = Source::Owned(writer.to_bytes());
    let file = Gguf::open(source, &options, &mut Control::none()).unwrap();
    Tokenizer::load(file.metadata()).unwrap().unwrap()
}

fn decode(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let options = DecodeOptions {
        start: true,
        ..DecodeOptions::default()
    };
    tokenizer.decode_text(ids, options).unwrap()
}

#[test]
fn the_makers_libraries_agree() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokenizers/golden.json");
    let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let texts = golden["texts"].as_array().unwrap();
    let mut compared = 0;
    for (name, all) in golden.as_object().unwrap() {
        if name == "texts" {
            continue;
        }
        let words: Vec<&str> = name.split(' ').collect();
        let flags = ["add_space_prefix", "remove_extra_whitespaces"]
            .map(|key| format!("tokenizer.ggml.{key}"));
        let changes: Vec<(&str, bool)> = flags
            .iter()
            .zip(&words[1..])
            .map(|(key, flag)| (&key[..], *flag == "1"))
            .collect();
        let tokenizer = changed(&file(words[0]), &changes);
        for (text, ids) in texts.iter().zip(all.as_array().unwrap()) {
            let Some(ids) = ids.as_array() else {
                continue;
            };
            let ids: Vec<u32> = ids.iter().map(|id| id.as_u64().unwrap() as u32).collect();
            let text = text.as_str().unwrap();
            assert_eq!(encode(&tokenizer, text), ids, "{name}: {text:?}");
            compared += 1;
        }
    }
    assert!(compared > 200, "only {compared} texts");
}

#[test]
fn published_pieces_of_words_are_equal() {
    const TEST: &str = "published_pieces_of_words_are_equal";
    let Some(path) = shared(TEST, "data/vocab/ggml-vocab-bert-bge.gguf") else {
        return;
    };
    let tokenizer = Tokenizer::load(open(&path).metadata()).unwrap().unwrap();
    let read = |end: &str| {
        let path = format!("data/vocab/ggml-vocab-bert-bge.gguf.{end}");
        std::fs::read_to_string(shared(TEST, &path).unwrap()).unwrap()
    };
    let (inputs, outputs) = (read("inp"), read("out"));
    let mut texts: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
    assert_eq!(texts.pop(), Some(""));
    let expected: Vec<&str> = outputs.lines().collect();
    assert_eq!(texts.len(), expected.len());
    for (text, line) in texts.iter().zip(expected) {
        let ids: Vec<u32> = line
            .split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect();
        assert_eq!(encode(&tokenizer, text), ids, "{text:?}");
    }
    let ids = parse(&tokenizer, "Nearest [MASK], please");
    assert_eq!((ids[0], ids[2], ids[ids.len() - 1]), (101, 103, 102));
    assert_eq!(decode(&tokenizer, &ids), "nearest , please");
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(101), Some(102)));
}

/// Pieces of words: ids 0.. are the tokens below in their order.
fn wordpiece() -> Entries {
    let tokens = [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁play", "ing", "▁un", "play", "▁,", "▁e", "s", "▁東",
    ];
    let types = vec![3, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1];
    vec![
        (MODEL, "bert".into()),
        (TOKENS, strings(&tokens)),
        (TYPES, types.into()),
        ("tokenizer.ggml.unknown_token_id", 1u32.into()),
        ("tokenizer.ggml.cls_token_id", 2u32.into()),
        ("tokenizer.ggml.seperator_token_id", 3u32.into()),
    ]
}

#[test]
fn words_are_cut_from_their_start_on() {
    let tokenizer = ready(wordpiece());
    for (text, ids) in [
        ("playing", &[4, 5][..]),
        ("unplaying, playing", &[6, 7, 5, 8, 4, 5]),
        ("PLAYING É", &[4, 5, 9]),
        ("e\u{301}s,es", &[9, 10, 8, 9, 10]),
        ("東東", &[11, 11]),
        ("ing", &[1]),
        ("playx", &[1]),
        ("", &[]),
    ] {
        assert_eq!(encode(&tokenizer, text), ids, "{text}");
    }
    assert_eq!(parse(&tokenizer, "play[SEP]"), [2, 4, 3, 3]);
    assert_eq!(
        decode(&tokenizer, &[2, 6, 7, 5, 8, 4, 3]),
        "unplaying , play"
    );
    let mut pair = vec![9];
    let signals = Signals::default();
    let texts = ["play", "es es"];
    let split = tokenizer.encode_pair(texts, 8, signals, &mut pair).unwrap();
    assert_eq!((split, &pair[..]), (3, &[9, 2, 4, 3, 9, 10, 9, 10, 3][..]));
    for most in 0..8 {
        let error = tokenizer
            .encode_pair(texts, most, signals, &mut pair)
            .unwrap_err();
        assert_eq!((error.code(), pair.len()), (Code::ContextFull, 9), "{most}");
    }
}

/// Likeliest cuts; the scores are those of the tokens.
fn unigram() -> Entries {
    let tokens = [
        "<pad>", "</s>", "<unk>", "▁", "a", "b", "▁a", "ab", "<0xC3>", "<0xA9>",
    ];
    let scores: Vec<f32> = vec![0.0, 0.0, 0.0, -3.0, -2.0, -2.0, -4.5, -3.5, 0.0, 0.0];
    vec![
        (MODEL, "t5".into()),
        (TOKENS, strings(&tokens)),
        (TYPES, vec![3, 3, 2, 1, 1, 1, 1, 1, 6, 6].into()),
        (SCORES, scores.into()),
    ]
}

#[test]
fn the_likeliest_cut_is_taken() {
    let tokenizer = ready(unigram());
    for (text, ids) in [
        // -3 and -3.5 are more than -4.5 and -2.
        ("ab", &[3, 7][..]),
        ("a", &[6]),
        ("  aab  ", &[6, 7]),
        ("xy a", &[3, 2, 6]),
        ("é", &[3, 8, 9]),
        ("éxx", &[3, 8, 9, 2]),
        ("  ", &[]),
    ] {
        assert_eq!(encode(&tokenizer, text), ids, "{text}");
    }
    assert_eq!(parse(&tokenizer, "a"), [6, 1], "the end is added");
    assert_eq!(decode(&tokenizer, &[6, 3, 8, 9, 7]), "a éab");
    assert_eq!(tokenizer.unknown(), Some(2));
}

#[test]
fn marks_separate_pairs_where_the_file_says() {
    let flags: Entries = vec![
        ("tokenizer.ggml.add_bos_token", true.into()),
        ("tokenizer.ggml.bos_token_id", 0u32.into()),
        ("tokenizer.ggml.add_sep_token", true.into()),
        ("tokenizer.ggml.seperator_token_id", 1u32.into()),
    ];
    let tokenizer = ready(with(unigram(), flags));
    let (mut pair, signals) = (Vec::new(), Signals::default());
    let split = tokenizer
        .encode_pair(["a", "ab"], 100, signals, &mut pair)
        .unwrap();
    assert_eq!((split, &pair[..]), (4, &[0, 6, 1, 1, 3, 7, 1][..]));
}

#[test]
fn monotonous_megabytes_are_fast_here_too() {
    let megabyte = |unit: &str| unit.repeat((1 << 20) / unit.len());
    let texts = [
        megabyte("a"),
        megabyte(" "),
        megabyte("é"),
        megabyte("ab x"),
        megabyte("日"),
    ];
    for name in ["unigram", "unigram-bytes", "wordpiece"] {
        let tokenizer = changed(&file(name), &[]);
        for text in &texts {
            let start = Instant::now();
            let ids = encode(&tokenizer, text);
            let (time, first) = (start.elapsed(), text.chars().next());
            println!(
                "{name}: {first:?}: {} ms, {} tokens",
                time.as_millis(),
                ids.len()
            );
            // The aim is 1 s when optimized and alone; tests are neither.
            assert!(
                time < Duration::from_secs(30),
                "{name}: {first:?}: {time:?}"
            );
        }
    }
}

#[test]
fn scores_that_are_no_numbers_are_refused() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut scores = vec![0.0; 10];
        scores[4] = bad;
        let error = load(&with(unigram(), vec![(SCORES, scores.into())])).unwrap_err();
        let place = "key 'tokenizer.ggml.scores[4]'";
        assert!(error.place().starts_with(place), "{error}");
        assert_eq!(error.code(), Code::Format);
    }
    let missing: Entries = unigram()
        .into_iter()
        .filter(|(key, _)| *key != SCORES)
        .collect();
    assert_eq!(load(&missing).unwrap_err().code(), Code::Format);
}

#[test]
fn what_is_encoded_comes_back() {
    for name in ["unigram", "unigram-bytes", "wordpiece"] {
        let tokenizer = changed(&file(name), &[]);
        for text in ["the old house", "walking walked walks", "12 345"] {
            let mut ids = Vec::new();
            let options = EncodeOptions {
                add_special: true,
                parse_special: false,
            };
            tokenizer.encode(text, options, &mut ids).unwrap();
            assert_eq!(decode(&tokenizer, &ids), text, "{name}");
        }
    }
}

const CHARS_MAP: &str = "tokenizer.ggml.precompiled_charsmap";

#[test]
fn hostile_maps_are_refused_with_their_place_or_harmless() {
    let gguf = open(&file("unigram"));
    let Some(Value::Array(Array::U8(map))) = gguf.metadata().get(CHARS_MAP) else {
        panic!("the vocabulary has a map");
    };
    let text = "the ＡＢＣ ﬁnds\u{200b} e\u{301}";
    let (mut refused, mut ran) = (0, 0);
    let step = (map.len() / 3000).max(1);
    for (at, bit) in (0..map.len()).step_by(step).zip((0..8).cycle()) {
        let mut bytes = map.to_vec();
        bytes[at] ^= 1 << bit;
        match load(&with(unigram(), vec![(CHARS_MAP, bytes.into())])) {
            Ok(tokenizer) => {
                encode(&tokenizer.unwrap(), text);
                ran += 1;
            }
            Err(error) => {
                assert_eq!(error.code(), Code::Format, "{error}");
                let place = format!("key '{CHARS_MAP}' at offset ");
                assert!(error.place().starts_with(&place), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 50 && ran > 50, "{refused} refused, {ran} ran");
    for bad in [vec![1u8], vec![0; 4], vec![255; 100]] {
        assert!(load(&with(unigram(), vec![(CHARS_MAP, bad.into())])).is_err());
    }
    assert!(load(&with(unigram(), vec![(CHARS_MAP, "text".into())])).is_err());
}
