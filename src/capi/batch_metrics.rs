//! What a batch queue tells of itself in C: as a struct, and as text for Prometheus.

use std::ffi::c_char;
use std::mem::offset_of;

use super::arguments::Buffer;
use super::batch_queue::{QueueObject, lightgpt_batch_queue};
use super::guard::guard;
use super::objects::{enter, text_of};
use super::options::{OutStruct, Struct};
use super::status::LIGHTGPT_OK;
use crate::engine::{BUCKETS, Metrics};
use crate::error::{Code, Error};

/// Numbers of a histogram of times.
pub const LIGHTGPT_TIME_BUCKETS: u32 = 20;

/// What a queue has done and holds. Times are in microseconds.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_batch_metrics {
    /// Set by the caller: sizeof(lightgpt_batch_metrics).
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Requests that wait.
    pub waiting: u64,
    /// Requests that run.
    pub running: u64,
    /// Requests that were taken.
    pub submitted: u64,
    /// Requests that were answered with LIGHTGPT_BUSY.
    pub refused: u64,
    /// Requests whose text is complete, or whose callback stopped it.
    pub finished: u64,
    /// Requests that were cancelled.
    pub cancelled: u64,
    /// Requests whose deadline has passed.
    pub expired: u64,
    /// Requests that ended with an error.
    pub failed: u64,
    /// Tokens of the prompts of requests that ran.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Tokens that were evaluated once more, because their keys and values had been given up.
    pub repeated_tokens: u64,
    /// How often that happened to a request.
    pub preemptions: u64,
    /// Passes.
    pub passes: u64,
    /// Tokens evaluated in all passes.
    pub rows: u64,
    /// The most tokens of a pass.
    pub rows_max: u64,
    /// Time at work.
    pub busy_us: u64,
    /// Sum of the times from submission to the first run, of requests that ran.
    pub queue_us: u64,
    /// Sum of the times from submission to the first token.
    pub first_token_us: u64,
    /// Requests that have a first token.
    pub first_tokens: u64,
    /// Sum of the times between two tokens of a request.
    pub token_us: u64,
    /// The longest of them.
    pub token_max_us: u64,
    /// Bytes of keys and values of the requests; a page that several share counts for each.
    pub kv_bytes: u64,
    /// How often a request began to run with tokens that others had evaluated before.
    pub reuses: u64,
    /// Tokens that needed not be evaluated therefore.
    pub reused_tokens: u64,
    /// Requests that had tokens in a pass, of all passes.
    pub sequences: u64,
    /// Requests that may run at a time.
    pub sequences_max: u64,
    /// Requests up to which others are let in now: fewer than `sequences_max` while memory is short.
    pub sequences_allowed: u64,
    /// Bytes of weights used in place: of the mapped file, or of memory of the host.
    pub weights_mapped: u64,
    /// Large memory (see lightgpt_allocator) of the model, its sessions and its queues in bytes:
    /// weights that were read.
    pub memory_weights: u64,
    /// Keys and values, what the model keeps for sessions to come included.
    pub memory_kv: u64,
    /// Activations.
    pub memory_scratch: u64,
    /// Logits, sampling and tables.
    pub memory_misc: u64,
    /// Prompts of which a beginning was looked for, as in lightgpt_prefix_statistics.
    pub prefix_lookups: u64,
    /// Those of which a part was found.
    pub prefix_hits: u64,
    /// Bytes of keys and values that are kept for that.
    pub prefix_bytes: u64,
    /// The most that are kept now: fewer while memory is short.
    pub prefix_bytes_allowed: u64,
    /// How short memory is: 0 there is enough; 1 it is short: half of the requests run at a time, and
    /// half of the keys and values are kept; 2 it is very short: one runs, and none are kept.
    pub pressure: u64,
    /// How often it has become shorter.
    pub pressure_events: u64,
    /// Tokens generated in a second at work.
    pub tokens_per_second: f64,
    /// Mean share of `sequences_max` in a pass, from 0 to 1.
    pub occupancy: f64,
    /// `prefix_hits` of `prefix_lookups`, from 0 to 1.
    pub prefix_hit_rate: f64,
    /// Bytes that the weights would have as 16-bit floats, for each that they have.
    pub compression: f64,
    /// How many requests waited how long for their first run. The first LIGHTGPT_TIME_BUCKETS - 1
    /// numbers are of times of up to 100, 200, 500, 1,000, 2,000, 5,000 and so on to 100,000,000
    /// microseconds, each without those before it; the last one is of longer ones.
    pub queue_times: [u64; 20],
    /// The same for the times from submission to the first token.
    pub first_token_times: [u64; 20],
    /// The same for the times between two tokens of a request.
    pub token_times: [u64; 20],
}

