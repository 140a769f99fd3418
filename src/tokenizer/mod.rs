//! Text to tokens and back, by the vocabulary that a model file carries.
//!
//! Two families join symbols with `merge`: scored merging of characters (`spm`) and byte-level
//! byte-pair encoding (`bpe`) over pieces cut by a pre-tokenizer (`split`). Two take tokens from a
//! `trie`: the longest pieces of words (`wordpiece`, by `fold`) and the likeliest cut (`unigram`, by
//! `charsmap`). `load` reads the file's metadata, `special` finds tokens that are never cut,
//! `stream` decodes token by token.

use std::fmt;
use std::num::NonZeroUsize;

use crate::control::Signals;
use crate::error::{Code, Error, Result};

mod bpe;
mod cache;
mod charsmap;
mod fold;
mod fold_tables;
mod hash;
mod job;
mod load;
mod merge;
mod names;
mod pair;
mod special;
mod split;
mod spm;
mod stream;
mod trie;
mod unicode;
mod unicode_table;
mod unigram;
mod vocabulary;
mod wordpiece;

pub use stream::StreamDecoder;
pub use vocabulary::Attribute;

use bpe::Bpe;
use cache::Cache;
use hash::Seed;
use job::{Job, Watch};
use load::Roles;
use special::{Finder, Found};
use spm::Spm;
use unigram::Unigram;
use vocabulary::{Vocabulary, out_of_memory};
use wordpiece::WordPiece;

/// Bytes of a text, and tokens made of it, at most: what an `int32_t` counts.
const COUNT_MAX: usize = i32::MAX as usize;

/// A model's vocabulary and its rules. Immutable; any number of threads may use it at once.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    family: Family,
    roles: Roles,
    /// Tokens found in every text.
    user_defined: Finder,
    /// Those, and the ones found when special tokens are parsed.
    special: Finder,
    /// Tokens that take the white space after them, ascending.
    trims: Vec<u32>,
    /// Bytes that one token can stand for, if no character is left out; else `None`.
    token_bytes_max: Option<NonZeroUsize>,
    /// Of the caches of repeated pieces.
    seed: Seed,
}

#[derive(Debug)]
enum Family {
    Spm(Spm),
    Bpe(Bpe),
    WordPiece(WordPiece),
    Unigram(Unigram),
}

impl Family {
    /// Whether encoding puts a space in front, which decoding takes away.
    fn space_prefix(&self) -> bool {
        match self {
            Self::Spm(spm) => spm.space_prefix(),
            Self::Bpe(_) => false,
            Self::WordPiece(_) => true,
            Self::Unigram(unigram) => unigram.space_prefix(),
        }
    }
}

/// How to encode. The default is plain text: nothing added, nothing parsed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Put BOS in front and EOS behind where the model file asks for them.
    pub add_special: bool,
    /// Turn the texts of control tokens into those tokens. Only for trusted text.
    pub parse_special: bool,
}

/// How to decode. The default is the middle of a text without control tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Show control and unknown tokens by their texts; else they are left out.
    pub special: bool,
    /// The tokens are the start of a text: leave out the space that encoding put in front.
    pub start: bool,
}

impl Tokenizer {
    /// Number of tokens; ids are below it.
    pub fn vocab_len(&self) -> usize {
        self.vocabulary.len()
    }

    /// Appends the tokens of `text` to `out`.
    ///
    /// User-defined tokens are found in every text; of several that start at one place the
    /// longest is taken. A character that the vocabulary cannot express becomes the unknown token;
    /// without one it is left out, as the vocabularies' makers do. Memory and time are linear in
    /// the text, up to a logarithm.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a text of 2 GiB or more, or more than `i32::MAX` tokens;
    /// `OUT_OF_MEMORY`. `out` is as before then.
    pub fn encode(&self, text: &str, options: EncodeOptions, out: &mut Vec<u32>) -> Result<()> {
        self.encode_with(text, options, COUNT_MAX, Signals::default(), out)
    }

