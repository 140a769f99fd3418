//! Texts with places for values: `"%s" % x` and `"{}".format(x)`.
//!
//! Of Python's layouts there are sides, zeros, widths, digits behind a point, and the kinds `s`,
//! `r` (behind `%`), `d` and `f`; others are refused by name.

use super::call::Arguments;
use super::fault::{Fault, fault};
use super::heap::Heap;
use super::print::{repr_of, text_of};
use super::value::{Kind, Value};

/// The widest field and the most digits behind a point.
const WIDTH_MAX: usize = 10_000;
const DIGITS_MAX: usize = 100;

/// How a field is laid out.
struct Layout {
    /// `<`, `>` or `^`; a minus is `<` behind `%`.
    side: Option<char>,
    zeros: bool,
    width: usize,
    digits: Option<usize>,
    kind: Option<char>,
}

impl Layout {
    /// Takes a side, zeros, width, digits and a kind from the begin of the text.
    fn take(rest: &mut &str, sides: &str) -> Result<Self, Fault> {
        let mut skip = |letters: &str| {
            let found = rest.chars().next().filter(|c| letters.contains(*c));
            *rest = &rest[found.map_or(0, char::len_utf8)..];
            found
        };
        let (side, zeros) = (skip(sides), skip("0").is_some());
        let width = leading_number(rest).unwrap_or(0);
        let mut digits = None;
        if let Some(behind) = rest.strip_prefix('.') {
            *rest = behind;
            digits = Some(leading_number(rest).unwrap_or(0));
        }
        if width > WIDTH_MAX {
            return Err(Fault::limit("a field of a format is too wide"));
        }
        let kind = rest.chars().next();
        *rest = &rest[kind.map_or(0, char::len_utf8)..];
        Ok(Self {
            side,
            zeros,
            width,
            digits,
            kind,
        })
    }
}

/// Takes a number from the begin of the text, if one is there.
fn leading_number(rest: &mut &str) -> Option<usize> {
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, behind) = rest.split_at(length);
    *rest = behind;
    (length > 0).then(|| number.parse().unwrap_or(usize::MAX))
}

/// `format % values`, where the values are a tuple or a single one.
pub(super) fn percent(heap: &mut Heap, format: &str, values: &Value) -> Result<Value, Fault> {
    let places = match values {
        Value::Seq(seq) if seq.kind == Kind::Tuple => seq.items.clone(),
        other => vec![other.clone()],
    };
    heap.take_values(places.len())?;
    heap.spend(format.len() / 32)?;
    let mut places = places.into_iter();
    let mut text = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        heap.spend(1)?;
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let layout = Layout::take(&mut rest, "-")?;
        let kind = layout.kind.ok_or_else(|| fault!("incomplete format"))?;
        if kind == '%' {
            text.push('%');
            continue;
        }
        let value = places.next();
        let value = value.ok_or_else(|| fault!("not enough arguments for format string"))?;
        let (kind, value) = match (kind, &value) {
            ('s', _) => ('s', text_of(heap, &value)?.into()),
            ('r', _) => ('s', repr_of(heap, &value)?.into()),
            ('d', Value::Float(number)) => ('d', Value::Int(number.trunc() as i128)),
            _ => (kind, value),
        };
        let side = if layout.side.is_some() { '<' } else { '>' };
        let zeros = layout.zeros && side == '>' && kind != 's';
        push_field(
            heap,
            &mut text,
            &value,
            kind,
            side,
            &Layout { zeros, ..layout },
        )?;
    }
    text.push_str(rest);
    // What has items might be meant by name: Python does not count it.
    let has_items = match values {
        Value::Seq(seq) => seq.kind != Kind::Tuple,
        other => matches!(other, Value::Dict(_) | Value::Undefined(_)),
    };
    if !has_items && places.next().is_some() {
        return Err(fault!(
            "not all arguments converted during string formatting"
        ));
    }
    heap.text(text)
}

