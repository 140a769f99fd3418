//! Compiles C programs against the library that was just built, and runs them.
//!
//! That library is the one beside the test program, or in the folder that LIGHTGPT_LIBRARY names.
#![allow(dead_code)] // each test program uses a part

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Where the project is.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// How a program gets at the library.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Link {
    Shared,
    Static,
}

/// The model that comes with the project.
pub fn model() -> PathBuf {
    Path::new(ROOT).join("models/tales-4m-q8_0.gguf")
}

/// The folder with the shared library, its links, and the static library as they are installed.
pub fn library() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let exe = std::env::current_exe().expect("a test knows its own place");
        let beside = exe
            .parent()
            .expect("a program lies in a folder")
            .to_path_buf();
        let built = std::env::var_os("LIGHTGPT_LIBRARY").map_or(beside, PathBuf::from);
        let name = exe
            .file_stem()
            .expect("a program has a name")
            .to_string_lossy();
        let name = name.split('-').next().expect("split gives a first part");
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let mut make = Command::new("make");
        make.current_dir(ROOT).args(["-s", "shared", "static"]);
        make.arg(format!("LIBRARY={}", built.display()))
            .arg(format!("OUT={}", out.display()));
        succeed(&mut make);
        out
    })
}

/// Compiles `source` (a path in the project) strictly; the program's path.
pub fn compile(source: &str, link: Link, flags: &[&str]) -> PathBuf {
    let folder = library();
    let stem = Path::new(source).file_stem().expect("a source has a name");
    let program = folder.join(format!("{}-{link:?}", stem.to_string_lossy()));
    let is_cpp = source.ends_with(".cpp");
    let mut cc = Command::new(if is_cpp { "c++" } else { "cc" });
    cc.current_dir(ROOT)
        .arg(if is_cpp { "-std=c++17" } else { "-std=c99" })
        .args([
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-O1",
            "-pthread",
            "-Iinclude",
        ])
        .arg(source)
        .args(flags)
        .arg("-o")
        .arg(&program);
    match link {
        Link::Shared => cc
            .arg("-L")
            .arg(folder)
            .arg("-llightgpt")
            .arg(format!("-Wl,-rpath,{}", folder.display())),
        Link::Static => cc.arg(folder.join("liblightgpt.a")).args(["-ldl", "-lm"]),
    };
    succeed(&mut cc);
    program
}

/// Runs a program that must succeed; what it printed.
pub fn succeed(command: &mut Command) -> String {
    let output = run(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("our programs print UTF-8")
}

/// Runs a program.
pub fn run(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// Says that a part of a test is left out, and why; seen although the test passes.
pub fn skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {why}");
}

/// Whether this machine has the program `name`.
pub fn has(name: &str) -> bool {
    Command::new(name).arg("--version").output().is_ok()
}
