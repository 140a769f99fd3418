//! What C hands over, checked before it is used: pointers, lengths, names, buffers to fill.

use std::ffi::{CStr, c_char};
use std::io;
use std::slice;

use crate::error::{Code, Error, Result};

/// An argument that the function cannot accept.
pub(super) fn invalid(place: &str, message: impl Into<Box<str>>) -> Error {
    Error::new(Code::InvalidArgument, place, message)
}

/// A place for one result.
pub(super) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// `pointer` is NULL, misaligned (both answered), or may be written until the call ends.
    pub unsafe fn new(pointer: *mut T, place: &str) -> Result<Self> {
        check(pointer, place)?;
        Ok(Self(pointer))
    }

    pub fn set(&self, value: T) {
        // SAFETY: promised to `new`, which found it neither NULL nor misaligned.
        unsafe { self.0.write(value) };
    }
}

/// The `len` values at `pointer`, which may be NULL when `len` is 0.
///
/// # Safety
/// Unless it is NULL or misaligned (both answered), `pointer` may be read for `len` values until
/// the call ends.
pub(super) unsafe fn input<'a, T>(pointer: *const T, len: usize, place: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    check(pointer, place)?;
    check_len::<T>(len, place)?;
    // SAFETY: promised by the caller, and just checked as far as it can be.
    Ok(unsafe { slice::from_raw_parts(pointer, len) })
}

/// Room of the caller for as many results as it asked for.
pub(super) struct Room<T>(*mut T, usize);

/// The room for `len` values at `pointer`, which may be NULL when `len` is 0.
///
/// # Safety
/// Unless it is NULL or misaligned (both answered), `pointer` may be written for `len` values until
/// the call ends.
pub(super) unsafe fn output<T>(pointer: *mut T, len: usize, place: &str) -> Result<Room<T>> {
    if len > 0 {
        check(pointer, place)?;
        check_len::<T>(len, place)?;
    }
    Ok(Room(pointer, len))
}

impl<T: Copy> Room<T> {
    /// Gives the results, exactly as many as there is room for.
    pub fn fill(&self, results: &[T]) {
        assert_eq!(results.len(), self.1, "as many as were asked for");
        if self.1 > 0 {
            // SAFETY: promised to `output`, which found the pointer neither NULL nor misaligned.
            unsafe { self.0.copy_from(results.as_ptr(), self.1) };
        }
    }
}

/// The UTF-8 text of `len` bytes at `pointer`.
///
/// # Safety
/// As for [`input`].
pub(super) unsafe fn text<'a>(pointer: *const c_char, len: usize, place: &str) -> Result<&'a str> {
    // SAFETY: promised by the caller.
    let bytes = unsafe { input(pointer.cast::<u8>(), len, place) }?;
    utf8(bytes, place)
}

/// The UTF-8 text up to the zero byte at `pointer`.
///
/// # Safety
/// `pointer` is NULL (which is answered) or leads to a zero byte, and may be read up to it until
/// the call ends.
pub(super) unsafe fn name<'a>(pointer: *const c_char, place: &str) -> Result<&'a str> {
    check(pointer, place)?;
    // SAFETY: promised by the caller, and not NULL.
    utf8(unsafe { CStr::from_ptr(pointer) }.to_bytes(), place)
}

/// A buffer of the caller for a result whose size it may not know.
pub(super) struct Buffer<T> {
    memory: *mut T,
    len: usize,
    needed: Out<usize>,
}

impl<T: Copy> Buffer<T> {
    /// # Safety
    /// Unless they are NULL or misaligned (both answered), `memory` may be written for `len`
    /// values and `needed` for one until the call ends.
    pub unsafe fn new(memory: *mut T, len: usize, needed: *mut usize) -> Result<Self> {
        if !memory.is_null() || len > 0 {
            check(memory, "buf")?;
            check_len::<T>(len, "cap")?;
        }
        Ok(Self {
            memory,
            len,
            // SAFETY: promised by the caller.
            needed: unsafe { Out::new(needed, "needed") }?,
        })
    }

    /// Gives the result if the buffer can hold it, and its size in any case. No buffer at all is
    /// the question for the size.
    pub fn fill(&self, result: &[T]) -> Result<()> {
        if self.takes(result.len())? {
            // SAFETY: `new` was promised room for `len` values, and these are at most as many.
            // They come from a reference of ours, which is no memory of the caller's.
            unsafe { self.memory.copy_from(result.as_ptr(), result.len()) };
        }
        Ok(())
    }

