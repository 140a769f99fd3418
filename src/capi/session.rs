//! The session in C: make, feed, ask, free. Generating is in `generate`.

use std::ffi::c_char;
use std::mem::offset_of;
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::arguments::{Buffer, Out, flags, input, invalid, output, size, text};
use super::guard::{catch, guard};
use super::handles::Kind;
use super::message::Message;
use super::model::lightgpt_model;
use super::objects::{Handle, Object, enter, free, insert, text_of};
use super::options::{OutStruct, Struct, read};
use super::status::{LIGHTGPT_DONE, LIGHTGPT_OK, LIGHTGPT_PENDING};
use super::team::{lightgpt_team, team_or_own};
use super::tokenizer::encode_options;
use crate::budget::Budget;
use crate::control::{Control, Flow, Signals};
use crate::error::{Code, Error, Result};
use crate::kv::KvFormat;
use crate::model::Model;
use crate::session::{Canceller, Session, SessionOptions};

/// One timeline of text: the tokens so far and what the model remembers of them. Any thread, one
/// at a time.
#[derive(Debug)]
pub struct lightgpt_session {
    _opaque: (),
}

/// The library chooses how keys and values are stored: 16-bit floats.
pub const LIGHTGPT_KV_AUTO: u32 = 0;
/// Keys and values as 32-bit floats: twice the memory, the reference.
pub const LIGHTGPT_KV_F32: u32 = 1;
/// Keys and values as 16-bit floats.
pub const LIGHTGPT_KV_F16: u32 = 2;
/// Keys and values as bytes with a 16-bit float for each 32: about half the memory of 16-bit floats.
pub const LIGHTGPT_KV_Q8_0: u32 = 3;

/// Evaluate everything, also what another session of the model has evaluated before, and keep
/// nothing for others. Changes the time and the memory, not the result.
pub const LIGHTGPT_SESSION_UNSHARED: u32 = 1 << 0;

/// How to make a session; all zero: the library chooses.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_session_options {
    /// Set by LIGHTGPT_SESSION_OPTIONS_INIT.
    pub struct_size: u32,
    /// One of LIGHTGPT_KV_.
    pub kv_format: u32,
    /// Tokens that the session can hold; 0: as many as the model was made for, which is also the
    /// most (`context` in lightgpt_model_info).
    pub context: u64,
    /// Prompt tokens per pass; 0: the library chooses. Changes the time, not the result.
    pub chunk: u64,
    /// The most bytes that keys, values and logits of the session may take; 0: what the model was
    /// opened with.
    pub memory_max: u64,
    /// LIGHTGPT_SESSION_ bits.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// Share only with sessions of the same salt: how long a prompt takes tells whether another
    /// session has had its beginning, which users of one model may not want to know of each other.
    pub salt: u64,
}

// SAFETY: as the trait asks.
unsafe impl Struct for lightgpt_session_options {
    const SIZE_MIN: usize = offset_of!(Self, memory_max) + size_of::<u64>();
    const RESERVED: &'static [usize] = &[offset_of!(Self, reserved)];
}

/// What a session has done and holds.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_metrics {
    /// Set by the caller: sizeof(lightgpt_metrics).
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Tokens in the session.
    pub tokens: u64,
    /// Tokens that it can hold.
    pub context: u64,
    /// Tokens fed so far.
    pub prompt_tokens: u64,
    /// Microseconds spent on them.
    pub prompt_us: u64,
    /// Tokens generated so far.
    pub generated_tokens: u64,
    /// Microseconds spent on them.
    pub generate_us: u64,
    /// Bytes of keys and values, those that it shares with other sessions included.
    pub kv_bytes: u64,
    /// Tokens fed so far that had been evaluated before, by another session or this one.
    pub reused_tokens: u64,
}

// SAFETY: as the trait asks.
unsafe impl Struct for lightgpt_metrics {
    const SIZE_MIN: usize = offset_of!(Self, kv_bytes) + size_of::<u64>();
}

pub(super) struct SessionObject {
    session: Mutex<Session>,
    canceller: Canceller,
    message: Mutex<Message>,
}

impl Object for SessionObject {
    fn cancel(&self) {
        self.canceller.cancel();
    }
}

impl Handle for lightgpt_session {
    type Object = SessionObject;
    const KIND: Kind = Kind::Session;
}

/// The body of all calls that need the session for themselves: `BUSY` if another one has it.
pub(super) fn call(
    session: *const lightgpt_session,
    body: impl FnOnce(&mut Session) -> Result<i32>,
) -> i32 {
    guard(|| enter(session)?.call(body))
}

