//! Values as text: Python's `str` and `repr`.

use super::fault::{Fault, fault};
use super::heap::Heap;
use super::value::{Kind, Seq, Value};

/// Texts that get longer by quoting are paid for in pieces of about as many bytes.
pub(super) const PAID_BYTES: usize = 4096;

/// `str(value)`.
pub(super) fn text_of(heap: &mut Heap, value: &Value) -> Result<String, Fault> {
    let mut text = String::new();
    write_text(heap, value, &mut text)?;
    Ok(text)
}

/// Appends `str(value)`, and pays for it.
pub(super) fn write_text(heap: &mut Heap, value: &Value, text: &mut String) -> Result<(), Fault> {
    match value {
        Value::Text(own) | Value::Markup(own) => {
            heap.take(own.len())?;
            text.push_str(own);
            Ok(())
        }
        Value::Undefined(_) => Ok(()),
        other => write_repr(heap, other, text),
    }
}

/// `repr(value)`.
pub(super) fn repr_of(heap: &mut Heap, value: &Value) -> Result<String, Fault> {
    let mut text = String::new();
    write_repr(heap, value, &mut text)?;
    Ok(text)
}

fn write_repr(heap: &mut Heap, value: &Value, text: &mut String) -> Result<(), Fault> {
    let before = text.len();
    match value {
        Value::Undefined(_) => text.push_str("Undefined"),
        Value::None => text.push_str("None"),
        Value::Bool(flag) => text.push_str(if *flag { "True" } else { "False" }),
        Value::Int(number) => text.push_str(&number.to_string()),
        Value::Float(number) => text.push_str(&float(*number)),
        Value::Text(own) => return quote(heap, own, text),
        Value::Markup(own) => {
            text.push_str("Markup(");
            quote(heap, own, text)?;
            text.push(')');
            return heap.take("Markup()".len());
        }
        Value::Seq(seq) if seq.kind.is_plain() => return write_seq(heap, seq, text),
        Value::Dict(dict) => return write_entries(heap, dict.entries(), text),
        // Python would write where it is in memory, or what it is called.
        _ => return Err(fault!("a {} cannot be written", heap.type_name(value))),
    }
    heap.take(text.len() - before)
}

fn write_seq(heap: &mut Heap, seq: &Seq, text: &mut String) -> Result<(), Fault> {
    let items = &seq.items;
    let (begin, end) = match seq.kind {
        Kind::Tuple if items.len() == 1 => ("(", ",)"),
        Kind::Tuple => ("(", ")"),
        _ => ("[", "]"),
    };
    heap.take(begin.len() + end.len() + 2 * items.len())?;
    text.push_str(begin);
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            text.push_str(", ");
        }
        write_repr(heap, item, text)?;
    }
    text.push_str(end);
    Ok(())
}

fn write_entries(
    heap: &mut Heap,
    entries: &[(Value, Value)],
    text: &mut String,
) -> Result<(), Fault> {
    heap.take(2 + 4 * entries.len())?;
    text.push('{');
    for (at, (key, value)) in entries.iter().enumerate() {
        if at > 0 {
            text.push_str(", ");
        }
        write_repr(heap, key, text)?;
        text.push_str(": ");
        write_repr(heap, value, text)?;
    }
    text.push('}');
    Ok(())
}

/// A string as a literal of Python.
fn quote(heap: &mut Heap, own: &str, text: &mut String) -> Result<(), Fault> {
    let is_double = own.contains('\'') && !own.contains('"');
    let mark = if is_double { '"' } else { '\'' };
    let mut paid = text.len();
    text.push(mark);
    for c in own.chars() {
        if text.len() - paid >= PAID_BYTES {
            heap.take(text.len() - paid)?;
            paid = text.len();
        }
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if c == mark => {
                text.push('\\');
                text.push(c);
            }
            c if is_printable(c) => text.push(c),
            c => text.push_str(&match c as u32 {
                code @ ..0x100 => format!("\\x{code:02x}"),
                code @ ..0x10000 => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            }),
        }
    }
    text.push(mark);
    heap.take(text.len() - paid)
}

/// Whether Python shows the character as it is: separators, controls and private ones are not
/// (those that Unicode may yet assign count as printable here).
fn is_printable(c: char) -> bool {
    let hidden = c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(
            c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
        )
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || c >= '\u{e0000}';
    !hidden
}

/// `repr` of a float: the shortest text that is read back as the same number.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return (if number > 0.0 { "inf" } else { "-inf" }).into();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific
        .split_once('e')
        .expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    if (-4..16).contains(&exponent) {
        let plain = format!("{number}");
        return if plain.contains('.') {
            plain
        } else {
            plain + ".0"
        };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}
