//! Calls: arguments, the functions that every template knows, and objects that can be called.

use std::sync::Arc;

use super::attributes::call_method;
use super::fault::{Fault, fault};
use super::heap::{Heap, Object};
use super::print::text_of;
use super::program::{MacroInfo, Program};
use super::time;
use super::value::{Dict, Function, Kind, Value};

/// Python templates may make no longer ranges either.
const RANGE_MAX: i128 = 100_000;

/// What a call is given.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub places: Vec<Value>,
    pub named: Vec<(Arc<str>, Value)>,
}

impl Arguments {
    /// Adds what stands behind `**`.
    pub fn add_dict(&mut self, heap: &mut Heap, dict: &Value) -> Result<(), Fault> {
        let entries = match dict {
            Value::Dict(dict) => dict.entries(),
            Value::Object(number) => match heap.object(*number) {
                Object::Namespace(dict) => dict.entries(),
                _ => return Err(fault!("argument after ** must be a mapping")),
            },
            _ => return Err(fault!("argument after ** must be a mapping")),
        };
        let entries = entries.to_vec();
        heap.take_values(entries.len() * 2)?;
        for (key, value) in entries {
            let key = key
                .text()
                .ok_or_else(|| fault!("keywords must be strings"))?;
            self.named.push((key.clone(), value));
        }
        Ok(())
    }

    /// The arguments by the names of the parameters, `None` where one was not given.
    pub fn bind<const N: usize>(self, names: [&str; N]) -> Result<[Option<Value>; N], Fault> {
        if self.places.len() > N {
            let given = self.places.len();
            return Err(fault!("it takes at most {N} arguments ({given} given)"));
        }
        let mut bound = [const { None }; N];
        for (place, value) in bound.iter_mut().zip(self.places) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            let at = names.iter().position(|own| **own == *name);
            let at = at.ok_or_else(|| fault!("unexpected keyword argument '{name}'"))?;
            if bound[at].replace(value).is_some() {
                return Err(fault!("multiple values for argument '{name}'"));
            }
        }
        Ok(bound)
    }

    /// The arguments, where it does not matter whether texts are markup.
    pub fn plain(self) -> Self {
        let named = self.named.into_iter();
        Self {
            places: self.places.into_iter().map(Value::plain).collect(),
            named: named.map(|(name, value)| (name, value.plain())).collect(),
        }
    }

    pub fn none(self) -> Result<(), Fault> {
        self.bind([]).map(|_| ())
    }
}