impl SessionObject {
    fn call(&self, body: impl FnOnce(&mut Session) -> Result<i32>) -> Result<i32> {
        let mut session = match self.session.try_lock() {
            Ok(session) => session,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let message = "another call uses it, or the one whose callback this is";
                return Err(Error::new(Code::Busy, "session", message));
            }
        };
        let result = catch(|| body(&mut session));
        if let Err(error) = &result {
            if error.code() == Code::Internal {
                session.poison();
            }
            let message = self.message.lock();
            message.unwrap_or_else(PoisonError::into_inner).set(error);
        }
        result
    }
}

/// When a call with this budget must pause; 0 is no budget.
pub(super) fn control(budget_us: u64) -> Control<'static> {
    let budget = Duration::from_micros(budget_us);
    let deadline = (budget_us > 0)
        .then(|| Instant::now().checked_add(budget))
        .flatten();
    Control {
        signals: Signals {
            deadline,
            ..Signals::default()
        },
        progress: None,
    }
}

/// Makes a session of a model.
///
/// team: the threads to compute with; NULL: a team with default options that all such sessions of
/// the model share, from the first to the last of them.
/// options: NULL for the defaults. session: not NULL; gets a handle that lightgpt_session_free
/// gives back. Model and team may be freed before the session. Any thread.
/// Errors: LIGHTGPT_OUT_OF_MEMORY, LIGHTGPT_MEMORY_CAP, LIGHTGPT_INVALID_ARGUMENT (an option out of
/// range), LIGHTGPT_UNSUPPORTED (the model was opened with LIGHTGPT_OPEN_INSPECT).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_new(
    model: *const lightgpt_model,
    team: *const lightgpt_team,
    options: *const lightgpt_session_options,
    session: *mut *mut lightgpt_session,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a place for a handle, and for options as large as they say.
        let (out, options) = unsafe { (Out::new(session, "session")?, read(options, "options")?) };
        let model = enter(model)?;
        let options = session_options(&options, &model.model)?;
        let team = team_or_own(team, &model.model)?;
        let made = Session::new(model.model.clone(), team, &options)?;
        let context = made.context();
        out.set(hand_out(made)?);
        model.log(format_args!("made a session of {context} tokens"));
        Ok(LIGHTGPT_OK)
    })
}

/// Gives a session a handle.
pub(super) fn hand_out(session: Session) -> Result<*mut lightgpt_session> {
    insert(SessionObject {
        canceller: session.canceller(),
        message: Mutex::new(Message::new()),
        session: Mutex::new(session),
    })
}

/// Appends text to what the session will evaluate next: at the next lightgpt_session_prefill,
/// _begin or _generate.
///
/// text: `text_bytes` bytes of UTF-8; NULL with 0. flags: LIGHTGPT_TEXT_ADD_SPECIAL and
/// LIGHTGPT_TEXT_PARSE_SPECIAL bits; a new text usually wants the former. tokens: gets the number
/// of tokens it made; may be NULL.
/// Errors: LIGHTGPT_CONTEXT_FULL, LIGHTGPT_UNSUPPORTED (no tokenizer, or an unknown one),
/// LIGHTGPT_OUT_OF_MEMORY, LIGHTGPT_BUSY (also: a turn that was begun goes on).
/// LIGHTGPT_CANCELLED takes the session back to before the turn.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_feed_text(
    session: *mut lightgpt_session,
    text: *const c_char,
    text_bytes: usize,
    flags: u32,
    tokens: *mut u64,
) -> i32 {
    call(session, |session| {
        let options = encode_options(flags)?;
        // SAFETY: the header asks for `text_bytes` bytes.
        let text = unsafe { self::text(text, text_bytes, "text") }?;
        let out = match tokens.is_null() {
            true => None,
            // SAFETY: the header asks for a place for a number, if any.
            false => Some(unsafe { Out::new(tokens, "tokens") }?),
        };
        let count = session.feed_text(text, options)?;
        out.inspect(|out| out.set(count as u64));
        Ok(LIGHTGPT_OK)
    })
}

/// Appends tokens to what the session will evaluate next.
///
/// tokens: `tokens_len` numbers; NULL with 0.
/// Errors: LIGHTGPT_INVALID_ARGUMENT (a token outside the vocabulary), LIGHTGPT_CONTEXT_FULL,
/// LIGHTGPT_BUSY (also: a turn that was begun goes on), LIGHTGPT_CANCELLED (the turn was cancelled
/// since the last call).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_feed_tokens(
    session: *mut lightgpt_session,
    tokens: *const u32,
    tokens_len: usize,
) -> i32 {
    call(session, |session| {
        // SAFETY: the header asks for `tokens_len` numbers.
        session.feed(unsafe { input(tokens, tokens_len, "tokens") }?)?;
        Ok(LIGHTGPT_OK)
    })
}

