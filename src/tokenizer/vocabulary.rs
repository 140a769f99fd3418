//! The tokens of a vocabulary: their texts, what they stand for, and the way back from text to id.

use crate::error::{Code, Error, Result};
use crate::tokenizer::hash::Seed;
use crate::tokenizer::merge::NO_ID;

/// What a token is; a token is exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// A piece of text.
    Normal,
    /// Stands for text that the vocabulary cannot express.
    Unknown,
    /// Steers the model (begin, end, roles); text yields it only when special tokens are parsed.
    Control,
    /// A text of its own that is never cut, found in every text.
    UserDefined,
    /// Reserved; text never yields it.
    Unused,
    /// One byte, written `<0xNN>`.
    Byte,
}

impl Attribute {
    /// The attribute that a file writes as `number`; 0 (undefined) is a piece of text.
    pub(super) fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 | 1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }
}

/// The tokens of a model, by id.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// As the file stores them.
    texts: Texts,
    /// What each token stands for.
    pub(super) bytes: Texts,
    attributes: Vec<Attribute>,
    by_text: TextTable,
    unknown: Option<u32>,
}

impl Vocabulary {
    /// The tokens `texts`, which stand for `bytes`; all three are equally long. `unknown` is the
    /// id of the token that stands for what the others cannot express.
    pub(super) fn new(
        texts: Texts,
        bytes: Texts,
        attributes: Vec<Attribute>,
        unknown: Option<u32>,
    ) -> Result<Self> {
        let by_text = TextTable::new(&texts, |_| true)?;
        Ok(Self {
            texts,
            bytes,
            attributes,
            by_text,
            unknown,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.attributes.len()
    }

    /// The token as the file stores it.
    pub(super) fn text(&self, id: u32) -> Option<&[u8]> {
        self.texts.get(id)
    }

    pub(super) fn attribute(&self, id: u32) -> Option<Attribute> {
        self.attributes.get(id as usize).copied()
    }

    /// The first token whose stored text is `text`.
    pub(super) fn id_of(&self, text: &[u8]) -> Option<u32> {
        self.by_text.get(&self.texts, text)
    }

    /// What stands for text that the other tokens cannot express, if anything does.
    pub(super) fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// Bytes of the longest token, as stored or as what it stands for.
    pub(super) fn longest(&self) -> usize {
        self.texts.longest().max(self.bytes.longest())
    }

    /// The first byte token of each byte, or `NO_ID`.
    pub(super) fn byte_ids(&self) -> [u32; 256] {
        let mut ids = [NO_ID; 256];
        for id in (0..self.len() as u32).rev() {
            if self.attribute(id) == Some(Attribute::Byte)
                && let Some(&[byte]) = self.bytes.get(id)
            {
                ids[byte as usize] = id;
            }
        }
        ids
    }
}

/// Byte strings one after another.
#[derive(Debug, Default)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    /// Where each string ends in `bytes`.
    ends: Vec<u32>,
}

impl Texts {
    /// Room for `count` strings.
    pub(super) fn with_room(count: usize) -> Result<Self> {
        let mut texts = Self::default();
        reserve(&mut texts.ends, count)?;
        Ok(texts)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Appends what `write` appends to the bytes it is given.
    pub(super) fn push(&mut self, text: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        self.bytes
            .try_reserve(text.len())
            .map_err(|_| out_of_memory())?;
        write(&mut self.bytes);
        let end = u32::try_from(self.bytes.len()).map_err(|_| {
            let message = "expected less than 4 GiB of token texts, found more";
            refused(Code::Unsupported, "tokenizer.ggml.tokens", message)
        })?;
        self.ends.push(end);
        Ok(())
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        let end = *self.ends.get(id)?;
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        Some(&self.bytes[start as usize..end as usize])
    }

    /// Bytes of the longest string.
    pub(super) fn longest(&self) -> usize {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts
            .zip(&self.ends)
            .map(|(start, end)| end - start)
            .max()
            .unwrap_or(0) as usize
    }
}

/// From text to id, by open addressing with at most half of the slots taken.
#[derive(Debug)]
pub(super) struct TextTable {
    seed: Seed,
    /// `hash's upper half << 32 | id + 1`, or 0 for an empty slot.
    slots: Vec<u64>,
}

impl TextTable {
    /// A table of those `texts` that `include` accepts; the first of equal texts is found.
    pub(super) fn new(texts: &Texts, include: impl Fn(u32) -> bool) -> Result<Self> {
        let mut slots = Vec::new();
        let count = (texts.len() * 2).next_power_of_two();
        reserve(&mut slots, count)?;
        slots.resize(count, 0);
        let mut table = Self {
            seed: Seed::random(),
            slots,
        };
        for id in (0..texts.len() as u32).filter(|&id| include(id)) {
            let text = texts.get(id).unwrap_or_default();
            let (slot, found) = table.find(texts, text);
            if found.is_none() {
                let tag = table.seed.hash(text) >> 32 << 32;
                table.slots[slot] = tag | u64::from(id + 1);
            }
        }
        Ok(table)
    }

