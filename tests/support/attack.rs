//! What the attack tests share: a builder of raw model files, and opening them by every loader
//! under a stopwatch and a counting allocator.
#![allow(unsafe_code)] // the counting allocator
#![allow(dead_code)] // not every program uses all of it

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lightgpt::control::Control;
use lightgpt::error::{Code, Result};
use lightgpt::gguf::{Gguf, LoadOptions, Source};

/// The aim is 100 ms when alone; tests share the machine, with each other at least.
const TIME_MAX: Duration = Duration::from_millis(500);
const BYTES_MAX: usize = 64 << 20;

pub const U32: u32 = 4;
pub const STRING: u32 = 8;
pub const ARRAY: u32 = 9;
pub const F32: u32 = 0;
pub const I8: u32 = 24;

/// Counts this thread's live bytes and their peak.
struct Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.get().saturating_add(layout.size());
        LIVE.set(live);
        PEAK.set(PEAK.get().max(live));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get().saturating_sub(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How a test opens its bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loader {
    Map,
    Copy,
    Memory,
}

/// Every loader.
pub const LOADERS: [Loader; 3] = [Loader::Map, Loader::Copy, Loader::Memory];

/// Bytes of a file in the making.
pub struct Raw(pub Vec<u8>);

impl Raw {
    pub fn new(tensors: u64, keys: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(3).u64(tensors).u64(keys)
    }

    pub fn u32(mut self, x: u32) -> Self {
        self.0.extend(x.to_le_bytes());
        self
    }

    pub fn u64(mut self, x: u64) -> Self {
        self.0.extend(x.to_le_bytes());
        self
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub fn string(self, text: &str) -> Self {
        self.u64(text.len() as u64).raw(text.as_bytes())
    }

    pub fn key(self, key: &str, kind: u32) -> Self {
        self.string(key).u32(kind)
    }

    pub fn tensor(self, name: &str, dims: &[u64], format: u32, offset: u64) -> Self {
        let raw = self.string(name).u32(dims.len() as u32);
        dims.iter()
            .fold(raw, |raw, &dim| raw.u64(dim))
            .u32(format)
            .u64(offset)
    }

    /// Pads to 32 bytes and adds `bytes` zero bytes of tensor data.
    pub fn data(mut self, bytes: usize) -> Self {
        let start = self.0.len().next_multiple_of(32);
        self.0.resize(start + bytes, 0);
        self
    }
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.gguf"))
}

/// Opens `bytes` by one loader and holds the time and memory against the limits.
pub fn open(name: &str, bytes: &[u8], loader: Loader) -> Result<Gguf> {
    measured(name, bytes, loader, &mut |source, options| {
        Gguf::open(source, options, &mut Control::none())
    })
}

/// What opens a file: its result is what the test is about.
pub type Open<'a, T> = &'a mut dyn FnMut(Source<'_>, &LoadOptions) -> Result<T>;

/// As [`open`], for whatever `open` makes of the file.
pub fn measured<T>(name: &str, bytes: &[u8], loader: Loader, open: Open<'_, T>) -> Result<T> {
    let path = file(name);
    if loader != Loader::Memory {
        // A new file each time: some file systems wait for the disk when one is truncated.
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).unwrap();
    }
    // A busy machine may stop us for a while: the best of three tries counts.
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let source = match loader {
            Loader::Memory => Source::Owned(bytes.to_vec()),
            _ => Source::Path(&path),
        };
        let options = LoadOptions {
            copy: loader == Loader::Copy,
            ..LoadOptions::default()
        };
        let live = LIVE.get();
        PEAK.set(live);
        let start = Instant::now();
        let opened = open(source, &options);
        fastest = fastest.min(start.elapsed());
        let used = PEAK.get() - live;
        assert!(used < BYTES_MAX, "{name} by {loader:?}: {used} bytes");
        if fastest < TIME_MAX {
            return opened;
        }
    }
    panic!("{name} by {loader:?}: {fastest:?}");
}

/// Demands `code` and a message that holds every one of `places`, whatever the loader.
pub fn refused(name: &str, raw: Raw, code: Code, places: &[&str]) {
    for loader in LOADERS {
        let e = match open(name, &raw.0, loader) {
            Err(e) => e,
            Ok(_) => panic!("{name} by {loader:?} was opened"),
        };
        assert_eq!(e.code(), code, "{name} by {loader:?}: {e}");
        for place in places {
            assert!(
                e.to_string().contains(place),
                "{name} by {loader:?}: no {place:?} in: {e}"
            );
        }
    }
}

pub fn broken(name: &str, raw: Raw, places: &[&str]) {
    refused(name, raw, Code::Format, places);
}

pub fn accepted(name: &str, raw: Raw) -> Gguf {
    let opened = LOADERS.map(|loader| open(name, &raw.0, loader).unwrap());
    opened.iter().for_each(read_all);
    let [_, _, from_memory] = opened;
    from_memory
}

/// Reads every tensor byte: a view outside its memory would show.
pub fn read_all(gguf: &Gguf) {
    for tensor in gguf.tensors() {
        std::hint::black_box(
            tensor
                .bytes
                .iter()
                .map(|&byte| u64::from(byte))
                .sum::<u64>(),
        );
    }
}
