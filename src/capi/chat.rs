//! Chats in C: messages to a prompt, by the model's template.

use std::ffi::c_char;
use std::mem::offset_of;

use super::arguments::{Buffer, Out, flags, input, invalid, name, size, text};
use super::guard::guard;
use super::model::{ModelObject, lightgpt_model};
use super::objects::{enter, text_of};
use super::options::{Struct, read};
use super::session::{call, lightgpt_session};
use super::status::LIGHTGPT_OK;
use crate::chat::Chat;
use crate::error::Result;
use crate::model::{CHAT_TEXT, ChatTemplate};

/// The prompt ends with the last message: no answer begins (`add_generation_prompt` is false).
pub const LIGHTGPT_CHAT_WITHOUT_ANSWER: u32 = 1 << 0;

/// A message of a chat.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_chat_message {
    /// Who speaks: "system", "user", "assistant", "tool", or what the template knows. Not NULL, ends
    /// in a zero byte.
    pub role: *const c_char,
    /// What is said, as `content_bytes` bytes of UTF-8; NULL: nothing (null in JSON).
    pub content: *const c_char,
    /// Bytes at `content`.
    pub content_bytes: u64,
    /// Further members, such as "tool_calls", as a JSON object of `fields_json_bytes` bytes; NULL: none.
    pub fields_json: *const c_char,
    /// Bytes at `fields_json`.
    pub fields_json_bytes: u64,
}

/// A chat, and how it becomes a prompt. What it points to is read during the call only.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_chat {
    /// Set by LIGHTGPT_CHAT_INIT.
    pub struct_size: u32,
    /// LIGHTGPT_CHAT_ bits.
    pub flags: u32,
    /// The messages, `messages_len` of them; NULL: none.
    pub messages: *const lightgpt_chat_message,
    /// Messages at `messages`.
    pub messages_len: u64,
    /// Messages behind these, as a JSON array of objects such as clients of chat servers send it; NULL:
    /// none.
    pub messages_json: *const c_char,
    /// Bytes at `messages_json`.
    pub messages_json_bytes: u64,
    /// Tools that the model may call, as a JSON array such as clients of chat servers send it; NULL: none.
    pub tools_json: *const c_char,
    /// Bytes at `tools_json`.
    pub tools_json_bytes: u64,
    /// Further variables of the template, such as {"enable_thinking": false}, as a JSON object; NULL:
    /// none.
    pub variables_json: *const c_char,
    /// Bytes at `variables_json`.
    pub variables_json_bytes: u64,
    /// A template to be used in place of the model's; NULL: none.
    pub template_text: *const c_char,
    /// Bytes at `template_text`.
    pub template_text_bytes: u64,
    /// The name of one of the model's templates, ending in a zero byte. NULL: its default one, or the
    /// one called "tool_use" if it has that and the chat has tools.
    pub template_name: *const c_char,
    /// The time that the template sees, in seconds since 1970 as a clock on the wall shows it; 0:
    /// now, in UTC. Set it where the same chat shall give the same prompt.
    pub now: i64,
}

// SAFETY: as the trait asks; NULL pointers are all zeros.
unsafe impl Struct for lightgpt_chat {
    const SIZE_MIN: usize = offset_of!(Self, now) + size_of::<i64>();
}

/// Gives the source of the model's chat template.
///
/// name: of one of its templates, ending in a zero byte; NULL: the default one. buf, cap, needed:
/// see TEXT above. Any thread.
/// Errors: LIGHTGPT_NOT_FOUND (it names the key that the model lacks), LIGHTGPT_BUFFER_TOO_SMALL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_chat_template(
    model: *const lightgpt_model,
    name: *const c_char,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
) -> i32 {
    let fill = |model: &ModelObject, out: &Buffer<u8>| {
        // SAFETY: the header asks for a zero byte, if any.
        let name = unsafe { optional_name(name, "name") }?;
        out.fill(model.model.chat_template(name)?.as_bytes())
    };
    // SAFETY: the header asks for a buffer of `cap` bytes and a place for its size.
    unsafe { text_of(model, buf, cap, needed, fill) }
}

