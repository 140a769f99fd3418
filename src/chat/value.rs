//! Values of a template: those of Python as far as templates see them.
//!
//! They are immutable, and containers know how deep they nest: what walks through a value recurses
//! at most [`DEPTH_MAX`] times. What changes (namespaces, loops, generators) lives in the
//! [`super::heap::Heap`]; a value only has its number.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use super::fault::{Fault, fault};

/// How deep lists and dictionaries may nest.
pub(super) const DEPTH_MAX: u32 = 160;
/// How many values a list or dictionary may hold, counted at each place where one stands.
const VALUES_MAX: u32 = 1 << 24;

#[derive(Debug, Clone)]
pub(super) enum Value {
    Undefined(Missing),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Arc<str>),
    /// A text that `safe` has made: what is added to it is escaped.
    Markup(Arc<str>),
    Seq(Arc<Seq>),
    Dict(Arc<Dict>),
    /// A method of a value, not yet called.
    Method(Arc<Value>, &'static str),
    /// A function that every template knows.
    Function(Function),
    /// Something of the heap.
    Object(u32),
}

/// Why a value is undefined; the message of whoever needs it.
#[derive(Debug, Clone)]
pub(super) enum Missing {
    Name(Arc<str>),
    /// The type that has no such member.
    Member(&'static str, Arc<str>),
    /// The type whose member would change it or reach further.
    Unsafe(&'static str, Arc<str>),
    /// A condition without else, an empty sequence, an argument that was not given.
    Nothing(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Range,
    Dict,
    Namespace,
    RaiseException,
    StrftimeNow,
}

#[derive(Debug)]
pub(super) struct Seq {
    pub kind: Kind,
    pub items: Vec<Value>,
    size: Size,
}

/// How much there is of a value: nobody walks through one for longer than this says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    depth: u32,
    /// Values in it, those in several places counted as often; long texts count as several.
    pub values: u32,
}

impl Size {
    /// Adds an item.
    fn add(&mut self, item: Size) -> Result<(), Fault> {
        self.depth = self.depth.max(item.depth + 1);
        self.values = self.values.saturating_add(item.values);
        let message = match (self.depth > DEPTH_MAX, self.values > VALUES_MAX) {
            (false, false) => return Ok(()),
            (true, _) => format!("lists and dictionaries nest deeper than {DEPTH_MAX}"),
            _ => format!("a list or dictionary holds more than {VALUES_MAX} values"),
        };
        Err(Fault::limit(message))
    }
}

/// What kind of sequence it is in Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    List,
    Tuple,
    Range,
    /// Keys, values or entries of a dictionary.
    View,
}

impl Kind {
    /// A list or tuple.
    pub fn is_plain(self) -> bool {
        matches!(self, Self::List | Self::Tuple)
    }
}

/// A dictionary in the order of its insertions.
#[derive(Debug, Default)]
pub(super) struct Dict {
    entries: Vec<(Value, Value)>,
    index: HashMap<Key, usize>,
    size: Size,
}

/// A value as a key: what is equal in Python is equal here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    None,
    Int(i128),
    Float(u64),
    Text(Arc<str>),
}

impl Key {
    pub fn of(value: &Value) -> Result<Self, Fault> {
        Ok(match value {
            Value::None => Self::None,
            Value::Bool(flag) => Self::Int(i128::from(*flag)),
            Value::Int(number) => Self::Int(*number),
            Value::Float(number) => match whole(*number) {
                Some(number) => Self::Int(number),
                None => Self::Float(number.to_bits()),
            },
            Value::Text(text) | Value::Markup(text) => Self::Text(text.clone()),
            other => return Err(fault!("unhashable type: '{}'", other.type_name())),
        })
    }
}

/// A float that is an integer, as one.
fn whole(number: f64) -> Option<i128> {
    (number.fract() == 0.0 && number.abs() < 1e38).then_some(number as i128)
}

impl Dict {
    pub fn insert(&mut self, key: Value, value: Value) -> Result<(), Fault> {
        let found = self.index.get(&Key::of(&key)?).copied();
        let mut size = self.size;
        match found {
            Some(at) => {
                let replaced = self.entries[at].1.size();
                size.values = size.values.saturating_sub(replaced.values);
            }
            None => size.add(key.size())?,
        }
        size.add(value.size())?;
        self.size = size;
        if let Some(at) = found {
            self.entries[at].1 = value;
            return Ok(());
        }
        self.index.insert(Key::of(&key)?, self.entries.len());
        self.entries.push((key, value));
        Ok(())
    }

    pub fn get(&self, key: &Value) -> Result<Option<&Value>, Fault> {
        let at = self.index.get(&Key::of(key)?);
        Ok(at.map(|at| &self.entries[*at].1))
    }

    pub fn entries(&self) -> &[(Value, Value)] {
        &self.entries
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Int(number as i128)
    }
}

impl Value {
    pub fn seq(kind: Kind, items: Vec<Value>) -> Result<Self, Fault> {
        let mut size = Size {
            depth: 1,
            values: 1,
        };
        for item in &items {
            size.add(item.size())?;
        }
        Ok(Self::Seq(Arc::new(Seq { kind, items, size })))
    }

