//! What a queue tells of itself: as numbers, and as text for Prometheus that is read back here.
#![allow(unsafe_code, clippy::unwrap_used)] // it calls the C interface

#[path = "support/interface.rs"]
mod interface;
#[path = "support/programs.rs"]
mod programs;

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::ptr;

use lightgpt::capi::*;
use lightgpt::engine::BOUNDS_US;

use interface::{new, ok};

/// The samples of a text, by name and labels; what breaks the format's rules is a panic.
fn parse(text: &str) -> HashMap<String, f64> {
    let (mut samples, mut families) = (HashMap::new(), HashSet::new());
    let (mut family, mut kind, mut helped) = (String::new(), String::new(), String::new());
    assert!(text.ends_with('\n') && text.is_ascii());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, told) = help.split_once(' ').unwrap();
            assert!(!told.is_empty() && !told.contains('\\'), "{line}");
            helped = name.to_owned();
        } else if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, given) = of.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&given), "{line}");
            assert_eq!(name, helped);
            let is_word = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(
                name.starts_with("lightgpt_") && name.chars().all(is_word),
                "{name}"
            );
            assert_eq!(name.ends_with("_total"), given == "counter", "{name}");
            assert!(families.insert(name.to_owned()), "{name} is there twice");
            (family, kind) = (name.to_owned(), given.to_owned());
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let plain = name.split('{').next().unwrap();
            match &kind[..] {
                "histogram" => {
                    let part = plain.strip_prefix(&family[..]).unwrap();
                    assert!(["_bucket", "_sum", "_count"].contains(&part), "{line}");
                }
                _ => assert_eq!(plain, family, "{line}"),
            }
            if let Some((_, labels)) = name.split_once('{') {
                let (label, value) = labels
                    .strip_suffix("\"}")
                    .unwrap()
                    .split_once("=\"")
                    .unwrap();
                assert!(
                    !label.is_empty() && !value.contains(['"', '\\', '\n']),
                    "{line}"
                );
            }
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert_eq!(
                samples.insert(name.to_owned(), value),
                None,
                "{line} is there twice"
            );
        }
    }
    samples
}

/// The small model, and a queue for it.
fn opened(
    options: *const lightgpt_batch_queue_options,
) -> (*mut lightgpt_model, *mut lightgpt_batch_queue) {
    let path = CString::new(programs::model().to_str().unwrap()).unwrap();
    let (mut model, mut queue) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: every pointer is NULL or that of something that is as large as said.
    unsafe {
        let to = &raw mut model;
        ok(lightgpt_model_open(path.as_ptr(), ptr::null(), to));
        let to = &raw mut queue;
        ok(lightgpt_batch_queue_new(model, ptr::null(), options, to));
    }
    (model, queue)
}

fn metrics(queue: *const lightgpt_batch_queue) -> (lightgpt_batch_metrics, HashMap<String, f64>) {
    let (mut metrics, mut text, mut needed) =
        (new::<lightgpt_batch_metrics>(), vec![0; 1 << 14], 0);
    // SAFETY: every pointer is that of a local that is as large as said.
    unsafe {
        ok(lightgpt_batch_queue_metrics(queue, &raw mut metrics));
        let buf = text.as_mut_ptr().cast();
        ok(lightgpt_batch_queue_metrics_text(
            queue,
            buf,
            text.len(),
            &raw mut needed,
        ));
    }
    text.truncate(needed);
    (metrics, parse(&String::from_utf8(text).unwrap()))
}

fn check_histogram(samples: &HashMap<String, f64>, name: &str, counts: &[u64], sum_us: u64) {
    let bounds = BOUNDS_US.map(|bound| (bound as f64 / 1e6).to_string());
    let bounds = bounds.iter().map(String::as_str).chain(["+Inf"]);
    let mut so_far = 0;
    for (bound, count) in bounds.zip(counts) {
        so_far += count;
        let bucket = samples[&format!("{name}_bucket{{le=\"{bound}\"}}")];
        assert_eq!(bucket, so_far as f64, "{name} {bound}");
    }
    assert_eq!(samples[&format!("{name}_count")], so_far as f64);
    assert_eq!(samples[&format!("{name}_sum")], sum_us as f64 / 1e6);
}

