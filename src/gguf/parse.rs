//! The head of a GGUF file: header, metadata, tensor directory.
//!
//! Source: the GGUF specification, versions 2 and 3, which share one layout:
//!
//! ```text
//! magic "GGUF", u32 version, u64 tensors, u64 keys
//! keys    times: string key, u32 kind, value
//! tensors times: string name, u32 dimensions, u64 each dimension, u32 format, u64 offset
//! padding to general.alignment, then tensor data; offsets count from here
//! ```
//!
//! All numbers are little-endian; a string is a u64 length and its bytes.

use super::cursor::{Cursor, reserved};
use super::directory::{Descriptor, check_extents};
use super::limits::{
    ALIGNMENT_DEFAULT, ALIGNMENT_MAX, ARRAY_DEPTH_MAX, DIMENSIONS_MAX, KEY_BYTES_MAX, KEYS_MAX,
    NAME_BYTES_MAX, TENSORS_MAX,
};
use super::metadata::{Entry, Metadata};
use super::source::Input;
use super::value::{Array, Kind, Strings, Value, quoted};
use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::quant::Format;

/// The first bytes of every GGUF file.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";

/// The key that says what tensor data is aligned to.
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";

/// The fewest bytes of a key with its value, and of a tensor's descriptor.
const ENTRY_BYTES_MIN: u64 = 8 + 1 + 4 + 1;
const DESCRIPTOR_BYTES_MIN: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// What stands before the tensor data, checked.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) version: u32,
    pub(super) metadata: Metadata,
    /// In file order; every extent lies inside the input and overlaps no other.
    pub(super) tensors: Vec<Descriptor>,
    /// Offset in the input that tensor offsets count from.
    pub(super) data_start: u64,
}

impl Head {
    /// Parses and checks the head of `input`.
    pub(super) fn parse(input: &Input, control: &mut Control<'_>) -> Result<Self> {
        let mut cursor = Cursor::new(input, control)?;
        let version = version(&mut cursor)?;
        let tensors: u64 = cursor.number("tensor count")?;
        let keys: u64 = cursor.number("key count")?;
        limit(
            "key count",
            keys,
            KEYS_MAX,
            cursor.claim(keys, ENTRY_BYTES_MIN, "keys"),
        )?;
        let claimed = cursor.claim(tensors, DESCRIPTOR_BYTES_MIN, "tensor directory");
        limit("tensor count", tensors, TENSORS_MAX, claimed)?;

        let metadata = metadata(&mut cursor, keys)?;
        let alignment = alignment(&metadata)?;
        let count = cursor.claim(tensors, DESCRIPTOR_BYTES_MIN, "tensor directory")?;
        let mut tensors = reserved(count)?;
        for i in 0..count {
            tensors.push(descriptor(&mut cursor, i)?);
        }
        // The head's limit is far below 2^64: this cannot overflow.
        let data_start = cursor.position().next_multiple_of(alignment.into());
        check_extents(&tensors, data_start, alignment, input.len())?;
        Ok(Self {
            version,
            metadata,
            tensors,
            data_start,
        })
    }

    /// Offset in the input where the last tensor ends.
    pub(super) fn data_end(&self) -> u64 {
        let ends = self
            .tensors
            .iter()
            .map(|tensor| tensor.offset + tensor.bytes);
        self.data_start + ends.max().unwrap_or(0)
    }
}

/// A count that the bytes at hand allow, but this build does not.
fn limit(what: &str, found: u64, most: u64, claimed: Result<usize>) -> Result<()> {
    claimed?;
    if found <= most {
        return Ok(());
    }
    Err(Error::new(
        Code::Unsupported,
        what,
        format!("expected {most} at most, found {found}"),
    ))
}

fn version(cursor: &mut Cursor<'_, '_>) -> Result<u32> {
    let magic = cursor.number::<u32>("magic")?.to_le_bytes();
    if magic != MAGIC {
        let found = quoted(&magic);
        return Err(cursor.bad("magic", 4, format!("expected 'GGUF', found {found}")));
    }
    let version: u32 = cursor.number("version")?;
    let message = match version {
        2 | 3 => return Ok(version),
        0 => return Err(cursor.bad("version", 4, "expected 2 or 3, found 0".into())),
        1 => "GGUF version 1 is not supported: convert the model to version 3".into(),
        _ if matches!(version.swap_bytes(), 1..=3) => {
            "the file is big-endian, which is not supported: convert it to little-endian".into()
        }
        _ => format!("expected 2 or 3, found {version}"),
    };
    Err(Error::new(
        Code::Unsupported,
        "version at offset 4",
        message,
    ))
}

