//! What the command line tool makes of texts with `embed`.

#![allow(clippy::unwrap_used)]

use std::fs;

use serde_json::Value;

#[path = "support/encoder.rs"]
mod encoder;
#[path = "support/tool.rs"]
mod tool;

use tool::{MODEL, error, folder, quiet, run, run_with};

fn numbers(line: &str) -> Vec<f32> {
    line.split(' ')
        .map(|number| number.parse().unwrap())
        .collect()
}

#[test]
fn each_line_is_a_text() {
    let one = quiet(&run(&["embed", MODEL, "-p", "The dog ran home"]));
    let row = numbers(one.trim_end());
    let squares: f32 = row.iter().map(|x| x * x).sum();
    assert!(row.len() == 256 && (squares - 1.0).abs() < 1e-5);

    let input = "The dog ran home\n\nOne day\n";
    let two = quiet(&run_with(input.as_bytes(), &["embed", MODEL]));
    assert!(two.starts_with(&one) && two.lines().count() == 2);
    let path = folder("embed").join("lines.txt");
    fs::write(&path, input).unwrap();
    let path = path.to_str().unwrap();
    for more in [&["--threads", "1"][..], &["--copy"], &["--pooling", "last"]] {
        let arguments = [&["embed", MODEL, "--file", path][..], more].concat();
        assert_eq!(quiet(&run(&arguments)), two, "{more:?}");
    }
    let mean = quiet(&run(&["embed", MODEL, "--file", path, "--pooling", "mean"]));
    assert!(mean != two && mean.lines().count() == 2);
    let rows = quiet(&run(&[
        "embed",
        MODEL,
        "-p",
        "One day",
        "--pooling",
        "none",
        "--raw",
    ]));
    let ids = quiet(&run(&["tokenize", MODEL, "-p", "One day"]));
    assert_eq!(rows.lines().count(), ids.trim_end().split(' ').count());
}

#[test]
fn json_holds_texts_and_numbers() {
    let text = run(&["embed", MODEL, "-p", "One \"day\"", "--json"]);
    let json: Value = serde_json::from_str(&quiet(&text)).unwrap();
    assert_eq!(json[0]["text"], "One \"day\"");
    let row: Vec<f32> = serde_json::from_value(json[0]["embeddings"][0].clone()).unwrap();
    let plain = quiet(&run(&["embed", MODEL, "-p", "One \"day\""]));
    assert_eq!(row, numbers(plain.trim_end()));
}

#[test]
fn texts_are_scored_by_models_that_rank() {
    let model = encoder::file_with_words(&folder("rank"), "bert-rank");
    let model = model.to_str().unwrap();
    let input = b"the dog ran\none cat\n";
    let scores = quiet(&run_with(input, &["embed", model, "--query", "dog"]));
    assert_eq!(scores.lines().count(), 2);
    let row = numbers(scores.lines().next().unwrap());
    let json = run_with(input, &["embed", model, "--query", "dog", "--json"]);
    let json: Value = serde_json::from_str(&quiet(&json)).unwrap();
    let scored: Vec<f32> = serde_json::from_value(json[0]["scores"].clone()).unwrap();
    assert_eq!(scored, row);
    let refused = run(&["embed", model, "-p", "dog"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(error(&refused).contains("rerank"), "{}", error(&refused));
}

#[test]
fn what_cannot_be_embedded_is_told_with_its_place() {
    let model = encoder::file_with_words(&folder("told"), "bert");
    let model = model.to_str().unwrap();
    let long = format!("one\n{}\n", "two ".repeat(100));
    for (code, input, arguments, part) in [
        (
            1,
            &long[..],
            &["embed", model][..],
            "standard input: line 2: expected at most 96",
        ),
        (
            2,
            "",
            &["embed", model],
            "standard input: expected text, found none",
        ),
        (1, "a", &["embed", model, "--query", "b"], "no cls.weight"),
        (
            2,
            "a",
            &["embed", model, "--query", "b", "--raw"],
            "cannot be used with",
        ),
        (2, "a", &["embed", model, "--pooling", "rank"], "rank"),
        (1, "a", &["run", model, "-p", "a"], "bert is an encoder"),
    ] {
        let output = run_with(input.as_bytes(), arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {output:?}"
        );
        assert!(
            error(&output).contains(part),
            "{arguments:?}: {}",
            error(&output)
        );
    }
}
