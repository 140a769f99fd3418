//! What the command line tool generates, and what it says about texts.

#![allow(clippy::unwrap_used)]

use std::fs;

use serde_json::Value;

#[path = "support/tool.rs"]
mod tool;

use tool::{MODEL, error, folder, quiet, run, run_with};

/// The text after one prompt with one seed.
fn story(more: &[&str]) -> String {
    let arguments = [
        "run",
        MODEL,
        "-p",
        "Once upon a time",
        "-n",
        "40",
        "--seed",
        "7",
    ];
    quiet(&run(&[&arguments[..], more].concat()))
}

#[test]
fn a_story_is_the_same_each_time() {
    let first = story(&[]);
    assert!(first.len() > 40 && !first.ends_with('\n'), "{first:?}");
    for same in [
        &["--threads", "1"][..],
        &["--chunk", "2"],
        &["--copy"],
        &["--prefault"],
    ] {
        assert_eq!(story(same), first, "{same:?}");
    }
    assert_ne!(
        story(&["--top-k", "0", "--top-p", "1", "--temperature", "2"]),
        first
    );
    let greedy = quiet(&run(&[
        "run",
        MODEL,
        "-p",
        "",
        "--temperature",
        "0",
        "-n",
        "40",
    ]));
    let start = "Once upon a time, there was a little girl named Lily.";
    assert!(greedy.starts_with(start), "{greedy}");
    let from_file = folder("story").join("prompt.txt");
    fs::write(&from_file, "Once upon a time").unwrap();
    let path = from_file.to_str().unwrap();
    let arguments = ["run", MODEL, "-n", "40", "--seed", "7", "--file"];
    assert_eq!(quiet(&run(&[&arguments[..], &[path]].concat())), first);
    let piped = run_with(b"Once upon a time", &[&arguments[..], &["-"]].concat());
    assert_eq!(quiet(&piped), first);
}

#[test]
fn a_prompt_may_begin_with_a_hyphen() {
    for prompt in ["- Hello", "--", "-5", "--seed", "-n"] {
        let ids = quiet(&run_with(prompt.as_bytes(), &["tokenize", MODEL]));
        assert!(!ids.is_empty());
        for name in ["-p", "--prompt"] {
            assert_eq!(quiet(&run(&["tokenize", MODEL, name, prompt])), ids);
        }
        let arguments = ["run", MODEL, "--temperature", "0", "-n", "3"];
        let piped = [&arguments[..], &["--file", "-"]].concat();
        let given = [&arguments[..], &["--prompt", prompt]].concat();
        let expected = quiet(&run_with(prompt.as_bytes(), &piped));
        assert_eq!(quiet(&run(&given)), expected, "{prompt}");
    }
}

