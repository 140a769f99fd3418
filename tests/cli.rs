//! The command line tool as its users meet it: examples, output, exit codes, pipes.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

mod support;
#[path = "support/tool.rs"]
mod tool;

use support::shared;
use tool::{MODEL, ROOT, TOOL, error, folder, quiet, run, run_with, tool};

fn commands() -> Vec<String> {
    let help = quiet(&run(&["--help"]));
    let list = help.split("Commands:\n").nth(1).unwrap();
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.map(|line| line.split_whitespace().next().unwrap().to_string());
    names.filter(|name| name != "help").collect()
}

/// The examples of a help text.
fn examples(help: &str) -> Vec<&str> {
    let list = help.split("Examples:\n").nth(1).unwrap_or_default();
    list.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect()
}

#[cfg(unix)]
#[test]
fn every_example_runs() {
    let place = folder("examples");
    let models = place.join("models");
    std::os::unix::fs::symlink(Path::new(ROOT).join("models"), models).unwrap();
    let tool_folder = Path::new(TOOL).parent().unwrap().display();
    let path = format!("{tool_folder}:{}", std::env::var("PATH").unwrap());
    let mut helps = vec![quiet(&run(&["--help"]))];
    for command in commands() {
        helps.push(quiet(&run(&[&command, "--help"])));
    }
    assert_eq!(helps.len(), 14);
    for help in helps {
        let examples = examples(&help);
        assert!(!examples.is_empty(), "{help}");
        for example in examples {
            assert!(example.contains("lightgpt "), "{example}");
            let mut shell = Command::new("sh");
            shell
                .args(["-c", example])
                .current_dir(&place)
                .env("PATH", &path)
                .env("XDG_CACHE_HOME", &place);
            let output = shell.output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{example}: {output:?}");
            let silent = [" > ", " --out "].iter().any(|word| example.contains(word));
            assert_eq!(output.stdout.is_empty(), silent, "{example}: {output:?}");
            let verbose = example.contains("--verbose");
            assert_eq!(output.stderr.is_empty(), !verbose, "{example}: {output:?}");
        }
    }
    for made in ["story.txt", "logits.f32", "lightgpt.bash", "small.gguf"] {
        assert!(fs::metadata(place.join(made)).unwrap().len() > 0, "{made}");
    }
}

