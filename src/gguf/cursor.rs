//! Reads the head of an input front to back through a small window.
//!
//! Nothing is read twice and nothing is read from a map: what was checked cannot change
//! afterwards, and a head of any size needs no more memory than what is kept of it.

use super::limits::HEAD_BYTES_MAX;
use super::source::Input;
use super::value::{Number, no_memory};
use crate::control::Control;
use crate::error::{Code, Error, Result};

/// Bytes of the window, and between two looks at the cancel flag.
const WINDOW: usize = 1 << 18;

/// A position in an input's head; every read is held against the bytes that are left.
#[derive(Debug)]
pub(super) struct Cursor<'i, 'c> {
    input: &'i Input<'i>,
    control: &'i mut Control<'c>,
    /// Bytes `at..filled` are read but not yet taken.
    window: Vec<u8>,
    at: usize,
    filled: usize,
    /// Offset in the input of the window's byte `filled`.
    next: u64,
}

impl<'i, 'c> Cursor<'i, 'c> {
    /// Starts at the first byte of `input`.
    pub(super) fn new(input: &'i Input<'_>, control: &'i mut Control<'c>) -> Result<Self> {
        let len = usize::try_from(input.len()).map_or(WINDOW, |len| len.min(WINDOW));
        let mut window = reserved(len)?;
        window.resize(len, 0);
        Ok(Self {
            input,
            control,
            window,
            at: 0,
            filled: 0,
            next: 0,
        })
    }

    /// Offset of the next byte.
    pub(super) fn position(&self) -> u64 {
        self.next - (self.filled - self.at) as u64
    }

    /// The next number.
    pub(super) fn number<T: Number>(&mut self, what: &str) -> Result<T> {
        self.take(T::BYTES, what).map(T::from_le)
    }

    /// The next `count` numbers.
    pub(super) fn numbers<T: Number>(&mut self, count: u64, what: &str) -> Result<Box<[T]>> {
        let count = self.claim(count, T::BYTES as u64, what)?;
        let mut numbers = reserved(count)?;
        let mut left = count;
        while left > 0 {
            let some = left.min(WINDOW / T::BYTES);
            let bytes = self.take(some * T::BYTES, what)?;
            numbers.extend(bytes.chunks_exact(T::BYTES).map(T::from_le));
            left -= some;
        }
        Ok(numbers.into())
    }

    /// Appends the next `len` bytes to `out`.
    pub(super) fn append(&mut self, len: u64, out: &mut Vec<u8>, what: &str) -> Result<()> {
        let mut left = self.claim(len, 1, what)?;
        out.try_reserve(left).map_err(|_| no_memory(left))?;
        while left > 0 {
            let some = left.min(WINDOW);
            out.extend_from_slice(self.take(some, what)?);
            left -= some;
        }
        Ok(())
    }

    /// `count` as a number of items, once it is known that the rest of the head has room for that
    /// many of at least `bytes_each` bytes. Nothing is allocated by a count before this.
    pub(super) fn claim(&self, count: u64, bytes_each: u64, what: &str) -> Result<usize> {
        let position = self.position();
        let left = self.input.len() - position;
        let wanted = count.checked_mul(bytes_each);
        let refuse = |code, found: String| {
            let items = match bytes_each {
                1 => format!("{count} bytes"),
                _ => format!("{count} items of {bytes_each} bytes"),
            };
            let place = format!("{what} at offset {position}");
            Error::new(code, place, format!("expected {items}, {found}"))
        };
        match wanted.filter(|&wanted| wanted <= left) {
            None => Err(refuse(Code::Format, format!("found {left}"))),
            Some(wanted) if position + wanted > HEAD_BYTES_MAX => Err(refuse(
                Code::Unsupported,
                format!("but a head may have {HEAD_BYTES_MAX} in all"),
            )),
            Some(_) => Ok(usize::try_from(count).expect("the head's limit fits usize")),
        }
    }

    /// An error about what was read before: `what`, and its offset.
    pub(super) fn bad(&self, what: &str, bytes_before: u64, message: String) -> Error {
        let offset = self.position().saturating_sub(bytes_before);
        Error::new(Code::Format, format!("{what} at offset {offset}"), message)
    }

    /// The next `len <= WINDOW` bytes.
    fn take(&mut self, len: usize, what: &str) -> Result<&[u8]> {
        if self.filled - self.at < len {
            self.claim(len as u64, 1, what)?;
            self.refill()?;
        }
        let start = self.at;
        self.at += len;
        Ok(&self.window[start..self.at])
    }

    /// Moves what is left to the front and fills the window, or up to the input's end.
    fn refill(&mut self) -> Result<()> {
        self.control.report(0, 0)?;
        self.window.copy_within(self.at..self.filled, 0);
        self.filled -= self.at;
        self.at = 0;
        let room = self.window.len() - self.filled;
        let left = self.input.len() - self.next;
        let some = usize::try_from(left).map_or(room, |left| left.min(room));
        self.input
            .read_at(self.next, &mut self.window[self.filled..self.filled + some])?;
        self.filled += some;
        self.next += some as u64;
        Ok(())
    }
}

/// An empty vector with room for `count` items, which `claim` has allowed.
pub(super) fn reserved<T>(count: usize) -> Result<Vec<T>> {
    let mut items = Vec::new();
    items
        .try_reserve_exact(count)
        .map_err(|_| no_memory(count))?;
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::super::map::Memory;
    use super::*;

    #[test]
    fn reads_across_the_windows_edge() {
        let words: Vec<u32> = (0..200_000).collect();
        let mut bytes = vec![9];
        words.iter().for_each(|word| word.push_le(&mut bytes));
        let input = Input::Memory(Memory::Owned(bytes));
        let mut control = Control::none();
        let mut cursor = Cursor::new(&input, &mut control).unwrap();
        assert_eq!(cursor.number::<u8>("a").unwrap(), 9);
        let count = words.len() as u64;
        assert_eq!(
            &cursor.numbers::<u32>(count - 1, "b").unwrap()[..],
            &words[..words.len() - 1]
        );
        let mut tail = Vec::new();
        cursor.append(4, &mut tail, "c").unwrap();
        assert_eq!(tail, 199_999u32.to_le_bytes());
        assert_eq!(cursor.position(), 1 + 4 * count);
        let e = cursor.number::<u8>("d").unwrap_err().to_string();
        assert_eq!(e, "d at offset 800001: expected 1 bytes, found 0");
    }

    #[test]
    fn claims_are_held_against_what_is_left() {
        let input = Input::Memory(Memory::Owned(vec![0; 100]));
        let mut control = Control::none();
        let mut cursor = Cursor::new(&input, &mut control).unwrap();
        for count in [13, 1 << 61, u64::MAX / 8 + 1, u64::MAX] {
            let e = cursor.numbers::<u64>(count, "x").unwrap_err();
            assert_eq!(e.code(), Code::Format);
            assert!(
                e.to_string().ends_with("items of 8 bytes, found 100"),
                "{e}"
            );
        }
        assert_eq!(cursor.claim(12, 8, "x").unwrap(), 12);
    }

    #[test]
    fn a_set_flag_stops_the_reading() {
        let flag = std::sync::atomic::AtomicBool::new(true);
        let input = Input::Memory(Memory::Owned(vec![0; 100]));
        let mut control = Control::cancellable(&flag);
        let mut cursor = Cursor::new(&input, &mut control).unwrap();
        assert_eq!(
            cursor.number::<u8>("x").unwrap_err().code(),
            Code::Cancelled
        );
    }
}