fn metadata(cursor: &mut Cursor<'_, '_>, count: u64) -> Result<Metadata> {
    let count = cursor.claim(count, ENTRY_BYTES_MIN, "keys")?;
    let mut entries = reserved(count)?;
    for i in 0..count {
        let offset = cursor.position();
        let key = name(cursor, "key", i, KEY_BYTES_MAX)?;
        let entry = kind(cursor).and_then(|kind| value(cursor, kind));
        let value = entry.map_err(|e| e.within(&format!("key {}", quoted(key.as_bytes()))))?;
        entries.push(Entry { key, value, offset });
    }
    Metadata::new(entries)?.map_err(|second| {
        let key = format!("key {}", quoted(second.key.as_bytes()));
        let message = format!("the key at offset {} is there twice", second.offset);
        Error::new(Code::Format, key, message)
    })
}

/// The name of key or tensor number `i`: not empty, UTF-8 without NUL (where C would end it),
/// `bytes_max` bytes at most.
fn name(cursor: &mut Cursor<'_, '_>, what: &str, i: usize, bytes_max: u64) -> Result<Box<str>> {
    let start = cursor.position();
    let bytes = (|| {
        let len: u64 = cursor.number("length of the name")?;
        let mut bytes = Vec::new();
        if len <= bytes_max {
            cursor.append(len, &mut bytes, "name")?;
        } else {
            // A length beyond the file is damage, one beyond the limit is a broken rule.
            cursor.claim(len, 1, "name")?;
            let message = format!("expected {bytes_max} bytes at most, found {len}");
            return Err(cursor.bad("length of the name", 8, message));
        }
        Ok(bytes)
    })();
    let bytes = bytes.map_err(|e| e.within(&format!("{what} number {i}")))?;
    let refuse = |message| {
        let place = format!("{what} number {i} at offset {start}");
        Err(Error::new(Code::Format, place, message))
    };
    match String::from_utf8(bytes) {
        Ok(name) if name.is_empty() => refuse("expected a name, found an empty one".to_string()),
        Ok(name) if name.contains('\0') => {
            let found = quoted(name.as_bytes());
            refuse(format!("expected a name without NUL, found {found}"))
        }
        Ok(name) => Ok(name.into()),
        Err(e) => refuse(format!("expected UTF-8, found {}", quoted(e.as_bytes()))),
    }
}

fn kind(cursor: &mut Cursor<'_, '_>) -> Result<Kind> {
    let id: u32 = cursor.number("value type")?;
    Kind::from_id(id)
        .ok_or_else(|| cursor.bad("value type", 4, format!("expected 0 to 12, found {id}")))
}

fn value(cursor: &mut Cursor<'_, '_>, kind: Kind) -> Result<Value> {
    const WHAT: &str = "value";
    Ok(match kind {
        Kind::U8 => Value::U8(cursor.number(WHAT)?),
        Kind::I8 => Value::I8(cursor.number(WHAT)?),
        Kind::U16 => Value::U16(cursor.number(WHAT)?),
        Kind::I16 => Value::I16(cursor.number(WHAT)?),
        Kind::U32 => Value::U32(cursor.number(WHAT)?),
        Kind::I32 => Value::I32(cursor.number(WHAT)?),
        Kind::U64 => Value::U64(cursor.number(WHAT)?),
        Kind::I64 => Value::I64(cursor.number(WHAT)?),
        Kind::F32 => Value::F32(cursor.number(WHAT)?),
        Kind::F64 => Value::F64(cursor.number(WHAT)?),
        Kind::Bool => Value::Bool(flags(cursor, 1)?[0]),
        Kind::String => {
            let len = cursor.number("length of the string")?;
            let mut bytes = Vec::new();
            cursor.append(len, &mut bytes, "string")?;
            Value::String(bytes.into())
        }
        Kind::Array => Value::Array(array(cursor, 1)?),
    })
}

