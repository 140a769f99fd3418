//! A steady token calls no general allocator, also where a new page of keys and values begins. One
//! test, because the allocator is the process's.
#![allow(unsafe_code, clippy::unwrap_used)] // an allocator, and calls of the C interface

#[path = "support/programs.rs"]
mod programs;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::CString;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lightgpt::capi::*;

/// Counts what it is asked for.
struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: promised by the caller.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: promised by the caller.
        unsafe { System.realloc(memory, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Waits until no thread allocates.
fn quiet() {
    let mut calls = usize::MAX;
    while calls != CALLS.load(Ordering::Relaxed) {
        calls = CALLS.load(Ordering::Relaxed);
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_steady_token_allocates_nothing() {
    let path = CString::new(programs::model().to_str().unwrap()).unwrap();
    let text = b"Once upon a time";
    let mut model = ptr::null_mut();
    let mut session = ptr::null_mut();
    let mut sampler = ptr::null_mut();
    // SAFETY: all bits zero are options and events that want their size.
    let (mut options, mut event) =
        unsafe { std::mem::zeroed::<(lightgpt_generate_options, lightgpt_event)>() };
    options.struct_size = size_of::<lightgpt_generate_options>() as u32;
    options.flags = LIGHTGPT_GENERATE_IGNORE_END;
    event.struct_size = size_of::<lightgpt_event>() as u32;
    // SAFETY: every pointer is NULL or that of a local that fits.
    unsafe {
        assert_eq!(
            lightgpt_model_open(path.as_ptr(), ptr::null(), &raw mut model),
            LIGHTGPT_OK
        );
        let made = lightgpt_session_new(model, ptr::null(), ptr::null(), &raw mut session);
        assert_eq!(made, LIGHTGPT_OK);
        assert_eq!(
            lightgpt_sampler_new(ptr::null(), &raw mut sampler),
            LIGHTGPT_OK
        );
        options.sampler = sampler;
        let bytes = text.as_ptr().cast();
        let fed = lightgpt_session_feed_text(session, bytes, text.len(), 1, ptr::null_mut());
        assert_eq!(fed, LIGHTGPT_OK);
        assert_eq!(lightgpt_session_begin(session, &options), LIGHTGPT_OK);
    }
    let mut tokens = |wanted: usize| {
        let mut seen = 0;
        while seen < wanted {
            // SAFETY: the event is a local that says its size.
            let status = unsafe { lightgpt_session_step(session, 0, &raw mut event) };
            assert_eq!(status, LIGHTGPT_OK);
            seen += usize::from(event.kind == LIGHTGPT_EVENT_TOKEN);
        }
    };
    // The first tokens make scratch; those behind them also begin pages of keys and values. Helper
    // threads allocate when they begin, which a busy machine puts off.
    tokens(4);
    quiet();
    tokens(4);
    quiet();
    let before = CALLS.load(Ordering::Relaxed);
    tokens(216);
    assert_eq!(CALLS.load(Ordering::Relaxed) - before, 0);
    assert_eq!(lightgpt_session_free(session), LIGHTGPT_OK);
    assert_eq!(lightgpt_sampler_free(sampler), LIGHTGPT_OK);
    assert_eq!(lightgpt_model_free(model), LIGHTGPT_OK);
}