    /// As [`encode`](Self::encode), for at most `tokens_max` tokens, and with `signals` that
    /// cancel it; their deadline is not used.
    ///
    /// # Errors
    /// `CONTEXT_FULL` for more tokens, as soon as that is certain; `CANCELLED`. `out` is as before
    /// then.
    pub fn encode_with(
        &self,
        text: &str,
        options: EncodeOptions,
        tokens_max: usize,
        signals: Signals<'_>,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let before = out.len();
        let result = self.encode_all(text, options, &mut Job::new(tokens_max, signals, out));
        if result.is_err() {
            out.truncate(before);
        }
        result
    }

    fn encode_all(&self, text: &str, options: EncodeOptions, job: &mut Job<'_, '_>) -> Result<()> {
        let finder = if options.parse_special {
            &self.special
        } else {
            &self.user_defined
        };
        let find = |from, watch: &mut Watch<'_>| finder.find(&self.vocabulary, text, from, watch);
        self.encode_around((text, find), options.add_special, job)
    }

    /// Encodes a text with the tokens that `find` finds at or after a place, which are never cut.
    fn encode_around(
        &self,
        (text, find): (
            &str,
            impl Fn(usize, &mut Watch<'_>) -> Result<Option<Found>>,
        ),
        add_special: bool,
        job: &mut Job<'_, '_>,
    ) -> Result<()> {
        if text.len() > COUNT_MAX {
            let message = format!("expected at most {COUNT_MAX} bytes, found {}", text.len());
            return Err(Error::new(Code::InvalidArgument, "text", message));
        }
        let (bos, eos) = (self.bos(), self.eos());
        if let Some(bos) = bos.filter(|_| add_special && self.adds_bos()) {
            job.token(bos)?;
        }
        let mut from = 0;
        while let Some(found) = find(from, &mut job.watch)? {
            self.encode_plain(&text[from..found.start], job)?;
            job.token(found.id)?;
            from = found.end;
            if self.trims.binary_search(&found.id).is_ok() {
                from = unicode::run(text, from, unicode::SPACE);
            }
        }
        self.encode_plain(&text[from..], job)?;
        if let Some(eos) = eos.filter(|_| add_special && self.adds_eos()) {
            job.token(eos)?;
        }
        Ok(())
    }

    /// Encodes text that holds no special token.
    fn encode_plain(&self, text: &str, job: &mut Job<'_, '_>) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let vocabulary = &self.vocabulary;
        match &self.family {
            Family::Spm(spm) => {
                // Of a space mark's three bytes a normalized text keeps one.
                job.check(self.tokens_min(text.len() / 3))?;
                let text = spm.normalize(text, &mut job.watch)?;
                job.check(self.tokens_min(text.len()))?;
                let mut cache = Cache::new(text.len(), self.seed)?;
                spm.split(&text, &mut |piece| {
                    job.piece(&mut cache, piece, |merger, watch, out| {
                        spm.encode(vocabulary, piece, merger, watch, out)
                    })
                })
            }
            Family::Bpe(bpe) => {
                job.check(self.tokens_min(text.len()))?;
                let mut cache = Cache::new(text.len(), self.seed)?;
                bpe.pattern().split(text, &mut |piece| {
                    job.piece(&mut cache, piece, |merger, watch, out| {
                        match bpe.whole(vocabulary, piece.as_bytes()) {
                            Some(id) => out.push(id),
                            None => bpe.encode(vocabulary, piece.as_bytes(), merger, watch, out)?,
                        }
                        Ok(())
                    })
                })
            }
            Family::WordPiece(words) => {
                let text = words.normalize(text, &mut job.watch)?;
                let mut cache = Cache::new(text.len(), self.seed)?;
                let mut each = text.split(' ').filter(|word| !word.is_empty());
                each.try_for_each(|word| {
                    job.piece(&mut cache, word, |_, watch, out| {
                        words.encode(vocabulary, word, watch, out)
                    })
                })
            }
            Family::Unigram(unigram) => {
                let text = unigram.normalize(text, &mut job.watch)?;
                let (mut cache, mut best) = (Cache::new(text.len(), self.seed)?, Vec::new());
                unigram.split(&text, &mut |piece| {
                    job.piece(&mut cache, piece, |_, watch, out| {
                        unigram.encode(vocabulary, piece, &mut best, watch, out)
                    })
                })
            }
        }
    }

    /// The fewest tokens that so many bytes without special tokens can make.
    fn tokens_min(&self, bytes: usize) -> usize {
        self.token_bytes_max.map_or(0, |max| bytes / max)
    }

