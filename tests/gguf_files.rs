//! Model files of others: vocabularies and models open, old versions are refused, and what is too
//! large is refused before it costs anything.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test; a skipped one must be seen

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use lightgpt::control::Control;
use lightgpt::error::{Code, Result};
use lightgpt::gguf::limits::{HEAD_BYTES_MAX, KEYS_MAX, TENSORS_MAX};
use lightgpt::gguf::{Gguf, LoadOptions, Metadata, Source};

use support::shared;

fn open(path: &Path) -> Result<Gguf> {
    Gguf::open(
        Source::Path(path),
        &LoadOptions::default(),
        &mut Control::none(),
    )
}

/// A sparse file: `head`, then zeros up to `bytes`.
fn sparse(path: &Path, head: &[u8], bytes: u64) {
    fs::write(path, head).unwrap();
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(bytes)
        .unwrap();
}

#[test]
fn limits_hold_where_the_bytes_are_there() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gguf-limits.gguf");
    let head = |tensors: u64, keys: u64| {
        let counts = [tensors.to_le_bytes(), keys.to_le_bytes()].concat();
        [&b"GGUF\x03\0\0\0"[..], &counts].concat()
    };
    let mut long_string = head(0, 1);
    long_string.extend(b"\x01\0\0\0\0\0\0\0k\x08\0\0\0");
    long_string.extend((HEAD_BYTES_MAX - 10).to_le_bytes());
    for (head, place) in [
        (long_string, "key 'k'"),
        (head(0, KEYS_MAX + 1), "key count"),
        (head(TENSORS_MAX + 1, 0), "tensor count"),
    ] {
        sparse(&path, &head, 2 * HEAD_BYTES_MAX);
        // The best of three: the machine may be busy.
        let fastest = (0..3).map(|_| {
            let start = Instant::now();
            let e = open(&path).unwrap_err();
            let time = start.elapsed();
            assert_eq!(e.code(), Code::Unsupported, "{e}");
            assert!(e.to_string().contains(place), "{e}");
            time
        });
        let fastest = fastest.min().unwrap();
        println!("{place}: refused in {fastest:?}");
        assert!(fastest.as_millis() < 500, "{place}: {fastest:?}");
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn an_old_version_is_refused_clearly() {
    let Some(path) = shared("old version", "data/models/stories260K-gguf-v1.gguf") else {
        return;
    };
    let e = open(&path).unwrap_err();
    assert_eq!(e.code(), Code::Unsupported);
    assert!(e.to_string().contains("version 1 is not supported"), "{e}");
}

#[test]
fn real_files_open() {
    let Some(data) = shared("real files", "data") else {
        return;
    };
    let list = |folder: &str| -> Vec<PathBuf> {
        fs::read_dir(data.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect()
    };
    let mut files = list("vocab");
    files.extend(
        list("golden")
            .iter()
            .map(|folder| folder.join("model.gguf")),
    );
    files.extend(
        ["models/stories260K-f16.gguf", "models/stories260K-f32.gguf"].map(|f| data.join(f)),
    );
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "gguf")
    });
    assert!(files.len() >= 9 + 15 + 2, "{files:?}");
    for file in files {
        let gguf = open(&file).unwrap_or_else(|e| panic!("{e}"));
        gguf.metadata()
            .required("general.architecture", Metadata::str)
            .unwrap();
        let sum: u64 = gguf
            .tensors()
            .iter()
            .map(|tensor| u64::from(tensor.bytes[0]))
            .sum();
        std::hint::black_box(sum);
    }
    let edge = |name: &str| open(&data.join("models/edge").join(name));
    assert_eq!(edge("las7-empty.gguf").unwrap().tensors().len(), 0);
    assert_eq!(edge("las7-tiny.gguf").unwrap_err().code(), Code::Format);
    assert_eq!(edge("gguf-fuzz-lab-valid.gguf").unwrap().tensors().len(), 1);
}

#[test]
fn a_large_vocabulary_opens_fast() {
    let Some(path) = shared("large vocabulary", "data/vocab/ggml-vocab-qwen2.gguf") else {
        return;
    };
    // The best of five: the machine may be busy.
    let fastest = (0..5).map(|_| {
        let start = Instant::now();
        let gguf = open(&path).unwrap();
        let time = start.elapsed();
        let tokens = gguf
            .metadata()
            .strings("tokenizer.ggml.tokens")
            .unwrap()
            .unwrap();
        assert_eq!((tokens.len(), tokens.get(0)), (151_646, Some(&b"!"[..])));
        time
    });
    let fastest = fastest.min().unwrap();
    println!("151,646 tokens and 151,387 merges open in {fastest:?}");
    // The aim is 60 ms when alone.
    assert!(fastest.as_millis() < 500, "{fastest:?}");
}
