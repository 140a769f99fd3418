//! What several test programs share: the data that lies outside the project.

use std::io::Write;
use std::path::PathBuf;

/// `path` inside the shared data folder beside the checkout, or `None` after saying loudly that
/// the test `name` is skipped.
pub fn shared(name: &str, path: &str) -> Option<PathBuf> {
    let full = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../shared")
        .join(path);
    if full.exists() {
        return Some(full);
    }
    // Not eprintln!, which the test harness keeps to itself when a test passes.
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "SKIPPED {name}: ../shared/{path} is not there");
    None
}