    /// Appends the bytes that `tokens` stand for to `out`; they need not be UTF-8.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an id that is no token, `OUT_OF_MEMORY`; `out` is as before then.
    pub fn decode(&self, tokens: &[u32], options: DecodeOptions, out: &mut Vec<u8>) -> Result<()> {
        let bytes = self.decoded_len(tokens, options)?;
        out.try_reserve_exact(bytes).map_err(|_| out_of_memory())?;
        let mut strip = options.start;
        for &id in tokens {
            out.extend_from_slice(self.rendered(id, options.special, &mut strip)?);
        }
        Ok(())
    }

    /// How many bytes [`decode`](Self::decode) appends for the same arguments.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an id that is no token.
    pub fn decoded_len(&self, tokens: &[u32], options: DecodeOptions) -> Result<usize> {
        let mut strip = options.start;
        tokens.iter().try_fold(0usize, |bytes, &id| {
            let more = self.rendered(id, options.special, &mut strip)?.len();
            Ok(bytes.saturating_add(more))
        })
    }

    /// The text that `tokens` stand for, with U+FFFD for what is not UTF-8.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an id that is no token, `OUT_OF_MEMORY`.
    pub fn decode_text(&self, tokens: &[u32], options: DecodeOptions) -> Result<String> {
        let mut decoder = StreamDecoder::new(options);
        let mut out = String::new();
        for &id in tokens {
            decoder.push(self, id, &mut out)?;
        }
        decoder.finish(&mut out);
        Ok(out)
    }

    /// What token `id` adds to a text. `strip`, at the start of a text, lasts until something is
    /// shown that is no control token.
    fn rendered(&self, id: u32, special: bool, strip: &mut bool) -> Result<&[u8]> {
        let bytes = self.vocabulary.bytes.get(id).ok_or_else(|| {
            let message = format!("expected an id below {}, found {id}", self.vocab_len());
            Error::new(Code::InvalidArgument, "token", message)
        })?;
        match self.vocabulary.attribute(id) {
            Some(Attribute::Control | Attribute::Unknown) => {
                return Ok(if special { bytes } else { &[] });
            }
            Some(Attribute::Normal | Attribute::Unused) if *strip => {
                *strip = false;
                if let [b' ', rest @ ..] = bytes
                    && self.family.space_prefix()
                {
                    return Ok(rest);
                }
            }
            _ => *strip = false,
        }
        Ok(bytes)
    }

