//! The statuses that every function of the C interface answers with.
//!
//! Numbers are part of the ABI: they are never changed or used again.

use std::ffi::{CStr, c_char};

use crate::error::Code;

/// The call succeeded.
pub const LIGHTGPT_OK: i32 = 0;
/// The time budget ended before the work did: call again to go on where it stopped.
pub const LIGHTGPT_PENDING: i32 = 1;
/// The work is complete: a prompt is evaluated, or a turn has ended by itself.
pub const LIGHTGPT_DONE: i32 = 2;
/// The turn ended because the callback asked for it; what it made is kept.
pub const LIGHTGPT_STOPPED: i32 = 3;

/// An argument is outside what the function accepts: NULL where a pointer is needed, an index out
/// of range, a name that is not UTF-8.
pub const LIGHTGPT_INVALID_ARGUMENT: i32 = -1;
/// A handle is NULL, freed, of another kind, or was never made by this library.
pub const LIGHTGPT_INVALID_HANDLE: i32 = -2;
/// The operating system refused a file operation.
pub const LIGHTGPT_IO: i32 = -3;
/// The bytes of a file are damaged or break the format's rules.
pub const LIGHTGPT_FORMAT: i32 = -4;
/// Well-formed, but not something this build can do: an unknown architecture, a flag bit or an
/// option member that a newer header defines.
pub const LIGHTGPT_UNSUPPORTED: i32 = -5;
/// The machine has no memory left for the request.
pub const LIGHTGPT_OUT_OF_MEMORY: i32 = -6;
/// The caller's memory cap does not allow the request.
pub const LIGHTGPT_MEMORY_CAP: i32 = -7;
/// The object is in use by another call, or by the call whose callback is running.
pub const LIGHTGPT_BUSY: i32 = -8;
/// The call was cancelled; the session is as it was before the turn.
pub const LIGHTGPT_CANCELLED: i32 = -9;
/// An activation or a logit became infinite or not a number.
pub const LIGHTGPT_NONFINITE: i32 = -10;
/// The session's context has no room for the tokens.
pub const LIGHTGPT_CONTEXT_FULL: i32 = -11;
/// The program was compiled for another ABI, or a struct_size is one that no header of this ABI
/// has.
pub const LIGHTGPT_ABI_MISMATCH: i32 = -12;
/// The process was forked after it began to use the library: the child cannot use it.
pub const LIGHTGPT_FORKED: i32 = -13;
/// An earlier defect left the session unusable; it can only be freed.
pub const LIGHTGPT_POISONED: i32 = -14;
/// The model's file changed while it was open.
pub const LIGHTGPT_FILE_CHANGED: i32 = -15;
/// A defect of the library; please report it with the message of lightgpt_last_error.
pub const LIGHTGPT_INTERNAL: i32 = -16;
/// The buffer is too small; the size it needs was written, and nothing else.
pub const LIGHTGPT_BUFFER_TOO_SMALL: i32 = -17;
/// There is no such key, tensor or token.
pub const LIGHTGPT_NOT_FOUND: i32 = -18;

