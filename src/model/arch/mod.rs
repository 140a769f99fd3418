//! The architectures: `general.architecture` and the file's keys become a [`Spec`].
//!
//! This is the one place that knows models by name; a row of [`TABLE`] and its function are all an
//! architecture has. `docs/adding.md` tells how to add one.

mod encoder;
mod experts;
mod keys;
mod layer_norm;
mod recurrent;
mod rms;

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
    const fn row(name: &'static str, spec: fn(&Keys<'_>) -> Result<Spec>) -> Architecture {
        Architecture { name, spec }
    }
    [
        row("llama", experts::llama),
        row("apertus", rms::apertus),
        row("arcee", rms::arcee),
        row("bert", encoder::bert),
        row("bloom", layer_norm::bloom),
        row("cohere2", layer_norm::cohere2),
        row("command-r", layer_norm::command_r),
        row("deepseek2", experts::deepseek2),
        row("dots1", experts::dots1),
        row("ernie4_5", rms::llama),
        row("ernie4_5-moe", experts::ernie4_5_moe),
        row("exaone4", rms::exaone4),
        row("falcon", layer_norm::falcon),
        row("falcon-h1", recurrent::falcon_h1),
        row("gemma", rms::gemma),
        row("gemma-embedding", encoder::gemma_embedding),
        row("gemma2", rms::gemma2),
        row("gemma3", rms::gemma3),
        row("glm4", rms::glm4),
        row("glm4moe", experts::glm4moe),
        row("gpt-oss", experts::gpt_oss),
        row("gpt2", layer_norm::gpt2),
        row("gptneox", layer_norm::gptneox),
        row("granite", rms::granite),
        row("granitehybrid", recurrent::granite_hybrid),
        row("granitemoe", experts::granitemoe),
        row("hunyuan-dense", rms::hunyuan_dense),
        row("hunyuan-moe", experts::hunyuan_moe),
        row("internlm2", rms::llama),
        row("jina-bert-v2", encoder::jina_bert_v2),
        row("lfm2", recurrent::lfm2),
        row("lfm2moe", recurrent::lfm2moe),
        row("llama4", experts::llama4),
        row("mamba", recurrent::mamba),
        row("mamba2", recurrent::mamba2),
        row("minicpm", rms::minicpm),
        row("modern-bert", encoder::modern_bert),
        row("mpt", layer_norm::mpt),
        row("nemotron", layer_norm::nemotron),
        row("nomic-bert", encoder::nomic_bert),
        row("olmo", layer_norm::olmo),
        row("olmo2", rms::olmo2),
        row("olmoe", experts::olmoe),
        row("phi2", layer_norm::phi2),
        row("phi3", rms::phi3),
        row("qwen2", rms::qwen2),
        row("qwen2moe", experts::qwen2moe),
        row("qwen3", rms::qwen3),
        row("qwen35", recurrent::qwen35),
        row("qwen35moe", recurrent::qwen35moe),
        row("qwen3moe", experts::qwen3moe),
        row("qwen3next", recurrent::qwen3next),
        row("seed_oss", rms::qwen2),
        row("smollm3", rms::smollm3),
        row("stablelm", layer_norm::stablelm),
        row("starcoder2", layer_norm::starcoder2),
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
    let spec = (row.spec)(&keys)?;
    let causal = spec.is_causal();
    if keys.flag_or("attention.causal", causal)? != causal {
        let message = format!("expected {causal} of this architecture, found {}", !causal);
        let place = keys.place("attention.causal");
        return Err(Error::new(Code::Unsupported, place, message));
    }
    spec.checked(|name| keys.place(name))
}
