//! Sessions that begin like others before them: what they need not evaluate, and that nothing else
//! shows it.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/tiny.rs"]
mod tiny;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lightgpt::budget::Budget;
use lightgpt::control::Control;
use lightgpt::gguf::{LoadOptions, Source};
use lightgpt::kv::{KvFormat, PAGE_TOKENS, REUSE_MIN};
use lightgpt::model::{Model, OpenOptions};
use lightgpt::session::{Session, SessionOptions};
use lightgpt::team::Team;

use tiny::{Noise, SMALL, Sizes, Tiny, bits, open_path, team};

const SIZES: Sizes = Sizes {
    context: 2048,
    ..SMALL
};

fn session(model: &Arc<Model>, team: &Arc<Team>, options: &SessionOptions) -> Session {
    Session::new(model.clone(), team.clone(), options).unwrap()
}

fn unshared() -> SessionOptions {
    SessionOptions {
        unshared: true,
        ..SessionOptions::default()
    }
}

fn tokens(seed: u64, len: usize, vocab: usize) -> Vec<u32> {
    let mut noise = Noise(seed);
    (0..len).map(|_| noise.next(vocab) as u32).collect()
}

fn generate(session: &mut Session, tokens_max: usize) {
    let seed = session.tokens().len() as u64;
    tiny::generate(session, seed, tokens_max);
}

fn reused(session: &Session) -> usize {
    session.metrics().reused_tokens as usize
}

/// Models of the kinds of attention that there are.
fn models() -> [PathBuf; 5] {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    [
        root.join("models/tales-4m-q8_0.gguf"),
        root.join("tests/golden/llama-gqa/model.gguf"),
        root.join("tests/golden/cohere2-long/model.gguf"),
        root.join("tests/golden/gpt-oss/model.gguf"),
        root.join("tests/golden/deepseek3/model.gguf"),
    ]
}

#[test]
fn what_is_reused_does_not_show() {
    for path in models() {
        let model = open_path(&path);
        let spec = &model.network().unwrap().spec;
        let (vocab, len) = (spec.vocab, spec.context.min(200));
        let team = team(2);
        for kv in [KvFormat::F32, KvFormat::F16, KvFormat::Q8_0] {
            let options = SessionOptions {
                kv: Some(kv),
                ..SessionOptions::default()
            };
            let alone = SessionOptions {
                unshared: true,
                ..options.clone()
            };
            let all = tokens(1, len, vocab);
            let mut first = session(&model, &team, &options);
            first.feed(&all[..len - 20]).unwrap();
            bits(&mut first);
            generate(&mut first, 10);
            assert_eq!(reused(&first), 0);
            drop(first);
            for common in [0, 5, 8, 20, 37, len - 40, len - 20] {
                let mut prompt = all[..common].to_vec();
                prompt.extend(tokens(2 + common as u64, 15, vocab));
                let mut truth = session(&model, &team, &alone);
                truth.feed(&prompt).unwrap();
                let mut one = session(&model, &team, &options);
                one.feed(&prompt).unwrap();
                assert!(
                    bits(&mut one) == bits(&mut truth),
                    "{path:?} {kv:?} {common}"
                );
                let reused = reused(&one);
                // Random tokens may be the same once more.
                assert!(reused == 0 || reused >= common, "{reused} of {common}");
                assert!(
                    common < REUSE_MIN || reused >= common,
                    "{reused} of {common}"
                );
                generate(&mut one, 8);
                generate(&mut truth, 8);
                assert_eq!(one.tokens(), truth.tokens());
                assert!(
                    bits(&mut one) == bits(&mut truth),
                    "{path:?} {kv:?} {common}"
                );
                assert_eq!(truth.metrics().reused_tokens, 0);
            }
        }
    }
}

#[test]
fn only_those_who_may_share_do() {
    let model = Tiny::new(SIZES).open();
    let team = team(1);
    let prompt = tokens(1, 300, SIZES.vocab);
    let with = |kv, salt| SessionOptions {
        kv: Some(kv),
        salt,
        ..SessionOptions::default()
    };
    let run = |options: &SessionOptions| {
        let mut session = session(&model, &team, options);
        session.feed(&prompt).unwrap();
        bits(&mut session);
        reused(&session)
    };
    let kinds = [
        with(KvFormat::F16, 0),
        with(KvFormat::F32, 0),
        with(KvFormat::F16, 7),
    ];
    for options in &kinds {
        assert_eq!(run(options), 0, "{options:?}");
    }
    for options in &kinds {
        assert_eq!(run(options), 299, "{options:?}");
    }
    assert_eq!(run(&unshared()), 0);
    let statistics = model.prefixes().statistics();
    assert_eq!((statistics.lookups, statistics.hits), (6, 3));
    assert_eq!(statistics.tokens, 3 * 299);
    assert_eq!(statistics.pages, 3 * 300_u64.div_ceil(PAGE_TOKENS as u64));
}

