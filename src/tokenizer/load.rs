//! From a file's metadata to a checked tokenizer. Nothing after this trusts the file.

use std::num::NonZeroUsize;

use crate::error::{Code, Error, Result};
use crate::gguf::{Array, Metadata, Strings, Value};
use crate::tokenizer::bpe::{self, Bpe};
use crate::tokenizer::charsmap::CharsMap;
use crate::tokenizer::hash::Seed;
use crate::tokenizer::names::{
    END_OF_MESSAGE, END_OF_TURN, MESSAGE_END, PRE_TOKENIZER_DEFAULT, PRE_TOKENIZERS, PreTokenizer,
    TRIMS,
};
use crate::tokenizer::special::Finder;
use crate::tokenizer::spm::{self, Spm};
use crate::tokenizer::unigram::{Rules, Unigram};
use crate::tokenizer::vocabulary::{Attribute, Texts, Vocabulary, refused, reserve, shown};
use crate::tokenizer::wordpiece::WordPiece;
use crate::tokenizer::{Family, Tokenizer};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const CHARS_MAP: &str = "tokenizer.ggml.precompiled_charsmap";
const MERGES: &str = "tokenizer.ggml.merges";

/// Bytes of a token at most; real ones have up to about 500.
const TOKEN_BYTES_MAX: usize = 1 << 16;

/// Bytes at most of a token that is looked for in texts: every place costs up to so many steps.
const SPECIAL_BYTES_MAX: usize = 1 << 10;

/// The part that single tokens play.
#[derive(Debug, Default)]
pub(super) struct Roles {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) eot: Option<u32>,
    pub(super) eom: Option<u32>,
    pub(super) padding: Option<u32>,
    pub(super) separator: Option<u32>,
    pub(super) adds_bos: bool,
    pub(super) adds_eos: bool,
    /// Between two texts.
    pub(super) adds_separator: bool,
    /// Tokens that end generation, ascending.
    pub(super) ends: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Spm,
    Bpe(PreTokenizer),
    WordPiece,
    Unigram,
}

impl Kind {
    /// Whether files write spaces as marks.
    fn has_marks(self) -> bool {
        !matches!(self, Self::Bpe(_))
    }
}

impl Tokenizer {
    /// The tokenizer that the keys `tokenizer.ggml.*` describe, or `None` when the file has none
    /// (its model absent, `none` or `no_vocab`).
    ///
    /// A byte-level vocabulary without `tokenizer.ggml.pre` is cut as GPT-2's. An id that the file
    /// names must be a token; where it names none, a scored vocabulary has `<unk>`, `<s>` and
    /// `</s>` at 0, 1 and 2 and a byte-level one BOS and EOS at 11, if such tokens exist.
    /// Of equal tokens the first is found.
    ///
    /// # Errors
    /// `FORMAT`, naming the key and its offset, for values that are missing, of a wrong type or length, or out of
    /// range; `UNSUPPORTED` for another model or pre-tokenizer; `OUT_OF_MEMORY`.
    pub fn load(metadata: &Metadata) -> Result<Option<Self>> {
        Self::load_checked(metadata).map_err(|error| with_offset(error, metadata))
    }

    fn load_checked(metadata: &Metadata) -> Result<Option<Self>> {
        let kind = match metadata.str(MODEL)? {
            None | Some("none" | "no_vocab") => return Ok(None),
            Some("llama") => Kind::Spm,
            Some("gpt2") => Kind::Bpe(pre_tokenizer(metadata)?),
            Some("bert") => Kind::WordPiece,
            Some("t5") => Kind::Unigram,
            Some(other) => {
                let found = shown(other.as_bytes());
                let message = format!("expected llama, gpt2, bert or t5, found {found}");
                return Err(refused(Code::Unsupported, MODEL, message));
            }
        };
        let tokens = metadata.required(TOKENS, Metadata::strings)?;
        check_tokens(tokens)?;
        let attributes = attributes(metadata, tokens, kind)?;
        let bytes = decoded(tokens, &attributes, kind)?;
        let ids = named_ids(metadata, tokens.len())?;
        let unknown = ids.unknown.or(match kind {
            Kind::Spm => Some(0),
            Kind::Bpe(_) => None,
            Kind::WordPiece => known(100, tokens.len()),
            Kind::Unigram => known(2, tokens.len()),
        });
        let vocabulary = Vocabulary::new(stored(tokens)?, bytes, attributes, unknown)?;
        let family = family(metadata, &vocabulary, kind)?;
        let roles = roles(metadata, &vocabulary, ids, kind)?;
        let is = |id, wanted: &[Attribute]| {
            vocabulary
                .attribute(id)
                .is_some_and(|attribute| wanted.contains(&attribute))
        };
        let always = [Attribute::UserDefined];
        let parsed = [
            Attribute::UserDefined,
            Attribute::Control,
            Attribute::Unknown,
        ];
        Ok(Some(Self {
            user_defined: Finder::new(&vocabulary, |id| is(id, &always))?,
            special: Finder::new(&vocabulary, |id| is(id, &parsed))?,
            trims: trims(metadata, &vocabulary, kind)?,
            token_bytes_max: token_bytes_max(&vocabulary, &family),
            seed: Seed::random(),
            vocabulary,
            family,
            roles,
        }))
    }
}

