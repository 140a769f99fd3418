//! The tokenizer on small vocabularies made here: ids worked out by hand, and hostile files.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use lightgpt::control::Control;
use lightgpt::error::{Code, Result};
use lightgpt::gguf::{Gguf, LoadOptions, Source, Strings, Value, Writer};
use lightgpt::tokenizer::{Attribute, DecodeOptions, EncodeOptions, StreamDecoder, Tokenizer};

type Entries = Vec<(&'static str, Value)>;

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";

fn load(entries: &Entries) -> Result<Option<Tokenizer>> {
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
fn with(mut entries: Entries, changes: Entries) -> Entries {
    entries.extend(changes);
    entries
}

fn strings<S: AsRef<[u8]>>(items: &[S]) -> Value {
    items.iter().collect::<Strings>().into()
}

/// Byte-level: ids 0.. are the tokens below in their order.
const BPE_TOKENS: [&str; 14] = [
    "a", "b", "c", "Ġ", "ab", "bc", "abc", "Ġa", "cab", "<|end|>", "<eot>", "<x>", "<xy>", "Ã",
];
const BPE_TYPES: [i32; 14] = [1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 4, 4, 1];

fn bpe() -> Entries {
    vec![
        (MODEL, "gpt2".into()),
        (TOKENS, strings(&BPE_TOKENS)),
        (TYPES, BPE_TYPES.to_vec().into()),
        (MERGES, strings(&["a b", "b c", "ab c", "Ġ a"])),
    ]
}

const SPM_TOKENS: [&str; 15] = [
    "<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "▁", "a", "b", "▁a", "ab", "▁ab", "ba", "aa",
    "<x>", "▁▁",
];
const SPM_TYPES: [i32; 15] = [2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 1, 1, 4, 1];
const SPM_SCORES: [f32; 15] = [
    0.0, 0.0, 0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -2.0, -1.0, -3.0, -1.0, -4.0, 0.0, -5.0,
];

fn spm() -> Entries {
    vec![
        (MODEL, "llama".into()),
        (TOKENS, strings(&SPM_TOKENS)),
        (TYPES, SPM_TYPES.to_vec().into()),
        (SCORES, SPM_SCORES.to_vec().into()),
    ]
}

fn ready(entries: Entries) -> Tokenizer {
    load(&entries).unwrap().unwrap()
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer
        .encode(text, EncodeOptions::default(), &mut ids)
        .unwrap();
    ids
}

fn parse(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    let options = EncodeOptions {
        add_special: true,
        parse_special: true,
    };
    tokenizer.encode(text, options, &mut ids).unwrap();
    ids
}

#[test]
fn merges_go_by_rank_then_from_the_left() {
    let tokenizer = ready(bpe());
    let cases: [(&str, &[u32]); 9] = [
        ("", &[]),
        ("abc", &[6]),
        // "a b" goes before "b c" although it stands to the right.
        ("bcab", &[5, 4]),
        ("abab", &[4, 4]),
        // "ab" and "c" are joined before the space could take the a.
        (" abc", &[3, 6]),
        (" a", &[7]),
        // "cab" is a token that no merge makes.
        ("cab", &[2, 4]),
        // A byte without a token is left out: there is no unknown token.
        ("azb", &[0, 1]),
        // The first of the two bytes of é has a token.
        ("é", &[13]),
    ];
    for (text, ids) in cases {
        assert_eq!(encode(&tokenizer, text), ids, "{text:?}");
    }
    let whole = ready(with(bpe(), vec![(PRE, "llama-bpe".into())]));
    assert_eq!(encode(&whole, "cab"), [8]);
    assert_eq!(encode(&whole, "abcab"), [6, 4]);
    let unknown = with(
        bpe(),
        vec![("tokenizer.ggml.unknown_token_id", 2u32.into())],
    );
    assert_eq!(encode(&ready(unknown), "azb"), [0, 2, 1]);
}

#[test]
fn scores_go_from_the_highest_then_from_the_left() {
    let tokenizer = ready(spm());
    let cases: [(&str, &[u32]); 9] = [
        ("", &[]),
        // "ab" scores higher than "▁a"; then "▁ab" is there.
        ("ab", &[10]),
        // Equal scores: "ab" is left of "ba".
        ("aba", &[10, 6]),
        ("a", &[8]),
        (" a", &[5, 8]),
        ("  ", &[14, 5]),
        ("a▁ab", &[8, 10]),
        // A character without a token is spelled in bytes; one without bytes is unknown.
        ("é", &[5, 3, 4]),
        ("a中", &[8, 0]),
    ];
    for (text, ids) in cases {
        assert_eq!(encode(&tokenizer, text), ids, "{text:?}");
    }
    let bare = ready(with(
        spm(),
        vec![("tokenizer.ggml.add_space_prefix", false.into())],
    ));
    assert_eq!(encode(&bare, "aaa"), [12, 6]);
    assert_eq!(encode(&bare, "bab"), [11, 7]);
    assert_eq!(encode(&bare, "ab ab"), [9, 10]);
}

#[test]
fn words_merge_where_a_token_crosses_them() {
    let mut tokens = SPM_TOKENS;
    tokens[14] = "a▁b";
    let mut scores = SPM_SCORES;
    let bare = ("tokenizer.ggml.add_space_prefix", Value::from(false));
    // "a▁" and "▁b" are no tokens, so "a▁b" cannot grow from its parts.
    let entries = with(spm(), vec![(TOKENS, strings(&tokens)), bare.clone()]);
    assert_eq!(encode(&ready(entries), "a b"), [6, 5, 7]);
    tokens[12] = "a▁";
    scores[12] = 1.0;
    let changes = vec![
        (TOKENS, strings(&tokens)),
        (SCORES, scores.to_vec().into()),
        bare,
    ];
    assert_eq!(encode(&ready(with(spm(), changes)), "a b"), [14]);
}

#[test]
fn special_tokens_are_found_longest_first() {
    let tokenizer = ready(bpe());
    assert_eq!(encode(&tokenizer, "a<x>b"), [0, 11, 1]);
    assert_eq!(encode(&tokenizer, "<xy><x>"), [12, 11]);
    assert_eq!(encode(&tokenizer, "<x<x>a"), [11, 0]);
    assert_eq!(encode(&tokenizer, "a<eot>b").first(), Some(&0));
    assert!(!encode(&tokenizer, "a<eot>b").contains(&10));
    assert_eq!(parse(&tokenizer, "ab<eot><xy>"), [4, 10, 12]);
    // The scored family puts its space in front of each stretch of text.
    let tokenizer = ready(spm());
    assert_eq!(encode(&tokenizer, "a<x>a"), [8, 13, 8]);
    assert_eq!(parse(&tokenizer, "</s>a"), [1, 2, 8]);
}

#[test]
fn only_the_first_space_is_taken_away() {
    let tokenizer = ready(spm());
    let decode = |ids: &[u32], special, start| {
        tokenizer
            .decode_text(ids, DecodeOptions { special, start })
            .unwrap()
    };
    assert_eq!(decode(&[8, 8], false, true), "a a");
    assert_eq!(decode(&[8, 8], false, false), " a a");
    assert_eq!(decode(&[1, 8], false, true), "a");
    assert_eq!(decode(&[1, 8, 2], true, true), "<s>a</s>");
    assert_eq!(decode(&[6, 8], false, true), "a a");
    assert_eq!(decode(&[13, 8], false, true), "<x> a");
    assert_eq!(decode(&[3, 4, 3, 6, 3], false, true), "é\u{fffd}a\u{fffd}");
    let tokenizer = ready(bpe());
    let start = DecodeOptions {
        start: true,
        ..DecodeOptions::default()
    };
    assert_eq!(tokenizer.decode_text(&[7], start).unwrap(), " a");
    let error = tokenizer.decode_text(&[0, 14], start).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let mut out = vec![1];
    assert!(tokenizer.decode(&[0, u32::MAX], start, &mut out).is_err());
    assert_eq!(out, [1]);
}

#[test]
fn a_cloned_stream_rolls_back() {
    let tokenizer = ready(spm());
    let mut text = String::new();
    let mut decoder = StreamDecoder::new(DecodeOptions::default());
    decoder.push(&tokenizer, 3, &mut text).unwrap();
    assert_eq!((text.as_str(), decoder.held()), ("", &[0xc3][..]));
    let mark = decoder.clone();
    decoder.push(&tokenizer, 6, &mut text).unwrap();
    assert_eq!(text, "\u{fffd}a");
    text.clear();
    decoder = mark;
    decoder.push(&tokenizer, 4, &mut text).unwrap();
    assert_eq!(text, "é");
    assert!(decoder.push(&tokenizer, 99, &mut text).is_err());
    decoder.finish(&mut text);
    assert_eq!(text, "é");
}

#[test]
fn roles_come_from_the_file_or_by_name() {
    let tokenizer = ready(spm());
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.unknown()),
        (Some(1), Some(2), Some(0))
    );
    assert!(tokenizer.adds_bos() && !tokenizer.adds_eos() && tokenizer.is_end(2));
    assert_eq!(parse(&tokenizer, "a"), [1, 8]);
    assert_eq!(tokenizer.attribute(3), Some(Attribute::Byte));
    assert_eq!(tokenizer.attribute(15), None);
    assert_eq!(tokenizer.token_bytes(3), Some(&b"\xc3"[..]));
    assert_eq!(tokenizer.token_text(3), Some(&b"<0xC3>"[..]));
    assert_eq!(tokenizer.token_id(b"</s>"), Some(2));

    let both = vec![
        ("tokenizer.ggml.add_bos_token", false.into()),
        ("tokenizer.ggml.add_eos_token", true.into()),
        ("tokenizer.ggml.eos_token_id", 1u32.into()),
        ("tokenizer.ggml.padding_token_id", 0u32.into()),
    ];
    let tokenizer = ready(with(spm(), both));
    assert_eq!(parse(&tokenizer, "a"), [8, 1]);
    assert_eq!(tokenizer.padding(), Some(0));

    // Id 11 is no control token, so the default does not apply; the end of turn is found by name.
    let tokenizer = ready(bpe());
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.eot()),
        (None, None, Some(9))
    );
    assert_eq!(tokenizer.ends(), [9]);
    assert!(!tokenizer.adds_bos());
    let mut tokens = BPE_TOKENS;
    tokens[11] = "<|return|>";
    let mut types = BPE_TYPES;
    types[11] = 3;
    let changes = vec![(TOKENS, strings(&tokens)), (TYPES, types.to_vec().into())];
    let tokenizer = ready(with(bpe(), changes));
    assert_eq!((tokenizer.bos(), tokenizer.eot()), (Some(11), Some(11)));
    assert_eq!(tokenizer.ends(), [11], "<|end|> only ends a message there");
}

