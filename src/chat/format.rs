//! Texts with places for values: `"%s" % x` and `"{}".format(x)`.

use super::attributes::{item, member};
use super::call::Arguments;
use super::fault::{Fault, fault};
use super::heap::Heap;
use super::print::{float, repr_of, text_of};
use super::value::Value;

/// The widest field and the most digits behind a point.
const WIDTH_MAX: usize = 10_000;
const DIGITS_MAX: usize = 100;

/// How a field is laid out.
#[derive(Debug, Default, Clone)]
struct Layout {
    fill: Option<char>,
    /// `<`, `>`, `^` or `=`.
    align: Option<char>,
    /// `+` or a space.
    sign: Option<char>,
    alternate: bool,
    zeros: bool,
    width: usize,
    thousands: Option<char>,
    digits: Option<usize>,
    kind: Option<char>,
}

/// `format % values`, where the values are a tuple, a dictionary or a single one.
pub(super) fn percent(heap: &mut Heap, format: &str, values: &Value) -> Result<Value, Fault> {
    let places = match values {
        Value::Seq(seq) if seq.kind.is_tuple() => seq.items.clone(),
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
        let named = match rest.strip_prefix('(') {
            None => None,
            Some(name) => {
                let end = name
                    .find(')')
                    .ok_or_else(|| fault!("incomplete format key"))?;
                rest = &name[end + 1..];
                Some(&name[..end])
            }
        };
        let mut layout = percent_layout(&mut rest, &mut places)?;
        let kind = rest
            .chars()
            .next()
            .ok_or_else(|| fault!("incomplete format"))?;
        rest = &rest[kind.len_utf8()..];
        if kind == '%' {
            text.push('%');
            continue;
        }
        let value = match named {
            Some(name) => item(heap, values, &name.into())?,
            None => places
                .next()
                .ok_or_else(|| fault!("not enough arguments for format string"))?,
        };
        layout.kind = Some(kind);
        let field = percent_field(heap, &value, &layout)?;
        heap.take(field.len())?;
        text.push_str(&field);
    }
    text.push_str(rest);
    // What has items might be meant by name: Python does not count it.
    let has_items = match values {
        Value::Seq(seq) => !seq.kind.is_tuple(),
        other => matches!(other, Value::Dict(_) | Value::Undefined(_)),
    };
    let takes_all = has_items || places.next().is_none();
    if !takes_all {
        return Err(fault!(
            "not all arguments converted during string formatting"
        ));
    }
    heap.text(text)
}

/// Flags, width and digits behind a `%`.
fn percent_layout(
    rest: &mut &str,
    places: &mut impl Iterator<Item = Value>,
) -> Result<Layout, Fault> {
    let mut layout = Layout::default();
    while let Some(flag) = rest.chars().next().filter(|c| "-+ 0#".contains(*c)) {
        match flag {
            '-' => layout.align = Some('<'),
            '0' => layout.zeros = true,
            '#' => layout.alternate = true,
            sign => layout.sign = Some(sign),
        }
        *rest = &rest[1..];
    }
    let mut number = |rest: &mut &str| match rest.strip_prefix('*') {
        Some(behind) => {
            *rest = behind;
            let width = places.next().and_then(|value| value.integer());
            let width = width.ok_or_else(|| fault!("* wants int"))?;
            Ok(usize::try_from(width.max(0)).unwrap_or(usize::MAX))
        }
        None => Ok(leading_number(rest).unwrap_or(0)),
    };
    layout.width = number(rest)?;
    if let Some(behind) = rest.strip_prefix('.') {
        *rest = behind;
        layout.digits = Some(number(rest)?);
    }
    check_width(&layout)?;
    Ok(layout)
}

/// Takes a number from the begin of the text, if one is there.
fn leading_number(rest: &mut &str) -> Option<usize> {
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, behind) = rest.split_at(length);
    *rest = behind;
    (length > 0).then(|| number.parse().unwrap_or(usize::MAX))
}

fn check_width(layout: &Layout) -> Result<(), Fault> {
    match layout.width > WIDTH_MAX {
        true => Err(Fault::limit("a field of a format is too wide")),
        false => Ok(()),
    }
}

/// Digits of a number; a text may have as many letters as it will.
fn check_digits(layout: &Layout) -> Result<(), Fault> {
    match layout.digits.is_some_and(|digits| digits > DIGITS_MAX) {
        true => Err(Fault::limit("a field of a format has too many digits")),
        false => Ok(()),
    }
}

