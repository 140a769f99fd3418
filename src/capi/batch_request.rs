//! Requests of a batch queue in C: submit, cancel, and hear of them by callback or by polling.

use std::ffi::{c_char, c_void};
use std::mem::offset_of;
use std::ptr;
use std::sync::{Arc, TryLockError};
use std::time::Duration;

use super::arguments::{Out, flags, input, invalid, size, text};
use super::batch_queue::{end_of, lightgpt_batch_queue};
use super::generate::{
    LIGHTGPT_EVENT_FINISHED, LIGHTGPT_EVENT_NONE, LIGHTGPT_EVENT_PROGRESS, LIGHTGPT_EVENT_TOKEN,
    finish_number, generate_options, lightgpt_generate_options, lightgpt_token_score,
};
use super::guard::{callback, guard};
use super::message::Message;
use super::model::{LIGHTGPT_CONTINUE, LIGHTGPT_STOP};
use super::objects::enter;
use super::options::{OutStruct, Struct, UserData, lightgpt_destroy_fn, read};
use super::session::LIGHTGPT_SESSION_UNSHARED;
use super::status::{
    LIGHTGPT_CANCELLED, LIGHTGPT_DONE, LIGHTGPT_OK, LIGHTGPT_PENDING, LIGHTGPT_STOPPED, of,
};
use super::tokenizer::encode_options;
use crate::engine::{Event, Happened, Listener, Outcome, Poll, Polled, Queue, Request, Timings};
use crate::error::{Code, Error, Result};
use crate::session::{Action, Finish};

/// The deadline of a request of a batch queue has passed.
pub const LIGHTGPT_FINISH_DEADLINE: u32 = 6;

/// What a request has done and waited for. Times are in microseconds.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_batch_timings {
    /// sizeof(lightgpt_batch_timings) of the library.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Tokens that were evaluated once more, because their keys and values had been given up.
    pub repeated_tokens: u64,
    /// How often that happened.
    pub preemptions: u64,
    /// From the submission to the first run.
    pub queue_us: u64,
    /// From the submission to the first token.
    pub first_token_us: u64,
    /// The longest time between two tokens.
    pub token_max_us: u64,
    /// From the submission to the end.
    pub total_us: u64,
    /// Tokens that needed not be evaluated, because others had evaluated them before.
    pub reused_tokens: u64,
}

/// What happened to a request. Members that the kind does not name are 0. Later versions may append
/// members.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_batch_event {
    /// For lightgpt_batch_queue_poll set by the caller: sizeof(lightgpt_batch_event).
    pub struct_size: u32,
    /// One of LIGHTGPT_EVENT_.
    pub kind: u32,
    /// The request.
    pub request: u64,
    /// TOKEN: the token.
    pub token: u32,
    /// FINISHED: one of LIGHTGPT_FINISH_; 0 if the status is below 0.
    pub finish: u32,
    /// FINISHED: LIGHTGPT_DONE if the text is complete, LIGHTGPT_STOPPED if the callback or the
    /// deadline ended it, LIGHTGPT_CANCELLED, or the error that ended this request alone.
    pub status: i32,
    /// Zero.
    pub reserved: u32,
    /// TOKEN: the token's place in the request's text, its prompt included.
    pub position: u64,
    /// PROGRESS: tokens of the prompt that are evaluated.
    pub done: u64,
    /// PROGRESS: tokens of the prompt.
    pub total: u64,
    /// TOKEN and FINISHED: text that became certain, as in lightgpt_event: the texts of all events
    /// of a request, one behind the other, are its text.
    pub text: *const c_char,
    /// Bytes at `text`.
    pub text_bytes: u64,
    /// TOKEN, with LIGHTGPT_GENERATE_LOG_PROBABILITIES: as in lightgpt_event.
    pub log_probability: f64,
    /// TOKEN, with top_len in the options: as in lightgpt_event.
    pub top: *const lightgpt_token_score,
    /// Tokens at `top`.
    pub top_len: u64,
    /// FINISHED: what the request has done; else NULL. Valid as long as `text`.
    pub timings: *const lightgpt_batch_timings,
    /// FINISHED: what an error status is about, ending in a zero byte; "" without one. Else NULL.
    /// Valid as long as `text`.
    pub message: *const c_char,
}

