//! The batch queue in C: make, let work, rest, free. Requests are in `batch_request`.

use std::mem::offset_of;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::arguments::{Out, flags, size};
use super::batch_request::LastPolled;
use super::guard::{guard, in_callback};
use super::handles::Kind;
use super::model::lightgpt_model;
use super::objects::{Handle, Object, enter, free, insert};
use super::options::{Struct, read};
use super::session::{capped, kv_format};
use super::status::{LIGHTGPT_DONE, LIGHTGPT_OK, LIGHTGPT_PENDING};
use super::team::{lightgpt_team, team_or_own};
use crate::engine::{Progress, Queue, QueueOptions};
use crate::error::{Code, Error, Result};
use crate::model::Model;
use crate::team::spawn;

/// Requests that one model works on together: each pass evaluates the next token of all that run,
/// and parts of prompts beside them. What a request gets is, to the bit, what a session of the same
/// options would give it alone.
///
/// Any thread may use it at any time. Someone has to let it work: its own thread, with
/// LIGHTGPT_BATCH_QUEUE_WORKER, or the host with lightgpt_batch_queue_step.
#[derive(Debug)]
pub struct lightgpt_batch_queue {
    _opaque: (),
}

/// The queue works on a thread of its own, which sleeps while there is nothing to do. Callbacks run
/// on it.
pub const LIGHTGPT_BATCH_QUEUE_WORKER: u32 = 1 << 0;

/// How to make a queue; all zero: the library chooses, and the host lets it work.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_batch_queue_options {
    /// Set by LIGHTGPT_BATCH_QUEUE_OPTIONS_INIT.
    pub struct_size: u32,
    /// LIGHTGPT_BATCH_QUEUE_ bits.
    pub flags: u32,
    /// One of LIGHTGPT_KV_.
    pub kv_format: u32,
    /// Requests that run at a time, the others wait; at most 1024; 0: 16.
    pub sequences_max: u32,
    /// Tokens that a request may come to with its prompt; 0: as many as the model was made for,
    /// which is also the most.
    pub context: u64,
    /// Prompt tokens of a pass; 0: the library chooses. More make prompts fast, fewer keep the time
    /// between tokens of others short. Changes no result.
    pub chunk: u64,
    /// The most bytes that keys and values of all requests may take; 0: what the model was opened
    /// with. When they run out, the youngest request of the lowest priority gives its own up and
    /// makes them again later, with the same result.
    pub memory_max: u64,
    /// Requests that may be there: running, waiting, or with an end that nobody has polled. At most
    /// 1048576; 0: 1024.
    pub requests_max: u64,
    /// Microseconds that the first request waits for company when nothing runs, unless as many are
    /// there as may run. A step without a budget does not wait.
    pub window_us: u64,
}

// SAFETY: as the trait asks.
unsafe impl Struct for lightgpt_batch_queue_options {
    const SIZE_MIN: usize = offset_of!(Self, window_us) + size_of::<u64>();
}

pub(super) struct QueueObject {
    pub queue: Arc<Queue>,
    worker: Option<JoinHandle<()>>,
    /// What [`lightgpt_batch_queue_poll`](super::lightgpt_batch_queue_poll) gave last.
    pub polled: Mutex<LastPolled>,
}

impl Object for QueueObject {
    fn cancel(&self) {
        self.queue.close();
    }
}

impl Drop for QueueObject {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(worker) = self.worker.take() {
            // The guard around its work has caught what it might throw.
            let _ = worker.join();
        }
    }
}

impl Handle for lightgpt_batch_queue {
    type Object = QueueObject;
    const KIND: Kind = Kind::BatchQueue;
}

/// Makes a queue.
///
/// team: the threads to compute with; NULL: those that sessions of the model share by default.
/// options: NULL for the defaults. queue: not NULL; gets a handle that lightgpt_batch_queue_free
/// gives back. Model and team may be freed before the queue. Any thread.
/// Errors: LIGHTGPT_OUT_OF_MEMORY, LIGHTGPT_MEMORY_CAP, LIGHTGPT_INVALID_ARGUMENT (an option out of
/// range), LIGHTGPT_UNSUPPORTED (the model was opened with LIGHTGPT_OPEN_INSPECT).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_batch_queue_new(
    model: *const lightgpt_model,
    team: *const lightgpt_team,
    options: *const lightgpt_batch_queue_options,
    queue: *mut *mut lightgpt_batch_queue,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a place for a handle, and for options as large as they say.
        let (out, given) = unsafe { (Out::new(queue, "queue")?, read(options, "options")?) };
        let works = flags(given.flags, LIGHTGPT_BATCH_QUEUE_WORKER, "options.flags")? != 0;
        let model = enter(model)?;
        let options = queue_options(&given, &model.model)?;
        let team = team_or_own(team, &model.model)?;
        let queue = Arc::new(Queue::new(model.model.clone(), team, &options)?);
        let worker = works.then(|| start(queue.clone())).transpose()?;
        out.set(insert(QueueObject {
            queue,
            worker,
            polled: Mutex::default(),
        })?);
        Ok(LIGHTGPT_OK)
    })
}

