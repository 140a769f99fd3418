//! `lightgpt inspect`: what a model file holds, and the memory that running it needs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Map, Value as Json, json};

use lightgpt::control::Control;
use lightgpt::error::Error;
use lightgpt::gguf::{Array, Gguf, LoadOptions, Source, Value};
use lightgpt::model::{MemoryEstimate, Model, OpenOptions};
use lightgpt::quant::Format;
use lightgpt::session::CHUNK_TOKENS;

use crate::arguments::Kv;
use crate::output::{self, Failure, bytes, standard};

const EXAMPLES: &str = "\
A file that cannot be run, of an unknown architecture say, is shown all the same, with the reason in
place of the memory. With --json, texts that are not UTF-8 have U+FFFD in the wrong places, and
numbers that are not finite are null.

Examples:
  lightgpt inspect models/tales-4m-q8_0.gguf
  lightgpt inspect models/tales-4m-q8_0.gguf --context 128 --kv f32
  lightgpt inspect models/tales-4m-q8_0.gguf --json";

/// Shows a model file: metadata, tensors, types, sizes, memory needed
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The model: a GGUF file
    model: PathBuf,
    /// Print JSON, with all metadata in full
    #[arg(long)]
    json: bool,
    /// Tokens of the session that memory is estimated for; 0: as many as the model can attend over
    #[arg(long, value_name = "N", default_value_t = 0)]
    context: usize,
    /// How that session keeps keys and values
    #[arg(long, value_enum, default_value_t = Kv::F16)]
    kv: Kv,
}

/// A file, with what is needed to run it or the reason why it cannot be run.
enum Opened {
    Model(Arc<Model>),
    File(Box<Gguf>, Error),
}