fn percent_field(heap: &mut Heap, value: &Value, layout: &Layout) -> Result<String, Fault> {
    let kind = layout.kind.unwrap_or('s');
    let mut layout = layout.clone();
    match kind {
        's' | 'r' | 'a' => {
            let text = match kind {
                's' => text_of(heap, value)?,
                _ => repr_of(heap, value)?,
            };
            layout.zeros = false;
            layout.align.get_or_insert('>');
            Ok(aligned(cut(text, layout.digits), &layout))
        }
        'c' => {
            let c = match (value, value.integer()) {
                (Value::Text(text), _) if text.chars().count() == 1 => text.chars().next(),
                (_, Some(code)) => u32::try_from(code).ok().and_then(char::from_u32),
                _ => None,
            };
            let c = c.ok_or_else(|| fault!("%c requires int or char"))?;
            layout.align.get_or_insert('>');
            Ok(aligned(c.to_string(), &layout))
        }
        'd' | 'i' | 'u' => {
            let number = match value {
                Value::Float(number) => Some(number.trunc() as i128),
                other => other.integer(),
            };
            let number = number.ok_or_else(|| {
                fault!(
                    "%{kind} format: a real number is required, not {}",
                    value.type_name()
                )
            })?;
            layout.kind = Some('d');
            layout.digits = None;
            number_field(&Value::Int(number), &layout)
        }
        _ => number_field(value, &layout),
    }
}

/// The first characters of a text, as many as asked for.
fn cut(text: String, letters: Option<usize>) -> String {
    match letters {
        Some(letters) => text.chars().take(letters).collect(),
        None => text,
    }
}

/// Fills the text up to the width.
fn aligned(text: String, layout: &Layout) -> String {
    let missing = layout.width.saturating_sub(text.chars().count());
    if missing == 0 {
        return text;
    }
    let fill = layout.fill.unwrap_or(if layout.zeros { '0' } else { ' ' });
    let some = |count: usize| fill.to_string().repeat(count);
    match layout.align {
        Some('<') => text + &some(missing),
        Some('^') => some(missing / 2) + &text + &some(missing - missing / 2),
        Some('=') => {
            let sign = text.len() - text.trim_start_matches(['+', '-', ' ']).len();
            format!("{}{}{}", &text[..sign], some(missing), &text[sign..])
        }
        _ => some(missing) + &text,
    }
}

fn number_field(value: &Value, layout: &Layout) -> Result<String, Fault> {
    check_digits(layout)?;
    let kind = layout.kind.unwrap_or('d');
    let wrong = || {
        fault!(
            "Unknown format code '{kind}' for object of type '{}'",
            value.type_name()
        )
    };
    let (negative, digits) = match kind {
        'd' | 'x' | 'X' | 'o' | 'b' | 'c' | 'n' => {
            let number = value.integer().ok_or_else(wrong)?;
            let size = number.unsigned_abs();
            let (prefix, digits) = match kind {
                'x' => ("0x", format!("{size:x}")),
                'X' => ("0X", format!("{size:X}")),
                'o' => ("0o", format!("{size:o}")),
                'b' => ("0b", format!("{size:b}")),
                'c' => {
                    let c = u32::try_from(size).ok().and_then(char::from_u32);
                    ("", c.ok_or_else(wrong)?.to_string())
                }
                _ => ("", size.to_string()),
            };
            let prefix = if layout.alternate { prefix } else { "" };
            (number < 0, format!("{prefix}{digits}"))
        }
        'f' | 'F' | 'e' | 'E' | 'g' | 'G' | '%' => {
            let number = value.number().ok_or_else(wrong)?;
            let text = float_digits(number.abs(), kind, layout);
            (number.is_sign_negative() && !number.is_nan(), text)
        }
        _ => return Err(wrong()),
    };
    let digits = match layout.thousands {
        Some(mark) => with_thousands(&digits, mark),
        None => digits,
    };
    let sign = match (negative, layout.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(' ')) => " ",
        _ => "",
    };
    let mut layout = layout.clone();
    if layout.zeros && layout.align.is_none() {
        layout.align = Some('=');
    }
    Ok(aligned(format!("{sign}{digits}"), &layout))
}

fn float_digits(number: f64, kind: char, layout: &Layout) -> String {
    let digits = layout.digits.unwrap_or(6);
    if !number.is_finite() {
        return if number.is_nan() {
            "nan".into()
        } else {
            "inf".into()
        };
    }
    let text = match kind {
        'f' | 'F' => format!("{number:.digits$}"),
        '%' => format!("{:.digits$}%", number * 100.0),
        'e' | 'E' => scientific(number, digits),
        _ => general(number, digits.max(1), layout.alternate),
    };
    if kind.is_ascii_uppercase() {
        text.to_uppercase()
    } else {
        text
    }
}

fn scientific(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$e}");
    let (digits, exponent) = text.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

fn general(number: f64, digits: usize, alternate: bool) -> String {
    let text = scientific(number, digits - 1);
    let (mantissa, exponent) = text.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    let shorten = |text: &str| match text.contains('.') && !alternate {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..digits as i32).contains(&exponent) {
        let behind = (digits as i32 - 1 - exponent).max(0) as usize;
        return shorten(&format!("{number:.behind$}"));
    }
    let rest = &text[mantissa.len()..];
    shorten(mantissa) + rest
}

