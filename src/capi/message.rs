//! The text of a failure as C reads it: a fixed array, so that telling about a failure can neither
//! fail nor call an allocator.

use std::ffi::c_char;
use std::fmt::{self, Write};

/// Longer messages are cut.
const BYTES: usize = 1024;

/// A text that ends in a zero byte.
pub(super) struct Message {
    bytes: [u8; BYTES],
    len: usize,
}

impl Message {
    pub const fn new() -> Self {
        Self {
            bytes: [0; BYTES],
            len: 0,
        }
    }

    /// Replaces the text by what `text` shows.
    pub fn set(&mut self, text: impl fmt::Display) {
        self.len = 0;
        // A text that is cut is an error to `write!`, and all there is to do about it is done.
        let _ = write!(self, "{text}");
        self.bytes[self.len] = 0;
    }

    /// The text without its zero byte.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The text with its zero byte.
    pub fn as_ptr(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }
}

impl Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            // A zero byte would end the text early.
            let char = if char == '\0' { '\u{fffd}' } else { char };
            if self.len + char.len_utf8() >= BYTES {
                return Err(fmt::Error);
            }
            char.encode_utf8(&mut self.bytes[self.len..]);
            self.len += char.len_utf8();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_between_characters_and_ends_in_zero() {
        let mut message = Message::new();
        message.set("ä".repeat(BYTES));
        assert_eq!(message.as_bytes(), "ä".repeat((BYTES - 1) / 2).as_bytes());
        message.set("a\0b");
        assert_eq!(message.as_bytes(), "a\u{fffd}b".as_bytes());
        assert_eq!(message.bytes[message.len], 0);
    }
}
