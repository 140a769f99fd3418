//! A chat to a prompt, by the template that the model's file brings.
//!
//! Templates are written in Jinja and for Python: [`Template`] runs them as Jinja 3 does in the
//! sandbox that `transformers` uses (`docs/chat.md` says what there is). They come with files from
//! anywhere, so nothing leads out of them: there are the values that were given, the functions and
//! members that are listed, and a limit on everything. The parser (`lexer`, `expressions`, `statements`)
//! makes a [`program::Program`] for the `machine`, which has a stack of its own.

mod attributes;
mod call;
mod expressions;
mod fault;
mod filters;
mod format;
mod heap;
mod json;
mod lexer;
mod machine;
mod operators;
mod parser;
mod predicates;
mod print;
mod program;
mod statements;
mod strings;
mod time;
mod value;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Code, Error, Result};
use crate::gguf::Metadata;
use crate::tokenizer::Tokenizer;
use fault::Fault;
use heap::{Heap, Meter};
use machine::{FUNCTIONS, Machine};
use program::Program;
use value::{Dict, Value};

/// The most bytes of a template's source.
pub const SOURCE_BYTES_MAX: usize = 256 << 10;
/// The most steps of a rendering: operations, and work inside of them by its size.
pub const STEPS_MAX: u64 = 10_000_000;
/// The most bytes of text and data that a rendering makes, those that it drops again included: so
/// many, or [`MADE_BYTES_EACH`] for each byte of the chat if that is more, but never more than
/// [`MADE_BYTES_MAX`].
pub const MADE_BYTES_LEAST: u64 = 256 << 20;
/// See [`MADE_BYTES_LEAST`].
pub const MADE_BYTES_EACH: u64 = 256;
/// See [`MADE_BYTES_LEAST`].
pub const MADE_BYTES_MAX: u64 = 1 << 30;
/// The most bytes of a prompt.
pub const PROMPT_BYTES_MAX: usize = 64 << 20;

/// The metadata key of a model's template.
const KEY: &str = "tokenizer.chat_template";
/// The name of the template that is for chats with tools, if a model has two.
const WITH_TOOLS: &str = "tool_use";

/// What a template makes a prompt of.
#[derive(Debug, Clone, Default)]
pub struct Chat {
    messages: Vec<Value>,
    tools: Option<Value>,
    variables: Vec<(Arc<str>, Value)>,
    /// Bytes of what was given.
    bytes: usize,
    /// Whether the prompt ends with the beginning of the model's answer.
    pub add_generation_prompt: bool,
    /// The time that the template sees, in seconds since 1970 as a clock on the wall shows it;
    /// `None`: now, in UTC.
    pub now: Option<i64>,
}

impl Chat {
    /// A chat without messages, to be answered.
    pub fn new() -> Self {
        Self {
            add_generation_prompt: true,
            ..Self::default()
        }
    }

    /// Adds a message. `fields` is a JSON object with further members, such as `tool_calls`; without
    /// content it is for them to say what the message is.
    pub fn push(&mut self, role: &str, content: Option<&str>, fields: Option<&str>) -> Result<()> {
        let place = format!("messages[{}]", self.messages.len());
        let mut message = Dict::default();
        let mut add = |key: Value, value: Value| {
            let added = message.insert(key, value);
            added.map_err(|fault| Error::new(fault.code, &*place, fault.message))
        };
        add("role".into(), role.into())?;
        add("content".into(), content.map_or(Value::None, Value::from))?;
        for (key, value) in self.object(fields.unwrap_or("{}"), &place)? {
            add(Value::Text(key), value)?;
        }
        self.bytes += role.len() + content.map_or(0, str::len);
        self.messages.push(Value::Dict(Arc::new(message)));
        Ok(())
    }

    /// Adds messages: a JSON array of objects, as clients of chat servers send it.
    pub fn push_json(&mut self, messages: &str) -> Result<()> {
        const PLACE: &str = "messages_json";
        for message in self.array(messages, PLACE)? {
            if !matches!(message, Value::Dict(_)) {
                let message = "expected an array of objects, a message each";
                return Err(Error::new(Code::InvalidArgument, PLACE, message));
            }
            self.messages.push(message);
        }
        Ok(())
    }

    /// Gives the tools that the model may call: a JSON array, as clients of chat servers send it.
    pub fn set_tools_json(&mut self, tools: &str) -> Result<()> {
        let tools = self.array(tools, "tools_json")?;
        let list = Value::list(tools);
        let list = list.map_err(|fault| Error::new(fault.code, "tools_json", fault.message))?;
        self.tools = Some(list);
        Ok(())
    }

