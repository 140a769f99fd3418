//! Models made to be measured, and their measurement, at the command line.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use lightgpt::control::Control;
use lightgpt::error::Code;
use lightgpt::gguf::{Gguf, LoadOptions, Source};
use lightgpt::model::{Model, OpenOptions};
use lightgpt::session::{Session, SessionOptions};
use lightgpt::team::{Team, TeamOptions};

#[path = "support/tool.rs"]
mod tool;

use tool::{MODEL, ROOT, TOOL, error, folder, quiet, run, tool};

const TYPES: [&str; 30] = [
    "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M",
    "Q4_K_S", "Q4_K_M", "Q5_K_M", "Q6_K", "IQ4_NL", "IQ4_XS", "IQ1_S", "IQ1_M", "IQ2_XXS",
    "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4", "Q1_0", "Q2_0",
];

fn logits(path: &Path) -> Vec<f32> {
    let (options, control) = (OpenOptions::default(), &mut Control::none());
    let model = Model::open(Source::Path(path), &options, control).unwrap();
    let team = Team::new(TeamOptions::default()).unwrap();
    let mut session = Session::new(model.clone(), team, &SessionOptions::default()).unwrap();
    let text = session.feed_text("one b word", Default::default()).unwrap();
    assert!((3..=10).contains(&text), "{text} tokens");
    session.feed(&[0, 299, 17, 260, 41]).unwrap();
    session.logits(control).unwrap().to_vec()
}

#[test]
fn every_type_makes_models_that_run() {
    let place = folder("made");
    let shapes = ["test", "test-odd", "test-experts"];
    for shape in shapes {
        for kind in TYPES {
            let path = place.join(format!("{shape}-{kind}.gguf"));
            let out = path.to_str().unwrap();
            let made = ["make-model", shape, "--type", kind, "--out", out];
            assert_eq!(quiet(&run(&made)), "");
            let logits = logits(&path);
            let squares: f32 = logits.iter().map(|x| x * x).sum();
            let spread = (squares / logits.len() as f32).sqrt();
            assert!((0.5..2.0).contains(&spread), "{shape} {kind}: {spread}");
        }
    }
    let left = fs::read_dir(&place).unwrap().count();
    assert_eq!(
        left,
        shapes.len() * TYPES.len(),
        "no part of a file is left"
    );
}

/// An architecture that this build cannot run is written all the same, and told of.
#[test]
fn every_shape_can_be_made() {
    let place = folder("shapes");
    let help = quiet(&run(&["make-model", "--help"]));
    let line = help
        .lines()
        .find(|line| line.contains("[possible values: tiny"));
    let names = line.unwrap().split_once("values: ").unwrap().1;
    let names: Vec<&str> = names.trim_end_matches(']').split(", ").collect();
    assert!(names.len() == 5 && !names.contains(&"test"), "{names:?}");
    for name in names {
        let path = place.join("model.gguf");
        let out = path.to_str().unwrap();
        let layers = ["--layers", "1", "--out", out];
        // Names of shapes and types are known by any case.
        let name = name.to_uppercase();
        let made = run(&[&["make-model", &name, "--type", "q4_0"][..], &layers].concat());
        assert_eq!(made.status.code(), Some(0), "{made:?}");
        let (options, control) = (OpenOptions::default(), &mut Control::none());
        match Model::open(Source::Path(&path), &options, control) {
            Ok(model) => {
                assert_eq!(error(&made), "");
                assert!(model.network().is_ok());
            }
            Err(refused) => {
                assert_eq!(refused.code(), Code::Unsupported, "{refused}");
                assert!(error(&made).contains("this build cannot run the model"));
            }
        }
    }
}

