//! Chats through the C interface: templates of models, prompts, tokens, sessions and requests.
#![allow(unsafe_code, clippy::unwrap_used)] // calls of the C interface

#[path = "support/interface.rs"]
mod interface;
#[path = "support/programs.rs"]
mod programs;
#[path = "support/tiny.rs"]
mod tiny;

use std::ffi::{CString, c_char};
use std::ptr;

use lightgpt::capi::*;

use interface::{last_error, new, ok};
use tiny::{SMALL, Sizes, Tiny};

const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}\
    {% if add_generation_prompt %}t3{% endif %}{{ x }}";

fn open(bytes: &[u8]) -> *mut lightgpt_model {
    let mut options = new::<lightgpt_open_options>();
    options.flags = LIGHTGPT_OPEN_COPY;
    let mut model = ptr::null_mut();
    // SAFETY: every pointer is NULL or that of a local that fits.
    ok(unsafe {
        lightgpt_model_open_memory(
            bytes.as_ptr().cast(),
            bytes.len(),
            None,
            ptr::null_mut(),
            &options,
            &raw mut model,
        )
    });
    model
}

/// A model of 11 tokens with templates.
fn model(change: impl FnOnce(&mut Tiny)) -> *mut lightgpt_model {
    let sizes = Sizes {
        context: 32,
        ..SMALL
    };
    let mut tiny = Tiny::new(sizes).with_tokenizer(sizes.vocab);
    tiny.set("tokenizer.ggml.bos_token_id", 1u32);
    tiny.set("tokenizer.ggml.eos_token_id", 2u32);
    tiny.set("tokenizer.ggml.add_bos_token", true);
    tiny.set("tokenizer.ggml.add_space_prefix", false);
    tiny.set("tokenizer.chat_template", TEMPLATE);
    change(&mut tiny);
    open(&tiny.bytes())
}

/// What a function gives that fills a buffer.
fn filled<T: Clone + Default>(
    fill: impl Fn(*mut T, usize, *mut usize) -> i32,
) -> Result<Vec<T>, i32> {
    let mut needed = 0;
    match fill(ptr::null_mut(), 0, &raw mut needed) {
        LIGHTGPT_OK => {}
        status => return Err(status),
    }
    let mut buffer = vec![T::default(); needed];
    ok(fill(buffer.as_mut_ptr(), needed, &raw mut needed));
    Ok(buffer)
}

fn template(model: *const lightgpt_model, name: Option<&str>) -> Result<String, i32> {
    let name = name.map(|name| CString::new(name).unwrap());
    let name = name.as_ref().map_or(ptr::null(), |name| name.as_ptr());
    // SAFETY: every pointer is NULL or that of a local that fits.
    let text = filled(|buf: *mut u8, cap, needed| unsafe {
        lightgpt_model_chat_template(model, name, buf.cast(), cap, needed)
    });
    text.map(|text| String::from_utf8(text).unwrap())
}

fn render(model: *const lightgpt_model, chat: &lightgpt_chat) -> Result<String, i32> {
    // SAFETY: every pointer is NULL or that of a local that fits.
    let text = filled(|buf: *mut u8, cap, needed| unsafe {
        lightgpt_model_chat_render(model, chat, buf.cast(), cap, needed)
    });
    text.map(|text| String::from_utf8(text).unwrap())
}

fn tokenize(model: *const lightgpt_model, chat: &lightgpt_chat) -> Result<Vec<u32>, i32> {
    // SAFETY: every pointer is NULL or that of a local that fits.
    filled(|buf, cap, needed| unsafe {
        lightgpt_model_chat_tokenize(model, chat, buf, cap, needed)
    })
}

fn json(chat: &mut lightgpt_chat, text: &'static str) {
    chat.messages_json = text.as_ptr().cast();
    chat.messages_json_bytes = text.len() as u64;
}

fn with_template(text: &'static str) -> lightgpt_chat {
    let mut chat = new::<lightgpt_chat>();
    chat.template_text = text.as_ptr().cast();
    chat.template_text_bytes = text.len() as u64;
    chat
}

