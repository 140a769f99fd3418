//! The rule for structs that cross the border, in one place.
//!
//! The first member is `struct_size`, which the caller's compiler fills in. A shorter struct than
//! ours comes from an older header (if one was ever that short): its missing tail is zero, which
//! means the defaults. A longer one comes from a newer header: what it asks for beyond our end must be zero. Of a struct that
//! we fill, nothing beyond the caller's `struct_size` is written.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr;

use super::arguments::invalid;
use super::guard::callback;
use crate::error::{Code, Error, Result};

/// Larger sizes are garbage, not the future.
const STRUCT_BYTES_MAX: usize = 4096;

/// A struct of the header.
///
/// # Safety
/// `repr(C)` with a first member `struct_size: u32`, an alignment of 8 where pointers have 8 bytes,
/// no padding, and valid with all bits zero.
pub(super) unsafe trait Struct: Copy {
    /// Where its last member of the first release ends: a shorter struct was never in a header of
    /// this ABI. Members that are appended later leave it alone.
    const SIZE_MIN: usize;

    /// Where the `u32` members are that mean nothing yet: in options they must be zero.
    const RESERVED: &'static [usize] = &[];
}

/// Reads options; NULL means all defaults, which are zeros.
///
/// # Safety
/// `pointer` is NULL or misaligned (both answered), or may be read for 4 bytes and for as many as
/// these 4 bytes say.
pub(super) unsafe fn read<T: Struct>(pointer: *const T, place: &str) -> Result<T> {
    let mut options = MaybeUninit::<T>::zeroed();
    if !pointer.is_null() {
        // SAFETY: promised by the caller, and not NULL.
        let given = unsafe { struct_size(pointer, place) }?;
        let common = given.min(size_of::<T>());
        let bytes = pointer.cast::<u8>();
        // SAFETY: `given` bytes may be read; `options` has room for `size_of::<T>()`.
        unsafe { ptr::copy_nonoverlapping(bytes, options.as_mut_ptr().cast::<u8>(), common) };
        // SAFETY: as above.
        let tail = (common..given).find(|&i| unsafe { bytes.add(i).read() } != 0);
        let reserved = T::RESERVED.iter().copied().find(|&offset| {
            // SAFETY: the offset of a u32 of `T`, all of whose bytes are there, zero or copied.
            unsafe { options.as_ptr().byte_add(offset).cast::<u32>().read() != 0 }
        });
        if let Some(offset) = reserved.or(tail) {
            let message = format!("the member at offset {offset} is not known to this version");
            return Err(Error::new(Code::Unsupported, place, message));
        }
    }
    // SAFETY: zeros are valid, and so is what the caller's compiler made of the same members;
    // `struct_size` has refused sizes that end inside a pointer.
    Ok(unsafe { options.assume_init() })
}

/// A struct of the caller to be filled.
pub(super) struct OutStruct<T> {
    pointer: *mut T,
    given: usize,
}

impl<T: Struct> OutStruct<T> {
    /// # Safety
    /// `pointer` is NULL or misaligned (both answered), or its first 4 bytes may be read, and
    /// written as many as they say, until the call ends.
    pub unsafe fn new(pointer: *mut T, place: &str) -> Result<Self> {
        if pointer.is_null() {
            return Err(invalid(place, "expected a pointer, found NULL"));
        }
        Ok(Self {
            pointer,
            // SAFETY: promised by the caller, and not NULL.
            given: unsafe { struct_size(pointer, place) }?,
        })
    }

    /// Fills what the caller's header knows and leaves `struct_size` as the caller set it; members
    /// that only a newer header knows become zero.
    pub fn set(&self, value: &T) {
        const HEAD: usize = size_of::<u32>();
        let common = self.given.min(size_of::<T>());
        let to = self.pointer.cast::<u8>();
        let from = ptr::from_ref(value).cast::<u8>();
        // SAFETY: `new` was promised `given` bytes at `to`; `from` has `size_of::<T>()`.
        unsafe {
            ptr::copy_nonoverlapping(from.add(HEAD), to.add(HEAD), common - HEAD);
            to.add(common).write_bytes(0, self.given - common);
        }
    }
}

/// # Safety
/// `pointer` is misaligned (which is answered), or may be read for 4 bytes.
unsafe fn struct_size<T: Struct>(pointer: *const T, place: &str) -> Result<usize> {
    if !pointer.is_aligned() {
        return Err(invalid(place, "the struct is not aligned"));
    }
    // SAFETY: promised by the caller.
    let given = unsafe { pointer.cast::<u32>().read() } as usize;
    let possible = T::SIZE_MIN..=STRUCT_BYTES_MAX;
    if !possible.contains(&given) || !given.is_multiple_of(align_of::<T>()) {
        let message = format!(
            "struct_size is {given}, which no header of this ABI has: begin with the _INIT macro"
        );
        return Err(Error::new(Code::AbiMismatch, place, message));
    }
    Ok(given)
}

