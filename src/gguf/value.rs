//! Metadata values as a file stores them: numbers, booleans, byte strings and arrays of these.
//!
//! Strings stay bytes: GGUF promises UTF-8, but tokens of real vocabularies break that promise.

use std::fmt;

use crate::error::{Code, Error, Result};

/// The type of a metadata value, with the number that the format gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs)] // the names are the documentation
pub enum Kind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // the names are the documentation
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(Box<[u8]>),
    Array(Array),
}

/// An array of values of one type, in one allocation.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // the names are the documentation
pub enum Array {
    U8(Box<[u8]>),
    I8(Box<[i8]>),
    U16(Box<[u16]>),
    I16(Box<[i16]>),
    U32(Box<[u32]>),
    I32(Box<[i32]>),
    U64(Box<[u64]>),
    I64(Box<[i64]>),
    F32(Box<[f32]>),
    F64(Box<[f64]>),
    Bool(Box<[bool]>),
    Strings(Strings),
    Arrays(Box<[Array]>),
}

/// A list of byte strings in one allocation: a vocabulary has hundreds of thousands.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Strings {
    bytes: Vec<u8>,
    /// Where each string ends in `bytes`; it starts where the one before it ends.
    ends: Vec<u32>,
}

/// A number that metadata can hold: how it is stored, and the array of its type.
pub(super) trait Number: Copy {
    /// Bytes of one in a file.
    const BYTES: usize;
    /// From its little-endian bytes; `bytes` has `BYTES` of them.
    fn from_le(bytes: &[u8]) -> Self;
    /// Appends its little-endian bytes.
    fn push_le(self, out: &mut Vec<u8>);
}

macro_rules! numbers {
    ($($kind:ident: $type:ty),*) => {$(
        impl Number for $type {
            const BYTES: usize = size_of::<$type>();

            fn from_le(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("the caller gives BYTES bytes"))
            }

            fn push_le(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }

        impl From<$type> for Value {
            fn from(number: $type) -> Self {
                Self::$kind(number)
            }
        }

        impl From<Vec<$type>> for Value {
            fn from(numbers: Vec<$type>) -> Self {
                Self::Array(Array::$kind(numbers.into()))
            }
        }
    )*};
}
numbers!(U8: u8, I8: i8, U16: u16, I16: i16, U32: u32, I32: i32, U64: u64, I64: i64,
         F32: f32, F64: f64);

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.as_bytes().into())
    }
}

impl From<Vec<bool>> for Value {
    fn from(flags: Vec<bool>) -> Self {
        Self::Array(Array::Bool(flags.into()))
    }
}

impl From<Strings> for Value {
    fn from(strings: Strings) -> Self {
        Self::Array(Array::Strings(strings))
    }
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// The type that a model file calls `id`.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u32 == id)
    }

    /// Its number in a model file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// Whether its values are whole numbers.
    pub fn is_integer(self) -> bool {
        !matches!(
            self,
            Self::F32 | Self::F64 | Self::Bool | Self::String | Self::Array
        )
    }

    /// Its name in messages: `u32`, `string`, `array`.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }

    /// The fewest bytes that a value of this type takes in a file.
    pub(super) fn bytes_min(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }
}

impl Value {
    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Self::U8(_) => Kind::U8,
            Self::I8(_) => Kind::I8,
            Self::U16(_) => Kind::U16,
            Self::I16(_) => Kind::I16,
            Self::U32(_) => Kind::U32,
            Self::I32(_) => Kind::I32,
            Self::U64(_) => Kind::U64,
            Self::I64(_) => Kind::I64,
            Self::F32(_) => Kind::F32,
            Self::F64(_) => Kind::F64,
            Self::Bool(_) => Kind::Bool,
            Self::String(_) => Kind::String,
            Self::Array(_) => Kind::Array,
        }
    }

    /// The value of any integer type.
    pub fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(x) => x.into(),
            Self::I8(x) => x.into(),
            Self::U16(x) => x.into(),
            Self::I16(x) => x.into(),
            Self::U32(x) => x.into(),
            Self::I32(x) => x.into(),
            Self::U64(x) => x.into(),
            Self::I64(x) => x.into(),
            _ => return None,
        })
    }

    /// Its type in messages, with the items' type of an array: `u32`, `array of string`.
    pub fn type_name(&self) -> String {
        match self {
            Self::Array(array) => format!("array of {}", array.kind().name()),
            _ => self.kind().name().into(),
        }
    }
}

