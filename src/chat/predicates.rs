//! Tests: `value is name`.

use super::call::Arguments;
use super::fault::{Fault, fault};
use super::heap::{Heap, Object};
use super::operators::{compare, operate};
use super::print::text_of;
use super::program::{Binary, Compare};
use super::strings::is;
use super::value::{Kind, Value};

type Test = fn(&mut Heap, &Value) -> Result<bool, Fault>;

/// A test: a comparison with its argument, or what a function says of the value alone.
#[derive(Debug, Clone, Copy)]
pub(super) enum Predicate {
    Compare(Compare),
    DivisibleBy,
    SameAs,
    Alone(Test),
}

impl Predicate {
    pub fn named(name: &str) -> Option<Self> {
        let compare = match name {
            "==" | "eq" | "equalto" => Compare::Equal,
            "!=" | "ne" => Compare::NotEqual,
            "<" | "lt" | "lessthan" => Compare::Less,
            "<=" | "le" => Compare::LessEqual,
            ">" | "gt" | "greaterthan" => Compare::Greater,
            ">=" | "ge" => Compare::GreaterEqual,
            "in" => Compare::In,
            "divisibleby" => return Some(Self::DivisibleBy),
            "sameas" => return Some(Self::SameAs),
            _ => return alone(name).map(Self::Alone),
        };
        Some(Self::Compare(compare))
    }
}

fn alone(name: &str) -> Option<Test> {
    Some(match name {
        "boolean" => |_, value| Ok(matches!(value, Value::Bool(_))),
        "callable" => is_callable,
        "defined" => |_, value| Ok(!value.is_undefined()),
        "even" => |heap, value| has_rest(heap, value, 0),
        "false" => |_, value| Ok(matches!(value, Value::Bool(false))),
        "float" => |_, value| Ok(matches!(value, Value::Float(_))),
        "integer" => |_, value| Ok(matches!(value, Value::Int(_))),
        "iterable" => is_iterable,
        "lower" => |heap, value| Ok(is(&text_of(heap, value)?, "islower")),
        "mapping" => |_, value| Ok(matches!(value, Value::Dict(_))),
        "none" => |_, value| Ok(matches!(value, Value::None)),
        "number" => |_, value| Ok(value.number().is_some()),
        "odd" => |heap, value| has_rest(heap, value, 1),
        "sequence" => |_, value| Ok(is_sequence(value)),
        "string" => |_, value| Ok(value.text().is_some()),
        "true" => |_, value| Ok(matches!(value, Value::Bool(true))),
        "undefined" => |_, value| Ok(value.is_undefined()),
        "upper" => |heap, value| Ok(is(&text_of(heap, value)?, "isupper")),
        _ => return None,
    })
}

pub(super) fn test(
    heap: &mut Heap,
    test: Predicate,
    value: &Value,
    arguments: Arguments,
) -> Result<bool, Fault> {
    if let Predicate::Alone(test) = test {
        arguments.none()?;
        return test(heap, value);
    }
    let [other] = arguments.bind(["other"])?;
    let other = other.ok_or_else(|| fault!("the test misses an argument"))?;
    match test {
        Predicate::Compare(operator) => compare(heap, operator, value, &other),
        Predicate::DivisibleBy => {
            let rest = operate(heap, Binary::Remainder, value, &other)?;
            Ok(rest.equals(&Value::Int(0)))
        }
        _ => {
            heap.walk(value)?;
            Ok(value.type_name() == other.type_name() && value.equals(&other))
        }
    }
}

/// Whether half of the number leaves that rest.
fn has_rest(heap: &mut Heap, value: &Value, rest: i128) -> Result<bool, Fault> {
    let found = operate(heap, Binary::Remainder, value, &Value::Int(2))?;
    Ok(found.equals(&Value::Int(rest)))
}

fn is_callable(heap: &mut Heap, value: &Value) -> Result<bool, Fault> {
    Ok(match value {
        Value::Function(_) | Value::Method(..) | Value::Undefined(_) => true,
        Value::Object(number) => {
            matches!(heap.object(*number), Object::Macro(_) | Object::Loop(_))
        }
        _ => false,
    })
}

fn is_iterable(heap: &mut Heap, value: &Value) -> Result<bool, Fault> {
    Ok(match value {
        Value::Undefined(_) | Value::Text(_) | Value::Seq(_) | Value::Dict(_) => true,
        Value::Object(number) => {
            matches!(heap.object(*number), Object::Generator(_) | Object::Loop(_))
        }
        _ => false,
    })
}

/// Whether it has a length and items, as far as Python is asked.
fn is_sequence(value: &Value) -> bool {
    match value {
        Value::Text(_) | Value::Dict(_) | Value::Undefined(_) => true,
        Value::Seq(seq) => seq.kind != Kind::View,
        _ => false,
    }
}
