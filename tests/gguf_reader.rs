//! Models that someone else reads: every piece and failure of the reader, and what comes of it.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/tiny.rs"]
mod tiny;

use std::cell::Cell;

use lightgpt::budget::{Budget, Tag};
use lightgpt::control::Control;
use lightgpt::error::{Code, Error, Result};
use lightgpt::gguf::{Gguf, LoadOptions, ReadAt, Source};
use lightgpt::quant::Format;

use tiny::{SMALL, Sizes, Tiny};

/// What a read that reaches a place comes to.
#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    Fails,
    Ends,
    SaysTooMuch,
}

#[derive(Debug)]
struct Reader<'a> {
    bytes: &'a [u8],
    /// Bytes of a read at most.
    piece: usize,
    fault: (u64, Fault),
    reads: Cell<usize>,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], piece: usize) -> Self {
        Self {
            bytes,
            piece,
            fault: (0, Fault::None),
            reads: Cell::new(0),
        }
    }

    fn open(&self, budget: &Budget, control: &mut Control<'_>) -> Result<Gguf> {
        let options = LoadOptions {
            budget: budget.clone(),
            ..LoadOptions::default()
        };
        let len = self.bytes.len() as u64;
        Gguf::open(Source::Reader { file: self, len }, &options, control)
    }
}

impl ReadAt for Reader<'_> {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize> {
        self.reads.set(self.reads.get() + 1);
        assert!(!out.is_empty());
        let (at, fault) = self.fault;
        let mut len = out.len().min(self.piece);
        if !matches!(fault, Fault::None) && offset + len as u64 > at {
            match fault {
                Fault::Fails if offset == at => {
                    return Err(Error::new(Code::Io, "", "the disc is scratched"));
                }
                Fault::Ends if offset == at => return Ok(0),
                Fault::SaysTooMuch if offset == at => return Ok(out.len() + 1),
                _ if offset < at => len = (at - offset) as usize,
                _ => {}
            }
        }
        out[..len].copy_from_slice(&self.bytes[offset as usize..][..len]);
        Ok(len)
    }
}

/// Of more than a piece of a MiB.
fn model() -> Vec<u8> {
    let sizes = Sizes {
        vocab: 20_000,
        ..SMALL
    };
    Tiny::with(sizes, &|_| Format::F32).bytes()
}

#[test]
fn short_reads_make_the_same_model() {
    let bytes = model();
    let options = LoadOptions::default();
    let truth = Source::Owned(bytes.clone());
    let truth = Gguf::open(truth, &options, &mut Control::none()).unwrap();
    for piece in [1000, 4097, usize::MAX] {
        let (reader, budget) = (Reader::new(&bytes, piece), Budget::default());
        let gguf = reader.open(&budget, &mut Control::none()).unwrap();
        assert!(reader.reads.get() >= bytes.len() / piece);
        assert!(budget.tag_bytes(Tag::Weights) > 1 << 20);
        assert_eq!(gguf.tensors().len(), truth.tensors().len());
        for (tensor, expected) in gguf.tensors().iter().zip(truth.tensors()) {
            assert!(tensor.bytes[..] == expected.bytes[..], "{}", tensor.name);
        }
        assert_eq!(gguf.file_bytes(), bytes.len() as u64);
        drop((reader, gguf));
        assert_eq!(budget.bytes(), 0);
    }
}

#[test]
fn failures_name_their_offset_and_leave_nothing() {
    let bytes = model();
    let last = bytes.len() as u64 - 1;
    for at in [0, 7, 100, 4000, 1_100_000, last] {
        for (fault, code, told) in [
            (Fault::Fails, Code::Io, "the disc is scratched"),
            (Fault::Ends, Code::Io, "found the end"),
            (Fault::SaysTooMuch, Code::InvalidArgument, "the reader says"),
        ] {
            let budget = Budget::default();
            let reader = Reader {
                fault: (at, fault),
                ..Reader::new(&bytes, 5000)
            };
            let e = reader.open(&budget, &mut Control::none()).unwrap_err();
            let text = e.to_string();
            assert_eq!(e.code(), code, "{at} {fault:?}: {text}");
            assert!(text.contains(told), "{at}: {text}");
            assert!(
                text.starts_with(&format!("reader: offset {at}: ")),
                "{text}"
            );
            assert_eq!(budget.bytes(), 0);
        }
    }
}

#[test]
fn lengths_that_are_wrong_are_errors() {
    let bytes = model();
    let (reader, options) = (Reader::new(&bytes, usize::MAX), LoadOptions::default());
    for len in [0, 3, 1000, bytes.len() as u64 - 1] {
        let source = Source::Reader { file: &reader, len };
        let e = Gguf::open(source, &options, &mut Control::none()).unwrap_err();
        assert_eq!(e.code(), Code::Format, "{len}: {e}");
    }
}

#[test]
fn progress_counts_to_the_end_and_cancels() {
    let bytes = model();
    let reader = Reader::new(&bytes, usize::MAX);
    let mut seen = Vec::new();
    let mut report = |done, total| {
        seen.push((done, total));
        true
    };
    let mut control = Control {
        progress: Some(&mut report),
        ..Control::none()
    };
    reader.open(&Budget::default(), &mut control).unwrap();
    let (done, total) = *seen.last().unwrap();
    assert!(done == total && total > 1 << 20 && seen.len() > 3);
    for stop in 0..seen.len() {
        let (mut calls, budget) = (0, Budget::default());
        let mut report = |_, _| {
            calls += 1;
            calls <= stop
        };
        let mut control = Control {
            progress: Some(&mut report),
            ..Control::none()
        };
        let e = reader.open(&budget, &mut control).unwrap_err();
        assert_eq!((e.code(), budget.bytes()), (Code::Cancelled, 0), "{stop}");
        assert_eq!(calls, stop + 1);
    }
}

#[test]
fn a_cap_holds_and_a_part_of_a_model_is_refused() {
    let bytes = model();
    let reader = Reader::new(&bytes, usize::MAX);
    let capped = Budget::new(Some(1000), None);
    let e = reader.open(&capped, &mut Control::none()).unwrap_err();
    assert_eq!((e.code(), capped.bytes()), (Code::MemoryCap, 0));
    let mut part = Tiny::new(SMALL);
    part.set("split.count", 2u16);
    part.set("split.no", 0u16);
    let bytes = part.bytes();
    let reader = Reader::new(&bytes, usize::MAX);
    let e = reader.open(&Budget::default(), &mut Control::none());
    assert_eq!(e.unwrap_err().code(), Code::Unsupported);
}
