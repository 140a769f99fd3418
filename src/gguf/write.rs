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
    len: u64,
    /// `None`: they come when the file is written.
    bytes: Option<Cow<'a, [u8]>>,
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
        self.append(name, format, dims, Some(bytes.into()))
    }

    /// Appends a tensor whose bytes come when the file is written, by [`Writer::write_with`].
    ///
    /// # Errors
    /// As [`Writer::tensor`].
    pub fn promise(&mut self, name: &str, format: Format, dims: &[u64]) -> Result<&mut Self> {
        self.append(name, format, dims, None)
    }

    fn append(
        &mut self,
        name: &str,
        format: Format,
        dims: &[u64],
        bytes: Option<Cow<'a, [u8]>>,
    ) -> Result<&mut Self> {
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
        let len = match tensor_bytes(format, dims) {
            Err(message) => return refuse(message),
            Ok(len) => len,
        };
        if let Some(bytes) = bytes.as_ref().filter(|bytes| bytes.len() as u64 != len) {
            return refuse(format!("expected {len} bytes, found {}", bytes.len()));
        }
        if !self.names.insert(name.into()) {
            return refuse("the name is there twice".into());
        }
        self.tensors.push(Tensor {
            name: name.into(),
            format,
            dims: dims.into(),
            len,
            bytes,
        });
        Ok(self)
    }

    /// Bytes of all tensors.
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.len).sum()
    }

    /// The file in memory.
    ///
    /// # Panics
    /// If bytes of a tensor were only promised.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes)
            .expect("a vector takes everything, and every tensor is here");
        bytes
    }

    /// Writes the file.
    ///
    /// # Errors
    /// `IO` when `out` fails, or bytes of a tensor were only promised.
    pub fn write_to(&self, out: &mut impl io::Write) -> Result<()> {
        self.write_with(out, &mut |_, _| Ok(()))
    }

    /// Writes the file; `promised` gets the name of each tensor whose bytes were promised, in
    /// order, and must write as many as its dimensions make.
    ///
    /// # Errors
    /// `IO` when `out` or `promised` fails, or a promise is not kept.
    pub fn write_with(
        &self,
        out: &mut impl io::Write,
        promised: &mut dyn FnMut(&str, &mut dyn io::Write) -> io::Result<()>,
    ) -> Result<()> {
        self.write(out, promised)
            .map_err(|e| Error::new(Code::Io, "", format!("writing the model: {e}")))
    }

    fn write(
        &self,
        out: &mut impl io::Write,
        promised: &mut dyn FnMut(&str, &mut dyn io::Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let head = self.head();
        out.write_all(&head)?;
        if self.tensors.is_empty() {
            return Ok(());
        }
        let zeros = vec![0; self.alignment as usize];
        out.write_all(&zeros[..self.padding(head.len() as u64) as usize])?;
        for tensor in &self.tensors {
            match &tensor.bytes {
                Some(bytes) => out.write_all(bytes)?,
                None => tensor.write_promised(out, promised)?,
            }
            out.write_all(&zeros[..self.padding(tensor.len) as usize])?;
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
            offset += tensor.len + self.padding(tensor.len);
        }
        head
    }

    /// Bytes from `len` to the next multiple of the alignment.
    fn padding(&self, len: u64) -> u64 {
        len.next_multiple_of(self.alignment.into()) - len
    }
}

impl Tensor<'_> {
    fn write_promised(
        &self,
        out: &mut impl io::Write,
        promised: &mut dyn FnMut(&str, &mut dyn io::Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut counted = Counted { out, bytes: 0 };
        promised(&self.name, &mut counted)?;
        if counted.bytes == self.len {
            return Ok(());
        }
        let (name, expected, found) = (&self.name, self.len, counted.bytes);
        let message = format!("tensor '{name}': expected {expected} bytes, found {found}");
        Err(io::Error::other(message))
    }
}

/// Counts what goes through it.
struct Counted<'a, W> {
    out: &'a mut W,
    bytes: u64,
}

impl<W: io::Write> io::Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn refused(what: &str, name: &str, message: String) -> Error {
    let place = format!("{what} {}", quoted(name.as_bytes()));
    Error::new(Code::InvalidArgument, place, message)
}

pub(super) fn push_string(bytes: &[u8], out: &mut Vec<u8>) {
    (bytes.len() as u64).push_le(out);
    out.extend_from_slice(bytes);
}

pub(super) fn push_value(value: &Value, out: &mut Vec<u8>) {
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
