//! Filters of sequences. What Python makes lazily is made at once here, but can be walked through
//! once only, as there.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::Filter;
use crate::chat::attributes::{item, pairs};
use crate::chat::call::Arguments;
use crate::chat::fault::{Fault, fault};
use crate::chat::heap::{Heap, Object};
use crate::chat::operators::operate;
use crate::chat::predicates::{self, Predicate};
use crate::chat::print::{text_of, write_text};
use crate::chat::program::Binary;
use crate::chat::strings;
use crate::chat::value::{Key, Kind, Missing, Value};

/// The item at a path such as `a.b.0`; `otherwise` where there is none.
fn at_path(
    heap: &mut Heap,
    value: &Value,
    path: &Value,
    otherwise: Option<&Value>,
) -> Result<Value, Fault> {
    let Value::Text(text) = path else {
        let found = item(heap, value, path)?;
        return Ok(match otherwise {
            Some(otherwise) if found.is_undefined() => otherwise.clone(),
            _ => found,
        });
    };
    // What is not found keeps its name.
    heap.take(text.len())?;
    let mut value = value.clone();
    for part in text.split('.') {
        heap.spend(1)?;
        let is_place = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let place = part.parse().ok().filter(|_| is_place);
        let key = place.map_or_else(|| part.into(), Value::Int);
        value = item(heap, &value, &key)?;
        if let (true, Some(otherwise)) = (value.is_undefined(), otherwise) {
            value = otherwise.clone();
        }
    }
    Ok(value)
}

/// What an item is sorted and grouped by: what is at the path, in small letters unless case counts.
fn key(
    heap: &mut Heap,
    value: &Value,
    path: Option<&Value>,
    otherwise: Option<&Value>,
    case_counts: bool,
) -> Result<Value, Fault> {
    let found = match path {
        None | Some(Value::None) => value.clone(),
        Some(path) => at_path(heap, value, path, otherwise)?,
    };
    match found {
        Value::Text(text) if !case_counts => {
            heap.take(text.len())?;
            Ok(text.to_lowercase().into())
        }
        other => Ok(other),
    }
}

fn is_set(flag: &Option<Value>) -> bool {
    flag.as_ref().is_some_and(Value::is_true)
}

/// Sorts stably by keys that may not be comparable; strictly, not even with what they equal.
fn sort_by_keys(
    heap: &mut Heap,
    items: Vec<(Vec<Value>, Value)>,
    reverse: bool,
    is_strict: bool,
) -> Result<Vec<Value>, Fault> {
    let order = |a: &[Value], b: &[Value]| -> Result<Ordering, Fault> {
        for (a, b) in a.iter().zip(b) {
            let order = match (a, b) {
                (a, b) if !is_strict && a.equals(b) => Ordering::Equal,
                (a, b) => a.compare(b)?.unwrap_or(Ordering::Equal),
            };
            if order.is_ne() {
                return Ok(if reverse { order.reverse() } else { order });
            }
        }
        Ok(Ordering::Equal)
    };
    let weight: usize = items
        .iter()
        .flat_map(|(keys, _)| keys)
        .map(|k| k.size().values as usize)
        .sum();
    heap.spend(weight.saturating_mul(items.len().max(1).ilog2() as usize + 1) / 8)?;
    // From the bottom up; the standard sort does not know of comparisons that fail.
    let mut runs: Vec<Vec<(Vec<Value>, Value)>> =
        items.into_iter().map(|item| vec![item]).collect();
    while runs.len() > 1 {
        let mut merged = Vec::with_capacity(runs.len().div_ceil(2));
        let mut rest = runs.into_iter();
        while let Some(first) = rest.next() {
            let Some(second) = rest.next() else {
                merged.push(first);
                break;
            };
            let mut both = Vec::with_capacity(first.len() + second.len());
            let (mut first, mut second) =
                (first.into_iter().peekable(), second.into_iter().peekable());
            while let (Some(a), Some(b)) = (first.peek(), second.peek()) {
                let next = match order(&a.0, &b.0)? {
                    Ordering::Greater => second.next(),
                    _ => first.next(),
                };
                both.extend(next);
            }
            both.extend(first);
            both.extend(second);
            merged.push(both);
        }
        runs = merged;
    }
    Ok(runs.into_iter().flatten().map(|(_, value)| value).collect())
}