/// Gives the prompt that a template makes of a chat, byte for byte as `transformers` does.
///
/// It spells control tokens out: tokenize it with LIGHTGPT_TEXT_PARSE_SPECIAL, and without
/// LIGHTGPT_TEXT_ADD_SPECIAL, as most templates write the token that begins a text themselves. So
/// what messages say is read as control tokens too, where it spells some: whoever passes on what
/// others wrote looks for that first. lightgpt_model_chat_tokenize does all but the latter.
///
/// Templates are Jinja; those of files from anywhere may be run. They have no way to anything but
/// what they are given, and limits on everything: 256 KiB of source, 10 million steps, 256 MiB of
/// text and data made on the way (or 256 bytes for each one given if that is more, at most 1 GiB),
/// 64 MiB of prompt. The thread needs 256 KiB of stack.
///
/// chat: not NULL, initialised with LIGHTGPT_CHAT_INIT. buf, cap, needed: see TEXT above. Any
/// thread.
/// Errors: LIGHTGPT_NOT_FOUND (the model has no template; it names the key), LIGHTGPT_FORMAT (the
/// template is wrong), LIGHTGPT_INVALID_ARGUMENT (JSON is wrong, or the template refuses the chat:
/// the message is what it says), LIGHTGPT_UNSUPPORTED (the template passes a limit), all with the
/// line; LIGHTGPT_BUFFER_TOO_SMALL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_chat_render(
    model: *const lightgpt_model,
    chat: *const lightgpt_chat,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
) -> i32 {
    let fill = |model: &ModelObject, out: &Buffer<u8>| {
        // SAFETY: the header asks for a struct as large as it says, and what its members say.
        let given = unsafe { Given::read(chat, "chat") }?;
        let prompt = model.model.chat_prompt(&given.chat, given.template)?;
        out.fill(prompt.as_bytes())
    };
    // SAFETY: the header asks for a buffer of `cap` bytes and a place for its size.
    unsafe { text_of(model, buf, cap, needed, fill) }
}

/// Gives the tokens of a chat: renders it, and begins with the token that begins a text if the model
/// wants that, once, whether or not the template writes it.
///
/// buf, cap, needed: see TEXT above, counted in tokens. Else as lightgpt_model_chat_render.
/// Errors: also LIGHTGPT_UNSUPPORTED (no tokenizer, or an unknown one), LIGHTGPT_OUT_OF_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_chat_tokenize(
    model: *const lightgpt_model,
    chat: *const lightgpt_chat,
    buf: *mut u32,
    cap: usize,
    needed: *mut usize,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a buffer of `cap` tokens and a place for its size, and for a
        // chat as its members' comments say.
        let (out, given) = unsafe { (Buffer::new(buf, cap, needed)?, Given::read(chat, "chat")?) };
        let model = enter(model)?;
        let prompt = model.model.chat_text(&given.chat, given.template)?;
        let mut tokens = Vec::new();
        let tokenizer = model.model.tokenizer()?;
        tokenizer.encode(&prompt, CHAT_TEXT, &mut tokens)?;
        out.fill(&tokens)?;
        Ok(LIGHTGPT_OK)
    })
}

/// Appends the tokens of a chat to what the session will evaluate next. They are those of the whole
/// chat: the session should be new or rewound to its begin. What it or others have evaluated of an
/// earlier turn is found again.
///
/// chat: as for lightgpt_model_chat_render. tokens: gets the number of tokens; may be NULL.
/// Errors: those of lightgpt_model_chat_tokenize and lightgpt_session_feed_text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_session_feed_chat(
    session: *mut lightgpt_session,
    chat: *const lightgpt_chat,
    tokens: *mut u64,
) -> i32 {
    call(session, |session| {
        // SAFETY: the header asks for a struct as large as it says, and what its members say.
        let given = unsafe { Given::read(chat, "chat") }?;
        let out = match tokens.is_null() {
            true => None,
            // SAFETY: the header asks for a place for a number, if any.
            false => Some(unsafe { Out::new(tokens, "tokens") }?),
        };
        let count = session.feed_chat(&given.chat, given.template)?;
        out.inspect(|out| out.set(count as u64));
        Ok(LIGHTGPT_OK)
    })
}

