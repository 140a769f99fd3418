//! Split models: any part opens the whole, and what does not fit together is refused by name.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/files.rs"]
mod files;

use std::fs;
use std::path::Path;

use lightgpt::error::{Code, Error};
use lightgpt::gguf::{LoadOptions, Source, Writer};
use lightgpt::quant::Format;

use files::{directory, open_path, open_with};

fn name(number: usize, count: usize) -> String {
    format!("m-{number:05}-of-{count:05}.gguf")
}

/// What part `number` (from 1) of `count` says of itself.
fn part(number: u16, count: u16, tensors: i32) -> Writer<'static> {
    let mut writer = Writer::new();
    writer.set("split.no", number - 1).unwrap();
    writer.set("split.count", count).unwrap();
    writer.set("split.tensors.count", tensors).unwrap();
    writer
}

/// Three parts, the first without tensors, as splitting tools write them.
fn write_three(directory: &Path) {
    let mut first = part(1, 3, 3);
    first.set("general.architecture", "llama").unwrap();
    let mut second = part(2, 3, 3);
    second.tensor("a", Format::F32, &[2], vec![1; 8]).unwrap();
    second.tensor("b", Format::F32, &[3], vec![2; 12]).unwrap();
    let mut third = part(3, 3, 3);
    third.tensor("c", Format::F32, &[4], vec![3; 16]).unwrap();
    for (i, writer) in [first, second, third].iter().enumerate() {
        fs::write(directory.join(name(i + 1, 3)), writer.to_bytes()).unwrap();
    }
}

#[test]
fn any_part_opens_the_whole() {
    let directory = directory("split-whole");
    write_three(&directory);
    for (number, copy) in [(1, false), (2, false), (3, false), (1, true)] {
        let gguf = open_path(&directory.join(name(number, 3)), copy).unwrap();
        assert_eq!(gguf.parts(), 3);
        assert_eq!(
            gguf.metadata().str("general.architecture").unwrap(),
            Some("llama")
        );
        let tensors: Vec<_> = gguf
            .tensors()
            .iter()
            .map(|t| (&*t.name, t.part, t.bytes[0]))
            .collect();
        assert_eq!(tensors, [("a", 1, 1), ("b", 1, 2), ("c", 2, 3)]);
        gguf.check_unchanged().unwrap();
    }
    let gguf = open_path(&directory.join(name(1, 3)), false).unwrap();
    fs::write(directory.join(name(3, 3)), b"short").unwrap();
    let e = gguf.check_unchanged().unwrap_err();
    assert_eq!(e.code(), Code::FileChanged);
    assert!(e.to_string().contains(&name(3, 3)), "{e}");
}

/// Opens the first of three parts after `change`.
fn refused(test: &str, change: impl FnOnce(&Path)) -> Error {
    let directory = directory(&format!("split-{test}"));
    write_three(&directory);
    change(&directory);
    open_path(&directory.join(name(1, 3)), false).unwrap_err()
}

#[test]
fn a_missing_part_is_named() {
    let e = refused("missing", |directory| {
        fs::remove_file(directory.join(name(2, 3))).unwrap()
    });
    assert_eq!(e.code(), Code::Io);
    assert!(e.to_string().contains(&name(2, 3)), "{e}");
}

#[test]
fn a_part_of_another_model_is_refused() {
    let replace = |writer: Writer<'static>| {
        move |directory: &Path| fs::write(directory.join(name(2, 3)), writer.to_bytes()).unwrap()
    };
    let cases = [
        (
            "number",
            part(3, 3, 3),
            ["key 'split.no' at offset ", ": expected 1, found 2"],
        ),
        (
            "count",
            part(2, 4, 3),
            ["key 'split.count' at offset ", ": expected 3, found 4"],
        ),
        (
            "unsplit",
            Writer::new(),
            ["key 'split.count'", ": the key is missing"],
        ),
    ];
    for (test, writer, texts) in cases {
        let e = refused(test, replace(writer));
        assert_eq!(e.code(), Code::Format);
        for text in texts.into_iter().chain([&*name(2, 3)]) {
            assert!(e.to_string().contains(text), "{e}");
        }
    }
    let e = refused("total", replace(part(2, 3, 3)));
    assert_eq!(e.code(), Code::Format);
    for text in [
        "'split.tensors.count' at offset ",
        ": expected 3",
        "found 1",
    ] {
        assert!(e.to_string().contains(text), "{e}");
    }
}

#[test]
fn a_tensor_may_be_in_one_part_only() {
    let e = refused("twice", |directory| {
        let mut third = part(3, 3, 3);
        third.tensor("b", Format::F32, &[4], vec![3; 16]).unwrap();
        fs::write(directory.join(name(3, 3)), third.to_bytes()).unwrap();
    });
    assert_eq!(e.code(), Code::Format);
    assert!(
        e.to_string().contains(&name(3, 3)) && e.to_string().contains("tensor 'b'"),
        "{e}"
    );
}

#[test]
fn one_part_of_one_is_a_whole_model() {
    let path = directory("split-one").join("any-name");
    fs::write(&path, part(1, 1, 0).to_bytes()).unwrap();
    assert_eq!(open_path(&path, false).unwrap().parts(), 1);
    fs::write(&path, part(1, 1, 2).to_bytes()).unwrap();
    assert_eq!(open_path(&path, false).unwrap().parts(), 1);
}

#[test]
fn only_paths_can_be_split() {
    let source = Source::Owned(part(1, 2, 0).to_bytes());
    let e = open_with(source, &LoadOptions::default()).unwrap_err();
    assert_eq!(e.code(), Code::Unsupported);
    assert!(
        e.to_string().contains("by the path of one of its parts"),
        "{e}"
    );
}
