//! Saved sessions go on as if they had never been away, and nothing that is damaged is taken for one.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/tiny.rs"]
mod tiny;

use std::fs;
use std::hash::Hasher;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use lightgpt::control::{Control, Signals};
use lightgpt::error::{Code, Error};
use lightgpt::kv::KvFormat;
use lightgpt::model::Model;
use lightgpt::sampler::{
    Candidates, Custom, CustomStage, Mirostat, Sampler, SamplerOptions, Stage,
};
use lightgpt::session::{GenerateOptions, Session, SessionOptions, Step};
use siphasher::sip128::{Hasher128, SipHasher13};

use tiny::{Noise, Sizes, Tiny, team};

/// Bytes in front of the head: magic, two versions, identity, length.
const HEAD_AT: usize = 48;

const SIZES: Sizes = Sizes {
    layers: 2,
    context: 700,
    ..tiny::SMALL
};

fn model() -> Arc<Model> {
    let mut tiny = Tiny::new(SIZES).with_tokenizer(11);
    tiny.set("tokenizer.ggml.model", "llama");
    tiny.open()
}

fn session(model: &Arc<Model>, kv: KvFormat) -> Session {
    let options = SessionOptions {
        kv: Some(kv),
        chunk: 64,
        ..SessionOptions::default()
    };
    Session::new(model.clone(), team(2), &options).unwrap()
}

fn saved(session: &Session, pages: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    session.save(pages, &mut bytes).unwrap();
    bytes
}

fn restored(model: &Arc<Model>, bytes: &[u8]) -> Result<Session, Error> {
    Session::restore(
        model.clone(),
        team(1),
        &SessionOptions::default(),
        &mut &*bytes,
    )
}

fn options(seed: u64, learns: bool) -> GenerateOptions {
    let sampler = SamplerOptions {
        temperature: 1.5,
        seed: Some(seed),
        mirostat: if learns { Mirostat::Two } else { Mirostat::Off },
        ..SamplerOptions::default()
    };
    GenerateOptions {
        tokens_max: 40,
        ignore_end: true,
        // Long enough to be held back often.
        stops: vec!["abcde".into(), "aaaaaaa".into()],
        log_probabilities: true,
        top_log_probabilities: 3,
        ..GenerateOptions::new(Sampler::new(&sampler).unwrap())
    }
}

/// Goes on to the end of the turn, and then with another turn: text and tokens.
fn go_on(mut session: Session) -> (String, Vec<u32>) {
    let mut text = String::new();
    let mut finish = |session: &mut Session| {
        loop {
            let step = session.step(&mut Control::none()).unwrap();
            text.push_str(session.text());
            if matches!(step, Step::Finished(_)) {
                return;
            }
        }
    };
    if session.feed(&[]).is_err() {
        finish(&mut session);
    }
    session.feed(&[1, 5]).unwrap();
    session.begin(&options(9, true)).unwrap();
    finish(&mut session);
    (text, session.tokens().to_vec())
}

/// A call that pauses as soon as it may.
fn due() -> Control<'static> {
    Control {
        signals: Signals {
            deadline: Some(Instant::now()),
            ..Signals::default()
        },
        progress: None,
    }
}

#[test]
fn a_restored_session_goes_on_with_the_same_bits() {
    let model = model();
    let mut noise = Noise(5);
    for kv in [KvFormat::F16, KvFormat::F32, KvFormat::Q8_0] {
        for round in 0..24 {
            let mut session = session(&model, kv);
            let tokens: Vec<u32> = (0..noise.next(200))
                .map(|_| noise.next(11) as u32)
                .collect();
            session.feed(&tokens).unwrap();
            // Whole prompts, parts of them, none; turns that have begun, and ended.
            for _ in 0..noise.next(80) {
                session.prefill(&mut due()).unwrap();
            }
            if round % 3 > 0 && !tokens.is_empty() {
                session.begin(&options(round, round % 2 == 0)).unwrap();
                for _ in 0..noise.next(300) {
                    if let Step::Finished(_) = session.step(&mut due()).unwrap() {
                        break;
                    }
                }
            }
            let (whole, tokens_only) = (saved(&session, true), saved(&session, false));
            assert!(tokens_only.len() <= whole.len());
            let again = [whole, tokens_only].map(|bytes| restored(&model, &bytes).unwrap());
            let expected = go_on(session);
            for session in again {
                assert_eq!(session.context(), SIZES.context);
                assert_eq!(go_on(session), expected);
            }
        }
    }
}

