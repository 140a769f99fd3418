//! Arithmetic, comparison and concatenation, as Python does them.

use std::cmp::Ordering;

use super::fault::{Fault, fault};
use super::format::percent;
use super::heap::{Heap, Object};
use super::print::write_text;
use super::program::{Binary, Compare};
use super::value::Value;

pub(super) fn operate(
    heap: &mut Heap,
    operator: Binary,
    a: &Value,
    b: &Value,
) -> Result<Value, Fault> {
    if let Some(fault) = a.undefined_fault() {
        return Err(fault);
    }
    if let (Binary::Remainder, Some(format)) = (operator, a.text()) {
        return percent(heap, format, b);
    }
    if let Some(fault) = b.undefined_fault() {
        return Err(fault);
    }
    if operator == Binary::Add && [a, b].iter().any(|side| matches!(side, Value::Markup(_))) {
        return add_markup(heap, a, b);
    }
    match (operator, a, b) {
        (Binary::Add, Value::Text(a), Value::Text(b)) => {
            heap.take(a.len() + b.len())?;
            Ok(Value::from([&**a, &**b].concat()))
        }
        (Binary::Add, Value::Seq(a), Value::Seq(b)) if a.kind == b.kind && a.kind.is_plain() => {
            heap.take_values(a.items.len() + b.items.len())?;
            Value::seq(a.kind, [&a.items[..], &b.items[..]].concat())
        }
        (Binary::Multiply, Value::Text(_) | Value::Seq(_), Value::Int(count)) => {
            repeat(heap, a, *count)
        }
        (Binary::Multiply, Value::Int(count), Value::Text(_) | Value::Seq(_)) => {
            repeat(heap, b, *count)
        }
        (_, a, b) => arithmetic(operator, a, b),
    }
}

/// A sum of which one side is markup is markup; the other side is escaped.
fn add_markup(heap: &mut Heap, a: &Value, b: &Value) -> Result<Value, Fault> {
    let mut text = String::new();
    for side in [a, b] {
        match side {
            Value::Markup(own) => {
                heap.take(own.len())?;
                text.push_str(own);
            }
            Value::Text(own) => escape(heap, own, &mut text)?,
            _ => return Err(wrong_types(Binary::Add, a, b)),
        }
    }
    Ok(Value::Markup(text.into()))
}

/// Appends a text as HTML shows it, and pays for it.
fn escape(heap: &mut Heap, own: &str, text: &mut String) -> Result<(), Fault> {
    let marks = own.matches(['&', '<', '>', '\'', '"']).count();
    heap.take(own.len().saturating_add(marks.saturating_mul(4)))?;
    for c in own.chars() {
        match c {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '\'' => text.push_str("&#39;"),
            '"' => text.push_str("&#34;"),
            c => text.push(c),
        }
    }
    Ok(())
}

fn repeat(heap: &mut Heap, value: &Value, count: i128) -> Result<Value, Fault> {
    let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    match value {
        Value::Text(text) => {
            heap.take(text.len().saturating_mul(count))?;
            Ok(Value::from(text.repeat(count)))
        }
        Value::Seq(seq) if seq.kind.is_plain() => {
            let total = seq.items.len().saturating_mul(count);
            heap.take_values(total)?;
            let items = seq.items.iter().cycle().take(total).cloned().collect();
            Value::seq(seq.kind, items)
        }
        other => Err(fault!("'{}' object cannot be repeated", other.type_name())),
    }
}

fn arithmetic(operator: Binary, a: &Value, b: &Value) -> Result<Value, Fault> {
    if let (Some(a), Some(b)) = (a.integer(), b.integer()) {
        return integers(operator, a, b);
    }
    let (Some(x), Some(y)) = (a.number(), b.number()) else {
        return Err(wrong_types(operator, a, b));
    };
    if y == 0.0 && !matches!(operator, Binary::Add | Binary::Subtract | Binary::Multiply) {
        return Err(fault!("division by zero"));
    }
    Ok(Value::Float(match operator {
        Binary::Add => x + y,
        Binary::Subtract => x - y,
        Binary::Multiply => x * y,
        Binary::Divide => x / y,
        Binary::FloorDivide => {
            // What is left is exact, the quotient is not.
            let whole = ((x - remainder(x, y)) / y).round();
            if whole == 0.0 {
                0f64.copysign(x / y)
            } else {
                whole
            }
        }
        Binary::Remainder => remainder(x, y),
    }))
}

/// What is left of a division; it has the sign of the divisor.
fn remainder(x: f64, y: f64) -> f64 {
    let rest = x % y;
    if rest == 0.0 {
        0f64.copysign(y)
    } else if (rest < 0.0) != (y < 0.0) {
        rest + y
    } else {
        rest
    }
}