const NAMES: [(i32, &CStr); 22] = [
    (LIGHTGPT_OK, c"LIGHTGPT_OK"),
    (LIGHTGPT_PENDING, c"LIGHTGPT_PENDING"),
    (LIGHTGPT_DONE, c"LIGHTGPT_DONE"),
    (LIGHTGPT_STOPPED, c"LIGHTGPT_STOPPED"),
    (LIGHTGPT_INVALID_ARGUMENT, c"LIGHTGPT_INVALID_ARGUMENT"),
    (LIGHTGPT_INVALID_HANDLE, c"LIGHTGPT_INVALID_HANDLE"),
    (LIGHTGPT_IO, c"LIGHTGPT_IO"),
    (LIGHTGPT_FORMAT, c"LIGHTGPT_FORMAT"),
    (LIGHTGPT_UNSUPPORTED, c"LIGHTGPT_UNSUPPORTED"),
    (LIGHTGPT_OUT_OF_MEMORY, c"LIGHTGPT_OUT_OF_MEMORY"),
    (LIGHTGPT_MEMORY_CAP, c"LIGHTGPT_MEMORY_CAP"),
    (LIGHTGPT_BUSY, c"LIGHTGPT_BUSY"),
    (LIGHTGPT_CANCELLED, c"LIGHTGPT_CANCELLED"),
    (LIGHTGPT_NONFINITE, c"LIGHTGPT_NONFINITE"),
    (LIGHTGPT_CONTEXT_FULL, c"LIGHTGPT_CONTEXT_FULL"),
    (LIGHTGPT_ABI_MISMATCH, c"LIGHTGPT_ABI_MISMATCH"),
    (LIGHTGPT_FORKED, c"LIGHTGPT_FORKED"),
    (LIGHTGPT_POISONED, c"LIGHTGPT_POISONED"),
    (LIGHTGPT_FILE_CHANGED, c"LIGHTGPT_FILE_CHANGED"),
    (LIGHTGPT_INTERNAL, c"LIGHTGPT_INTERNAL"),
    (LIGHTGPT_BUFFER_TOO_SMALL, c"LIGHTGPT_BUFFER_TOO_SMALL"),
    (LIGHTGPT_NOT_FOUND, c"LIGHTGPT_NOT_FOUND"),
];

/// The name of a status as the header spells it, such as "LIGHTGPT_BUSY".
///
/// Never NULL: a number that this library does not know gives "LIGHTGPT_UNKNOWN_STATUS". The text
/// is a constant. Any thread; cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_status_name(status: i32) -> *const c_char {
    NAMES
        .iter()
        .find(|(number, _)| *number == status)
        .map_or(c"LIGHTGPT_UNKNOWN_STATUS", |(_, name)| name)
        .as_ptr()
}

/// The number of an error's kind.
pub(super) fn of(code: Code) -> i32 {
    match code {
        Code::InvalidArgument => LIGHTGPT_INVALID_ARGUMENT,
        Code::InvalidHandle => LIGHTGPT_INVALID_HANDLE,
        Code::Io => LIGHTGPT_IO,
        Code::Format => LIGHTGPT_FORMAT,
        Code::Unsupported => LIGHTGPT_UNSUPPORTED,
        Code::OutOfMemory => LIGHTGPT_OUT_OF_MEMORY,
        Code::MemoryCap => LIGHTGPT_MEMORY_CAP,
        Code::Busy => LIGHTGPT_BUSY,
        Code::Cancelled => LIGHTGPT_CANCELLED,
        Code::NonFinite => LIGHTGPT_NONFINITE,
        Code::ContextFull => LIGHTGPT_CONTEXT_FULL,
        Code::AbiMismatch => LIGHTGPT_ABI_MISMATCH,
        Code::Forked => LIGHTGPT_FORKED,
        Code::Poisoned => LIGHTGPT_POISONED,
        Code::FileChanged => LIGHTGPT_FILE_CHANGED,
        Code::Internal => LIGHTGPT_INTERNAL,
        Code::BufferTooSmall => LIGHTGPT_BUFFER_TOO_SMALL,
        Code::NotFound => LIGHTGPT_NOT_FOUND,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_distinct() {
        for (i, (number, name)) in NAMES.iter().enumerate() {
            assert!(
                NAMES[..i]
                    .iter()
                    .all(|other| other.0 != *number && other.1 != *name)
            );
        }
        // SAFETY: the function gives constants that end in a zero byte.
        let name = unsafe { CStr::from_ptr(lightgpt_status_name(-8)) };
        assert_eq!(name, c"LIGHTGPT_BUSY");
        // SAFETY: as above.
        let name = unsafe { CStr::from_ptr(lightgpt_status_name(12345)) };
        assert_eq!(name, c"LIGHTGPT_UNKNOWN_STATUS");
    }
}