/// A chat of the host's, with the template that it names or brings.
pub(super) struct Given<'a> {
    pub chat: Chat,
    pub template: ChatTemplate<'a>,
}

impl Given<'_> {
    /// # Safety
    /// `chat` is NULL (which is answered) or a struct as large as it says, and what it points to is
    /// as its members' comments ask, until the call ends.
    pub unsafe fn read(chat: *const lightgpt_chat, place: &str) -> Result<Self> {
        if chat.is_null() {
            return Err(invalid(place, "expected a pointer, found NULL"));
        }
        // SAFETY: promised by the caller, here and below.
        let given = unsafe { read(chat, place) }?;
        let mut chat = Chat::new();
        let known = LIGHTGPT_CHAT_WITHOUT_ANSWER;
        let without_answer = flags(given.flags, known, "chat.flags")? & known != 0;
        chat.add_generation_prompt = !without_answer;
        chat.now = (given.now != 0).then_some(given.now);
        let len = size(given.messages_len, "chat.messages_len")?;
        // SAFETY: as above.
        for message in unsafe { input(given.messages, len, "chat.messages") }? {
            // SAFETY: as above.
            unsafe { push(&mut chat, message) }?;
        }
        // SAFETY: as above.
        unsafe {
            if let Some(json) = optional_text(
                given.messages_json,
                given.messages_json_bytes,
                "messages_json",
            )? {
                chat.push_json(json)?;
            }
            if let Some(json) =
                optional_text(given.tools_json, given.tools_json_bytes, "tools_json")?
            {
                chat.set_tools_json(json)?;
            }
            if let Some(json) = optional_text(
                given.variables_json,
                given.variables_json_bytes,
                "variables_json",
            )? {
                chat.set_variables_json(json)?;
            }
        }
        // SAFETY: as above.
        let (source, name) = unsafe {
            (
                optional_text(
                    given.template_text,
                    given.template_text_bytes,
                    "template_text",
                )?,
                optional_name(given.template_name, "chat.template_name")?,
            )
        };
        let template = match (source, name) {
            (None, None) => ChatTemplate::Own,
            (None, Some(name)) => ChatTemplate::Named(name),
            (Some(source), None) => ChatTemplate::Text(source),
            (Some(_), Some(_)) => {
                return Err(invalid(
                    "chat",
                    "expected template_text or template_name, found both",
                ));
            }
        };
        Ok(Self { chat, template })
    }
}

/// # Safety
/// What the message points to is as its members' comments ask.
unsafe fn push(chat: &mut Chat, message: &lightgpt_chat_message) -> Result<()> {
    // SAFETY: promised by the caller.
    let (role, content, fields) = unsafe {
        (
            name(message.role, "message.role")?,
            optional_text(message.content, message.content_bytes, "message.content")?,
            optional_text(
                message.fields_json,
                message.fields_json_bytes,
                "message.fields_json",
            )?,
        )
    };
    chat.push(role, content, fields)
}

/// A text that may be absent.
///
/// # Safety
/// As for [`text`].
unsafe fn optional_text<'a>(
    pointer: *const c_char,
    bytes: u64,
    place: &str,
) -> Result<Option<&'a str>> {
    if pointer.is_null() && bytes == 0 {
        return Ok(None);
    }
    // SAFETY: promised by the caller.
    unsafe { text(pointer, size(bytes, place)?, place) }.map(Some)
}

/// A name that may be absent.
///
/// # Safety
/// As for [`name`].
unsafe fn optional_name<'a>(pointer: *const c_char, place: &str) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: promised by the caller.
    unsafe { name(pointer, place) }.map(Some)
}
