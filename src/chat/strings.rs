//! The methods of strings that templates use, as Python has them.

use std::collections::HashSet;

use super::call::Arguments;
use super::fault::{Fault, fault};
use super::format::braces;
use super::heap::Heap;
use super::lexer::is_space;
use super::value::{Kind, Value};

pub(super) const METHODS: &str = "capitalize count endswith find format index isalnum isalpha \
    isdigit islower isspace isupper join lower lstrip partition removeprefix removesuffix replace \
    rfind rpartition rsplit rstrip split splitlines startswith strip title upper";

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
            let letters = optional_text(&letters, name)?;
            heap.spend(letters.map_or(0, |letters| (text.len() + letters.len()) / 8))?;
            let stripped = strip(text, letters, name != "rstrip", name != "lstrip");
            heap.text(stripped.into())
        }
        "split" | "rsplit" => split(heap, text, arguments, name == "rsplit"),
        "splitlines" => {
            arguments.none()?;
            heap.take(text.len())?;
            let text = text.replace("\r\n", "\n");
            heap.take_values(text.matches(ends_line).count())?;
            texts(
                heap,
                Kind::List,
                &text.split_terminator(ends_line).collect::<Vec<_>>(),
            )
        }
        "startswith" | "endswith" => {
            let [wanted] = arguments.bind(["prefix"])?;
            affix(text, name, &wanted)
        }
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
        "find" | "rfind" | "index" | "count" => {
            let [wanted] = arguments.bind(["sub"])?;
            search(text, name, text_argument(&wanted, name)?)
        }
        "partition" | "rpartition" => {
            let [separator] = arguments.bind(["sep"])?;
            partition(heap, text, name, text_argument(&separator, name)?)
        }
        "removeprefix" | "removesuffix" => {
            let [part] = arguments.bind(["part"])?;
            let part = text_argument(&part, name)?;
            let rest = match name {
                "removeprefix" => text.strip_prefix(part),
                _ => text.strip_suffix(part),
            };
            heap.text(rest.unwrap_or(text).into())
        }
        "format" => braces(heap, text, &arguments),
        _ => {
            arguments.none()?;
            letters(heap, text, name)
        }
    }
}

/// Methods about the letters of a text.
fn letters(heap: &mut Heap, text: &str, name: &str) -> Result<Value, Fault> {
    match name {
        "upper" => heap.text(text.to_uppercase()),
        "lower" => heap.text(text.to_lowercase()),
        "capitalize" => heap.text(capitalize(text)),
        "title" => heap.text(title(text, |c| !c.is_alphabetic())),
        _ => Ok(Value::Bool(is(text, name))),
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

/// A sequence of texts.
fn texts(heap: &mut Heap, kind: Kind, parts: &[&str]) -> Result<Value, Fault> {
    heap.take(parts.iter().map(|part| part.len()).sum())?;
    heap.seq(kind, parts.iter().map(|part| Value::from(*part)).collect())
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
    let behind = if at_begin {
        text.trim_start_matches(strips)
    } else {
        text
    };
    if at_end {
        behind.trim_end_matches(strips)
    } else {
        behind
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
        (None, true) if most < cuts => {
            return Err(fault!("rsplit() with a limit needs a separator"));
        }
        (None, _) => split_space(text, most),
    };
    texts(heap, Kind::List, &parts)
}

/// The parts between white space, `most` of them and what is behind.
fn split_space(text: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while let Some(at) = rest.find(is_space).filter(|_| parts.len() < most) {
        parts.push(&rest[..at]);
        rest = rest[at..].trim_start_matches(is_space);
    }
    parts.extend(Some(rest).filter(|rest| !rest.is_empty()));
    parts
}

fn ends_line(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

fn affix(text: &str, name: &str, wanted: &Option<Value>) -> Result<Value, Fault> {
    let is = |affix: &str| match name {
        "startswith" => text.starts_with(affix),
        _ => text.ends_with(affix),
    };
    if let Some(Value::Seq(seq)) = wanted
        && seq.kind == Kind::Tuple
    {
        for one in &seq.items {
            if is(text_argument(&Some(one.clone()), name)?) {
                return Ok(Value::Bool(true));
            }
        }
        return Ok(Value::Bool(false));
    }
    Ok(Value::Bool(is(text_argument(wanted, name)?)))
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

/// Where the text is found; a place is counted in characters.
fn search(text: &str, name: &str, wanted: &str) -> Result<Value, Fault> {
    let found = match name {
        "count" => {
            let count = text.matches(wanted).count();
            return Ok(Value::from(count));
        }
        "rfind" => text.rfind(wanted),
        _ => text.find(wanted),
    };
    match found {
        Some(at) => Ok(Value::from(text[..at].chars().count())),
        None if name == "index" => Err(fault!("substring not found")),
        None => Ok(Value::Int(-1)),
    }
}

fn partition(heap: &mut Heap, text: &str, name: &str, separator: &str) -> Result<Value, Fault> {
    if separator.is_empty() {
        return Err(fault!("empty separator"));
    }
    let from_begin = name == "partition";
    let found = match from_begin {
        true => text.split_once(separator),
        false => text.rsplit_once(separator),
    };
    let parts = match found {
        Some((before, behind)) => [before, separator, behind],
        None if from_begin => [text, "", ""],
        None => ["", "", text],
    };
    texts(heap, Kind::Tuple, &parts)
}

pub(super) fn capitalize(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first
        .chain(letters.as_str().to_lowercase().chars())
        .collect()
}

/// Capital letters at the begin and behind what `separates` words, small ones elsewhere.
pub(super) fn title(text: &str, separates: impl Fn(char) -> bool) -> String {
    let mut begins = true;
    let mut result = String::new();
    for c in text.chars() {
        match begins {
            true => result.extend(c.to_uppercase()),
            false => result.extend(c.to_lowercase()),
        }
        begins = separates(c);
    }
    result
}

/// Whether the text is what the method or test asks.
pub(super) fn is(text: &str, name: &str) -> bool {
    let all = |what: fn(char) -> bool| !text.is_empty() && text.chars().all(what);
    let any = |what: fn(char) -> bool| text.chars().any(what);
    match name {
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isdigit" => all(char::is_numeric),
        "isspace" => all(is_space),
        "islower" => any(char::is_lowercase) && !any(char::is_uppercase),
        _ => any(char::is_uppercase) && !any(char::is_lowercase),
    }
}
