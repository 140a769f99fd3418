//! Saved sessions in C.

use std::ffi::c_char;
use std::path::Path;
use std::sync::Arc;

use super::arguments::{Buffer, Out, flags, input, name};
use super::guard::guard;
use super::model::lightgpt_model;
use super::objects::enter;
use super::options::read;
use super::session::{call, hand_out, lightgpt_session, lightgpt_session_options, session_options};
use super::status::LIGHTGPT_OK;
use super::team::{lightgpt_team, team_or_own};
use crate::error::Result;
use crate::model::Model;
use crate::session::{Session, SessionOptions};
use crate::team::Team;

/// Flag of lightgpt_session_save: without keys, values and states. The result is small, and the tokens are
/// evaluated again after it is restored, to the same bits.
pub const LIGHTGPT_SAVE_TOKENS_ONLY: u32 = 1;

/// Saves a session to a file, which is put in its place when it is complete: there is the old file or
/// the new one.
///
/// What is saved: tokens, keys, values and states, and the turn with its sampler, its generator and the text
/// that is held back. A prompt that is partly evaluated is saved as that. The session stays as it is.
/// path: UTF-8. flags: LIGHTGPT_SAVE_ bits.
/// Errors: LIGHTGPT_IO, LIGHTGPT_UNSUPPORTED (a turn goes on whose sampler has a stage of the host's
/// own), LIGHTGPT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_save(
    session: *mut lightgpt_session,
    path: *const c_char,
    flags: u32,
) -> i32 {
    call(session, |session| {
        // SAFETY: the header asks for text that ends with a zero byte.
        let path = unsafe { name(path, "path") }?;
        session.save_file(Path::new(path), with_pages(flags)?)?;
        Ok(LIGHTGPT_OK)
    })
}

/// Saves a session to memory, as lightgpt_session_save does to a file.
///
/// buf, cap, needed: see TEXT above, counted in bytes.
/// Errors: LIGHTGPT_BUFFER_TOO_SMALL, LIGHTGPT_UNSUPPORTED, LIGHTGPT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_save_memory(
    session: *mut lightgpt_session,
    flags: u32,
    buf: *mut u8,
    cap: usize,
    needed: *mut usize,
) -> i32 {
    call(session, |session| {
        // SAFETY: the header asks for a buffer of `cap` bytes and a place for their count.
        let out = unsafe { Buffer::new(buf, cap, needed) }?;
        let pages = with_pages(flags)?;
        if out.takes(session.saved_bytes(pages)?)? {
            session.save(pages, &mut out.writer())?;
        }
        Ok(LIGHTGPT_OK)
    })
}

/// Makes a session that goes on where a saved one was, with the same bits, on any CPU: also in the
/// middle of a turn, which goes on with lightgpt_session_step.
///
/// model: the one it was saved with, or one whose metadata and tensors are the same. team: as for
/// lightgpt_session_new. options: NULL for the defaults; `context` and `kv_format` of 0 are those it
/// had, all others are not saved: give `memory_max`, `flags` and `salt` again. One that is restored
/// with keys and values shares them with nobody. path: UTF-8. session: not NULL; gets a handle that lightgpt_session_free gives back.
/// Errors: LIGHTGPT_FORMAT (the file is damaged or no saved session), LIGHTGPT_UNSUPPORTED (another
/// version wrote it whose numbers differ), LIGHTGPT_INVALID_ARGUMENT (another model, or options that
/// do not fit), LIGHTGPT_IO, LIGHTGPT_OUT_OF_MEMORY, LIGHTGPT_MEMORY_CAP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_restore(
    model: *const lightgpt_model,
    team: *const lightgpt_team,
    options: *const lightgpt_session_options,
    path: *const c_char,
    session: *mut *mut lightgpt_session,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for text that ends with a zero byte.
        let path = unsafe { name(path, "path") }?;
        // SAFETY: the header asks for a place for a handle, and for options as large as they say.
        let (out, options) = unsafe { (Out::new(session, "session")?, read(options, "options")?) };
        restored((model, team), &options, &out, |model, team, options| {
            Session::restore_file(model, team, options, Path::new(path))
        })
    })
}

/// As lightgpt_session_restore, from the `bytes` bytes at `data`. They may go when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_restore_memory(
    model: *const lightgpt_model,
    team: *const lightgpt_team,
    options: *const lightgpt_session_options,
    data: *const u8,
    bytes: usize,
    session: *mut *mut lightgpt_session,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for so many bytes.
        let data = unsafe { input(data, bytes, "data") }?;
        // SAFETY: the header asks for a place for a handle, and for options as large as they say.
        let (out, options) = unsafe { (Out::new(session, "session")?, read(options, "options")?) };
        restored((model, team), &options, &out, |model, team, options| {
            Session::restore(model, team, options, &mut &*data)
        })
    })
}

/// Hands out the session that `restore` makes.
fn restored(
    (model, team): (*const lightgpt_model, *const lightgpt_team),
    options: &lightgpt_session_options,
    out: &Out<*mut lightgpt_session>,
    restore: impl FnOnce(Arc<Model>, Arc<Team>, &SessionOptions) -> Result<Session>,
) -> Result<i32> {
    let model = enter(model)?;
    let options = session_options(options, &model.model)?;
    let team = team_or_own(team, &model.model)?;
    out.set(hand_out(restore(model.model.clone(), team, &options)?)?);
    Ok(LIGHTGPT_OK)
}

fn with_pages(given: u32) -> Result<bool> {
    Ok(flags(given, LIGHTGPT_SAVE_TOKENS_ONLY, "flags")? == 0)
}