#[test]
fn failures_have_their_codes_and_places() {
    let wrong_ids = ["logits", MODEL, "--out", "/dev/null", "--ids"];
    let with_ids = |ids| [&wrong_ids[..], &[ids]].concat();
    let cases: [(i32, &[&str], &str); 25] = [
        (2, &[], "Usage"),
        (2, &["sing"], "unrecognized subcommand 'sing'"),
        (2, &["run", MODEL], "--prompt"),
        (
            2,
            &["run", MODEL, "-p", "a", "--file", "b"],
            "cannot be used with",
        ),
        (2, &["run", MODEL, "-p", "a", "--warmth", "1"], "--warmth"),
        (2, &["run", MODEL, "-p", "a", "-n", "many"], "many"),
        (
            2,
            &["run", MODEL, "-p", "a", "--temperature", "-1"],
            "--temperature: ",
        ),
        (2, &["run", MODEL, "-p", "a", "--top-p", "1.5"], "--top-p: "),
        (2, &["run", MODEL, "-p", "a", "--kv", "f8"], "f8"),
        (
            2,
            &["run", MODEL, "-p", "a", "--context", "9999"],
            "--context: ",
        ),
        (
            2,
            &["run", MODEL, "-p", "a", "--threads", "9999"],
            "--threads: ",
        ),
        (2, &["run", MODEL, "-p", "a", "--stop", ""], "--stop: "),
        (
            2,
            &["run", MODEL, "-p", "", "--no-add-special"],
            "--prompt: expected text that makes a token",
        ),
        (1, &["run", "models", "-p", "a"], "models: "),
        (1, &["inspect", "models"], "models: "),
        (1, &["tokenize", "models", "-p", "a"], "models: "),
        (1, &["run", "absent.gguf", "-p", "a"], "absent.gguf: "),
        (
            1,
            &["run", "Cargo.toml", "-p", "a"],
            "Cargo.toml: magic at offset 0",
        ),
        (1, &["run", MODEL, "--file", "absent.txt"], "absent.txt: "),
        (
            1,
            &["run", MODEL, "-p", "a", "--context", "1"],
            "--prompt: expected at most 1 token (--context), found 2",
        ),
        (2, &with_ids(""), "--ids: "),
        (
            2,
            &with_ids("1,two"),
            "--ids: id 1: expected a token id, found 'two'",
        ),
        (
            2,
            &with_ids("1,99999"),
            "--ids: token 1: expected tokens below",
        ),
        (2, &["detokenize", MODEL, "99999"], "expected an id below"),
        (2, &["inspect", MODEL, "--context", "9999"], "--context: "),
    ];
    for (code, arguments, message) in cases {
        let output = run(arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {output:?}"
        );
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
        let error = error(&output);
        assert!(error.contains(message), "{arguments:?}: {error}");
        assert!(!error.contains("panicked"), "{arguments:?}: {error}");
    }
    let out = Path::new("no/such/folder/logits").display().to_string();
    let output = run(&["logits", MODEL, "--ids", "1", "--out", &out]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).starts_with(&format!("lightgpt: {out}: ")));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_a_failure() {
    for arguments in [
        &["run", MODEL, "-p", "a", "-n", "5"][..],
        &["inspect", MODEL],
        &["completions", "bash"],
        &["--help"],
        &["run", "--help"],
        &["logits", MODEL, "--ids", "1", "--out", "/dev/full"],
    ] {
        let full = fs::File::create("/dev/full").unwrap();
        let output = tool(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        assert!(error(&output).contains("No space left"), "{output:?}");
    }
}

#[test]
fn a_reader_that_goes_ends_the_tool_quietly() {
    for arguments in [
        &["run", MODEL, "-p", "a", "-n", "0", "--ignore-end"][..],
        &["inspect", MODEL, "--json"],
    ] {
        let mut command = tool(arguments);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0]).unwrap();
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        assert_eq!(quiet(&output), "");
    }
}

#[test]
fn threads_come_from_the_option_or_the_environment() {
    let arguments = [
        "run",
        MODEL,
        "-p",
        "a",
        "-n",
        "1",
        "--seed",
        "5",
        "--verbose",
    ];
    let threads = |more: &[&str], variable: Option<&str>| {
        let mut command = tool(&[&arguments[..], more].concat());
        if let Some(value) = variable {
            command.env("RAYON_NUM_THREADS", value);
        }
        error(&command.output().unwrap())
    };
    assert!(threads(&[], Some("3")).contains(" 3 threads"));
    assert!(threads(&["--threads", "2"], Some("3")).contains(" 2 threads"));
    assert!(threads(&["--threads", "2"], Some("many")).contains(" 2 threads"));
    assert_eq!(
        threads(&[], Some("")).lines().next(),
        threads(&[], None).lines().next()
    );
    assert!(threads(&[], Some("many")).contains("RAYON_NUM_THREADS: expected a number"));
    assert!(threads(&[], Some("9999")).contains("RAYON_NUM_THREADS: expected at most"));
    assert!(threads(&["--threads", "1"], None).contains(" 1 thread\n"));
}

#[test]
fn input_that_is_not_text_is_refused_with_its_offset() {
    let path = folder("input").join("text");
    fs::write(&path, b"abc\xffd").unwrap();
    let path = path.to_str().unwrap();
    let message = "offset 3: expected UTF-8, found byte 0xff";
    for arguments in [
        ["run", MODEL, "--file", path],
        ["tokenize", MODEL, "--file", path],
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(error(&output), format!("lightgpt: {path}: {message}\n"));
    }
    let output = run_with(b"abc\xffd", &["tokenize", MODEL]);
    assert_eq!(
        error(&output),
        format!("lightgpt: standard input: {message}\n")
    );
}