#[test]
fn a_model_that_is_there_is_not_made_again() {
    let place = folder("cache");
    let make = |more: &[&str]| {
        let mut command = tool(&[&["make-model", "test", "--type", "Q4_K_M"][..], more].concat());
        let path = quiet(&command.env("XDG_CACHE_HOME", &place).output().unwrap());
        let path = Path::new(path.trim_end()).to_path_buf();
        assert!(path.starts_with(place.join("lightgpt/models")), "{path:?}");
        (
            fs::metadata(&path).unwrap().modified().unwrap(),
            fs::read(&path).unwrap(),
            path,
        )
    };
    let (made, bytes, path) = make(&[]);
    assert_eq!(make(&[]).0, made);
    let (remade, same, _) = make(&["--force"]);
    assert!(remade > made && same == bytes);
    let (_, other, at) = make(&["--seed", "2"]);
    assert!(at != path && other.len() == bytes.len() && other != bytes);
    assert_eq!(make(&[]).0, remade);
    assert_ne!(make(&["--layers", "3"]).2, path);
    assert_ne!(make(&["--context", "3"]).2, path);
    // What was cut short is no model.
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(make(&[]).1, bytes);

    // What runs that were ended left is removed; what is being written is not.
    let beside = |end: &str| path.with_file_name(format!("other.gguf.{end}"));
    let (left, locked, theirs) = (beside("7.part"), beside("8.part"), beside("part"));
    let file = [&left, &locked, &theirs].map(|path| fs::File::create(path).unwrap());
    file[1].lock().unwrap();
    make(&[]);
    assert!(!left.exists() && locked.exists() && theirs.exists());
}

#[test]
fn the_context_can_be_chosen() {
    let path = folder("context").join("model.gguf");
    let out = path.to_str().unwrap();
    let context = |more: &[&str]| {
        let made = ["make-model", "test", "--type", "Q4_0", "--out", out];
        assert_eq!(quiet(&run(&[&made[..], more].concat())), "");
        let text = quiet(&run(&["inspect", out, "--json"]));
        let json: Value = serde_json::from_str(&text).unwrap();
        json["memory"]["context"].as_u64().unwrap()
    };
    assert_eq!(context(&[]), 2048);
    assert_eq!(context(&["--context", "30000"]), 30_000);
}

#[cfg(unix)]
#[test]
fn only_models_made_here_are_replaced() {
    let place = folder("replaced");
    let at = |name: &str| place.join(name);
    let make = |name: &str, more: &[&str]| {
        let path = at(name).display().to_string();
        let made = ["make-model", "test", "--type", "Q4_0", "--out", &path];
        run(&[&made[..], more].concat())
    };
    let refused = |name: &str, more: &[&str], message: &str| {
        let output = make(name, more);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let start = format!("lightgpt: {}: expected ", at(name).display());
        let error = error(&output);
        assert!(
            error.starts_with(&start) && error.contains(message),
            "{error}"
        );
    };
    fs::write(at("notes"), "mine").unwrap();
    fs::create_dir(at("folder")).unwrap();
    let fifo = std::process::Command::new("mkfifo")
        .arg(at("fifo"))
        .status();
    assert!(fifo.unwrap().success());
    for (link, to) in [
        ("device", "/dev/full"),
        ("nowhere", "absent"),
        ("link", "real.gguf"),
    ] {
        std::os::unix::fs::symlink(to, at(link)).unwrap();
    }
    refused("notes", &[], "another file; --force replaces it");
    assert_eq!(fs::read(at("notes")).unwrap(), b"mine");
    for more in [&[][..], &["--force"]] {
        refused("folder", more, "a folder");
        refused("fifo", more, "a device, FIFO or socket");
        refused("device", more, "a device, FIFO or socket");
        refused("nowhere", more, "a link that leads nowhere");
    }
    quiet(&make("notes", &["--force"]));
    let small = fs::read(at("notes")).unwrap();
    assert_eq!(small[..4], *b"GGUF");
    // One of ours is replaced by another, also behind a link.
    fs::write(at("real.gguf"), &small).unwrap();
    quiet(&make("link", &["--layers", "1"]));
    assert!(at("link").is_symlink());
    assert!(fs::read(at("real.gguf")).unwrap().len() < small.len());
    let standard = run(&["make-model", "test", "--type", "Q4_0", "--out", "-"]);
    assert_eq!(standard.status.code(), Some(2), "{standard:?}");
    assert!(error(&standard).contains("--out: expected a file, found '-'"));
    let absent = make("absent/model.gguf", &[]);
    let path = at("absent/model.gguf");
    let message = format!("lightgpt: {}: No such file", path.display());
    assert!(error(&absent).starts_with(&message), "{absent:?}");
}

