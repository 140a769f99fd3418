//! Whole models against the logits and greedy tokens of reference implementations.
//!
//! `tests/golden` holds the project's own cases (see its README); `../shared` holds more of the same
//! layout, quantized ones, and two trained models. [`Timeline`] is all that this file knows of the
//! engine; everything else reads and compares.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests report what they measured"
)]

#[path = "support/golden.rs"]
mod golden;
mod support;
#[path = "support/timeline.rs"]
mod timeline;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use golden::{Case, TOLERANCE, floats, ids, is_off, json, largest, number};
use support::shared;
use timeline::Timeline;

/// Goldens of quantized weights, whose references left activations alone, and the root mean square
/// differences that llama.cpp shows there.
const QUANTIZED: [(&str, f64); 2] = [
    ("q-llama-gqa-256-Q4_0", 0.055),
    ("q-llama-gqa-256-Q4_K_M", 0.077),
];
/// At how many of all their positions it has the same best token, and how many greedy continuations
/// are the same.
const QUANTIZED_SAME: [usize; 2] = [192, 4];

/// Cases of `../shared/data/golden` with F32 tensors and architectures that we know.
const SHARED: [&str; 12] = [
    "deepseek2",
    "gemma2",
    "gpt-oss",
    "gpt2",
    "llama",
    "llama-tied-bias",
    "llama-yarn",
    "llama3-rope",
    "mixtral",
    "phi3-longrope",
    "qwen2-tied",
    "qwen3",
];

#[test]
fn own_goldens() {
    let folders = golden::own_cases();
    assert!(folders.len() >= 9, "only {} cases there", folders.len());
    let faults: Vec<String> = folders.iter().flat_map(|path| judge(path)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_architecture_has_a_golden() {
    let folders = golden::own_cases();
    let have: Vec<String> = folders
        .iter()
        .map(|folder| Case::read(folder).architecture)
        .collect();
    let known: Vec<&str> = lightgpt::model::architectures().collect();
    let missing: Vec<&&str> = known
        .iter()
        .filter(|name| !have.iter().any(|have| have == **name))
        .collect();
    assert!(missing.is_empty(), "no golden of {missing:?}");
}

/// The table of `docs/models.md` has a row for each architecture, with all its goldens.
#[test]
fn the_models_page_lists_architectures_and_goldens() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/models.md");
    let page = fs::read_to_string(page).expect("part of the checkout");
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split(" | ").collect();
        let goldens = cells.get(3)?.trim_end_matches(" |").split(", ");
        let mut goldens: Vec<&str> = goldens.collect();
        goldens.sort_unstable();
        Some((cells[0].trim_end_matches('`'), goldens))
    });
    let listed: BTreeMap<&str, Vec<&str>> = rows.collect();
    let mut there: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for folder in golden::own_cases() {
        let name = folder.file_name().expect("a folder").to_string_lossy();
        let goldens = there.entry(Case::read(&folder).architecture).or_default();
        goldens.push(name.into_owned());
    }
    assert!(lightgpt::model::architectures().all(|name| there.contains_key(name)));
    let listed = format!("{listed:#?}");
    assert_eq!(
        listed,
        format!("{there:#?}"),
        "docs/models.md and tests/golden"
    );
}

