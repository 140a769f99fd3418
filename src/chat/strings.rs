//! The methods of strings, as Python has them.

mod letters;

use std::collections::HashSet;

use super::call::Arguments;
use super::fault::{Fault, fault};
use super::format::braces;
use super::heap::Heap;
use super::lexer::is_space;
use super::value::{Kind, Value};
pub(super) use letters::capitalize;
use letters::{changed, is};

pub(super) const METHODS: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];

pub(super) fn call(
    heap: &mut Heap,
    text: &str,
    name: &str,
    arguments: Arguments,
) -> Result<Value, Fault> {
    pay(heap, text, &arguments)?;
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let [letters] = arguments.bind(["chars"])?;
            let letters = optional_text(&letters, "strip")?;
            heap.spend(letters.map_or(0, |letters| (text.len() + letters.len()) / 8))?;
            let stripped = strip(text, letters, name != "rstrip", name != "lstrip");
            heap.text(stripped.into())
        }
        "split" | "rsplit" => split(heap, text, arguments, name == "rsplit"),
        "splitlines" => {
            let [keep] = arguments.bind(["keepends"])?;
            let keep = keep.is_some_and(|keep| keep.is_true());
            heap.take_values(text.matches(ends_line).count())?;
            let lines = lines(text, keep);
            texts(heap, &lines)
        }
        "startswith" | "endswith" => affix(text, name == "startswith", arguments),
        "replace" => {
            let [old, new, count] = arguments.bind(["old", "new", "count"])?;
            let (old, new) = (text_argument(&old, name)?, text_argument(&new, name)?);
            let count = optional_integer(&count, name)?.unwrap_or(-1);
            replace(heap, text, old, new, count)
        }
        "join" => {
            let [items] = arguments.bind(["iterable"])?;
            let items = items.ok_or_else(|| fault!("join() takes exactly one argument"))?;
            join(heap, text, &items)
        }
        "find" | "rfind" | "index" | "rindex" | "count" => search(text, name, arguments),
        "partition" | "rpartition" => partition(heap, text, name == "partition", arguments),
        "removeprefix" | "removesuffix" => {
            let [part] = arguments.bind(["part"])?;
            let part = text_argument(&part, name)?;
            let rest = match name {
                "removeprefix" => text.strip_prefix(part),
                _ => text.strip_suffix(part),
            };
            heap.text(rest.unwrap_or(text).into())
        }
        "center" | "ljust" | "rjust" | "zfill" => pad(heap, text, name, arguments),
        "format" => braces(heap, text, &arguments),
        "format_map" => {
            let [map] = arguments.bind(["mapping"])?;
            let map = map.ok_or_else(|| fault!("format_map() takes exactly one argument"))?;
            let mut arguments = Arguments::default();
            arguments.add_dict(heap, &map)?;
            braces(heap, text, &arguments)
        }
        "expandtabs" => {
            let [width] = arguments.bind(["tabsize"])?;
            let width = optional_integer(&width, name)?.unwrap_or(8);
            expand_tabs(heap, text, width)
        }
        _ => {
            arguments.none()?;
            match changed(text, name) {
                Some(text) => heap.text(text),
                None => Ok(Value::Bool(is(text, name))),
            }
        }
    }
}

/// Most methods look at the whole text and at what they are given; what they make is seldom longer.
fn pay(heap: &mut Heap, text: &str, arguments: &Arguments) -> Result<(), Fault> {
    let named = arguments.named.iter().map(|(_, value)| value);
    for given in arguments.places.iter().chain(named) {
        heap.spend(given.size().values as usize)?;
    }
    heap.spend(text.len() / 32)
}

pub(super) fn text_argument<'a>(value: &'a Option<Value>, name: &str) -> Result<&'a str, Fault> {
    let Some(value) = value else {
        return Err(fault!("{name}() misses an argument"));
    };
    if let Some(fault) = value.undefined_fault() {
        return Err(fault);
    }
    let text = value.text().map(|text| &**text);
    text.ok_or_else(|| fault!("{name}() argument must be str, not {}", value.type_name()))
}

fn optional_text<'a>(value: &'a Option<Value>, name: &str) -> Result<Option<&'a str>, Fault> {
    match value {
        None | Some(Value::None) => Ok(None),
        given => text_argument(given, name).map(Some),
    }
}

fn optional_integer(value: &Option<Value>, name: &str) -> Result<Option<i128>, Fault> {
    let Some(value) = value else {
        return Ok(None);
    };
    let number = value.integer().map(Some);
    number.ok_or_else(|| fault!("{name}() argument must be int, not {}", value.type_name()))
}

/// A list of texts.
fn texts(heap: &mut Heap, parts: &[&str]) -> Result<Value, Fault> {
    heap.take(parts.iter().map(|part| part.len()).sum())?;
    heap.list(parts.iter().map(|part| Value::from(*part)).collect())
}