#[test]
fn wrong_shapes_types_and_places_are_refused() {
    let cases: [(i32, &[&str], &str); 5] = [
        (
            2,
            &["make-model", "huge", "--type", "Q4_0"],
            "possible values: tiny",
        ),
        (2, &["make-model", "test", "--type", "Q9"], "Q4_K_M"),
        (2, &["make-model", "test"], "--type"),
        (
            2,
            &["make-model", "test", "--type", "Q4_0", "--layers", "0"],
            "--layers",
        ),
        (
            1,
            &[
                "make-model",
                "test",
                "--type",
                "Q4_0",
                "--out",
                "no/such/folder",
            ],
            "no/such/folder",
        ),
    ];
    for (code, arguments, message) in cases {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(error(&output).contains(message), "{output:?}");
    }
}

fn bench(more: &[&str]) -> Value {
    let arguments = [&["bench", MODEL, "--json", "--threads", "2"][..], more].concat();
    serde_json::from_str(&quiet(&run(&arguments))).unwrap()
}

#[test]
fn speeds_are_measured_beside_their_limits() {
    let report = bench(&["--prefill", "8,16", "--decode", "4,0", "--repetitions", "3"]);
    let results = report["results"].as_array().unwrap();
    let shown: Vec<(&str, u64, u64)> = results
        .iter()
        .map(|result| {
            let number = |name: &str| result[name].as_u64().unwrap();
            let kind = result["kind"].as_str().unwrap();
            (kind, number("tokens"), number("context_depth"))
        })
        .collect();
    let expected = [
        ("prefill", 8, 0),
        ("decode", 4, 8),
        ("prefill", 16, 0),
        ("decode", 4, 16),
    ];
    assert_eq!(shown, expected);
    for result in results {
        let number = |value: &Value| value.as_f64().unwrap();
        let median = number(&result["tokens_per_second"]);
        let spread = &result["spread"];
        assert!(number(&spread["min"]) <= median && median <= number(&spread["max"]));
        assert!(number(&spread["interquartile"]) >= 0.0);
        assert_eq!(result["seconds"].as_array().unwrap().len(), 3);
        assert!(number(&result["percent_of_peak"]) > 0.0, "{result}");
        let decodes = result["kind"] == "decode";
        assert_eq!(result["percent_of_read"].is_f64(), decodes, "{result}");
        assert_eq!(result["kv_bytes_per_token"].is_u64(), decodes, "{result}");
        assert_eq!(result["threads"], 2);
        assert!(result["model_bytes"].as_u64() > Some(4_000_000));
        assert!(result["parameters"].as_u64() > Some(4_000_000));
        assert!(result["isa"].is_string());
    }
    let limits = &report["limits"];
    for rate in [
        &limits["read_bytes_per_second"],
        &limits["integer"]["multiply_adds_per_second"],
        &limits["float"]["multiply_adds_per_second"],
    ] {
        assert!(rate.as_f64() > Some(1e6), "{limits}");
    }
}

