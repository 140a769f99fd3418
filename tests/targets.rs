//! Library and tool compile for the platforms that this machine cannot run, where their std is there.
#![allow(clippy::unwrap_used)] // tests

#[path = "support/programs.rs"]
mod programs;

use std::path::Path;
use std::process::Command;

use programs::{ROOT, succeed};

#[test]
fn it_compiles_for_windows_and_macos() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let sysroot = succeed(Command::new(rustc).args(["--print", "sysroot"]));
    for target in ["x86_64-pc-windows-msvc", "aarch64-apple-darwin"] {
        if !Path::new(sysroot.trim())
            .join("lib/rustlib")
            .join(target)
            .exists()
        {
            programs::skipped(target, "its standard library is not installed");
            continue;
        }
        let mut check = Command::new(env!("CARGO"));
        check
            .current_dir(ROOT)
            .args(["check", "--lib", "--bins", "--features", "cli"])
            .args(["--locked", "--target", target]);
        check
            .arg("--target-dir")
            .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("targets"));
        check.env("RUSTFLAGS", "-D warnings");
        succeed(&mut check);
    }
}
