//! What a model's file says: its metadata and its list of tensors.

use std::ffi::c_char;
use std::mem::offset_of;

use super::arguments::{Buffer, Out, invalid, name, size};
use super::guard::guard;
use super::model::{ModelObject, cut, lightgpt_model};
use super::objects::{enter, text_of};
use super::options::{OutStruct, Struct};
use super::status::LIGHTGPT_OK;
use crate::error::{Code, Error, Result};
use crate::gguf::Value;

/// What a tensor is.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_tensor_info {
    /// Set by the caller: sizeof(lightgpt_tensor_info).
    pub struct_size: u32,
    /// The storage format's number in the file.
    pub format: u32,
    /// Values along each dimension, the innermost first; 1 beyond `dimensions`.
    pub dims: [u64; 4],
    /// Number of dimensions, 1 to 4.
    pub dimensions: u32,
    /// The file that holds it, from 0.
    pub file: u32,
    /// Where its bytes begin in that file.
    pub offset: u64,
    /// Number of its bytes.
    pub bytes: u64,
    /// The storage format's name, such as "Q4_K", ending in a zero byte.
    pub format_name: [c_char; 16],
    /// The tensor's name, ending in a zero byte.
    pub name: [c_char; 72],
}

// SAFETY: as the trait asks.
unsafe impl Struct for lightgpt_tensor_info {
    const SIZE_MIN: usize = offset_of!(Self, name) + size_of::<[c_char; 72]>();
}

/// Gives the name of metadata key number `index`; the count is in lightgpt_model_info.
///
/// buf, cap, needed: see TEXT above. Any thread.
/// Errors: LIGHTGPT_NOT_FOUND (there are fewer keys), LIGHTGPT_BUFFER_TOO_SMALL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_metadata_key(
    model: *const lightgpt_model,
    index: u64,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
) -> i32 {
    let fill = |model: &ModelObject, out: &Buffer<u8>| {
        let index = size(index, "index")?;
        let found = model.model.gguf().metadata().iter().nth(index);
        let (key, _) = found.ok_or_else(|| none("index", format!("no key has number {index}")))?;
        out.fill(key.as_bytes())
    };
    // SAFETY: the header asks for a buffer of `cap` bytes and a place for its size.
    unsafe { text_of(model, buf, cap, needed, fill) }
}

/// Gives the value of a metadata key as text: strings as they are in the file, numbers in decimal,
/// flags as true or false, arrays as their type and length such as "[string; 32000]".
///
/// key: not NULL, ends in a zero byte. buf, cap, needed: see TEXT above. Any thread.
/// Errors: LIGHTGPT_NOT_FOUND (no such key), LIGHTGPT_BUFFER_TOO_SMALL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_metadata_text(
    model: *const lightgpt_model,
    key: *const c_char,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
) -> i32 {
    let fill = |model: &ModelObject, out: &Buffer<u8>| {
        // SAFETY: the header asks for a zero byte.
        match value(model, unsafe { name(key, "key") }?)? {
            Value::String(bytes) => out.fill(bytes),
            other => out.fill(other.to_string().as_bytes()),
        }
    };
    // SAFETY: the header asks for a buffer of `cap` bytes and a place for its size.
    unsafe { text_of(model, buf, cap, needed, fill) }
}

/// Gives the value of a metadata key that holds an integer (of any type, not negative) or a flag
/// (0 or 1).
///
/// key: not NULL, ends in a zero byte. value: not NULL. Any thread.
/// Errors: LIGHTGPT_NOT_FOUND (no such key), LIGHTGPT_INVALID_ARGUMENT (of another type).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_metadata_u64(
    model: *const lightgpt_model,
    key: *const c_char,
    value: *mut u64,
) -> i32 {
    // SAFETY: the header asks for the same.
    unsafe {
        number(
            model,
            key,
            value,
            "an integer that is not negative",
            |value| match value {
                Value::Bool(flag) => Some(u64::from(*flag)),
                other => other.integer()?.try_into().ok(),
            },
        )
    }
}

/// Gives the value of a metadata key that holds an integer of any type, or a flag (0 or 1).
///
/// Else as lightgpt_model_metadata_u64.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_metadata_i64(
    model: *const lightgpt_model,
    key: *const c_char,
    value: *mut i64,
) -> i32 {
    // SAFETY: the header asks for the same.
    unsafe {
        number(model, key, value, "a signed integer", |value| match value {
            Value::Bool(flag) => Some(i64::from(*flag)),
            other => other.integer()?.try_into().ok(),
        })
    }
}

/// Gives the value of a metadata key that holds a floating-point number.
///
/// Else as lightgpt_model_metadata_u64.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_metadata_f64(
    model: *const lightgpt_model,
    key: *const c_char,
    value: *mut f64,
) -> i32 {
    // SAFETY: the header asks for the same.
    unsafe {
        number(
            model,
            key,
            value,
            "a floating-point number",
            |value| match value {
                Value::F32(x) => Some(f64::from(*x)),
                Value::F64(x) => Some(*x),
                _ => None,
            },
        )
    }
}

/// Says what tensor number `index` is; the count is in lightgpt_model_info.
///
/// info: not NULL, initialised with LIGHTGPT_TENSOR_INFO_INIT. Any thread.
/// Errors: LIGHTGPT_NOT_FOUND (there are fewer tensors).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_tensor_describe(
    model: *const lightgpt_model,
    index: u64,
    info: *mut lightgpt_tensor_info,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a struct as large as it says.
        let out = unsafe { OutStruct::new(info, "info") }?;
        let model = enter(model)?;
        let found = model.model.gguf().tensors().get(size(index, "index")?);
        let tensor = found.ok_or_else(|| none("index", format!("no tensor has number {index}")))?;
        out.set(&lightgpt_tensor_info {
            struct_size: 0,
            format: tensor.format.id(),
            dims: tensor.dims,
            dimensions: tensor.dimensions,
            file: u32::try_from(tensor.part).unwrap_or(u32::MAX),
            offset: tensor.offset,
            bytes: tensor.bytes.len() as u64,
            format_name: cut(tensor.format.name()),
            name: cut(&tensor.name),
        });
        Ok(LIGHTGPT_OK)
    })
}

/// The body of the typed getters.
///
/// # Safety
/// As [`Out::new`] for `out` and [`name`] for `key`.
unsafe fn number<T>(
    model: *const lightgpt_model,
    key: *const c_char,
    out: *mut T,
    expected: &str,
    convert: impl FnOnce(&Value) -> Option<T>,
) -> i32 {
    guard(|| {
        // SAFETY: promised by the caller.
        let (out, key) = unsafe { (Out::new(out, "value")?, name(key, "key")?) };
        let model = enter(model)?;
        let value = value(&model, key)?;
        let wrong = || {
            invalid(
                key,
                format!("expected {expected}, found {}", value.type_name()),
            )
        };
        out.set(convert(value).ok_or_else(wrong)?);
        Ok(LIGHTGPT_OK)
    })
}

fn value<'a>(model: &'a ModelObject, key: &str) -> Result<&'a Value> {
    let found = model.model.gguf().metadata().get(key);
    found.ok_or_else(|| none(key, "the model has no such key"))
}

fn none(place: &str, message: impl Into<Box<str>>) -> Error {
    Error::new(Code::NotFound, place, message)
}