/// Called once with a user_data that the library has kept, when it will not use it any more: on the
/// thread that drops its last user, at the latest when the last object that kept it is freed.
pub type lightgpt_destroy_fn = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// A pointer of the host that is kept beyond the call, with what to do in the end.
#[derive(Debug)]
pub(super) struct UserData {
    pub pointer: *mut c_void,
    /// `None` until [`UserData::keep`]: a call that fails takes nothing.
    destroy: std::sync::OnceLock<unsafe extern "C" fn(*mut c_void)>,
}

// SAFETY: the header makes the host promise that functions it stores, and with them their
// user_data, may be used from any thread.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

impl UserData {
    pub fn new(pointer: *mut c_void) -> Self {
        Self {
            pointer,
            destroy: std::sync::OnceLock::new(),
        }
    }

    /// From now on the library owns it: `destroy` is called when it is dropped.
    pub fn keep(&self, destroy: lightgpt_destroy_fn) {
        if let Some(destroy) = destroy {
            // It is kept once; a second time would change nothing.
            let _ = self.destroy.set(destroy);
        }
    }
}

impl Drop for UserData {
    fn drop(&mut self) {
        if let Some(destroy) = self.destroy.get() {
            // SAFETY: the header asks for a function that accepts its user_data once.
            callback(|| unsafe { destroy(self.pointer) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C, align(8))]
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Options {
        struct_size: u32,
        flags: u32,
        count: u64,
    }

    // SAFETY: as the trait asks.
    unsafe impl Struct for Options {
        const SIZE_MIN: usize = 8;
    }

    #[repr(C, align(8))]
    struct Newer {
        base: Options,
        extra: u64,
    }

    #[repr(C, align(8))]
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct WithReserved {
        struct_size: u32,
        reserved: u32,
    }

    // SAFETY: as the trait asks.
    unsafe impl Struct for WithReserved {
        const SIZE_MIN: usize = 8;
        const RESERVED: &'static [usize] = &[std::mem::offset_of!(Self, reserved)];
    }

    #[test]
    fn reserved_members_of_options_are_zero() {
        for (reserved, expected) in [(0, None), (1, Some(Code::Unsupported))] {
            let given = WithReserved {
                struct_size: 8,
                reserved,
            };
            // SAFETY: the struct is as large as it says.
            let answer = unsafe { read(&raw const given, "options") }.map(|_| ());
            assert_eq!(answer.err().map(|e| e.code()), expected);
        }
    }

    const GIVEN: Options = Options {
        struct_size: 16,
        flags: 1,
        count: 2,
    };

    fn newer(struct_size: u32, extra: u64) -> Newer {
        Newer {
            base: Options {
                struct_size,
                ..GIVEN
            },
            extra,
        }
    }

    fn read_at(pointer: *const Options) -> Result<Options> {
        // SAFETY: the tests give true sizes or such that are refused.
        unsafe { read(pointer, "options") }
    }

    #[test]
    fn older_equal_and_newer_options() {
        let none = read_at(ptr::null()).unwrap();
        assert_eq!((none.flags, none.count), (0, 0));
        assert_eq!(read_at(&GIVEN), Ok(GIVEN));
        let older = read_at(&Options {
            struct_size: 8,
            ..GIVEN
        })
        .unwrap();
        assert_eq!((older.flags, older.count), (1, 0));
        let same = read_at(ptr::from_ref(&newer(24, 0)).cast()).unwrap();
        assert_eq!(same.count, 2);
        let e = read_at(ptr::from_ref(&newer(24, 1)).cast()).unwrap_err();
        assert_eq!(e.code(), Code::Unsupported);
        for (size, code) in [
            (0, Code::AbiMismatch),
            (4, Code::AbiMismatch),
            (9, Code::AbiMismatch),
            (8192, Code::AbiMismatch),
            (u32::MAX, Code::AbiMismatch),
        ] {
            let wrong = Options {
                struct_size: size,
                ..GIVEN
            };
            assert_eq!(read_at(&wrong).unwrap_err().code(), code, "{size}");
        }
    }

    #[test]
    fn nothing_is_written_beyond_the_callers_struct() {
        let mut place = newer(8, 9);
        let out = |place: &mut Newer| {
            // SAFETY: the struct is as large as it says, or larger.
            unsafe { OutStruct::new(ptr::from_mut(place).cast::<Options>(), "out") }.unwrap()
        };
        let value = Options {
            struct_size: 0,
            flags: 5,
            count: 6,
        };
        out(&mut place).set(&value);
        assert_eq!(
            (place.base, place.extra),
            (
                Options {
                    struct_size: 8,
                    flags: 5,
                    count: 2
                },
                9
            )
        );
        place.base.struct_size = 24;
        out(&mut place).set(&value);
        assert_eq!(
            (place.base, place.extra),
            (
                Options {
                    struct_size: 24,
                    flags: 5,
                    count: 6
                },
                0
            )
        );
        // SAFETY: NULL is answered.
        assert!(unsafe { OutStruct::<Options>::new(ptr::null_mut(), "out") }.is_err());
    }
}
