//! Tokens to text, one at a time, in whole code points.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::tokenizer::vocabulary::out_of_memory;
use crate::tokenizer::{DecodeOptions, Tokenizer};

/// Turns tokens into text as they come.
///
/// A code point whose bytes are spread over tokens is held back until it is whole, at most three
/// bytes; bytes that cannot become one are shown as U+FFFD. What all calls append, with
/// [`finish`](Self::finish) last, equals [`Tokenizer::decode_text`] of all the tokens. Cloning it
/// makes a point to roll back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDecoder {
    special: bool,
    /// Whether the next text loses the space that encoding put in front.
    strip: bool,
    /// The start of a code point.
    held: [u8; 4],
    held_bytes: usize,
}

impl StreamDecoder {
    /// A decoder that has seen nothing yet.
    pub fn new(options: DecodeOptions) -> Self {
        Self {
            special: options.special,
            strip: options.start,
            held: [0; 4],
            held_bytes: 0,
        }
    }

    /// Appends to `out` the text that token `id` of `tokenizer` completes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when the vocabulary has no token `id`, `OUT_OF_MEMORY`; nothing changes
    /// then.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32, out: &mut String) -> Result<()> {
        let mut strip = self.strip;
        let bytes = tokenizer.rendered(id, self.special, &mut strip)?;
        // At worst every byte is shown as U+FFFD.
        let room = (self.held_bytes + bytes.len()) * char::REPLACEMENT_CHARACTER.len_utf8();
        out.try_reserve(room).map_err(|_| out_of_memory())?;
        self.strip = strip;
        self.push_bytes(bytes, out);
        Ok(())
    }

    /// Whether it is one that tokens can lead to: one that was read from a file may not be.
    pub fn is_sound(&self) -> bool {
        let starts = |held: &[u8]| {
            let error = std::str::from_utf8(held).err();
            error.is_some_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        };
        let held = self.held.get(..self.held_bytes);
        held.is_some_and(|held| held.is_empty() || starts(held))
    }

    /// Bytes held back: the start of a code point, 0 to 3 bytes.
    pub fn held(&self) -> &[u8] {
        &self.held[..self.held_bytes]
    }

    /// Appends U+FFFD if a code point was left unfinished, and forgets it.
    pub fn finish(&mut self, out: &mut String) {
        if self.held_bytes > 0 {
            out.push(char::REPLACEMENT_CHARACTER);
            self.held_bytes = 0;
        }
    }

    /// Appends the text that `bytes` complete.
    pub(super) fn push_bytes(&mut self, bytes: &[u8], out: &mut String) {
        let mut rest = bytes;
        while self.held_bytes > 0
            && let Some((&byte, after)) = rest.split_first()
        {
            self.held[self.held_bytes] = byte;
            let whole = std::str::from_utf8(&self.held[..=self.held_bytes]);
            match whole.map_err(|error| error.error_len()) {
                Ok(text) => {
                    out.push_str(text);
                    self.held_bytes = 0;
                }
                Err(None) => self.held_bytes += 1,
                Err(Some(_)) => {
                    // The byte does not go on with it; it may begin something of its own.
                    out.push(char::REPLACEMENT_CHARACTER);
                    self.held_bytes = 0;
                    continue;
                }
            }
            rest = after;
        }
        while let Err(error) = std::str::from_utf8(rest) {
            let (text, after) = rest.split_at(error.valid_up_to());
            push_valid(text, out);
            let Some(bad) = error.error_len() else {
                self.held[..after.len()].copy_from_slice(after);
                self.held_bytes = after.len();
                return;
            };
            out.push(char::REPLACEMENT_CHARACTER);
            rest = &after[bad..];
        }
        push_valid(rest, out);
    }
}

fn push_valid(text: &[u8], out: &mut String) {
    out.push_str(std::str::from_utf8(text).expect("checked by the caller"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_of_any_bytes_gives_the_lossy_text() {
        let parts: [&[u8]; 12] = [
            b"a",
            "é".as_bytes(),
            "中".as_bytes(),
            "😀".as_bytes(),
            b"\xff",
            b"\xc3",
            b"\xe4\xb8",
            b"\xf0\x9f\x98",
            b"\x80",
            b"\xed\xa0\x80",
            b"\xf0\x80",
            b"\xf4\x90",
        ];
        let mut state = 3u64;
        let mut random = |below: usize| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as usize % below
        };
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random(8))
                .flat_map(|_| parts[random(12)])
                .copied()
                .collect();
            let mut decoder = StreamDecoder::new(DecodeOptions::default());
            let mut text = String::new();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(1 + random(rest.len()));
                decoder.push_bytes(now, &mut text);
                assert!(decoder.held().len() <= 3);
                rest = later;
            }
            decoder.finish(&mut text);
            assert_eq!(text, String::from_utf8_lossy(&bytes), "{bytes:x?}");
        }
    }
}
