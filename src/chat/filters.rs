//! Filters: `value | name(arguments)`. Those of texts stand here, others in
//! [`numbers`] and [`sequences`].

mod numbers;
mod sequences;

use super::attributes::member;
use super::call::Arguments;
use super::fault::{Fault, fault};
use super::format::percent;
use super::heap::{Heap, Object};
use super::json::{self, Style};
use super::operators;
use super::print::text_of;
use super::strings::{self, capitalize, strip};
use super::value::{Dict, Kind, Missing, Value};

type Apply = fn(&mut Heap, Value, Arguments) -> Result<Value, Fault>;

/// A filter, by its place in the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filter(u8);

const TABLE: &[(&str, Apply)] = &[
    ("abs", numbers::abs),
    ("attr", attr),
    ("batch", sequences::batch),
    ("capitalize", |heap, value, arguments| {
        on_text(heap, value, arguments, capitalize)
    }),
    ("center", center),
    ("count", length),
    ("d", default),
    ("default", default),
    ("dictsort", sequences::dictsort),
    ("e", escape),
    ("escape", escape),
    ("first", sequences::first),
    ("float", numbers::float),
    ("forceescape", escape),
    ("format", format),
    ("groupby", sequences::groupby),
    ("indent", indent),
    ("int", numbers::int),
    ("items", sequences::items),
    ("join", sequences::join),
    ("last", sequences::last),
    ("length", length),
    ("list", sequences::list),
    ("lower", |heap, value, arguments| {
        on_text(heap, value, arguments, str::to_lowercase)
    }),
    ("map", sequences::map),
    ("max", |heap, value, arguments| {
        sequences::extreme(heap, value, arguments, true)
    }),
    ("min", |heap, value, arguments| {
        sequences::extreme(heap, value, arguments, false)
    }),
    ("reject", |heap, value, arguments| {
        sequences::select(heap, value, arguments, false, false)
    }),
    ("rejectattr", |heap, value, arguments| {
        sequences::select(heap, value, arguments, false, true)
    }),
    ("replace", replace),
    ("reverse", sequences::reverse),
    ("round", numbers::round),
    ("safe", safe),
    ("select", |heap, value, arguments| {
        sequences::select(heap, value, arguments, true, false)
    }),
    ("selectattr", |heap, value, arguments| {
        sequences::select(heap, value, arguments, true, true)
    }),
    ("slice", sequences::slice),
    ("sort", sequences::sort),
    ("string", string),
    ("sum", sequences::sum),
    ("title", |heap, value, arguments| {
        on_text(heap, value, arguments, title)
    }),
    ("tojson", tojson),
    ("trim", trim),
    ("truncate", truncate),
    ("unique", sequences::unique),
    ("upper", |heap, value, arguments| {
        on_text(heap, value, arguments, str::to_uppercase)
    }),
    ("urlencode", urlencode),
    ("wordcount", wordcount),
];

/// Filters whose result is markup if the value was.
const KEEPS_MARKUP: [&str; 9] = [
    "capitalize",
    "center",
    "default",
    "indent",
    "lower",
    "title",
    "trim",
    "truncate",
    "upper",
];

impl Filter {
    pub fn named(name: &str) -> Option<Self> {
        let at = TABLE.iter().position(|(own, _)| *own == name)?;
        Some(Self(at as u8))
    }
}

pub(super) fn apply(
    heap: &mut Heap,
    filter: Filter,
    value: Value,
    arguments: Arguments,
) -> Result<Value, Fault> {
    let (name, filter) = TABLE[filter.0 as usize];
    if let Value::Markup(text) = &value {
        // Markup stays what it is if it is only written otherwise; escaping is done once.
        if matches!(name, "e" | "escape" | "safe" | "string") {
            return Ok(value);
        }
        let result = filter(heap, Value::Text(text.clone()), arguments.plain())?;
        return Ok(match result {
            Value::Text(text) if KEEPS_MARKUP.contains(&name) => Value::Markup(text),
            other => other,
        });
    }
    filter(heap, value, arguments.plain())
}

/// What a filter makes of a value as a text.
fn on_text(
    heap: &mut Heap,
    value: Value,
    arguments: Arguments,
    change: fn(&str) -> String,
) -> Result<Value, Fault> {
    arguments.none()?;
    let text = text_of(heap, &value)?;
    heap.spend(text.len() / 32)?;
    heap.text(change(&text))
}

