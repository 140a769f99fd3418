//! Embeddings and scores over the C interface.
#![allow(unsafe_code, clippy::unwrap_used)] // C's side of the interface

use std::ffi::{CString, c_void};
use std::ptr;

use lightgpt::capi::*;

#[path = "support/encoder.rs"]
mod encoder;
#[path = "support/interface.rs"]
mod interface;
use interface::{last_error, new, ok};

/// A model that keeps what it is made of, and a session on it.
struct Opened {
    model: *mut lightgpt_model,
    session: *mut lightgpt_session,
    _bytes: Vec<u8>,
}

impl Opened {
    fn new(bytes: Vec<u8>) -> Self {
        let (mut model, mut session) = (ptr::null_mut(), ptr::null_mut());
        let options = lightgpt_open_options {
            flags: LIGHTGPT_OPEN_COPY,
            ..new()
        };
        let data = bytes.as_ptr().cast::<c_void>();
        // SAFETY: the bytes are as many, and live as long as the result; places are of locals.
        unsafe {
            ok(lightgpt_model_open_memory(
                data,
                bytes.len(),
                None,
                ptr::null_mut(),
                &options,
                &raw mut model,
            ));
            ok(lightgpt_session_new(
                model,
                ptr::null(),
                ptr::null(),
                &raw mut session,
            ));
        }
        Self {
            model,
            session,
            _bytes: bytes,
        }
    }

    fn info(&self) -> lightgpt_model_info {
        let mut info = new();
        // SAFETY: the place is that of a local.
        ok(unsafe { lightgpt_model_describe(self.model, &raw mut info) });
        info
    }

    /// The status and what was given, in a buffer of `cap` numbers.
    fn embed(&self, text: &str, pooling: u32, cap: usize) -> (i32, Vec<f32>, usize) {
        let options = lightgpt_embed_options { pooling, ..new() };
        let flags = LIGHTGPT_TEXT_ADD_SPECIAL;
        let (mut out, mut needed) = (vec![7.0; cap], 0);
        let (data, bytes) = (text.as_ptr().cast(), text.len());
        let buf = if cap == 0 {
            ptr::null_mut()
        } else {
            out.as_mut_ptr()
        };
        // SAFETY: texts and buffers are as long as they say.
        let status = unsafe {
            lightgpt_session_embed(
                self.session,
                data,
                bytes,
                flags,
                &options,
                buf,
                cap,
                &raw mut needed,
            )
        };
        (status, out, needed)
    }

    fn rerank(&self, query: &str, text: &str, out: &mut [f32]) -> (i32, usize) {
        let mut needed = 0;
        let texts = [query, text].map(|text| CString::new(text).unwrap());
        let buf = if out.is_empty() {
            ptr::null_mut()
        } else {
            out.as_mut_ptr()
        };
        // SAFETY: texts and buffers are as long as they say.
        let status = unsafe {
            lightgpt_session_rerank(
                self.session,
                texts[0].as_ptr(),
                query.len(),
                texts[1].as_ptr(),
                text.len(),
                buf,
                out.len(),
                &raw mut needed,
            )
        };
        (status, needed)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        ok(lightgpt_session_free(self.session));
        ok(lightgpt_model_free(self.model));
    }
}

#[test]
fn an_encoder_embeds_and_does_nothing_else() {
    let opened = Opened::new(encoder::with_words("bert"));
    let info = opened.info();
    assert_eq!((info.abilities, info.pooling), (0, LIGHTGPT_POOLING_MEAN));
    assert_eq!((info.embedding, info.scores, info.dim), (32, 0, 32));

    let text = "the dog ran";
    let (status, _, needed) = opened.embed(text, LIGHTGPT_POOLING_AUTO, 0);
    assert_eq!((status, needed), (LIGHTGPT_OK, 32));
    let (status, auto, _) = opened.embed(text, LIGHTGPT_POOLING_AUTO, 32);
    assert_eq!(status, LIGHTGPT_OK);
    let squares: f32 = auto.iter().map(|x| x * x).sum();
    assert!((squares - 1.0).abs() < 1e-5);
    assert_eq!(opened.embed(text, LIGHTGPT_POOLING_MEAN, 32).1, auto);
    assert_ne!(opened.embed(text, LIGHTGPT_POOLING_CLS, 32).1, auto);
    let (status, rows, needed) = opened.embed(text, LIGHTGPT_POOLING_NONE, 200);
    assert_eq!((status, needed), (LIGHTGPT_OK, 5 * 32));
    assert_eq!(rows[..32], opened.embed(text, LIGHTGPT_POOLING_CLS, 32).1);
    assert_eq!(rows[160..], [7.0; 40], "the rest is left alone");

    let (status, out, needed) = opened.embed(text, LIGHTGPT_POOLING_AUTO, 31);
    assert_eq!((status, needed), (LIGHTGPT_BUFFER_TOO_SMALL, 32));
    assert_eq!(out, [7.0; 31]);
    for (text, pooling, status, part) in [
        (
            text,
            LIGHTGPT_POOLING_RANK,
            LIGHTGPT_INVALID_ARGUMENT,
            "options.pooling",
        ),
        (text, 99, LIGHTGPT_INVALID_ARGUMENT, "options.pooling"),
        (
            &"one two ".repeat(48),
            0,
            LIGHTGPT_CONTEXT_FULL,
            "at most 96 tokens",
        ),
    ] {
        assert_eq!(opened.embed(text, pooling, 32).0, status);
        assert!(last_error().contains(part), "{}", last_error());
    }
    let (status, _) = opened.rerank("a", "b", &mut [0.0]);
    assert_eq!(status, LIGHTGPT_UNSUPPORTED);
    assert!(last_error().contains("no cls.weight"), "{}", last_error());
    // SAFETY: texts and buffers are as long as they say, or NULL.
    unsafe {
        let fed = lightgpt_session_feed_text(opened.session, c"a".as_ptr(), 1, 0, ptr::null_mut());
        assert_eq!(fed, LIGHTGPT_UNSUPPORTED);
        assert!(
            last_error().contains("bert is an encoder"),
            "{}",
            last_error()
        );
        let made = lightgpt_session_generate(opened.session, ptr::null(), None, ptr::null_mut());
        assert_eq!(made, LIGHTGPT_UNSUPPORTED);
        let logits = lightgpt_session_logits(opened.session, ptr::null_mut(), 0, &mut 0);
        assert_eq!(logits, LIGHTGPT_UNSUPPORTED);
    }
}

