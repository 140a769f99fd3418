//! The architectures: `general.architecture` and the file's keys become a [`Spec`].
//!
//! This is the one place that knows models by name; a row of [`TABLE`] and its function are all an
//! architecture has. `docs/adding.md` tells how to add one.

mod decoders;
mod keys;

use crate::error::{Code, Error, Result};
use crate::gguf::{Gguf, Metadata};
use crate::model::spec::{Spec, require};

use keys::Keys;

/// An architecture: its name in model files, and how its keys are read.
struct Architecture {
    name: &'static str,
    spec: fn(&Keys<'_>) -> Result<Spec>,
}

const ARCHITECTURE: &str = "general.architecture";

/// All architectures.
const TABLE: &[Architecture] = &{
    use decoders as d;
    const fn row(name: &'static str, spec: fn(&Keys<'_>) -> Result<Spec>) -> Architecture {
        Architecture { name, spec }
    }
    [
        row("llama", d::llama),
        row("bloom", d::bloom),
        row("falcon", d::falcon),
        row("gemma", d::gemma),
        row("gemma2", d::gemma2),
        row("gemma3", d::gemma3),
        row("gpt2", d::gpt2),
        row("gptneox", d::gptneox),
        row("mpt", d::mpt),
        row("olmo", d::olmo),
        row("olmo2", d::olmo2),
        row("phi2", d::phi2),
        row("phi3", d::phi3),
        row("qwen2", d::qwen2),
        row("qwen3", d::qwen3),
        row("stablelm", d::stablelm),
        row("starcoder2", d::starcoder2),
    ]
};

/// The names of all architectures that there is a row for.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|row| row.name)
}

/// The file's architecture as it names it.
pub fn name(metadata: &Metadata) -> Result<&str> {
    metadata.required(ARCHITECTURE, Metadata::str)
}

/// The file's [`Spec`]; `vocab` finds the number of rows of its embedding, and is asked only when
/// the architecture is known.
pub fn spec(gguf: &Gguf, vocab: impl FnOnce() -> Result<usize>) -> Result<Spec> {
    let metadata = gguf.metadata();
    let name = name(metadata)?;
    let Some(row) = TABLE.iter().find(|row| row.name == name) else {
        let known = names().collect::<Vec<_>>().join(", ");
        let message = format!("unknown architecture '{name}'; this build knows: {known}");
        let place = metadata.place(ARCHITECTURE);
        return Err(Error::new(Code::Unsupported, place, message));
    };
    let keys = Keys::new(gguf, name, vocab()?);
    let vocab = keys.or("vocab_size", keys.vocab)?;
    let expected = format!("{}, the rows of the embedding", keys.vocab);
    let agrees = vocab == keys.vocab;
    require(agrees, || keys.place("vocab_size"), expected, vocab)?;
    (row.spec)(&keys)?.checked(|name| keys.place(name))
}
