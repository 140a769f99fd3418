//! Requests that begin like others before them: what they need not evaluate, and that nothing else shows
//! it.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/requests.rs"]
mod requests;
#[path = "support/tiny.rs"]
mod tiny;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lightgpt::budget::Budget;
use lightgpt::control::Control;
use lightgpt::engine::{Metrics, Progress, Queue, QueueOptions, Request};
use lightgpt::kv::KvFormat;
use lightgpt::model::Model;
use lightgpt::sampler::{Sampler, SamplerOptions};
use lightgpt::session::{GenerateOptions, Session, SessionOptions};

use requests::{All, Asked, Heard, alone, poll};
use tiny::{Noise, SMALL, Sizes, Tiny, open_path, team};

const SIZES: Sizes = Sizes {
    context: 512,
    ..SMALL
};

fn model() -> Arc<Model> {
    Tiny::new(SIZES).with_tokenizer(SIZES.vocab).open()
}

fn asked(tokens: Vec<u32>, tokens_max: usize) -> Asked {
    let sampler = SamplerOptions {
        temperature: 1.0,
        seed: Some(tokens.len() as u64),
        ..SamplerOptions::default()
    };
    let generate = GenerateOptions {
        tokens_max,
        ignore_end: true,
        ..GenerateOptions::new(Sampler::new(&sampler).unwrap())
    };
    Asked { tokens, generate }
}

/// Prompts that begin with `common` tokens of one text, with an end of their own each.
fn prompts(vocab: usize, count: usize, common: usize) -> Vec<Vec<u32>> {
    let text = |seed: u64, len: usize| -> Vec<u32> {
        let mut noise = Noise(seed);
        (0..len).map(|_| noise.next(vocab) as u32).collect()
    };
    let prompt = |i: usize| [text(1, common), text(i as u64 + 2, 11 + i)].concat();
    (0..count).map(prompt).collect()
}

fn queue(model: &Arc<Model>, options: &QueueOptions) -> Queue {
    Queue::new(model.clone(), team(2), options).unwrap()
}

/// What a queue makes of requests that come together.
fn run(queue: &Queue, requests: impl Iterator<Item = Request>) -> Vec<Heard> {
    let ids: Vec<u64> = requests.map(|one| queue.submit(one).unwrap()).collect();
    while queue.step(None).unwrap() == Progress::Pending {}
    let all = All::default();
    poll(queue, &all);
    let mut all = all.lock().unwrap();
    ids.iter().map(|id| all.remove(id).unwrap()).collect()
}

fn expected(asked: &[Asked], model: &Arc<Model>) -> Vec<Heard> {
    let one = |asked| alone(asked, model, &team(1), KvFormat::F16);
    asked.iter().map(one).collect()
}

/// Every token but the last of each request is evaluated, reused, or evaluated once more.
fn check_rows(metrics: &Metrics, heard: &[Heard], asked: &[Asked]) {
    let needed = heard.iter().zip(asked);
    let needed: usize = needed
        .map(|(heard, asked)| asked.tokens.len() + heard.tokens.len() - 1)
        .sum();
    let rows = metrics.rows + metrics.reused_tokens - metrics.repeated_tokens;
    assert_eq!(rows, needed as u64, "{metrics:?}");
}

#[test]
fn requests_share_what_others_have_evaluated() {
    let model = model();
    let mut all: Vec<Asked> = prompts(SIZES.vocab, 9, 150)
        .into_iter()
        .map(|prompt| asked(prompt, 20))
        .collect();
    let expected_all = expected(&all, &model);
    let queue = queue(&model, &QueueOptions::default());
    let mut heard = run(&queue, all[..1].iter().map(Asked::request));
    assert_eq!(queue.metrics().reused_tokens, 0);
    heard.extend(run(&queue, all[1..].iter().map(Asked::request)));
    assert_eq!(heard, expected_all);
    let metrics = queue.metrics();
    assert_eq!(metrics.reuses, 8);
    // Random ends may begin alike too.
    assert!(
        (8 * 150..8 * 160).contains(&metrics.reused_tokens),
        "{metrics:?}"
    );
    check_rows(&metrics, &heard, &all);
    // The next turn of a chat goes on behind what was generated.
    let next = [&all[3].tokens[..], &heard[3].tokens, &[1, 2, 3]].concat();
    let before = all[3].tokens.len() + heard[3].tokens.len() - 1;
    all.push(asked(next, 5));
    let last = run(&queue, all[9..].iter().map(Asked::request));
    assert_eq!(last, expected(&all[9..], &model));
    let reused = queue.metrics().reused_tokens - metrics.reused_tokens;
    assert_eq!(reused, before as u64);
    heard.extend(last);
    check_rows(&queue.metrics(), &heard, &all);
    let statistics = model.prefixes().statistics();
    assert_eq!((statistics.lookups, statistics.hits), (10, 9));
    assert_eq!(statistics.tokens, queue.metrics().reused_tokens);
}

#[test]
fn requests_that_run_together_share_what_the_first_has_evaluated() {
    let model = model();
    let prompts = prompts(SIZES.vocab, 6, 256);
    let all: Vec<Asked> = prompts.into_iter().map(|prompt| asked(prompt, 8)).collect();
    let one_by_one = QueueOptions {
        sequences: 1,
        ..QueueOptions::default()
    };
    let queue = queue(&model, &one_by_one);
    let heard = run(&queue, all.iter().map(Asked::request));
    assert_eq!(heard, expected(&all, &model));
    assert!(queue.metrics().reused_tokens >= 5 * 256);
    check_rows(&queue.metrics(), &heard, &all);
}

