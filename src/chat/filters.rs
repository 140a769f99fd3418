//! Filters: `value | name(arguments)`. Those of texts stand here, others in
//! [`numbers`] and [`sequences`].

mod numbers;
mod sequences;

use super::call::Arguments;
use super::fault::{Fault, fault};
use super::format::percent;
use super::heap::{Heap, Object};
use super::json::{self, Style};
use super::lexer::is_space;
use super::print::text_of;
use super::strings::{self, capitalize, strip};
use super::value::{Kind, Value};

type Apply = fn(&mut Heap, Value, Arguments) -> Result<Value, Fault>;

/// A filter, by its place in the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filter(u8);

const TABLE: &[(&str, Apply)] = &[
    ("abs", numbers::abs),
    ("capitalize", |h, v, a| on_text(h, v, a, capitalize)),
    ("count", length),
    ("d", default),
    ("default", default),
    ("dictsort", sequences::dictsort),
    ("first", sequences::first),
    ("float", numbers::float),
    ("format", format),
    ("indent", indent),
    ("int", numbers::int),
    ("items", sequences::items),
    ("join", sequences::join),
    ("last", sequences::last),
    ("length", length),
    ("list", sequences::list),
    ("lower", |h, v, a| on_text(h, v, a, str::to_lowercase)),
    ("map", sequences::map),
    ("max", |h, v, a| sequences::extreme(h, v, a, true)),
    ("min", |h, v, a| sequences::extreme(h, v, a, false)),
    ("reject", |h, v, a| sequences::select(h, v, a, false, false)),
    ("rejectattr", |h, v, a| {
        sequences::select(h, v, a, false, true)
    }),
    ("replace", replace),
    ("reverse", sequences::reverse),
    ("round", numbers::round),
    ("safe", safe),
    ("select", |h, v, a| sequences::select(h, v, a, true, false)),
    ("selectattr", |h, v, a| {
        sequences::select(h, v, a, true, true)
    }),
    ("sort", sequences::sort),
    ("string", string),
    ("sum", sequences::sum),
    ("title", |h, v, a| on_text(h, v, a, title)),
    ("tojson", tojson),
    ("trim", trim),
    ("unique", sequences::unique),
    ("upper", |h, v, a| on_text(h, v, a, str::to_uppercase)),
];

/// Filters whose result is markup if the value was.
const KEEPS_MARKUP: &str = "capitalize default indent lower safe string title trim upper";

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
    let is_markup = matches!(value, Value::Markup(_));
    match filter(heap, value.plain(), arguments.plain())? {
        Value::Text(text) if is_markup && KEEPS_MARKUP.split(' ').any(|own| own == name) => {
            Ok(Value::Markup(text))
        }
        result => Ok(result),
    }
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

fn title(text: &str) -> String {
    strings::title(text, |c| is_space(c) || "-({[<".contains(c))
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

fn safe(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    match string(heap, value, arguments)? {
        Value::Text(text) => Ok(Value::Markup(text)),
        other => Ok(other),
    }
}

fn defined(value: &Value) -> Result<(), Fault> {
    value.undefined_fault().map_or(Ok(()), Err)
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
            let found = heap.type_name(other);
            return Err(fault!("object of type '{found}' has no len()"));
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

fn format(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let text = text_of(heap, &value)?;
    if !arguments.named.is_empty() {
        return Err(fault!("the filter format takes values by place"));
    }
    let values = heap.seq(Kind::Tuple, arguments.places)?;
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
    // Python takes the lines of a text, with one newline more.
    heap.take(text.len())?;
    let text = text.replace("\r\n", "\n");
    let count = text.matches('\n').count() + 1;
    heap.take(
        text.len()
            .saturating_add(count.saturating_mul(indent.len() + 1)),
    )?;
    let mut result = String::new();
    for (at, line) in text.split('\n').enumerate() {
        if at > 0 {
            result.push('\n');
        }
        let is_indented = if at == 0 {
            first
        } else {
            blank || !line.is_empty()
        };
        if is_indented {
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
    let text = json::text_of(heap, &value, &style)?;
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