/// A state is there for the ends of prompts and sessions only.
#[test]
fn states_are_shared_where_a_prompt_or_a_session_ended() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let team = team(2);
    for name in ["mamba", "mamba2", "falcon-h1", "lfm2", "qwen3next"] {
        let model = open_path(&root.join("tests/golden").join(name).join("model.gguf"));
        let vocab = model.network().unwrap().spec.vocab;
        let all = tokens(3, 200, vocab);
        let run = |options: &SessionOptions, end: usize, generated: usize| {
            let mut session = session(&model, &team, options);
            session.feed(&all[..end]).unwrap();
            let found = bits(&mut session);
            let reused = reused(&session);
            session.feed(&all[end..end + generated]).unwrap();
            session.prefill(&mut Control::none()).unwrap();
            (found, reused)
        };
        // The last token of a prompt is evaluated once more.
        let ends = [
            (70, 10, 0),
            (70, 0, 0),
            (100, 0, 80),
            (79, 0, 70),
            (150, 20, 100),
            (190, 0, 170),
        ];
        for (end, more, expected) in ends {
            let (found, reused) = run(&SessionOptions::default(), end, more);
            assert_eq!(reused, expected, "{name} {end}");
            assert!(found == run(&unshared(), end, 0).0, "{name} {end}");
        }
    }
}

#[test]
fn what_a_file_says_is_not_shared() {
    let (team, options) = (team(1), SessionOptions::default());
    let prompt = tokens(1, 100, SIZES.vocab);
    let tiny = || Tiny::new(SIZES).open();
    let mut saved = Vec::new();
    let mut before = session(&tiny(), &team, &options);
    before.feed(&prompt).unwrap();
    bits(&mut before);
    before.save(true, &mut saved).unwrap();
    let model = tiny();
    let restore = SessionOptions::default();
    let restored = Session::restore(model.clone(), team.clone(), &restore, &mut saved.as_slice());
    let mut restored = restored.unwrap();
    assert!(bits(&mut restored) == bits(&mut before));
    drop(restored);
    assert_eq!(model.prefixes().statistics().pages, 0);
}

#[test]
fn sessions_that_live_share_what_is_evaluated() {
    let model = Tiny::new(SIZES).open();
    let team = team(1);
    let options = SessionOptions::default();
    let prompt = tokens(1, 500, SIZES.vocab);
    let mut first = session(&model, &team, &options);
    first.feed(&prompt).unwrap();
    first.prefill(&mut Control::none()).unwrap();
    let page = first.metrics().kv_bytes / 500_u64.div_ceil(64);
    let before = model.budget().bytes();
    let mut second = session(&model, &team, &options);
    second.feed(&prompt).unwrap();
    second.prefill(&mut Control::none()).unwrap();
    // Whole pages only, as long as the first may go on.
    assert_eq!(reused(&second), 500 / PAGE_TOKENS * PAGE_TOKENS);
    assert!(model.budget().bytes() - before < 2 * page);
    // Both were evaluated at once: afterwards the memory is one's.
    let other = tokens(2, 400, SIZES.vocab);
    let mut twins = [&options; 2].map(|options| session(&model, &team, options));
    for twin in &mut twins {
        twin.feed(&other[..100]).unwrap();
        twin.prefill(&mut Control::none()).unwrap();
        twin.feed(&other[100..]).unwrap();
    }
    // A turn that is fed in parts finds more each time.
    twins[0].prefill(&mut Control::none()).unwrap();
    twins[1].prefill(&mut Control::none()).unwrap();
    assert_eq!(
        reused(&twins[1]),
        400 / PAGE_TOKENS * PAGE_TOKENS - 100 + 64
    );
    assert!(bits(&mut twins[0]) == bits(&mut twins[1]));
}