#[test]
fn shared_goldens() {
    let folders = SHARED
        .iter()
        .filter_map(|case| shared_case("shared_goldens", case));
    let faults: Vec<String> = folders.flat_map(|path| judge(&path)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn quantized_goldens() {
    let mut same = [0; 2];
    for (name, rms_max) in QUANTIZED {
        let Some(folder) = shared_case("quantized_goldens", name) else {
            return;
        };
        let case = Case::read(&folder);
        let mut made = Vec::new();
        for (tokens, greedy) in case.tokens.iter().zip(&case.greedy) {
            let mut timeline = Timeline::open(&folder.join("model.gguf"), 2);
            made.extend(timeline.feed(tokens));
            let last = last_row(&made, case.vocab);
            same[1] += usize::from(go_on(&mut timeline, last, greedy.len()) == *greedy);
        }
        assert_eq!(made.len(), case.logits.len(), "{name}: number of logits");
        let rows = made.chunks(case.vocab).zip(case.logits.chunks(case.vocab));
        same[0] += rows.filter(|(a, b)| best(a) == best(b)).count();
        let (rms, largest) = (rms(&made, &case.logits), largest(&made, &case.logits));
        println!("{name}: rms {rms:.4}, largest difference {largest:.3}");
        assert!(rms <= rms_max, "{name}: rms {rms} > {rms_max}");
    }
    println!("best tokens and continuations that are the same: {same:?}");
    assert!(
        same.iter()
            .zip(QUANTIZED_SAME)
            .all(|(same, least)| *same >= least)
    );
}

/// Neither the chunks of a prompt nor the number of threads may show, not even in the last bit.
#[test]
fn chunks_and_threads_do_not_show() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama-mha-odd");
    let (case, model) = (Case::read(&folder), folder.join("model.gguf"));
    let tokens = case.tokens.last().expect("a case has sequences");
    let whole = bits(&Timeline::open(&model, 1).feed(tokens));
    for (threads, chunk) in [(1, 1), (1, 7), (2, 16), (2, tokens.len())] {
        let mut timeline = Timeline::open(&model, threads);
        let parts: Vec<f32> = tokens
            .chunks(chunk)
            .flat_map(|part| timeline.feed(part))
            .collect();
        assert!(
            bits(&parts) == whole,
            "{threads} threads, chunks of {chunk}"
        );
    }
}

#[test]
fn stories_logits_and_text() {
    let name = "stories_logits_and_text";
    let (Some(model), Some(golden), Some(text)) = (
        shared(name, "data/models/stories260K-f32.gguf"),
        shared(name, "data/models/stories260K.golden.json"),
        shared(name, "data/models/stories260K.expected-greedy-200.txt"),
    ) else {
        return;
    };
    let golden = json(&golden);
    let mut timeline = Timeline::open(&model, 2);
    let first = timeline.feed(&ids(&golden["prompt_ids"]));
    let worst = largest(&first, &floats(&golden["logits_pos0_after_bos"]));
    println!("stories260K: largest difference {worst:.2e}");
    assert!(
        worst <= TOLERANCE,
        "logits after the begin token differ by {worst}"
    );

    let expected = ids(&golden["greedy_ids"]);
    let made = go_on(&mut timeline, &first, expected.len());
    assert_eq!(made, expected, "greedy ids");
    let text = fs::read_to_string(text).expect("readable");
    assert_eq!(
        timeline.text(&made).trim_start_matches(' '),
        text,
        "greedy text"
    );
}

#[test]
fn tales_f32_logits() {
    let name = "tales_f32_logits";
    let (Some(model), Some(golden)) = (
        shared(name, "models/tales-4m-f32.gguf"),
        shared(name, "models/tales-4m.golden.json"),
    ) else {
        return;
    };
    let worst = tales_difference(&model, &json(&golden));
    println!("tales-4m-f32: largest difference of the top 8 {worst:.2e}");
    assert!(worst <= TOLERANCE, "the top 8 differ by {worst}");
}

/// The model that ships with the library still tells its story after quantization.
#[test]
fn tales_q8_0_story() {
    let name = "tales_q8_0_story";
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tales-4m-q8_0.gguf");
    let model = if shipped.is_file() {
        shipped
    } else if let Some(model) = shared(name, "models/tales-4m-q8_0.gguf") {
        model
    } else {
        return;
    };
    if let Some(golden) = shared(name, "models/tales-4m.golden.json") {
        let worst = tales_difference(&model, &json(&golden));
        println!("tales-4m-q8_0: largest difference of the top 8 {worst:.3}");
        assert!(worst <= 0.3, "the top 8 differ by {worst}");
    }
    let mut timeline = Timeline::open(&model, 2);
    let first = timeline.feed(&[1]);
    let made = go_on(&mut timeline, &first, 40);
    let text = timeline.text(&made);
    println!("tales-4m-q8_0: {text}");
    let start = "Once upon a time, there was a little girl named Lily.";
    assert!(text.trim_start().starts_with(start), "it tells: {text}");
}

/// Runs one F32 case; returns what is wrong with it.
fn judge(folder: &Path) -> Vec<String> {
    let case = Case::read(folder);
    let name = folder.file_name().expect("a case folder").to_string_lossy();
    let mut faults = Vec::new();
    let mut worst = 0f32;
    for (i, (tokens, greedy)) in case.tokens.iter().zip(&case.greedy).enumerate() {
        let mut timeline = Timeline::open(&folder.join("model.gguf"), 2);
        let (made, here) = case.pair(i, &mut timeline);
        if made.len() != here.len() {
            faults.push(format!("{name}: {} logits, not {}", made.len(), here.len()));
            continue;
        }
        let difference = largest(&made, &here);
        worst = worst.max(difference);
        if is_off(difference) {
            let row = first_wrong_row(&made, &here, case.vocab);
            let length = tokens.len();
            faults.push(format!(
                "{name}: logits of {length} tokens differ by {difference:.2e}, first at {row}"
            ));
            continue;
        }
        if case.pooled.is_some() {
            continue;
        }
        let tokens_made = go_on(&mut timeline, last_row(&made, case.vocab), greedy.len());
        if tokens_made != *greedy {
            faults.push(format!("{name}: greedy {tokens_made:?}, not {greedy:?}"));
        }
    }
    println!("{name}: largest difference {worst:.2e}");
    faults
}

/// The largest difference from a golden that lists the best eight logits of the last position; the
/// best of the first and of the last position must be the golden's.
fn tales_difference(model: &Path, golden: &Value) -> f32 {
    let tokens = ids(&golden["ids"]);
    let logits = Timeline::open(model, 2).feed(&tokens);
    let vocab = logits.len() / tokens.len();
    let last = last_row(&logits, vocab);
    let top = golden["last_position_top8"].as_array().expect("pairs");
    let pairs: Vec<(u32, f32)> = top
        .iter()
        .map(|pair| (number(&pair[0]) as u32, number(&pair[1]) as f32))
        .collect();
    assert_eq!(best(last), pairs[0].0, "best token of the last position");
    let first = number(&golden["first_position_argmax"]) as u32;
    assert_eq!(
        best(&logits[..vocab]),
        first,
        "best token of the first position"
    );
    let made: Vec<f32> = pairs.iter().map(|&(id, _)| last[id as usize]).collect();
    let expected: Vec<f32> = pairs.iter().map(|&(_, logit)| logit).collect();
    largest(&made, &expected)
}

/// Feeds the best token over and over; `logits` are those after the newest token.
fn go_on(timeline: &mut Timeline, logits: &[f32], count: usize) -> Vec<u32> {
    let mut made = vec![best(logits)];
    while made.len() < count {
        let newest = made.len() - 1;
        made.push(best(&timeline.feed(&made[newest..])));
    }
    made
}

fn shared_case(test: &str, name: &str) -> Option<PathBuf> {
    shared(test, &format!("data/golden/{name}"))
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn last_row(logits: &[f32], vocab: usize) -> &[f32] {
    &logits[logits.len() - vocab..]
}

/// The lowest id among the largest logits.
fn best(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

fn rms(made: &[f32], expected: &[f32]) -> f64 {
    let squares = made
        .iter()
        .zip(expected)
        .map(|(a, b)| f64::from(a - b).powi(2));
    (squares.sum::<f64>() / made.len() as f64).sqrt()
}

/// The first position with a logit that is off.
fn first_wrong_row(made: &[f32], expected: &[f32], vocab: usize) -> usize {
    let rows = made.chunks(vocab).zip(expected.chunks(vocab));
    rows.map(|(made, expected)| largest(made, expected))
        .position(is_off)
        .unwrap_or_default()
}