    /// Gives further variables, such as `enable_thinking`: a JSON object. They hide those that a
    /// template would see otherwise.
    pub fn set_variables_json(&mut self, variables: &str) -> Result<()> {
        self.variables = self.object(variables, "variables_json")?;
        Ok(())
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn array(&mut self, text: &str, place: &str) -> Result<Vec<Value>> {
        self.bytes += text.len();
        match json::parse(text, place)? {
            Value::Seq(seq) => Ok(seq.items.clone()),
            other => Err(wrong_type(place, "an array", &other)),
        }
    }

    fn object(&mut self, text: &str, place: &str) -> Result<Vec<(Arc<str>, Value)>> {
        self.bytes += text.len();
        let parsed = json::parse(text, place)?;
        let Value::Dict(dict) = &parsed else {
            return Err(wrong_type(place, "an object", &parsed));
        };
        let entries = dict.entries().iter();
        let named = entries.filter_map(|(key, value)| Some((key.text()?.clone(), value.clone())));
        Ok(named.collect())
    }

    fn meter(&self) -> Meter {
        let each = (self.bytes as u64).saturating_mul(MADE_BYTES_EACH);
        Meter {
            steps: STEPS_MAX,
            bytes: each.clamp(MADE_BYTES_LEAST, MADE_BYTES_MAX),
        }
    }
}

fn wrong_type(place: &str, expected: &str, found: &Value) -> Error {
    let found = match found {
        Value::None => "null",
        Value::Seq(_) => "an array",
        Value::Dict(_) => "an object",
        Value::Text(_) => "a string",
        Value::Bool(_) => "true or false",
        _ => "a number",
    };
    let message = format!("expected {expected} of JSON, found {found}");
    Error::new(Code::InvalidArgument, place, message)
}

/// The texts of special tokens, by the names that templates have for them.
#[derive(Debug, Clone, Default)]
pub struct SpecialTexts(Vec<(&'static str, String)>);

impl SpecialTexts {
    /// Those of a model's vocabulary.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let named = [
            ("bos_token", tokenizer.bos()),
            ("eos_token", tokenizer.eos()),
            ("unk_token", tokenizer.unknown()),
            ("pad_token", tokenizer.padding()),
        ];
        let text = |token: u32| {
            let text = tokenizer.token_text(token)?;
            Some(String::from_utf8_lossy(text).into_owned())
        };
        let texts = named.into_iter();
        Self(
            texts
                .filter_map(|(name, token)| Some((name, text(token?)?)))
                .collect(),
        )
    }

    /// Those of no model.
    pub fn new(bos: &str, eos: &str) -> Self {
        Self(vec![("bos_token", bos.into()), ("eos_token", eos.into())])
    }
}

/// A compiled template; any number of threads may render it at once.
pub struct Template {
    program: Program,
    place: Box<str>,
}

impl Template {
    /// Compiles the text of a template; `place` is what errors say that it is.
    ///
    /// # Errors
    /// `FORMAT`: the text is no template, with the line where that shows.
    pub fn compile(source: &str, place: &str) -> Result<Self> {
        if source.len() > SOURCE_BYTES_MAX {
            let bytes = source.len();
            let message = format!("expected at most {SOURCE_BYTES_MAX} bytes, found {bytes}");
            return Err(Error::new(Code::Format, place, message));
        }
        let tokens = lexer::tokens(source).map_err(|fault| at_line(place, fault))?;
        let program = statements::compile(tokens).map_err(|fault| at_line(place, fault))?;
        Ok(Self {
            program,
            place: place.into(),
        })
    }

    /// The prompt that the template makes of a chat. It spells special tokens out, that of the
    /// begin of a text included: tokenize it with them parsed, and with none added.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: the template refuses the chat, or does with it what values do not allow;
    /// `UNSUPPORTED`: it would pass a limit. Both with the line.
    pub fn render(&self, chat: &Chat, special: &SpecialTexts) -> Result<String> {
        let now = chat.now.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
        });
        let globals = self.globals(chat, special);
        let globals = globals.map_err(|fault| at_line(&self.place, (fault, 1)))?;
        let heap = Heap::new(chat.meter(), now);
        let machine = Machine::new(&self.program, &globals, heap, PROMPT_BYTES_MAX);
        machine.run().map_err(|fault| at_line(&self.place, fault))
    }

    /// What the names of the template mean before it begins.
    fn globals(&self, chat: &Chat, special: &SpecialTexts) -> Result<Vec<Option<Value>>, Fault> {
        let messages = Value::list(chat.messages.clone())?;
        let own = chat.variables.iter();
        let variables: HashMap<&str, &Value> = own.map(|(name, value)| (&**name, value)).collect();
        let value = |name: &str| {
            if let Some(value) = variables.get(name) {
                return Some((*value).clone());
            }
            match name {
                "messages" => return Some(messages.clone()),
                "tools" => return Some(chat.tools.clone().unwrap_or(Value::None)),
                "documents" => return Some(Value::None),
                "add_generation_prompt" => return Some(Value::Bool(chat.add_generation_prompt)),
                _ => {}
            }
            let special = special.0.iter().find(|(own, _)| *own == name);
            let function = FUNCTIONS.iter().find(|(own, _)| *own == name);
            special
                .map(|(_, text)| Value::from(&**text))
                .or(function.map(|(_, function)| Value::Function(*function)))
        };
        Ok(self.program.names.iter().map(|name| value(name)).collect())
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

fn at_line(place: &str, (fault, line): (Fault, u32)) -> Error {
    Error::new(fault.code, format!("{place} line {line}"), fault.message)
}

/// The source of a model's template with its key: the one that is named, or its only one, or, for a
/// chat with tools, the one that the model has for these.
///
/// # Errors
/// `NOT_FOUND`, with the key that the model lacks.
pub fn source<'a>(
    metadata: &'a Metadata,
    name: Option<&str>,
    chat: Option<&Chat>,
) -> Result<(String, &'a str)> {
    if let Some(name) = name.filter(|name| *name != "default") {
        return named_source(metadata, format!("{KEY}.{name}"));
    }
    let has_tools = name.is_none() && chat.is_some_and(|chat| chat.tools.is_some());
    if has_tools && let Ok(found) = named_source(metadata, format!("{KEY}.{WITH_TOOLS}")) {
        return Ok(found);
    }
    named_source(metadata, KEY.into())
}

fn named_source(metadata: &Metadata, key: String) -> Result<(String, &str)> {
    match metadata.str(&key)? {
        Some(source) => Ok((key, source)),
        None => Err(Error::new(
            Code::NotFound,
            key,
            "the model has no such chat template",
        )),
    }
}
