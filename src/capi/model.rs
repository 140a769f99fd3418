//! The model in C: open, describe, free.

use std::ffi::{c_char, c_void};
use std::fmt;
use std::mem::offset_of;
use std::path::Path;
use std::sync::Arc;

use super::allocator::{budget_of, lightgpt_allocator};
use super::arguments::{Out, flags, input, invalid, name};
use super::embed::pooling_number;
use super::guard::{callback, guard};
use super::handles::Kind;
use super::objects::{Handle, Object, enter, free, insert};
use super::options::{OutStruct, Struct, UserData, lightgpt_destroy_fn, read};
use super::session::{lightgpt_session_options, session_options};
use super::status::LIGHTGPT_OK;
use crate::control::{Control, ProgressFn};
use crate::error::Result;
use crate::gguf::{Borrowed, LoadOptions, Source};
use crate::model::{Model, OpenOptions};
use crate::pressure::Watch;

/// A model: its weights, metadata and tokenizer. Immutable; any number of threads and sessions may
/// use it at once.
#[derive(Debug)]
pub struct lightgpt_model {
    _opaque: (),
}

/// Read the weights into memory instead of mapping the file: the file may change afterwards.
pub const LIGHTGPT_OPEN_COPY: u32 = 1 << 0;
/// Bring the whole file into memory now rather than at its first use.
pub const LIGHTGPT_OPEN_PREFAULT: u32 = 1 << 1;
/// Keep the weights in physical memory (Unix); fails where the limit of locked memory is too low.
pub const LIGHTGPT_OPEN_MLOCK: u32 = 1 << 2;
/// Only look: metadata, tensors and tokenizer of a file whose architecture and tokenizer may be
/// unknown. Such a model has no sessions.
pub const LIGHTGPT_OPEN_INSPECT: u32 = 1 << 3;
/// Sessions and requests share nothing: as if all were made with LIGHTGPT_SESSION_UNSHARED.
pub const LIGHTGPT_OPEN_UNSHARED: u32 = 1 << 4;
/// Pay no attention to how much memory the machine and the control group have left: no cap by
/// default, and nothing shrinks while memory is short.
pub const LIGHTGPT_OPEN_UNWATCHED: u32 = 1 << 5;

/// A callback's answer: go on.
pub const LIGHTGPT_CONTINUE: i32 = 0;
/// A callback's answer: end the turn here and keep what it made.
pub const LIGHTGPT_STOP: i32 = 1;
/// A callback's answer: undo the turn; the call answers LIGHTGPT_CANCELLED.
pub const LIGHTGPT_CANCEL: i32 = 2;

/// The level of a log line that tells what was done.
pub const LIGHTGPT_LOG_INFO: i32 = 1;

/// Reports how far an open came: bytes read (or locked) of all bytes of tensors (0 of 0 while the
/// file's head is parsed). Answers LIGHTGPT_CONTINUE or LIGHTGPT_CANCEL. Called on the thread that called in.
pub type lightgpt_progress_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, done: u64, total: u64) -> i32>;

/// Takes a log line of `text_bytes` bytes of UTF-8, valid during the call. Called on whatever
/// thread is inside a call with the model, perhaps on several at once.
pub type lightgpt_log_fn = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        level: i32,
        text: *const c_char,
        text_bytes: usize,
    ),
>;

