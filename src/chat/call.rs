//! Calls: arguments, and the functions that every template knows.

use std::sync::Arc;

use super::attributes::call_method;
use super::fault::{Fault, fault};
use super::heap::{Heap, Object};
use super::print::text_of;
use super::program::{MacroInfo, Program};
use super::strings::text_argument;
use super::time;
use super::value::{Dict, Function, Kind, Value};

/// Python templates may make no longer ranges either.
const RANGE_MAX: u128 = 100_000;

/// What a call is given.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub places: Vec<Value>,
    pub named: Vec<(Arc<str>, Value)>,
}

impl Arguments {
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

/// What a macro's parameters get; what is given as `caller` stands last.
pub(super) fn bind_macro(
    heap: &mut Heap,
    program: &Program,
    info: &MacroInfo,
    arguments: Arguments,
) -> Result<(Vec<Option<Value>>, Option<Value>), Fault> {
    let (name, count) = (&info.name, info.parameters.len());
    if arguments.places.len() > count {
        return Err(fault!(
            "macro '{name}' takes not more than {count} argument(s)"
        ));
    }
    let mut bound: Vec<Option<Value>> = arguments.places.into_iter().map(Some).collect();
    bound.resize(count, None);
    let mut caller = None;
    for (given, value) in arguments.named {
        heap.spend(count / 8 + given.len() / 512)?;
        let is_own = |number: &u32| program.names[*number as usize] == given;
        match info.parameters.iter().position(is_own) {
            Some(at) if bound[at].is_some() => {
                return Err(fault!("macro '{name}' got multiple values for '{given}'"));
            }
            Some(at) => bound[at] = Some(value),
            None if &*given == "caller" => caller = Some(value),
            None => return Err(fault!("macro '{name}' takes no keyword argument '{given}'")),
        }
    }
    Ok((bound, caller))
}

/// Calls what is no macro.
pub(super) fn call(heap: &mut Heap, callee: &Value, arguments: Arguments) -> Result<Value, Fault> {
    let arguments = arguments.plain();
    match callee {
        Value::Function(function) => call_function(heap, *function, arguments),
        Value::Method(of, name) => call_method(heap, of, name, arguments),
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
        Function::RaiseException => {
            let [message] = arguments.bind(["message"])?;
            let message = message.ok_or_else(|| fault!("raise_exception needs a message"))?;
            Err(Fault::new(text_of(heap, &message)?))
        }
        Function::StrftimeNow => {
            let [format] = arguments.bind(["format"])?;
            let format = text_argument(&format, "strftime_now")?;
            // The longest field, `%F`, has ten letters.
            heap.take(format.len().saturating_mul(5))?;
            Ok(time::format(heap.now, format)?.into())
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
    match &arguments.places[..] {
        [] => {}
        [Value::Dict(given)] => {
            heap.take_values(given.entries().len() * 4)?;
            for (key, value) in given.entries() {
                dict.insert(key.clone(), value.clone())?;
            }
        }
        _ => return Err(fault!("expected members by name, or one dictionary")),
    }
    for (name, value) in arguments.named {
        heap.spend(name.len() / 512)?;
        dict.insert(Value::Text(name), value)?;
    }
    Ok(dict)
}

fn range(heap: &mut Heap, arguments: Arguments) -> Result<Value, Fault> {
    if !arguments.named.is_empty() {
        return Err(fault!("range() takes no keyword arguments"));
    }
    let mut numbers = Vec::new();
    for value in &arguments.places {
        numbers.push(value.integer().ok_or_else(|| {
            let wrong = || fault!("range() needs integers, not {}", value.type_name());
            value.undefined_fault().unwrap_or_else(wrong)
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
    let span = match step > 0 {
        true => end.saturating_sub(begin),
        false => begin.saturating_sub(end),
    };
    let count = span.max(0).unsigned_abs().div_ceil(step.unsigned_abs());
    if count > RANGE_MAX {
        return Err(Fault::limit(format!(
            "a range may have at most {RANGE_MAX} items"
        )));
    }
    let items = (0..count)
        .map(|i| Value::Int(begin + i as i128 * step))
        .collect();
    heap.seq(Kind::Range, items)
}
