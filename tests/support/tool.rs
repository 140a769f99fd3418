//! The command line tool, for the test programs that drive it.

#![allow(clippy::unwrap_used, dead_code)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The built tool.
pub const TOOL: &str = env!("CARGO_BIN_EXE_lightgpt");
/// The root of the project, where `tool` runs.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The model that comes with it.
pub const MODEL: &str = "models/tales-4m-q8_0.gguf";

/// The tool, run in the root of the project without what the environment may say.
pub fn tool(arguments: &[&str]) -> Command {
    let mut command = Command::new(TOOL);
    command.args(arguments).current_dir(ROOT);
    command.env_remove("RAYON_NUM_THREADS");
    command
}

/// Runs with these arguments.
pub fn run(arguments: &[&str]) -> Output {
    tool(arguments).output().unwrap()
}

/// Standard error.
pub fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Standard output of a run that must succeed, quietly.
pub fn quiet(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(error(output), "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Runs with `input` on standard input.
pub fn run_with(input: &[u8], arguments: &[&str]) -> Output {
    let mut command = tool(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// An empty folder of that name.
pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("cli")
        .join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}