pub(super) fn sort(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let [reverse, case, attribute] = arguments.bind(["reverse", "case_sensitive", "attribute"])?;
    let paths: Vec<Option<Value>> = match &attribute {
        Some(Value::Text(text)) => {
            heap.take_values(text.matches(',').count())?;
            heap.take(text.len())?;
            text.split(',').map(|path| Some(path.into())).collect()
        }
        other => vec![other.clone()],
    };
    let mut keyed = Vec::new();
    for item in heap.iterate(&value)? {
        heap.take_values(paths.len())?;
        let mut keys = Vec::new();
        for path in &paths {
            keys.push(key(heap, &item, path.as_ref(), None, is_set(&case))?);
        }
        keyed.push((keys, item));
    }
    heap.take_values(keyed.len() * 4)?;
    let sorted = sort_by_keys(heap, keyed, is_set(&reverse), false)?;
    heap.list(sorted)
}

pub(super) fn dictsort(
    heap: &mut Heap,
    value: Value,
    arguments: Arguments,
) -> Result<Value, Fault> {
    let [case, by, reverse] = arguments.bind(["case_sensitive", "by", "reverse"])?;
    let place = match by.as_ref().and_then(Value::text).map(|by| &**by) {
        None | Some("key") => 0,
        Some("value") => 1,
        Some(_) => return Err(fault!("You can only sort by either \"key\" or \"value\"")),
    };
    let Value::Dict(dict) = &value else {
        return Err(value.undefined_fault().unwrap_or_else(|| {
            fault!(
                "'{}' object has no attribute 'items'",
                heap.type_name(&value)
            )
        }));
    };
    let place = Value::Int(place);
    let mut keyed = Vec::new();
    for pair in pairs(heap, dict.entries())? {
        keyed.push((
            vec![key(heap, &pair, Some(&place), None, is_set(&case))?],
            pair,
        ));
    }
    heap.take_values(keyed.len() * 4)?;
    let sorted = sort_by_keys(heap, keyed, is_set(&reverse), true)?;
    heap.list(sorted)
}

pub(super) fn groupby(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let names = ["attribute", "default", "case_sensitive"];
    let [path, otherwise, case] = arguments.bind(names)?;
    let path = path.ok_or_else(|| fault!("groupby needs an attribute"))?;
    let mut keyed = Vec::new();
    for item in heap.iterate(&value)? {
        let own = key(heap, &item, Some(&path), otherwise.as_ref(), is_set(&case))?;
        let pair = heap.seq(Kind::Tuple, vec![own.clone(), item])?;
        keyed.push((vec![own], pair));
    }
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for pair in sort_by_keys(heap, keyed, false, true)? {
        let Ok([own, item]) = <[Value; 2]>::try_from(heap.iterate(&pair)?) else {
            continue;
        };
        match groups.last_mut() {
            Some((last, items)) if last.equals(&own) => items.push(item),
            _ => groups.push((own, vec![item])),
        }
    }
    let mut tuples = Vec::new();
    for (_, items) in groups {
        // As it was written in the first item.
        let own = at_path(heap, &items[0], &path, otherwise.as_ref())?;
        let items = heap.list(items)?;
        tuples.push(heap.seq(Kind::Group, vec![own, items])?);
    }
    heap.list(tuples)
}

pub(super) fn unique(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let [case, attribute] = arguments.bind(["case_sensitive", "attribute"])?;
    let mut seen = HashMap::new();
    let mut kept = Vec::new();
    for item in heap.iterate(&value)? {
        let own = key(heap, &item, attribute.as_ref(), None, is_set(&case))?;
        heap.walk(&own)?;
        if seen.insert(Key::of(&own)?, ()).is_none() {
            kept.push(item);
        }
    }
    heap.take_values(kept.len() * 2)?;
    heap.generator(kept)
}