// SAFETY: as the trait asks; a NULL pointer is all zeros.
unsafe impl Struct for lightgpt_batch_event {
    const SIZE_MIN: usize = offset_of!(Self, message) + size_of::<*const c_char>();
}

/// Takes what happens to a request, and answers LIGHTGPT_CONTINUE, LIGHTGPT_STOP (end it here) or
/// LIGHTGPT_CANCEL; other answers count as LIGHTGPT_CANCEL. LIGHTGPT_EVENT_FINISHED is the last
/// event, comes exactly once, and its answer does not count.
///
/// It runs on the queue's own thread, or in lightgpt_batch_queue_step; all requests wait meanwhile.
/// It may submit, cancel, pause, resume and ask the queue; stepping or freeing it is LIGHTGPT_BUSY.
pub type lightgpt_batch_event_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, event: *const lightgpt_batch_event) -> i32>;

/// A prompt and how to go on from it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_batch_request {
    /// Set by LIGHTGPT_BATCH_REQUEST_INIT.
    pub struct_size: u32,
    /// For `text`: LIGHTGPT_TEXT_ADD_SPECIAL and LIGHTGPT_TEXT_PARSE_SPECIAL bits.
    pub flags: u32,
    /// The prompt as `text_bytes` bytes of UTF-8; or NULL, and tokens.
    pub text: *const c_char,
    /// Bytes at `text`.
    pub text_bytes: u64,
    /// The prompt as `tokens_len` tokens; or NULL, and text.
    pub tokens: *const u32,
    /// Tokens at `tokens`.
    pub tokens_len: u64,
    /// How to generate; NULL for the defaults. Read during the call only; a sampler is copied.
    pub generate: *const lightgpt_generate_options,
    /// From -4 to 4: each priority gets twice the share of the one below it.
    pub priority: i32,
    /// LIGHTGPT_SESSION_UNSHARED, or 0: whether it uses what other requests and sessions of the model
    /// have evaluated, and keeps for them what it evaluates.
    pub sharing: u32,
    /// Any number: those of a priority share it evenly.
    pub submitter: u64,
    /// Microseconds from now after which the request ends with LIGHTGPT_FINISH_DEADLINE; 0: none.
    pub deadline_us: u64,
    /// Called with all that happens; NULL: lightgpt_batch_queue_poll gives it.
    pub event: lightgpt_batch_event_fn,
    /// Handed to `event`.
    pub user_data: *mut c_void,
    /// Called with `user_data` when the request is over; NULL: nothing to do.
    pub destroy: lightgpt_destroy_fn,
    /// Share only with requests and sessions of the same salt, see lightgpt_session_options.
    pub salt: u64,
}

// SAFETY: as the trait asks; NULL pointers and functions are all zeros.
unsafe impl Struct for lightgpt_batch_request {
    const SIZE_MIN: usize = offset_of!(Self, destroy) + size_of::<lightgpt_destroy_fn>();
}

/// Hands a request to the queue.
///
/// request: not NULL; read during the call only. id: not NULL; gets the request's number, which
/// rises from 1. Its first event may come before this call returns. `user_data` becomes the
/// queue's only if the call succeeds. Any thread at any time, also from a callback.
/// Errors: LIGHTGPT_BUSY (as many requests are there as may be, the queue takes none, or the sampler
/// is in use), LIGHTGPT_INVALID_ARGUMENT (no prompt, a token outside the vocabulary, a priority out
/// of range), LIGHTGPT_CONTEXT_FULL (the prompt alone has more tokens than a request may come to),
/// LIGHTGPT_MEMORY_CAP (it does not fit into memory_max, even alone), LIGHTGPT_UNSUPPORTED (text
/// without a tokenizer), LIGHTGPT_OUT_OF_MEMORY, LIGHTGPT_POISONED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_batch_queue_submit(
    queue: *const lightgpt_batch_queue,
    request: *const lightgpt_batch_request,
    id: *mut u64,
) -> i32 {
    guard(|| {
        if request.is_null() {
            return Err(invalid("request", "expected a pointer, found NULL"));
        }
        // SAFETY: the header asks for a place for a number, and a struct as large as it says.
        let (out, given) = unsafe { (Out::new(id, "id")?, read(request, "request")?) };
        let entered = enter(queue)?;
        let data = Arc::new(UserData::new(given.user_data));
        // SAFETY: the header asks for what the comments of the members say.
        let request = unsafe { engine_request(&entered.queue, &given, &data) }?;
        let id = entered.queue.submit(request)?;
        // It may be over already; then this is the last to know the data.
        data.keep(given.destroy);
        out.set(id);
        Ok(LIGHTGPT_OK)
    })
}

