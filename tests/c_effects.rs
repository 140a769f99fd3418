//! Options of the C interface that change no result, each by the effect that it has, and calls that
//! would take too much: time, memory, or a struct that no header has.
#![cfg(target_os = "linux")] // it looks at /proc
#![allow(unsafe_code, clippy::unwrap_used)] // it calls the C interface

#[path = "support/interface.rs"]
mod interface;
#[path = "support/programs.rs"]
mod programs;
#[path = "support/tiny.rs"]
mod tiny;

use std::ffi::CString;
use std::fs;
use std::mem::offset_of;
use std::ptr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lightgpt::capi::*;

use interface::{last_error, new, ok};
use tiny::{SMALL, Sizes, Tiny};

/// What the process has is looked at by one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn open(flags: u32) -> (i32, *mut lightgpt_model) {
    let path = CString::new(programs::model().to_str().unwrap()).unwrap();
    let (mut options, mut model) = (new::<lightgpt_open_options>(), ptr::null_mut());
    options.flags = flags;
    // SAFETY: every pointer is that of a local that fits.
    let status = unsafe { lightgpt_model_open(path.as_ptr(), &options, &raw mut model) };
    (status, model)
}

fn open_tiny(tiny: &Tiny) -> *mut lightgpt_model {
    let (bytes, mut options) = (tiny.bytes(), new::<lightgpt_open_options>());
    options.flags = LIGHTGPT_OPEN_COPY;
    let mut model = ptr::null_mut();
    // SAFETY: the bytes are as many as said, and copied.
    ok(unsafe {
        let (data, release) = (bytes.as_ptr().cast(), ptr::null_mut());
        lightgpt_model_open_memory(data, bytes.len(), None, release, &options, &raw mut model)
    });
    model
}

fn session(
    model: *const lightgpt_model,
    options: &lightgpt_session_options,
) -> *mut lightgpt_session {
    let mut session = ptr::null_mut();
    // SAFETY: every pointer is NULL or that of a local that fits.
    ok(unsafe { lightgpt_session_new(model, ptr::null(), options, &raw mut session) });
    session
}

/// A number of KiB of /proc/self/status, in bytes.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.unwrap().trim_start_matches(':').trim();
    number.trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn mlock_locks_the_weights_or_names_the_limit() {
    let _alone = ALONE.lock();
    let before = status("VmLck");
    let (answer, model) = open(LIGHTGPT_OPEN_MLOCK);
    match answer {
        LIGHTGPT_OK => {
            assert!(status("VmLck") - before > 4 << 20);
            ok(lightgpt_model_free(model));
            assert_eq!(status("VmLck"), before);
        }
        _ => assert!(last_error().contains("RLIMIT_MEMLOCK"), "{}", last_error()),
    }
    let (answer, model) = open(0);
    ok(answer);
    assert_eq!(status("VmLck"), before);
    ok(lightgpt_model_free(model));
}

#[test]
fn helpers_have_the_stack_that_was_asked_for() {
    let _alone = ALONE.lock();
    const STACK: u64 = 1 << 30;
    let (mut options, mut team) = (new::<lightgpt_team_options>(), ptr::null_mut());
    options.threads = 3;
    let mut grown = |stack_bytes: u64| {
        options.stack_bytes = stack_bytes;
        let before = status("VmSize");
        // SAFETY: every pointer is that of a local that fits.
        let answer = unsafe { lightgpt_team_new(&options, &raw mut team) };
        let grown = status("VmSize").saturating_sub(before);
        if answer == LIGHTGPT_OK {
            ok(lightgpt_team_free(team));
        }
        (answer, grown)
    };
    let (answer, bytes) = grown(0);
    assert!(answer == LIGHTGPT_OK && bytes < 2 * STACK, "{bytes}");
    let (answer, bytes) = grown(STACK);
    assert!(answer == LIGHTGPT_OK && bytes >= 2 * STACK, "{bytes}");
    assert_eq!(grown(1 << 60).0, LIGHTGPT_OUT_OF_MEMORY);
}