/// Memory for a session of `context` tokens.
struct Memory {
    context: usize,
    parts: [(&'static str, u64); 5],
}

/// Writes the description to standard output.
pub fn perform(arguments: &Arguments) -> Result<(), Failure> {
    let opened = open(&arguments.model)?;
    let (gguf, memory) = match &opened {
        Opened::Model(model) => (model.gguf(), memory(model, arguments)?),
        Opened::File(gguf, reason) => (&**gguf, Err(reason.to_string())),
    };
    match arguments.json {
        true => output::json(&to_json(gguf, memory)),
        false => print(gguf, memory),
    }
}

fn open(path: &Path) -> Result<Opened, Failure> {
    let (options, control) = (OpenOptions::default(), &mut Control::none());
    let reason = match Model::open(Source::Path(path), &options, control) {
        Ok(model) => return Ok(Opened::Model(model)),
        Err(reason) => reason,
    };
    let file = Gguf::open(Source::Path(path), &LoadOptions::default(), control);
    let file = file.map_err(|error| Failure::opening(path, error))?;
    Ok(Opened::File(Box::new(file), reason))
}

fn memory(model: &Model, arguments: &Arguments) -> Result<Result<Memory, String>, Failure> {
    let context_max = model.network()?.spec.context;
    let context = match arguments.context {
        0 => context_max,
        context => context,
    };
    if context > context_max {
        let message = format!("--context: expected at most {context_max}, found {context}");
        return Err(Failure::Usage(message));
    }
    let rows = CHUNK_TOKENS.min(context);
    let estimate = model.memory_estimate(context, arguments.kv.into(), rows)?;
    let MemoryEstimate {
        weights_mapped,
        weights_copied,
        kv,
        scratch,
        logits,
    } = estimate;
    let parts = [
        ("weights_mapped", weights_mapped),
        ("weights_copied", weights_copied),
        ("keys_and_values", kv),
        ("scratch", scratch),
        ("logits", logits),
    ];
    Ok(Ok(Memory { context, parts }))
}

impl Memory {
    fn total(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| bytes).sum()
    }
}

fn print(gguf: &Gguf, memory: Result<Memory, String>) -> Result<(), Failure> {
    let mut out = standard();
    write!(out, "{}", gguf.inspect())?;
    writeln!(out, "parameters: {}", parameters(gguf))?;
    match memory {
        Ok(memory) => {
            let (context, total) = (memory.context, bytes(memory.total()));
            writeln!(out, "memory for {context} tokens: {total}")?;
            for (name, size) in memory.parts.iter().filter(|(_, size)| *size > 0) {
                writeln!(out, "  {}: {}", name.replace('_', " "), bytes(*size))?;
            }
        }
        Err(reason) => writeln!(out, "cannot be run: {reason}")?,
    }
    Ok(out.flush()?)
}

fn parameters(gguf: &Gguf) -> u64 {
    gguf.tensors().iter().map(|tensor| tensor.values()).sum()
}

fn to_json(gguf: &Gguf, memory: Result<Memory, String>) -> Json {
    let metadata: Map<String, Json> = gguf
        .metadata()
        .iter()
        .map(|(key, value)| (key.to_string(), value_json(value)))
        .collect();
    let tensors: Vec<Json> = gguf.tensors().iter().map(tensor_json).collect();
    let (memory, reason) = match memory {
        Ok(memory) => (memory_json(&memory), Json::Null),
        Err(reason) => (Json::Null, Json::String(reason)),
    };
    json!({
        "version": gguf.version(),
        "bytes": gguf.file_bytes(),
        "files": gguf.parts(),
        "parameters": parameters(gguf),
        "metadata": metadata,
        "tensors": tensors,
        "types": types_json(gguf),
        "memory": memory,
        "cannot_be_run": reason,
    })
}

fn memory_json(memory: &Memory) -> Json {
    let mut json = Map::new();
    json.insert("context".into(), memory.context.into());
    json.insert("total".into(), memory.total().into());
    for (name, bytes) in memory.parts {
        json.insert(name.into(), bytes.into());
    }
    Json::Object(json)
}

fn tensor_json(tensor: &lightgpt::gguf::TensorInfo) -> Json {
    json!({
        "name": &*tensor.name,
        "type": tensor.format.name(),
        "dims": tensor.dims[..tensor.dimensions as usize],
        "bytes": tensor.bytes.len(),
        "offset": tensor.offset,
        "file": tensor.part + 1,
    })
}

/// Tensors and bytes of each type that is there.
fn types_json(gguf: &Gguf) -> Json {
    let types = Format::all().filter_map(|format| {
        let of_format = gguf.tensors().iter().filter(|t| t.format == format);
        let sizes: Vec<usize> = of_format.map(|tensor| tensor.bytes.len()).collect();
        let json = json!({"tensors": sizes.len(), "bytes": sizes.iter().sum::<usize>()});
        (!sizes.is_empty()).then(|| (format.name().to_string(), json))
    });
    Json::Object(types.collect())
}

fn value_json(value: &Value) -> Json {
    match value {
        Value::U8(x) => (*x).into(),
        Value::I8(x) => (*x).into(),
        Value::U16(x) => (*x).into(),
        Value::I16(x) => (*x).into(),
        Value::U32(x) => (*x).into(),
        Value::I32(x) => (*x).into(),
        Value::U64(x) => (*x).into(),
        Value::I64(x) => (*x).into(),
        Value::F32(x) => float_json(*x),
        Value::F64(x) => (*x).into(),
        Value::Bool(x) => (*x).into(),
        Value::String(text) => text_json(text),
        Value::Array(array) => array_json(array),
    }
}

/// The file's limits bound how deep arrays lie in each other.
fn array_json(array: &Array) -> Json {
    match array {
        Array::U8(items) => json!(items),
        Array::I8(items) => json!(items),
        Array::U16(items) => json!(items),
        Array::I16(items) => json!(items),
        Array::U32(items) => json!(items),
        Array::I32(items) => json!(items),
        Array::U64(items) => json!(items),
        Array::I64(items) => json!(items),
        Array::F32(items) => items.iter().map(|&x| float_json(x)).collect(),
        Array::F64(items) => json!(items),
        Array::Bool(items) => json!(items),
        Array::Strings(items) => items.iter().map(text_json).collect(),
        Array::Arrays(items) => items.iter().map(array_json).collect(),
    }
}

fn text_json(text: &[u8]) -> Json {
    String::from_utf8_lossy(text).into()
}

/// With as many digits as tell it from other f32 values, not as many as an f64 has.
fn float_json(x: f32) -> Json {
    x.to_string().parse::<f64>().map_or(Json::Null, Json::from)
}