/// An array at `depth`; the recursion ends at `ARRAY_DEPTH_MAX`, whatever the file says.
fn array(cursor: &mut Cursor<'_, '_>, depth: u32) -> Result<Array> {
    const WHAT: &str = "array";
    let kind = kind(cursor)?;
    let count: u64 = cursor.number("length of the array")?;
    Ok(match kind {
        Kind::U8 => Array::U8(cursor.numbers(count, WHAT)?),
        Kind::I8 => Array::I8(cursor.numbers(count, WHAT)?),
        Kind::U16 => Array::U16(cursor.numbers(count, WHAT)?),
        Kind::I16 => Array::I16(cursor.numbers(count, WHAT)?),
        Kind::U32 => Array::U32(cursor.numbers(count, WHAT)?),
        Kind::I32 => Array::I32(cursor.numbers(count, WHAT)?),
        Kind::U64 => Array::U64(cursor.numbers(count, WHAT)?),
        Kind::I64 => Array::I64(cursor.numbers(count, WHAT)?),
        Kind::F32 => Array::F32(cursor.numbers(count, WHAT)?),
        Kind::F64 => Array::F64(cursor.numbers(count, WHAT)?),
        Kind::Bool => Array::Bool(flags(cursor, count)?),
        Kind::String => Array::Strings(strings(cursor, count)?),
        Kind::Array if depth == ARRAY_DEPTH_MAX => {
            let message = format!("expected {ARRAY_DEPTH_MAX} levels of arrays at most");
            return Err(cursor.bad("nested array", 12, message));
        }
        Kind::Array => {
            let count = cursor.claim(count, kind.bytes_min(), WHAT)?;
            let mut arrays = reserved(count)?;
            for _ in 0..count {
                arrays.push(array(cursor, depth + 1)?);
            }
            Array::Arrays(arrays.into())
        }
    })
}

fn flags(cursor: &mut Cursor<'_, '_>, count: u64) -> Result<Box<[bool]>> {
    let bytes = cursor.numbers::<u8>(count, "bool")?;
    if let Some(i) = bytes.iter().position(|&byte| byte > 1) {
        let message = format!("expected 0 or 1, found {}", bytes[i]);
        return Err(cursor.bad("bool", (bytes.len() - i) as u64, message));
    }
    let mut flags = reserved(bytes.len())?;
    flags.extend(bytes.iter().map(|&byte| byte == 1));
    Ok(flags.into())
}

fn strings(cursor: &mut Cursor<'_, '_>, count: u64) -> Result<Strings> {
    let count = cursor.claim(count, Kind::String.bytes_min(), "array")?;
    let mut strings = Strings::default();
    strings.reserve(count)?;
    for i in 0..count {
        strings
            .push_with(|bytes| {
                let len = cursor.number("length of the string")?;
                cursor.append(len, bytes, "string")
            })
            .map_err(|e| e.within(&format!("item {i}")))?;
    }
    strings.shrink();
    Ok(strings)
}

/// `general.alignment`: a u32, a power of two up to `ALIGNMENT_MAX`.
fn alignment(metadata: &Metadata) -> Result<u32> {
    let refuse = |found: String| {
        let expected = format!("expected a u32, a power of two up to {ALIGNMENT_MAX}");
        Err(metadata.error(ALIGNMENT_KEY, format!("{expected}, found {found}")))
    };
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(ALIGNMENT_DEFAULT),
        Some(&Value::U32(alignment)) if is_alignment(alignment) => Ok(alignment),
        Some(Value::U32(alignment)) => refuse(alignment.to_string()),
        Some(other) => refuse(other.type_name()),
    }
}

/// Whether tensor data may be aligned to `alignment`.
pub(super) fn is_alignment(alignment: u32) -> bool {
    alignment.is_power_of_two() && alignment <= ALIGNMENT_MAX
}

/// Tensor number `i` of the directory.
fn descriptor(cursor: &mut Cursor<'_, '_>, i: usize) -> Result<Descriptor> {
    let at = cursor.position();
    let name = name(cursor, "tensor", i, NAME_BYTES_MAX)?;
    let shape = (|| {
        let dimensions: u32 = cursor.number("dimensions")?;
        if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
            let message = format!("expected 1 to {DIMENSIONS_MAX}, found {dimensions}");
            return Err(cursor.bad("dimensions", 4, message));
        }
        let mut dims = [1; DIMENSIONS_MAX as usize];
        for dim in &mut dims[..dimensions as usize] {
            *dim = cursor.number("dimension")?;
        }
        let id: u32 = cursor.number("format")?;
        let format = Format::from_id(id).ok_or_else(|| {
            cursor.bad(
                "format",
                4,
                format!("expected the number of a ggml type, found {id}"),
            )
        })?;
        Ok((dimensions, dims, format, cursor.number("offset")?))
    })();
    shape
        .and_then(|(dimensions, dims, format, offset)| {
            Descriptor::new(name.clone(), format, dimensions, dims, offset, at)
        })
        .map_err(|e| e.within(&format!("tensor {}", quoted(name.as_bytes()))))
}
