//! Words cut into the longest pieces of a vocabulary, from their start on.
//!
//! Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language
//! Understanding" (2018). Files mark the pieces that begin a word with U+2581; those that go on have
//! no mark.

use crate::error::Result;
use crate::tokenizer::fold::{self, is_dropped, is_ideograph};
use crate::tokenizer::job::Watch;
use crate::tokenizer::trie::Trie;
use crate::tokenizer::unicode::{PUNCTUATION, set_of};
use crate::tokenizer::vocabulary::{Attribute, Vocabulary, out_of_memory};

/// Longer words are unknown.
const WORD_CHARS_MAX: usize = 100;

/// The pieces of a vocabulary.
#[derive(Debug)]
pub(super) struct WordPiece {
    /// Those that begin a word, without the space that they stand for.
    first: Trie,
    /// Those that go on.
    more: Trie,
    /// Whether capitals and accents count: some piece has a capital.
    cased: bool,
}

impl WordPiece {
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self> {
        let text = |id| vocabulary.bytes.get(id).unwrap_or_default();
        let normal = |id| vocabulary.attribute(id) == Some(Attribute::Normal);
        let begins = |id| matches!(text(id), [b' ', _, ..]);
        let first = Trie::new(&vocabulary.bytes, 1, |id| normal(id) && begins(id))?;
        let goes_on = |id| normal(id) && !text(id).is_empty() && text(id)[0] != b' ';
        let more = Trie::new(&vocabulary.bytes, 0, goes_on)?;
        let mut ids = 0..vocabulary.len() as u32;
        let capital = |id| text(id).iter().any(u8::is_ascii_uppercase);
        let cased = ids.any(|id| normal(id) && text(id).first() != Some(&b'[') && capital(id));
        Ok(Self { first, more, cased })
    }

    /// `text` as words with a space before each: without control characters and, if the vocabulary
    /// has none, capitals and accents; punctuation marks and ideographs are words of their own.
    pub(super) fn normalize(&self, text: &str, watch: &mut Watch<'_>) -> Result<String> {
        let mut out = String::new();
        // Whether the next character begins a word.
        let mut begins = true;
        for c in text.chars() {
            watch.work(1)?;
            // Folding makes at most four characters of one, each with a space before it.
            out.try_reserve(32).map_err(|_| out_of_memory())?;
            if is_dropped(c) {
                continue;
            }
            if c.is_whitespace() {
                begins = true;
                continue;
            }
            let apart = is_ideograph(c);
            let mut push = |c: char| {
                let apart = apart || c.is_ascii_punctuation() || set_of(c) == PUNCTUATION;
                if apart || begins {
                    out.push(' ');
                }
                out.push(c);
                begins = apart;
            };
            match self.cased {
                true => push(c),
                false => fold::fold(c, push),
            }
        }
        Ok(out)
    }

    /// Appends the tokens of a word.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        word: &str,
        watch: &mut Watch<'_>,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        if word.chars().nth(WORD_CHARS_MAX).is_some() {
            out.extend(vocabulary.unknown());
            return Ok(());
        }
        let before = out.len();
        let mut at = 0;
        while at < word.len() {
            let trie = if at == 0 { &self.first } else { &self.more };
            let mut longest = None;
            let text = &word.as_bytes()[at..];
            let looked = trie.prefixes(&vocabulary.bytes, text, |id, len| {
                longest = Some((id, len));
            });
            watch.work(looked)?;
            let Some((id, len)) = longest else {
                out.truncate(before);
                out.extend(vocabulary.unknown());
                return Ok(());
            };
            out.push(id);
            at += len;
        }
        Ok(())
    }
}