#[test]
fn tokens_before_a_measurement_are_not_measured() {
    let more = [
        "--prefill",
        "0",
        "--decode",
        "4",
        "--depth",
        "20,50",
        "--warmup",
        "0",
    ];
    let report = bench(&more);
    let results = report["results"].as_array().unwrap();
    let depths = results.iter().map(|one| one["context_depth"].as_u64());
    assert!(depths.eq([Some(20), Some(50)]));
    // Each of the four tokens reads those behind it, and itself.
    let [less, more] = [0, 1].map(|i| results[i]["kv_bytes_per_token"].as_u64().unwrap());
    assert_eq!(less * 105, more * 45);
    let nothing = run(&["bench", MODEL, "--prefill", "0", "--decode", "0"]);
    assert_eq!(nothing.status.code(), Some(2), "{nothing:?}");
    let long = run(&["bench", MODEL, "--prefill", "200, 8", "--decode", "50,100"]);
    assert_eq!(long.status.code(), Some(2), "{long:?}");
    let message = "--depth 0, --prefill 200, --decode 100: expected at most 256 tokens in all (the \
                   model's context), found 300";
    assert!(error(&long).contains(message), "{long:?}");
}

/// Of experts, what a token takes is what counts.
#[test]
fn experts_that_are_not_taken_are_not_read() {
    let path = folder("experts").join("model.gguf");
    let out = path.to_str().unwrap();
    let shape = ["make-model", "test-experts", "--type", "Q4_0", "--out", out];
    assert_eq!(quiet(&run(&shape)), "");
    let once = ["bench", out, "--prefill", "4", "--decode", "2", "--json"];
    let report = quiet(&run(&[&once[..], &["--repetitions", "1"]].concat()));
    let report: Value = serde_json::from_str(&report).unwrap();
    let gguf = Gguf::open(
        Source::Path(&path),
        &LoadOptions::default(),
        &mut Control::none(),
    );
    let gguf = gguf.unwrap();
    // Two of four; of the embedding one row.
    let read = gguf.tensors().iter().map(|tensor| match &*tensor.name {
        "token_embd.weight" => 0,
        name if name.contains("_exps") => tensor.bytes.len() / 2,
        _ => tensor.bytes.len(),
    });
    let read = read.sum::<usize>() as f64;
    assert_eq!(report["model"]["bytes_per_token"], read as u64);
    let decode = &report["results"][1];
    let rate = decode["weight_bytes_per_second"].as_f64().unwrap();
    let expected = read * decode["tokens_per_second"].as_f64().unwrap();
    assert!((rate / expected - 1.0).abs() < 1e-9, "{rate} {expected}");
    // The matrices of a token, and a few of attention.
    let values = |all: bool| -> u64 {
        let matrices = gguf.tensors().iter().filter(|tensor| tensor.dimensions > 1);
        let matrices = matrices.filter(|tensor| &*tensor.name != "token_embd.weight");
        let share = |name: &str| if name.contains("_exps") && !all { 2 } else { 1 };
        matrices
            .map(|tensor| tensor.values() / share(&tensor.name))
            .sum()
    };
    let seconds = 2.0 / decode["tokens_per_second"].as_f64().unwrap();
    let each = decode["multiply_adds_per_second"].as_f64().unwrap() * seconds / 2.0;
    let (taken, all) = (values(false) as f64, values(true) as f64);
    assert!(
        taken <= each && each < taken + (all - taken) / 8.0,
        "{each}"
    );
}

#[test]
fn sequences_decode_together() {
    let alone = ["--prefill", "0", "--decode", "0", "--repetitions", "2"];
    let report = bench(&[&alone[..], &["--sequences", "4", "--steps", "6"]].concat());
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 1);
    let result = &results[0];
    assert_eq!(result["kind"], "batch");
    let numbers = ["tokens", "sequences", "context_depth"].map(|name| result[name].as_u64());
    assert_eq!(numbers, [Some(24), Some(4), Some(16)]);
    assert!(result["tokens_per_second"].as_f64() > Some(0.0));
    assert!(result["percent_of_peak"].as_f64() > Some(0.0));
    assert!(result["percent_of_read"].is_null());
    let long = [
        &["bench", MODEL, "--sequences", "2", "--steps", "240"],
        &alone[..],
    ]
    .concat();
    let long = run(&long);
    assert_eq!(long.status.code(), Some(2), "{long:?}");
    let message =
        "--steps 240: expected at most 256 tokens in all (the model's context), found 257";
    assert!(error(&long).contains(message), "{long:?}");
}