/// An error about a key or its item (`refused` names it) with the key's offset in the file.
fn with_offset(error: Error, metadata: &Metadata) -> Error {
    let place = error.place();
    let name = place
        .strip_prefix("key '")
        .and_then(|p| p.strip_suffix('\''));
    let key = name.and_then(|name| name.split('[').next());
    match key.and_then(|key| metadata.offset(key)) {
        Some(offset) => error.at_offset(offset),
        None => error,
    }
}

fn pre_tokenizer(metadata: &Metadata) -> Result<PreTokenizer> {
    let name = metadata.str(PRE)?.unwrap_or(PRE_TOKENIZER_DEFAULT);
    if let Some((_, found)) = PRE_TOKENIZERS.iter().find(|entry| entry.0 == name) {
        return Ok(*found);
    }
    let known: Vec<&str> = PRE_TOKENIZERS.iter().map(|entry| entry.0).collect();
    let found = shown(name.as_bytes());
    let message = format!("expected one of {}, found {found}", known.join(", "));
    Err(refused(Code::Unsupported, PRE, message))
}

fn check_tokens(tokens: &Strings) -> Result<()> {
    if tokens.is_empty() || tokens.len() > i32::MAX as usize {
        let message = format!("expected 1 to {} tokens, found {}", i32::MAX, tokens.len());
        return Err(refused(Code::Format, TOKENS, message));
    }
    match tokens.iter().position(|text| text.len() > TOKEN_BYTES_MAX) {
        Some(id) => Err(too_long(tokens, id, TOKEN_BYTES_MAX)),
        None => Ok(()),
    }
}

fn too_long(tokens: &Strings, id: usize, bytes_max: usize) -> Error {
    let found = tokens.get(id).unwrap_or_default().len();
    let message = format!("expected at most {bytes_max} bytes, found {found}");
    refused(Code::Format, &format!("{TOKENS}[{id}]"), message)
}

fn check_length(key: &str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let message = format!("expected {expected} items, one for each token, found {found}");
    Err(refused(Code::Format, key, message))
}

fn attributes(metadata: &Metadata, tokens: &Strings, kind: Kind) -> Result<Vec<Attribute>> {
    let mut attributes = Vec::new();
    reserve(&mut attributes, tokens.len())?;
    let at = |id: usize, number: i64| {
        i32::try_from(number)
            .ok()
            .and_then(Attribute::from_number)
            .ok_or_else(|| {
                let message = format!("expected a token type, 0 to 6, found {number}");
                refused(Code::Format, &format!("{TYPES}[{id}]"), message)
            })
    };
    match metadata.get(TYPES) {
        // Without types only the bytes of a scored vocabulary stand out.
        None => attributes.extend(tokens.iter().map(|text| match kind {
            Kind::Spm | Kind::Unigram if byte_of(text).is_some() => Attribute::Byte,
            _ => Attribute::Normal,
        })),
        Some(Value::Array(Array::I32(types))) => {
            for (id, &number) in types.iter().enumerate().take(tokens.len()) {
                attributes.push(at(id, number.into())?);
            }
            check_length(TYPES, tokens.len(), types.len())?;
        }
        Some(Value::Array(Array::U32(types))) => {
            for (id, &number) in types.iter().enumerate().take(tokens.len()) {
                attributes.push(at(id, number.into())?);
            }
            check_length(TYPES, tokens.len(), types.len())?;
        }
        Some(other) => {
            let message = format!("expected array of i32, found {}", other.type_name());
            return Err(refused(Code::Format, TYPES, message));
        }
    }
    let found_in_text = [
        Attribute::Control,
        Attribute::UserDefined,
        Attribute::Unknown,
    ];
    for (id, (text, attribute)) in tokens.iter().zip(&attributes).enumerate() {
        if text.len() > SPECIAL_BYTES_MAX && found_in_text.contains(attribute) {
            return Err(too_long(tokens, id, SPECIAL_BYTES_MAX));
        }
    }
    Ok(attributes)
}