/// `format.format(...)`.
pub(super) fn braces(heap: &mut Heap, format: &str, arguments: &Arguments) -> Result<Value, Fault> {
    let mut text = String::new();
    let mut next = 0;
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        heap.spend(1)?;
        text.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix(brace) {
            text.push_str(brace);
            rest = behind;
            continue;
        }
        if brace == "}" {
            return Err(fault!("Single '}}' encountered in format string"));
        }
        let end = rest
            .find('}')
            .ok_or_else(|| fault!("expected '}}' before end of string"))?;
        let field = &rest[..end];
        rest = &rest[end + 1..];
        let (name, mut behind) = field.split_once(':').unwrap_or((field, ""));
        let given = given(arguments, name, &mut next)?;
        let layout = Layout::take(&mut behind, "<>^")?;
        let (kind, value) = match (layout.kind, given) {
            (Some(kind), value) => (kind, value.clone()),
            (None, Value::Int(_)) => ('d', given.clone()),
            (None, value) => ('s', text_of(heap, value)?.into()),
        };
        let is_float = matches!(given, Value::Float(_));
        let to_right =
            given.number().is_some() && !matches!((given, layout.kind), (Value::Bool(_), None));
        let side = layout.side.unwrap_or(if to_right { '>' } else { '<' });
        let is_odd = layout.kind.is_none() && is_float && (layout.digits.is_some() || layout.zeros);
        if !behind.is_empty() || is_odd || (layout.zeros && (kind == 's' || side != '>')) {
            return Err(fault!("the format '{{{field}}}' is not supported"));
        }
        push_field(heap, &mut text, &value, kind, side, &layout)?;
    }
    text.push_str(rest);
    heap.text(text)
}

/// The argument that a field names, by its place or name, or the next one.
fn given<'a>(arguments: &'a Arguments, name: &str, next: &mut usize) -> Result<&'a Value, Fault> {
    let found = if name.is_empty() {
        *next += 1;
        arguments.places.get(*next - 1)
    } else if let Ok(place) = name.parse::<usize>() {
        arguments.places.get(place)
    } else {
        let mut named = arguments.named.iter();
        named
            .find(|(own, _)| **own == *name)
            .map(|(_, value)| value)
    };
    found.ok_or_else(|| fault!("no argument '{name}' for the format"))
}

/// Appends a text or number, and pays for it.
fn push_field(
    heap: &mut Heap,
    text: &mut String,
    value: &Value,
    kind: char,
    side: char,
    layout: &Layout,
) -> Result<(), Fault> {
    let field = match (kind, value, value.integer(), value.number()) {
        ('s', Value::Text(text), ..) => match layout.digits {
            Some(letters) => text.chars().take(letters).collect(),
            None => text.to_string(),
        },
        ('d', _, Some(number), _) => number.to_string(),
        ('f', .., Some(number)) => {
            let digits = layout.digits.unwrap_or(6);
            if digits > DIGITS_MAX {
                return Err(Fault::limit("a field of a format has too many digits"));
            }
            format!("{number:.digits$}").to_lowercase()
        }
        ('s' | 'd' | 'f', ..) => {
            let found = value.type_name();
            return Err(fault!(
                "Unknown format code '{kind}' for object of type '{found}'"
            ));
        }
        _ => return Err(fault!("the format '{kind}' is not supported")),
    };
    let missing = layout.width.saturating_sub(field.chars().count());
    heap.take(field.len() + missing)?;
    let (blank, zeros) = if layout.zeros {
        (0, missing)
    } else {
        (missing, 0)
    };
    let left = match side {
        '<' => 0,
        '^' => blank / 2,
        _ => blank,
    };
    let sign = usize::from(zeros > 0 && field.starts_with('-'));
    let (sign, digits) = field.split_at(sign);
    text.extend([&*" ".repeat(left), sign, &*"0".repeat(zeros), digits]);
    text.push_str(&" ".repeat(blank - left));
    Ok(())
}
