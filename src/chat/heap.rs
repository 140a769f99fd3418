//! What a rendering may spend, and what changes while it runs: namespaces, loops, generators.
//!
//! Objects live until the rendering ends; as values have only their numbers, no cycle keeps
//! anything alive. Bytes are counted when something is made and never given back: the limit is on
//! all that a rendering makes, so it bounds time as well as memory.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::Arc;

use super::fault::{Fault, fault};
use super::value::{Dict, Kind, Seq, Value};

/// What a rendering may spend.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter {
    pub steps: u64,
    pub bytes: u64,
}

#[derive(Debug)]
pub(super) struct Heap {
    meter: Meter,
    pub objects: Vec<Object>,
    /// Seconds since 1970, in the time zone that the template shall see.
    pub now: i64,
}

#[derive(Debug)]
pub(super) enum Object {
    Namespace(Dict),
    /// What is left of an iterator; it can be walked through once.
    Generator(VecDeque<Value>),
    Loop(Loop),
    Macro(Macro),
}

/// A loop that runs or has run.
#[derive(Debug)]
pub(super) struct Loop {
    pub items: Vec<Value>,
    /// The number of the item that the body has, from 0; before the first `None`.
    pub at: Option<usize>,
    pub depth: usize,
    /// What `changed` saw last.
    pub seen: Option<Vec<Value>>,
    /// The macro that a recursive loop's body is.
    pub recurse: Option<u32>,
}

/// A macro, or the body of a call block.
#[derive(Debug, Clone)]
pub(super) struct Macro {
    /// Its number among the program's.
    pub info: usize,
    /// Where its code begins.
    pub entry: usize,
    /// The variables that it saw when it was made, but those of the template itself.
    pub closure: Arc<[(u32, Value)]>,
}

impl Heap {
    pub fn new(meter: Meter, now: i64) -> Self {
        Self {
            meter,
            objects: Vec::new(),
            now,
        }
    }

    /// Pays for work.
    pub fn spend(&mut self, steps: usize) -> Result<(), Fault> {
        let left = self.meter.steps.checked_sub(steps as u64);
        self.meter.steps = left.ok_or_else(|| Fault::limit("it takes too many steps"))?;
        Ok(())
    }

    /// Pays for comparing or hashing a value, which may be long.
    pub fn walk(&mut self, value: &Value) -> Result<(), Fault> {
        self.spend(value.size().values as usize / 8)
    }

    /// Pays for memory before it is taken.
    pub fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        let left = self.meter.bytes.checked_sub(bytes as u64);
        self.meter.bytes = left.ok_or_else(|| Fault::limit("it makes too much text and data"))?;
        Ok(())
    }

    /// Pays for `count` values, and the work of making them.
    pub fn take_values(&mut self, count: usize) -> Result<(), Fault> {
        self.spend(count / 4)?;
        self.take(count.saturating_add(1).saturating_mul(size_of::<Value>()))
    }

    /// A text that has been made; its size was bounded before by what it was made from.
    pub fn text(&mut self, text: String) -> Result<Value, Fault> {
        self.take(text.len())?;
        Ok(text.into())
    }

    pub fn list(&mut self, items: Vec<Value>) -> Result<Value, Fault> {
        self.seq(Kind::List, items)
    }

    pub fn seq(&mut self, kind: Kind, items: Vec<Value>) -> Result<Value, Fault> {
        self.take(size_of::<Seq>())?;
        self.take_values(items.len())?;
        Value::seq(kind, items)
    }

    pub fn generator(&mut self, items: Vec<Value>) -> Result<Value, Fault> {
        self.take_values(items.len())?;
        self.add(Object::Generator(items.into()))
    }

    pub fn dict(&mut self, dict: Dict) -> Result<Value, Fault> {
        self.take(size_of::<Dict>())?;
        self.take_values(dict.entries().len().saturating_mul(4))?;
        Ok(Value::Dict(Arc::new(dict)))
    }

    pub fn add(&mut self, object: Object) -> Result<Value, Fault> {
        self.take(size_of::<Object>())?;
        let number = u32::try_from(self.objects.len());
        let number = number.map_err(|_| Fault::limit("it makes too many objects"))?;
        self.objects.push(object);
        Ok(Value::Object(number))
    }

    pub fn object(&self, number: u32) -> &Object {
        &self.objects[number as usize]
    }

    pub fn object_mut(&mut self, number: u32) -> &mut Object {
        &mut self.objects[number as usize]
    }

    /// The items that a loop over the value sees; a generator has none afterwards.
    pub fn iterate(&mut self, value: &Value) -> Result<Vec<Value>, Fault> {
        let items = match value {
            Value::Undefined(_) => Vec::new(),
            Value::Seq(seq) => {
                self.take_values(seq.items.len())?;
                seq.items.clone()
            }
            Value::Dict(dict) => {
                self.take_values(dict.entries().len())?;
                dict.entries().iter().map(|(key, _)| key.clone()).collect()
            }
            Value::Text(text) | Value::Markup(text) => {
                self.take_values(text.len().saturating_mul(2))?;
                let mut place = [0; 4];
                text.chars()
                    .map(|c| Value::from(&*c.encode_utf8(&mut place)))
                    .collect()
            }
            Value::Object(number) => match self.object_mut(*number) {
                Object::Generator(items) => std::mem::take(items).into(),
                _ => return Err(fault!("'{}' object is not iterable", self.type_name(value))),
            },
            other => return Err(fault!("'{}' object is not iterable", other.type_name())),
        };
        self.spend(items.len() / 16)?;
        Ok(items)
    }

    /// Its type's name in Python.
    pub fn type_name(&self, value: &Value) -> &'static str {
        let Value::Object(number) = value else {
            return value.type_name();
        };
        match self.object(*number) {
            Object::Namespace(_) => "Namespace",
            Object::Generator(_) => "generator",
            Object::Loop(_) => "LoopContext",
            Object::Macro(_) => "Macro",
        }
    }
}
