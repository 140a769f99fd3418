//! Tests: `value is name`.

use super::call::Arguments;
use super::fault::{Fault, fault};
use super::filters::Filter;
use super::heap::{Heap, Object};
use super::operators::{compare, contains, operate};
use super::print::text_of;
use super::program::{Binary, Compare};
use super::strings;
use super::value::Value;

type Test = fn(&mut Heap, &Value, &Arguments) -> Result<bool, Fault>;

/// A test, by its place in the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Predicate(u8);

const TABLE: &[(&str, Test)] = &[
    ("!=", |heap, a, b| {
        compare(heap, Compare::NotEqual, a, other(b)?)
    }),
    ("<", |heap, a, b| compare(heap, Compare::Less, a, other(b)?)),
    ("<=", |heap, a, b| {
        compare(heap, Compare::LessEqual, a, other(b)?)
    }),
    ("==", |heap, a, b| {
        compare(heap, Compare::Equal, a, other(b)?)
    }),
    (">", |heap, a, b| {
        compare(heap, Compare::Greater, a, other(b)?)
    }),
    (">=", |heap, a, b| {
        compare(heap, Compare::GreaterEqual, a, other(b)?)
    }),
    ("boolean", |_, value, _| Ok(matches!(value, Value::Bool(_)))),
    ("callable", is_callable),
    ("defined", |_, value, _| Ok(!value.is_undefined())),
    ("divisibleby", |heap, value, by| {
        let rest = operate(heap, Binary::Remainder, value, other(by)?)?;
        compare(heap, Compare::Equal, &rest, &Value::Int(0))
    }),
    ("eq", |heap, a, b| {
        compare(heap, Compare::Equal, a, other(b)?)
    }),
    ("equalto", |heap, a, b| {
        compare(heap, Compare::Equal, a, other(b)?)
    }),
    ("escaped", |_, _, _| Ok(false)),
    ("even", |heap, value, _| has_rest(heap, value, 0)),
    ("false", |_, value, _| {
        Ok(matches!(value, Value::Bool(false)))
    }),
    ("filter", |_, value, _| {
        Ok(value
            .text()
            .is_some_and(|name| Filter::named(name).is_some()))
    }),
    ("float", |_, value, _| Ok(matches!(value, Value::Float(_)))),
    ("ge", |heap, a, b| {
        compare(heap, Compare::GreaterEqual, a, other(b)?)
    }),
    ("greaterthan", |heap, a, b| {
        compare(heap, Compare::Greater, a, other(b)?)
    }),
    ("gt", |heap, a, b| {
        compare(heap, Compare::Greater, a, other(b)?)
    }),
    ("in", |heap, value, container| {
        contains(heap, other(container)?, value)
    }),
    ("integer", |_, value, _| Ok(matches!(value, Value::Int(_)))),
    ("iterable", is_iterable),
    ("le", |heap, a, b| {
        compare(heap, Compare::LessEqual, a, other(b)?)
    }),
    ("lessthan", |heap, a, b| {
        compare(heap, Compare::Less, a, other(b)?)
    }),
    ("lower", |heap, value, _| {
        has_letters(heap, value, "islower")
    }),
    ("lt", |heap, a, b| {
        compare(heap, Compare::Less, a, other(b)?)
    }),
    ("mapping", |_, value, _| Ok(matches!(value, Value::Dict(_)))),
    ("ne", |heap, a, b| {
        compare(heap, Compare::NotEqual, a, other(b)?)
    }),
    ("none", |_, value, _| Ok(matches!(value, Value::None))),
    ("number", |_, value, _| Ok(value.number().is_some())),
    ("odd", |heap, value, _| has_rest(heap, value, 1)),
    ("sameas", |heap, a, b| {
        let b = other(b)?;
        heap.walk(a)?;
        Ok(a.type_name() == b.type_name() && a.equals(b))
    }),
    ("sequence", |_, value, _| {
        Ok(match value {
            // It has a length and items, as far as Python is asked.
            Value::Text(_) | Value::Dict(_) => true,
            Value::Seq(seq) => !seq.kind.is_view(),
            other => other.is_undefined(),
        })
    }),
    ("string", |_, value, _| Ok(value.text().is_some())),
    ("test", |_, value, _| {
        Ok(value
            .text()
            .is_some_and(|name| Predicate::named(name).is_some()))
    }),
    ("true", |_, value, _| Ok(matches!(value, Value::Bool(true)))),
    ("undefined", |_, value, _| Ok(value.is_undefined())),
    ("upper", |heap, value, _| {
        has_letters(heap, value, "isupper")
    }),
];

impl Predicate {
    pub fn named(name: &str) -> Option<Self> {
        let at = TABLE.iter().position(|(own, _)| *own == name)?;
        Some(Self(at as u8))
    }
}

pub(super) fn test(
    heap: &mut Heap,
    test: Predicate,
    value: &Value,
    arguments: &Arguments,
) -> Result<bool, Fault> {
    TABLE[test.0 as usize].1(heap, value, arguments)
}

/// The one argument of a test.
fn other(arguments: &Arguments) -> Result<&Value, Fault> {
    let named = arguments.named.first().map(|(_, value)| value);
    let found = arguments.places.first().or(named);
    found.ok_or_else(|| fault!("the test misses an argument"))
}

/// Whether half of the number leaves that rest.
fn has_rest(heap: &mut Heap, value: &Value, rest: i128) -> Result<bool, Fault> {
    let found = operate(heap, Binary::Remainder, value, &Value::Int(2))?;
    compare(heap, Compare::Equal, &found, &Value::Int(rest))
}

fn is_callable(heap: &mut Heap, value: &Value, _: &Arguments) -> Result<bool, Fault> {
    Ok(match value {
        Value::Function(_) | Value::Method(..) => true,
        Value::Undefined(_) => true,
        Value::Object(number) => match heap.object(*number) {
            Object::Macro(_) | Object::Loop(_) | Object::Joiner(..) => true,
            Object::Namespace(_) | Object::Generator(_) | Object::Cycler(..) => false,
        },
        _ => false,
    })
}

fn is_iterable(heap: &mut Heap, value: &Value, _: &Arguments) -> Result<bool, Fault> {
    Ok(match value {
        Value::Undefined(_) | Value::Text(_) | Value::Seq(_) | Value::Dict(_) => true,
        Value::Object(number) => {
            matches!(heap.object(*number), Object::Generator(_) | Object::Loop(_))
        }
        _ => false,
    })
}

fn has_letters(heap: &mut Heap, value: &Value, method: &str) -> Result<bool, Fault> {
    let text = text_of(heap, value)?;
    let is = strings::call(heap, &text, method, Arguments::default())?;
    Ok(is.is_true())
}
