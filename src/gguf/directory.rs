//! One entry of the tensor directory, and the rules that its numbers must keep.

use super::cursor::reserved;
use super::value::quoted;
use crate::error::{Code, Error, Result};
use crate::quant::Format;

/// A tensor as the directory of its file describes it.
#[derive(Debug)]
pub(super) struct Descriptor {
    pub(super) name: Box<str>,
    pub(super) format: Format,
    pub(super) dimensions: u32,
    /// Innermost first; those beyond `dimensions` are 1.
    pub(super) dims: [u64; 4],
    /// Counts from the start of the tensor data.
    pub(super) offset: u64,
    pub(super) bytes: u64,
    /// Offset of this entry in its file, for messages.
    pub(super) at: u64,
}

impl Descriptor {
    /// Checks the shape: no zero, whole blocks in a row, a size that can be counted.
    pub(super) fn new(
        name: Box<str>,
        format: Format,
        dimensions: u32,
        dims: [u64; 4],
        offset: u64,
        at: u64,
    ) -> Result<Self> {
        let bytes = tensor_bytes(format, &dims).map_err(|message| {
            Error::new(Code::Format, format!("entry at offset {at}"), message)
        })?;
        Ok(Self {
            name,
            format,
            dimensions,
            dims,
            offset,
            bytes,
            at,
        })
    }

    fn refuse(&self, message: String) -> Error {
        let place = format!(
            "tensor {}: entry at offset {}",
            quoted(self.name.as_bytes()),
            self.at
        );
        Error::new(Code::Format, place, message)
    }
}

/// Bytes of a tensor of these dimensions, or what is wrong with them.
pub(super) fn tensor_bytes(format: Format, dims: &[u64]) -> Result<u64, String> {
    if dims.contains(&0) {
        return Err(format!("expected dimensions above 0, found {dims:?}"));
    }
    let block = format.block_len() as u64;
    if !dims[0].is_multiple_of(block) {
        let (row, name) = (dims[0], format.name());
        return Err(format!(
            "expected rows of whole {name} blocks of {block}, found {row} values"
        ));
    }
    dims.iter()
        .try_fold(1, |product: u64, &dim| product.checked_mul(dim))
        .and_then(|values| format.bytes(values))
        .ok_or_else(|| format!("expected a size below 2^64 bytes, found dimensions {dims:?}"))
}

/// Holds every tensor against the alignment, the input's `input_bytes` and all other tensors.
pub(super) fn check_extents(
    tensors: &[Descriptor],
    data_start: u64,
    alignment: u32,
    input_bytes: u64,
) -> Result<()> {
    for tensor in tensors {
        let (offset, bytes) = (tensor.offset, tensor.bytes);
        if !offset.is_multiple_of(alignment.into()) {
            let message = format!("expected an offset aligned to {alignment}, found {offset}");
            return Err(tensor.refuse(message));
        }
        let end = data_start
            .checked_add(offset)
            .and_then(|start| start.checked_add(bytes));
        if end.is_none_or(|end| end > input_bytes) {
            return Err(tensor.refuse(format!(
                "expected {bytes} bytes at offset {offset} of the tensor data, which starts at \
                 {data_start}; the file has {input_bytes} bytes"
            )));
        }
    }
    let mut order: Vec<&Descriptor> = reserved(tensors.len())?;
    order.extend(tensors);
    // In file order where offsets are equal; a stable sort would need memory of its own.
    order.sort_unstable_by_key(|tensor| (tensor.offset, tensor.at));
    for pair in order.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        let end = before.offset + before.bytes;
        if end > after.offset {
            let before = quoted(before.name.as_bytes());
            let offset = after.offset;
            return Err(after.refuse(format!(
                "expected no overlap, found offset {offset} inside {before}, which ends at {end}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &str, dims: [u64; 4], offset: u64) -> Descriptor {
        Descriptor::new(name.into(), Format::F32, 1, dims, offset, 7).unwrap()
    }

    #[test]
    fn sizes_are_checked() {
        assert_eq!(tensor_bytes(Format::Q4_0, &[64, 3]), Ok(2 * 18 * 3));
        assert!(
            tensor_bytes(Format::Q4_0, &[33, 32])
                .unwrap_err()
                .contains("found 33")
        );
        assert!(
            tensor_bytes(Format::F32, &[4, 0])
                .unwrap_err()
                .contains("above 0")
        );
        assert!(tensor_bytes(Format::I8, &[u64::MAX, 2]).is_err());
        assert!(tensor_bytes(Format::F64, &[1 << 61]).is_err());
    }

    #[test]
    fn extents_are_checked() {
        let good = [at("b", [8, 1, 1, 1], 32), at("a", [8, 1, 1, 1], 0)];
        assert_eq!(check_extents(&good, 64, 32, 128), Ok(()));
        let e = check_extents(&good, 64, 32, 127).unwrap_err().to_string();
        assert!(
            e.starts_with("tensor 'b': entry at offset 7: expected 32 bytes"),
            "{e}"
        );
        let e = check_extents(&good, 64, 64, 128).unwrap_err().to_string();
        assert!(e.contains("aligned to 64, found 32"), "{e}");
        let twins = [at("b", [9, 1, 1, 1], 0), at("a", [8, 1, 1, 1], 32)];
        let e = check_extents(&twins, 64, 32, 128).unwrap_err().to_string();
        assert!(e.contains("inside 'b', which ends at 36"), "{e}");
        let far = [at("a", [8, 1, 1, 1], u64::MAX - 31)];
        assert!(check_extents(&far, 64, 32, u64::MAX).is_err());
    }
}
