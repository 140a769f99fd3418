//! Members, items and parts of values: `a.b`, `a['b']`, `a[1:2]`.
//!
//! As in Python, a member of a value comes before an item of a dictionary with `.`, and behind it
//! with `[]`. There are exactly the members that are listed here: nothing leads to the host.

use std::sync::Arc;

use super::call::Arguments;
use super::fault::{Fault, fault};
use super::heap::{Heap, Loop, Object};
use super::strings;
use super::value::{Kind, Missing, Value};

const DICT_METHODS: &str = "get items keys values";
/// Methods that would change a value, which templates must not.
const CHANGING: [(&str, &str); 2] = [
    ("dict", "clear pop popitem setdefault update"),
    ("list", "append clear pop reverse insert sort extend remove"),
];

/// `value.name`.
pub(super) fn member(heap: &Heap, value: &Value, name: &Arc<str>) -> Result<Value, Fault> {
    if let Some(fault) = value.undefined_fault() {
        return Err(fault);
    }
    if let Some(found) = own_member(heap, value, name) {
        return Ok(found);
    }
    if let Value::Dict(dict) = value
        && let Some(found) = dict.get(&Value::Text(name.clone()))?
    {
        return Ok(found.clone());
    }
    Ok(no_member(heap, value, name))
}

/// `value[key]`.
pub(super) fn item(heap: &mut Heap, value: &Value, key: &Value) -> Result<Value, Fault> {
    if let Some(fault) = value.undefined_fault() {
        return Err(fault);
    }
    heap.walk(key)?;
    if let Some(found) = own_item(heap, value, key)? {
        return Ok(found);
    }
    let Value::Text(name) = key else {
        let name = super::print::text_of(heap, key)?;
        return Ok(no_member(heap, value, &name.into()));
    };
    let found = own_member(heap, value, name);
    Ok(found.unwrap_or_else(|| no_member(heap, value, name)))
}

fn no_member(heap: &Heap, value: &Value, name: &Arc<str>) -> Value {
    Value::Undefined(Missing::Member(heap.type_name(value), name.clone()))
}

fn own_item(heap: &mut Heap, value: &Value, key: &Value) -> Result<Option<Value>, Fault> {
    let at = |len: usize| {
        let at = key.integer()?;
        let at = if at < 0 { at + len as i128 } else { at };
        usize::try_from(at).ok().filter(|at| *at < len)
    };
    Ok(match value {
        // A key that no dictionary can have is in none.
        Value::Dict(dict) => dict.get(key).ok().flatten().cloned(),
        Value::Seq(seq) if seq.kind != Kind::View => {
            at(seq.items.len()).map(|at| seq.items[at].clone())
        }
        Value::Text(text) => {
            heap.spend(text.len() / 64)?;
            let found = at(text.chars().count()).and_then(|at| text.chars().nth(at));
            found.map(|c| Value::from(c.to_string()))
        }
        _ => None,
    })
}

/// What the type of the value gives it.
fn own_member(heap: &Heap, value: &Value, shared: &Arc<str>) -> Option<Value> {
    let name: &str = shared;
    let type_name = heap.type_name(value);
    let among = |names: &'static str| names.split(' ').find(|own| *own == name);
    let mut changing = CHANGING.iter().filter(|(of, _)| *of == type_name);
    if name.starts_with("__") || changing.any(|(_, names)| among(names).is_some()) {
        return Some(Value::Undefined(Missing::Unsafe(type_name, shared.clone())));
    }
    let method = |names| Some(Value::Method(Arc::new(value.clone()), among(names)?));
    match value {
        Value::Dict(_) => method(DICT_METHODS),
        Value::Text(_) | Value::Markup(_) => method(strings::METHODS),
        Value::Object(number) => match heap.object(*number) {
            Object::Namespace(dict) => dict.get(&Value::Text(shared.clone())).ok()?.cloned(),
            Object::Loop(state) => loop_member(state, name).or_else(|| method("cycle changed")),
            _ => None,
        },
        _ => None,
    }
}

fn loop_member(state: &Loop, name: &str) -> Option<Value> {
    let (at, len) = (state.at.unwrap_or(0), state.items.len());
    let none = |what| Value::Undefined(Missing::Nothing(what));
    Some(match name {
        "index" => Value::from(at + 1),
        "index0" => Value::from(at),
        "revindex" => Value::from(len.saturating_sub(at)),
        "revindex0" => Value::from(len.saturating_sub(at + 1)),
        "first" => Value::Bool(at == 0),
        "last" => Value::Bool(at + 1 >= len),
        "length" => Value::from(len),
        "depth" => Value::from(state.depth),
        "depth0" => Value::from(state.depth - 1),
        "previtem" => match at.checked_sub(1).and_then(|at| state.items.get(at)) {
            Some(item) => item.clone(),
            None => none("there is no previous item"),
        },
        "nextitem" => match state.items.get(at + 1) {
            Some(item) => item.clone(),
            None => none("there is no next item"),
        },
        _ => return None,
    })
}