const _: () = assert!(LIGHTGPT_TIME_BUCKETS as usize == BUCKETS && BUCKETS == 20);

// SAFETY: as the trait asks.
unsafe impl Struct for lightgpt_batch_metrics {
    const SIZE_MIN: usize = offset_of!(Self, kv_bytes) + size_of::<u64>();
}

/// Says what the queue has done and holds.
///
/// metrics: not NULL, initialised with LIGHTGPT_BATCH_METRICS_INIT. Any thread at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_batch_queue_metrics(
    queue: *const lightgpt_batch_queue,
    metrics: *mut lightgpt_batch_metrics,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a struct as large as it says.
        let out = unsafe { OutStruct::new(metrics, "metrics") }?;
        out.set(&metrics_of(&enter(queue)?.queue.metrics()));
        Ok(LIGHTGPT_OK)
    })
}

/// Gives the same as text for Prometheus, in the format that its servers scrape (version 0.0.4;
/// times in seconds, all names begin with "lightgpt_"). Texts of two queues have the same names:
/// serve them as two targets, or add a label of your own.
///
/// The size may change from call to call: a buffer of 16 KiB has room for it. Any thread at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_batch_queue_metrics_text(
    queue: *const lightgpt_batch_queue,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
) -> i32 {
    let fill = |queue: &QueueObject, out: &Buffer<u8>| {
        let mut text = String::new();
        let written = queue.queue.metrics().write_prometheus(&mut text);
        written.map_err(|_| Error::new(Code::Internal, "metrics", "a string took no text"))?;
        out.fill(text.as_bytes())
    };
    // SAFETY: the header asks for a buffer of `cap` bytes and a place for its size.
    unsafe { text_of(queue, buf, cap, needed, fill) }
}

fn metrics_of(now: &Metrics) -> lightgpt_batch_metrics {
    lightgpt_batch_metrics {
        struct_size: 0,
        reserved: 0,
        waiting: now.waiting,
        running: now.running,
        submitted: now.submitted,
        refused: now.refused,
        finished: now.finished,
        cancelled: now.cancelled,
        expired: now.expired,
        failed: now.failed,
        prompt_tokens: now.prompt_tokens,
        generated_tokens: now.generated_tokens,
        repeated_tokens: now.repeated_tokens,
        preemptions: now.preemptions,
        passes: now.passes,
        rows: now.rows,
        rows_max: now.rows_max,
        busy_us: now.busy_us,
        queue_us: now.queue_us,
        first_token_us: now.first_token_us,
        first_tokens: now.first_tokens,
        token_us: now.token_us,
        token_max_us: now.token_max_us,
        kv_bytes: now.kv_bytes,
        reuses: now.reuses,
        reused_tokens: now.reused_tokens,
        sequences: now.sequences,
        sequences_max: now.sequences_max,
        sequences_allowed: now.sequences_allowed,
        weights_mapped: now.weights_mapped,
        memory_weights: now.weights_copied,
        memory_kv: now.memory_kv,
        memory_scratch: now.memory_scratch,
        memory_misc: now.memory_misc,
        prefix_lookups: now.prefix.lookups,
        prefix_hits: now.prefix.hits,
        prefix_bytes: now.prefix.bytes,
        prefix_bytes_allowed: now.prefix_bytes_allowed,
        pressure: now.pressure,
        pressure_events: now.pressure_events,
        tokens_per_second: now.tokens_per_second(),
        occupancy: now.occupancy(),
        prefix_hit_rate: now.prefix_hit_rate(),
        compression: now.compression(),
        queue_times: now.queue_times.counts,
        first_token_times: now.first_token_times.counts,
        token_times: now.token_times.counts,
    }
}
