//! What tests of the C interface share.

use std::ffi::CStr;

use lightgpt::capi::{LIGHTGPT_OK, lightgpt_last_error};

/// A struct of the interface with its size set and everything else zero, as `_INIT` makes it.
pub fn new<T>() -> T {
    // SAFETY: the tests ask only for structs of the interface, which are valid with all bits zero
    // and begin with their size.
    unsafe {
        let mut value: T = std::mem::zeroed();
        (&raw mut value).cast::<u32>().write(size_of::<T>() as u32);
        value
    }
}

/// What the last call of this thread that failed says.
pub fn last_error() -> String {
    // SAFETY: never NULL, ends in zero, and this thread makes no call meanwhile.
    let text = unsafe { CStr::from_ptr(lightgpt_last_error()) };
    text.to_string_lossy().into_owned()
}

/// Demands that a call has succeeded.
#[track_caller]
pub fn ok(status: i32) {
    assert_eq!(status, LIGHTGPT_OK, "{}", last_error());
}