pub(super) fn extreme(
    heap: &mut Heap,
    value: Value,
    arguments: Arguments,
    largest: bool,
) -> Result<Value, Fault> {
    let [case, attribute] = arguments.bind(["case_sensitive", "attribute"])?;
    let mut best: Option<(Value, Value)> = None;
    for item in heap.iterate(&value)? {
        let own = key(heap, &item, attribute.as_ref(), None, is_set(&case))?;
        heap.walk(&own)?;
        let wanted = if largest {
            Ordering::Greater
        } else {
            Ordering::Less
        };
        let is_better = match &best {
            None => true,
            Some((best, _)) => own.compare(best)? == Some(wanted),
        };
        if is_better {
            best = Some((own, item));
        }
    }
    Ok(best.map_or_else(
        || nothing("No aggregated item, sequence was empty."),
        |(_, item)| item,
    ))
}

fn nothing(what: &'static str) -> Value {
    Value::Undefined(Missing::Nothing(what))
}

pub(super) fn first(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    arguments.none()?;
    if let Value::Object(number) = value
        && let Object::Generator(items) = heap.object_mut(number)
    {
        let first = items.pop_front();
        return Ok(first.unwrap_or_else(|| nothing("No first item, sequence was empty.")));
    }
    let first = match &value {
        Value::Seq(seq) => seq.items.first().cloned(),
        other => heap.iterate(other)?.into_iter().next(),
    };
    Ok(first.unwrap_or_else(|| nothing("No first item, sequence was empty.")))
}

pub(super) fn last(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    arguments.none()?;
    if let Value::Object(_) = value {
        let of = heap.type_name(&value);
        return Err(fault!("'{of}' object is not reversible"));
    }
    let last = match &value {
        Value::Seq(seq) => seq.items.last().cloned(),
        other => heap.iterate(other)?.pop(),
    };
    Ok(last.unwrap_or_else(|| nothing("No last item, sequence was empty.")))
}

pub(super) fn reverse(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    arguments.none()?;
    if let Value::Text(text) = &value {
        heap.spend(text.len() / 32)?;
        return heap.text(text.chars().rev().collect());
    }
    let mut items = heap.iterate(&value)?;
    items.reverse();
    match value {
        Value::Object(_) => heap.list(items),
        _ => heap.generator(items),
    }
}

pub(super) fn list(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    arguments.none()?;
    let items = heap.iterate(&value)?;
    heap.list(items)
}

pub(super) fn items(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    arguments.none()?;
    match &value {
        Value::Undefined(_) => heap.generator(Vec::new()),
        Value::Dict(dict) => {
            let pairs = pairs(heap, dict.entries())?;
            heap.generator(pairs)
        }
        _ => Err(fault!("Can only get item pairs from a mapping.")),
    }
}

pub(super) fn join(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let [separator, attribute] = arguments.bind(["d", "attribute"])?;
    let separator = match &separator {
        None => String::new(),
        Some(given) => text_of(heap, given)?,
    };
    let mut text = String::new();
    for (at, item) in heap.iterate(&value)?.iter().enumerate() {
        if at > 0 {
            heap.take(separator.len())?;
            text.push_str(&separator);
        }
        let found = match &attribute {
            None | Some(Value::None) => None,
            Some(path) => Some(at_path(heap, item, path, None)?),
        };
        write_text(heap, found.as_ref().unwrap_or(item), &mut text)?;
    }
    Ok(text.into())
}

pub(super) fn map(heap: &mut Heap, value: Value, mut arguments: Arguments) -> Result<Value, Fault> {
    if !value.is_true() {
        return heap.generator(Vec::new());
    }
    let mut results = Vec::new();
    if arguments.places.is_empty() {
        let [attribute, otherwise] = arguments.bind(["attribute", "default"])?;
        let path = attribute.ok_or_else(|| fault!("map requires a filter argument"))?;
        for item in heap.iterate(&value)? {
            results.push(at_path(heap, &item, &path, otherwise.as_ref())?);
        }
        return heap.generator(results);
    }
    let name = Some(arguments.places.remove(0));
    let name = strings::text_argument(&name, "map")?.to_owned();
    let filter = Filter::named(&name).ok_or_else(|| fault!("No filter named '{name}'."))?;
    // A filter that maps its items would come back to here.
    if matches!(
        &*name,
        "map" | "select" | "reject" | "selectattr" | "rejectattr"
    ) {
        return Err(fault!("map does not take the filter '{name}'"));
    }
    for item in heap.iterate(&value)? {
        let arguments = copy(heap, &arguments)?;
        results.push(super::apply(heap, filter, item, arguments)?);
    }
    heap.generator(results)
}