/// How to open a model; all zero: map the file, say nothing.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_open_options {
    /// Set by LIGHTGPT_OPEN_OPTIONS_INIT.
    pub struct_size: u32,
    /// LIGHTGPT_OPEN_ bits.
    pub flags: u32,
    /// The most bytes that copied weights, activations, and the sessions without a cap of their own
    /// may take; 0: 80 % of what the machine and the control group allow, as far as is known. A map is
    /// not counted.
    pub memory_max: u64,
    /// Reports progress and may cancel; used during the call only. NULL: none.
    pub progress: lightgpt_progress_fn,
    /// Handed to `progress`.
    pub progress_data: *mut c_void,
    /// Takes log lines for as long as the model lives. NULL: silence.
    pub log: lightgpt_log_fn,
    /// Handed to `log`.
    pub log_data: *mut c_void,
    /// Called with `log_data` when the model has gone. NULL: nothing to do.
    pub log_destroy: lightgpt_destroy_fn,
    /// The most bytes of keys and values that are kept for sessions whose text begins like that of
    /// another one before; 0: a quarter of the weights', at least 256 MiB. They count for
    /// `memory_max`, but give way to everything else.
    pub prefix_bytes_max: u64,
    /// Tokens of a page of keys and values, the unit in which sessions grow and share: 16, 32 or 64; 0:
    /// 64. Small pages waste less at the ends of many short texts, large ones are attended over
    /// faster. Changes no result.
    pub page_tokens: u32,
    /// Zero.
    pub reserved: u32,
    /// Where large memory of the model, its sessions and its queues comes from; read during the call
    /// only. NULL: the system.
    pub allocator: *const lightgpt_allocator,
}

// SAFETY: as the trait asks; NULL pointers and functions are all zeros.
unsafe impl Struct for lightgpt_open_options {
    const SIZE_MIN: usize = offset_of!(Self, log_destroy) + size_of::<lightgpt_destroy_fn>();
    const RESERVED: &'static [usize] = &[offset_of!(Self, reserved)];
}

/// The model generates text; without it is an encoder, see lightgpt_session_embed.
pub const LIGHTGPT_MODEL_GENERATES: u32 = 1 << 0;

/// What a model is. Of one opened with LIGHTGPT_OPEN_INSPECT the members from `layers` to
/// `context` and from `abilities` on are 0.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_model_info {
    /// Set by the caller: sizeof(lightgpt_model_info).
    pub struct_size: u32,
    /// Version of the file format.
    pub gguf_version: u32,
    /// Bytes of all the model's files.
    pub file_bytes: u64,
    /// Number of files: more than 1 for a split model.
    pub files: u64,
    /// Number of metadata keys.
    pub metadata_keys: u64,
    /// Number of tensors.
    pub tensors: u64,
    /// Entries of the vocabulary; 0 without a tokenizer.
    pub vocab: u64,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Transformer layers.
    pub layers: u64,
    /// Width of an activation.
    pub dim: u64,
    /// Attention heads.
    pub heads: u64,
    /// Heads of keys and values.
    pub kv_heads: u64,
    /// Width of a head.
    pub head_dim: u64,
    /// Width inside the feed-forward part.
    pub hidden: u64,
    /// Tokens that the model was made for.
    pub context: u64,
    /// The architecture's name in the file, cut to fit, ending in a zero byte.
    pub architecture: [c_char; 32],
    /// The model's name in the file, cut to fit, ending in a zero byte; may be "".
    pub name: [c_char; 96],
    /// LIGHTGPT_MODEL_ bits.
    pub abilities: u32,
    /// What its embeddings are made by unless options say otherwise: one of LIGHTGPT_POOLING_.
    pub pooling: u32,
    /// Numbers of an embedding.
    pub embedding: u64,
    /// Scores that lightgpt_session_rerank gives; 0: it cannot.
    pub scores: u64,
}

// SAFETY: as the trait asks.
unsafe impl Struct for lightgpt_model_info {
    const SIZE_MIN: usize = offset_of!(Self, name) + size_of::<[c_char; 96]>();
}

/// Memory in bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_memory {
    /// Set by the caller: sizeof(lightgpt_memory).
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Weights used in place: shared by all processes that map the file.
    pub weights_mapped: u64,
    /// Weights copied.
    pub weights_copied: u64,
    /// Keys and values of one session.
    pub kv: u64,
    /// Activations of a pass; sessions that do not run at once share them.
    pub scratch: u64,
    /// A session's logits.
    pub logits: u64,
}