    /// The id of `text`, if it is in the table of these `texts`.
    #[inline]
    pub(super) fn get(&self, texts: &Texts, text: &[u8]) -> Option<u32> {
        self.find(texts, text).1
    }

    /// The slot where `text` is or would be, and its id.
    #[inline]
    fn find(&self, texts: &Texts, text: &[u8]) -> (usize, Option<u32>) {
        let hash = self.seed.hash(text);
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let entry = self.slots[slot];
            if entry == 0 {
                return (slot, None);
            }
            if entry >> 32 == hash >> 32 {
                let id = entry as u32 - 1;
                if texts.get(id) == Some(text) {
                    return (slot, Some(id));
                }
            }
            slot = (slot + 1) & mask;
        }
    }
}

/// Room for exactly `count` more items, or `OUT_OF_MEMORY`.
pub(super) fn reserve<T>(items: &mut Vec<T>, count: usize) -> Result<()> {
    items.try_reserve_exact(count).map_err(|_| out_of_memory())
}

/// What is wrong with the value of `key`, or an item of it, in the words of `gguf`.
pub(super) fn refused(code: Code, key: &str, message: impl Into<Box<str>>) -> Error {
    Error::new(code, format!("key '{key}'"), message)
}

/// `text` for a message: quoted, escaped and cut to a bearable length.
pub(super) fn shown(text: &[u8]) -> String {
    const BYTES_MAX: usize = 48;
    let cut = if text.len() > BYTES_MAX { "..." } else { "" };
    let start = &text[..text.len().min(BYTES_MAX)];
    format!("\"{}{cut}\"", String::from_utf8_lossy(start).escape_debug())
}

pub(super) fn out_of_memory() -> Error {
    Error::new(
        Code::OutOfMemory,
        "tokenizer",
        "the machine has no memory left for this",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(items: &[&[u8]]) -> Texts {
        let mut texts = Texts::with_room(items.len()).unwrap();
        for item in items {
            texts.push(item, |out| out.extend(*item)).unwrap();
        }
        texts
    }

    #[test]
    fn the_first_of_equal_texts_is_found() {
        let texts = texts(&[b"a", b"", b"b", b"a", b"\xff\0"]);
        let table = TextTable::new(&texts, |_| true).unwrap();
        assert_eq!(table.get(&texts, b"a"), Some(0));
        assert_eq!(table.get(&texts, b""), Some(1));
        assert_eq!(table.get(&texts, b"\xff\0"), Some(4));
        assert_eq!(table.get(&texts, b"c"), None);
        let some = TextTable::new(&texts, |id| id != 0).unwrap();
        assert_eq!(some.get(&texts, b"a"), Some(3));
        assert_eq!(texts.longest(), 2);
        assert_eq!(texts.get(5), None);
    }

    #[test]
    fn an_empty_table_finds_nothing() {
        let texts = texts(&[]);
        assert_eq!(
            TextTable::new(&texts, |_| true).unwrap().get(&texts, b"a"),
            None
        );
        assert_eq!(texts.longest(), 0);
    }
}
