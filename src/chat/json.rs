//! JSON: what comes in becomes values, and `tojson` writes them as Python's `json.dumps` does.

use std::fmt;
use std::sync::Arc;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use super::fault::{Fault, fault};
use super::heap::Heap;
use super::print::{PAID_BYTES, float};
use super::value::{Dict, Value};
use crate::error::{Code, Error};

/// The value that a JSON text stands for; of equal keys the last one counts.
pub(super) fn parse(text: &str, place: &str) -> Result<Value, Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Seed.deserialize(&mut deserializer);
    value
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|e| Error::new(Code::InvalidArgument, place, format!("not valid JSON: {e}")))
}

struct Seed;

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::None)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Int(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element_seed(Seed)? {
            items.push(item);
        }
        Value::list(items).map_err(|fault| A::Error::custom(fault.message))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut dict = Dict::default();
        while let Some(key) = from.next_key::<String>()? {
            let value = from.next_value_seed(Seed)?;
            let inserted = dict.insert(key.into(), value);
            inserted.map_err(|fault| A::Error::custom(fault.message))?;
        }
        Ok(Value::Dict(Arc::new(dict)))
    }
}

/// How `tojson` writes.
#[derive(Debug)]
pub(super) struct Style {
    pub ascii: bool,
    /// What each level is indented with, if there is a line for each item.
    pub indent: Option<String>,
    /// Between items, and behind keys.
    pub separators: (String, String),
    pub sorted: bool,
}

/// The value as JSON.
pub(super) fn text_of(heap: &mut Heap, value: &Value, style: &Style) -> Result<String, Fault> {
    let mut writer = Writer {
        heap,
        style,
        level: 0,
        text: String::new(),
    };
    writer.value(value)?;
    Ok(writer.text)
}

/// What has been written is paid for.
struct Writer<'a> {
    heap: &'a mut Heap,
    style: &'a Style,
    level: usize,
    text: String,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value) -> Result<(), Fault> {
        let text: &str = match value {
            Value::None => "null",
            Value::Bool(true) => "true",
            Value::Bool(false) => "false",
            Value::Int(number) => &number.to_string(),
            Value::Float(number) if number.is_nan() => "NaN",
            Value::Float(f64::INFINITY) => "Infinity",
            Value::Float(f64::NEG_INFINITY) => "-Infinity",
            Value::Float(number) => &float(*number),
            Value::Text(own) | Value::Markup(own) => return self.quote(own),
            Value::Seq(seq) if seq.kind.is_plain() => {
                return self.items("[]", &seq.items, Self::value);
            }
            Value::Dict(dict) => {
                let mut entries: Vec<(&str, &Value)> = Vec::new();
                self.heap.take_values(dict.entries().len())?;
                for (key, value) in dict.entries() {
                    let key = key
                        .text()
                        .ok_or_else(|| fault!("keys of JSON must be texts"))?;
                    entries.push((key, value));
                }
                if self.style.sorted {
                    entries.sort_by_key(|(key, _)| *key);
                }
                return self.items("{}", &entries, |writer, (key, value)| {
                    writer.quote(key)?;
                    writer.text.push_str(&writer.style.separators.1);
                    writer.value(value)
                });
            }
            other => {
                let found = self.heap.type_name(other);
                return Err(fault!("Object of type {found} is not JSON serializable"));
            }
        };
        self.text.push_str(text);
        self.heap.take(text.len())
    }

    fn items<T>(
        &mut self,
        brackets: &str,
        items: &[T],
        write: impl Fn(&mut Self, &T) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let style = self.style;
        self.text.push_str(&brackets[..1]);
        self.level += 1;
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.text.push_str(&style.separators.0);
            }
            self.heap
                .take(style.separators.0.len() + style.separators.1.len())?;
            self.new_line()?;
            write(self, item)?;
        }
        self.level -= 1;
        if !items.is_empty() {
            self.new_line()?;
        }
        self.text.push_str(&brackets[1..]);
        self.heap.take(brackets.len())
    }

    fn new_line(&mut self) -> Result<(), Fault> {
        if let Some(indent) = &self.style.indent {
            let bytes = indent.len().saturating_mul(self.level);
            self.heap.take(bytes.saturating_add(1))?;
            self.text.push('\n');
            self.text.push_str(&indent.repeat(self.level));
        }
        Ok(())
    }

    fn quote(&mut self, own: &str) -> Result<(), Fault> {
        let mut paid = self.text.len();
        self.text.push('"');
        for c in own.chars() {
            if self.text.len() - paid >= PAID_BYTES {
                self.heap.take(self.text.len() - paid)?;
                paid = self.text.len();
            }
            match c {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\x08' => self.text.push_str("\\b"),
                '\x0c' => self.text.push_str("\\f"),
                c if c < ' ' || (self.style.ascii && !(' '..='~').contains(&c)) => {
                    for half in c.encode_utf16(&mut [0; 2]) {
                        self.text.push_str(&format!("\\u{half:04x}"));
                    }
                }
                c => self.text.push(c),
            }
        }
        self.text.push('"');
        self.heap.take(self.text.len() - paid)
    }
}
