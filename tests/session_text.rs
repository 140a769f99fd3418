//! The text that a session streams: whatever the tokens cut, whoever stops, the texts of all events
//! joined are the text of the tokens that were kept.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/tiny.rs"]
mod tiny;

use std::path::Path;

use lightgpt::control::Control;
use lightgpt::error::Code;
use lightgpt::gguf::{Source, Strings};
use lightgpt::model::{Model, OpenOptions};
use lightgpt::sampler::{Sampler, SamplerOptions};
use lightgpt::session::{Action, Event, GenerateOptions, Session};
use lightgpt::tokenizer::{DecodeOptions, EncodeOptions};

use tiny::{SMALL, Sizes, Tiny, session, team};

#[test]
fn a_model_with_an_unknown_tokenizer_runs_on_tokens() {
    for (key, value) in [
        ("tokenizer.ggml.model", "of-tomorrow"),
        ("tokenizer.ggml.pre", "of-tomorrow"),
    ] {
        let mut tiny = Tiny::new(SMALL).with_tokenizer(11);
        tiny.set("tokenizer.ggml.model", "gpt2");
        let model = tiny.set(key, value).open();
        let reason = model.tokenizer().unwrap_err();
        assert_eq!(reason.code(), Code::Unsupported);
        assert!(reason.place().contains(key), "{reason}");
        assert!(reason.to_string().contains(value), "{reason}");
        let mut session = session(&model, &team(1));
        let fed = session.feed_text("a", EncodeOptions::default());
        assert_eq!(fed.unwrap_err(), reason);
        session.feed(&[1, 2, 3]).unwrap();
        let sampler = Sampler::new(&SamplerOptions::default()).unwrap();
        let options = GenerateOptions {
            tokens_max: 5,
            ..GenerateOptions::new(sampler)
        };
        assert_eq!(text_of(&mut session, &options, 0), "");
        assert_eq!(session.tokens().len(), 8);
        // One that is known and damaged is refused.
        tiny.set("tokenizer.ggml.model", "llama");
        let bytes = tiny.set("tokenizer.ggml.scores", 1u32).bytes();
        let open = |describe_only| {
            let options = OpenOptions {
                describe_only,
                ..OpenOptions::default()
            };
            Model::open(Source::Owned(bytes.clone()), &options, &mut Control::none())
        };
        for describe_only in [false, true] {
            assert_eq!(open(describe_only).unwrap_err().code(), Code::Format);
        }
    }
}

#[test]
fn a_file_with_an_unknown_tokenizer_can_be_looked_at() {
    let options = OpenOptions {
        describe_only: true,
        ..OpenOptions::default()
    };
    let mut tiny = Tiny::new(SMALL).with_tokenizer(11);
    let bytes = tiny.set("tokenizer.ggml.model", "of-tomorrow").bytes();
    let model = Model::open(Source::Owned(bytes), &options, &mut Control::none()).unwrap();
    let metadata = model.gguf().metadata();
    assert_eq!(
        metadata.str("tokenizer.ggml.model"),
        Ok(Some("of-tomorrow"))
    );
    assert_eq!(model.architecture(), "llama");
    let reason = model.tokenizer().unwrap_err();
    assert_eq!(reason.code(), Code::Unsupported);
    let text = "key 'tokenizer.ggml.model' at offset ";
    assert!(reason.place().starts_with(text), "{reason}");
    assert!(reason.to_string().contains("of-tomorrow"), "{reason}");
}

/// Generates and returns the joined text of all events.
fn text_of(session: &mut Session, options: &GenerateOptions, stop: usize) -> String {
    let (mut text, mut events) = (String::new(), 0);
    let mut collect = |event: &Event<'_>| {
        text.push_str(event.text);
        events += 1;
        if events == stop {
            Action::Stop
        } else {
            Action::Continue
        }
    };
    session
        .generate(options, &mut Control::none(), &mut collect)
        .unwrap();
    text
}

