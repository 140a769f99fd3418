//! Text to tokens and back.

use std::ffi::c_char;

use super::arguments::{Buffer, Out, flags, input, invalid, text};
use super::guard::guard;
use super::model::{ModelObject, lightgpt_model};
use super::objects::{enter, text_of};
use super::status::LIGHTGPT_OK;
use crate::error::{Code, Error, Result};
use crate::tokenizer::{Attribute, DecodeOptions, EncodeOptions, Tokenizer};

/// Add the tokens that the model wants at the beginning and the end of a text (BOS, EOS).
pub const LIGHTGPT_TEXT_ADD_SPECIAL: u32 = 1 << 0;
/// Read the spelling of control tokens (`</s>` and the like) as those tokens. Never set it for text that
/// others wrote.
pub const LIGHTGPT_TEXT_PARSE_SPECIAL: u32 = 1 << 1;
/// Spell control tokens out instead of leaving them out.
pub const LIGHTGPT_TEXT_SHOW_SPECIAL: u32 = 1 << 2;
/// The tokens begin a text: leave out the space that some vocabularies put in front of it.
pub const LIGHTGPT_TEXT_START: u32 = 1 << 3;

/// Attribute of a token: ordinary text.
pub const LIGHTGPT_TOKEN_NORMAL: u32 = 1 << 0;
/// Attribute of a token: stands for what the vocabulary cannot spell.
pub const LIGHTGPT_TOKEN_UNKNOWN: u32 = 1 << 1;
/// Attribute of a token: steers the model, is no text.
pub const LIGHTGPT_TOKEN_CONTROL: u32 = 1 << 2;
/// Attribute of a token: added by the model's maker as a whole word.
pub const LIGHTGPT_TOKEN_USER_DEFINED: u32 = 1 << 3;
/// Attribute of a token: never used.
pub const LIGHTGPT_TOKEN_UNUSED: u32 = 1 << 4;
/// Attribute of a token: one byte.
pub const LIGHTGPT_TOKEN_BYTE: u32 = 1 << 5;
/// Attribute of a token: ends the model's answer.
pub const LIGHTGPT_TOKEN_END: u32 = 1 << 6;

/// Special token: begins a text.
pub const LIGHTGPT_SPECIAL_BOS: u32 = 1;
/// Special token: ends a text.
pub const LIGHTGPT_SPECIAL_EOS: u32 = 2;
/// Special token: ends a turn of a dialogue.
pub const LIGHTGPT_SPECIAL_EOT: u32 = 3;
/// Special token: ends a message that a turn goes on after.
pub const LIGHTGPT_SPECIAL_EOM: u32 = 4;
/// Special token: unknown text.
pub const LIGHTGPT_SPECIAL_UNKNOWN: u32 = 5;
/// Special token: padding.
pub const LIGHTGPT_SPECIAL_PADDING: u32 = 6;

/// Turns text into tokens.
///
/// text: `text_bytes` bytes of UTF-8; NULL with 0. flags: LIGHTGPT_TEXT_ADD_SPECIAL and
/// LIGHTGPT_TEXT_PARSE_SPECIAL bits. buf, cap, needed: see TEXT above, counted in tokens. Any
/// thread.
/// Errors: LIGHTGPT_UNSUPPORTED (no tokenizer, or an unknown one), LIGHTGPT_BUFFER_TOO_SMALL,
/// LIGHTGPT_OUT_OF_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_tokenize(
    model: *const lightgpt_model,
    text: *const c_char,
    text_bytes: usize,
    flags: u32,
    buf: *mut u32,
    cap: usize,
    needed: *mut usize,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a buffer of `cap` tokens, a place for its size, and text.
        let out = unsafe { Buffer::new(buf, cap, needed) }?;
        let options = encode_options(flags)?;
        let model = enter(model)?;
        let mut tokens = Vec::new();
        // SAFETY: as above.
        let text = unsafe { self::text(text, text_bytes, "text") }?;
        model
            .model
            .tokenizer()?
            .encode(text, options, &mut tokens)?;
        out.fill(&tokens)?;
        Ok(LIGHTGPT_OK)
    })
}

/// Turns tokens into text: the bytes that they stand for, which need not be whole characters at
/// the ends of a cut.
///
/// tokens: `tokens_len` numbers; NULL with 0. flags: LIGHTGPT_TEXT_SHOW_SPECIAL and
/// LIGHTGPT_TEXT_START bits. buf, cap, needed: see TEXT above. Any thread.
/// Errors: LIGHTGPT_INVALID_ARGUMENT (a token outside the vocabulary), LIGHTGPT_UNSUPPORTED (no
/// tokenizer, or an unknown one), LIGHTGPT_BUFFER_TOO_SMALL, LIGHTGPT_OUT_OF_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_detokenize(
    model: *const lightgpt_model,
    tokens: *const u32,
    tokens_len: usize,
    flags: u32,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
) -> i32 {
    let fill = |model: &ModelObject, out: &Buffer<u8>| {
        let known = LIGHTGPT_TEXT_SHOW_SPECIAL | LIGHTGPT_TEXT_START;
        let flags = self::flags(flags, known, "flags")?;
        let options = DecodeOptions {
            special: flags & LIGHTGPT_TEXT_SHOW_SPECIAL != 0,
            start: flags & LIGHTGPT_TEXT_START != 0,
        };
        // SAFETY: the header asks for `tokens_len` tokens.
        let tokens = unsafe { input(tokens, tokens_len, "tokens") }?;
        let tokenizer = model.model.tokenizer()?;
        // Only what fits is made: a few tokens may stand for much more text than the caller expects.
        if !out.takes(tokenizer.decoded_len(tokens, options)?)? {
            return Ok(());
        }
        let mut bytes = Vec::new();
        tokenizer.decode(tokens, options, &mut bytes)?;
        out.fill(&bytes)
    };
    // SAFETY: the header asks for a buffer of `cap` bytes and a place for its size.
    unsafe { text_of(model, buf, cap, needed, fill) }
}

