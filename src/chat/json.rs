//! JSON: what comes in becomes values, and `tojson` writes them as Python's `json.dumps` does.

use std::fmt;
use std::sync::Arc;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use super::fault::{Fault, fault};
use super::heap::{Heap, Object};
use super::print::{PAID_BYTES, float};
use super::value::{Dict, Kind, Value};
use crate::error::{Code, Error, Result};

/// The value that a JSON text stands for; of equal keys the last one counts.
pub(super) fn parse(text: &str, place: &str) -> Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Seed.deserialize(&mut deserializer);
    value
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|e| Error::new(Code::InvalidArgument, place, format!("not valid JSON: {e}")))
}

struct Seed;

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::None)
    }

    fn visit_bool<E>(self, flag: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> std::result::Result<Value, E> {
        Ok(Value::Int(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> std::result::Result<Value, E> {
        Ok(Value::Int(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> std::result::Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> std::result::Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element_seed(Seed)? {
            items.push(item);
        }
        Value::list(items).map_err(|fault| A::Error::custom(fault.message))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> std::result::Result<Value, A::Error> {
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

/// Appends the value as JSON, and pays for it.
pub(super) fn write(
    heap: &mut Heap,
    value: &Value,
    style: &Style,
    level: usize,
    text: &mut String,
) -> std::result::Result<(), Fault> {
    let before = text.len();
    match value {
        Value::None => text.push_str("null"),
        Value::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
        Value::Int(number) => text.push_str(&number.to_string()),
        Value::Float(number) => text.push_str(&json_float(*number)),
        Value::Text(own) | Value::Markup(own) => return quote(heap, own, style.ascii, text),
        Value::Seq(seq) if seq.kind == Kind::List || seq.kind.is_tuple() => {
            return write_items(
                heap,
                style,
                level,
                text,
                ('[', ']'),
                seq.items.len(),
                |heap, at, text| write(heap, &seq.items[at], style, level + 1, text),
            );
        }
        Value::Dict(dict) => {
            let mut entries: Vec<(String, &Value)> = Vec::new();
            heap.take_values(dict.entries().len())?;
            for (key, value) in dict.entries() {
                entries.push((key_of(key)?, value));
            }
            if style.sorted {
                entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            }
            return write_items(
                heap,
                style,
                level,
                text,
                ('{', '}'),
                entries.len(),
                |heap, at, text| {
                    let (key, value) = &entries[at];
                    quote(heap, key, style.ascii, text)?;
                    text.push_str(&style.separators.1);
                    write(heap, value, style, level + 1, text)
                },
            );
        }
        other => {
            return Err(fault!(
                "Object of type {} is not JSON serializable",
                name(heap, other)
            ));
        }
    }
    heap.take(text.len() - before)
}

fn name(heap: &Heap, value: &Value) -> &'static str {
    match value {
        Value::Object(number) if let Object::Generator(_) = heap.object(*number) => "generator",
        other => heap.type_name(other),
    }
}

fn write_items(
    heap: &mut Heap,
    style: &Style,
    level: usize,
    text: &mut String,
    (begin, end): (char, char),
    count: usize,
    mut item: impl FnMut(&mut Heap, usize, &mut String) -> std::result::Result<(), Fault>,
) -> std::result::Result<(), Fault> {
    text.push(begin);
    for at in 0..count {
        if at > 0 {
            text.push_str(&style.separators.0);
        }
        heap.take(style.separators.0.len() + style.separators.1.len())?;
        new_line(heap, style, level + 1, text)?;
        item(heap, at, text)?;
    }
    if count > 0 {
        new_line(heap, style, level, text)?;
    }
    text.push(end);
    heap.take(2)
}

fn new_line(
    heap: &mut Heap,
    style: &Style,
    level: usize,
    text: &mut String,
) -> std::result::Result<(), Fault> {
    if let Some(indent) = &style.indent {
        heap.take(indent.len().saturating_mul(level).saturating_add(1))?;
        text.push('\n');
        text.push_str(&indent.repeat(level));
    }
    Ok(())
}

fn key_of(key: &Value) -> std::result::Result<String, Fault> {
    Ok(match key {
        Value::Text(text) | Value::Markup(text) => text.to_string(),
        Value::None => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => json_float(*number),
        other => {
            return Err(fault!(
                "keys must be str, int, float, bool or None, not {}",
                other.type_name()
            ));
        }
    })
}

fn json_float(number: f64) -> String {
    if number.is_nan() {
        "NaN".into()
    } else if number.is_infinite() {
        if number > 0.0 {
            "Infinity".into()
        } else {
            "-Infinity".into()
        }
    } else {
        float(number)
    }
}

/// Appends a text as a literal, and pays for it.
fn quote(
    heap: &mut Heap,
    own: &str,
    ascii: bool,
    text: &mut String,
) -> std::result::Result<(), Fault> {
    let mut paid = text.len();
    text.push('"');
    for c in own.chars() {
        if text.len() - paid >= PAID_BYTES {
            heap.take(text.len() - paid)?;
            paid = text.len();
        }
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\x08' => text.push_str("\\b"),
            '\x0c' => text.push_str("\\f"),
            c if c < ' ' || (ascii && !(' '..='~').contains(&c)) => {
                let mut halves = [0; 2];
                for half in c.encode_utf16(&mut halves) {
                    text.push_str(&format!("\\u{half:04x}"));
                }
            }
            c => text.push(c),
        }
    }
    text.push('"');
    heap.take(text.len() - paid)
}
