//! Score-driven merging as SentencePiece's BPE does it: a text starts as its characters, and the
//! neighbours whose text is the token with the highest score are joined first.
//!
//! Kudo and Richardson, "SentencePiece: A simple and language independent subword tokenizer and
//! detokenizer for Neural Text Processing" (2018). Files write a space as U+2581; here tokens and
//! text are compared with plain spaces.

use std::borrow::Cow;

use crate::error::{Code, Result};
use crate::tokenizer::job::{BYTES_PER_LOOK, Watch};
use crate::tokenizer::merge::{Join, Merger, NO_ID, Rules, Symbol};
use crate::tokenizer::vocabulary::{Attribute, TextTable, Vocabulary, refused, reserve};

/// What files write for a space: U+2581.
pub(super) const SPACE_MARK: &str = "\u{2581}";

/// The rules of a scored vocabulary.
#[derive(Debug)]
pub(super) struct Spm {
    /// Normal tokens by their bytes.
    table: TextTable,
    /// Order of each token by score, highest first; equal scores are equal.
    ranks: Vec<u32>,
    /// The token of each byte, or `NO_ID`.
    bytes: [u32; 256],
    /// Bytes of the longest token.
    longest: usize,
    /// No token goes on with a space after something else, so words never merge.
    words_apart: bool,
    space_prefix: bool,
}

impl Spm {
    /// The rules of `vocabulary` with one score for each token.
    pub(super) fn new(vocabulary: &Vocabulary, scores: &[f32], space_prefix: bool) -> Result<Self> {
        // A raw space cannot come from a text, whose spaces are all marked.
        let mergeable = |id| {
            vocabulary.attribute(id) == Some(Attribute::Normal)
                && vocabulary
                    .text(id)
                    .is_some_and(|text| !text.contains(&b' '))
        };
        let table = TextTable::new(&vocabulary.bytes, mergeable)?;
        let ids = || (0..vocabulary.len() as u32).filter(|&id| mergeable(id));
        Ok(Self {
            table,
            ranks: ranks(scores)?,
            bytes: vocabulary.byte_ids(),
            longest: vocabulary.bytes.longest(),
            words_apart: never_go_on_with_spaces(vocabulary, ids()),
            space_prefix,
        })
    }

    /// Whether every byte is a token.
    pub(super) fn is_complete(&self) -> bool {
        !self.bytes.contains(&NO_ID)
    }

    /// Whether text gets a space in front, and decoding takes it away.
    pub(super) fn space_prefix(&self) -> bool {
        self.space_prefix
    }

    /// `text` as it is merged: with a space in front if the vocabulary wants it, and with spaces
    /// where the text itself has space marks, which mean the same to the vocabulary.
    pub(super) fn normalize<'t>(
        &self,
        text: &'t str,
        watch: &mut Watch<'_>,
    ) -> Result<Cow<'t, str>> {
        let marked = text.contains(SPACE_MARK);
        if !self.space_prefix && !marked {
            return Ok(Cow::Borrowed(text));
        }
        let mut bytes = Vec::new();
        reserve(&mut bytes, text.len() + 1)?;
        let mut out = String::from_utf8(bytes).expect("nothing is UTF-8");
        if self.space_prefix {
            out.push(' ');
        }
        for (at, part) in text.split(SPACE_MARK).enumerate() {
            if at > 0 {
                out.push(' ');
            }
            let mut rest = part;
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.floor_char_boundary(BYTES_PER_LOOK));
                watch.work(now.len())?;
                out.push_str(now);
                rest = later;
            }
        }
        Ok(Cow::Owned(out))
    }

    /// Calls `emit` with parts of a normalized text that merge independently of each other.
    pub(super) fn split<'t>(
        &self,
        text: &'t str,
        emit: &mut impl FnMut(&'t str) -> Result<()>,
    ) -> Result<()> {
        match self.words_apart {
            true => words(text, emit),
            false => emit(text),
        }
    }

    /// Appends the tokens of `piece`, one of the parts.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        piece: &str,
        merger: &mut Merger,
        watch: &mut Watch<'_>,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        merger.clear(piece.len())?;
        for (at, c) in piece.char_indices() {
            watch.work(1)?;
            merger.push(NO_ID, at, at + c.len_utf8());
        }
        let piece = piece.as_bytes();
        let rules = Scored {
            spm: self,
            vocabulary,
        };
        for symbol in merger.merge(&rules, piece, watch)? {
            let text = &piece[symbol.start as usize..symbol.end as usize];
            match self.table.get(&vocabulary.bytes, text) {
                Some(id) => out.push(id),
                None => self.spell(vocabulary, text, out),
            }
        }
        Ok(())
    }

    /// Appends a character that is no token, byte by byte, or as unknown.
    fn spell(&self, vocabulary: &Vocabulary, text: &[u8], out: &mut Vec<u32>) {
        // The space that is no token is spelled as the file would write it.
        let text = if text == b" " {
            SPACE_MARK.as_bytes()
        } else {
            text
        };
        let ids = || text.iter().map(|&byte| self.bytes[byte as usize]);
        if ids().all(|id| id != NO_ID) {
            out.extend(ids());
        } else {
            out.extend(vocabulary.unknown());
        }
    }
}

