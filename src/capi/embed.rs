//! Embeddings of texts and scores of pairs in C.

use std::ffi::c_char;
use std::mem::offset_of;

use super::arguments::{Buffer, flags, input, invalid, text};
use super::options::{Struct, read};
use super::session::{call, lightgpt_session};
use super::status::LIGHTGPT_OK;
use super::tokenizer::encode_options;
use crate::control::Control;
use crate::error::Result;
use crate::model::spec::Pooling;
use crate::session::{EmbedOptions, Session};

/// How the rows of a text's tokens become an embedding: as the model's file says, or their mean if
/// it does not; of a model that generates text, the last.
pub const LIGHTGPT_POOLING_AUTO: u32 = 0;
/// They do not: an embedding for each token, as wide as the model (`dim` in lightgpt_model_info).
pub const LIGHTGPT_POOLING_NONE: u32 = 1;
/// Their mean.
pub const LIGHTGPT_POOLING_MEAN: u32 = 2;
/// The first one.
pub const LIGHTGPT_POOLING_CLS: u32 = 3;
/// The last one.
pub const LIGHTGPT_POOLING_LAST: u32 = 4;
/// Only as what a file says: the model scores pairs of texts, see lightgpt_session_rerank.
pub const LIGHTGPT_POOLING_RANK: u32 = 5;

/// Leave embeddings as long as the model makes them, instead of giving each the length 1.
pub const LIGHTGPT_EMBED_RAW: u32 = 1 << 0;

/// How to embed a text; all zero: as the model's file says, of length 1.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_embed_options {
    /// Set by LIGHTGPT_EMBED_OPTIONS_INIT.
    pub struct_size: u32,
    /// LIGHTGPT_EMBED_ bits.
    pub flags: u32,
    /// One of LIGHTGPT_POOLING_, but RANK.
    pub pooling: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: as the trait asks.
unsafe impl Struct for lightgpt_embed_options {
    const SIZE_MIN: usize = offset_of!(Self, reserved) + size_of::<u32>();
    const RESERVED: &'static [usize] = &[offset_of!(Self, reserved)];
}

/// Makes numbers of a text such that texts of like meaning have like numbers: with the length 1,
/// which is the default, compare two by the sum of the products of their numbers.
///
/// The text is seen by itself: what the session holds does not count, and stays as it is. With an
/// encoder this is all a session does. The numbers are the same bits for any number of threads and
/// chunks, on every CPU; they depend on the session's `kv_format`.
///
/// text: `text_bytes` bytes of UTF-8; NULL with 0. flags: LIGHTGPT_TEXT_ADD_SPECIAL, which models
/// expect, and LIGHTGPT_TEXT_PARSE_SPECIAL bits. options: NULL for the defaults. buf, cap, needed:
/// see TEXT above, counted in numbers: `embedding` in lightgpt_model_info, with
/// LIGHTGPT_POOLING_NONE `dim` for each token. Asking for their number computes nothing.
/// Errors: LIGHTGPT_CONTEXT_FULL (more tokens than the session can hold),
/// LIGHTGPT_INVALID_ARGUMENT (no tokens), LIGHTGPT_UNSUPPORTED (no tokenizer, or the model ranks and
/// no pooling is given), LIGHTGPT_CANCELLED, LIGHTGPT_NONFINITE, LIGHTGPT_OUT_OF_MEMORY,
/// LIGHTGPT_MEMORY_CAP, LIGHTGPT_FILE_CHANGED, LIGHTGPT_BUFFER_TOO_SMALL, LIGHTGPT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_embed(
    session: *mut lightgpt_session,
    text: *const c_char,
    text_bytes: usize,
    flags: u32,
    options: *const lightgpt_embed_options,
    buf: *mut f32,
    cap: usize,
    needed: *mut usize,
) -> i32 {
    call(session, |session| {
        // SAFETY: the header asks for a buffer of `cap` numbers and a place for their count.
        let out = unsafe { Buffer::new(buf, cap, needed) }?;
        // SAFETY: the header asks for options as large as they say, and `text_bytes` bytes.
        let (options, text) = unsafe {
            (
                read(options, "options")?,
                self::text(text, text_bytes, "text")?,
            )
        };
        let tokens = session.tokenize(text, encode_options(flags)?)?;
        embed(session, &tokens, &options, &out)
    })
}

