//! What a model file may at most claim. Every claim is also held against the bytes that are really
//! there; these limits keep memory and time small for files that are large on purpose.

/// Bytes before the tensor data: metadata and tensor directory of one file.
pub const HEAD_BYTES_MAX: u64 = 256 << 20;

/// Metadata keys of one file.
pub const KEYS_MAX: u64 = 1 << 16;

/// Bytes of a metadata key (the specification's 2^16 - 1).
pub const KEY_BYTES_MAX: u64 = (1 << 16) - 1;

/// Arrays inside arrays: 1 is an array of plain values.
pub const ARRAY_DEPTH_MAX: u32 = 4;

/// Tensors of one model, all parts together.
pub const TENSORS_MAX: u64 = 1 << 17;

/// Bytes of a tensor's name.
pub const NAME_BYTES_MAX: u64 = 64;

/// Dimensions of a tensor; scalars (0 dimensions) are refused.
pub const DIMENSIONS_MAX: u32 = 4;

/// `general.alignment` when the file does not say.
pub const ALIGNMENT_DEFAULT: u32 = 32;

/// The largest `general.alignment`: a large page.
pub const ALIGNMENT_MAX: u32 = 2 << 20;

/// Parts of a split model: each holds a file open.
pub const PARTS_MAX: u32 = 1024;
