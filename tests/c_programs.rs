//! C programs against the shared and the static library: the examples, and what a host may do to
//! us (two languages, threads, float environment, fork).
#![cfg(target_os = "linux")] // its tools, and the Makefile
#![allow(clippy::unwrap_used)] // tests

#[path = "support/programs.rs"]
mod programs;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use programs::{Link, ROOT, compile, has, library, model, run, succeed};

const LINKS: [Link; 2] = [Link::Shared, Link::Static];

#[test]
fn generate_streams_a_story() {
    let mut texts = LINKS.map(|link| {
        let program = compile("examples-c/generate.c", link, &[]);
        let arguments = ["Once upon a time", "40", "7"];
        succeed(Command::new(&program).arg(model()).args(arguments))
    });
    assert_eq!(texts[0], texts[1]);
    let text = std::mem::take(&mut texts[0]);
    assert!(text.starts_with("Once upon a time"), "{text}");
    assert!(text.split_whitespace().count() > 15, "{text}");

    let program = compile("examples-c/generate.c", Link::Shared, &[]);
    let failed = run(Command::new(&program).arg("no/such/file"));
    assert_eq!(failed.status.code(), Some(1));
    let message = String::from_utf8(failed.stderr).unwrap();
    assert!(message.contains("LIGHTGPT_IO"), "{message}");
    assert!(!run(&mut Command::new(&program)).status.success());
}

