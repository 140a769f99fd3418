//! Writes GGUF version 3; what it writes, [`Gguf::open`](super::Gguf::open) reads.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;

use super::directory::tensor_bytes;
use super::limits::{ALIGNMENT_DEFAULT, DIMENSIONS_MAX, KEY_BYTES_MAX, NAME_BYTES_MAX};
use super::parse::{ALIGNMENT_KEY, MAGIC, is_alignment};
use super::value::{Array, Number, Value, quoted};
use crate::error::{Code, Error, Result};
use crate::quant::Format;

const VERSION: u32 = 3;

/// Collects metadata and tensors, then writes them in the order they came.
#[derive(Debug, Clone)]
pub struct Writer<'a> {
    alignment: u32,
    entries: Vec<(String, Value)>,
    tensors: Vec<Tensor<'a>>,
    names: HashSet<String>,
}

#[derive(Debug, Clone)]
struct Tensor<'a> {
    name: String,
    format: Format,
    dims: Vec<u64>,
    bytes: Cow<'a, [u8]>,
}

impl Default for Writer<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Writer<'a> {
    /// An empty model, aligned to 32 bytes.
    pub fn new() -> Self {
        Self {
            alignment: ALIGNMENT_DEFAULT,
            entries: Vec::new(),
            tensors: Vec::new(),
            names: HashSet::new(),
        }
    }

    /// Sets `key` to `value`; a key that is there already keeps its place. `general.alignment`
    /// sets what tensor data is aligned to.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an empty or overlong key, or an alignment that is not a u32, a power
    /// of two within [`limits`](super::limits).
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> Result<&mut Self> {
        let value = value.into();
        let refuse = |message: &str| Err(refused("key", key, message.into()));
        if key.is_empty() || key.len() as u64 > KEY_BYTES_MAX || key.contains('\0') {
            return refuse("expected a name within the limits and without NUL");
        }
        if key == ALIGNMENT_KEY {
            match value {
                Value::U32(alignment) if is_alignment(alignment) => self.alignment = alignment,
                _ => return refuse("expected a u32, a power of two within the limits"),
            }
        }
        match self.entries.iter_mut().find(|entry| entry.0 == key) {
            Some(entry) => entry.1 = value,
            None => self.entries.push((key.into(), value)),
        }
        Ok(self)
    }

    /// Appends a tensor; `dims` innermost first.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a name that is empty, overlong or used before, for dimensions that a
    /// reader would refuse, and for a number of bytes that they do not make.
    pub fn tensor(
        &mut self,
        name: &str,
        format: Format,
        dims: &[u64],
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> Result<&mut Self> {
        let bytes = bytes.into();
        let refuse = |message: String| Err(refused("tensor", name, message));
        if name.is_empty() || name.len() as u64 > NAME_BYTES_MAX || name.contains('\0') {
            let expected = format!("expected a name of 1 to {NAME_BYTES_MAX} bytes without NUL");
            return refuse(expected);
        }
        if dims.is_empty() || dims.len() > DIMENSIONS_MAX as usize {
            return refuse(format!(
                "expected 1 to {DIMENSIONS_MAX} dimensions, found {dims:?}"
            ));
        }
        match tensor_bytes(format, dims) {
            Err(message) => return refuse(message),
            Ok(expected) if expected != bytes.len() as u64 => {
                return refuse(format!("expected {expected} bytes, found {}", bytes.len()));
            }
            Ok(_) => {}
        }
        if !self.names.insert(name.into()) {
            return refuse("the name is there twice".into());
        }
        self.tensors.push(Tensor {
            name: name.into(),
            format,
            dims: dims.into(),
            bytes,
        });
        Ok(self)
    }

    /// The file in memory.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes)
            .expect("a vector takes everything");
        bytes
    }

    /// Writes the file.
    ///
    /// # Errors
    /// `IO` when `out` fails.
    pub fn write_to(&self, out: &mut impl io::Write) -> Result<()> {
        self.write(out)
            .map_err(|e| Error::new(Code::Io, "", format!("writing the model: {e}")))
    }

    fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        let head = self.head();
        out.write_all(&head)?;
        if self.tensors.is_empty() {
            return Ok(());
        }
        let zeros = vec![0; self.alignment as usize];
        out.write_all(&zeros[..self.padding(head.len() as u64) as usize])?;
        for tensor in &self.tensors {
            out.write_all(&tensor.bytes)?;
            out.write_all(&zeros[..self.padding(tensor.bytes.len() as u64) as usize])?;
        }
        Ok(())
    }

    /// Header, metadata and tensor directory, without the padding behind them.
    fn head(&self) -> Vec<u8> {
        let mut head = MAGIC.to_vec();
        VERSION.push_le(&mut head);
        (self.tensors.len() as u64).push_le(&mut head);
        (self.entries.len() as u64).push_le(&mut head);
        for (key, value) in &self.entries {
            push_string(key.as_bytes(), &mut head);
            value.kind().id().push_le(&mut head);
            push_value(value, &mut head);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            push_string(tensor.name.as_bytes(), &mut head);
            (tensor.dims.len() as u32).push_le(&mut head);
            tensor.dims.iter().for_each(|dim| dim.push_le(&mut head));
            tensor.format.id().push_le(&mut head);
            u64::push_le(offset, &mut head);
            let bytes = tensor.bytes.len() as u64;
            offset += bytes + self.padding(bytes);
        }
        head
    }

    /// Bytes from `len` to the next multiple of the alignment.
    fn padding(&self, len: u64) -> u64 {
        len.next_multiple_of(self.alignment.into()) - len
    }
}

fn refused(what: &str, name: &str, message: String) -> Error {
    let place = format!("{what} {}", quoted(name.as_bytes()));
    Error::new(Code::InvalidArgument, place, message)
}

fn push_string(bytes: &[u8], out: &mut Vec<u8>) {
    (bytes.len() as u64).push_le(out);
    out.extend_from_slice(bytes);
}

fn push_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::U8(x) => x.push_le(out),
        Value::I8(x) => x.push_le(out),
        Value::U16(x) => x.push_le(out),
        Value::I16(x) => x.push_le(out),
        Value::U32(x) => x.push_le(out),
        Value::I32(x) => x.push_le(out),
        Value::U64(x) => x.push_le(out),
        Value::I64(x) => x.push_le(out),
        Value::F32(x) => x.push_le(out),
        Value::F64(x) => x.push_le(out),
        Value::Bool(flag) => u8::from(*flag).push_le(out),
        Value::String(bytes) => push_string(bytes, out),
        Value::Array(array) => push_array(array, out),
    }
}

fn push_array(array: &Array, out: &mut Vec<u8>) {
    fn all<T: Number>(items: &[T], out: &mut Vec<u8>) {
        items.iter().for_each(|&item| item.push_le(out));
    }
    array.kind().id().push_le(out);
    (array.len() as u64).push_le(out);
    match array {
        Array::U8(items) => all(items, out),
        Array::I8(items) => all(items, out),
        Array::U16(items) => all(items, out),
        Array::I16(items) => all(items, out),
        Array::U32(items) => all(items, out),
        Array::I32(items) => all(items, out),
        Array::U64(items) => all(items, out),
        Array::I64(items) => all(items, out),
        Array::F32(items) => all(items, out),
        Array::F64(items) => all(items, out),
        Array::Bool(flags) => out.extend(flags.iter().map(|&flag| u8::from(flag))),
        Array::Strings(strings) => strings.iter().for_each(|string| push_string(string, out)),
        Array::Arrays(arrays) => arrays.iter().for_each(|array| push_array(array, out)),
    }
}
