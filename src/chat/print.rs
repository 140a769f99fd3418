//! Values as text: Python's `str` and `repr`.

use super::fault::Fault;
use super::heap::{Heap, Object};
use super::value::{Kind, Value};

/// How deep a namespace in a namespace is followed: it may hold itself.
const OBJECT_DEPTH_MAX: u32 = 20;

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
        other => write_repr(heap, other, text, 0),
    }
}

/// `repr(value)`.
pub(super) fn repr_of(heap: &mut Heap, value: &Value) -> Result<String, Fault> {
    let mut text = String::new();
    write_repr(heap, value, &mut text, 0)?;
    Ok(text)
}

fn write_repr(
    heap: &mut Heap,
    value: &Value,
    text: &mut String,
    objects: u32,
) -> Result<(), Fault> {
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
        Value::Method(_, name) => text.push_str(&format!("<built-in method {name}>")),
        Value::Function(function) => text.push_str(&format!("<function {function:?}>")),
        Value::Seq(seq) => return write_seq(heap, seq.kind, &seq.items, text, objects),
        Value::Dict(dict) => return write_entries(heap, dict.entries(), text, objects),
        Value::Object(number) => match heap.object(*number) {
            Object::Namespace(dict) => {
                if objects >= OBJECT_DEPTH_MAX {
                    return Err(Fault::limit("namespaces nest too deep"));
                }
                let entries = dict.entries().to_vec();
                text.push_str("<Namespace ");
                write_entries(heap, &entries, text, objects + 1)?;
                text.push('>');
            }
            _ => text.push_str(&format!("<{} object>", heap.type_name(value))),
        },
    }
    heap.take(text.len() - before)
}

fn write_seq(
    heap: &mut Heap,
    kind: Kind,
    items: &[Value],
    text: &mut String,
    objects: u32,
) -> Result<(), Fault> {
    let (begin, end) = match kind {
        Kind::List => ("[", "]"),
        Kind::Tuple | Kind::Group if items.len() == 1 => ("(", ",)"),
        Kind::Tuple | Kind::Group => ("(", ")"),
        Kind::Range(begin, end, step) => {
            text.push_str(&match step {
                1 => format!("range({begin}, {end})"),
                _ => format!("range({begin}, {end}, {step})"),
            });
            return heap.take(32);
        }
        Kind::Keys => ("dict_keys([", "])"),
        Kind::Values => ("dict_values([", "])"),
        Kind::Items => ("dict_items([", "])"),
    };
    heap.take(begin.len() + end.len() + 2 * items.len())?;
    text.push_str(begin);
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            text.push_str(", ");
        }
        write_repr(heap, item, text, objects)?;
    }
    text.push_str(end);
    Ok(())
}

fn write_entries(
    heap: &mut Heap,
    entries: &[(Value, Value)],
    text: &mut String,
    objects: u32,
) -> Result<(), Fault> {
    heap.take(2 + 4 * entries.len())?;
    text.push('{');
    for (at, (key, value)) in entries.iter().enumerate() {
        if at > 0 {
            text.push_str(", ");
        }
        write_repr(heap, key, text, objects)?;
        text.push_str(": ");
        write_repr(heap, value, text, objects)?;
    }
    text.push('}');
    Ok(())
}

/// A string as a literal of Python.
fn quote(heap: &mut Heap, own: &str, text: &mut String) -> Result<(), Fault> {
    let mark = if own.contains('\'') && !own.contains('"') {
        '"'
    } else {
        '\''
    };
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
        return if number > 0.0 {
            "inf".into()
        } else {
            "-inf".into()
        };
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
