//! The likeliest of all ways to cut a text into tokens, whose scores are logarithms of
//! probabilities: Viterbi's algorithm.
//!
//! Kudo, "Subword Regularization: Improving Neural Network Translation Models with Multiple Subword
//! Candidates" (2018), as SentencePiece has it. Sums are made in f64, so that long texts keep the
//! differences between short tokens.

use crate::error::{Code, Error, Result};
use crate::tokenizer::COUNT_MAX;
use crate::tokenizer::charsmap::CharsMap;
use crate::tokenizer::job::Watch;
use crate::tokenizer::merge::NO_ID;
use crate::tokenizer::spm::{SPACE_MARK, never_go_on_with_spaces, words};
use crate::tokenizer::trie::Trie;
use crate::tokenizer::vocabulary::{Attribute, Vocabulary, out_of_memory, refused, reserve};

/// How much less than the least likely token an unknown character counts.
const UNKNOWN_PENALTY: f64 = 10.0;

/// Bytes of a token at most: every place of a text costs up to so many steps.
const TOKEN_BYTES_MAX: usize = 1 << 10;

/// What the file says about texts.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// By which texts are normalized.
    pub(super) map: Option<CharsMap>,
    /// Whether a text gets a space in front.
    pub(super) space_prefix: bool,
    /// Whether spaces at the ends of a text, and all but one of those that follow each other, are
    /// left out.
    pub(super) squeezes: bool,
}

/// The rules of a vocabulary with probabilities.
#[derive(Debug)]
pub(super) struct Unigram {
    trie: Trie,
    /// Of each token.
    scores: Vec<f32>,
    /// The token of each byte, or `NO_ID`.
    bytes: [u32; 256],
    unknown_score: f64,
    /// Each word is cut by itself.
    words_apart: bool,
    rules: Rules,
}

/// The best way to a place of a text: its score, where its last token begins, and that token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Best {
    score: f64,
    start: u32,
    id: u32,
}

impl Unigram {
    /// The rules of `vocabulary` with one score for each token.
    pub(super) fn new(vocabulary: &Vocabulary, scores: &[f32], rules: Rules) -> Result<Self> {
        if let Some(id) = scores.iter().position(|score| !score.is_finite()) {
            let key = format!("tokenizer.ggml.scores[{id}]");
            let message = format!("expected a finite number, found {}", scores[id]);
            return Err(refused(Code::Format, &key, message));
        }
        let normal = |id| vocabulary.attribute(id) == Some(Attribute::Normal);
        let ids = || (0..vocabulary.len() as u32).filter(|&id| normal(id));
        let long = |id: &u32| {
            vocabulary
                .bytes
                .get(*id)
                .is_some_and(|t| t.len() > TOKEN_BYTES_MAX)
        };
        if let Some(id) = ids().find(long) {
            let key = format!("tokenizer.ggml.tokens[{id}]");
            let message = format!("expected at most {TOKEN_BYTES_MAX} bytes, found more");
            return Err(refused(Code::Format, &key, message));
        }
        let least = ids().map(|id| f64::from(scores[id as usize]));
        let least = least.fold(f64::INFINITY, |a, b| if b < a { b } else { a });
        let mut kept = Vec::new();
        reserve(&mut kept, scores.len())?;
        kept.extend_from_slice(scores);
        // A word that begins with an unknown space would be one with the unknown before it.
        let has_space = ids().any(|id| vocabulary.bytes.get(id) == Some(b" "));
        Ok(Self {
            trie: Trie::new(&vocabulary.bytes, 0, normal)?,
            scores: kept,
            bytes: vocabulary.byte_ids(),
            unknown_score: if least.is_finite() { least } else { 0.0 } - UNKNOWN_PENALTY,
            words_apart: has_space && never_go_on_with_spaces(vocabulary, ids()),
            rules,
        })
    }

    /// Whether text gets a space in front, and decoding takes it away.
    pub(super) fn space_prefix(&self) -> bool {
        self.rules.space_prefix
    }