pub(super) fn strip<'a>(
    text: &'a str,
    letters: Option<&str>,
    at_begin: bool,
    at_end: bool,
) -> &'a str {
    // Both texts may be long.
    let letters: Option<HashSet<char>> = letters.map(|letters| letters.chars().collect());
    let strips = |c: char| match &letters {
        Some(letters) => letters.contains(&c),
        None => is_space(c),
    };
    let text = if at_begin {
        text.trim_start_matches(strips)
    } else {
        text
    };
    if at_end {
        text.trim_end_matches(strips)
    } else {
        text
    }
}

fn split(
    heap: &mut Heap,
    text: &str,
    arguments: Arguments,
    from_end: bool,
) -> Result<Value, Fault> {
    let [separator, most] = arguments.bind(["sep", "maxsplit"])?;
    let separator = optional_text(&separator, "split")?;
    let most = optional_integer(&most, "split")?.unwrap_or(-1);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let most = most.min(usize::MAX - 1);
    let cuts = match separator {
        Some(separator) => text.matches(separator).count(),
        None => text.chars().filter(|c| is_space(*c)).count(),
    };
    heap.take_values(cuts.min(most))?;
    let parts: Vec<&str> = match (separator, from_end) {
        (Some(""), _) => return Err(fault!("empty separator")),
        (Some(separator), false) => text.splitn(most + 1, separator).collect(),
        (Some(separator), true) => {
            let mut parts: Vec<&str> = text.rsplitn(most + 1, separator).collect();
            parts.reverse();
            parts
        }
        (None, _) => split_space(text, most, from_end),
    };
    texts(heap, &parts)
}

/// Splits at white space, of which there is none in the parts but the last one.
fn split_space(text: &str, most: usize, from_end: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_matches(is_space);
    if most < usize::MAX - 1 {
        // What is left keeps the white space on its other side.
        rest = match from_end {
            true => text.trim_end_matches(is_space),
            false => text.trim_start_matches(is_space),
        };
    }
    // It neither begins nor ends, where it is cut, with white space.
    while !rest.is_empty() {
        let cut = match from_end {
            _ if parts.len() == most => None,
            true => rest.rfind(is_space),
            false => rest.find(is_space),
        };
        let Some(at) = cut else {
            parts.push(rest);
            break;
        };
        if from_end {
            let begin = at + rest[at..].chars().next().map_or(0, char::len_utf8);
            parts.push(&rest[begin..]);
            rest = rest[..at].trim_end_matches(is_space);
        } else {
            parts.push(&rest[..at]);
            rest = rest[at..].trim_start_matches(is_space);
        }
    }
    if from_end {
        parts.reverse();
    }
    parts
}