/// The byte that `<0xNN>` names.
fn byte_of(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let &[high, low] = digits else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

fn stored(tokens: &Strings) -> Result<Texts> {
    let mut texts = Texts::with_room(tokens.len())?;
    for text in tokens.iter() {
        texts.push(text, |out| out.extend_from_slice(text))?;
    }
    Ok(texts)
}

/// What each token stands for.
fn decoded(tokens: &Strings, attributes: &[Attribute], kind: Kind) -> Result<Texts> {
    let mut texts = Texts::with_room(tokens.len())?;
    for (id, (text, attribute)) in tokens.iter().zip(attributes).enumerate() {
        match (attribute, kind) {
            (Attribute::Byte, _) => {
                let byte = byte_of(text).ok_or_else(|| {
                    let message =
                        format!("expected a byte, <0x00> to <0xFF>, found {}", shown(text));
                    refused(Code::Format, &format!("{TOKENS}[{id}]"), message)
                })?;
                texts.push(text, |out| out.push(byte))?;
            }
            (Attribute::Normal | Attribute::Unused, kind) if kind.has_marks() => {
                texts.push(text, |out| spm::decode_text(text, out))?;
            }
            (Attribute::Normal | Attribute::Unused, _) => {
                texts.push(text, |out| bpe::decode_text(text, out))?;
            }
            _ => texts.push(text, |out| out.extend_from_slice(text))?,
        }
    }
    Ok(texts)
}

fn family(metadata: &Metadata, vocabulary: &Vocabulary, kind: Kind) -> Result<Family> {
    let scores = || {
        let scores = metadata.required(SCORES, Metadata::f32s)?;
        check_length(SCORES, vocabulary.len(), scores.len())?;
        Ok(scores)
    };
    let flag = |key: &str, default| Ok(metadata.bool(key)?.unwrap_or(default));
    let space_prefix = || flag("tokenizer.ggml.add_space_prefix", true);
    Ok(match kind {
        Kind::Spm => Family::Spm(Spm::new(vocabulary, scores()?, space_prefix()?)?),
        Kind::WordPiece => Family::WordPiece(WordPiece::new(vocabulary)?),
        Kind::Unigram => {
            let rules = Rules {
                map: chars_map(metadata)?,
                space_prefix: space_prefix()?,
                squeezes: flag("tokenizer.ggml.remove_extra_whitespaces", true)?,
            };
            Family::Unigram(Unigram::new(vocabulary, scores()?, rules)?)
        }
        Kind::Bpe(pre) => {
            let merges = metadata.required(MERGES, Metadata::strings)?;
            Family::Bpe(Bpe::new(
                vocabulary,
                merges,
                pre.pattern,
                pre.ignore_merges,
            )?)
        }
    })
}

fn chars_map(metadata: &Metadata) -> Result<Option<CharsMap>> {
    let mut bytes = Vec::new();
    match metadata.get(CHARS_MAP) {
        None => {}
        Some(Value::Array(Array::U8(given))) => {
            reserve(&mut bytes, given.len())?;
            bytes.extend_from_slice(given);
        }
        // Older files hold them with a sign.
        Some(Value::Array(Array::I8(given))) => {
            reserve(&mut bytes, given.len())?;
            bytes.extend(given.iter().map(|byte| byte.cast_unsigned()));
        }
        Some(other) => {
            let message = format!("expected array of u8, found {}", other.type_name());
            return Err(refused(Code::Format, CHARS_MAP, message));
        }
    }
    match bytes.is_empty() {
        true => Ok(None),
        false => CharsMap::parse(&bytes, CHARS_MAP).map(Some),
    }
}

/// The id, if there are as many tokens.
fn known(id: u32, tokens: usize) -> Option<u32> {
    Some(id).filter(|&id| (id as usize) < tokens)
}

/// The ids that the file names.
#[derive(Default)]
struct Ids {
    bos: Option<u32>,
    eos: Option<u32>,
    eot: Option<u32>,
    eom: Option<u32>,
    unknown: Option<u32>,
    padding: Option<u32>,
    /// What encoders begin with.
    class: Option<u32>,
    /// What they end with, and put between texts.
    separator: Option<u32>,
}

/// Reads every key `tokenizer.ggml.*_token_id` and checks that it is the id of a token.
fn named_ids(metadata: &Metadata, tokens: usize) -> Result<Ids> {
    let mut ids = Ids::default();
    for (key, _) in metadata.iter() {
        let name = key
            .strip_prefix("tokenizer.ggml.")
            .and_then(|k| k.strip_suffix("_token_id"));
        let Some(name) = name else {
            continue;
        };
        let Some(id) = metadata.u32(key)? else {
            continue;
        };
        if id as usize >= tokens {
            let message = format!("expected the id of one of {tokens} tokens, found {id}");
            return Err(refused(Code::Format, key, message));
        }
        match name {
            "bos" => ids.bos = Some(id),
            "eos" => ids.eos = Some(id),
            "eot" => ids.eot = Some(id),
            "eom" => ids.eom = Some(id),
            "unknown" => ids.unknown = Some(id),
            "padding" => ids.padding = Some(id),
            "cls" => ids.class = Some(id),
            // Files spell it so.
            "seperator" | "separator" => ids.separator = Some(id),
            _ => {}
        }
    }
    Ok(ids)
}

fn roles(metadata: &Metadata, vocabulary: &Vocabulary, ids: Ids, kind: Kind) -> Result<Roles> {
    let is_control = |id| vocabulary.attribute(id) == Some(Attribute::Control);
    // Id 11 is the end of text in the first byte-level files, but a comma in many others.
    let defaults = match kind {
        Kind::Spm => [1, 2].map(|id| known(id, vocabulary.len())),
        Kind::Bpe(_) => [Some(11).filter(|&id| is_control(id)); 2],
        Kind::WordPiece => [101, 102].map(|id| known(id, vocabulary.len())),
        Kind::Unigram => [None, known(1, vocabulary.len())],
    };
    let by_name = |name: &&str| {
        let id = vocabulary.id_of(name.as_bytes())?;
        let attribute = vocabulary.attribute(id)?;
        matches!(attribute, Attribute::Control | Attribute::UserDefined).then_some(id)
    };
    let (bos, eos) = match kind {
        Kind::WordPiece => (ids.class.or(ids.bos), ids.separator.or(ids.eos)),
        _ => (ids.bos.or(ids.class), ids.eos.or(ids.separator)),
    };
    let (bos, eos) = (bos.or(defaults[0]), eos.or(defaults[1]));
    let eot = ids.eot.or(END_OF_TURN.iter().find_map(by_name));
    let eom = ids.eom.or(END_OF_MESSAGE.iter().find_map(by_name));
    let goes_on = by_name(&MESSAGE_END.0).and(by_name(&MESSAGE_END.1));
    let named = END_OF_TURN.iter().chain(END_OF_MESSAGE).filter_map(by_name);
    let named = named.filter(|&id| Some(id) != goes_on);
    let mut ends: Vec<u32> = named.chain(eos).chain(ids.eot).chain(ids.eom).collect();
    ends.sort_unstable();
    ends.dedup();
    let adds_bos = match (metadata.bool("tokenizer.ggml.add_bos_token")?, kind) {
        (Some(adds), _) => adds,
        (None, Kind::Spm | Kind::WordPiece) => true,
        (None, Kind::Bpe(pre)) => pre.adds_bos,
        (None, Kind::Unigram) => false,
    };
    let adds_eos = metadata.bool("tokenizer.ggml.add_eos_token")?;
    let adds_eos = adds_eos.unwrap_or(matches!(kind, Kind::WordPiece | Kind::Unigram));
    let adds_separator = metadata.bool("tokenizer.ggml.add_sep_token")?;
    // Pieces of words have one token for both the end and what separates.
    let adds_separator = adds_separator.unwrap_or(false) && !matches!(kind, Kind::WordPiece);
    Ok(Roles {
        bos,
        eos,
        eot,
        eom,
        padding: ids.padding,
        separator: ids.separator,
        adds_bos: adds_bos && bos.is_some(),
        adds_eos: adds_eos && eos.is_some(),
        adds_separator: adds_separator && ids.separator.is_some(),
        ends,
    })
}

/// Bytes that one token can stand for, if no character is left out of what encoding makes.
fn token_bytes_max(vocabulary: &Vocabulary, family: &Family) -> Option<NonZeroUsize> {
    let complete = match family {
        Family::Spm(spm) => spm.is_complete(),
        Family::Bpe(bpe) => bpe.is_complete(),
        // Normalizing may leave nothing of a text.
        Family::WordPiece(_) | Family::Unigram(_) => return None,
    };
    // What no token spells is unknown character by character.
    let max = vocabulary.longest().max(char::MAX.len_utf8());
    NonZeroUsize::new(max).filter(|_| complete || vocabulary.unknown().is_some())
}

/// The tokens that take the white space after them, ascending.
fn trims(metadata: &Metadata, vocabulary: &Vocabulary, kind: Kind) -> Result<Vec<u32>> {
    let architecture = metadata.str("general.architecture")?;
    let rule = TRIMS
        .iter()
        .find(|rule| Some(rule.architecture) == architecture);
    let (Some(rule), Kind::Spm) = (rule, kind) else {
        return Ok(Vec::new());
    };
    let named = |id, names: &[&str]| {
        let text = vocabulary.text(id).unwrap_or_default();
        names.iter().any(|name| name.as_bytes() == text)
    };
    let ids = (0..vocabulary.len() as u32).filter(|&id| {
        let control = vocabulary.attribute(id) == Some(Attribute::Control);
        control && !named(id, rule.except) || named(id, rule.also)
    });
    Ok(ids.collect())
}
