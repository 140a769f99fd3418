//! The tokenizer's rules on small vocabularies made here, with ids worked out by hand.

use lightgpt::error::Code;
use lightgpt::gguf::Value;
use lightgpt::tokenizer::{Attribute, DecodeOptions, StreamDecoder};

#[path = "support/vocabularies.rs"]
mod vocabularies;
use vocabularies::*;

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
