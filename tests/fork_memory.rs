//! What a thousand forks of a prompt cost before they part. One test, because it measures what its
//! whole process holds.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, clippy::unwrap_used)] // calls of the C interface

#[path = "support/interface.rs"]
mod interface;
#[path = "support/programs.rs"]
mod programs;

use std::fs;
use std::ptr;
use std::time::{Duration, Instant};

use lightgpt::capi::*;

use interface::{new, ok};

const FORKS: usize = 1000;
const PROMPT: u32 = 512;
const TIME_MAX: Duration = Duration::from_millis(50);
const BYTES_MAX: u64 = 64 << 10;

/// Bytes of memory that no other process shares.
fn private_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let kibibytes = text
        .lines()
        .filter_map(|line| line.strip_prefix("Private_")?.split_whitespace().nth(1))
        .map(|number| number.parse::<u64>().unwrap());
    kibibytes.sum::<u64>() << 10
}

/// The file of the model that comes with the project, which says that its context is 1,024.
fn model_of_a_longer_context() -> Vec<u8> {
    const KEY: &[u8] = b"llama.context_length";
    let mut file = fs::read(programs::model()).unwrap();
    let key = file.windows(KEY.len()).position(|text| text == KEY);
    // Behind the key stands the type of its value.
    let value = key.unwrap() + KEY.len() + 4;
    assert_eq!(file[value..value + 4], 256u32.to_le_bytes());
    file[value..value + 4].copy_from_slice(&1024u32.to_le_bytes());
    file
}

#[test]
fn a_thousand_forks_cost_little_until_they_part() {
    let file = model_of_a_longer_context();
    let (mut model, mut session) = (ptr::null_mut(), ptr::null_mut());
    let tokens: Vec<u32> = (0..PROMPT).map(|i| i * 7 % 4000 + 3).collect();
    let (mut logits, mut needed) = (vec![0f32; 4096], 0);
    // SAFETY: every pointer is NULL or that of a local that fits.
    unsafe {
        ok(lightgpt_model_open_memory(
            file.as_ptr().cast(),
            file.len(),
            None,
            ptr::null_mut(),
            ptr::null(),
            &raw mut model,
        ));
        ok(lightgpt_session_new(
            model,
            ptr::null(),
            ptr::null(),
            &raw mut session,
        ));
        ok(lightgpt_session_feed_tokens(
            session,
            tokens.as_ptr(),
            tokens.len(),
        ));
        let (buf, cap) = (logits.as_mut_ptr(), logits.len());
        ok(lightgpt_session_logits(session, buf, cap, &raw mut needed));
    }
    let mut forks = vec![ptr::null_mut(); FORKS];
    let before = private_bytes();
    let began = Instant::now();
    for fork in &mut forks {
        // SAFETY: as above.
        ok(unsafe { lightgpt_session_fork(session, fork) });
    }
    let time = began.elapsed();
    let each = private_bytes().saturating_sub(before) / FORKS as u64;
    println!("{FORKS} forks of {PROMPT} tokens: {time:?}, {each} bytes each");
    assert!(each < BYTES_MAX, "{each} bytes each");
    assert!(time < TIME_MAX, "{time:?}");

    // All of them know the logits, and some go on.
    let mut same = vec![0f32; logits.len()];
    for fork in &forks {
        // SAFETY: as above.
        unsafe {
            let (buf, cap) = (same.as_mut_ptr(), same.len());
            ok(lightgpt_session_logits(*fork, buf, cap, &raw mut needed));
        }
        assert_eq!(same, logits);
    }
    ok(lightgpt_session_free(session));
    let mut options = new::<lightgpt_generate_options>();
    options.tokens_max = 3;
    options.flags = LIGHTGPT_GENERATE_IGNORE_END;
    for fork in forks.iter().step_by(100) {
        // SAFETY: as above.
        let status = unsafe { lightgpt_session_generate(*fork, &options, None, ptr::null_mut()) };
        assert_eq!(status, LIGHTGPT_DONE);
    }
    for fork in forks {
        ok(lightgpt_session_free(fork));
    }
    ok(lightgpt_model_free(model));
}
