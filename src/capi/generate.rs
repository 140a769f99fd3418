//! Generating in C: with a callback, or step by step.

use std::ffi::{c_char, c_void};
use std::mem::offset_of;
use std::ptr;

use super::arguments::{flags, input, invalid, name, size};
use super::guard::callback;
use super::model::{LIGHTGPT_CONTINUE, LIGHTGPT_STOP};
use super::objects::enter;
use super::options::{OutStruct, Struct, read};
use super::sampler::lightgpt_sampler;
use super::session::{call, control, lightgpt_session};
use super::status::{LIGHTGPT_DONE, LIGHTGPT_OK, LIGHTGPT_PENDING, LIGHTGPT_STOPPED};
use crate::control::Control;
use crate::error::Result;
use crate::sampler::{Sampler, SamplerOptions, Scored};
use crate::session::{Action, Event, Finish, GenerateOptions, STOP_BYTES_MAX, STOPS_MAX, Step};

/// Nothing happened: the budget ended first.
pub const LIGHTGPT_EVENT_NONE: u32 = 0;
/// A part of what was fed is evaluated: `done` of `total` tokens.
pub const LIGHTGPT_EVENT_PROGRESS: u32 = 1;
/// A token was chosen.
pub const LIGHTGPT_EVENT_TOKEN: u32 = 2;
/// The turn is over, for the reason in `finish`.
pub const LIGHTGPT_EVENT_FINISHED: u32 = 3;

/// The model ended its answer.
pub const LIGHTGPT_FINISH_END: u32 = 1;
/// `tokens_max` tokens were made.
pub const LIGHTGPT_FINISH_LENGTH: u32 = 2;
/// The session holds as many tokens as it can.
pub const LIGHTGPT_FINISH_CONTEXT_FULL: u32 = 3;
/// The callback answered LIGHTGPT_STOP.
pub const LIGHTGPT_FINISH_STOPPED: u32 = 4;
/// A stop string came.
pub const LIGHTGPT_FINISH_STOP_STRING: u32 = 5;

/// What happened. Members that the kind does not name are 0.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_event {
    /// For lightgpt_session_step set by the caller: sizeof(lightgpt_event).
    pub struct_size: u32,
    /// One of LIGHTGPT_EVENT_.
    pub kind: u32,
    /// TOKEN: the token.
    pub token: u32,
    /// FINISHED: one of LIGHTGPT_FINISH_.
    pub finish: u32,
    /// TOKEN: the token's place in the session.
    pub position: u64,
    /// PROGRESS: tokens of the session that are evaluated.
    pub done: u64,
    /// PROGRESS: tokens of the session.
    pub total: u64,
    /// TOKEN and FINISHED: text that became certain, `text_bytes` bytes of UTF-8 in whole
    /// characters, without a zero byte at the end. Not NULL; may be empty, since a character may
    /// take several tokens. All texts of a turn, one behind the other, are its text.
    pub text: *const c_char,
    /// Bytes at `text`.
    pub text_bytes: u64,
    /// TOKEN, with LIGHTGPT_GENERATE_LOG_PROBABILITIES: the natural logarithm of the probability
    /// that the model gave the token, before any sampling.
    pub log_probability: f64,
    /// TOKEN, with top_len in the options: the most likely tokens in its place, the most likely
    /// first. Valid as long as `text`.
    pub top: *const lightgpt_token_score,
    /// Tokens at `top`.
    pub top_len: u64,
}

/// A token and its log-probability.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_token_score {
    /// The token.
    pub token: u32,
    /// The natural logarithm of its probability.
    pub log_probability: f64,
}

// What the session gives is handed out as it is.
const _: () = assert!(
    size_of::<lightgpt_token_score>() == size_of::<Scored>()
        && offset_of!(lightgpt_token_score, token) == offset_of!(Scored, token)
        && offset_of!(lightgpt_token_score, log_probability) == offset_of!(Scored, log_probability)
);

// SAFETY: as the trait asks; a NULL pointer is all zeros.
unsafe impl Struct for lightgpt_event {
    const SIZE_MIN: usize = offset_of!(Self, text_bytes) + size_of::<u64>();
}

/// Takes what happens in lightgpt_session_generate, and answers LIGHTGPT_CONTINUE, LIGHTGPT_STOP
/// or LIGHTGPT_CANCEL; other answers count as LIGHTGPT_CANCEL. The event and its text are valid
/// during the call. It runs on the thread that called in. The answer to LIGHTGPT_EVENT_FINISHED
/// still cancels the turn.
pub type lightgpt_event_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, event: *const lightgpt_event) -> i32>;

/// Go on after the model ended its answer.
pub const LIGHTGPT_GENERATE_IGNORE_END: u32 = 1 << 0;
/// Give the log-probability of each token.
pub const LIGHTGPT_GENERATE_LOG_PROBABILITIES: u32 = 1 << 1;