#[test]
fn published_cases_are_tokenized_alike() {
    let name = "published_cases_are_tokenized_alike";
    for vocabulary in ["llama-spm", "phi-3", "gpt-2", "deepseek-coder"] {
        let path = |end: &str| {
            let path = format!("data/vocab/ggml-vocab-{vocabulary}.gguf{end}");
            shared(name, &path)
        };
        let (Some(model), Some(texts), Some(ids)) = (path(""), path(".inp"), path(".out")) else {
            return;
        };
        let (texts, ids) = (
            fs::read_to_string(texts).unwrap(),
            fs::read_to_string(ids).unwrap(),
        );
        let mut texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        assert_eq!(texts.pop(), Some(""));
        assert_eq!(texts.len(), ids.lines().count());
        let model = model.to_str().unwrap();
        for (text, ids) in texts.iter().zip(ids.lines()) {
            let arguments = ["tokenize", model, "--no-add-special"];
            let output = quiet(&run_with(text.as_bytes(), &arguments));
            let expected: Vec<&str> = ids.split_whitespace().collect();
            assert_eq!(output, expected.join(" ") + "\n", "{vocabulary}: {text:?}");
        }
    }
}

#[test]
fn text_becomes_ids_and_text_again() {
    let text = "One day, a dog\n saw a  big tree. ü";
    let ids = quiet(&run(&["tokenize", MODEL, "-p", text]));
    assert!(ids.starts_with("1 ") && ids.lines().count() == 1, "{ids}");
    assert_eq!(
        quiet(&run_with(text.as_bytes(), &["tokenize", MODEL, "-f", "-"])),
        ids
    );
    let without = quiet(&run(&["tokenize", MODEL, "-p", text, "--no-add-special"]));
    assert_eq!(format!("1 {without}"), ids);
    assert_eq!(
        quiet(&run(&["tokenize", MODEL, "-p", "", "--no-add-special"])),
        "\n"
    );
    assert_eq!(
        quiet(&run(&["tokenize", MODEL, "-p", "<s>", "--parse-special"])),
        "1 1\n"
    );

    assert_eq!(quiet(&run(&["detokenize", MODEL, ids.trim_end()])), text);
    assert_eq!(
        quiet(&run(&[
            "detokenize",
            MODEL,
            &ids.trim_end().replace(' ', ",")
        ])),
        text
    );
    assert_eq!(
        quiet(&run_with(ids.as_bytes(), &["detokenize", MODEL])),
        text
    );
    assert_eq!(quiet(&run(&["detokenize", MODEL, "1", "--special"])), "<s>");
}

#[test]
fn logits_are_those_of_the_goldens() {
    let place = folder("logits");
    for case in ["llama-gqa", "llama-tied", "llama-rope-yarn"] {
        let golden = Path::new(ROOT).join("tests/golden").join(case);
        let about: Value =
            serde_json::from_slice(&fs::read(golden.join("case.json")).unwrap()).unwrap();
        let expected = floats(&golden.join("logits.f32"));
        let model = golden.join("model.gguf").display().to_string();
        let mut made = Vec::new();
        for (i, tokens) in about["tokens"].as_array().unwrap().iter().enumerate() {
            let ids = tokens.to_string().replace(['[', ']'], "");
            let out = place.join(format!("{case}-{i}"));
            let path = out.to_str().unwrap();
            quiet(&run(&["logits", &model, "--ids", &ids, "--out", path]));
            made.extend(floats(&out));
        }
        assert_eq!(made.len(), expected.len(), "{case}");
        let differences = made.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let worst = differences.fold(
            0f32,
            |worst, d| if d > worst || d.is_nan() { d } else { worst },
        );
        assert!(worst <= 1e-3, "{case}: {worst}");
    }
    let piped = run(&["logits", MODEL, "--ids", "1,403", "--out", "-"]);
    let out = place.join("two").display().to_string();
    run_with(b"1 403\n", &["logits", MODEL, "--ids", "-", "--out", &out]);
    assert_eq!(piped.stdout, fs::read(&out).unwrap());
    run(&[
        "logits", MODEL, "--ids", "1,403", "--out", &out, "--kv", "f16",
    ]);
    assert_ne!(piped.stdout, fs::read(&out).unwrap());
}

fn floats(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    let words = bytes.as_chunks::<4>().0.iter();
    words.map(|word| f32::from_le_bytes(*word)).collect()
}

