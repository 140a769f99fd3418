//! Every large allocation of the general allocator fails once, or from then on: the call answers
//! `LIGHTGPT_OUT_OF_MEMORY` or does without, nothing aborts, and nothing leaks. One test, because
//! the allocator is the process's.
#![allow(unsafe_code, clippy::unwrap_used)] // an allocator, and calls of the C interface

#[path = "support/tiny.rs"]
mod tiny;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{CStr, CString};
use std::fs;
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};

use lightgpt::capi::*;
use lightgpt::gguf::Value;
use lightgpt::quant::Format;

use tiny::{SMALL, Sizes, Tiny};

/// What SECURITY.md calls a large allocation.
const LARGE: usize = 64 << 10;

/// So many keys, tensors and tokens make every list of them large.
const MANY: usize = 17_000;

/// Fails the large allocation number `FAIL`, and those after it if `GO_ON`.
struct Failing;

static COUNT: AtomicUsize = AtomicUsize::new(0);
static FAIL: AtomicUsize = AtomicUsize::new(usize::MAX);
static GO_ON: AtomicBool = AtomicBool::new(false);
static LIVE: AtomicIsize = AtomicIsize::new(0);

fn refuses(bytes: usize) -> bool {
    if bytes < LARGE {
        return false;
    }
    let (number, fail) = (
        COUNT.fetch_add(1, Ordering::Relaxed),
        FAIL.load(Ordering::Relaxed),
    );
    number == fail || number > fail && GO_ON.load(Ordering::Relaxed)
}