// SAFETY: as the trait asks.
unsafe impl Struct for lightgpt_memory {
    const SIZE_MIN: usize = offset_of!(Self, logits) + size_of::<u64>();
}

pub(super) struct ModelObject {
    pub model: Arc<Model>,
    log: Option<Log>,
}

struct Log {
    function: unsafe extern "C" fn(*mut c_void, i32, *const c_char, usize),
    data: UserData,
}

impl Object for ModelObject {}

impl Handle for lightgpt_model {
    type Object = ModelObject;
    const KIND: Kind = Kind::Model;
}

impl ModelObject {
    /// Hands a line to the host, if it wants lines.
    pub fn log(&self, line: fmt::Arguments<'_>) {
        if let Some(Log { function, data }) = &self.log {
            let text = line.to_string();
            let bytes = text.as_ptr().cast();
            // SAFETY: the header describes this call to who wrote the function.
            callback(|| unsafe { function(data.pointer, LIGHTGPT_LOG_INFO, bytes, text.len()) });
        }
    }
}

/// Opens the GGUF file at `path`, of a split model any of its parts.
///
/// The file is mapped, not copied (unless LIGHTGPT_OPEN_COPY): see MAPPED FILES above. A file whose
/// tokenizer is not known to this version opens too: it runs on tokens, and what takes or gives
/// text answers LIGHTGPT_UNSUPPORTED, saying what is not known.
///
/// path: not NULL, UTF-8, ends in a zero byte. options: NULL for the defaults. model: not NULL;
/// gets a handle that lightgpt_model_free gives back. `log_data`, and the allocator's data, become
/// the model's only if the call succeeds. Any thread.
/// Errors: LIGHTGPT_IO, LIGHTGPT_FORMAT (names key or tensor, offset, expected and found),
/// LIGHTGPT_UNSUPPORTED (architecture, format, version), LIGHTGPT_OUT_OF_MEMORY,
/// LIGHTGPT_MEMORY_CAP, LIGHTGPT_CANCELLED, LIGHTGPT_FILE_CHANGED (while it was copied).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_open(
    path: *const c_char,
    options: *const lightgpt_open_options,
    model: *mut *mut lightgpt_model,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a place for a handle, and for options as large as they say.
        let (out, options) = unsafe { (Out::new(model, "model")?, read(options, "options")?) };
        // SAFETY: the header asks for a zero byte.
        let path = unsafe { name(path, "path") }?;
        open(Source::Path(Path::new(path)), &options, &out)
    })
}

/// Opens the GGUF file whose `bytes` bytes lie at `data`.
///
/// With LIGHTGPT_OPEN_COPY they are copied. Otherwise they are used in place: they must stay as
/// they are until `release` is called. `release` is called once, if the call succeeds: with
/// LIGHTGPT_OPEN_COPY before it returns, otherwise when the model and all its sessions are freed.
/// If the call fails, the memory is the caller's as before.
///
/// data: not NULL. release: NULL if there is nothing to do. Else as lightgpt_model_open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_open_memory(
    data: *const c_void,
    bytes: usize,
    release: lightgpt_destroy_fn,
    release_data: *mut c_void,
    options: *const lightgpt_open_options,
    model: *mut *mut lightgpt_model,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a place for a handle, and for options as large as they say.
        let (out, options) = unsafe { (Out::new(model, "model")?, read(options, "options")?) };
        // SAFETY: the header asks for `bytes` bytes that stay.
        let data: &[u8] = unsafe { input(data.cast(), bytes, "data") }?;
        let user = Arc::new(UserData::new(release_data));
        let held = user.clone();
        // SAFETY: as above; they stay until `release` is called, by the drop of `held`.
        let memory = unsafe { Borrowed::new(data.as_ptr(), bytes, Box::new(move || drop(held))) };
        let status = open(Source::Borrowed(memory), &options, &out)?;
        user.keep(release);
        Ok(status)
    })
}

