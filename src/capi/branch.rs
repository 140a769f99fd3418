//! Sessions that come of others in C: forks, and what is left when the oldest tokens go.

use super::arguments::{Out, size};
use super::session::{call, hand_out, lightgpt_session};
use super::status::LIGHTGPT_OK;

/// Makes another session with the same tokens, logits and turn: from here on both go on by
/// themselves. They share what they have in common, so that a fork costs microseconds and little
/// memory, whatever the length of the text.
///
/// A turn that was begun goes on in both, each with its own copy of its sampler and of text that is
/// held back, so that both make the same text; for several endings of a text, fork before the turn
/// is begun and generate with samplers of several seeds. A prompt that is partly evaluated stays so
/// in `session`; the fork evaluates again what was not finished.
///
/// fork: not NULL; gets a handle that lightgpt_session_free gives back. `session` may be freed
/// before it.
/// Errors: LIGHTGPT_OUT_OF_MEMORY, LIGHTGPT_MEMORY_CAP, LIGHTGPT_BUSY (another call uses it, or the
/// one whose callback this is).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_fork(
    session: *mut lightgpt_session,
    fork: *mut *mut lightgpt_session,
) -> i32 {
    call(session, |session| {
        // SAFETY: the header asks for a place for a handle.
        let out = unsafe { Out::new(fork, "fork") }?;
        out.set(hand_out(session.fork()?)?);
        Ok(LIGHTGPT_OK)
    })
}

/// Makes room in a session that is full: keeps the first `keep` tokens, drops the `dropped` behind
/// them, and moves up those that follow.
///
/// What moves up is evaluated again by the next call that needs it: afterwards the session is one
/// that was fed these tokens, to the bit. That takes as long as a prompt of so many tokens, so drop
/// many at a time. A turn that was begun goes on; cancelling it does not bring back what was dropped.
///
/// Errors: LIGHTGPT_INVALID_ARGUMENT (it has fewer tokens, or a turn that was begun would have none
/// to go on from), LIGHTGPT_BUSY.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_session_shift(
    session: *mut lightgpt_session,
    keep: u64,
    dropped: u64,
) -> i32 {
    call(session, |session| {
        session.shift(size(keep, "keep")?, size(dropped, "dropped")?)?;
        Ok(LIGHTGPT_OK)
    })
}