#[cfg(unix)]
#[test]
fn a_prompt_that_does_not_fit_is_refused() {
    let path = folder("prompt").join("long.txt");
    fs::write(&path, "one day ".repeat(400)).unwrap();
    let path = path.to_str().unwrap();
    let count = quiet(&run(&["tokenize", MODEL, "-f", path]));
    let count = count.split_whitespace().count();
    let refused = |arguments: &[&str], message: &str| {
        let output = run(&[arguments, &["--file", path]].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(error(&output), format!("lightgpt: {path}: {message}\n"));
    };
    let message = format!("expected at most 256 tokens (the model's context), found {count}");
    refused(&["run", MODEL], &message);
    refused(&["check-sampling", MODEL], &message);
    let message = format!("expected at most 40 tokens (--context), found {count}");
    refused(&["run", MODEL, "--context", "40"], &message);
    // An input without end is not read to its end.
    let endless = run(&["run", MODEL, "--file", "/dev/zero"]);
    assert_eq!(endless.status.code(), Some(1));
    let message = "lightgpt: /dev/zero: expected at most 64.0 MiB of text, found more\n";
    assert_eq!(error(&endless), message);
}

#[test]
fn a_prompt_that_fills_the_context_is_told() {
    let context = |context: &str| {
        let output = run(&["run", MODEL, "-p", "One day", "--context", context]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        (output.stdout.len(), error(&output))
    };
    let tokens = quiet(&run(&["tokenize", MODEL, "-p", "One day"]));
    let tokens = tokens.split_whitespace().count();
    let (written, told) = context(&tokens.to_string());
    assert_eq!((written, told.lines().count()), (0, 1), "{told}");
    assert!(told.contains(&format!("the context of {tokens} tokens")));
    let (written, told) = context(&(tokens + 1).to_string());
    assert!(written > 0 && told.is_empty(), "{told}");
}

#[test]
fn stop_strings_end_the_text() {
    let arguments = ["run", MODEL, "-p", "", "--temperature", "0", "-n", "40"];
    let stopped = |stops: &[&str]| {
        let stops = stops.iter().flat_map(|stop| ["--stop", stop]);
        quiet(&run(&arguments
            .into_iter()
            .chain(stops)
            .collect::<Vec<_>>()))
    };
    assert_eq!(
        stopped(&["Lily", "never"]),
        "Once upon a time, there was a little girl named "
    );
    assert_eq!(stopped(&["Lily", " was"]), "Once upon a time, there");
    let told = run(&[&arguments[..], &["--stop", "-", "--stop", "girl", "-v"]].concat());
    assert!(error(&told).contains("a stop string came"));
    let refused = run(&[&arguments[..], &["--stop", ""]].concat());
    assert_eq!(refused.status.code(), Some(2));
    assert!(error(&refused).contains("--stop: "));
}

#[test]
fn each_option_of_sampling_has_an_effect() {
    let plain = story(&[]);
    let long = ["--samplers", "temperature,penalties,top-k,top-p"];
    let greedy = ["--temperature", "0"];
    let cases: [&[&str]; 16] = [
        &["--top-k", "2"],
        &["--top-p", "0.3"],
        &["--min-p", "0.6"],
        &["--typical-p", "0.2"],
        &["--top-n-sigma", "0.1"],
        &["--xtc-probability", "1", "--xtc-threshold", "0.05"],
        &["--dynamic-temperature-range", "0.7"],
        &["--repetition-penalty", "2", "--penalty-last", "all"],
        &["--frequency-penalty", "2"],
        &["--presence-penalty", "-3"],
        &[
            "--dry-multiplier",
            "5",
            "--dry-allowed-length",
            "1",
            "--dry-last",
            "all",
        ],
        &["--mirostat", "1", "--mirostat-tau", "1"],
        &["--mirostat", "2", "--mirostat-tau", "1"],
        &["--adaptive-target", "0.1"],
        &["--samplers", "none"],
        &greedy,
    ];
    for case in cases {
        assert_ne!(story(case), plain, "{case:?}");
        assert_eq!(story(case), story(case), "{case:?}");
    }
    assert_ne!(
        story(&[&long[..], &["--repetition-penalty", "1.5"]].concat()),
        plain
    );
    let infilled = run(&["run", MODEL, "-p", "The end.", "-n", "40", "--infill"]);
    assert_eq!(infilled.status.code(), Some(0));

    // What would have come first does not come.
    let first = quiet(&run(&[
        "run", MODEL, "-p", "A", "-n", "1", greedy[0], greedy[1],
    ]));
    let all = quiet(&run(&["tokenize", MODEL, "-p", &format!("A{first}")]));
    let ban = format!("{}=-inf", all.split_whitespace().last().unwrap());
    let arguments = ["run", MODEL, "-p", "A", "-n", "1", "--logit-bias", &ban];
    assert_ne!(quiet(&run(&[&arguments[..], &greedy].concat())), first);
}

#[test]
fn options_of_sampling_out_of_range_are_wrong_usage() {
    let cases: [(&[&str], &str); 10] = [
        (
            &["--samplers", "top-k,foo"],
            "expected `none`, or some of logit-bias,penalties,",
        ),
        (&["--logit-bias", "5"], "expected a token id"),
        (
            &["--logit-bias", "99999=1"],
            "--logit-bias: expected tokens below",
        ),
        (&["--penalty-last", "most"], "expected a number or `all`"),
        (&["--min-p", "-0.5"], "--min-p: "),
        (&["--mirostat", "3"], "possible values: off, 1, 2"),
        (&["--mirostat-eta", "nan"], "--mirostat-eta: "),
        (&["--dry-base", "0"], "--dry-base: "),
        (&["--dry-breaker", ""], "--dry-breaker: "),
        (
            &["--mirostat", "2", "--adaptive-target", "0.5"],
            "--mirostat, --adaptive-target: expected one of them",
        ),
    ];
    for (arguments, message) in cases {
        let output = run(&[&["run", MODEL, "-p", "a"][..], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(
            error(&output).contains(message),
            "{arguments:?}: {output:?}"
        );
    }
}

#[test]
fn frequencies_follow_the_distribution() {
    let check = |more: &[&str]| {
        let arguments = ["check-sampling", MODEL, "-p", "One day", "--seed", "1"];
        run(&[&arguments[..], more].concat())
    };
    let draws = ["--draws", "10000"];
    for more in [
        &[][..],
        &["--min-p", "0.02"],
        &["--xtc-probability", "0.5"],
        &["--top-k", "3"],
        &["--kv", "f32"],
    ] {
        let output = check(&[&draws[..], more].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(quiet(&output).contains(" of freedom, p 0."), "{output:?}");
    }
    let output = check(&[&draws[..], &["--p-min", "1"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).contains("frequencies: expected p of at least 1, found 0."));
    for p in ["1.5", "-1", "nan", "much"] {
        let refused = check(&["--p-min", p]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(error(&refused).contains("--p-min"), "{refused:?}");
    }
    for nothing in [
        &["--draws", "1"][..],
        &["--temperature", "0"],
        &["--top-k", "1"],
    ] {
        let output = check(nothing);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(error(&output).contains("nothing was checked"), "{output:?}");
    }
    for draws in ["0", "100000001", "18446744073709551615"] {
        let refused = check(&["--draws", draws]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(error(&refused).contains("1..=100000000"), "{refused:?}");
    }
}

#[test]
fn diversity_is_measured() {
    let measured = |text: &str, more: &[&str]| -> Value {
        let arguments = [&["diversity", "--json", "-"], more].concat();
        serde_json::from_str(&quiet(&run_with(text.as_bytes(), &arguments))).unwrap()
    };
    let one = measured("a b a b", &[]);
    assert_eq!((&one["texts"], &one["words"]), (&1.into(), &4.into()));
    assert_eq!(
        (&one["distinct-1"], &one["entropy-1"]),
        (&0.5.into(), &1.0.into())
    );
    assert_eq!(one["self-bleu"], Value::Null);
    let alike = measured("a b c d e\n\na b c d e\n", &["--lines"]);
    assert_eq!(alike["texts"], 2);
    assert!(alike["self-bleu"].as_f64().unwrap() > 0.999);
    let word = quiet(&run_with(b"a", &["diversity", "-"]));
    assert!(!word.contains("-0.0"), "{word}");
    let nothing = run_with(b" ", &["diversity", "-"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(error(&nothing).contains("texts: expected words, found none"));
    let some = run_with(b" ", &["diversity", "models/tales-4m.md", "-"]);
    assert_eq!(some.status.code(), Some(0));
    assert_eq!(
        error(&some),
        "lightgpt: standard input: left out, as it has no words\n"
    );
}