    pub fn list(items: Vec<Value>) -> Result<Self, Fault> {
        Self::seq(Kind::List, items)
    }

    pub fn size(&self) -> Size {
        match self {
            Self::Seq(seq) => seq.size,
            Self::Dict(dict) => dict.size,
            Self::Method(of, _) => Size {
                depth: of.size().depth + 1,
                ..of.size()
            },
            Self::Text(text) | Self::Markup(text) => Size {
                depth: 0,
                values: 1 + u32::try_from(text.len() / 64).unwrap_or(u32::MAX),
            },
            _ => Size {
                depth: 0,
                values: 1,
            },
        }
    }

    pub fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined(_))
    }

    /// Its type's name in Python.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "str",
            Self::Markup(_) => "Markup",
            Self::Seq(seq) => match seq.kind {
                Kind::List => "list",
                Kind::Tuple => "tuple",
                Kind::Range => "range",
                Kind::View => "dict view",
            },
            Self::Dict(_) => "dict",
            Self::Method(..) | Self::Function(_) => "function",
            Self::Object(_) => "object",
        }
    }

    pub fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(flag) => *flag,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) | Self::Markup(text) => !text.is_empty(),
            Self::Seq(seq) => !seq.items.is_empty(),
            Self::Dict(dict) => !dict.entries.is_empty(),
            Self::Method(..) | Self::Function(_) | Self::Object(_) => true,
        }
    }

    /// The number that it is, if it is one and whole.
    pub fn integer(&self) -> Option<i128> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Bool(flag) => Some(i128::from(*flag)),
            _ => None,
        }
    }

    /// The number that it is, if it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            other => other.integer().map(|number| number as f64),
        }
    }

    pub fn text(&self) -> Option<&Arc<str>> {
        match self {
            Self::Text(text) | Self::Markup(text) => Some(text),
            _ => None,
        }
    }

    /// The value, where it does not matter whether a text is markup.
    pub fn plain(self) -> Self {
        match self {
            Self::Markup(text) => Self::Text(text),
            other => other,
        }
    }

    /// The error of whoever cannot use an undefined value.
    pub fn undefined_fault(&self) -> Option<Fault> {
        let Self::Undefined(missing) = self else {
            return None;
        };
        Some(match missing {
            Missing::Name(name) => fault!("'{name}' is undefined"),
            Missing::Member(of, name) if *of == "NoneType" => {
                fault!("'None' has no attribute '{name}'")
            }
            Missing::Member(of, name) => fault!("'{of} object' has no attribute '{name}'"),
            Missing::Unsafe(of, name) => {
                fault!("access to attribute '{name}' of '{of}' object is unsafe.")
            }
            Missing::Nothing(what) => fault!("{what}"),
        })
    }

    /// Whether two values are equal; `false` for those of different kinds.
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Undefined(_), Self::Undefined(_)) | (Self::None, Self::None) => true,
            (Self::Text(a) | Self::Markup(a), Self::Text(b) | Self::Markup(b)) => a == b,
            (Self::Seq(a), Self::Seq(b)) => {
                Arc::ptr_eq(a, b)
                    || (a.kind == b.kind
                        && a.items.len() == b.items.len()
                        && a.items.iter().zip(&b.items).all(|(a, b)| a.equals(b)))
            }
            (Self::Dict(a), Self::Dict(b)) => Arc::ptr_eq(a, b)
                || (a.entries.len() == b.entries.len()
                    && a.entries.iter().all(
                        |(key, value)| matches!(b.get(key), Ok(Some(found)) if found.equals(value)),
                    )),
            (Self::Function(a), Self::Function(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => a == b,
            (a, b) => match (a.integer(), b.integer()) {
                (Some(a), Some(b)) => a == b,
                _ => matches!((a.number(), b.number()), (Some(a), Some(b)) if a == b),
            },
        }
    }

    /// The order of two values, if they have one.
    pub fn compare(&self, other: &Self) -> Result<Option<Ordering>, Fault> {
        for side in [self, other] {
            if let Some(fault) = side.undefined_fault() {
                return Err(fault);
            }
        }
        match (self, other) {
            (Self::Text(a) | Self::Markup(a), Self::Text(b) | Self::Markup(b)) => {
                Ok(Some(a.cmp(b)))
            }
            (Self::Seq(a), Self::Seq(b)) if a.kind == b.kind && a.kind != Kind::View => {
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.equals(b) {
                        return a.compare(b);
                    }
                }
                Ok(Some(a.items.len().cmp(&b.items.len())))
            }
            (a, b) => match (a.integer(), b.integer(), a.number(), b.number()) {
                (Some(a), Some(b), ..) => Ok(Some(a.cmp(&b))),
                (.., Some(a), Some(b)) => Ok(a.partial_cmp(&b)),
                _ => {
                    let (a, b) = (a.type_name(), b.type_name());
                    Err(fault!(
                        "'<' not supported between instances of '{a}' and '{b}'"
                    ))
                }
            },
        }
    }
}