/// Opens the GGUF file that lies in the open file `fd`: `bytes` bytes from `offset` (Unix only).
///
/// The descriptor stays the caller's and may be closed after the call. The file must be a regular
/// one. Else as lightgpt_model_open. Errors: also LIGHTGPT_UNSUPPORTED (not Unix).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_open_fd(
    fd: i32,
    offset: u64,
    bytes: u64,
    options: *const lightgpt_open_options,
    model: *mut *mut lightgpt_model,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a place for a handle, and for options as large as they say.
        let (out, options) = unsafe { (Out::new(model, "model")?, read(options, "options")?) };
        let source = Source::Fd {
            fd,
            offset,
            len: bytes,
        };
        open(source, &options, &out)
    })
}

/// Says what the model is.
///
/// info: not NULL, initialised with LIGHTGPT_MODEL_INFO_INIT. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_describe(
    model: *const lightgpt_model,
    info: *mut lightgpt_model_info,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a struct as large as it says.
        let out = unsafe { OutStruct::new(info, "info") }?;
        let model = enter(model)?;
        out.set(&describe(&model.model));
        Ok(LIGHTGPT_OK)
    })
}

/// Says how much memory the model takes with a session made with `options`.
///
/// options: NULL for the defaults. memory: not NULL, initialised with LIGHTGPT_MEMORY_INIT. Any
/// thread. Errors: LIGHTGPT_INVALID_ARGUMENT (an option out of range),
/// LIGHTGPT_UNSUPPORTED (the model was opened with LIGHTGPT_OPEN_INSPECT).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_memory_estimate(
    model: *const lightgpt_model,
    options: *const lightgpt_session_options,
    memory: *mut lightgpt_memory,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for structs as large as they say.
        let (out, options) =
            unsafe { (OutStruct::new(memory, "memory")?, read(options, "options")?) };
        let model = enter(model)?.model.clone();
        let options = session_options(&options, &model)?;
        let (kv, rows) = (options.kv.unwrap_or_default(), options.chunk_tokens());
        let estimate = model.memory_estimate(options.context, kv, rows)?;
        out.set(&lightgpt_memory {
            struct_size: 0,
            reserved: 0,
            weights_mapped: estimate.weights_mapped,
            weights_copied: estimate.weights_copied,
            kv: estimate.kv,
            scratch: estimate.scratch,
            logits: estimate.logits,
        });
        Ok(LIGHTGPT_OK)
    })
}

/// Gives a model back. Sessions that use it go on; its memory and its file go with the last of
/// them.
///
/// NULL is fine. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_model_free(model: *mut lightgpt_model) -> i32 {
    free(model)
}