#[test]
fn files_without_a_tokenizer_have_none() {
    assert!(load(&vec![]).unwrap().is_none());
    for model in ["none", "no_vocab"] {
        assert!(load(&vec![(MODEL, model.into())]).unwrap().is_none());
    }
}

#[test]
fn tiny_vocabularies_have_no_default_ids() {
    let one = vec![
        (MODEL, "llama".into()),
        (TOKENS, strings(&["a"])),
        (SCORES, vec![0.0f32].into()),
    ];
    let tokenizer = ready(one);
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.unknown()),
        (None, None, Some(0))
    );
    assert_eq!(parse(&tokenizer, "a"), [0, 0]);
}

fn place_of(key: &str) -> String {
    format!("key '{key}'")
}

fn changed(at: usize, text: impl AsRef<[u8]>) -> Value {
    let mut tokens: Vec<Vec<u8>> = SPM_TOKENS
        .iter()
        .map(|token| token.as_bytes().into())
        .collect();
    tokens[at] = text.as_ref().into();
    strings(&tokens)
}

#[test]
fn hostile_metadata_is_refused_by_name() {
    let mut types = SPM_TYPES;
    types[0] = 7;
    let mut scores = SPM_SCORES;
    scores[1] = f32::NAN;
    let long = "x".repeat(2000);
    let refused: Vec<(Entries, (&str, Value), &str)> = vec![
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
    ];
    for (entries, change, place) in refused {
        let found = change.1.type_name();
        let start = Instant::now();
        let error = load(&with(entries, vec![change])).unwrap_err();
        let place = place_of(place);
        assert_eq!(
            (error.code(), error.place()),
            (Code::Format, &*place),
            "{found}: {error}"
        );
        assert!(start.elapsed() < Duration::from_secs(1));
    }
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
            (Code::Format, &*place_of(key))
        );
    }
    for (key, value) in [(MODEL, "bert"), (PRE, "default"), (PRE, "of-tomorrow")] {
        let error = load(&with(bpe(), vec![(key, value.into())])).unwrap_err();
        assert_eq!(
            (error.code(), error.place()),
            (Code::Unsupported, &*place_of(key))
        );
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
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}