#[test]
fn what_is_not_chosen_fits_the_model() {
    for (more, fits) in [
        (&[][..], "--prefill 192 --decode 64"),
        (&["--prefill", "200"], "--prefill 200 --decode 56"),
        (
            &["--decode", "6", "--depth", "50"],
            "--prefill 200 --decode 6",
        ),
    ] {
        let once = ["bench", MODEL, "--repetitions", "1", "--warmup", "0"];
        let output = run(&[&once[..], more].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(
            error(&output),
            format!("lightgpt: the model's context of 256 tokens has room for {fits}\n")
        );
    }
}

#[test]
fn measurements_take_turns_by_lines() {
    let mut command = tool(&["bench", MODEL, "--prefill", "8", "--decode", "2", "--paced"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(line()["ready"], true);
    for _ in 0..2 {
        input.write_all(b"\n").unwrap();
        let turn = line();
        assert_eq!(turn["results"].as_array().unwrap().len(), 2, "{turn}");
        assert!(turn["results"][0]["seconds"].as_f64() > Some(0.0));
    }
    drop(input);
    assert_eq!(line()["repetitions"], 2);
    assert!(child.wait().unwrap().success());
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_shows_how_far_a_measurement_is() {
    // Token by token and slowly, so that it takes longer than the pause between two messages.
    let slow = "--depth 200 --prefill 0 --decode 1 --chunk 1 --threads 1";
    let command = format!("'{TOOL}' bench {MODEL} {slow} --warmup 0 --repetitions 1");
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &command, "/dev/null"]);
    terminal.current_dir(ROOT).env("LIGHTGPT_ISA", "scalar");
    let Ok(output) = terminal.stdin(Stdio::null()).output() else {
        let what = "a_terminal_shows_how_far_a_measurement_is";
        let _ = writeln!(std::io::stderr(), "SKIPPED {what}: no script is installed");
        return;
    };
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}");
    let texts = shown.split("1 of 1: decode 1 behind 200, ").skip(1);
    let mut counts = texts.filter_map(|text| text.split(' ').next()?.parse::<u32>().ok());
    assert!(counts.any(|count| (2..200).contains(&count)), "{shown}");
}

#[test]
fn choices_are_measured_beside_one_thread() {
    let quick = ["tune", MODEL, "--quick", "--json", "--threads", "2"];
    let output = run(&[&quick[..], &["--only", "rope,chunks"]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let list = |name: &str| report[name].as_array().unwrap().clone();
    assert!(list("products").is_empty() && list("tiles").is_empty());
    let operations = list("operations");
    assert!(operations.len() > 1);
    let alone_ns = report["alone_ns"].as_u64().unwrap();
    for one in &operations {
        assert_eq!(one["operation"], "rope");
        let is_shared = one["estimate_ns"].as_u64().unwrap() >= alone_ns;
        assert_eq!(one["path"], if is_shared { "shared" } else { "alone" });
        let ends = ["low", "median", "high"].map(|end| one["path_speed_up"][end].as_f64().unwrap());
        assert!(0.0 < ends[0] && ends.is_sorted(), "{one}");
        assert!(["kept", "open", "broken"].contains(&one["rule"].as_str().unwrap()));
    }
    let built_in = list("chunks")
        .iter()
        .filter(|one| one["is_built_in"] == true)
        .count();
    assert_eq!(built_in, 1);
    let nothing = run(&["tune", "--quick", "--only", "chunks"]);
    assert_eq!(nothing.status.code(), Some(2), "{nothing:?}");
}