#[test]
fn a_chat_becomes_a_prompt() {
    let model = model(|_| {});
    assert_eq!(template(model, None).as_deref(), Ok(TEMPLATE));
    let text = |text: &'static str| (text.as_ptr().cast::<c_char>(), text.len() as u64);
    let ((content, content_bytes), (fields, fields_bytes)) =
        (text("t4t5"), text("{\"content\": \"t6\"}"));
    let message = |fields_json, fields_json_bytes| lightgpt_chat_message {
        role: c"user".as_ptr(),
        content,
        content_bytes,
        fields_json,
        fields_json_bytes,
    };
    let messages = [message(ptr::null(), 0), message(fields, fields_bytes)];
    let mut chat = new::<lightgpt_chat>();
    chat.messages = messages.as_ptr();
    chat.messages_len = 2;
    json(&mut chat, "[{\"role\": \"user\", \"content\": \"t7\"}]");
    assert_eq!(render(model, &chat).as_deref(), Ok("<s>t4t5t6t7t3"));
    assert_eq!(tokenize(model, &chat), Ok(vec![1, 4, 5, 6, 7, 3]));
    chat.flags = LIGHTGPT_CHAT_WITHOUT_ANSWER;
    (chat.variables_json, chat.variables_json_bytes) = text("{\"x\": \"t8\"}");
    assert_eq!(render(model, &chat).as_deref(), Ok("<s>t4t5t6t7t8"));
    // Another template; the token that begins a text is there once, whoever writes it.
    let other = with_template("t9{{ strftime_now('%Y') }}");
    assert_eq!(tokenize(model, &other).unwrap()[..2], [1, 9]);
    let mut then = other;
    then.now = 86_400 * 365;
    assert_eq!(render(model, &then).as_deref(), Ok("t91971"));
    ok(lightgpt_model_free(model));
}

#[test]
fn models_may_have_several_templates() {
    let model = model(|tiny| {
        tiny.set(
            "tokenizer.chat_template.tool_use",
            "{{ tools|length }} tools",
        );
        tiny.set("tokenizer.chat_template.short", "short");
    });
    let mut chat = new::<lightgpt_chat>();
    assert_eq!(render(model, &chat).as_deref(), Ok("<s>t3"));
    chat.tools_json = c"[{}]".as_ptr();
    chat.tools_json_bytes = 4;
    assert_eq!(render(model, &chat).as_deref(), Ok("1 tools"));
    for (name, expected) in [
        (c"short", "short"),
        (c"default", "<s>t3"),
        (c"tool_use", "1 tools"),
    ] {
        chat.template_name = name.as_ptr();
        assert_eq!(render(model, &chat).as_deref(), Ok(expected));
    }
    assert_eq!(template(model, Some("short")).as_deref(), Ok("short"));
    chat.template_name = c"none".as_ptr();
    assert_eq!(render(model, &chat), Err(LIGHTGPT_NOT_FOUND));
    let missing = "tokenizer.chat_template.none: the model has no such chat template";
    assert_eq!(last_error(), missing);
    ok(lightgpt_model_free(model));
}

#[test]
fn what_is_wrong_is_said() {
    let model = model(|tiny| {
        tiny.unset("tokenizer.chat_template");
    });
    let plain = new::<lightgpt_chat>();
    for status in [
        render(model, &plain).unwrap_err(),
        tokenize(model, &plain).unwrap_err(),
        template(model, None).unwrap_err(),
    ] {
        assert_eq!(status, LIGHTGPT_NOT_FOUND);
        let missing = "tokenizer.chat_template: the model has no such chat template";
        assert_eq!(last_error(), missing);
    }
    let mut both = with_template("x");
    both.template_name = c"x".as_ptr();
    let mut unknown = with_template("x");
    unknown.flags = 2;
    let mut wrong_json = with_template("x");
    json(&mut wrong_json, "[{]");
    let nameless = [lightgpt_chat_message {
        role: ptr::null(),
        content: ptr::null(),
        content_bytes: 0,
        fields_json: ptr::null(),
        fields_json_bytes: 0,
    }];
    let mut without_role = with_template("x");
    (without_role.messages, without_role.messages_len) = (nameless.as_ptr(), 1);
    for (chat, status, text) in [
        (
            with_template("\n{{"),
            LIGHTGPT_FORMAT,
            "chat template line 2: ",
        ),
        (
            with_template("{{ raise_exception('no') }}"),
            LIGHTGPT_INVALID_ARGUMENT,
            "chat template line 1: no",
        ),
        (
            with_template("{{ 'x' * 1000000000 }}"),
            LIGHTGPT_UNSUPPORTED,
            "chat template line 1: it makes too much",
        ),
        (
            both,
            LIGHTGPT_INVALID_ARGUMENT,
            "chat: expected template_text or template_name",
        ),
        (unknown, LIGHTGPT_UNSUPPORTED, "chat.flags: "),
        (
            wrong_json,
            LIGHTGPT_INVALID_ARGUMENT,
            "messages_json: not valid JSON",
        ),
        (without_role, LIGHTGPT_INVALID_ARGUMENT, "message.role: "),
    ] {
        assert_eq!(render(model, &chat), Err(status), "{text}");
        assert!(last_error().starts_with(text), "{}", last_error());
    }
    // SAFETY: NULL is answered.
    let status = unsafe {
        let mut needed = 0;
        lightgpt_model_chat_render(model, ptr::null(), ptr::null_mut(), 0, &raw mut needed)
    };
    assert_eq!(status, LIGHTGPT_INVALID_ARGUMENT);
    ok(lightgpt_model_free(model));
}