/// Lets a queue without a worker work for about `budget_us` microseconds; 0: until no request is
/// there. It may pause inside a token, and goes on where it stopped. Callbacks run on this thread.
///
/// Answers LIGHTGPT_PENDING when there is more to do (also while the queue rests or waits for
/// company), LIGHTGPT_DONE when no request is left.
/// Errors: LIGHTGPT_BUSY (the queue has a worker, another thread lets it work, or this is one of its
/// callbacks), LIGHTGPT_POISONED, LIGHTGPT_INTERNAL (a defect, which has ended all requests).
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_batch_queue_step(
    queue: *const lightgpt_batch_queue,
    budget_us: u64,
) -> i32 {
    guard(|| {
        let entered = enter(queue)?;
        if entered.worker.is_some() {
            let message = "it works on a thread of its own";
            return Err(Error::new(Code::Busy, "batch_queue", message));
        }
        let budget = (budget_us > 0).then(|| Duration::from_micros(budget_us));
        Ok(match entered.queue.step(budget)? {
            Progress::Pending => LIGHTGPT_PENDING,
            Progress::Idle => LIGHTGPT_DONE,
        })
    })
}

/// Lets the queue rest, from the next place where it can pause. Requests are still taken, cancelled,
/// and end at their deadlines.
///
/// Any thread at any time, also from a callback.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_batch_queue_pause(queue: *const lightgpt_batch_queue) -> i32 {
    guard(|| {
        enter(queue)?.queue.pause();
        Ok(LIGHTGPT_OK)
    })
}

/// Ends what lightgpt_batch_queue_pause and lightgpt_batch_queue_drain began.
///
/// Any thread at any time, also from a callback.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_batch_queue_resume(queue: *const lightgpt_batch_queue) -> i32 {
    guard(|| {
        enter(queue)?.queue.resume();
        Ok(LIGHTGPT_OK)
    })
}

/// Takes no more requests, until lightgpt_batch_queue_resume: submitting answers LIGHTGPT_BUSY.
/// Those that are there go on; waits for their end, for at most `timeout_us` microseconds, but not
/// in a callback.
///
/// Answers LIGHTGPT_DONE when no request is left, else LIGHTGPT_PENDING. A queue without a worker
/// needs another thread that lets it work meanwhile. Any thread at any time.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_batch_queue_drain(
    queue: *const lightgpt_batch_queue,
    timeout_us: u64,
) -> i32 {
    guard(|| {
        Ok(match enter(queue)?.queue.drain(end_of(timeout_us)) {
            true => LIGHTGPT_DONE,
            false => LIGHTGPT_PENDING,
        })
    })
}

/// Gives a queue back. Requests that are there are cancelled, and their callbacks hear it before
/// this call ends; its thread is joined, and calls on other threads are waited for. In a callback
/// that is LIGHTGPT_BUSY, if the queue has a thread or is in a call.
///
/// NULL is fine. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_batch_queue_free(queue: *mut lightgpt_batch_queue) -> i32 {
    if queue.is_null() || !in_callback() {
        return free(queue);
    }
    guard(|| {
        let works = enter(queue)?.worker.is_some();
        if works {
            let message = "its thread cannot be waited for in a callback";
            return Err(Error::new(Code::Busy, "batch_queue", message));
        }
        Ok(free(queue))
    })
}

/// The thread that works.
fn start(queue: Arc<Queue>) -> Result<JoinHandle<()>> {
    spawn("lightgpt-queue", move || {
        // Requests have been told what went wrong, and who calls is told again.
        guard(|| queue.serve().map(|()| LIGHTGPT_OK));
    })
}

/// When a wait of so many microseconds ends; `None`: never. In a callback nothing waits.
pub(super) fn end_of(timeout_us: u64) -> Option<Instant> {
    let timeout_us = if in_callback() { 0 } else { timeout_us };
    Instant::now().checked_add(Duration::from_micros(timeout_us))
}

fn queue_options(given: &lightgpt_batch_queue_options, model: &Model) -> Result<QueueOptions> {
    Ok(QueueOptions {
        context: size(given.context, "options.context")?,
        kv: kv_format(given.kv_format)?.unwrap_or_default(),
        chunk: size(given.chunk, "options.chunk")?,
        sequences: given.sequences_max as usize,
        requests: size(given.requests_max, "options.requests_max")?,
        budget: capped(model, given.memory_max),
        window: Duration::from_micros(given.window_us),
    })
}
