//! Model files of a test's own: where they lie, and opening them.
#![allow(dead_code)] // not every program uses all of it

use std::fs;
use std::path::{Path, PathBuf};

use lightgpt::control::Control;
use lightgpt::error::Result;
use lightgpt::gguf::{Gguf, LoadOptions, Source};

/// An empty directory called `name`.
pub fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("the tests' folder can be written");
    path
}

pub fn open_with(source: Source<'_>, options: &LoadOptions) -> Result<Gguf> {
    Gguf::open(source, options, &mut Control::none())
}

/// Opens the model at `path`, copied or mapped.
pub fn open_path(path: &Path, copy: bool) -> Result<Gguf> {
    let options = LoadOptions {
        copy,
        ..LoadOptions::default()
    };
    open_with(Source::Path(path), &options)
}