/// Ends a request soon: its last event has the status LIGHTGPT_CANCELLED. The others go on.
///
/// Any thread at any time, also from a callback. Errors: LIGHTGPT_NOT_FOUND (it is over, or never
/// was).
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_batch_queue_cancel(
    queue: *const lightgpt_batch_queue,
    request: u64,
) -> i32 {
    guard(|| {
        enter(queue)?.queue.cancel(request)?;
        Ok(LIGHTGPT_OK)
    })
}

/// Gives the next event of the requests without a callback, and waits at most `timeout_us`
/// microseconds for one, but not in a callback.
///
/// Answers LIGHTGPT_OK with an event, LIGHTGPT_PENDING if none came in time, LIGHTGPT_DONE if no
/// such request is left. What the event points to is valid until the next poll of the queue.
/// event: not NULL, initialised with LIGHTGPT_BATCH_EVENT_INIT. Any thread, one at a time.
/// Errors: LIGHTGPT_BUSY (another thread polls).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_batch_queue_poll(
    queue: *const lightgpt_batch_queue,
    timeout_us: u64,
    event: *mut lightgpt_batch_event,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a struct as large as it says.
        let out = unsafe { OutStruct::new(event, "event") }?;
        let entered = enter(queue)?;
        let mut last = match entered.polled.try_lock() {
            Ok(last) => last,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(
                    Code::Busy,
                    "batch_queue",
                    "another thread polls",
                ));
            }
        };
        let LastPolled { polled, about } = &mut *last;
        match entered.queue.poll(end_of(timeout_us), polled) {
            Poll::Event => {}
            Poll::Nothing => return Ok(LIGHTGPT_PENDING),
            Poll::Over => return Ok(LIGHTGPT_DONE),
        }
        if let Some(event) = polled.event() {
            out.set(&about.event(&event));
        }
        Ok(LIGHTGPT_OK)
    })
}

/// The last event that was polled, and what it points to.
#[derive(Default)]
pub(super) struct LastPolled {
    polled: Polled,
    about: About,
}

/// What the last event of a request points to.
struct About {
    timings: lightgpt_batch_timings,
    message: Message,
}

impl Default for About {
    fn default() -> Self {
        Self {
            timings: c_timings(&Timings::default()),
            message: Message::new(),
        }
    }
}

const NOTHING: lightgpt_batch_event = lightgpt_batch_event {
    struct_size: size_of::<lightgpt_batch_event>() as u32,
    kind: LIGHTGPT_EVENT_NONE,
    request: 0,
    token: 0,
    finish: 0,
    status: LIGHTGPT_OK,
    reserved: 0,
    position: 0,
    done: 0,
    total: 0,
    text: ptr::null(),
    text_bytes: 0,
    log_probability: 0.0,
    top: ptr::null(),
    top_len: 0,
    timings: ptr::null(),
    message: ptr::null(),
};

