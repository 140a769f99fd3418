//! Handles with types: each opaque C type names the Rust object behind it.

use std::any::Any;
use std::ffi::c_char;
use std::sync::Arc;

use super::arguments::Buffer;
use super::guard::{guard, in_callback};
use super::handles::{Entered, Kind, Table};
use super::status::LIGHTGPT_OK;
use crate::error::Result;

/// All objects of this copy of the library.
static OBJECTS: Table<Arc<dyn Object>> = Table::new();

/// What a handle may stand for.
pub(super) trait Object: Any + Send + Sync {
    /// Asks the calls that are inside the object to end soon; it is about to be freed.
    fn cancel(&self) {}
}

/// A pointer type of the header.
pub(super) trait Handle {
    type Object: Object;
    const KIND: Kind;
}

/// A call inside an object; [`lightgpt_session_free`](super::lightgpt_session_free) and the like
/// wait for its end.
pub(super) struct Call<T: Object> {
    // Declared first: this reference goes before the call counts as ended.
    object: Arc<T>,
    _entered: Entered<'static, Arc<dyn Object>>,
}

impl<T: Object> std::ops::Deref for Call<T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        &self.object
    }
}

/// Gives `object` a handle.
pub(super) fn insert<H: Handle>(object: H::Object) -> Result<*mut H> {
    let handle = OBJECTS.insert(H::KIND, Arc::new(object))?;
    Ok(std::ptr::without_provenance_mut(handle))
}

/// Begins a call on the object of `handle`.
pub(super) fn enter<H: Handle>(handle: *const H) -> Result<Call<H::Object>> {
    let entered = OBJECTS.enter(H::KIND, handle.addr())?;
    let object: Arc<dyn Any + Send + Sync> = entered.object().clone();
    let object = object.downcast().expect("the table checks the kind");
    Ok(Call {
        object,
        _entered: entered,
    })
}

/// The body of a function that fills a buffer of the caller with text of the object of `handle`.
///
/// # Safety
/// As for [`Buffer::new`].
pub(super) unsafe fn text_of<H: Handle>(
    handle: *const H,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
    fill: impl FnOnce(&H::Object, &Buffer<u8>) -> Result<()>,
) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        let out = unsafe { Buffer::new(buf.cast::<u8>(), cap, needed) }?;
        fill(&*enter(handle)?, &out)?;
        Ok(LIGHTGPT_OK)
    })
}

/// The body of the functions that free: gives the object of `handle` back, after the calls inside
/// it. NULL is fine wherever it comes from, a forked process included.
pub(super) fn free<H: Handle>(handle: *mut H) -> i32 {
    if handle.is_null() {
        return LIGHTGPT_OK;
    }
    guard(|| {
        let patient = !in_callback();
        drop(OBJECTS.remove(H::KIND, handle.addr(), patient, |object| object.cancel())?);
        Ok(LIGHTGPT_OK)
    })
}