impl Array {
    /// The type of its items.
    pub fn kind(&self) -> Kind {
        match self {
            Self::U8(_) => Kind::U8,
            Self::I8(_) => Kind::I8,
            Self::U16(_) => Kind::U16,
            Self::I16(_) => Kind::I16,
            Self::U32(_) => Kind::U32,
            Self::I32(_) => Kind::I32,
            Self::U64(_) => Kind::U64,
            Self::I64(_) => Kind::I64,
            Self::F32(_) => Kind::F32,
            Self::F64(_) => Kind::F64,
            Self::Bool(_) => Kind::Bool,
            Self::Strings(_) => Kind::String,
            Self::Arrays(_) => Kind::Array,
        }
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(items) => items.len(),
            Self::I8(items) => items.len(),
            Self::U16(items) => items.len(),
            Self::I16(items) => items.len(),
            Self::U32(items) => items.len(),
            Self::I32(items) => items.len(),
            Self::U64(items) => items.len(),
            Self::I64(items) => items.len(),
            Self::F32(items) => items.len(),
            Self::F64(items) => items.len(),
            Self::Bool(items) => items.len(),
            Self::Strings(items) => items.len(),
            Self::Arrays(items) => items.len(),
        }
    }

    /// Whether it has no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every item converted, if they are integers; the inner `Err` holds the first that does not
    /// fit.
    pub(super) fn integers<T: TryFrom<i128>>(&self) -> Option<Result<Result<Vec<T>, i128>>> {
        fn convert<S: Copy + Into<i128>, T: TryFrom<i128>>(
            items: &[S],
        ) -> Result<Result<Vec<T>, i128>> {
            let mut all = Vec::new();
            let room = all.try_reserve_exact(items.len());
            room.map_err(|_| no_memory(items.len()))?;
            for &item in items {
                match T::try_from(item.into()) {
                    Ok(item) => all.push(item),
                    Err(_) => return Ok(Err(item.into())),
                }
            }
            Ok(Ok(all))
        }
        Some(match self {
            Self::U8(items) => convert(items),
            Self::I8(items) => convert(items),
            Self::U16(items) => convert(items),
            Self::I16(items) => convert(items),
            Self::U32(items) => convert(items),
            Self::I32(items) => convert(items),
            Self::U64(items) => convert(items),
            Self::I64(items) => convert(items),
            _ => return None,
        })
    }
}

impl Strings {
    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// String number `i`, as stored.
    pub fn get(&self, i: usize) -> Option<&[u8]> {
        let end = *self.ends.get(i)? as usize;
        let start = i
            .checked_sub(1)
            .map_or(0, |before| self.ends[before] as usize);
        Some(&self.bytes[start..end])
    }

    /// All strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.get(i).expect("i is below the length"))
    }

    /// Room for `strings` more; running out of memory is an error.
    pub(super) fn reserve(&mut self, strings: usize) -> Result<()> {
        self.ends
            .try_reserve_exact(strings)
            .map_err(|_| no_memory(strings))
    }

    /// Appends the string that `read` appends to the bytes before it.
    pub(super) fn push_with(
        &mut self,
        read: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        read(&mut self.bytes)?;
        let end = u32::try_from(self.bytes.len());
        self.ends
            .push(end.map_err(|_| no_memory(self.bytes.len()))?);
        Ok(())
    }

    /// Gives back what growing reserved in excess, if there is memory for the move.
    pub(super) fn shrink(&mut self) {
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(self.bytes.len()).is_ok() {
            bytes.extend_from_slice(&self.bytes);
            self.bytes = bytes;
        }
    }
}

impl<S: AsRef<[u8]>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut all = Self::default();
        for string in strings {
            all.bytes.extend_from_slice(string.as_ref());
            let end = u32::try_from(all.bytes.len());
            all.ends
                .push(end.expect("lists made in memory stay below 4 GiB"));
        }
        all
    }
}

impl fmt::Debug for Strings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(String::from_utf8_lossy))
            .finish()
    }
}

/// Numbers and flags in full, strings quoted and cut, arrays as their type and length.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U8(x) => x.fmt(f),
            Self::I8(x) => x.fmt(f),
            Self::U16(x) => x.fmt(f),
            Self::I16(x) => x.fmt(f),
            Self::U32(x) => x.fmt(f),
            Self::I32(x) => x.fmt(f),
            Self::U64(x) => x.fmt(f),
            Self::I64(x) => x.fmt(f),
            Self::F32(x) => x.fmt(f),
            Self::F64(x) => x.fmt(f),
            Self::Bool(x) => x.fmt(f),
            Self::String(text) => f.write_str(&quoted(text)),
            Self::Array(array) => write!(f, "[{}; {}]", array.kind().name(), array.len()),
        }
    }
}

/// Bytes of a file as they may stand in a message: quoted, control characters escaped, cut.
pub(super) fn quoted(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 80;
    let shown = &bytes[..bytes.len().min(SHOWN_MAX)];
    let dots = if shown.len() < bytes.len() { "..." } else { "" };
    format!("'{}{dots}'", String::from_utf8_lossy(shown).escape_debug())
}

/// The error of a vector that could not grow by `items`.
pub(super) fn no_memory(items: usize) -> Error {
    Error::new(
        Code::OutOfMemory,
        "",
        format!("no memory for {items} items of metadata"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_numbers_of_the_format() {
        for id in 0..13 {
            assert_eq!(Kind::from_id(id).unwrap().id(), id);
        }
        assert_eq!(Kind::from_id(13), None);
        assert_eq!(
            (Kind::Bool.id(), Kind::Array.id(), Kind::F64.id()),
            (7, 9, 12)
        );
    }

    #[test]
    fn strings_lie_one_behind_the_other() {
        let strings: Strings = ["ab", "", "c"].into_iter().collect();
        assert_eq!(strings.iter().collect::<Vec<_>>(), [&b"ab"[..], b"", b"c"]);
        assert_eq!((strings.len(), strings.get(3)), (3, None));
    }

    #[test]
    fn messages_show_hostile_bytes_harmlessly() {
        assert_eq!(quoted(b"a\n\x1b\xff"), "'a\\n\\u{1b}\u{fffd}'");
        assert_eq!(quoted(&[b'x'; 100]).len(), 80 + 5);
        assert_eq!(Value::from(vec![1u16, 2]).to_string(), "[u16; 2]");
        assert_eq!(Value::from("hi").to_string(), "'hi'");
    }
}