/// How to generate; all zero: the most likely tokens, until the model ends or the session is full.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_generate_options {
    /// Set by LIGHTGPT_GENERATE_OPTIONS_INIT.
    pub struct_size: u32,
    /// LIGHTGPT_GENERATE_ bits.
    pub flags: u32,
    /// The most tokens to make; 0: no limit of this kind.
    pub tokens_max: u64,
    /// Chooses the tokens; copied, so that using it elsewhere changes nothing here. What mirostat
    /// or adaptive-p learns goes on over the turns of the session, see lightgpt_sampler. NULL:
    /// greedy.
    pub sampler: *mut lightgpt_sampler,
    /// Texts that end the turn and are not shown: `stops_len` of them, each with a zero byte at its
    /// end; at most 64, of 1 to 1024 bytes. Text that may become one is held back until it is
    /// certain; the first to be complete counts. Its tokens stay in the session. NULL: none.
    pub stops: *const *const c_char,
    /// Texts at `stops`.
    pub stops_len: u64,
    /// Give so many of the most likely tokens beside each token; at most 256.
    pub top_len: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: as the trait asks; a NULL pointer is all zeros.
unsafe impl Struct for lightgpt_generate_options {
    const SIZE_MIN: usize = offset_of!(Self, stops_len) + size_of::<u64>();
    const RESERVED: &'static [usize] = &[offset_of!(Self, reserved)];
}

/// Evaluates what was fed and generates a turn, telling `event` what happens.
///
/// Answers LIGHTGPT_DONE when the turn ended by itself, LIGHTGPT_STOPPED when the callback stopped
/// it; both keep its tokens. LIGHTGPT_CANCELLED, when the callback or lightgpt_session_cancel
/// wants that, takes the session back to before the turn: what was fed for it is forgotten. After
/// any other failure, rewind the session before it goes on.
///
/// options: NULL for the defaults. event: NULL if nobody listens. Inside the callback, calls with
/// this session are LIGHTGPT_BUSY, except lightgpt_session_cancel and lightgpt_session_last_error.
/// Errors: LIGHTGPT_CANCELLED, LIGHTGPT_INVALID_ARGUMENT (the session is empty),
/// LIGHTGPT_NONFINITE, LIGHTGPT_OUT_OF_MEMORY, LIGHTGPT_MEMORY_CAP, LIGHTGPT_FILE_CHANGED,
/// LIGHTGPT_BUSY (also: the sampler is in use, or a turn that was begun goes on).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_generate(
    session: *mut lightgpt_session,
    options: *const lightgpt_generate_options,
    event: lightgpt_event_fn,
    user_data: *mut c_void,
) -> i32 {
    call(session, |session| {
        // SAFETY: the header asks for options as large as they say.
        let options = unsafe { generate_options(&read(options, "options")?) }?;
        let mut tokens = session.tokens().len();
        let mut tell = |happened: &Event<'_>| {
            tokens += usize::from(matches!(happened.step, Step::Token(_)));
            let Some(function) = event else {
                return Action::Continue;
            };
            let happened = c_event(happened, tokens);
            // SAFETY: the header describes this call to who wrote the function.
            match callback(|| unsafe { function(user_data, &raw const happened) }) {
                LIGHTGPT_CONTINUE => Action::Continue,
                LIGHTGPT_STOP => Action::Stop,
                _ => Action::Cancel,
            }
        };
        Ok(
            match session.generate(&options, &mut Control::none(), &mut tell)? {
                Finish::Stopped => LIGHTGPT_STOPPED,
                Finish::End | Finish::Length | Finish::ContextFull | Finish::StopString => {
                    LIGHTGPT_DONE
                }
            },
        )
    })
}

/// Begins a turn that lightgpt_session_step carries on.
///
/// options: NULL for the defaults.
/// Errors: LIGHTGPT_INVALID_ARGUMENT (the session is empty), LIGHTGPT_BUSY (also: the sampler is in
/// use, or a turn that was begun goes on).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_begin(
    session: *mut lightgpt_session,
    options: *const lightgpt_generate_options,
) -> i32 {
    call(session, |session| {
        // SAFETY: the header asks for options as large as they say.
        session.begin(&unsafe { generate_options(&read(options, "options")?) }?)?;
        Ok(LIGHTGPT_OK)
    })
}

