//! What a model file holds, as text for people.

use std::fmt;

use super::Gguf;
use crate::quant::Format;

/// Prints a model's metadata, tensors and sizes; made by [`Gguf::inspect`].
#[derive(Debug)]
pub struct Inspection<'a>(pub(super) &'a Gguf);

impl fmt::Display for Inspection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gguf = self.0;
        let (keys, tensors) = (gguf.metadata().len(), gguf.tensors().len());
        writeln!(
            f,
            "GGUF version {}, {} bytes in {} files, {keys} keys, {tensors} tensors",
            gguf.version(),
            gguf.file_bytes(),
            gguf.parts()
        )?;
        for (key, value) in gguf.metadata().iter() {
            writeln!(
                f,
                "  {}: {} = {value}",
                key.escape_debug(),
                value.kind().name()
            )?;
        }
        for tensor in gguf.tensors() {
            let (bytes, offset) = (tensor.bytes.len(), tensor.offset);
            writeln!(
                f,
                "  {tensor}: {bytes} bytes at {offset} of file {}",
                tensor.part + 1
            )?;
        }
        for format in Format::all() {
            let of_format = || {
                gguf.tensors()
                    .iter()
                    .filter(|tensor| tensor.format == format)
            };
            let (count, bytes) = (of_format().count(), of_format().map(|t| t.bytes.len()));
            if count > 0 {
                writeln!(
                    f,
                    "{}: {count} tensors, {} bytes",
                    format.name(),
                    bytes.sum::<usize>()
                )?;
            }
        }
        Ok(())
    }
}