#[test]
fn sessions_and_requests_take_chats() {
    let model = model(|_| {});
    let mut chat = new::<lightgpt_chat>();
    json(&mut chat, "[{\"role\": \"user\", \"content\": \"t4t5\"}]");
    let (mut session, mut queue, mut tokens, mut id) = (ptr::null_mut(), ptr::null_mut(), 0, 0);
    // SAFETY: every pointer is NULL or that of a local that fits.
    unsafe {
        ok(lightgpt_session_new(
            model,
            ptr::null(),
            ptr::null(),
            &raw mut session,
        ));
        ok(lightgpt_session_feed_chat(session, &chat, &raw mut tokens));
        assert_eq!(tokens, 4);
        ok(lightgpt_session_feed_chat(session, &chat, ptr::null_mut()));
        assert_eq!(
            lightgpt_session_feed_chat(session, ptr::null(), ptr::null_mut()),
            LIGHTGPT_INVALID_ARGUMENT
        );
        ok(lightgpt_session_free(session));

        ok(lightgpt_batch_queue_new(
            model,
            ptr::null(),
            ptr::null(),
            &raw mut queue,
        ));
        let mut request = new::<lightgpt_batch_request>();
        request.chat = &chat;
        ok(lightgpt_batch_queue_submit(queue, &request, &raw mut id));
        request.text = c"t4".as_ptr();
        request.text_bytes = 2;
        assert_eq!(
            lightgpt_batch_queue_submit(queue, &request, &raw mut id),
            LIGHTGPT_INVALID_ARGUMENT
        );
        assert_eq!(
            last_error(),
            "request: expected one of text, tokens and chat, found several"
        );
        let token = 4u32;
        let mut request = new::<lightgpt_batch_request>();
        request.tokens = &raw const token;
        request.tokens_len = 1;
        request.flags = 1 << 31;
        assert_eq!(
            lightgpt_batch_queue_submit(queue, &request, &raw mut id),
            LIGHTGPT_UNSUPPORTED
        );
        let event = finished(queue);
        assert_eq!((event.request, event.status), (1, LIGHTGPT_DONE));
        assert_eq!((*event.timings).prompt_tokens, 4);
    }
    ok(lightgpt_batch_queue_free(queue));
    ok(lightgpt_model_free(model));
}

/// The last event of the only request.
fn finished(queue: *mut lightgpt_batch_queue) -> lightgpt_batch_event {
    loop {
        ok_or_more(lightgpt_batch_queue_step(queue, 0));
        let mut event = new::<lightgpt_batch_event>();
        // SAFETY: the struct is a local that says its size.
        while unsafe { lightgpt_batch_queue_poll(queue, 0, &raw mut event) } == LIGHTGPT_OK {
            if event.kind == LIGHTGPT_EVENT_FINISHED {
                return event;
            }
        }
    }
}

fn ok_or_more(status: i32) {
    assert!(status >= LIGHTGPT_OK, "{}", last_error());
}
