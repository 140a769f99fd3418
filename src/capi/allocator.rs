//! The host's allocator in C: where large memory comes from.

use std::ffi::c_void;
use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::Arc;

use super::arguments::invalid;
use super::guard::callback;
use super::options::{Struct, UserData, lightgpt_destroy_fn, read};
use crate::budget::{Budget, HostAllocator, Tag};
use crate::error::Result;

/// Large memory for weights that are read instead of mapped.
pub const LIGHTGPT_MEMORY_WEIGHTS: u32 = 0;
/// Large memory for keys and values, and for states of recurrent layers.
pub const LIGHTGPT_MEMORY_KV: u32 = 1;
/// Large memory for activations of a pass.
pub const LIGHTGPT_MEMORY_SCRATCH: u32 = 2;
/// Large memory for logits, sampling and tables.
pub const LIGHTGPT_MEMORY_MISC: u32 = 3;

/// Gives `bytes` bytes (never 0) at a multiple of `alignment`, a power of two up to 64; NULL if
/// there are none, which the call answers with LIGHTGPT_OUT_OF_MEMORY, as it does for a pointer that
/// is no such multiple, which it gives back. They need not be zero. tag: one of LIGHTGPT_MEMORY_. Called on whatever
/// thread is inside a call, perhaps on several at once; it must not call the library.
pub type lightgpt_allocate_fn = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        bytes: usize,
        alignment: usize,
        tag: u32,
    ) -> *mut c_void,
>;

/// Takes back what lightgpt_allocate_fn gave for the same `bytes`, `alignment` and `tag`. Called on
/// whatever thread is inside a call; it must not call the library.
pub type lightgpt_release_fn = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        memory: *mut c_void,
        bytes: usize,
        alignment: usize,
        tag: u32,
    ),
>;

/// A host's own allocator of large memory.
///
/// What grows with weights, contexts, batches and vocabularies while a model runs comes from it;
/// what the head of a file holds (metadata, the vocabulary and its tables), results on their way to
/// the caller, samplers that are used by themselves, small things, and 80 KiB for each thread that
/// computes come from malloc and the system.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_allocator {
    /// Set by LIGHTGPT_ALLOCATOR_INIT.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Not NULL.
    pub allocate: lightgpt_allocate_fn,
    /// Not NULL.
    pub release: lightgpt_release_fn,
    /// Handed to both.
    pub user_data: *mut c_void,
    /// Called with `user_data` when all memory has been given back and none will be asked for. NULL:
    /// nothing to do.
    pub destroy: lightgpt_destroy_fn,
}

// SAFETY: as the trait asks; NULL pointers and functions are all zeros.
unsafe impl Struct for lightgpt_allocator {
    const SIZE_MIN: usize = offset_of!(Self, destroy) + size_of::<lightgpt_destroy_fn>();
    const RESERVED: &'static [usize] = &[offset_of!(Self, reserved)];
}

/// The functions of an allocator, and what they are called with.
struct Allocator {
    allocate: unsafe extern "C" fn(*mut c_void, usize, usize, u32) -> *mut c_void,
    release: unsafe extern "C" fn(*mut c_void, *mut c_void, usize, usize, u32),
    data: Arc<UserData>,
}

/// The host's data of an allocator, to be kept if the call that brings it succeeds.
pub(super) struct Kept(Option<(Arc<UserData>, lightgpt_destroy_fn)>);

impl Kept {
    /// From now on the data is destroyed with the allocator.
    pub fn keep(self) {
        if let Some((data, destroy)) = self.0 {
            data.keep(destroy);
        }
    }
}

/// An account of at most `cap` bytes from the allocator that `given` describes; NULL: from the
/// system.
///
/// # Safety
/// `given` is NULL or leads to a struct as large as it says.
pub(super) unsafe fn budget_of(
    cap: Option<u64>,
    given: *const lightgpt_allocator,
) -> Result<(Budget, Kept)> {
    if given.is_null() {
        return Ok((Budget::new(cap, None), Kept(None)));
    }
    // SAFETY: promised by the caller.
    let given = unsafe { read(given, "options.allocator") }?;
    let (Some(allocate), Some(release)) = (given.allocate, given.release) else {
        let message = "it needs both allocate and release";
        return Err(invalid("options.allocator", message));
    };
    let data = Arc::new(UserData::new(given.user_data));
    let kept = Kept(Some((data.clone(), given.destroy)));
    let allocator = Allocator {
        allocate,
        release,
        data,
    };
    Ok((Budget::new(cap, Some(Box::new(allocator))), kept))
}

impl HostAllocator for Allocator {
    fn allocate(&self, bytes: usize, align: usize, tag: Tag) -> Option<NonNull<u8>> {
        let (data, tag) = (self.data.pointer, tag_number(tag));
        // SAFETY: the header describes this call to who wrote the function.
        let memory = callback(|| unsafe { (self.allocate)(data, bytes, align, tag) });
        NonNull::new(memory.cast())
    }

    unsafe fn release(&self, memory: NonNull<u8>, bytes: usize, align: usize, tag: Tag) {
        let (data, tag) = (self.data.pointer, tag_number(tag));
        let memory = memory.as_ptr().cast();
        // SAFETY: the header describes this call to who wrote the function.
        callback(|| unsafe { (self.release)(data, memory, bytes, align, tag) });
    }
}

fn tag_number(tag: Tag) -> u32 {
    match tag {
        Tag::Weights => LIGHTGPT_MEMORY_WEIGHTS,
        Tag::Kv => LIGHTGPT_MEMORY_KV,
        Tag::Scratch => LIGHTGPT_MEMORY_SCRATCH,
        Tag::Misc => LIGHTGPT_MEMORY_MISC,
    }
}
