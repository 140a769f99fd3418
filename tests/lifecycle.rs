//! Opening and closing leaves nothing behind: no memory, descriptor or thread. One test, because
//! it counts what its whole process has.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, clippy::unwrap_used)] // it calls the C interface

#[path = "support/programs.rs"]
mod programs;

use std::ffi::CString;
use std::fs;
use std::ptr;

use lightgpt::capi::*;

/// Resident bytes, open descriptors, threads.
fn holdings() -> (i64, usize, usize) {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: i64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    let count = |folder| fs::read_dir(folder).unwrap().count();
    (
        pages * 4096,
        count("/proc/self/fd"),
        count("/proc/self/task"),
    )
}

/// Opens and closes everything once, and generates a few tokens now and then.
fn open_and_close(round: usize) {
    let path = CString::new(programs::model().to_str().unwrap()).unwrap();
    let mut model = ptr::null_mut();
    let mut team = ptr::null_mut();
    let mut session = ptr::null_mut();
    let mut sampler = ptr::null_mut();
    let text = b"Once upon a time";
    // SAFETY: every pointer is NULL or that of a local that fits.
    unsafe {
        assert_eq!(
            lightgpt_model_open(path.as_ptr(), ptr::null(), &raw mut model),
            LIGHTGPT_OK
        );
        assert_eq!(lightgpt_team_new(ptr::null(), &raw mut team), LIGHTGPT_OK);
        assert_eq!(
            lightgpt_sampler_new(ptr::null(), &raw mut sampler),
            LIGHTGPT_OK
        );
        let made = lightgpt_session_new(model, team, ptr::null(), &raw mut session);
        assert_eq!(made, LIGHTGPT_OK);
        if round.is_multiple_of(10) {
            let bytes = text.as_ptr().cast();
            let fed = lightgpt_session_feed_text(session, bytes, text.len(), 1, ptr::null_mut());
            assert_eq!(fed, LIGHTGPT_OK);
            let mut options: lightgpt_generate_options = std::mem::zeroed();
            options.struct_size = size_of::<lightgpt_generate_options>() as u32;
            options.tokens_max = 2;
            options.sampler = sampler;
            let status = lightgpt_session_generate(session, &options, None, ptr::null_mut());
            assert_eq!(status, LIGHTGPT_DONE);
        }
    }
    assert_eq!(lightgpt_model_free(model), LIGHTGPT_OK);
    assert_eq!(lightgpt_team_free(team), LIGHTGPT_OK);
    assert_eq!(lightgpt_sampler_free(sampler), LIGHTGPT_OK);
    assert_eq!(lightgpt_session_free(session), LIGHTGPT_OK);
}

#[test]
fn a_thousand_rounds_leave_nothing() {
    let threads_before = holdings().2;
    for round in 0..50 {
        open_and_close(round);
    }
    let (memory, files, threads) = holdings();
    assert_eq!(threads, threads_before, "threads are joined at free");
    for round in 0..1000 {
        open_and_close(round);
    }
    let (memory_after, files_after, threads_after) = holdings();
    assert_eq!((files, threads), (files_after, threads_after));
    let grown = memory_after - memory;
    assert!(grown < 1 << 20, "1,000 rounds left {grown} bytes");
}
