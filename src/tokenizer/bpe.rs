//! Byte-level byte-pair encoding: a piece starts as its bytes and is joined by a list of merges.
//!
//! Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units"
//! (2016); Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), whose
//! vocabularies write each byte as a printable character.

use std::collections::HashMap;

use crate::error::{Code, Result};
use crate::gguf::Strings;
use crate::tokenizer::hash::Seed;
use crate::tokenizer::job::Watch;
use crate::tokenizer::merge::{Join, Merger, NO_ID, Rules, Symbol};
use crate::tokenizer::split::Pattern;
use crate::tokenizer::vocabulary::{
    Attribute, TextTable, Vocabulary, out_of_memory, refused, shown,
};

/// The rules of a byte-level vocabulary.
#[derive(Debug)]
pub(super) struct Bpe {
    pattern: Pattern,
    /// Normal tokens by their bytes, if a piece that is a token needs no merges.
    whole: Option<TextTable>,
    /// The token of each byte, or `NO_ID`.
    bytes: [u32; 256],
    /// `left id << 32 | right id` -> what they become.
    merges: HashMap<u64, Join, Seed>,
}

impl Bpe {
    /// The rules of `vocabulary` with its `merges` ("left right" each, most important first).
    pub(super) fn new(
        vocabulary: &Vocabulary,
        merges: &Strings,
        pattern: Pattern,
        ignore_merges: bool,
    ) -> Result<Self> {
        let whole = if ignore_merges {
            let normal = |id| vocabulary.attribute(id) == Some(Attribute::Normal);
            Some(TextTable::new(&vocabulary.bytes, normal)?)
        } else {
            None
        };
        let mut bytes = vocabulary.byte_ids();
        for (byte, id) in (0..=255u8).zip(&mut bytes) {
            let mut text = [0; 4];
            let text = char_of_byte(byte).encode_utf8(&mut text);
            *id = vocabulary.id_of(text.as_bytes()).unwrap_or(*id);
        }
        let merges = parse_merges(vocabulary, merges)?;
        Ok(Self {
            pattern,
            whole,
            bytes,
            merges,
        })
    }

    /// Whether every byte is a token.
    pub(super) fn is_complete(&self) -> bool {
        !self.bytes.contains(&NO_ID)
    }

    pub(super) fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// The token that is all of `piece`, where that goes before any merge.
    #[inline]
    pub(super) fn whole(&self, vocabulary: &Vocabulary, piece: &[u8]) -> Option<u32> {
        self.whole.as_ref()?.get(&vocabulary.bytes, piece)
    }

    /// Appends the tokens of `piece`, which no cut divides.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        piece: &[u8],
        merger: &mut Merger,
        watch: &mut Watch<'_>,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        merger.clear(piece.len())?;
        for (at, &byte) in piece.iter().enumerate() {
            watch.work(1)?;
            merger.push(self.bytes[byte as usize], at, at + 1);
        }
        for symbol in merger.merge(self, piece, watch)? {
            match symbol.id {
                NO_ID => out.extend(vocabulary.unknown()),
                id => out.push(id),
            }
        }
        Ok(())
    }
}

impl Rules for Bpe {
    #[inline]
    fn join(&self, _piece: &[u8], left: &Symbol, right: &Symbol) -> Option<Join> {
        self.merges.get(&pair(left.id, right.id)).copied()
    }
}

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

fn parse_merges(vocabulary: &Vocabulary, merges: &Strings) -> Result<HashMap<u64, Join, Seed>> {
    let mut map = HashMap::with_hasher(Seed::random());
    map.try_reserve(merges.len()).map_err(|_| out_of_memory())?;
    let mut joined = Vec::new();
    for (rank, merge) in (0u32..).zip(merges.iter()) {
        let refuse = |message: String| {
            let key = format!("tokenizer.ggml.merges[{rank}]");
            let message = format!("{message}, found {}", shown(merge));
            refused(Code::Format, &key, message)
        };
        let space = merge.iter().position(|&byte| byte == b' ');
        let halves = space.map(|space| (&merge[..space], &merge[space + 1..]));
        let Some((left, right)) = halves.filter(|half| !half.0.is_empty() && !half.1.is_empty())
        else {
            return Err(refuse(
                "expected two tokens with a space between them".into(),
            ));
        };
        joined.clear();
        joined.extend_from_slice(left);
        joined.extend_from_slice(right);
        let id = |text: &[u8]| {
            let unknown = || refuse(format!("expected tokens, {} is none", shown(text)));
            vocabulary.id_of(text).ok_or_else(unknown)
        };
        let key = pair(id(left)?, id(right)?);
        let id = id(&joined)?;
        map.entry(key).or_insert(Join { rank, id });
    }
    Ok(map)
}

/// The printable character that stands for `byte`: itself in Latin-1 where that is visible, else
/// the next unused one from U+0100.
fn char_of_byte(byte: u8) -> char {
    let code = match byte {
        0x00..=0x20 => 0x100 + u32::from(byte),
        0x7f..=0xa0 => 0x121 + u32::from(byte - 0x7f),
        0xad => 0x143,
        _ => byte.into(),
    };
    char::from_u32(code).expect("below U+0144")
}

/// The byte that `c` stands for, if it stands for one.
fn byte_of_char(c: char) -> Option<u8> {
    let code = c as u32;
    Some(match code {
        0x100..=0x120 => (code - 0x100) as u8,
        0x121..=0x142 => (code - 0x121) as u8 + 0x7f,
        0x143 => 0xad,
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code as u8,
        _ => return None,
    })
}

/// Appends the bytes that `text` stands for; what stands for no byte is kept as it is.
pub(super) fn decode_text(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match byte_of_char(c) {
                Some(byte) => out.push(byte),
                None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        out.extend_from_slice(chunk.invalid());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_visible_character() {
        for byte in 0..=255 {
            let c = char_of_byte(byte);
            assert_eq!(byte_of_char(c), Some(byte));
            assert!(!c.is_whitespace() && !c.is_control(), "{c:?}");
        }
        assert_eq!(char_of_byte(b' '), 'Ġ');
        assert_eq!(char_of_byte(b'\n'), 'Ċ');
        assert_eq!(char_of_byte(0xff), 'ÿ');
        assert_eq!(byte_of_char(' '), None);
        assert_eq!(byte_of_char('中'), None);
    }

    #[test]
    fn text_that_stands_for_no_bytes_is_kept() {
        let mut out = Vec::new();
        decode_text("Ġa中\u{0}".as_bytes(), &mut out);
        decode_text(b"\xffb", &mut out);
        assert_eq!(out, [" a中\u{0}".as_bytes(), b"\xffb"].concat());
    }
}
