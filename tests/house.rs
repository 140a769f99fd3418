//! The rules of the house, read from the sources: the order of modules, where unsafe code, C, CPU
//! and model names may stand, and how long files may be.
#![allow(clippy::unwrap_used)] // tests

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Modules, or files of modules, that may contain unsafe code.
const UNSAFE: [&str; 5] = ["budget", "gguf/map", "kernel", "team", "capi"];

/// Names of models and their makers; they stand where the module says what differs between files.
const MODELS: [&str; 19] = [
    "llama",
    "qwen",
    "gemma",
    "mistral",
    "mixtral",
    "phi3",
    "phi-3",
    "falcon",
    "deepseek",
    "gpt2",
    "gpt-2",
    "starcoder",
    "smollm",
    "granite",
    "olmo",
    "command-r",
    "modern-bert",
    "nomic",
    "jina",
];
const MODELS_ALLOWED: [&str; 4] = [
    "model/arch.rs",
    "tokenizer",
    "chat",
    "bin/lightgpt/make_model/shapes.rs",
];

const ISAS: [&str; 7] = [
    "avx2",
    "avx512",
    "avx-512",
    "neon",
    "vnni",
    "sse4",
    "target_feature",
];

/// A source file: its path under src with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The part of the file that is not tests: those stand last.
    fn code(&self) -> &str {
        let tests = self.text.find("#[cfg(test)]\nmod tests");
        &self.text[..tests.unwrap_or(self.text.len())]
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }

    fn module(&self) -> &str {
        self.path
            .split(['/', '.'])
            .next()
            .expect("split gives a first part")
    }

    fn is_in(&self, places: &[&str]) -> bool {
        let stem = self.path.trim_end_matches(".rs");
        places.iter().any(|place| {
            let place = place.trim_end_matches(".rs");
            stem.strip_prefix(place)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

fn sources() -> Vec<Source> {
    fn walk(folder: &Path, all: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(&path, all),
                false => all.push(path),
            }
        }
    }
    let src = Path::new(ROOT).join("src");
    let mut paths = Vec::new();
    walk(&src, &mut paths);
    paths.sort();
    assert!(paths.len() > 20);
    paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| Source {
            path: path
                .strip_prefix(&src)
                .unwrap()
                .to_string_lossy()
                .replace('\\', "/"),
            text: fs::read_to_string(&path).unwrap(),
        })
        .collect()
}

/// The modules in the order of lib.rs.
fn modules() -> Vec<String> {
    let lib = fs::read_to_string(Path::new(ROOT).join("src/lib.rs")).unwrap();
    lib.lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(String::from)
        .collect()
}