#[test]
fn the_limit_the_switch_and_the_end_are_kept() {
    let bytes = Tiny::new(SIZES).bytes();
    let open = |prefix_bytes_max, cap| {
        let budget = Budget::new(cap, None);
        let load = LoadOptions {
            budget: budget.clone(),
            ..LoadOptions::default()
        };
        let options = OpenOptions {
            load,
            prefix_bytes_max,
            ..OpenOptions::default()
        };
        let source = Source::Owned(bytes.clone());
        let model = Model::open(source, &options, &mut Control::none()).unwrap();
        (model, budget)
    };
    let team = team(1);
    let run = |model: &Arc<Model>, seed| {
        let mut session = session(model, &team, &SessionOptions::default());
        session.feed(&tokens(seed, 640, SIZES.vocab)).unwrap();
        bits(&mut session);
        (reused(&session), session.metrics().kv_bytes)
    };
    let (model, budget) = open(Some(0), None);
    let idle = budget.bytes();
    let (_, kv_bytes) = run(&model, 1);
    assert_eq!(run(&model, 1).0, 0);
    let scratch = budget.bytes() - idle;
    drop(model);
    assert_eq!(budget.bytes(), 0);

    // Three of ten prompts fit: the last ones are kept.
    let (model, budget) = open(Some(3 * kv_bytes), None);
    for seed in 0..10 {
        assert_eq!(run(&model, seed).0, 0);
        let statistics = model.prefixes().statistics();
        assert!(statistics.bytes <= 3 * kv_bytes);
        assert_eq!(budget.bytes() - idle - scratch, statistics.bytes);
    }
    assert_eq!(run(&model, 9).0, 639);
    assert_eq!(run(&model, 8).0, 639);
    assert_eq!(model.prefixes().statistics().evictions, 70);
    drop(model);
    assert_eq!(budget.bytes(), 0);

    // A cap that has room for one session only: what is kept gives way, also where a session would
    // copy a page that nobody but the tree shares with it.
    let logits = Budget::charge_of_shared::<f32>(SIZES.vocab);
    let (model, budget) = open(None, Some(idle + scratch + kv_bytes + logits));
    for seed in 0..10 {
        assert_eq!(run(&model, seed).0, 0);
        assert_eq!(run(&model, seed).0, 639);
    }
    assert!(model.prefixes().statistics().evictions >= 80);
    drop(model);
    assert_eq!(budget.bytes(), 0);
}

#[test]
fn sessions_with_budgets_of_their_own_share_and_stay_within_them() {
    let model = Tiny::new(SIZES).open();
    let team = team(1);
    let prompt = tokens(1, 300, SIZES.vocab);
    let run = |model: &Arc<Model>, budget: Option<Budget>| {
        let options = SessionOptions {
            budget,
            ..SessionOptions::default()
        };
        let mut session = session(model, &team, &options);
        session.feed(&prompt).unwrap();
        bits(&mut session);
        generate(&mut session, 3);
        (reused(&session), session.metrics().kv_bytes)
    };
    let (_, kv_bytes) = run(&Tiny::new(SIZES).open(), None);
    let cap = kv_bytes + Budget::charge_of_shared::<f32>(SIZES.vocab);
    let own = [0; 3].map(|_| Budget::new(Some(cap), None));
    let found = own
        .each_ref()
        .map(|budget| run(&model, Some(budget.clone())).0);
    assert_eq!(found, [0, 299, 299]);
    // Twice on one account, whose pages are kept since the first time.
    assert_eq!(run(&model, Some(own[0].clone())).0, 299);
    assert!(own[0].bytes() > 0 && own.iter().all(|budget| budget.bytes_max() <= cap));
    drop(model);
    assert!(own.iter().all(|budget| budget.bytes() == 0));
}

/// Sixteen chats behind one system prompt, each turn a session of its own that is fed all before.
#[test]
fn nearly_all_that_chats_share_is_reused() {
    const CHATS: usize = 16;
    let model = Tiny::new(SIZES).open();
    let team = team(2);
    let system = tokens(99, 512, SIZES.vocab);
    let mut chats = vec![system; CHATS];
    let (mut shared, mut found) = (0, 0);
    let mut evaluated: Vec<Vec<u32>> = Vec::new();
    let mut noise = Noise(4);
    for turn in 0..5 {
        for chat in 0..CHATS {
            let question = tokens(
                (turn * CHATS + chat) as u64,
                20 + noise.next(40),
                SIZES.vocab,
            );
            chats[chat].extend(question);
            let mut session = session(&model, &team, &SessionOptions::default());
            session.feed(&chats[chat]).unwrap();
            generate(&mut session, 30 + noise.next(40));
            // All but the last token of a session was evaluated.
            let before = |other: &Vec<u32>| {
                let pairs = other.iter().zip(&chats[chat]);
                pairs.take_while(|(a, b)| a == b).count()
            };
            shared += evaluated.iter().map(before).max().unwrap_or(0);
            found += reused(&session);
            chats[chat] = session.tokens().to_vec();
            evaluated.push(chats[chat][..chats[chat].len() - 1].to_vec());
        }
    }
    let share = found as f64 / shared as f64;
    println!("{found} of {shared} tokens reused: {:.2} %", 100.0 * share);
    assert!(share >= 0.95, "{found} of {shared}");
}