#[test]
fn tokens_are_embedded_as_their_text() {
    let opened = Opened::new(encoder::with_words("nomic-bert"));
    let expected = opened.embed("the dog", LIGHTGPT_POOLING_AUTO, 32).1;
    let (mut tokens, mut count) = ([0; 8], 0);
    let (mut out, mut needed) = ([0.0; 32], 0);
    let flags = LIGHTGPT_TEXT_ADD_SPECIAL;
    // SAFETY: texts and buffers are as long as they say.
    unsafe {
        let text = c"the dog".as_ptr();
        let buf = tokens.as_mut_ptr();
        ok(lightgpt_model_tokenize(
            opened.model,
            text,
            7,
            flags,
            buf,
            8,
            &raw mut count,
        ));
        let mut embed = |tokens: &[u32], options: *const lightgpt_embed_options| {
            let (data, len) = (tokens.as_ptr(), tokens.len());
            let buf = out.as_mut_ptr();
            let status = lightgpt_session_embed_tokens(
                opened.session,
                data,
                len,
                options,
                buf,
                32,
                &raw mut needed,
            );
            (status, out.to_vec())
        };
        assert_eq!(
            embed(&tokens[..count], ptr::null()),
            (LIGHTGPT_OK, expected.clone())
        );
        assert_eq!(embed(&[], ptr::null()).0, LIGHTGPT_INVALID_ARGUMENT);
        assert_eq!(embed(&[96], ptr::null()).0, LIGHTGPT_INVALID_ARGUMENT);
        let raw = lightgpt_embed_options {
            flags: LIGHTGPT_EMBED_RAW,
            ..new()
        };
        let (status, raw) = embed(&tokens[..count], &raw);
        let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert_eq!(status, LIGHTGPT_OK);
        for (raw, unit) in raw.iter().zip(&expected) {
            assert!((raw - unit * length).abs() < 1e-5);
        }
        let unknown = lightgpt_embed_options {
            flags: 1 << 9,
            ..new()
        };
        assert_eq!(embed(&[4], &unknown).0, LIGHTGPT_UNSUPPORTED);
    }
}

#[test]
fn a_model_that_ranks_scores_pairs() {
    let opened = Opened::new(encoder::with_words("bert-rank"));
    let info = opened.info();
    assert_eq!((info.pooling, info.scores), (LIGHTGPT_POOLING_RANK, 1));
    assert_eq!(opened.rerank("the dog", "ran", &mut []), (LIGHTGPT_OK, 1));
    let mut scores = [[0.0]; 3];
    let texts = ["ran home", "the cat ran", "ran home"];
    for (score, text) in scores.iter_mut().zip(texts) {
        assert_eq!(opened.rerank("the dog", text, score), (LIGHTGPT_OK, 1));
    }
    assert_ne!(scores[0], scores[1]);
    assert_eq!(scores[0], scores[2]);
    let (status, ..) = opened.embed("the dog", LIGHTGPT_POOLING_AUTO, 32);
    assert_eq!(status, LIGHTGPT_UNSUPPORTED);
    assert!(last_error().contains("rerank"), "{}", last_error());
    assert_eq!(
        opened.embed("the dog", LIGHTGPT_POOLING_MEAN, 32).0,
        LIGHTGPT_OK
    );
}

#[test]
fn the_widths_are_told() {
    for (name, abilities, embedding, scores) in [
        ("gemma-embedding", 0, 24, 0),
        ("modern-bert", 0, 32, 3),
        ("llama-tied", LIGHTGPT_MODEL_GENERATES, 48, 0),
    ] {
        let info = Opened::new(std::fs::read(encoder::golden(name)).unwrap()).info();
        let told = (info.abilities, info.embedding, info.scores);
        assert_eq!(told, (abilities, embedding, scores), "{name}");
    }
}