fn ends_line(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

fn lines(text: &str, keep: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(ends_line) {
        let end = match rest[at..].starts_with("\r\n") {
            true => 2,
            false => rest[at..].chars().next().map_or(0, char::len_utf8),
        };
        lines.push(&rest[..if keep { at + end } else { at }]);
        rest = &rest[at + end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

fn affix(text: &str, at_begin: bool, arguments: Arguments) -> Result<Value, Fault> {
    let [wanted, begin, end] = arguments.bind(["prefix", "start", "end"])?;
    let part = part(text, &begin, &end)?;
    let is = |affix: &str| match at_begin {
        true => part.is_some_and(|part| part.starts_with(affix)),
        false => part.is_some_and(|part| part.ends_with(affix)),
    };
    match &wanted {
        Some(Value::Seq(seq)) if seq.kind.is_tuple() => {
            for one in &seq.items {
                if is(text_argument(&Some(one.clone()), "startswith")?) {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        one => Ok(Value::Bool(is(text_argument(one, "startswith")?))),
    }
}

/// The part of a text between two places, counted in characters; `None` if it begins behind its end.
fn part<'a>(
    text: &'a str,
    begin: &Option<Value>,
    end: &Option<Value>,
) -> Result<Option<&'a str>, Fault> {
    let place = |given: &Option<Value>, otherwise: usize| -> Result<usize, Fault> {
        let given = match given {
            None | Some(Value::None) => return Ok(otherwise),
            given => optional_integer(given, "slice")?.unwrap_or(0),
        };
        let len = text.chars().count() as i128;
        let at = if given < 0 {
            (given + len).max(0)
        } else {
            given
        };
        if at > len {
            return Ok(usize::MAX);
        }
        let found = text.char_indices().nth(at as usize);
        Ok(found.map_or(text.len(), |(at, _)| at))
    };
    let (begin, end) = (place(begin, 0)?, place(end, text.len())?.min(text.len()));
    Ok(text.get(begin..end))
}

pub(super) fn replace(
    heap: &mut Heap,
    text: &str,
    old: &str,
    new: &str,
    count: i128,
) -> Result<Value, Fault> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    heap.spend(text.len() / 16)?;
    // What it will come to is paid for before it is made.
    let found = match old.is_empty() {
        true => text.chars().count() + 1,
        false => text.matches(old).count(),
    };
    heap.take(
        text.len()
            .saturating_add(found.min(count).saturating_mul(new.len())),
    )?;
    Ok(text.replacen(old, new, count).into())
}

pub(super) fn join(heap: &mut Heap, separator: &str, items: &Value) -> Result<Value, Fault> {
    let mut text = String::new();
    for (at, item) in heap.iterate(items)?.iter().enumerate() {
        let part = item.text().ok_or_else(|| {
            fault!(
                "sequence item {at}: expected str instance, {} found",
                item.type_name()
            )
        })?;
        heap.take(part.len() + separator.len())?;
        if at > 0 {
            text.push_str(separator);
        }
        text.push_str(part);
    }
    Ok(text.into())
}

fn search(text: &str, name: &str, arguments: Arguments) -> Result<Value, Fault> {
    let [wanted, begin, end] = arguments.bind(["sub", "start", "end"])?;
    let wanted = text_argument(&wanted, name)?;
    let part = part(text, &begin, &end)?;
    if name == "count" {
        let count = part.map_or(0, |part| match wanted.is_empty() {
            true => part.chars().count() + 1,
            false => part.matches(wanted).count(),
        });
        return Ok(Value::from(count));
    }
    let found = part.and_then(|part| {
        let at = match name.starts_with('r') {
            true => part.rfind(wanted),
            false => part.find(wanted),
        }?;
        // Both begin in one text.
        let before = part.as_ptr() as usize - text.as_ptr() as usize;
        Some(text[..before + at].chars().count())
    });
    match found {
        Some(at) => Ok(Value::from(at)),
        None if name.ends_with("find") => Ok(Value::Int(-1)),
        None => Err(fault!("substring not found")),
    }
}

fn partition(
    heap: &mut Heap,
    text: &str,
    from_begin: bool,
    arguments: Arguments,
) -> Result<Value, Fault> {
    let [separator] = arguments.bind(["sep"])?;
    let separator = text_argument(&separator, "partition")?;
    if separator.is_empty() {
        return Err(fault!("empty separator"));
    }
    let found = match from_begin {
        true => text.split_once(separator),
        false => text.rsplit_once(separator),
    };
    let parts = match found {
        Some((before, behind)) => [before, separator, behind],
        None if from_begin => [text, "", ""],
        None => ["", "", text],
    };
    heap.take(text.len() + separator.len())?;
    heap.seq(Kind::Tuple, parts.map(Value::from).into())
}

fn pad(heap: &mut Heap, text: &str, name: &str, arguments: Arguments) -> Result<Value, Fault> {
    let [width, fill] = arguments.bind(["width", "fillchar"])?;
    let width = optional_integer(&width, name)?;
    let width = width.ok_or_else(|| fault!("{name}() misses an argument"))?;
    let fill = match &fill {
        None => " ",
        given => text_argument(given, name)?,
    };
    if fill.chars().count() != 1 {
        return Err(fault!(
            "The fill character must be exactly one character long"
        ));
    }
    let len = text.chars().count();
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(len);
    heap.take(
        text.len()
            .saturating_add(missing.saturating_mul(fill.len())),
    )?;
    let some = |count: usize| fill.repeat(count);
    Ok(Value::from(match name {
        "ljust" => text.to_owned() + &some(missing),
        "rjust" => some(missing) + text,
        "center" => {
            let left = missing / 2 + (missing & len_parity(len, missing));
            some(left) + text + &some(missing - left)
        }
        _ => {
            let sign = usize::from(text.starts_with(['+', '-']));
            format!("{}{}{}", &text[..sign], "0".repeat(missing), &text[sign..])
        }
    }))
}

/// Python puts the odd one of the missing characters to the left if the width is odd.
fn len_parity(len: usize, missing: usize) -> usize {
    (len + missing) & 1
}

fn expand_tabs(heap: &mut Heap, text: &str, width: i128) -> Result<Value, Fault> {
    let width = usize::try_from(width).unwrap_or(0);
    let tabs = text.matches('\t').count();
    heap.take(text.len().saturating_add(tabs.saturating_mul(width)))?;
    let mut column = 0;
    let mut result = String::new();
    for c in text.chars() {
        match c {
            '\t' if width == 0 => {}
            '\t' => {
                let missing = width - column % width;
                result.push_str(&" ".repeat(missing));
                column += missing;
            }
            '\n' | '\r' => {
                result.push(c);
                column = 0;
            }
            c => {
                result.push(c);
                column += 1;
            }
        }
    }
    Ok(result.into())
}