#[test]
fn numbers_and_text_agree_and_add_up() {
    let mut options = new::<lightgpt_batch_queue_options>();
    options.sequences_max = 4;
    let (model, queue) = opened(&options);
    let mut generate = new::<lightgpt_generate_options>();
    (generate.tokens_max, generate.flags) = (20, LIGHTGPT_GENERATE_IGNORE_END);
    let mut request = new::<lightgpt_batch_request>();
    let (prompt, mut event, mut id) = ("Once upon a time", new::<lightgpt_batch_event>(), 0);
    (request.text, request.text_bytes) = (prompt.as_ptr().cast(), prompt.len() as u64);
    request.generate = &raw const generate;
    // SAFETY: every pointer is NULL or that of something here that is as large as said.
    unsafe {
        let (fresh, samples) = metrics(queue);
        assert_eq!((fresh.sequences_max, fresh.sequences_allowed), (4, 4));
        assert_eq!(samples["lightgpt_tokens_per_second"], 0.0);
        for _ in 0..8 {
            ok(lightgpt_batch_queue_submit(queue, &request, &raw mut id));
        }
        assert_eq!(
            metrics(queue).1["lightgpt_requests{state=\"waiting\"}"],
            8.0
        );
        assert_eq!(lightgpt_batch_queue_step(queue, 0), LIGHTGPT_DONE);
        while lightgpt_batch_queue_poll(queue, 0, &raw mut event) == LIGHTGPT_OK {}
    }
    let (now, samples) = metrics(queue);
    let sum = |times: &[u64]| times.iter().sum::<u64>();
    assert_eq!((sum(&now.queue_times), sum(&now.first_token_times)), (8, 8));
    assert_eq!(sum(&now.token_times), 8 * 19);
    assert_eq!(now.generated_tokens, 8 * 20);
    assert!((0.5..=1.0).contains(&now.occupancy), "{}", now.occupancy);
    assert_eq!(
        now.sequences,
        (now.occupancy * now.passes as f64 * 4.0).round() as u64
    );
    // 8 bits and a scale of 16 for each 32 weights; norms have 32 bits.
    assert!((1.8..1.9).contains(&now.compression), "{}", now.compression);
    let speed = now.generated_tokens as f64 / (now.busy_us as f64 / 1e6);
    assert!((now.tokens_per_second / speed - 1.0).abs() < 1e-9);
    assert!(now.weights_mapped > 4 << 20 && now.memory_weights == 0 && now.memory_scratch > 0);

    check_histogram(
        &samples,
        "lightgpt_queue_seconds",
        &now.queue_times,
        now.queue_us,
    );
    let (first, all) = (now.first_token_times, now.token_times);
    check_histogram(
        &samples,
        "lightgpt_first_token_seconds",
        &first,
        now.first_token_us,
    );
    check_histogram(&samples, "lightgpt_token_seconds", &all, now.token_us);
    for (name, value) in [
        ("lightgpt_requests_ended_total{outcome=\"finished\"}", 8.0),
        ("lightgpt_requests_submitted_total{answer=\"taken\"}", 8.0),
        ("lightgpt_tokens_total{kind=\"generated\"}", 160.0),
        ("lightgpt_tokens_per_second", now.tokens_per_second),
        ("lightgpt_batch_occupancy_ratio", now.occupancy),
        ("lightgpt_weights_compression_ratio", now.compression),
        ("lightgpt_prefix_hit_ratio", now.prefix_hit_rate),
        (
            "lightgpt_memory_bytes{tag=\"weights_mapped\"}",
            now.weights_mapped as f64,
        ),
        (
            "lightgpt_memory_bytes{tag=\"scratch\"}",
            now.memory_scratch as f64,
        ),
        ("lightgpt_memory_bytes{tag=\"kv\"}", now.memory_kv as f64),
        ("lightgpt_preemptions_total", 0.0),
        ("lightgpt_sequences_max{of=\"all\"}", 4.0),
    ] {
        assert_eq!(samples[name], value, "{name}");
    }
    ok(lightgpt_batch_queue_free(queue));
    ok(lightgpt_model_free(model));
}

#[test]
fn a_program_of_an_older_header_gets_what_it_knows() {
    let (model, queue) = opened(ptr::null());
    let mut metrics = new::<lightgpt_batch_metrics>();
    metrics.struct_size = std::mem::offset_of!(lightgpt_batch_metrics, sequences) as u32;
    metrics.sequences_max = 77;
    // SAFETY: every pointer is NULL or that of a local that is larger than it says.
    unsafe {
        ok(lightgpt_batch_queue_metrics(queue, &raw mut metrics));
    }
    assert_eq!(metrics.sequences_max, 77);
    ok(lightgpt_batch_queue_free(queue));
    ok(lightgpt_model_free(model));
}