/// Capital letters where words begin.
fn title(text: &str) -> String {
    let mut begins = true;
    let mut result = String::new();
    for c in text.chars() {
        match begins {
            true => result.extend(c.to_uppercase()),
            false => result.extend(c.to_lowercase()),
        }
        begins = strings::strip(c.encode_utf8(&mut [0; 4]), None, true, true).is_empty()
            || "-({[<".contains(c);
    }
    result
}

fn string(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    arguments.none()?;
    match value {
        Value::Text(_) => Ok(value),
        other => {
            let text = text_of(heap, &other)?;
            Ok(text.into())
        }
    }
}

fn defined(value: &Value) -> Result<(), Fault> {
    value.undefined_fault().map_or(Ok(()), Err)
}

fn attr(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let [name] = arguments.bind(["name"])?;
    let name = strings::text_argument(&name, "attr")?;
    heap.spend(name.len() / 64)?;
    heap.take(name.len().saturating_mul(2))?;
    // Members of the value, not items of a dictionary.
    match (&value, member(heap, &value, &name.into())?) {
        (Value::Dict(_), found) if !matches!(found, Value::Method(..)) => Ok(Value::Undefined(
            Missing::Member(heap.type_name(&value), name.into()),
        )),
        (_, found) => Ok(found),
    }
}

fn center(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let [width] = arguments.bind(["width"])?;
    let text = text_of(heap, &value)?;
    let arguments = Arguments {
        places: vec![width.unwrap_or(Value::Int(80))],
        ..Arguments::default()
    };
    strings::call(heap, &text, "center", arguments)
}

fn length(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    arguments.none()?;
    Ok(Value::from(match &value {
        Value::Undefined(_) => 0,
        Value::Text(text) => {
            heap.spend(text.len() / 64)?;
            text.chars().count()
        }
        Value::Seq(seq) => seq.items.len(),
        Value::Dict(dict) => dict.entries().len(),
        Value::Object(number) if let Object::Loop(state) = heap.object(*number) => {
            state.items.len()
        }
        other => {
            return Err(fault!(
                "object of type '{}' has no len()",
                heap.type_name(other)
            ));
        }
    }))
}

fn default(_: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let [otherwise, boolean] = arguments.bind(["default_value", "boolean"])?;
    let boolean = boolean.is_some_and(|boolean| boolean.is_true());
    if value.is_undefined() || (boolean && !value.is_true()) {
        return Ok(otherwise.unwrap_or_else(|| "".into()));
    }
    Ok(value)
}

fn escape(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    arguments.none()?;
    let text = text_of(heap, &value)?;
    Ok(Value::Markup(operators::escape(heap, &text)?.into()))
}

fn safe(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    match string(heap, value, arguments)? {
        Value::Text(text) => Ok(Value::Markup(text)),
        other => Ok(other),
    }
}

fn format(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let text = text_of(heap, &value)?;
    let values = match (arguments.places.is_empty(), arguments.named.is_empty()) {
        (false, false) => {
            return Err(fault!(
                "can't handle positional and keyword arguments at the same time"
            ));
        }
        (true, false) => {
            let mut dict = Dict::default();
            for (name, value) in arguments.named {
                heap.spend(name.len() / 512)?;
                dict.insert(Value::Text(name), value)?;
            }
            heap.dict(dict)?
        }
        _ => heap.seq(Kind::Tuple, arguments.places)?,
    };
    percent(heap, &text, &values)
}

fn indent(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let [width, first, blank] = arguments.bind(["width", "first", "blank"])?;
    let text = Some(value);
    let text = strings::text_argument(&text, "indent")?;
    let indent = match &width {
        Some(Value::Text(text)) => text.to_string(),
        other => {
            let width = other.as_ref().map_or(Some(4), Value::integer);
            let width = width.ok_or_else(|| fault!("indent() needs a number or a text"))?;
            spaces(heap, width)?
        }
    };
    let is_set = |flag: &Option<Value>| flag.as_ref().is_some_and(Value::is_true);
    let (first, blank) = (is_set(&first), is_set(&blank));
    let count = text.matches('\n').count() + 1;
    heap.take(
        text.len()
            .saturating_add(count.saturating_mul(indent.len() + 1)),
    )?;
    // Python takes the lines of a text with one newline more.
    let mut result = String::new();
    for (at, line) in text.split('\n').enumerate() {
        if at > 0 {
            result.push('\n');
        }
        let is_first = at == 0;
        if if is_first {
            first
        } else {
            blank || !line.is_empty()
        } {
            result.push_str(&indent);
        }
        result.push_str(line);
    }
    Ok(result.into())
}

