//! What sessions of a model share, seen through the C interface.
#![allow(unsafe_code, clippy::unwrap_used)] // calls of the C interface

#[path = "support/interface.rs"]
mod interface;
#[path = "support/programs.rs"]
mod programs;

use std::ffi::CString;
use std::ptr;

use lightgpt::capi::*;

use interface::{last_error, new, ok};

fn open(options: &lightgpt_open_options) -> *mut lightgpt_model {
    let path = CString::new(programs::model().to_str().unwrap()).unwrap();
    let mut model = ptr::null_mut();
    // SAFETY: every pointer is that of a local that fits.
    ok(unsafe { lightgpt_model_open(path.as_ptr(), options, &raw mut model) });
    model
}

/// Tokens of a prompt of 200 that a session so made takes over.
fn reused(model: *mut lightgpt_model, options: &lightgpt_session_options) -> u64 {
    let tokens: Vec<u32> = (0..200).map(|i| i * 7 % 4000 + 3).collect();
    let (mut session, mut metrics) = (ptr::null_mut(), new::<lightgpt_metrics>());
    // SAFETY: every pointer is NULL or that of a local that fits.
    unsafe {
        ok(lightgpt_session_new(
            model,
            ptr::null(),
            options,
            &raw mut session,
        ));
        ok(lightgpt_session_feed_tokens(
            session,
            tokens.as_ptr(),
            tokens.len(),
        ));
        assert_eq!(lightgpt_session_prefill(session, 0), LIGHTGPT_DONE);
        ok(lightgpt_session_metrics(session, &raw mut metrics));
    }
    ok(lightgpt_session_free(session));
    assert_eq!(metrics.prompt_tokens, 200);
    metrics.reused_tokens
}

fn statistics(model: *const lightgpt_model) -> lightgpt_prefix_statistics {
    let mut statistics = new::<lightgpt_prefix_statistics>();
    // SAFETY: the struct is a local that says its size.
    ok(unsafe { lightgpt_model_prefix_statistics(model, &raw mut statistics) });
    statistics
}

#[test]
fn sessions_share_as_their_options_say() {
    let mut opened = new::<lightgpt_open_options>();
    opened.prefix_bytes_max = 4 << 20;
    let model = open(&opened);
    let shared = new::<lightgpt_session_options>();
    let mut salted = shared;
    salted.salt = 3;
    let mut unshared = shared;
    unshared.flags = LIGHTGPT_SESSION_UNSHARED;
    assert_eq!([0; 3].map(|_| reused(model, &shared)), [0, 199, 199]);
    assert_eq!([0; 2].map(|_| reused(model, &salted)), [0, 199]);
    assert_eq!(reused(model, &unshared), 0);
    let found = statistics(model);
    assert_eq!((found.lookups, found.hits, found.tokens), (5, 3, 3 * 199));
    assert_eq!((found.pages, found.bytes_max), (8, 4 << 20));
    assert!(found.bytes > 0 && found.bytes <= 4 << 20 && found.evictions == 0);
    let mut unknown = shared;
    unknown.flags = 2;
    let mut reserved = shared;
    reserved.reserved = 1;
    for options in [unknown, reserved] {
        let mut session = ptr::null_mut();
        // SAFETY: every pointer is NULL or that of a local that fits.
        let status =
            unsafe { lightgpt_session_new(model, ptr::null(), &options, &raw mut session) };
        assert_eq!(status, LIGHTGPT_UNSUPPORTED, "{}", last_error());
    }
    ok(lightgpt_model_free(model));
}

#[test]
fn a_model_can_be_opened_to_share_nothing() {
    let mut opened = new::<lightgpt_open_options>();
    opened.flags = LIGHTGPT_OPEN_UNSHARED;
    let model = open(&opened);
    let options = new::<lightgpt_session_options>();
    assert_eq!([0; 2].map(|_| reused(model, &options)), [0, 0]);
    let found = statistics(model);
    assert_eq!((found.lookups, found.pages, found.bytes_max), (0, 0, 0));
    ok(lightgpt_model_free(model));
}