#[test]
fn a_module_imports_only_from_those_above_it() {
    let order = modules();
    let place = |module: &str| order.iter().position(|name| name == module);
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(own) = place(source.module()) else {
            assert!(["lib.rs", "main.rs"].contains(&&source.path[..]) || source.is_in(&["bin"]));
            continue;
        };
        for (number, line) in source.code().lines().enumerate() {
            let line = line.split("//").next().expect("split gives a first part");
            for used in line.split("crate::").skip(1) {
                let name: String = used
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                if place(&name).is_some_and(|used| used > own) {
                    wrong.push(format!("{}:{}: crate::{name}", source.path, number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_code_stands_in_few_places() {
    for source in sources().iter().filter(|source| !source.is_in(&UNSAFE)) {
        for (number, line) in source.text.lines().enumerate() {
            let allows = line.contains("allow(unsafe_code)");
            assert!(!allows, "{}:{}: {line}", source.path, number + 1);
        }
    }
    let cargo = fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap();
    for lint in [
        "unsafe_code",
        "missing_docs",
        "undocumented_unsafe_blocks",
        "unwrap_used",
    ] {
        assert!(cargo.contains(&format!("{lint} = \"deny\"")), "{lint}");
    }
}

#[test]
fn c_functions_stand_in_capi() {
    for source in sources().iter().filter(|source| !source.is_in(&["capi"])) {
        for (number, line) in source.code().lines().enumerate() {
            let is_c = line.contains("extern \"C\"") || line.contains("no_mangle");
            assert!(!is_c, "{}:{}: {line}", source.path, number + 1);
        }
    }
}

#[test]
fn names_stay_in_their_layer() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (number, line) in source.code().lines().enumerate() {
            let lower = line.to_lowercase();
            let found = |names: &[&str]| names.iter().any(|name| contains_word(&lower, name));
            let model = !source.is_in(&MODELS_ALLOWED) && found(&MODELS);
            let isa = !source.is_in(&["kernel"]) && found(&ISAS);
            if model || isa {
                wrong.push(format!("{}:{}: {line}", source.path, number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether `name` begins a word of `text`.
fn contains_word(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(char::is_alphanumeric)
    })
}

#[test]
fn files_are_short_and_have_a_subject() {
    const LINES_MAX: usize = 800;
    const HEADER_MAX: usize = 15;
    for source in sources() {
        let lines = source.text.lines().count();
        let is_table = source.path.contains("table");
        assert!(
            lines <= LINES_MAX || is_table,
            "{}: {lines} lines",
            source.path
        );
        let header = source
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .count();
        if !source.is_test() {
            assert!(
                (1..=HEADER_MAX).contains(&header),
                "{}: header of {header}",
                source.path
            );
        }
        for vague in ["util", "utils", "common", "helper", "helpers", "misc"] {
            let mut parts = source.path.split(['/', '.']);
            assert!(!parts.any(|part| part == vague), "{}", source.path);
        }
    }
}

#[test]
fn functions_are_short() {
    const LINES_MAX: usize = 70;
    let mut long = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            // rustfmt puts the brace that ends a function below its first letter.
            let indent = line.len() - line.trim_start().len();
            let is_function = contains_word(line, "fn ") && !line.trim_start().starts_with("//");
            let end = format!("{}}}", " ".repeat(indent));
            let body = lines[number..].iter().position(|line| **line == end);
            let is_one_line = line.ends_with(['}', ';']);
            if is_function && !is_one_line && body.is_some_and(|lines| lines >= LINES_MAX) {
                long.push(format!("{}:{}: {line}", source.path, number + 1));
            }
        }
    }
    long.retain(|place| !place.contains("table"));
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn nothing_is_left_undone() {
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            for mark in ["TODO", "FIXME", "XXX", "unimplemented!"] {
                assert!(
                    !line.contains(mark),
                    "{}:{}: {line}",
                    source.path,
                    number + 1
                );
            }
        }
    }
}

#[test]
fn reserved_members_of_options_are_checked() {
    for source in sources().iter().filter(|s| s.is_in(&["capi"])) {
        for item in source.code().split("\npub struct ").skip(1) {
            let name = item.split(' ').next().expect("split gives a first part");
            let members = &item[..item.find("\n}").expect("a struct ends")];
            if !name.ends_with("_options") || !members.contains("pub reserved") {
                continue;
            }
            let start = source.text.find(&format!("impl Struct for {name} "));
            let rest = &source.text[start.unwrap_or_else(|| panic!("{name} is no Struct"))..];
            let body = &rest[..rest.find("\n}").expect("an impl ends")];
            for member in members.lines().filter(|l| l.contains("pub reserved")) {
                let member = member.trim().trim_start_matches("pub ");
                let member = member.split(':').next().expect("split gives a first part");
                let offset = format!("offset_of!(Self, {member})");
                let list = body.find("RESERVED").map_or("", |at| &body[at..]);
                assert!(list.contains(&offset), "{name}.{member} is not checked");
            }
        }
    }
}

#[test]
fn dependencies_say_why_they_are_there() {
    let cargo = fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap();
    let mut section = "";
    for line in cargo.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]") && line.contains('=') {
            assert!(line.contains(" # "), "{line}");
        }
    }
}

#[test]
fn what_is_linked_is_credited() {
    let mut tree = std::process::Command::new(env!("CARGO"));
    tree.current_dir(ROOT)
        .args(["tree", "--offline", "--locked", "--prefix", "none"]);
    tree.args(["--features", "cli"]);
    tree.args(["--edges", "normal,no-proc-macro", "--format", "{p}"]);
    let output = tree.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let notices = fs::read_to_string(Path::new(ROOT).join("THIRD-PARTY.md")).unwrap();
    let listed: Vec<&str> = notices
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .flat_map(|names| names.split(", "))
        .collect();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let name = line.split(' ').next().expect("split gives a first part");
        assert!(
            name.is_empty() || name == "lightgpt" || listed.contains(&name),
            "{name}"
        );
    }
}