// SAFETY: hands everything to the system's allocator, or answers NULL, which is allowed.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if refuses(layout.size()) {
            return ptr::null_mut();
        }
        LIVE.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: promised by the caller.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if refuses(bytes) {
            return ptr::null_mut();
        }
        LIVE.fetch_add(bytes as isize - layout.size() as isize, Ordering::Relaxed);
        // SAFETY: promised by the caller.
        unsafe { System.realloc(memory, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// A valid model whose lists are all large.
fn model() -> Vec<u8> {
    let sizes = Sizes {
        vocab: MANY,
        context: 1 << 17,
        ..SMALL
    };
    let mut tiny = Tiny::new(sizes).with_tokenizer(MANY);
    tiny.set("test.flags", vec![true; LARGE]);
    tiny.set("test.text", Value::String(vec![b'x'; LARGE].into()));
    for i in 0..MANY {
        tiny.keys.push((format!("k{i}"), Value::U8(0)));
        let name = format!("{i}.attn_rot_embd.weight");
        tiny.add(&name, Format::F32, &[1], vec![0; 4]);
    }
    tiny.bytes()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum From {
    Path,
    Copy,
    Memory,
}

/// All that can be chosen, as it is by default.
fn options() -> (
    lightgpt_open_options,
    lightgpt_generate_options,
    lightgpt_team_options,
) {
    // SAFETY: all bits zero are options that want their size.
    let mut all: (
        lightgpt_open_options,
        lightgpt_generate_options,
        lightgpt_team_options,
    ) = unsafe { std::mem::zeroed() };
    all.0.struct_size = size_of_val(&all.0) as u32;
    all.1.struct_size = size_of_val(&all.1) as u32;
    all.2.struct_size = size_of_val(&all.2) as u32;
    all
}

/// What one run works with, made beforehand.
struct Work {
    path: CString,
    bytes: Vec<u8>,
    text: String,
    tokens: Vec<u32>,
    out: Vec<u8>,
}

impl Work {
    /// Opens, tokenizes, detokenizes and generates; the first status that is an error.
    fn run(&mut self, from: From) -> Result<(), i32> {
        let good = |status: i32| if status < 0 { Err(status) } else { Ok(()) };
        let (mut model, mut session) = (ptr::null_mut(), ptr::null_mut());
        let (mut open, mut generate, mut team_options) = options();
        generate.tokens_max = 3;
        team_options.threads = 1;
        let mut team = ptr::null_mut();
        let mut needed = 0;
        let (text, text_bytes) = (self.text.as_ptr().cast(), self.text.len());
        // SAFETY: every pointer is NULL or that of something here that is as large as said.
        let result = (|| unsafe {
            good(match from {
                From::Memory => lightgpt_model_open_memory(
                    self.bytes.as_ptr().cast(),
                    self.bytes.len(),
                    None,
                    ptr::null_mut(),
                    &open,
                    &raw mut model,
                ),
                _ => {
                    open.flags = if from == From::Copy {
                        LIGHTGPT_OPEN_COPY
                    } else {
                        0
                    };
                    lightgpt_model_open(self.path.as_ptr(), &open, &raw mut model)
                }
            })?;
            let (tokens, cap) = (self.tokens.as_mut_ptr(), self.tokens.len());
            let made =
                lightgpt_model_tokenize(model, text, text_bytes, 0, tokens, cap, &raw mut needed);
            good(made)?;
            let (out, cap) = (self.out.as_mut_ptr().cast(), self.out.len());
            let spelled =
                lightgpt_model_detokenize(model, tokens, needed, 0, out, cap, &raw mut needed);
            good(spelled)?;
            assert!(needed > LARGE, "{needed}");
            good(lightgpt_team_new(&team_options, &raw mut team))?;
            good(lightgpt_session_new(
                model,
                team,
                ptr::null(),
                &raw mut session,
            ))?;
            good(lightgpt_session_feed_text(
                session,
                text,
                40,
                1,
                ptr::null_mut(),
            ))?;
            good(lightgpt_session_generate(
                session,
                &generate,
                None,
                ptr::null_mut(),
            ))
        })();
        assert_eq!(lightgpt_session_free(session), LIGHTGPT_OK);
        assert_eq!(lightgpt_team_free(team), LIGHTGPT_OK);
        assert_eq!(lightgpt_model_free(model), LIGHTGPT_OK);
        result
    }
}

#[test]
fn large_allocations_that_fail_are_statuses() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("out-of-memory.gguf");
    let _ = fs::remove_file(&path);
    let bytes = model();
    fs::write(&path, &bytes).unwrap();
    let text = "t4t5t6 t7".repeat(LARGE / 4);
    let mut work = Work {
        path: CString::new(path.to_str().unwrap()).unwrap(),
        bytes,
        tokens: vec![0; 3 * text.len()],
        out: vec![0; 4 * text.len()],
        text,
    };
    for from in [From::Path, From::Copy, From::Memory] {
        COUNT.store(0, Ordering::Relaxed);
        assert_eq!(work.run(from), Ok(()), "{}", last_error());
        let all = COUNT.load(Ordering::Relaxed);
        assert!(all > 30, "{all} large allocations");
        let live = LIVE.load(Ordering::Relaxed);
        let mut refused = 0;
        for go_on in [false, true] {
            GO_ON.store(go_on, Ordering::Relaxed);
            for fail in 0..all {
                COUNT.store(0, Ordering::Relaxed);
                FAIL.store(fail, Ordering::Relaxed);
                let result = work.run(from);
                FAIL.store(usize::MAX, Ordering::Relaxed);
                if let Err(status) = result {
                    let context = format!("{from:?}, {fail}, {go_on}: {}", last_error());
                    assert_eq!(status, LIGHTGPT_OUT_OF_MEMORY, "{context}");
                    refused += 1;
                }
                let left = LIVE.load(Ordering::Relaxed) - live;
                assert_eq!(left, 0, "{from:?}, {fail}, {go_on}: bytes left");
            }
        }
        println!(
            "{from:?}: {all} large allocations, {refused} of {} runs refused",
            2 * all
        );
    }
}

fn last_error() -> String {
    // SAFETY: never NULL, ends in zero, and this thread makes no call meanwhile.
    let text = unsafe { CStr::from_ptr(lightgpt_last_error()) };
    text.to_string_lossy().into_owned()
}
