//! Filters that make numbers.

use super::defined;
use crate::chat::call::Arguments;
use crate::chat::fault::{Fault, fault};
use crate::chat::heap::Heap;
use crate::chat::strings::strip;
use crate::chat::value::Value;

pub(super) fn abs(_: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    arguments.none()?;
    defined(&value)?;
    match (value.integer(), &value) {
        (Some(number), _) => Ok(Value::Int(number.saturating_abs())),
        (None, Value::Float(number)) => Ok(Value::Float(number.abs())),
        (None, other) => Err(fault!(
            "bad operand type for abs(): '{}'",
            other.type_name()
        )),
    }
}

pub(super) fn float(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let [otherwise] = arguments.bind(["default"])?;
    defined(&value)?;
    let number = match &value {
        Value::Text(text) => {
            heap.spend(text.len() / 64)?;
            number_in(text)
        }
        other => other.number(),
    };
    Ok(number.map_or_else(|| otherwise.unwrap_or(Value::Float(0.0)), Value::Float))
}

/// The number that a text spells for Python.
fn number_in(text: &str) -> Option<f64> {
    strip(text, None, true, true).parse().ok()
}

pub(super) fn int(heap: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let [otherwise] = arguments.bind(["default"])?;
    defined(&value)?;
    let number = match &value {
        Value::Text(text) => {
            heap.spend(text.len() / 64)?;
            let whole = strip(text, None, true, true).parse().ok();
            whole.or_else(|| number_in(text).and_then(truncated))
        }
        Value::Float(number) => truncated(*number),
        other => other.integer(),
    };
    Ok(number.map_or_else(|| otherwise.unwrap_or(Value::Int(0)), Value::Int))
}

fn truncated(number: f64) -> Option<i128> {
    (number.abs() < 1e38).then_some(number.trunc() as i128)
}

pub(super) fn round(_: &mut Heap, value: Value, arguments: Arguments) -> Result<Value, Fault> {
    let [precision, method] = arguments.bind(["precision", "method"])?;
    let wrong = || fault!("type {} doesn't define __round__ method", value.type_name());
    let number = value.number().ok_or_else(wrong)?;
    let precision = precision.and_then(|precision| precision.integer());
    let precision = precision.unwrap_or(0).clamp(-300, 300);
    let method = method.as_ref().and_then(Value::text);
    let method = method.map_or("common", |method| method);
    if value.integer().is_some() && method == "common" && precision >= 0 {
        return Ok(value);
    }
    let scale = 10f64.powi(precision as i32);
    let rounded = match method {
        "ceil" => (number * scale).ceil() / scale,
        "floor" => (number * scale).floor() / scale,
        "common" if precision >= 0 => {
            // Correctly rounded, as the shortest way to decimal digits is.
            format!("{number:.*}", precision as usize)
                .parse()
                .unwrap_or(number)
        }
        "common" => (number * scale).round_ties_even() / scale,
        _ => return Err(fault!("method must be common, ceil or floor")),
    };
    match (value.integer(), method) {
        (Some(_), "common") => Ok(Value::Int(rounded as i128)),
        _ => Ok(Value::Float(rounded)),
    }
}
