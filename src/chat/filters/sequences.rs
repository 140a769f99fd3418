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
use crate::chat::value::{Key, Missing, Value};

/// The item at a path such as `a.b.0`.
fn at_path(heap: &mut Heap, value: &Value, path: &Value) -> Result<Value, Fault> {
    let Value::Text(text) = path else {
        return item(heap, value, path);
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
    }
    Ok(value)
}

/// What an item is sorted and grouped by: what is at the path, in small letters unless case counts.
fn key(
    heap: &mut Heap,
    value: &Value,
    path: Option<&Value>,
    case_counts: bool,
) -> Result<Value, Fault> {
    let found = match path {
        None | Some(Value::None) => value.clone(),
        Some(path) => at_path(heap, value, path)?,
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

/// Sorts stably by keys that may not be comparable.
fn sort_by_keys(
    heap: &mut Heap,
    items: Vec<(Value, Value)>,
    reverse: bool,
) -> Result<Vec<Value>, Fault> {
    let order = |a: &Value, b: &Value| {
        if a.equals(b) {
            return Ok(Ordering::Equal);
        }
        let order = a.compare(b)?.unwrap_or(Ordering::Equal);
        Ok(if reverse { order.reverse() } else { order })
    };
    let weights = items.iter().map(|(key, _)| key.size().values as usize);
    let weight: usize = weights.sum();
    heap.take_values(items.len() * 4)?;
    heap.spend(weight.saturating_mul(items.len().max(1).ilog2() as usize + 1) / 8)?;
    let sorted = merge_sort(items, &|a, b| order(&a.0, &b.0))?;
    Ok(sorted.into_iter().map(|(_, value)| value).collect())
}

/// The standard sort does not know of comparisons that fail.
fn merge_sort<T>(
    mut items: Vec<T>,
    order: &impl Fn(&T, &T) -> Result<Ordering, Fault>,
) -> Result<Vec<T>, Fault> {
    if items.len() < 2 {
        return Ok(items);
    }
    let second = items.split_off(items.len() / 2);
    let mut sorted = Vec::with_capacity(items.len() + second.len());
    let mut first = merge_sort(items, order)?.into_iter().peekable();
    let mut second = merge_sort(second, order)?.into_iter().peekable();
    while let (Some(a), Some(b)) = (first.peek(), second.peek()) {
        let next = if order(a, b)?.is_gt() {
            second.next()
        } else {
            first.next()
        };
        sorted.extend(next);
    }
    sorted.extend(first);
    sorted.extend(second);
    Ok(sorted)
}

pub(super) fn sort(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let [reverse, case, attribute] = arguments.bind(["reverse", "case_sensitive", "attribute"])?;
    if let Some(Value::Text(path)) = &attribute
        && path.contains(',')
    {
        return Err(fault!("sort takes one attribute"));
    }
    let mut keyed = Vec::new();
    for item in heap.iterate(&value)? {
        let own = key(heap, &item, attribute.as_ref(), is_set(&case))?;
        keyed.push((own, item));
    }
    let sorted = sort_by_keys(heap, keyed, is_set(&reverse))?;
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
        let of = heap.type_name(&value);
        let wrong = || fault!("'{of}' object has no attribute 'items'");
        return Err(value.undefined_fault().unwrap_or_else(wrong));
    };
    let place = Value::Int(place);
    let mut keyed = Vec::new();
    for pair in pairs(heap, dict.entries())? {
        keyed.push((key(heap, &pair, Some(&place), is_set(&case))?, pair));
    }
    let sorted = sort_by_keys(heap, keyed, is_set(&reverse))?;
    heap.list(sorted)
}

pub(super) fn unique(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let [case, attribute] = arguments.bind(["case_sensitive", "attribute"])?;
    let mut seen = HashMap::new();
    let mut kept = Vec::new();
    for item in heap.iterate(&value)? {
        let own = key(heap, &item, attribute.as_ref(), is_set(&case))?;
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
    let wanted = if largest {
        Ordering::Greater
    } else {
        Ordering::Less
    };
    let mut best: Option<(Value, Value)> = None;
    for item in heap.iterate(&value)? {
        let own = key(heap, &item, attribute.as_ref(), is_set(&case))?;
        heap.walk(&own)?;
        let is_better = match &best {
            None => true,
            Some((best, _)) => own.compare(best)? == Some(wanted),
        };
        if is_better {
            best = Some((own, item));
        }
    }
    let empty = || nothing("No aggregated item, sequence was empty.");
    Ok(best.map_or_else(empty, |(_, item)| item))
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
            Some(path) => Some(at_path(heap, item, path)?),
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
        let [attribute] = arguments.bind(["attribute"])?;
        let path = attribute.ok_or_else(|| fault!("map requires a filter argument"))?;
        for item in heap.iterate(&value)? {
            results.push(at_path(heap, &item, &path)?);
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
            Some(path) => at_path(heap, &item, path)?,
        };
        let is = match test {
            None => tested.is_true(),
            Some(test) => {
                let arguments = copy(heap, &arguments)?;
                predicates::test(heap, test, &tested, arguments)?
            }
        };
        if is == wanted {
            kept.push(item);
        }
    }
    heap.generator(kept)
}

pub(super) fn sum(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let [attribute] = arguments.bind(["attribute"])?;
    let mut total = Value::Int(0);
    for item in heap.iterate(&value)? {
        let part = match &attribute {
            None => item,
            Some(path) => at_path(heap, &item, path)?,
        };
        total = operate(heap, Binary::Add, &total, &part)?;
    }
    Ok(total)
}