fn copy(heap: &mut Heap, arguments: &Arguments) -> Result<Arguments, Fault> {
    heap.take_values(arguments.places.len() + 2 * arguments.named.len())?;
    heap.spend(1)?;
    Ok(Arguments {
        places: arguments.places.clone(),
        named: arguments.named.clone(),
    })
}

/// `select`, `reject` and those with an attribute.
pub(super) fn select(
    heap: &mut Heap,
    value: Value,
    mut arguments: Arguments,
    wanted: bool,
    by_attribute: bool,
) -> Result<Value, Fault> {
    let mut next = || (!arguments.places.is_empty()).then(|| arguments.places.remove(0));
    let path = by_attribute.then(&mut next);
    if let Some(None) = path {
        return Err(fault!("Missing parameter for attribute name"));
    }
    let path = path.flatten();
    let test = match next() {
        None => None,
        name => {
            let name = strings::text_argument(&name, "select")?;
            let test = Predicate::named(name);
            Some(test.ok_or_else(|| fault!("No test named '{name}'."))?)
        }
    };
    // As in Jinja, which so takes none for no items.
    let items = match value.is_true() {
        true => heap.iterate(&value)?,
        false => Vec::new(),
    };
    let mut kept = Vec::new();
    for item in items {
        heap.spend(1)?;
        let tested = match &path {
            None => item.clone(),
            Some(path) => at_path(heap, &item, path, None)?,
        };
        let is = match test {
            None => tested.is_true(),
            Some(test) => predicates::test(heap, test, &tested, &arguments)?,
        };
        if is == wanted {
            kept.push(item);
        }
    }
    heap.generator(kept)
}

pub(super) fn sum(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let [attribute, start] = arguments.bind(["attribute", "start"])?;
    let mut total = start.unwrap_or(Value::Int(0));
    if total.text().is_some() {
        return Err(fault!("sum() can't sum strings [use ''.join(seq) instead]"));
    }
    for item in heap.iterate(&value)? {
        let part = match &attribute {
            None | Some(Value::None) => item,
            Some(path) => at_path(heap, &item, path, None)?,
        };
        total = operate(heap, Binary::Add, &total, &part)?;
    }
    Ok(total)
}

/// The number that `batch` and `slice` are given, which is at least 1.
fn count_of(value: &Option<Value>) -> Result<usize, Fault> {
    let count = value.as_ref().and_then(Value::integer);
    let count = count.and_then(|count| usize::try_from(count).ok());
    let count = count.filter(|count| *count > 0);
    count.ok_or_else(|| fault!("expected a number of at least 1"))
}

pub(super) fn batch(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let [count, fill] = arguments.bind(["linecount", "fill_with"])?;
    let count = count_of(&count)?;
    let mut lists = Vec::new();
    for part in heap.iterate(&value)?.chunks(count) {
        let mut part = part.to_vec();
        if let Some(fill) = fill.as_ref().filter(|fill| !matches!(fill, Value::None)) {
            heap.take_values(count)?;
            part.resize(count, fill.clone());
        }
        lists.push(heap.list(part)?);
    }
    heap.generator(lists)
}

pub(super) fn slice(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let [count, fill] = arguments.bind(["slices", "fill_with"])?;
    let count = count_of(&count)?;
    let items = heap.iterate(&value)?;
    heap.take_values(count)?;
    let (each, longer) = (items.len() / count, items.len() % count);
    let mut rest = &items[..];
    let mut lists = Vec::new();
    for at in 0..count {
        let (part, behind) = rest.split_at(each + usize::from(at < longer));
        rest = behind;
        let mut part = part.to_vec();
        let is_short = at >= longer && longer > 0;
        if let Some(fill) = fill
            .as_ref()
            .filter(|fill| is_short && !matches!(fill, Value::None))
        {
            part.push(fill.clone());
        }
        lists.push(heap.list(part)?);
    }
    heap.generator(lists)
}