/// `value[begin:end:step]`.
pub(super) fn slice(
    heap: &mut Heap,
    value: &Value,
    begin: &Value,
    end: &Value,
    step: &Value,
) -> Result<Value, Fault> {
    if let Some(fault) = value.undefined_fault() {
        return Err(fault);
    }
    let bound = |value: &Value| match (value, value.integer()) {
        (Value::None, _) => Ok(None),
        (_, Some(number)) => Ok(Some(number)),
        _ => Err(fault!("slice indices must be integers or None")),
    };
    let (begin, end, step) = (bound(begin)?, bound(end)?, bound(step)?);
    if step == Some(0) {
        return Err(fault!("slice step cannot be zero"));
    }
    match value {
        Value::Text(text) => {
            // The result, and the letters that it is made of.
            heap.take(text.len().saturating_mul(1 + size_of::<char>()))?;
            heap.spend(text.len() / 16)?;
            let letters: Vec<char> = text.chars().collect();
            let places = places(letters.len(), begin, end, step);
            Ok(places.map(|at| letters[at]).collect::<String>().into())
        }
        Value::Seq(seq) if seq.kind != Kind::View => {
            let places = places(seq.items.len(), begin, end, step);
            let items = places.map(|at| seq.items[at].clone()).collect();
            let kind = if seq.kind == Kind::Tuple {
                Kind::Tuple
            } else {
                Kind::List
            };
            heap.seq(kind, items)
        }
        other => Err(fault!(
            "'{}' object is not subscriptable",
            heap.type_name(other)
        )),
    }
}

/// The places that Python's slice of a sequence of `len` items takes, in their order.
fn places(
    len: usize,
    begin: Option<i128>,
    end: Option<i128>,
    step: Option<i128>,
) -> impl Iterator<Item = usize> {
    let len = len as i128;
    let step = step.unwrap_or(1);
    // What is outside of the sequence is at its end or just before its begin.
    let (least, most) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let place = |given: Option<i128>, otherwise: i128| match given {
        None => otherwise,
        Some(at) if at < 0 => at.saturating_add(len).max(least),
        Some(at) => at.min(most),
    };
    let (begin, end) = match step > 0 {
        true => (place(begin, 0), place(end, len)),
        false => (place(begin, len - 1), place(end, -1)),
    };
    let mut at = begin;
    std::iter::from_fn(move || {
        let inside = if step > 0 { at < end } else { at > end };
        let own = at;
        at = at.saturating_add(step);
        usize::try_from(own).ok().filter(|_| inside)
    })
}

/// Calls a method that [`member`] has found.
pub(super) fn call_method(
    heap: &mut Heap,
    of: &Value,
    name: &str,
    arguments: Arguments,
) -> Result<Value, Fault> {
    match of {
        Value::Text(text) => strings::call(heap, text, name, arguments),
        Value::Markup(text) => match strings::call(heap, text, name, arguments)? {
            Value::Text(text) => Ok(Value::Markup(text)),
            other => Ok(other),
        },
        Value::Dict(dict) if name == "get" => {
            let [key, otherwise] = arguments.bind(["key", "default"])?;
            let key = key.ok_or_else(|| fault!("get expected at least 1 argument, got 0"))?;
            heap.walk(&key)?;
            let found = dict.get(&key)?.cloned();
            Ok(found.or(otherwise).unwrap_or(Value::None))
        }
        Value::Dict(dict) => {
            arguments.none()?;
            let entries = dict.entries().iter();
            match name {
                "keys" => heap.seq(Kind::View, entries.map(|(key, _)| key.clone()).collect()),
                "values" => heap.seq(Kind::View, entries.map(|(_, v)| v.clone()).collect()),
                _ => {
                    let pairs = pairs(heap, dict.entries())?;
                    heap.seq(Kind::View, pairs)
                }
            }
        }
        Value::Object(number) => loop_method(heap, *number, name, arguments),
        other => Err(fault!("'{}' object is not callable", other.type_name())),
    }
}

/// The entries of a dictionary as tuples.
pub(super) fn pairs(heap: &mut Heap, entries: &[(Value, Value)]) -> Result<Vec<Value>, Fault> {
    let pair =
        |(key, value): &(Value, Value)| heap.seq(Kind::Tuple, vec![key.clone(), value.clone()]);
    entries.iter().map(pair).collect()
}

fn loop_method(
    heap: &mut Heap,
    number: u32,
    name: &str,
    arguments: Arguments,
) -> Result<Value, Fault> {
    for given in &arguments.places {
        heap.walk(given)?;
    }
    let Object::Loop(state) = heap.object_mut(number) else {
        return Err(fault!("the object is not callable"));
    };
    let given = arguments.places;
    if name == "cycle" {
        let at = state.at.unwrap_or(0).checked_rem(given.len());
        return at
            .map(|at| given[at].clone())
            .ok_or_else(|| fault!("no items for cycling given"));
    }
    let is_same = state.seen.as_ref().is_some_and(|seen| {
        seen.len() == given.len() && seen.iter().zip(&given).all(|(a, b)| a.equals(b))
    });
    state.seen = Some(given);
    Ok(Value::Bool(!is_same))
}
