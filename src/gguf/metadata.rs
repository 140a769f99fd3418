//! The metadata of a model: keys and values in file order, with typed access.
//!
//! An accessor answers `Ok(None)` for an absent key and a `FORMAT` error that names the key, its
//! offset, the expected and the found type for a wrong one; [`Metadata::required`] makes absence an error too.

use std::borrow::Cow;
use std::fmt;

use super::names::Names;
use super::value::{Array, Strings, Value, quoted};
use crate::error::{Code, Error, Result};

/// Keys and values of a model file; every key is there once.
#[derive(Default)]
pub struct Metadata {
    entries: Vec<Entry>,
    names: Names,
}

/// A key with its value.
pub(super) struct Entry {
    pub(super) key: Box<str>,
    pub(super) value: Value,
    /// Where it begins in its file.
    pub(super) offset: u64,
}

impl Metadata {
    /// Takes the entries over; the inner `Err` holds the second of two with equal keys.
    pub(super) fn new(mut entries: Vec<Entry>) -> Result<Result<Self, Entry>> {
        Ok(match Names::new(&entries, |entry| &entry.key)? {
            Ok(names) => Ok(Self { entries, names }),
            Err(second) => Err(entries.swap_remove(second)),
        })
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of `key`, of whatever type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        Some(&self.find(key)?.value)
    }

    /// Where `key` begins in its file.
    pub fn offset(&self, key: &str) -> Option<u64> {
        Some(self.find(key)?.offset)
    }

    /// What an error about `key` gives as its place: the key, and its offset if the file has it.
    pub fn place(&self, key: &str) -> String {
        let name = quoted(key.as_bytes());
        match self.offset(key) {
            Some(offset) => format!("key {name} at offset {offset}"),
            None => format!("key {name}"),
        }
    }