/// Also in the middle of a turn, to whose begin they go back.
#[test]
fn states_are_saved() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for name in ["mamba", "falcon-h1"] {
        let model = tiny::open_path(&golden.join(name).join("model.gguf"));
        let mut before = session(&model, KvFormat::F16);
        let logits = |session: &mut Session| -> Vec<u32> {
            let logits = session.logits(&mut Control::none()).unwrap();
            logits.iter().map(|logit| logit.to_bits()).collect()
        };
        let evaluate = |session: &mut Session, tokens: std::ops::Range<u32>| {
            session.feed(&tokens.collect::<Vec<_>>()).unwrap();
            session.prefill(&mut Control::none()).unwrap();
        };
        evaluate(&mut before, 0..60);
        let at_60 = logits(&mut before);
        // Where all is evaluated, what follows goes on from the state.
        let mut same = restored(&model, &saved(&before, true)).unwrap();
        same.feed(&[3, 4, 5]).unwrap();
        assert_eq!(evaluated(&mut same), 3, "{name}");
        evaluate(&mut before, 10..20);
        before.feed(&[3, 4, 5]).unwrap();
        for pages in [true, false] {
            let bytes = saved(&before, pages);
            assert_eq!(bytes.len(), before.saved_bytes(pages).unwrap());
            let mut again = restored(&model, &bytes).unwrap();
            // Only the three that were not evaluated.
            assert_eq!(evaluated(&mut again), if pages { 3 } else { 73 });
            let mut fork = before.fork().unwrap();
            assert!(logits(&mut again) == logits(&mut fork), "{name} {pages}");
            again.rewind(60).unwrap();
            assert!(logits(&mut again) == at_60, "{name} {pages}");
        }
        assert!(saved(&before, true).len() > 2 * saved(&before, false).len());
        // One of another model's size, or none, is refused: what is evaluated must be there.
        let bytes = saved(&before, true);
        for at in (HEAD_AT..bytes.len()).step_by(997) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 64;
            assert!(restored(&model, &damaged).is_err(), "byte {at}");
        }
    }
}

/// How many tokens a session evaluates to have all.
fn evaluated(session: &mut Session) -> u64 {
    let mut wanted = 0;
    let mut report = |_, total| {
        wanted = total;
        true
    };
    let control = &mut Control {
        progress: Some(&mut report),
        ..Control::none()
    };
    session.prefill(control).unwrap();
    wanted
}

/// What stands between head and checksum.
fn saved_pages(session: &Session) -> Vec<u8> {
    let (mut bytes, head) = (saved(session, true), saved(session, false));
    bytes.truncate(bytes.len() - 16);
    // The heads may differ by a count or two.
    bytes.split_off(head.len() + 16)
}

/// Pages that are shared or were rewound hold more than a session's tokens; its file does not.
#[test]
fn nothing_of_others_is_saved() {
    let model = model();
    let mut noise = Noise(6);
    let long: Vec<u32> = (0..200).map(|_| noise.next(11) as u32).collect();
    let evaluate = |session: &mut Session, tokens: &[u32]| {
        session.feed(tokens).unwrap();
        session.prefill(&mut Control::none()).unwrap();
    };
    for kv in [KvFormat::F16, KvFormat::F32, KvFormat::Q8_0] {
        let options = SessionOptions {
            kv: Some(kv),
            unshared: true,
            ..SessionOptions::default()
        };
        let mut alone = Session::new(model.clone(), team(2), &options).unwrap();
        evaluate(&mut alone, &long[..90]);
        let expected = saved_pages(&alone);

        evaluate(&mut session(&model, kv), &long);
        let mut sharer = session(&model, kv);
        evaluate(&mut sharer, &long[..90]);
        assert!(sharer.metrics().reused_tokens > 64);
        assert!(saved_pages(&sharer) == expected, "{kv:?}");

        let mut rewound = Session::new(model.clone(), team(2), &options).unwrap();
        evaluate(&mut rewound, &long);
        rewound.rewind(90).unwrap();
        assert!(saved_pages(&rewound) == expected, "{kv:?}");
    }
}

/// Also where a window has moved over all but the last tokens, whose logits are wanted once more.
#[test]
fn what_was_restored_can_be_saved_again() {
    let mut tiny = Tiny::new(SIZES);
    tiny.set("llama.attention.sliding_window", 64_u32);
    let model = tiny.open();
    for len in [256, 320, 321, 512, 576] {
        let mut session = session(&model, KvFormat::F16);
        session.feed(&vec![3; len]).unwrap();
        session.prefill(&mut Control::none()).unwrap();
        let mut again = restored(&model, &saved(&session, true)).unwrap();
        let bits = |session: &mut Session| {
            let logits = session.logits(&mut Control::none()).unwrap();
            logits
                .iter()
                .map(|logit| logit.to_bits())
                .collect::<Vec<_>>()
        };
        let mut third = restored(&model, &saved(&again, true)).unwrap();
        let expected = bits(&mut session);
        assert!(bits(&mut again) == expected && bits(&mut third) == expected);
        let mut last = restored(&model, &saved(&third, true)).unwrap();
        assert!(bits(&mut last) == expected, "{len}");
    }
}

