//! The storage formats of tensors: block layout, decoding, and the scalar dot products that define
//! what every kernel must return.

mod format;

pub use format::Format;
