//! A model whose bytes the host reads, in C.

use std::ffi::c_void;
use std::fmt;

use super::arguments::{Out, invalid};
use super::guard::{callback, guard};
use super::model::{lightgpt_model, lightgpt_open_options, open};
use super::options::read;
use crate::error::{Code, Error, Result};
use crate::gguf::{ReadAt, Source};

/// Reads up to `bytes` bytes (never 0) from `offset` of the model into `buffer`. Answers how many it
/// has read: fewer are fine, and it is called again for the rest; 0 means that the model ends there.
/// Below 0 it has failed, and so does the call. Called on the thread that called in.
pub type lightgpt_read_at_fn = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        offset: u64,
        buffer: *mut c_void,
        bytes: usize,
    ) -> i64,
>;

/// Opens a GGUF file of `bytes` bytes that the host reads: a part of an archive, or what is
/// compressed or encrypted on the disk.
///
/// The weights are read into memory, by pieces of up to a MiB, which come one after the other; it is
/// that of `options.allocator` if there is one. Progress and cancelling are as in
/// lightgpt_model_open. A model that is split into several files cannot be opened so.
///
/// read_at: not NULL; not called any more when the call returns. Else as lightgpt_model_open.
/// Errors: LIGHTGPT_IO with the offset (read_at fails, or the model ends before `bytes`),
/// LIGHTGPT_INVALID_ARGUMENT (read_at answers more than was asked for), LIGHTGPT_UNSUPPORTED (a
/// split model).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_open_reader(
    read_at: lightgpt_read_at_fn,
    user_data: *mut c_void,
    bytes: u64,
    options: *const lightgpt_open_options,
    model: *mut *mut lightgpt_model,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a place for a handle, and for options as large as they say.
        let (out, options) = unsafe { (Out::new(model, "model")?, read(options, "options")?) };
        let function =
            read_at.ok_or_else(|| invalid("read_at", "expected a function, found NULL"))?;
        let reader = HostReader {
            function,
            user_data,
        };
        let source = Source::Reader {
            file: &reader,
            len: bytes,
        };
        open(source, &options, &out)
    })
}

struct HostReader {
    function: unsafe extern "C" fn(*mut c_void, u64, *mut c_void, usize) -> i64,
    user_data: *mut c_void,
}

impl ReadAt for HostReader {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize> {
        let (buffer, bytes) = (out.as_mut_ptr().cast(), out.len());
        // SAFETY: the header describes this call to who wrote the function.
        let read = || unsafe { (self.function)(self.user_data, offset, buffer, bytes) };
        let answer = callback(read);
        usize::try_from(answer).map_err(|_| {
            let message = format!("read_at answered {answer}");
            Error::new(Code::Io, "", message)
        })
    }
}

impl fmt::Debug for HostReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostReader")
    }
}