    /// `text` by the rules of the file, with spaces where files write marks.
    pub(super) fn normalize(&self, text: &str, watch: &mut Watch<'_>) -> Result<String> {
        let mut out = String::new();
        let (mut rest, mut begun) = (text, false);
        let squeezes = self.rules.squeezes;
        let mut after_space = squeezes;
        while !rest.is_empty() {
            let (taken, piece) = self.replaced(rest);
            watch.work(taken.max(piece.len()))?;
            rest = &rest[taken..];
            if !begun && squeezes && piece == " " {
                continue;
            }
            out.try_reserve(piece.len() + 1)
                .map_err(|_| out_of_memory())?;
            if !begun && self.rules.space_prefix {
                out.push(' ');
            }
            begun = true;
            let piece = match after_space {
                true => piece.trim_start_matches(' '),
                false => piece,
            };
            if !piece.is_empty() {
                push_unmarked(piece, &mut out);
                after_space = squeezes && piece.ends_with(' ');
            }
            if out.len() > COUNT_MAX {
                let message = format!("expected at most {COUNT_MAX} bytes once normalized");
                return Err(Error::new(Code::InvalidArgument, "text", message));
            }
        }
        if squeezes {
            out.truncate(out.trim_end_matches(' ').len());
        }
        Ok(out)
    }

    /// The length of the start of `text` that is normalized at once, and what it becomes.
    fn replaced<'a>(&'a self, text: &'a str) -> (usize, &'a str) {
        let map = self.rules.map.as_ref();
        let found = map.and_then(|map| map.replacement(text.as_bytes()));
        match found.filter(|(taken, _)| text.is_char_boundary(*taken)) {
            Some(found) => found,
            None => {
                let len = text.chars().next().map_or(0, char::len_utf8);
                (len, &text[..len])
            }
        }
    }

    /// Calls `emit` with parts of a normalized text that are cut independently of each other.
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

    /// Appends the tokens of `piece`, one of the parts; `best` is room.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        piece: &str,
        best: &mut Vec<Best>,
        watch: &mut Watch<'_>,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        self.find_best(vocabulary, piece, best, watch)?;
        let before = out.len();
        let (mut end, mut was_unknown) = (piece.len(), false);
        while end > 0 {
            let Best { start, id, .. } = best[end];
            let text = &piece[start as usize..end];
            end = start as usize;
            let is_unknown = id == NO_ID && !self.spell(text, out);
            match (id, is_unknown) {
                (NO_ID, false) => {}
                // Unknown characters that follow each other are one.
                (NO_ID, true) if was_unknown => {}
                (NO_ID, true) => out.extend(vocabulary.unknown()),
                (id, _) => out.push(id),
            }
            was_unknown = is_unknown;
        }
        out[before..].reverse();
        Ok(())
    }

    /// The best way to each place of `piece`, from its start on.
    fn find_best(
        &self,
        vocabulary: &Vocabulary,
        piece: &str,
        best: &mut Vec<Best>,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        best.clear();
        let nowhere = Best {
            score: f64::NEG_INFINITY,
            start: 0,
            id: NO_ID,
        };
        best.try_reserve(piece.len() + 1)
            .map_err(|_| out_of_memory())?;
        best.resize(piece.len() + 1, nowhere);
        best[0].score = 0.0;
        for (at, c) in piece.char_indices() {
            let (here, start) = (best[at].score, at as u32);
            let mut reach = |len: usize, score: f64, id| {
                let there = &mut best[at + len];
                if here + score > there.score {
                    let score = here + score;
                    *there = Best { score, start, id };
                }
            };
            let mut is_known = false;
            let text = &piece.as_bytes()[at..];
            let looked = self.trie.prefixes(&vocabulary.bytes, text, |id, len| {
                is_known |= len == c.len_utf8();
                reach(len, f64::from(self.scores[id as usize]), id);
            });
            if !is_known {
                reach(c.len_utf8(), self.unknown_score, NO_ID);
            }
            watch.work(looked + 1)?;
        }
        Ok(())
    }

    /// Appends a character byte by byte, the last first, if all its bytes are tokens.
    fn spell(&self, text: &str, out: &mut Vec<u32>) -> bool {
        // The space that is no token is spelled as the file would write it.
        let text = if text == " " { SPACE_MARK } else { text };
        let ids = || text.bytes().rev().map(|byte| self.bytes[byte as usize]);
        let known = ids().all(|id| id != NO_ID);
        if known {
            out.extend(ids());
        }
        known
    }
}

/// Appends `piece` with spaces in place of marks, which mean the same to the vocabulary.
fn push_unmarked(piece: &str, out: &mut String) {
    for (at, part) in piece.split(SPACE_MARK).enumerate() {
        if at > 0 {
            out.push(' ');
        }
        out.push_str(part);
    }
}