/// Carries a turn on until something happens, or for about `budget_us` microseconds; 0: no limit.
/// It may pause inside a token, and goes on where it stopped.
///
/// Answers LIGHTGPT_OK with an event, LIGHTGPT_PENDING when the budget ended first, LIGHTGPT_DONE
/// with the last event of the turn. Its text is valid until the next call with the session.
/// Between steps the session may be asked, cancelled, rewound (which ends the turn) and freed.
///
/// event: not NULL, initialised with LIGHTGPT_EVENT_INIT.
/// Errors: as lightgpt_session_generate, and with the same effect; LIGHTGPT_INVALID_ARGUMENT (no
/// turn is in progress).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_step(
    session: *mut lightgpt_session,
    budget_us: u64,
    event: *mut lightgpt_event,
) -> i32 {
    call(session, |session| {
        // SAFETY: the header asks for a struct as large as it says.
        let out = unsafe { OutStruct::new(event, "event") }?;
        let step = session.step(&mut control(budget_us))?;
        out.set(&c_event(&session.event(step), session.tokens().len()));
        Ok(match step {
            Step::Pending => LIGHTGPT_PENDING,
            Step::Finished(_) => LIGHTGPT_DONE,
            Step::Prefill { .. } | Step::Token(_) => LIGHTGPT_OK,
        })
    })
}

const NOTHING: lightgpt_event = lightgpt_event {
    struct_size: size_of::<lightgpt_event>() as u32,
    kind: LIGHTGPT_EVENT_NONE,
    token: 0,
    finish: 0,
    position: 0,
    done: 0,
    total: 0,
    text: ptr::null(),
    text_bytes: 0,
    log_probability: 0.0,
    top: ptr::null(),
    top_len: 0,
};

/// `event` in a session that has `tokens` tokens now.
fn c_event(event: &Event<'_>, tokens: usize) -> lightgpt_event {
    let base = lightgpt_event {
        text: event.text.as_ptr().cast(),
        text_bytes: event.text.len() as u64,
        ..NOTHING
    };
    match event.step {
        Step::Pending => NOTHING,
        Step::Prefill { done, total } => lightgpt_event {
            kind: LIGHTGPT_EVENT_PROGRESS,
            done: done as u64,
            total: total as u64,
            ..NOTHING
        },
        Step::Token(token) => lightgpt_event {
            kind: LIGHTGPT_EVENT_TOKEN,
            token,
            position: tokens as u64 - 1,
            log_probability: event.log_probability.unwrap_or(0.0),
            top: event.top.as_ptr().cast(),
            top_len: event.top.len() as u64,
            ..base
        },
        Step::Finished(finish) => lightgpt_event {
            kind: LIGHTGPT_EVENT_FINISHED,
            finish: finish_number(finish),
            ..base
        },
    }
}

pub(super) fn finish_number(finish: Finish) -> u32 {
    match finish {
        Finish::End => LIGHTGPT_FINISH_END,
        Finish::Length => LIGHTGPT_FINISH_LENGTH,
        Finish::ContextFull => LIGHTGPT_FINISH_CONTEXT_FULL,
        Finish::StopString => LIGHTGPT_FINISH_STOP_STRING,
        Finish::Stopped => LIGHTGPT_FINISH_STOPPED,
    }
}

/// # Safety
/// What `given` points to is as its members' comments ask.
pub(super) unsafe fn generate_options(
    given: &lightgpt_generate_options,
) -> Result<GenerateOptions> {
    let known = LIGHTGPT_GENERATE_IGNORE_END | LIGHTGPT_GENERATE_LOG_PROBABILITIES;
    let flags = flags(given.flags, known, "options.flags")?;
    let sampler = if given.sampler.is_null() {
        Sampler::new(&SamplerOptions {
            temperature: 0.0,
            ..SamplerOptions::default()
        })?
    } else {
        enter(given.sampler)?.with(|sampler| Ok(sampler.clone()))?
    };
    Ok(GenerateOptions {
        // SAFETY: promised by the caller.
        stops: unsafe { stops(given) }?,
        sampler,
        tokens_max: size(given.tokens_max, "options.tokens_max")?,
        ignore_end: flags & LIGHTGPT_GENERATE_IGNORE_END != 0,
        log_probabilities: flags & LIGHTGPT_GENERATE_LOG_PROBABILITIES != 0,
        top_log_probabilities: given.top_len as usize,
    })
}

/// The stop strings, copied once their number and lengths are known to be allowed.
///
/// # Safety
/// `given.stops` is as its comment asks.
unsafe fn stops(given: &lightgpt_generate_options) -> Result<Vec<String>> {
    const PLACE: &str = "options.stops";
    let len = size(given.stops_len, "options.stops_len")?;
    if len > STOPS_MAX {
        let message = format!("expected at most {STOPS_MAX} strings, found {len}");
        return Err(invalid("options.stops_len", message));
    }
    // SAFETY: promised by the caller.
    let stops = unsafe { input(given.stops, len, PLACE) }?;
    let copy = |&stop: &*const c_char| {
        // SAFETY: as above.
        let stop = unsafe { name(stop, PLACE) }?;
        if stop.len() > STOP_BYTES_MAX {
            let message = format!(
                "expected at most {STOP_BYTES_MAX} bytes, found {}",
                stop.len()
            );
            return Err(invalid(PLACE, message));
        }
        Ok(stop.to_owned())
    };
    stops.iter().map(copy).collect()
}