/// The arguments of a macro: those of its parameters, and `caller`, `varargs`, `kwargs`.
pub(super) struct Bound {
    pub parameters: Vec<Option<Value>>,
    pub others: Vec<(&'static str, Value)>,
}

pub(super) fn bind_macro(
    heap: &mut Heap,
    program: &Program,
    info: &MacroInfo,
    arguments: Arguments,
) -> Result<Bound, Fault> {
    let count = info.parameters.len();
    let mut places = arguments.places;
    let rest = places.split_off(places.len().min(count));
    let mut parameters: Vec<Option<Value>> = places.into_iter().map(Some).collect();
    parameters.resize(count, None);
    let mut others = Vec::new();
    let mut named = Dict::default();
    for (name, value) in arguments.named {
        heap.spend(count / 8 + name.len() / 512)?;
        let is_own = |number: &u32| program.names[*number as usize] == name;
        match info.parameters.iter().position(is_own) {
            Some(at) if parameters[at].is_some() => {
                return Err(fault!(
                    "macro '{}' got multiple values for '{name}'",
                    info.name
                ));
            }
            Some(at) => parameters[at] = Some(value),
            None if &*name == "caller" => others.push(("caller", value)),
            None if info.takes_named => named.insert(Value::Text(name), value)?,
            None => {
                return Err(fault!(
                    "macro '{}' takes no keyword argument '{name}'",
                    info.name
                ));
            }
        }
    }
    if info.takes_named {
        others.push(("kwargs", heap.dict(named)?));
    }
    if info.takes_rest {
        others.push(("varargs", heap.seq(Kind::Tuple, rest)?));
    } else if !rest.is_empty() {
        return Err(fault!(
            "macro '{}' takes not more than {count} argument(s)",
            info.name
        ));
    }
    Ok(Bound { parameters, others })
}

/// Calls what is no macro.
pub(super) fn call(heap: &mut Heap, callee: &Value, arguments: Arguments) -> Result<Value, Fault> {
    let arguments = arguments.plain();
    match callee {
        Value::Function(function) => call_function(heap, *function, arguments),
        Value::Method(of, name) => call_method(heap, of, name, arguments),
        Value::Object(number) => call_object(heap, *number, arguments),
        other => Err(other
            .undefined_fault()
            .unwrap_or_else(|| fault!("'{}' object is not callable", heap.type_name(other)))),
    }
}

fn call_function(
    heap: &mut Heap,
    function: Function,
    arguments: Arguments,
) -> Result<Value, Fault> {
    match function {
        Function::Range => range(heap, arguments),
        Function::Dict => {
            let dict = dict_of(heap, arguments)?;
            heap.dict(dict)
        }
        Function::Namespace => {
            let dict = dict_of(heap, arguments)?;
            for (key, _) in dict.entries() {
                check_member(key.text().map_or("", |key| key))?;
            }
            heap.take_values(dict.entries().len() * 2)?;
            heap.add(Object::Namespace(dict))
        }
        Function::Cycler => {
            if arguments.places.is_empty() || !arguments.named.is_empty() {
                return Err(fault!("at least one item has to be provided"));
            }
            heap.take_values(arguments.places.len())?;
            heap.add(Object::Cycler(arguments.places.into(), 0))
        }
        Function::Joiner => {
            let [separator] = arguments.bind(["sep"])?;
            heap.add(Object::Joiner(
                separator.unwrap_or_else(|| ", ".into()),
                false,
            ))
        }
        Function::RaiseException => {
            let [message] = arguments.bind(["message"])?;
            let message = message.ok_or_else(|| fault!("raise_exception needs a message"))?;
            Err(Fault::new(text_of(heap, &message)?))
        }
        Function::StrftimeNow => {
            let [format] = arguments.bind(["format"])?;
            let format = format.as_ref().and_then(Value::text);
            let format = format.ok_or_else(|| fault!("strftime_now needs a format"))?;
            // The longest field has 24 letters.
            heap.take(format.len().saturating_mul(12))?;
            Ok(time::format(heap.now, format).into())
        }
    }
}

/// Names that begin with `_` reach into Python, where there is one.
pub(super) fn check_member(name: &str) -> Result<(), Fault> {
    if name.starts_with('_') {
        return Err(fault!("a namespace cannot have a member '{name}'"));
    }
    Ok(())
}

fn dict_of(heap: &mut Heap, arguments: Arguments) -> Result<Dict, Fault> {
    let mut dict = Dict::default();
    if arguments.places.len() > 1 {
        return Err(fault!("dict expected at most 1 argument"));
    }
    for given in &arguments.places {
        let entries: Vec<(Value, Value)> = match given {
            Value::Dict(given) => given.entries().to_vec(),
            Value::Object(number) if let Object::Namespace(own) = heap.object(*number) => {
                own.entries().to_vec()
            }
            other => {
                let mut entries = Vec::new();
                for pair in heap.iterate(other)? {
                    let pair: [Value; 2] = heap.iterate(&pair)?.try_into().map_err(|_| {
                        fault!("dictionary update sequence element has not length 2")
                    })?;
                    let [key, value] = pair;
                    entries.push((key, value));
                }
                entries
            }
        };
        heap.take_values(entries.len() * 2)?;
        for (key, value) in entries {
            heap.walk(&key)?;
            dict.insert(key, value)?;
        }
    }
    for (name, value) in arguments.named {
        heap.spend(name.len() / 512)?;
        dict.insert(Value::Text(name), value)?;
    }
    Ok(dict)
}

fn range(heap: &mut Heap, arguments: Arguments) -> Result<Value, Fault> {
    arguments
        .named
        .is_empty()
        .then_some(())
        .ok_or_else(|| fault!("range() takes no keyword arguments"))?;
    let mut numbers = Vec::new();
    for value in &arguments.places {
        if let Some(fault) = value.undefined_fault() {
            return Err(fault);
        }
        let number = value.integer();
        numbers.push(number.ok_or_else(|| {
            fault!(
                "'{}' object cannot be interpreted as an integer",
                value.type_name()
            )
        })?);
    }
    let (begin, end, step) = match numbers[..] {
        [end] => (0, end, 1),
        [begin, end] => (begin, end, 1),
        [begin, end, step] => (begin, end, step),
        _ => {
            return Err(fault!(
                "range expected 1 to 3 arguments, got {}",
                numbers.len()
            ));
        }
    };
    if step == 0 {
        return Err(fault!("range() arg 3 must not be zero"));
    }
    let span = if step > 0 {
        end.saturating_sub(begin)
    } else {
        begin.saturating_sub(end)
    };
    let count = (span.max(0).saturating_sub(1))
        .checked_div(step.saturating_abs())
        .map_or(0, |n| n + i128::from(span > 0));
    if count > RANGE_MAX {
        return Err(Fault::limit(format!(
            "a range may have at most {RANGE_MAX} items"
        )));
    }
    let items = (0..count).map(|i| Value::Int(begin + i * step)).collect();
    heap.seq(Kind::Range(begin, end, step), items)
}

fn call_object(heap: &mut Heap, number: u32, arguments: Arguments) -> Result<Value, Fault> {
    match heap.object_mut(number) {
        Object::Joiner(separator, used) => {
            let first = !std::mem::replace(used, true);
            let separator = separator.clone();
            arguments.none()?;
            Ok(if first { "".into() } else { separator })
        }
        _ => Err(fault!(
            "'{}' object is not callable",
            heap.type_name(&Value::Object(number))
        )),
    }
}