#[test]
fn a_cancelled_turn_goes_back_to_before_it_after_a_restore() {
    let model = model();
    let mut session = session(&model, KvFormat::F16);
    session.feed(&[1, 2, 3]).unwrap();
    session.logits(&mut Control::none()).unwrap();
    session.feed(&[4, 5]).unwrap();
    session.begin(&options(1, false)).unwrap();
    while session.tokens().len() < 9 {
        session.step(&mut Control::none()).unwrap();
    }
    let mut session = restored(&model, &saved(&session, true)).unwrap();
    session.canceller().cancel();
    let cancelled = session.step(&mut Control::none()).unwrap_err();
    assert_eq!(cancelled.code(), Code::Cancelled);
    assert_eq!(session.tokens(), [1, 2, 3]);
}

/// A session in the middle of everything: a turn, a stop string held back, a sampler that learns.
fn busy(model: &Arc<Model>) -> Session {
    let mut session = session(model, KvFormat::F16);
    session.feed(&[1, 2, 3, 4]).unwrap();
    session.begin(&options(1, true)).unwrap();
    while session.tokens().len() < 12 {
        session.step(&mut Control::none()).unwrap();
    }
    session
}

#[test]
fn damaged_bytes_are_refused() {
    let model = model();
    let bytes = saved(&busy(&model), true);
    restored(&model, &bytes).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let error = restored(&model, &damaged).unwrap_err();
        let expected = match at {
            16..24 => Code::Unsupported,
            24..40 => Code::InvalidArgument,
            _ => Code::Format,
        };
        let code = error.code();
        // What is damaged in the head may also ask for more than there can be.
        let asks = at >= HEAD_AT && code == Code::InvalidArgument;
        assert!(code == expected || asks, "byte {at}: {error}");
    }
    for len in (0..bytes.len()).step_by(7) {
        let error = restored(&model, &bytes[..len]).unwrap_err();
        assert_eq!(error.code(), Code::Format, "{len} bytes: {error}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(restored(&model, &longer).unwrap_err().code(), Code::Format);
    assert_eq!(restored(&model, b"{}").unwrap_err().code(), Code::Format);
}

/// Whoever makes a file can make its checksum: nothing in it may harm.
#[test]
fn no_head_harms_whatever_its_checksum() {
    let model = model();
    let bytes = saved(&busy(&model), false);
    let taken = forge(&model, &bytes, bytes.len() - 16, 3000);
    assert!(taken > 100, "{taken} were taken");
    // The head alone, with states behind it.
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let model = tiny::open_path(&golden.join("mamba/model.gguf"));
    let mut session = session(&model, KvFormat::F16);
    for tokens in [&[1; 30][..], &[2; 9], &[3; 4]] {
        session.feed(tokens).unwrap();
        session.prefill(&mut Control::none()).unwrap();
    }
    let bytes = saved(&session, true);
    let head = bytes[HEAD_AT - 8..HEAD_AT].try_into().unwrap();
    let end = HEAD_AT + u64::from_le_bytes(head) as usize;
    let taken = forge(&model, &bytes, end, 1000);
    assert!(taken > 100, "{taken} were taken");
}

/// Changes some bytes of the head, up to `end`, again and again; how often that is taken.
fn forge(model: &Arc<Model>, bytes: &[u8], end: usize, rounds: usize) -> usize {
    let mut noise = Noise(3);
    let mut taken = 0;
    for _ in 0..rounds {
        let mut forged = bytes.to_vec();
        for _ in 0..1 + noise.next(3) {
            forged[HEAD_AT + noise.next(end - HEAD_AT)] = noise.next(256) as u8;
        }
        let hashed = forged.len() - 16;
        let mut hash = SipHasher13::new();
        hash.write(&forged[..hashed]);
        let checksum = hash.finish128().as_u128().to_le_bytes();
        forged[hashed..].copy_from_slice(&checksum);
        let Ok(mut session) = restored(model, &forged) else {
            continue;
        };
        taken += 1;
        for _ in 0..6 {
            if session.step(&mut Control::none()).is_err() {
                break;
            }
        }
        let _ = session.rewind(session.tokens().len() / 2);
        let _ = session.feed(&[1]);
        let _ = session.logits(&mut Control::none());
    }
    taken
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = model();
    let session = busy(&model);
    let bytes = saved(&session, true);

    let other = Tiny::new(SIZES).open();
    let error = restored(&other, &bytes).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("another model"), "{error}");

    let restore = |options: &SessionOptions| {
        Session::restore(model.clone(), team(1), options, &mut &*bytes).map(|s| s.context())
    };
    let kv = |kv| SessionOptions {
        kv: Some(kv),
        ..SessionOptions::default()
    };
    assert_eq!(restore(&kv(KvFormat::F16)).unwrap(), SIZES.context);
    assert_eq!(
        restore(&kv(KvFormat::F32)).unwrap_err().code(),
        Code::InvalidArgument
    );
    let context = |context| SessionOptions {
        context,
        ..SessionOptions::default()
    };
    assert_eq!(restore(&context(12)).unwrap(), 12);
    assert_eq!(
        restore(&context(11)).unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(
        restore(&context(701)).unwrap_err().code(),
        Code::InvalidArgument
    );
}

/// Keys of a long context turn by other frequencies.
#[test]
fn pages_are_not_taken_to_where_keys_turn_otherwise() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let model = tiny::open_path(&folder.join("phi3-longrope/model.gguf"));
    let network = model.network().unwrap();
    let all = network.spec.context;
    let short = (1..all)
        .rev()
        .find(|context| !network.is_long(*context))
        .unwrap();
    let options = SessionOptions {
        context: short,
        ..SessionOptions::default()
    };
    let mut session = Session::new(model.clone(), team(1), &options).unwrap();
    session.feed(&[1, 2, 3]).unwrap();
    session.prefill(&mut Control::none()).unwrap();
    let longer = SessionOptions {
        context: all,
        ..SessionOptions::default()
    };
    let restore = |pages| {
        let bytes = saved(&session, pages);
        Session::restore(model.clone(), team(1), &longer, &mut &*bytes)
    };
    assert_eq!(restore(true).unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(restore(false).unwrap().context(), all);
}

#[test]
fn a_stage_of_the_users_own_cannot_be_saved() {
    struct Nothing;
    impl CustomStage for Nothing {
        fn apply(&mut self, _: &mut Candidates<'_>) -> Result<(), Error> {
            Ok(())
        }

        fn duplicate(&self) -> Box<dyn CustomStage> {
            Box::new(Nothing)
        }
    }
    let model = model();
    let mut session = session(&model, KvFormat::F16);
    session.feed(&[1, 2]).unwrap();
    let stages = vec![Stage::TopK(3), Stage::Custom(Custom(Box::new(Nothing)))];
    let sampler = Sampler::from_stages(stages, Some(1)).unwrap();
    session.begin(&GenerateOptions::new(sampler)).unwrap();
    let error = session.save(true, &mut Vec::new()).unwrap_err();
    assert_eq!(error.code(), Code::Unsupported);
    assert!(error.message().contains("stage 1"), "{error}");
}

#[test]
fn files_are_replaced_as_a_whole() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("saved");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let (model, path) = (model(), folder.join("chat.session"));
    let mut session = session(&model, KvFormat::F16);
    for tokens in [[1, 2, 3], [4, 5, 6]] {
        session.feed(&tokens).unwrap();
        session.prefill(&mut Control::none()).unwrap();
        session.save_file(&path, true).unwrap();
        let options = SessionOptions::default();
        let again = Session::restore_file(model.clone(), team(1), &options, &path).unwrap();
        assert_eq!(again.tokens(), session.tokens());
    }
    // What a process of the same number has left behind is in nobody's way.
    let left: Vec<_> = (0..100)
        .map(|call| folder.join(format!("chat.session.{}-{call}.part", std::process::id())))
        .collect();
    left.iter()
        .for_each(|part| fs::write(part, "half").unwrap());
    session.save_file(&path, true).unwrap();
    left.iter().for_each(|part| fs::remove_file(part).unwrap());
    let nowhere = folder.join("missing/chat.session");
    let error = session.save_file(&nowhere, true).unwrap_err();
    assert_eq!(error.code(), Code::Io);
    assert!(error.to_string().contains("missing"), "{error}");
    let options = SessionOptions::default();
    let error = Session::restore_file(model, team(1), &options, &nowhere).unwrap_err();
    assert_eq!(error.code(), Code::Io);
    // A folder cannot be replaced by a file; nothing is left beside it.
    fs::create_dir(folder.join("folder")).unwrap();
    assert!(session.save_file(&folder.join("folder"), true).is_err());
    let mut names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["chat.session", "folder"]);
}