/// The sizes of the passes over a prompt of 64 tokens, and the logits after it.
fn passes(model: *const lightgpt_model, chunk: u64) -> (Vec<u64>, Vec<f32>) {
    let mut options = new::<lightgpt_session_options>();
    options.chunk = chunk;
    options.flags = LIGHTGPT_SESSION_UNSHARED;
    let session = session(model, &options);
    let tokens: Vec<u32> = (10..74).collect();
    let (mut event, mut logits, mut needed) = (new::<lightgpt_event>(), vec![0f32; 1 << 16], 0);
    let mut done = vec![0];
    // SAFETY: every pointer is NULL or that of a local that fits.
    unsafe {
        ok(lightgpt_session_feed_tokens(
            session,
            tokens.as_ptr(),
            tokens.len(),
        ));
        ok(lightgpt_session_begin(session, ptr::null()));
        while *done.last().unwrap() < 64 {
            ok(lightgpt_session_step(session, 0, &raw mut event));
            assert_eq!((event.kind, event.total), (LIGHTGPT_EVENT_PROGRESS, 64));
            done.push(event.done);
        }
        let (buf, cap) = (logits.as_mut_ptr(), logits.len());
        ok(lightgpt_session_logits(session, buf, cap, &raw mut needed));
    }
    logits.truncate(needed);
    ok(lightgpt_session_free(session));
    (
        done.windows(2).map(|pair| pair[1] - pair[0]).collect(),
        logits,
    )
}

#[test]
fn a_chunk_is_what_a_pass_takes() {
    let (status, model) = open(0);
    ok(status);
    let (whole, logits) = passes(model, 0);
    assert_eq!(whole, [64]);
    for (chunk, expected) in [(24, vec![24, 24, 16]), (64, vec![64]), (u64::MAX, vec![64])] {
        assert_eq!(passes(model, chunk), (expected, logits.clone()));
    }
    let scratch = |chunk: u64| {
        let (mut options, mut memory) =
            (new::<lightgpt_session_options>(), new::<lightgpt_memory>());
        options.chunk = chunk;
        // SAFETY: every pointer is that of a local that fits.
        ok(unsafe { lightgpt_model_memory_estimate(model, &options, &raw mut memory) });
        memory.scratch
    };
    assert!(scratch(16) < scratch(64) && scratch(64) < scratch(0));
    assert_eq!(scratch(u64::MAX), scratch(4096));
    ok(lightgpt_model_free(model));
}

#[test]
fn estimates_of_what_cannot_be_made_are_refused() {
    let (status, model) = open(0);
    ok(status);
    for context in [u64::MAX, 1 << 30, 4097] {
        let (mut options, mut memory) =
            (new::<lightgpt_session_options>(), new::<lightgpt_memory>());
        options.context = context;
        memory.kv = 7;
        // SAFETY: every pointer is that of a local that fits.
        let status = unsafe { lightgpt_model_memory_estimate(model, &options, &raw mut memory) };
        assert_eq!(
            (status, memory.kv),
            (LIGHTGPT_INVALID_ARGUMENT, 7),
            "{context}"
        );
    }
    ok(lightgpt_model_free(model));
}

#[test]
fn structs_shorter_than_any_release_had_are_refused() {
    let (status, model) = open(0);
    ok(status);
    let mut metrics = new::<lightgpt_memory>();
    let (mut options, mut session) = (new::<lightgpt_session_options>(), ptr::null_mut());
    metrics.struct_size -= 8;
    options.struct_size = offset_of!(lightgpt_session_options, memory_max) as u32;
    // SAFETY: every pointer is that of a local that is larger than it says.
    unsafe {
        let out = lightgpt_model_memory_estimate(model, ptr::null(), &raw mut metrics);
        assert_eq!(out, LIGHTGPT_ABI_MISMATCH);
        let made = lightgpt_session_new(model, ptr::null(), &options, &raw mut session);
        assert_eq!(made, LIGHTGPT_ABI_MISMATCH);
    }
    ok(lightgpt_model_free(model));
}