fn with_thousands(digits: &str, mark: char) -> String {
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    let (whole, rest) = digits.split_at(end);
    let mut text = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            text.push(mark);
        }
        text.push(digit);
    }
    text + rest
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
        if field.contains('{') {
            return Err(Fault::limit("fields inside of fields are not supported"));
        }
        rest = &rest[end + 1..];
        let field = brace_field(heap, field, arguments, &mut next)?;
        heap.take(field.len())?;
        text.push_str(&field);
    }
    text.push_str(rest);
    heap.text(text)
}

fn brace_field(
    heap: &mut Heap,
    field: &str,
    arguments: &Arguments,
    next: &mut usize,
) -> Result<String, Fault> {
    let (field, layout) = field.split_once(':').unwrap_or((field, ""));
    let (path, conversion) = match field.split_once('!') {
        Some((path, conversion)) => (path, Some(conversion)),
        None => (field, None),
    };
    let value = brace_value(heap, path, arguments, next)?;
    let layout = brace_layout(layout)?;
    let value = match conversion {
        None => value,
        Some("s") => text_of(heap, &value)?.into(),
        Some("r" | "a") => repr_of(heap, &value)?.into(),
        Some(other) => return Err(fault!("Unknown conversion specifier '{other}'")),
    };
    match (&value, layout.kind) {
        (Value::Int(_), _) | (Value::Bool(_), Some(_)) => number_field(&value, &layout),
        (Value::Float(number), None) => {
            check_digits(&layout)?;
            let general = layout
                .digits
                .map(|digits| general(number.abs(), digits.max(1), false));
            let text = match general {
                Some(text) if *number < 0.0 => format!("-{text}"),
                Some(text) => text,
                None => float(*number),
            };
            Ok(aligned(text, &layout))
        }
        (Value::Float(_), _) => number_field(&value, &layout),
        (_, None | Some('s')) => {
            let text = cut(text_of(heap, &value)?, layout.digits);
            let mut layout = layout;
            layout.align.get_or_insert('<');
            Ok(aligned(text, &layout))
        }
        (other, Some(kind)) => Err(fault!(
            "Unknown format code '{kind}' for object of type '{}'",
            other.type_name()
        )),
    }
}

fn brace_value(
    heap: &mut Heap,
    path: &str,
    arguments: &Arguments,
    next: &mut usize,
) -> Result<Value, Fault> {
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (first, mut rest) = path.split_at(end);
    let named = || arguments.named.iter().find(|(name, _)| **name == *first);
    let found = if first.is_empty() {
        *next += 1;
        arguments.places.get(*next - 1)
    } else if let Ok(place) = first.parse::<usize>() {
        arguments.places.get(place)
    } else {
        named().map(|(_, value)| value)
    };
    let mut value = found
        .cloned()
        .ok_or_else(|| fault!("no argument '{first}' for the format"))?;
    while !rest.is_empty() {
        if let Some(path) = rest.strip_prefix('.') {
            let end = path.find(['.', '[']).unwrap_or(path.len());
            value = member(heap, &value, &path[..end].into())?;
            rest = &path[end..];
        } else {
            let end = rest
                .find(']')
                .ok_or_else(|| fault!("Missing ']' in format string"))?;
            let key = &rest[1..end];
            let key = key.parse().map_or_else(|_| key.into(), Value::Int);
            value = item(heap, &value, &key)?;
            rest = &rest[end + 1..];
        }
    }
    Ok(value)
}

fn brace_layout(text: &str) -> Result<Layout, Fault> {
    let mut layout = Layout::default();
    let mut rest = text;
    let letters: Vec<char> = rest.chars().take(2).collect();
    let is_align = |c: &char| "<>=^".contains(*c);
    if letters.len() == 2 && is_align(&letters[1]) {
        (layout.fill, layout.align) = (Some(letters[0]), Some(letters[1]));
        rest = &rest[letters[0].len_utf8() + 1..];
    } else if letters.first().is_some_and(is_align) {
        layout.align = Some(letters[0]);
        rest = &rest[1..];
    }
    let mut take = |marks: &str| {
        let found = rest.chars().next().filter(|c| marks.contains(*c));
        rest = &rest[found.map_or(0, char::len_utf8)..];
        found
    };
    layout.sign = take("+- ");
    layout.alternate = take("#").is_some();
    layout.zeros = take("0").is_some();
    layout.width = leading_number(&mut rest).unwrap_or(0);
    let mut take = |marks: &str| {
        let found = rest.chars().next().filter(|c| marks.contains(*c));
        rest = &rest[found.map_or(0, char::len_utf8)..];
        found
    };
    layout.thousands = take(",_");
    if take(".").is_some() {
        layout.digits = Some(
            leading_number(&mut rest)
                .ok_or_else(|| fault!("Format specifier missing precision"))?,
        );
    }
    let mut letters = rest.chars();
    layout.kind = letters.next();
    if letters.next().is_some() {
        return Err(fault!("Invalid format specifier '{text}'"));
    }
    check_width(&layout)?;
    Ok(layout)
}