/// Evaluates what was fed, for about `budget_us` microseconds; 0: until it is done.
///
/// Answers LIGHTGPT_DONE, or LIGHTGPT_PENDING when the budget ended first: call again to go on.
/// Errors: LIGHTGPT_CANCELLED takes the session back to before the turn. LIGHTGPT_NONFINITE,
/// LIGHTGPT_OUT_OF_MEMORY, LIGHTGPT_MEMORY_CAP and LIGHTGPT_FILE_CHANGED leave the tokens fed: try
/// again, or rewind. LIGHTGPT_BUSY.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_session_prefill(session: *mut lightgpt_session, budget_us: u64) -> i32 {
    call(session, |session| {
        Ok(match session.prefill(&mut control(budget_us))? {
            Flow::Done => LIGHTGPT_DONE,
            Flow::Paused => LIGHTGPT_PENDING,
        })
    })
}

/// Copies out the logits after the last token: one number for each entry of the vocabulary. Evaluates
/// what was fed first.
///
/// buf, cap, needed: see TEXT above, counted in numbers.
/// Errors: LIGHTGPT_INVALID_ARGUMENT (the session is empty), LIGHTGPT_BUFFER_TOO_SMALL, and those of
/// lightgpt_session_prefill.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_logits(
    session: *mut lightgpt_session,
    buf: *mut f32,
    cap: usize,
    needed: *mut usize,
) -> i32 {
    call(session, |session| {
        // SAFETY: the header asks for a buffer of `cap` numbers and a place for their count.
        let out = unsafe { Buffer::new(buf, cap, needed) }?;
        out.fill(session.logits(&mut Control::none())?)?;
        Ok(LIGHTGPT_OK)
    })
}

/// Appends tokens and says how likely the model finds each after all that is before it.
///
/// tokens: `tokens_len` numbers; NULL with 0. log_probabilities: gets as many natural logarithms of
/// probabilities. The tokens stay in the session, as part of the turn like fed ones; rewind it to drop
/// them.
/// Errors: LIGHTGPT_INVALID_ARGUMENT (the session is empty, so that nothing is before the first
/// token; a token outside the vocabulary), LIGHTGPT_CONTEXT_FULL, LIGHTGPT_BUSY, and those of
/// lightgpt_session_prefill.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_score(
    session: *mut lightgpt_session,
    tokens: *const u32,
    tokens_len: usize,
    log_probabilities: *mut f64,
) -> i32 {
    call(session, |session| {
        // SAFETY: the header asks for so many tokens, and room for as many numbers.
        let tokens = unsafe { input(tokens, tokens_len, "tokens") }?;
        // SAFETY: as above.
        let out = unsafe { output(log_probabilities, tokens_len, "log_probabilities") }?;
        let scores = session.score(tokens, &mut Control::none())?;
        out.fill(&scores);
        Ok(LIGHTGPT_OK)
    })
}

/// Copies out the tokens of the session, from the first.
///
/// buf, cap, needed: see TEXT above, counted in tokens.
/// Errors: LIGHTGPT_BUFFER_TOO_SMALL, LIGHTGPT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_tokens(
    session: *mut lightgpt_session,
    buf: *mut u32,
    cap: usize,
    needed: *mut usize,
) -> i32 {
    call(session, |session| {
        // SAFETY: the header asks for a buffer of `cap` tokens and a place for their count.
        unsafe { Buffer::new(buf, cap, needed) }?.fill(session.tokens())?;
        Ok(LIGHTGPT_OK)
    })
}

/// Keeps the first `tokens` tokens and forgets the rest, also a turn in progress.
///
/// Errors: LIGHTGPT_INVALID_ARGUMENT (it has fewer), LIGHTGPT_BUSY.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_session_rewind(session: *mut lightgpt_session, tokens: u64) -> i32 {
    call(session, |session| {
        session.rewind(size(tokens, "tokens")?)?;
        Ok(LIGHTGPT_OK)
    })
}

/// Cancels the turn that is in progress: the call that is using the session, or the next one,
/// answers LIGHTGPT_CANCELLED. A turn begins when the session is fed, and ends with its generation;
/// without one, nothing happens.
///
/// Any thread at any time, also from a callback.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_session_cancel(session: *const lightgpt_session) -> i32 {
    guard(|| {
        enter(session)?.cancel();
        Ok(LIGHTGPT_OK)
    })
}