    /// All keys and values in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|entry| (&*entry.key, &entry.value))
    }

    /// What `get` finds at `key`; that the key is absent is a `FORMAT` error.
    ///
    /// `metadata.required("general.architecture", Metadata::str)?`
    pub fn required<'a, T>(
        &'a self,
        key: &str,
        get: impl FnOnce(&'a Self, &str) -> Result<Option<T>>,
    ) -> Result<T> {
        get(self, key)?.ok_or_else(|| self.error(key, "the key is missing"))
    }

    /// An integer of any type whose value fits.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.integer(key, "u32")
    }

    /// An integer of any type whose value fits.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.integer(key, "u64")
    }

    /// An integer of any type whose value fits.
    pub fn i32(&self, key: &str) -> Result<Option<i32>> {
        self.integer(key, "i32")
    }

    /// A float; f64 is rounded to f32.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "f32", |value| match *value {
            Value::F32(x) => Some(x),
            Value::F64(x) => Some(x as f32),
            _ => None,
        })
    }

    /// A flag.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "bool", |value| match *value {
            Value::Bool(flag) => Some(flag),
            _ => None,
        })
    }

    /// A string, which must be UTF-8.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        let Some(bytes) = self.bytes(key)? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(bytes).map_err(|e| {
            let found = format!("expected UTF-8, found a bad byte at {}", e.valid_up_to());
            self.error(key, found)
        })?;
        Ok(Some(text))
    }

    /// A string as stored, which need not be UTF-8.
    pub fn bytes(&self, key: &str) -> Result<Option<&[u8]>> {
        self.typed(key, "string", |value| match value {
            Value::String(bytes) => Some(&**bytes),
            _ => None,
        })
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Result<Option<&Strings>> {
        self.typed(key, "array of string", |value| match value {
            Value::Array(Array::Strings(strings)) => Some(strings),
            _ => None,
        })
    }

    /// An array of f32.
    pub fn f32s(&self, key: &str) -> Result<Option<&[f32]>> {
        self.typed(key, "array of f32", |value| match value {
            Value::Array(Array::F32(items)) => Some(&**items),
            _ => None,
        })
    }

    /// An array of flags.
    pub fn bools(&self, key: &str) -> Result<Option<&[bool]>> {
        self.typed(key, "array of bool", |value| match value {
            Value::Array(Array::Bool(items)) => Some(&**items),
            _ => None,
        })
    }

    /// An array of integers of any type whose values fit; borrowed when they are i32.
    pub fn i32s(&self, key: &str) -> Result<Option<Cow<'_, [i32]>>> {
        match self.get(key) {
            Some(Value::Array(Array::I32(items))) => Ok(Some(Cow::Borrowed(items))),
            _ => self.integers(key, "i32"),
        }
    }

    /// An array of integers of any type whose values fit; borrowed when they are u32.
    pub fn u32s(&self, key: &str) -> Result<Option<Cow<'_, [u32]>>> {
        match self.get(key) {
            Some(Value::Array(Array::U32(items))) => Ok(Some(Cow::Borrowed(items))),
            _ => self.integers(key, "u32"),
        }
    }

    fn integer<T: TryFrom<i128>>(&self, key: &str, expected: &str) -> Result<Option<T>> {
        let Some(integer) = self.typed(key, expected, Value::integer)? else {
            return Ok(None);
        };
        T::try_from(integer)
            .map(Some)
            .map_err(|_| self.misfit(key, expected, integer))
    }

    fn integers<T>(&self, key: &str, expected: &str) -> Result<Option<Cow<'_, [T]>>>
    where
        T: TryFrom<i128> + Clone,
    {
        let items = self.typed(key, &format!("array of {expected}"), |value| match value {
            Value::Array(array) => array.integers(),
            _ => None,
        })?;
        let items = items.transpose()?.transpose();
        items
            .map(|items| items.map(Cow::Owned))
            .map_err(|item| self.misfit(key, expected, item))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        get: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        get(value).map(Some).ok_or_else(|| {
            let found = value.type_name();
            self.error(key, format!("expected {expected}, found {found}"))
        })
    }

    fn find(&self, key: &str) -> Option<&Entry> {
        let i = self.names.find(&self.entries, key, |entry| &entry.key)?;
        Some(&self.entries[i])
    }

    /// A `FORMAT` error at `key`.
    pub(super) fn error(&self, key: &str, message: impl Into<Box<str>>) -> Error {
        Error::new(Code::Format, self.place(key), message)
    }

    fn misfit(&self, key: &str, expected: &str, found: i128) -> Error {
        let message = format!("expected a value that fits {expected}, found {found}");
        self.error(key, message)
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(key, value)| (key, value.to_string())))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Metadata {
        let entries: [(&str, Value); 7] = [
            ("small", Value::I8(-3)),
            ("big", Value::U64(1 << 40)),
            ("half", Value::F64(0.5)),
            ("text", "a".into()),
            ("bad", Value::String([0xff].into())),
            ("list", vec![1i32, -1].into()),
            ("words", Strings::from_iter(["x", "y"]).into()),
        ];
        let entries = entries
            .into_iter()
            .zip(10..)
            .map(|((key, value), offset)| Entry {
                key: key.into(),
                value,
                offset,
            });
        let metadata = Metadata::new(entries.collect()).unwrap();
        metadata.unwrap_or_else(|second| panic!("{} is there twice", second.key))
    }

    #[test]
    fn integers_of_any_type_fit_or_say_why_not() {
        let m = sample();
        assert_eq!(m.i32("small").unwrap(), Some(-3));
        assert_eq!(m.u64("big").unwrap(), Some(1 << 40));
        let e = m.u32("small").unwrap_err().to_string();
        assert_eq!(
            e,
            "key 'small' at offset 10: expected a value that fits u32, found -3"
        );
        assert!(m.u32("big").is_err());
        assert_eq!(m.i32s("list").unwrap().as_deref(), Some(&[1, -1][..]));
        assert!(m.u32s("list").is_err());
        assert_eq!(m.u32("absent").unwrap(), None);
    }

    #[test]
    fn other_types_are_named_in_errors() {
        let m = sample();
        assert_eq!(m.f32("half").unwrap(), Some(0.5));
        assert_eq!(m.str("text").unwrap(), Some("a"));
        assert_eq!(m.str("bad").unwrap_err().code(), Code::Format);
        assert_eq!(m.bytes("bad").unwrap(), Some(&[0xff][..]));
        let e = m.f32s("words").unwrap_err().to_string();
        assert_eq!(
            e,
            "key 'words' at offset 16: expected array of f32, found array of string"
        );
        let e = m
            .required("absent", Metadata::bool)
            .unwrap_err()
            .to_string();
        assert_eq!(e, "key 'absent': the key is missing");
        assert_eq!(m.required("words", Metadata::strings).unwrap().len(), 2);
    }
}