/// Gives a token as its vocabulary spells it.
///
/// buf, cap, needed: see TEXT above. Any thread.
/// Errors: LIGHTGPT_NOT_FOUND (a token outside the vocabulary), LIGHTGPT_UNSUPPORTED (no
/// tokenizer, or an unknown one), LIGHTGPT_BUFFER_TOO_SMALL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_token_text(
    model: *const lightgpt_model,
    token: u32,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
) -> i32 {
    let fill = |model: &ModelObject, out: &Buffer<u8>| {
        let text = model.model.tokenizer()?.token_text(token);
        out.fill(text.ok_or_else(|| unknown(token))?)
    };
    // SAFETY: the header asks for a buffer of `cap` bytes and a place for its size.
    unsafe { text_of(model, buf, cap, needed, fill) }
}

/// Gives the LIGHTGPT_TOKEN_ bits of a token.
///
/// attributes: not NULL. Any thread.
/// Errors: LIGHTGPT_NOT_FOUND (a token outside the vocabulary), LIGHTGPT_UNSUPPORTED (no
/// tokenizer, or an unknown one).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_token_attributes(
    model: *const lightgpt_model,
    token: u32,
    attributes: *mut u32,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a place for a number.
        let out = unsafe { Out::new(attributes, "attributes") }?;
        let model = enter(model)?;
        let bits = attribute_bits(model.model.tokenizer()?, token);
        out.set(bits.ok_or_else(|| unknown(token))?);
        Ok(LIGHTGPT_OK)
    })
}

/// Gives the token that plays a part: `which` is one of LIGHTGPT_SPECIAL_.
///
/// token: not NULL. Any thread.
/// Errors: LIGHTGPT_NOT_FOUND (the model has none), LIGHTGPT_INVALID_ARGUMENT (no such part),
/// LIGHTGPT_UNSUPPORTED (no tokenizer, or an unknown one).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_token_special(
    model: *const lightgpt_model,
    which: u32,
    token: *mut u32,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a place for a token.
        let out = unsafe { Out::new(token, "token") }?;
        let model = enter(model)?;
        let tokenizer = model.model.tokenizer()?;
        let found = match which {
            LIGHTGPT_SPECIAL_BOS => tokenizer.bos(),
            LIGHTGPT_SPECIAL_EOS => tokenizer.eos(),
            LIGHTGPT_SPECIAL_EOT => tokenizer.eot(),
            LIGHTGPT_SPECIAL_EOM => tokenizer.eom(),
            LIGHTGPT_SPECIAL_UNKNOWN => tokenizer.unknown(),
            LIGHTGPT_SPECIAL_PADDING => tokenizer.padding(),
            _ => {
                return Err(invalid(
                    "which",
                    format!("{which} is no LIGHTGPT_SPECIAL_ number"),
                ));
            }
        };
        let none = || Error::new(Code::NotFound, "which", "the model has no such token");
        out.set(found.ok_or_else(none)?);
        Ok(LIGHTGPT_OK)
    })
}

/// What the LIGHTGPT_TEXT_ bits of a text that comes in mean.
pub(super) fn encode_options(given: u32) -> Result<EncodeOptions> {
    let known = LIGHTGPT_TEXT_ADD_SPECIAL | LIGHTGPT_TEXT_PARSE_SPECIAL;
    let given = flags(given, known, "flags")?;
    Ok(EncodeOptions {
        add_special: given & LIGHTGPT_TEXT_ADD_SPECIAL != 0,
        parse_special: given & LIGHTGPT_TEXT_PARSE_SPECIAL != 0,
    })
}

fn attribute_bits(tokenizer: &Tokenizer, token: u32) -> Option<u32> {
    let bit = match tokenizer.attribute(token)? {
        Attribute::Normal => LIGHTGPT_TOKEN_NORMAL,
        Attribute::Unknown => LIGHTGPT_TOKEN_UNKNOWN,
        Attribute::Control => LIGHTGPT_TOKEN_CONTROL,
        Attribute::UserDefined => LIGHTGPT_TOKEN_USER_DEFINED,
        Attribute::Unused => LIGHTGPT_TOKEN_UNUSED,
        Attribute::Byte => LIGHTGPT_TOKEN_BYTE,
    };
    let end = if tokenizer.is_end(token) {
        LIGHTGPT_TOKEN_END
    } else {
        0
    };
    Some(bit | end)
}

fn unknown(token: u32) -> Error {
    Error::new(
        Code::NotFound,
        "token",
        format!("{token} is outside the vocabulary"),
    )
}