pub(super) fn open(
    source: Source<'_>,
    options: &lightgpt_open_options,
    out: &Out<*mut lightgpt_model>,
) -> Result<i32> {
    const KNOWN: u32 = LIGHTGPT_OPEN_COPY
        | LIGHTGPT_OPEN_PREFAULT
        | LIGHTGPT_OPEN_MLOCK
        | LIGHTGPT_OPEN_INSPECT
        | LIGHTGPT_OPEN_UNSHARED
        | LIGHTGPT_OPEN_UNWATCHED;
    let flags = flags(options.flags, KNOWN, "options.flags")?;
    if options.log.is_none() && options.log_destroy.is_some() {
        return Err(invalid("options.log_destroy", "it comes without log"));
    }
    let watch = match flags & LIGHTGPT_OPEN_UNWATCHED {
        0 => Watch::machine(),
        _ => Arc::new(Watch::blind()),
    };
    let cap = Some(options.memory_max).filter(|&bytes| bytes > 0);
    let cap = cap.or_else(|| watch.cap());
    // SAFETY: the header asks for a struct as large as it says.
    let (budget, kept) = unsafe { budget_of(cap, options.allocator) }?;
    let load = LoadOptions {
        copy: flags & LIGHTGPT_OPEN_COPY != 0,
        prefault: flags & LIGHTGPT_OPEN_PREFAULT != 0,
        mlock: flags & LIGHTGPT_OPEN_MLOCK != 0,
        budget,
    };
    let mut report = |done, total| match options.progress {
        // SAFETY: the header describes this call to who wrote the function.
        Some(f) => callback(|| unsafe { f(options.progress_data, done, total) }) == 0,
        None => true,
    };
    let report: &mut ProgressFn<'_> = &mut report;
    let mut control = Control {
        progress: Some(report),
        ..Control::none()
    };
    let open = OpenOptions {
        load,
        describe_only: flags & LIGHTGPT_OPEN_INSPECT != 0,
        page_tokens: options.page_tokens as usize,
        prefix_bytes_max: prefix_bytes_max(options),
        watch: Some(watch),
    };
    let model = Model::open(source, &open, &mut control)?;
    let log = options.log.map(|function| Log {
        function,
        data: UserData::new(options.log_data),
    });
    let handle = insert::<lightgpt_model>(ModelObject { model, log })?;
    let model = enter(handle)?;
    model.log(format_args!(
        "opened a model of {} tensors, {} bytes",
        model.model.gguf().tensors().len(),
        model.model.gguf().file_bytes()
    ));
    if let Some(log) = &model.log {
        log.data.keep(options.log_destroy);
    }
    kept.keep();
    out.set(handle);
    Ok(LIGHTGPT_OK)
}

fn prefix_bytes_max(options: &lightgpt_open_options) -> Option<u64> {
    let is_unshared = options.flags & LIGHTGPT_OPEN_UNSHARED != 0;
    match options.prefix_bytes_max {
        _ if is_unshared => Some(0),
        0 => None,
        bytes => Some(bytes),
    }
}

fn describe(model: &Model) -> lightgpt_model_info {
    let gguf = model.gguf();
    let mut info = lightgpt_model_info {
        struct_size: 0,
        gguf_version: gguf.version(),
        file_bytes: gguf.file_bytes(),
        files: gguf.parts() as u64,
        metadata_keys: gguf.metadata().len() as u64,
        tensors: gguf.tensors().len() as u64,
        vocab: model.tokenizer().map_or(0, |t| t.vocab_len() as u64),
        parameters: model.parameters(),
        weight_bytes: model.weight_bytes(),
        layers: 0,
        dim: 0,
        heads: 0,
        kv_heads: 0,
        head_dim: 0,
        hidden: 0,
        context: 0,
        architecture: cut(model.architecture()),
        name: cut(model.name()),
        abilities: 0,
        pooling: 0,
        embedding: 0,
        scores: 0,
    };
    if let Ok(network) = model.network() {
        let spec = &network.spec;
        info.vocab = spec.vocab as u64;
        info.layers = spec.layers as u64;
        info.dim = spec.dim as u64;
        info.heads = spec.heads as u64;
        info.kv_heads = spec.kv_heads as u64;
        info.head_dim = spec.k_dim as u64;
        info.hidden = spec.hidden as u64;
        info.context = spec.context as u64;
        info.abilities = if spec.predicts {
            LIGHTGPT_MODEL_GENERATES
        } else {
            0
        };
        info.pooling = pooling_number(spec.pooling);
        info.embedding = spec.embedding_width() as u64;
        info.scores = spec.head.map_or(0, |head| head.scores() as u64);
    }
    info
}

/// As many whole characters of `text` as fit before a zero byte.
pub(super) fn cut<const N: usize>(text: &str) -> [c_char; N] {
    let end = text.floor_char_boundary(N - 1);
    let mut array = [0; N];
    for (to, from) in array.iter_mut().zip(&text.as_bytes()[..end]) {
        *to = from.cast_signed() as c_char;
    }
    array
}