fn integers(operator: Binary, a: i128, b: i128) -> Result<Value, Fault> {
    let result = match operator {
        Binary::Add => a.checked_add(b),
        Binary::Subtract => a.checked_sub(b),
        Binary::Multiply => a.checked_mul(b),
        _ if b == 0 => return Err(fault!("division by zero")),
        Binary::Divide => return Ok(Value::Float(a as f64 / b as f64)),
        Binary::FloorDivide => a.checked_div(b).map(|_| floor_divide(a, b)),
        Binary::Remainder => a.checked_rem(b).map(|rest| {
            let is_other_side = rest != 0 && (rest < 0) != (b < 0);
            if is_other_side { rest + b } else { rest }
        }),
    };
    let result = result.ok_or_else(|| Fault::limit("an integer has more than 38 digits"))?;
    Ok(Value::Int(result))
}

fn floor_divide(a: i128, b: i128) -> i128 {
    let quotient = a / b;
    quotient - i128::from(a % b != 0 && (a < 0) != (b < 0))
}

fn wrong_types(operator: Binary, a: &Value, b: &Value) -> Fault {
    if let (Binary::Add, Value::Text(_)) = (operator, a) {
        let found = b.type_name();
        return fault!("can only concatenate str (not \"{found}\") to str");
    }
    let operator = match operator {
        Binary::Add => "+",
        Binary::Subtract => "-",
        Binary::Multiply => "*",
        Binary::Divide => "/",
        Binary::FloorDivide => "//",
        Binary::Remainder => "%",
    };
    let (a, b) = (a.type_name(), b.type_name());
    fault!("unsupported operand type(s) for {operator}: '{a}' and '{b}'")
}

pub(super) fn negate(value: &Value, negative: bool) -> Result<Value, Fault> {
    if let Some(fault) = value.undefined_fault() {
        return Err(fault);
    }
    let sign = if negative { -1 } else { 1 };
    match (value.integer(), value) {
        // The parser makes no integer that has no opposite.
        (Some(number), _) => Ok(Value::Int(number.saturating_mul(sign))),
        (None, Value::Float(number)) => Ok(Value::Float(if negative { -number } else { *number })),
        (None, other) => Err(fault!(
            "bad operand type for a sign: '{}'",
            other.type_name()
        )),
    }
}

/// `a ~ b ~ c`.
pub(super) fn concatenate(heap: &mut Heap, parts: &[Value]) -> Result<Value, Fault> {
    let mut text = String::new();
    for part in parts {
        write_text(heap, part, &mut text)?;
    }
    heap.text(text)
}

pub(super) fn compare(
    heap: &mut Heap,
    operator: Compare,
    a: &Value,
    b: &Value,
) -> Result<bool, Fault> {
    if operator != Compare::In {
        heap.walk(a)?;
    }
    let order = |wanted: fn(Ordering) -> bool| Ok(a.compare(b)?.is_some_and(wanted));
    match operator {
        Compare::Equal | Compare::NotEqual => Ok(a.equals(b) == (operator == Compare::Equal)),
        Compare::Less => order(Ordering::is_lt),
        Compare::LessEqual => order(Ordering::is_le),
        Compare::Greater => order(Ordering::is_gt),
        Compare::GreaterEqual => order(Ordering::is_ge),
        Compare::In => contains(heap, b, a),
    }
}

/// `value in container`.
fn contains(heap: &mut Heap, container: &Value, value: &Value) -> Result<bool, Fault> {
    match container {
        Value::Text(text) => {
            let part = value.text().ok_or_else(|| {
                let found = value.type_name();
                let wrong = || fault!("'in <string>' requires string as left operand, not {found}");
                value.undefined_fault().unwrap_or_else(wrong)
            })?;
            heap.spend(text.len() / 64)?;
            Ok(text.contains(&**part))
        }
        Value::Dict(_) if value.is_undefined() => Ok(false),
        Value::Dict(dict) => {
            heap.walk(value)?;
            Ok(dict.get(value)?.is_some())
        }
        Value::Seq(seq) => {
            heap.spend(container.size().values as usize / 8)?;
            Ok(seq.items.iter().any(|item| item.equals(value)))
        }
        Value::Undefined(_) => Ok(false),
        Value::Object(number) if let Object::Generator(_) = heap.object(*number) => {
            for item in heap.iterate(container)? {
                heap.walk(&item)?;
                if item.equals(value) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        other => Err(fault!(
            "argument of type '{}' is not iterable",
            heap.type_name(other)
        )),
    }
}