#[test]
fn the_texts_of_all_events_are_the_text_of_the_tokens() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tales-4m-q8_0.gguf");
    let options = OpenOptions::default();
    let model = Model::open(Source::Path(&path), &options, &mut Control::none()).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let mut session = session(&model, &team(2));
    let add = EncodeOptions {
        add_special: true,
        ..EncodeOptions::default()
    };
    for seed in 0..8 {
        for prompt in ["", "Once upon a time"] {
            session.rewind(0).unwrap();
            if session.feed_text(prompt, add).unwrap() == 0 {
                session.feed(&[tokenizer.eos().unwrap()]).unwrap();
            }
            let start = session.tokens().len();
            let sampler = SamplerOptions {
                temperature: 3.0,
                top_k: 0,
                top_p: 1.0,
                seed: Some(seed),
                ..SamplerOptions::default()
            };
            let sampler = Sampler::new(&sampler).unwrap();
            let options = GenerateOptions {
                tokens_max: 30,
                ignore_end: true,
                ..GenerateOptions::new(sampler)
            };
            let text = text_of(&mut session, &options, if seed % 2 == 0 { 0 } else { 9 });
            let decode = DecodeOptions {
                special: false,
                start: prompt.is_empty(),
            };
            let expected = tokenizer
                .decode_text(&session.tokens()[start..], decode)
                .unwrap();
            assert_eq!(text, expected);
        }
    }
}

#[test]
fn a_cancel_takes_back_text_that_is_held_for_a_stop_string() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tales-4m-q8_0.gguf");
    let options = OpenOptions::default();
    let model = Model::open(Source::Path(&path), &options, &mut Control::none()).unwrap();
    let mut session = session(&model, &team(2));
    let add = EncodeOptions {
        add_special: true,
        ..EncodeOptions::default()
    };
    let greedy = SamplerOptions {
        temperature: 0.0,
        ..SamplerOptions::default()
    };
    let mut options = GenerateOptions {
        tokens_max: 12,
        ..GenerateOptions::new(Sampler::new(&greedy).unwrap())
    };
    // A turn that stays, and what the next one says.
    session.feed_text("Once upon a time", add).unwrap();
    text_of(&mut session, &options, 0);
    let kept = session.tokens().to_vec();
    let expected = text_of(&mut session, &options, 0);
    session.rewind(kept.len()).unwrap();
    // All of it may be the start of the stop string, so none of it is shown.
    options.stops = vec![format!("{expected}#")];
    let mut events = 0;
    let mut cancel = |event: &Event<'_>| {
        assert_eq!(event.text, "");
        events += 1;
        if events == 8 {
            Action::Cancel
        } else {
            Action::Continue
        }
    };
    let cancelled = session.generate(&options, &mut Control::none(), &mut cancel);
    assert_eq!(cancelled.unwrap_err().code(), Code::Cancelled);
    assert_eq!(session.tokens(), kept);
    assert_eq!(session.text(), "");
    // Nothing of it comes later.
    assert_eq!(text_of(&mut session, &options, 0), expected);
}

#[test]
fn broken_code_points_reach_the_callback_as_the_decoder_gives_them() {
    let texts = [
        "<unk>", "<s>", "</s>", "<0xE2>", "<0x82>", "<0xAC>", "<0xFF>", "<0xF0>", "a", "é",
    ];
    let texts = [&texts[..], &["▁b"]].concat();
    let mut tiny = Tiny::new(Sizes {
        context: 256,
        ..SMALL
    })
    .with_tokenizer(11);
    tiny.set(
        "tokenizer.ggml.tokens",
        texts.into_iter().collect::<Strings>(),
    );
    tiny.set(
        "tokenizer.ggml.token_type",
        vec![2i32, 3, 3, 6, 6, 6, 6, 6, 1, 1, 1],
    );
    let model = tiny.open();
    let tokenizer = model.tokenizer().unwrap();
    let mut session = session(&model, &team(1));
    let mut replaced = 0;
    for seed in 0..40 {
        session.rewind(0).unwrap();
        session.feed(&[1]).unwrap();
        let sampler = SamplerOptions {
            temperature: 5.0,
            top_k: 0,
            top_p: 1.0,
            seed: Some(seed),
            ..SamplerOptions::default()
        };
        let sampler = Sampler::new(&sampler).unwrap();
        let options = GenerateOptions {
            tokens_max: 20,
            ignore_end: true,
            ..GenerateOptions::new(sampler)
        };
        let text = text_of(
            &mut session,
            &options,
            if seed % 2 == 0 { 0 } else { seed as usize },
        );
        let decode = DecodeOptions {
            special: false,
            start: true,
        };
        assert_eq!(
            text,
            tokenizer
                .decode_text(&session.tokens()[1..], decode)
                .unwrap()
        );
        replaced += text.matches(char::REPLACEMENT_CHARACTER).count();
    }
    assert!(replaced > 40, "{replaced}");
}