#[test]
fn a_text_that_cannot_fit_is_refused_at_once() {
    let (status, model) = open(0);
    ok(status);
    let mut options = new::<lightgpt_session_options>();
    options.context = 128;
    let session = session(model, &options);
    let text = "Once upon a time there was a fox. ".repeat(40_000_000 / 34);
    let began = Instant::now();
    // SAFETY: the text is as long as said.
    let status = unsafe {
        let (bytes, tokens) = (text.as_ptr().cast(), ptr::null_mut());
        lightgpt_session_feed_text(
            session,
            bytes,
            text.len(),
            LIGHTGPT_TEXT_ADD_SPECIAL,
            tokens,
        )
    };
    assert_eq!(status, LIGHTGPT_CONTEXT_FULL, "{}", last_error());
    let time = began.elapsed();
    println!("40 MB for a context of 128: refused in {time:?}");
    // It takes milliseconds when alone.
    assert!(time < Duration::from_secs(3), "{time:?}");
    // No turn was left open, and the session goes on.
    ok(lightgpt_session_cancel(session));
    // SAFETY: as above.
    ok(unsafe {
        lightgpt_session_feed_text(session, text.as_ptr().cast(), 34, 0, ptr::null_mut())
    });
    ok(lightgpt_session_free(session));
    ok(lightgpt_model_free(model));
}

#[test]
fn freeing_a_session_that_tokenizes_does_not_wait_for_the_text() {
    let sizes = Sizes {
        context: 1 << 24,
        ..SMALL
    };
    let model = open_tiny(&Tiny::new(sizes).with_tokenizer(SMALL.vocab));
    // One word of letters without an end, and many.
    for text in ["t4t5".repeat(8 << 20), "t4t5t6t7 t8 ".repeat(3 << 20)] {
        let session = session(model, &new()).addr();
        std::thread::scope(|scope| {
            let fed = scope.spawn(|| {
                let (bytes, tokens) = (text.as_ptr().cast(), ptr::null_mut());
                let session = ptr::without_provenance_mut(session);
                // SAFETY: the text is as long as said.
                unsafe { lightgpt_session_feed_text(session, bytes, text.len(), 0, tokens) }
            });
            std::thread::sleep(Duration::from_millis(80));
            let began = Instant::now();
            ok(lightgpt_session_free(ptr::without_provenance_mut(session)));
            let waited = began.elapsed();
            assert_eq!(fed.join().unwrap(), LIGHTGPT_CANCELLED);
            println!("free waited {waited:?}");
            assert!(waited < Duration::from_secs(3), "{waited:?}");
        });
    }
    ok(lightgpt_model_free(model));
}

#[test]
fn asking_for_a_size_makes_no_text() {
    // A token of 64 KiB, 200,000 times: 13 GB.
    let mut tiny = Tiny::new(SMALL).with_tokenizer(SMALL.vocab);
    let long = "x".repeat(1 << 16);
    let texts = [
        "<unk>", "<s>", "</s>", &long, "a", "b", "c", "d", "e", "f", "g",
    ];
    tiny.set(
        "tokenizer.ggml.tokens",
        texts.iter().collect::<lightgpt::gguf::Strings>(),
    );
    let model = open_tiny(&tiny);
    let tokens = vec![3u32; 200_000];
    let (mut needed, mut small) = (0, [0u8; 16]);
    let mut ask = |cap: usize| {
        let buf = if cap == 0 {
            ptr::null_mut()
        } else {
            small.as_mut_ptr().cast()
        };
        // SAFETY: every pointer is NULL or that of something as large as said.
        let status = unsafe {
            let (tokens, len) = (tokens.as_ptr(), tokens.len());
            lightgpt_model_detokenize(model, tokens, len, 0, buf, cap, &raw mut needed)
        };
        (status, needed)
    };
    let began = Instant::now();
    assert_eq!(ask(0), (LIGHTGPT_OK, 200_000 << 16));
    assert_eq!(ask(16), (LIGHTGPT_BUFFER_TOO_SMALL, 200_000 << 16));
    assert!(began.elapsed() < Duration::from_secs(10));
    ok(lightgpt_model_free(model));
}