#[test]
fn tokens_shows_model_and_tokens() {
    for link in LINKS {
        let program = compile("examples-c/tokens.c", link, &[]);
        let text = succeed(Command::new(program).arg(model()));
        for part in [
            "llama, 4 layers, 256 wide",
            "4096 tokens",
            "They spell the same text.",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

#[test]
fn errors_are_all_answered() {
    for link in LINKS {
        let program = compile("examples-c/errors.c", link, &[]);
        let output = run(Command::new(program).arg(model()));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && text.contains("0 wrong answers"),
            "{text}"
        );
        // The library itself prints nothing, whatever happens to it.
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn chat_loop_answers_each_line() {
    for link in LINKS {
        let program = compile("examples-c/chat_loop.c", link, &[]);
        let talk = |lines: &str| {
            let mut child = Command::new(&program)
                .arg(model())
                .args(["20", "7"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = child.stdin.take().unwrap();
            input.write_all(lines.as_bytes()).unwrap();
            drop(input);
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            let text = |bytes| String::from_utf8(bytes).unwrap();
            (text(output.stdout), text(output.stderr))
        };
        // Lines that are too long in bytes and in tokens are told, and change nothing.
        let (both, told) = talk("Once upon a time\nThe little dog\n");
        assert_eq!(told, "");
        let (bytes, tokens) = ("x ".repeat(4000), "a b c ".repeat(600));
        let lines = format!("Once upon a time\n{bytes}\n{tokens}\nThe little dog\n");
        let (same, told) = talk(&lines);
        assert_eq!(same, both);
        assert_eq!(told.matches("[left out: ").count(), 2, "{told}");
        assert_eq!(told.lines().count(), 2, "{told}");
        let talk = |lines: &str| talk(lines).0;
        let one = talk("Once upon a time\n");
        let two = talk("Once upon a time\nThe little dog\n");
        // What a session said does not depend on what comes, and the second line gets an answer.
        assert!(two.starts_with(one.trim_end()), "{one}\n{two}");
        assert!(two.len() > one.len() + 20, "{one}\n{two}");
        assert_eq!(talk(""), "\n");
    }
}

#[test]
fn stream_streams_in_cpp() {
    if !has("c++") {
        programs::skipped("stream.cpp", "no c++ is installed");
        return;
    }
    let texts = LINKS.map(|link| {
        let program = compile("examples-c/stream.cpp", link, &[]);
        let text = succeed(
            Command::new(&program)
                .arg(model())
                .args(["The old king", "7"]),
        );
        let failed = run(Command::new(&program).arg("no/such/file"));
        assert_eq!(failed.status.code(), Some(1));
        assert!(
            String::from_utf8(failed.stderr)
                .unwrap()
                .contains("LIGHTGPT_IO")
        );
        text
    });
    assert_eq!(texts[0], texts[1]);
    assert!(texts[0].starts_with("The old king"), "{}", texts[0]);
    let end = texts[0].trim_end_matches(['"', '\n']);
    assert!(end.ends_with(['.', '!', '?']), "{end}");
}

#[test]
fn sample_obeys_its_own_stage() {
    for link in LINKS {
        let program = compile("examples-c/sample.c", link, &[]);
        let text = succeed(
            Command::new(program)
                .arg(model())
                .args(["Once upon a time", "e"]),
        );
        let (story, counts) = text.rsplit_once("\n\n").unwrap();
        let made = story.strip_prefix("Once upon a time").unwrap();
        assert!(made.len() > 20 && !made.contains('e'), "{text}");
        assert!(counts.contains("excluded"), "{text}");
    }
}

#[test]
fn embed_puts_the_nearest_first() {
    let texts = LINKS.map(|link| {
        let program = compile("examples-c/embed.c", link, &[]);
        let sentences = ["The dog ran home.", "Once upon a time", "One day, a cat."];
        let text = succeed(
            Command::new(&program)
                .arg(model())
                .arg("One day, a cat.")
                .args(sentences),
        );
        assert!(!run(Command::new(&program).arg(model())).status.success());
        text
    });
    assert_eq!(texts[0], texts[1]);
    let scores = texts[0].lines().map(|line| {
        let score: f64 = line.split_whitespace().next().unwrap().parse().unwrap();
        score
    });
    assert!(
        texts[0].starts_with("  1.0000  One day, a cat.\n"),
        "{}",
        texts[0]
    );
    assert!(scores.is_sorted_by(|a, b| a >= b));
}

#[test]
fn fork_tells_ten_endings() {
    let texts = LINKS.map(|link| {
        let program = compile("examples-c/fork.c", link, &[]);
        let arguments = ["Once upon a time", "12", "7"];
        succeed(Command::new(program).arg(model()).args(arguments))
    });
    assert_eq!(texts[0], texts[1]);
    let endings: Vec<&str> = texts[0]
        .lines()
        .filter_map(|line| line.split_once(". Once upon a time"))
        .map(|(_, ending)| ending)
        .collect();
    assert_eq!(endings.len(), 10, "{}", texts[0]);
    let mut different = endings.clone();
    different.sort_unstable();
    different.dedup();
    assert!(different.len() > 8, "{}", texts[0]);
}

#[test]
fn save_goes_on_from_run_to_run() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let story = |link, file: &str, runs: &[&str]| {
        let program = compile("examples-c/save.c", link, &[]);
        let file = folder.join(file);
        let _ = fs::remove_file(&file);
        let tell = |tokens: &&str| {
            let mut command = Command::new(&program);
            let text = succeed(command.arg(model()).arg(&file).arg(tokens));
            text.strip_suffix('\n').unwrap().to_string()
        };
        runs.iter().map(tell).collect::<String>()
    };
    for link in LINKS {
        let whole = story(link, "whole.session", &["30"]);
        assert!(whole.len() > 60, "{whole}");
        assert_eq!(story(link, "parts.session", &["9", "14", "7"]), whole);
    }
}

#[test]
fn embed_in_loop_prints_frame_times() {
    for link in LINKS {
        let program = compile("examples-c/embed_in_loop.c", link, &[]);
        let text = succeed(Command::new(program).arg(model()).args(["2000", "30"]));
        assert!(text.contains("frames, 30 tokens"), "{text}");
        assert!(text.contains('#'), "{text}");
    }
}

#[test]
fn batch_makes_the_same_texts_together() {
    for link in LINKS {
        let program = compile("examples-c/batch.c", link, &[]);
        let text = succeed(Command::new(program).arg(model()).arg("8"));
        assert!(text.contains("16 of 16 texts are the same"), "{text}");
        assert!(text.contains("times as fast"), "{text}");
    }
}

#[test]
fn host_reads_from_an_archive_with_threads_and_memory_of_its_own() {
    let archive = library().join("archive.pak");
    let bytes = fs::read(model()).unwrap();
    let (front, behind) = (b"something else".to_vec(), b"and more");
    fs::write(&archive, [&front[..], &bytes, behind].concat()).unwrap();
    let place = [front.len(), bytes.len()].map(|number| number.to_string());
    let texts = LINKS.map(|link| {
        let program = compile("examples-c/host_control.c", link, &[]);
        let text = succeed(Command::new(&program).arg(&archive).args(&place));
        let cut = run(Command::new(&program)
            .arg(&archive)
            .args([&place[0], "100"]));
        let told = String::from_utf8(cut.stderr).unwrap();
        assert!(!cut.status.success() && told.contains("expected"), "{told}");
        text
    });
    assert_eq!(texts[0], texts[1]);
    assert!(
        texts[0].len() > 60 && texts[0].contains(" bytes of weights, "),
        "{}",
        texts[0]
    );
}

#[test]
fn npcs_all_speak_within_their_frames() {
    for link in LINKS {
        let program = compile("examples-c/npcs.c", link, &[]);
        let arguments = ["12", "3000", "40", "9"];
        let text = succeed(Command::new(program).arg(model()).args(arguments));
        let lines: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), 12, "{text}");
        // All dice are different, and all have been thrown.
        let said = lines.iter().map(|line| line.split_once(':').unwrap().1);
        let mut said: Vec<&str> = said.collect();
        said.sort_unstable();
        said.dedup();
        assert!(said.len() > 8 && said[0].len() > 8, "{text}");
        assert!(
            text.contains("12 characters, 1") && text.contains("in 40 frames"),
            "{text}"
        );
        for part in [
            "characters: p50",
            "whole frame: p50",
            "p99",
            "of 40 frames above",
            "#",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

#[test]
fn examples_are_short() {
    let lines_max = |path: &Path| match path.file_name().unwrap().to_str() {
        Some("server.cpp" | "answer.hpp") => 400,
        Some("npcs.c") => 210,
        _ => 120,
    };
    for folder in ["examples-c", "examples-c/server"] {
        for entry in fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            assert!(
                lines < lines_max(&path),
                "{}: {lines} lines",
                path.display()
            );
        }
    }
}

#[test]
fn the_readme_compiles() {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let start = readme.find("```c\n").expect("the readme shows C") + 5;
    let code = &readme[start..start + readme[start..].find("```").expect("the code ends")];
    let source = library().join("readme.c");
    fs::write(&source, code).unwrap();
    compile(source.to_str().unwrap(), Link::Shared, &[]);
}

#[test]
fn a_host_is_not_harmed() {
    for link in LINKS {
        let program = compile("tests/c/own_host.c", link, &[]);
        let text = succeed(Command::new(program).arg(model()));
        assert!(text.ends_with("all well\n"), "{text}");
    }
}

#[test]
fn a_queue_serves_a_host() {
    for link in LINKS {
        let program = compile("tests/c/queue.c", link, &[]);
        let output = run(Command::new(program).arg(model()));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.ends_with("all well\n"), "{text}");
        // Panics and errors of requests are told, not printed.
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn a_program_without_shared_libraries_needs_what_pkg_config_says() {
    let folder = library();
    let pc = fs::read_to_string(Path::new(ROOT).join("lightgpt.pc.in")).unwrap();
    let libraries = pc.lines().find_map(|l| l.strip_prefix("Libs.private: "));
    let libraries: Vec<&str> = libraries.unwrap().split(' ').collect();
    let program = folder.join("tokens-without-shared");
    let link = |source: &str, objects: &[&str]| {
        let mut cc = Command::new("cc");
        cc.current_dir(ROOT)
            .args(["-static", "-Iinclude", source, "-o"])
            .arg(&program);
        cc.args(objects).args(&libraries);
        cc
    };
    let nothing = folder.join("nothing.c");
    fs::write(&nothing, "int main(void) { return 0; }\n").unwrap();
    if !run(&mut link(nothing.to_str().unwrap(), &[]))
        .status
        .success()
    {
        programs::skipped("static program", "the C library has no static one");
        return;
    }
    let archive = folder.join("liblightgpt.a");
    succeed(&mut link(
        "examples-c/tokens.c",
        &[archive.to_str().unwrap()],
    ));
    let text = succeed(Command::new(&program).arg(model()));
    assert!(text.contains("They spell the same text."), "{text}");
}

#[test]
fn another_rust_library_links_beside_ours() {
    let folder = library();
    let source = folder.join("other.rs");
    let code = "#[unsafe(no_mangle)] pub extern \"C\" fn other(x: u32) -> u32 {\n\
        let words: Vec<String> = (0..x).map(|i| i.to_string()).collect();\n\
        let caught = std::panic::catch_unwind(|| assert!(words.len() > 9)).is_err();\n\
        words.len() as u32 + u32::from(caught)\n}\n";
    fs::write(&source, code).unwrap();
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let mut build = Command::new(rustc);
    build.args(["--edition=2024", "--crate-type=staticlib", "-o"]);
    succeed(build.arg(folder.join("libother.a")).arg(source));
    let main = folder.join("beside.c");
    let code = "#include <lightgpt.h>\n#include <stdio.h>\nextern uint32_t other(uint32_t x);\n\
        int main(void) {\nlightgpt_team *team = NULL;\nint32_t status = lightgpt_team_new(NULL, &team);\n\
        printf(\"%d %d %u\\n\", status, lightgpt_team_free(team), other(3));\nreturn 0;\n}\n";
    fs::write(&main, code).unwrap();
    for (first, second) in [
        ("liblightgpt.a", "libother.a"),
        ("libother.a", "liblightgpt.a"),
    ] {
        let program = folder.join("beside");
        let mut cc = Command::new("cc");
        cc.current_dir(ROOT)
            .args(["-Iinclude", "-o"])
            .arg(&program)
            .arg(&main);
        cc.arg(folder.join(first))
            .arg(folder.join(second))
            .args(["-lpthread", "-ldl", "-lm"]);
        succeed(&mut cc);
        assert_eq!(succeed(&mut Command::new(program)), "0 0 4\n");
    }
}

#[test]
fn a_cpp_program_compiles_and_runs() {
    if !has("c++") {
        programs::skipped("C++ program", "no c++ is installed");
        return;
    }
    let program = compile("tests/c/host.cpp", Link::Shared, &[]);
    assert_eq!(succeed(Command::new(program).arg(model())), "all well\n");
}

/// The C++ wrapper with both compilers and both standards, optimised so that they see through it.
#[test]
fn the_cpp_wrapper_keeps_its_promises() {
    for (compiler, standard) in [
        ("g++", "c++17"),
        ("g++", "c++20"),
        ("clang++", "c++17"),
        ("clang++", "c++20"),
    ] {
        if !has(compiler) {
            programs::skipped(
                &format!("C++ wrapper with {compiler}"),
                "it is not installed",
            );
            continue;
        }
        let folder = library();
        let program = folder.join(format!("wrapper-{compiler}-{standard}"));
        let mut build = Command::new(compiler);
        build
            .current_dir(ROOT)
            .arg(format!("-std={standard}"))
            .args([
                "-Wall",
                "-Wextra",
                "-Wpedantic",
                "-Werror",
                "-O1",
                "-pthread",
            ])
            .args([
                "-Wshadow",
                "-Wconversion",
                "-Iinclude",
                "tests/c/wrapper.cpp",
                "-o",
            ])
            .arg(&program)
            .arg("-L")
            .arg(folder)
            .arg("-llightgpt")
            .arg(format!("-Wl,-rpath,{}", folder.display()));
        succeed(&mut build);
        let text = succeed(Command::new(program).arg(model()));
        assert_eq!(text, "all well\n", "{compiler} {standard}");
    }
}