fn spaces(heap: &mut Heap, count: i128) -> Result<String, Fault> {
    let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    heap.take(count)?;
    Ok(" ".repeat(count))
}

fn replace(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let [old, new, count] = arguments.bind(["old", "new", "count"])?;
    let text = text_of(heap, &value)?;
    let (Some(old), Some(new)) = (old, new) else {
        return Err(fault!("replace needs two arguments"));
    };
    let (old, new) = (text_of(heap, &old)?, text_of(heap, &new)?);
    let count = count.and_then(|count| count.integer()).unwrap_or(-1);
    strings::replace(heap, &text, &old, &new, count)
}

fn tojson(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ascii, indent, separators, sorted] = arguments.bind(names)?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Text(text)) => Some(text.to_string()),
        Some(other) => {
            let count = other.integer();
            let count = count.ok_or_else(|| fault!("indent must be a number or a text"))?;
            Some(spaces(heap, count)?)
        }
    };
    let separators = match separators {
        None | Some(Value::None) => {
            let between = if indent.is_some() { "," } else { ", " };
            (between.into(), ": ".into())
        }
        Some(given) => match &heap.iterate(&given)?[..] {
            [Value::Text(between), Value::Text(behind)] => {
                (between.to_string(), behind.to_string())
            }
            _ => return Err(fault!("separators must be two texts")),
        },
    };
    let is_set = |flag: Option<Value>| flag.is_some_and(|flag| flag.is_true());
    let style = Style {
        ascii: is_set(ascii),
        indent,
        separators,
        sorted: is_set(sorted),
    };
    let mut text = String::new();
    json::write(heap, &value, &style, 0, &mut text)?;
    Ok(text.into())
}

fn trim(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let [letters] = arguments.bind(["chars"])?;
    let text = text_of(heap, &value)?;
    let letters = match &letters {
        None | Some(Value::None) => None,
        given => Some(strings::text_argument(given, "trim")?),
    };
    heap.spend(letters.map_or(0, |letters| (text.len() + letters.len()) / 8))?;
    heap.text(strip(&text, letters, true, true).into())
}

fn truncate(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let names = ["length", "killwords", "end", "leeway"];
    let [length, kill_words, end, leeway] = arguments.bind(names)?;
    let text = Some(value);
    let text = strings::text_argument(&text, "truncate")?;
    let number = |value: Option<Value>, otherwise: i128| {
        let number = value.and_then(|value| value.integer()).unwrap_or(otherwise);
        usize::try_from(number).unwrap_or(0)
    };
    let (length, leeway) = (number(length, 255), number(leeway, 5));
    let end = match end {
        None => "...".into(),
        Some(end) => text_of(heap, &end)?,
    };
    heap.spend(text.len() / 64)?;
    heap.take(text.len())?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.into());
    }
    let kept: String = text
        .chars()
        .take(length.saturating_sub(end.chars().count()))
        .collect();
    let kept = match (
        kill_words.is_some_and(|kill| kill.is_true()),
        kept.rfind(' '),
    ) {
        (false, Some(at)) => &kept[..at],
        _ => &kept,
    };
    heap.text(format!("{kept}{end}"))
}

fn urlencode(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    arguments.none()?;
    let text = text_of(heap, &value)?;
    heap.take(text.len().saturating_mul(3))?;
    let mut result = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' | b'/' => {
                result.push(char::from(byte));
            }
            _ => result.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(result.into())
}

fn wordcount(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    arguments.none()?;
    let text = text_of(heap, &value)?;
    heap.spend(text.len() / 16)?;
    let is_letter = |c: char| c == '_' || c.is_alphanumeric();
    Ok(Value::from(
        text.split(|c| !is_letter(c))
            .filter(|word| !word.is_empty())
            .count(),
    ))
}