    /// The bytes that token `id` stands for; control tokens stand for their texts.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.vocabulary.bytes.get(id)
    }

    /// Token `id` as the file stores it, which need not be UTF-8.
    pub fn token_text(&self, id: u32) -> Option<&[u8]> {
        self.vocabulary.text(id)
    }

    /// The first token that the file stores as `text`.
    pub fn token_id(&self, text: &[u8]) -> Option<u32> {
        self.vocabulary.id_of(text)
    }

    /// What kind of token `id` is.
    pub fn attribute(&self, id: u32) -> Option<Attribute> {
        self.vocabulary.attribute(id)
    }

    /// The beginning of a text.
    pub fn bos(&self) -> Option<u32> {
        self.roles.bos
    }

    /// The end of a text.
    pub fn eos(&self) -> Option<u32> {
        self.roles.eos
    }

    /// The end of a turn in a conversation.
    pub fn eot(&self) -> Option<u32> {
        self.roles.eot
    }

    /// The end of a message within a turn.
    pub fn eom(&self) -> Option<u32> {
        self.roles.eom
    }

    /// What stands for text that the vocabulary cannot express.
    pub fn unknown(&self) -> Option<u32> {
        self.vocabulary.unknown()
    }

    /// What fills up sequences of unequal length.
    pub fn padding(&self) -> Option<u32> {
        self.roles.padding
    }

    /// Whether `add_special` puts BOS in front.
    pub fn adds_bos(&self) -> bool {
        self.roles.adds_bos
    }

    /// Whether `add_special` puts EOS behind.
    pub fn adds_eos(&self) -> bool {
        self.roles.adds_eos
    }

    /// Whether generation ends with token `id`: end of text, turn or message.
    pub fn is_end(&self, id: u32) -> bool {
        self.roles.ends.binary_search(&id).is_ok()
    }

    /// All tokens that end generation, ascending.
    pub fn ends(&self) -> &[u32] {
        &self.roles.ends
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match &self.family {
            Family::Spm(_) => "scored".into(),
            Family::Bpe(bpe) => format!("byte-level, {:?}", bpe.pattern()),
            Family::WordPiece(_) => "pieces of words".into(),
            Family::Unigram(_) => "likeliest cut".into(),
        };
        f.debug_struct("Tokenizer")
            .field("family", &family)
            .field("vocab_len", &self.vocab_len())
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::control::Control;
    use crate::gguf::{Gguf, LoadOptions, Source, Strings, Writer};

    /// A vocabulary of three words, and of more if the test wants them.
    fn tokenizer(more: &[&str]) -> Tokenizer {
        let tokens = ["<unk>", "<s>", "</s>", "a", "▁", "▁a"].iter().chain(more);
        let tokens: Strings = tokens.collect();
        let mut writer = Writer::new();
        writer.set("tokenizer.ggml.model", "llama").unwrap();
        writer
            .set("tokenizer.ggml.scores", vec![0.0f32; tokens.len()])
            .unwrap();
        writer.set("tokenizer.ggml.tokens", tokens).unwrap();
        let source = Source::Owned(writer.to_bytes());
        let file = Gguf::open(source, &LoadOptions::default(), &mut Control::none()).unwrap();
        Tokenizer::load(file.metadata()).unwrap().unwrap()
    }

    #[test]
    fn more_tokens_than_allowed_are_refused() {
        let tokenizer = tokenizer(&[]);
        let options = EncodeOptions {
            add_special: true,
            parse_special: false,
        };
        let mut out = vec![9];
        let mut encode = |text: &str, max| {
            let result = tokenizer.encode_with(text, options, max, Signals::default(), &mut out);
            result.map_err(|e| (e.code(), out.clone()))
        };
        for (text, max) in [("a a", 2), ("aaaa", 4), ("a a a a", 3), ("", 0)] {
            assert_eq!(
                encode(text, max),
                Err((Code::ContextFull, vec![9])),
                "{text}"
            );
        }
        assert_eq!(encode("a a", 3), Ok(()));
        assert_eq!(out, [9, 1, 5, 5]);
    }

    #[test]
    fn a_text_that_cannot_fit_is_refused_at_once_and_a_cancel_is_heeded() {
        // With "a a" the text is one piece; without, it is many.
        for more in [&[][..], &["a▁a"]] {
            let tokenizer = tokenizer(more);
            let text = "a ".repeat(2 << 20);
            let cancel = AtomicBool::new(false);
            let signals = Signals {
                cancel: [None, Some(&cancel)],
                ..Signals::default()
            };
            let options = EncodeOptions::default();
            let mut out = Vec::new();
            let encode = |max, out: &mut Vec<u32>| {
                let result = tokenizer.encode_with(&text, options, max, signals, out);
                result.unwrap_err().code()
            };
            assert_eq!(encode(1 << 18, &mut out), Code::ContextFull);
            assert_eq!(out.capacity(), 0, "not begun");
            cancel.store(true, Ordering::Relaxed);
            assert_eq!(encode(COUNT_MAX, &mut out), Code::Cancelled);
            std::thread::scope(|scope| {
                cancel.store(false, Ordering::Relaxed);
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(5));
                    cancel.store(true, Ordering::Relaxed);
                });
                assert_eq!(encode(COUNT_MAX, &mut out), Code::Cancelled);
            });
        }
    }

    #[test]
    fn the_length_of_what_tokens_stand_for_is_known_without_them() {
        let tokenizer = tokenizer(&[]);
        let tokens = [1, 5, 3, 0, 4, 2];
        for special in [false, true] {
            for start in [false, true] {
                let options = DecodeOptions { special, start };
                let mut out = vec![7];
                tokenizer.decode(&tokens, options, &mut out).unwrap();
                let len = tokenizer.decoded_len(&tokens, options);
                assert_eq!(len, Ok(out.len() - 1));
                assert!(tokenizer.decode(&[3, 6], options, &mut out).is_err());
                assert_eq!(Ok(out.len() - 1), len);
            }
        }
    }
}