impl About {
    /// The event, which may point into this.
    fn event(&mut self, event: &Event<'_>) -> lightgpt_batch_event {
        let nothing = lightgpt_batch_event {
            request: event.request,
            ..NOTHING
        };
        let base = lightgpt_batch_event {
            text: event.text.as_ptr().cast(),
            text_bytes: event.text.len() as u64,
            ..nothing
        };
        match event.happened {
            Happened::Prefill { done, total } => lightgpt_batch_event {
                kind: LIGHTGPT_EVENT_PROGRESS,
                done: done as u64,
                total: total as u64,
                ..nothing
            },
            Happened::Token { token, position } => lightgpt_batch_event {
                kind: LIGHTGPT_EVENT_TOKEN,
                token,
                position: position as u64,
                log_probability: event.log_probability.unwrap_or(0.0),
                top: event.top.as_ptr().cast(),
                top_len: event.top.len() as u64,
                ..base
            },
            Happened::Ended { outcome, timings } => {
                self.timings = c_timings(timings);
                self.message.set("");
                let (status, finish) = match outcome {
                    Outcome::Finished(Finish::Stopped) => {
                        (LIGHTGPT_STOPPED, finish_number(Finish::Stopped))
                    }
                    Outcome::Finished(finish) => (LIGHTGPT_DONE, finish_number(*finish)),
                    Outcome::Expired => (LIGHTGPT_STOPPED, LIGHTGPT_FINISH_DEADLINE),
                    Outcome::Cancelled => (LIGHTGPT_CANCELLED, 0),
                    Outcome::Failed(error) => {
                        self.message.set(error);
                        (of(error.code()), 0)
                    }
                };
                lightgpt_batch_event {
                    kind: LIGHTGPT_EVENT_FINISHED,
                    status,
                    finish,
                    timings: &raw const self.timings,
                    message: self.message.as_ptr(),
                    ..base
                }
            }
        }
    }
}

fn c_timings(timings: &Timings) -> lightgpt_batch_timings {
    lightgpt_batch_timings {
        struct_size: size_of::<lightgpt_batch_timings>() as u32,
        reserved: 0,
        prompt_tokens: timings.prompt_tokens,
        generated_tokens: timings.generated_tokens,
        repeated_tokens: timings.repeated_tokens,
        preemptions: timings.preemptions,
        queue_us: timings.queue_us,
        first_token_us: timings.first_token_us,
        token_max_us: timings.token_max_us,
        total_us: timings.total_us,
        reused_tokens: timings.reused_tokens,
    }
}

/// # Safety
/// What `given` points to is as its members' comments ask.
unsafe fn engine_request(
    queue: &Queue,
    given: &lightgpt_batch_request,
    data: &Arc<UserData>,
) -> Result<Request> {
    if !given.text.is_null() && !given.tokens.is_null() {
        return Err(invalid("request", "expected text or tokens, found both"));
    }
    let encode = encode_options(given.flags)?;
    // SAFETY: promised by the caller.
    let generate = unsafe { generate_options(&read(given.generate, "generate")?) }?;
    let tokens = if given.text.is_null() {
        let len = size(given.tokens_len, "request.tokens_len")?;
        // SAFETY: promised by the caller.
        unsafe { input(given.tokens, len, "request.tokens") }?.to_vec()
    } else {
        let len = size(given.text_bytes, "request.text_bytes")?;
        // SAFETY: promised by the caller.
        let text = unsafe { text(given.text, len, "request.text") }?;
        queue.tokenize(text, encode)?
    };
    if given.event.is_none() && given.destroy.is_some() {
        return Err(invalid("request.destroy", "it comes without event"));
    }
    let data = data.clone();
    let listener = given.event.map(|function| {
        Listener(Box::new(move |event| {
            let mut about = About::default();
            let event = about.event(event);
            // SAFETY: the header describes this call to who wrote the function.
            match callback(|| unsafe { function(data.pointer, &raw const event) }) {
                LIGHTGPT_CONTINUE => Action::Continue,
                LIGHTGPT_STOP => Action::Stop,
                _ => Action::Cancel,
            }
        }))
    });
    Ok(Request {
        priority: given.priority,
        submitter: given.submitter,
        deadline: (given.deadline_us > 0).then(|| Duration::from_micros(given.deadline_us)),
        unshared: flags(given.sharing, LIGHTGPT_SESSION_UNSHARED, "request.sharing")? != 0,
        salt: given.salt,
        listener,
        ..Request::new(tokens, generate)
    })
}