#[test]
fn only_those_who_may_share_do() {
    let model = model();
    let prompt = prompts(SIZES.vocab, 1, 200).remove(0);
    let one = asked(prompt.clone(), 3);
    let expected = alone(&one, &model, &team(1), KvFormat::F16);
    let request = |salt, unshared| Request {
        salt,
        unshared,
        ..one.request()
    };
    let queue = queue(&model, &QueueOptions::default());
    let reused = |salt, unshared| {
        let before = queue.metrics().reused_tokens;
        let heard = run(&queue, std::iter::once(request(salt, unshared)));
        assert_eq!(heard[0], expected);
        queue.metrics().reused_tokens - before
    };
    let all = prompt.len() as u64 - 1;
    assert_eq!(reused(0, true), 0);
    assert_eq!([reused(0, false), reused(0, false)], [0, all]);
    assert_eq!([reused(9, false), reused(9, false)], [0, all]);
    assert_eq!(reused(0, true), 0);
    // Sessions and requests are alike.
    for (salt, expected) in [(0, all), (9, all), (10, 0)] {
        let options = SessionOptions {
            salt,
            ..SessionOptions::default()
        };
        let mut session = Session::new(model.clone(), team(1), &options).unwrap();
        session.feed(&prompt).unwrap();
        session.prefill(&mut Control::none()).unwrap();
        assert_eq!(session.metrics().reused_tokens, expected, "{salt}");
    }
    assert_eq!(reused(10, false), all);
}

/// Who has given its pages up finds them again, as far as nobody has taken their place.
#[test]
fn requests_that_come_back_find_their_pages() {
    let run_all = |unshared| {
        let model = model();
        let page = model.network().unwrap().layout(KvFormat::F16).page_charge();
        let budget = Budget::new(Some(11 * page), None);
        let options = QueueOptions {
            sequences: 4,
            budget: Some(budget.clone()),
            ..QueueOptions::default()
        };
        let queue = queue(&model, &options);
        let prompts = prompts(SIZES.vocab, 6, 0);
        let all: Vec<Asked> = prompts
            .into_iter()
            .map(|prompt| asked(prompt, 180))
            .collect();
        let requests = all.iter().map(|one| Request {
            unshared,
            ..one.request()
        });
        let heard = run(&queue, requests);
        assert_eq!(heard, expected(&all, &model));
        let metrics = queue.metrics();
        assert!(metrics.preemptions > 0);
        check_rows(&metrics, &heard, &all);
        drop(queue);
        // What is left is the tree's.
        let kept = model.prefixes().statistics();
        assert_eq!(budget.bytes(), kept.bytes, "{kept:?}");
        drop(model);
        assert_eq!(budget.bytes(), 0);
        (metrics.repeated_tokens, metrics.preemptions)
    };
    let (shared, unshared) = (run_all(false), run_all(true));
    println!("(tokens evaluated once more, preemptions): {shared:?}, unshared {unshared:?}");
    assert!(2 * shared.0 < unshared.0, "{shared:?}, {unshared:?}");
}

/// A queue that runs out of memory gives up what gives memory back, and nothing else: what a request
/// in work has evaluated stays for those to come.
#[test]
fn a_full_queue_keeps_what_its_requests_use() {
    let model = model();
    let page = model.network().unwrap().layout(KvFormat::F16).page_charge();
    let options = QueueOptions {
        budget: Some(Budget::new(Some(9 * page), None)),
        ..QueueOptions::default()
    };
    let queue = queue(&model, &options);
    let prompt = prompts(SIZES.vocab, 1, 139).remove(0);
    queue.submit(asked(prompt.clone(), 300).request()).unwrap();
    let other = Request {
        unshared: true,
        ..asked(vec![1; 20], 300).request()
    };
    queue.submit(other).unwrap();
    let frame = Some(Duration::from_millis(1));
    while queue.metrics().preemptions == 0 {
        assert_eq!(queue.step(frame).unwrap(), Progress::Pending);
    }
    let mut session = Session::new(model, team(1), &SessionOptions::default()).unwrap();
    session.feed(&prompt).unwrap();
    session.prefill(&mut Control::none()).unwrap();
    assert_eq!(session.metrics().reused_tokens, 128);
}

/// Recurrent layers go on from the end of a turn.
#[test]
fn chats_on_models_with_states_go_on_where_they_ended() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for name in ["mamba", "falcon-h1", "qwen3next", "lfm2"] {
        let model = open_path(&golden.join(name).join("model.gguf"));
        let vocab = model.network().unwrap().spec.vocab;
        let queue = queue(&model, &QueueOptions::default());
        let mut chats = prompts(vocab, 3, 20);
        let mut reused = 0;
        for turn in 0..3 {
            let all: Vec<Asked> = chats.iter().map(|chat| asked(chat.clone(), 6)).collect();
            let heard = run(&queue, all.iter().map(Asked::request));
            assert_eq!(heard, expected(&all, &model), "{name}");
            assert_eq!(
                queue.metrics().reused_tokens,
                reused as u64,
                "{name} {turn}"
            );
            for (chat, heard) in chats.iter_mut().zip(&heard) {
                chat.extend(&heard.tokens);
                reused += chat.len() - 1;
                chat.extend([5, 6, 7]);
            }
        }
    }
}
