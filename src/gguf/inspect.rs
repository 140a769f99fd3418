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
            "GGUF version {}, {} bytes in {}, {}, {}",
            gguf.version(),
            gguf.file_bytes(),
            counted(gguf.parts(), "file"),
            counted(keys, "key"),
            counted(tensors, "tensor"),
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
                    "{}: {}, {} bytes",
                    format.name(),
                    counted(count, "tensor"),
                    bytes.sum::<usize>()
                )?;
            }
        }
        Ok(())
    }
}

/// `1 file`, `2 files`.
fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}