/// Makes numbers of a text that is tokens.
///
/// tokens: `tokens_len` numbers; NULL with 0. Else as lightgpt_session_embed. Errors: also
/// LIGHTGPT_INVALID_ARGUMENT (a token outside the vocabulary).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_embed_tokens(
    session: *mut lightgpt_session,
    tokens: *const u32,
    tokens_len: usize,
    options: *const lightgpt_embed_options,
    buf: *mut f32,
    cap: usize,
    needed: *mut usize,
) -> i32 {
    call(session, |session| {
        // SAFETY: the header asks for a buffer of `cap` numbers and a place for their count.
        let out = unsafe { Buffer::new(buf, cap, needed) }?;
        // SAFETY: the header asks for options as large as they say, and `tokens_len` tokens.
        let (options, tokens) = unsafe {
            (
                read(options, "options")?,
                input(tokens, tokens_len, "tokens")?,
            )
        };
        embed(session, tokens, &options, &out)
    })
}

/// Scores how well a text answers a query, by a model that was made for it: the higher, the better.
/// Sort texts by it; where a number from 0 to 1 is wanted, take 1 / (1 + exp(-score)).
///
/// Both texts are seen together, by themselves; a decoder is asked for yes or no in the text that its
/// file has for that. The session stays as it is.
/// query: `query_bytes` bytes of UTF-8. text: `text_bytes` bytes of UTF-8. NULL with 0. Control tokens in
/// them are plain text. buf, cap, needed: see TEXT above, counted in scores: a model that ranks
/// gives one, others whose file has a classifier one for each class (`scores` in
/// lightgpt_model_info).
/// Errors: LIGHTGPT_UNSUPPORTED (the model has no classifier, no tokenizer or no such text), and those of
/// lightgpt_session_embed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_rerank(
    session: *mut lightgpt_session,
    query: *const c_char,
    query_bytes: usize,
    text: *const c_char,
    text_bytes: usize,
    buf: *mut f32,
    cap: usize,
    needed: *mut usize,
) -> i32 {
    call(session, |session| {
        // SAFETY: the header asks for a buffer of `cap` numbers and a place for their count.
        let out = unsafe { Buffer::new(buf, cap, needed) }?;
        // SAFETY: the header asks for texts as long as it says.
        let pair = unsafe {
            [
                self::text(query, query_bytes, "query")?,
                self::text(text, text_bytes, "text")?,
            ]
        };
        if out.takes(session.scores()?)? {
            out.fill(&session.rerank(pair, &mut Control::none())?)?;
        }
        Ok(LIGHTGPT_OK)
    })
}

fn embed(
    session: &mut Session,
    tokens: &[u32],
    options: &lightgpt_embed_options,
    out: &Buffer<f32>,
) -> Result<i32> {
    let options = embed_options(options)?;
    session.check_embeds(tokens)?;
    if out.takes(session.embedding_len(tokens.len(), &options)?)? {
        out.fill(&session.embed(tokens, &options, &mut Control::none())?)?;
    }
    Ok(LIGHTGPT_OK)
}

fn embed_options(given: &lightgpt_embed_options) -> Result<EmbedOptions> {
    let flags = flags(given.flags, LIGHTGPT_EMBED_RAW, "options.flags")?;
    Ok(EmbedOptions {
        pooling: match given.pooling {
            LIGHTGPT_POOLING_AUTO => None,
            LIGHTGPT_POOLING_NONE => Some(Pooling::None),
            LIGHTGPT_POOLING_MEAN => Some(Pooling::Mean),
            LIGHTGPT_POOLING_CLS => Some(Pooling::First),
            LIGHTGPT_POOLING_LAST => Some(Pooling::Last),
            other => {
                let message = format!("{other} is no LIGHTGPT_POOLING_ number for an embedding");
                return Err(invalid("options.pooling", message));
            }
        },
        raw: flags & LIGHTGPT_EMBED_RAW != 0,
    })
}

/// The number of how a model's file says that rows become an embedding.
pub(super) fn pooling_number(pooling: Pooling) -> u32 {
    match pooling {
        Pooling::None => LIGHTGPT_POOLING_NONE,
        Pooling::Mean => LIGHTGPT_POOLING_MEAN,
        Pooling::First => LIGHTGPT_POOLING_CLS,
        Pooling::Last => LIGHTGPT_POOLING_LAST,
        Pooling::Rank => LIGHTGPT_POOLING_RANK,
    }
}