/// Whether none of the tokens goes on with a space after something else.
pub(super) fn never_go_on_with_spaces(
    vocabulary: &Vocabulary,
    mut ids: impl Iterator<Item = u32>,
) -> bool {
    ids.all(|id| {
        let text = vocabulary.bytes.get(id).unwrap_or_default();
        !text
            .windows(2)
            .any(|pair| pair[0] != b' ' && pair[1] == b' ')
    })
}

/// Calls `emit` with the words of a text, each with the spaces before it.
pub(super) fn words<'t>(text: &'t str, emit: &mut impl FnMut(&'t str) -> Result<()>) -> Result<()> {
    let bytes = text.as_bytes();
    let mut start = 0;
    for at in 1..bytes.len() {
        if bytes[at] == b' ' && bytes[at - 1] != b' ' {
            emit(&text[start..at])?;
            start = at;
        }
    }
    emit(&text[start..])
}

struct Scored<'a> {
    spm: &'a Spm,
    vocabulary: &'a Vocabulary,
}

impl Rules for Scored<'_> {
    #[inline]
    fn join(&self, piece: &[u8], left: &Symbol, right: &Symbol) -> Option<Join> {
        let text = &piece[left.start as usize..right.end as usize];
        if text.len() > self.spm.longest {
            return None;
        }
        let id = self.spm.table.get(&self.vocabulary.bytes, text)?;
        Some(Join {
            rank: self.spm.ranks[id as usize],
            id,
        })
    }
}

/// The place of each score in descending order; equal scores share one.
fn ranks(scores: &[f32]) -> Result<Vec<u32>> {
    if let Some(id) = scores.iter().position(|score| score.is_nan()) {
        let key = format!("tokenizer.ggml.scores[{id}]");
        return Err(refused(Code::Format, &key, "expected a number, found NaN"));
    }
    let mut order = Vec::new();
    reserve(&mut order, scores.len())?;
    order.extend(0..scores.len() as u32);
    order.sort_unstable_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
    let mut ranks = Vec::new();
    reserve(&mut ranks, scores.len())?;
    ranks.resize(scores.len(), 0);
    let (mut rank, mut last) = (0, f32::NAN);
    for (place, id) in (0u32..).zip(order) {
        // `==`, so that the two zeros are equal.
        if scores[id as usize] != last {
            (rank, last) = (place, scores[id as usize]);
        }
        ranks[id as usize] = rank;
    }
    Ok(ranks)
}

/// Appends the bytes that `text` stands for: space marks become spaces.
pub(super) fn decode_text(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(byte) = rest.first() {
        match rest.strip_prefix(SPACE_MARK.as_bytes()) {
            Some(after) => {
                out.push(b' ');
                rest = after;
            }
            None => {
                out.push(*byte);
                rest = &rest[1..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_scores_come_first_and_ties_are_equal() {
        let scores = [-1.0, 0.0, -0.0, f32::NEG_INFINITY, 5.0, -1.0];
        assert_eq!(ranks(&scores).unwrap(), [3, 1, 1, 5, 0, 3]);
        let error = ranks(&[0.0, f32::NAN]).unwrap_err();
        assert_eq!(error.place(), "key 'tokenizer.ggml.scores[1]'");
    }

    #[test]
    fn marks_become_spaces() {
        let mut out = Vec::new();
        decode_text("▁a▁▁b\u{2582}".as_bytes(), &mut out);
        decode_text(b"\xe2\x96", &mut out);
        assert_eq!(
            out,
            [
                "  a  b\u{2582}".as_bytes()[1..].to_vec(),
                b"\xe2\x96".to_vec()
            ]
            .concat()
        );
    }
}