/// Says what the session has done and holds.
///
/// metrics: not NULL, initialised with LIGHTGPT_METRICS_INIT. Errors: LIGHTGPT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_metrics(
    session: *mut lightgpt_session,
    metrics: *mut lightgpt_metrics,
) -> i32 {
    call(session, |session| {
        // SAFETY: the header asks for a struct as large as it says.
        let out = unsafe { OutStruct::new(metrics, "metrics") }?;
        let metrics = session.metrics();
        out.set(&lightgpt_metrics {
            struct_size: 0,
            reserved: 0,
            tokens: session.tokens().len() as u64,
            context: session.context() as u64,
            prompt_tokens: metrics.prompt_tokens,
            prompt_us: metrics.prompt_us,
            generated_tokens: metrics.generated_tokens,
            generate_us: metrics.generate_us,
            kv_bytes: metrics.kv_bytes,
            reused_tokens: metrics.reused_tokens,
        });
        Ok(LIGHTGPT_OK)
    })
}

/// Gives the message of the last call that failed on this session, on whatever thread; "" if none
/// did.
///
/// buf, cap, needed: see TEXT above. Any thread at any time. Errors: LIGHTGPT_BUFFER_TOO_SMALL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_last_error(
    session: *const lightgpt_session,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
) -> i32 {
    let fill = |session: &SessionObject, out: &Buffer<u8>| {
        let message = session.message.lock();
        out.fill(message.unwrap_or_else(PoisonError::into_inner).as_bytes())
    };
    // SAFETY: the header asks for a buffer of `cap` bytes and a place for its size.
    unsafe { text_of(session, buf, cap, needed, fill) }
}

/// Gives a session back. A call that uses it on another thread is cancelled and waited for; from a
/// callback, that is LIGHTGPT_BUSY.
///
/// NULL is fine. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_session_free(session: *mut lightgpt_session) -> i32 {
    free(session)
}

pub(super) fn session_options(
    given: &lightgpt_session_options,
    model: &Model,
) -> Result<SessionOptions> {
    Ok(SessionOptions {
        context: size(given.context, "options.context")?,
        kv: kv_format(given.kv_format)?,
        chunk: size(given.chunk, "options.chunk")?,
        budget: capped(model, given.memory_max),
        unshared: flags(given.flags, LIGHTGPT_SESSION_UNSHARED, "options.flags")? != 0,
        salt: given.salt,
    })
}

/// An account of its own for `memory_max` bytes of the model's memory; 0: the model's.
pub(super) fn capped(model: &Model, memory_max: u64) -> Option<Budget> {
    (memory_max > 0).then(|| model.budget().sibling(Some(memory_max)))
}

/// `None`: nothing is said.
pub(super) fn kv_format(number: u32) -> Result<Option<KvFormat>> {
    match number {
        LIGHTGPT_KV_AUTO => Ok(None),
        LIGHTGPT_KV_F16 => Ok(Some(KvFormat::F16)),
        LIGHTGPT_KV_F32 => Ok(Some(KvFormat::F32)),
        LIGHTGPT_KV_Q8_0 => Ok(Some(KvFormat::Q8_0)),
        other => {
            let message = format!("{other} is no LIGHTGPT_KV_ number");
            Err(invalid("options.kv_format", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::super::model::{lightgpt_model_free, lightgpt_model_open};
    use super::super::status::{LIGHTGPT_INTERNAL, LIGHTGPT_POISONED};
    use super::*;

    const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tales-4m-q8_0.gguf\0");

    #[test]
    fn a_panic_is_contained_and_poisons_the_session() {
        let (mut model, mut session) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: every pointer is NULL, a text that ends in zero, or that of a local that fits.
        unsafe {
            let path = MODEL.as_ptr().cast();
            assert_eq!(
                lightgpt_model_open(path, ptr::null(), &raw mut model),
                LIGHTGPT_OK
            );
            let made = lightgpt_session_new(model, ptr::null(), ptr::null(), &raw mut session);
            assert_eq!(made, LIGHTGPT_OK);
        }
        assert_eq!(call(session, |_| panic!("on purpose")), LIGHTGPT_INTERNAL);
        let mut text = [0u8; 256];
        let mut needed = 0;
        // SAFETY: as above.
        let fed = unsafe {
            let buf = text.as_mut_ptr().cast();
            let told = lightgpt_session_last_error(session, buf, text.len(), &raw mut needed);
            assert_eq!(told, LIGHTGPT_OK);
            lightgpt_session_feed_text(session, c"a".as_ptr(), 1, 0, ptr::null_mut())
        };
        assert!(text[..needed].starts_with(b"a defect of the library: on purpose"));
        assert_eq!(fed, LIGHTGPT_POISONED);
        assert_eq!(lightgpt_session_free(session), LIGHTGPT_OK);
        assert_eq!(lightgpt_model_free(model), LIGHTGPT_OK);
    }
}