    /// What [`Buffer::takes`] has found room for can be written here in pieces, once.
    pub fn writer(&self) -> Writer<'_, T> {
        Writer {
            buffer: self,
            written: 0,
        }
    }

    /// Gives the size of a result, and says whether it is wanted too: not if only the size was
    /// asked for. One that does not fit is an error.
    pub fn takes(&self, len: usize) -> Result<bool> {
        self.needed.set(len);
        if self.memory.is_null() {
            return Ok(false);
        }
        if len > self.len {
            let message = format!("{len} are needed, it has room for {}", self.len);
            return Err(Error::new(Code::BufferTooSmall, "buf", message));
        }
        Ok(true)
    }
}

/// Fills a [`Buffer`] piece by piece.
pub(super) struct Writer<'a, T> {
    buffer: &'a Buffer<T>,
    written: usize,
}

impl io::Write for Writer<'_, u8> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.buffer.len - self.written);
        // SAFETY: `Buffer::new` was promised room for `len` bytes, of which these are a part that
        // was not written before. They come from a reference of ours.
        unsafe {
            let place = self.buffer.memory.add(self.written);
            place.copy_from(bytes.as_ptr(), count);
        }
        self.written += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Flag bits, all of which are in `known`.
pub(super) fn flags(given: u32, known: u32, place: &str) -> Result<u32> {
    if given & !known == 0 {
        return Ok(given);
    }
    let message = format!(
        "the flag bits {:#x} are not known to this version",
        given & !known
    );
    Err(Error::new(Code::Unsupported, place, message))
}

/// A count or index of the host's that must fit this machine's.
pub(super) fn size(value: u64, place: &str) -> Result<usize> {
    usize::try_from(value).map_err(|_| invalid(place, format!("{value} is too large")))
}

fn check<T>(pointer: *const T, place: &str) -> Result<()> {
    if pointer.is_null() {
        return Err(invalid(place, "expected a pointer, found NULL"));
    }
    if !pointer.is_aligned() {
        let message = format!(
            "expected a pointer at a multiple of {} bytes",
            align_of::<T>()
        );
        return Err(invalid(place, message));
    }
    Ok(())
}

fn check_len<T>(len: usize, place: &str) -> Result<()> {
    match len.checked_mul(size_of::<T>()) {
        Some(bytes) if isize::try_from(bytes).is_ok() => Ok(()),
        _ => Err(invalid(
            place,
            format!("the length {len} is larger than any memory"),
        )),
    }
}

fn utf8<'a>(bytes: &'a [u8], place: &str) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|e| {
        invalid(
            place,
            format!("expected UTF-8, found a wrong byte at {}", e.valid_up_to()),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    #[test]
    fn wrong_pointers_and_lengths_are_answered() {
        let words = [1u32, 2];
        // SAFETY: each pointer is NULL, misaligned, or that of `words` with a true length or one
        // that is refused.
        unsafe {
            assert_eq!(input(words.as_ptr(), 2, "a"), Ok(&words[..]));
            assert_eq!(input::<u32>(ptr::null(), 0, "a"), Ok(&[][..]));
            assert!(input::<u32>(ptr::null(), 1, "a").is_err());
            assert!(input(words.as_ptr().byte_add(1), 1, "a").is_err());
            assert!(input(words.as_ptr(), usize::MAX / 2, "a").is_err());
            assert!(Out::new(ptr::null_mut::<u32>(), "a").is_err());
            let e = text(c"a\xff".as_ptr(), 2, "text").unwrap_err();
            assert_eq!(
                e.to_string(),
                "text: expected UTF-8, found a wrong byte at 1"
            );
            assert_eq!(name(c"abc".as_ptr(), "key"), Ok("abc"));
            assert!(name(ptr::null(), "key").is_err());
        }
    }

    #[test]
    fn a_buffer_gets_all_or_nothing() {
        let mut memory = [7u8; 3];
        let mut needed = 0;
        let fill = |memory: *mut u8, len, needed: *mut usize, result: &[u8]| {
            // SAFETY: `memory` has room for `len` bytes or is NULL.
            unsafe { Buffer::new(memory, len, needed) }.and_then(|b| b.fill(result))
        };
        let place = memory.as_mut_ptr();
        assert!(fill(ptr::null_mut(), 0, &raw mut needed, b"abcd").is_ok());
        assert_eq!(needed, 4);
        let e = fill(place, 3, &raw mut needed, b"abcd").unwrap_err();
        assert_eq!(
            (e.code(), needed, memory),
            (Code::BufferTooSmall, 4, [7; 3])
        );
        assert!(fill(place, 3, &raw mut needed, b"ab").is_ok());
        assert_eq!((needed, memory), (2, *b"ab\x07"));
        assert!(fill(ptr::null_mut(), 3, &raw mut needed, b"ab").is_err());
        assert!(fill(place, 3, ptr::null_mut(), b"ab").is_err());
    }
}