#[test]
fn a_model_is_described() {
    let text = quiet(&run(&["inspect", MODEL]));
    for part in [
        "general.architecture",
        "Q8_0: ",
        "parameters: ",
        "memory for ",
        "weights mapped",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let described = |more: &[&str]| -> Value {
        let arguments = [&["inspect", MODEL, "--json"], more].concat();
        serde_json::from_str(&quiet(&run(&arguments))).unwrap()
    };
    let model = described(&[]);
    assert_eq!(
        model["bytes"],
        fs::metadata(Path::new(ROOT).join(MODEL)).unwrap().len()
    );
    assert_eq!(model["metadata"]["general.architecture"], "llama");
    let tokens = model["metadata"]["tokenizer.ggml.tokens"]
        .as_array()
        .unwrap();
    assert_eq!(tokens[1], "<s>");
    let sizes = model["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["bytes"].as_u64().unwrap());
    assert_eq!(model["memory"]["weights_mapped"], sizes.sum::<u64>());
    assert_eq!(model["cannot_be_run"], Value::Null);
    let kv = |more: &[&str]| {
        described(more)["memory"]["keys_and_values"]
            .as_u64()
            .unwrap()
    };
    let small = kv(&["--context", "64"]);
    assert_eq!(kv(&["--context", "128"]), 2 * small);
    // A page has a head of 64 bytes, whatever the format.
    let of = |format| kv(&["--context", "64", "--kv", format]) - 64;
    assert_eq!(of("f32"), 2 * of("f16"));
    // A byte a value, and two for each 32 of them.
    assert_eq!(32 * of("q8_0"), 17 * of("f16"));
}

#[test]
fn a_file_that_cannot_be_run_is_described() {
    use lightgpt::gguf::Writer;
    let path = folder("unknown").join("unknown.gguf");
    let mut writer = Writer::new();
    writer.set("general.architecture", "theirs").unwrap();
    writer.set("theirs.scale", f32::NAN).unwrap();
    fs::write(&path, writer.to_bytes()).unwrap();
    let path = path.to_str().unwrap();
    let text = quiet(&run(&["inspect", path]));
    assert!(
        text.contains("cannot be run: ") && text.contains("'theirs'"),
        "{text}"
    );
    let json: Value = serde_json::from_str(&quiet(&run(&["inspect", path, "--json"]))).unwrap();
    assert_eq!(json["metadata"]["general.architecture"], "theirs");
    assert_eq!(json["metadata"]["theirs.scale"], Value::Null);
    assert!(json["cannot_be_run"].as_str().unwrap().contains("'theirs'"));
    assert_eq!(run(&["run", path, "-p", "a"]).status.code(), Some(1));
}

#[test]
fn the_machine_is_described() {
    let machine: Value = serde_json::from_str(&quiet(&run(&["hardware", "--json"]))).unwrap();
    let isas = machine["isas"].as_array().unwrap();
    assert!(isas.contains(&machine["isa"]) && machine["cores_physical"].as_u64() >= Some(1));
    let measured = &machine["measured"];
    for rate in [
        &measured["read"],
        &measured["integer"]["multiply_adds"],
        &measured["float"]["multiply_adds"],
    ] {
        for threads in ["one_thread", "all_threads"] {
            assert!(rate[threads].as_f64().unwrap() > 1e6, "{machine}");
        }
    }
    let mut lower = tool(&["hardware", "--no-measure"]);
    let text = quiet(&lower.env("LIGHTGPT_ISA", "scalar").output().unwrap());
    assert!(text.contains("scalar (available: scalar"), "{text}");
    assert!(!text.contains("multiply-adds"), "{text}");
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let text = quiet(&run(&["completions", shell]));
        for command in commands() {
            assert!(text.contains(&command), "{shell}: {command}");
        }
        assert!(!text.contains("test-odd"), "{shell}");
    }
}

#[test]
fn the_version_names_what_decides_results() {
    let text = quiet(&run(&["--version"]));
    assert!(text.starts_with(concat!(
        "lightgpt ",
        env!("CARGO_PKG_VERSION"),
        " (ABI 0, numerics "
    )));
}
