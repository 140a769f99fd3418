//! `lightgpt make-model`: a model of a real shape with random weights, to measure with.

mod shapes;
mod target;
mod types;

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser};

use lightgpt::control::Control;
use lightgpt::error::Error;
use lightgpt::gguf::{Gguf, LoadOptions, Source, Strings, Value, Writer};
use lightgpt::model::architectures;
use lightgpt::quant::{Format, random_blocks};
use lightgpt::random::Random;

use crate::arguments::is_standard;
use crate::output::{Failure, bytes, complain, standard};
use crate::progress::Progress;

use shapes::{Experts, QkNorms, SCORED_TOKENIZER, SHAPES, Shape};
use target::Target;
use types::{Place, Role, TYPES, Type};

const EXAMPLES: &str = "\
The model says nothing of sense, but costs what a real one of its shape and type costs: sizes,
formats and the mixture of formats are those of published files, and all numbers stay in range. Its
tokenizer has as many tokens as the shape asks for, none of them meant. Without --out it goes
into the folder lightgpt/models of $XDG_CACHE_HOME, or of ~/.cache if that is not set or not an
absolute path, and its path is printed; a model that is there already, made with the same options,
is not made again. With --out, only a model that this command has made is replaced.

Examples:
  lightgpt make-model tinyllama-1.1b --type Q4_0 --layers 1
  lightgpt make-model tinyllama-1.1b --type Q4_K_M --layers 1 --out small.gguf";

/// Makes a model of a real shape with random weights, to measure with
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Sizes of the model
    #[arg(ignore_case = true, value_parser = shapes())]
    shape: String,
    /// Storage format of the weights, as file names give it
    #[arg(long = "type", value_name = "TYPE", ignore_case = true, value_parser = type_names())]
    kind: String,
    /// The file to write, in place of one in the cache
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Another seed gives other weights
    #[arg(long, value_name = "N", default_value_t = SEED)]
    seed: u64,
    /// So many layers instead of the shape's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    layers: Option<u16>,
    /// Tokens that the model attends over at most, instead of the shape's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=CONTEXT_MAX))]
    context: Option<u32>,
    /// Make it again if it is there already; with --out, replace whatever file is there
    #[arg(long)]
    force: bool,
}

/// The longest context that models may have.
const CONTEXT_MAX: i64 = 1 << 24;

fn shapes() -> PossibleValuesParser {
    let name = |shape: &Shape| PossibleValue::new(shape.name).hide(shape.hidden_name);
    SHAPES.iter().map(name).collect::<Vec<_>>().into()
}

/// The shapes that users are told of.
pub fn visible_shapes() -> PossibleValuesParser {
    let visible = SHAPES.iter().filter(|shape| !shape.hidden_name);
    visible.map(|shape| shape.name).collect::<Vec<_>>().into()
}

fn type_names() -> PossibleValuesParser {
    TYPES.map(|row| row.name).into()
}

/// What is made: a file is a function of this.
struct Plan {
    shape: Shape,
    kind: Type,
    seed: u64,
}

/// A tensor in the making.
struct Tensor {
    name: String,
    format: Format,
    /// Innermost first.
    dims: Vec<u64>,
}

/// Makes the model, unless it is there.
pub fn perform(arguments: &Arguments) -> Result<(), Failure> {
    let plan = Plan::new(arguments);
    let path = match &arguments.out {
        Some(path) if is_standard(path) => {
            let message =
                "--out: expected a file, found '-': a model does not go to standard output";
            return Err(Failure::Usage(message.into()));
        }
        Some(path) => path.clone(),
        None => cache()?.join(plan.file_name()),
    };
    let target = Target::new(&path)?;
    let found = target.is_there().then(|| description(&path));
    if arguments.force || found != Some(plan.description()) {
        // In the cache all files are ours, also those that are not whole.
        let is_ours = |found: &String| arguments.out.is_none() || found.starts_with(DESCRIPTION);
        if !arguments.force && !found.is_none_or(|found| is_ours(&found)) {
            return Err(Failure::Failed(format!(
                "{}: expected no file, or a model made by this command, found another file; \
                --force replaces it",
                path.display()
            )));
        }
        target.write(|out| write(&plan, &path, out))?;
    }
    plan.warn();
    if arguments.out.is_none() {
        let mut out = standard();
        writeln!(out, "{}", path.display())?;
        out.flush()?;
    }
    Ok(())
}

/// The folder of models, made if it is not there.
fn cache() -> Result<PathBuf, Failure> {
    let variable = |name| env::var_os(name).map(PathBuf::from);
    let root = variable("XDG_CACHE_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| Some(variable("HOME")?.join(".cache")));
    let Some(root) = root else {
        let message = "--out: expected a file, as neither XDG_CACHE_HOME nor HOME is set";
        return Err(Failure::Usage(message.into()));
    };
    let folder = root.join("lightgpt").join("models");
    fs::create_dir_all(&folder).map_err(|error| Failure::file(&folder, &error))?;
    target::remove_parts(&folder, None);
    Ok(folder)
}

/// What the file at `path` says of itself; nothing, if it is no whole model.
fn description(path: &Path) -> String {
    let (options, control) = (LoadOptions::default(), &mut Control::none());
    let gguf = Gguf::open(Source::Path(path), &options, control);
    let description = gguf.ok().and_then(|gguf| {
        let description = gguf.metadata().str("general.description").ok()?;
        description.map(String::from)
    });
    description.unwrap_or_default()
}

/// Writes the model to `out`; errors are those of the file at `path`.
fn write(plan: &Plan, path: &Path, out: &mut impl Write) -> Result<(), Failure> {
    let tensors = plan.tensors();
    let mut writer = Writer::new();
    plan.set_metadata(&mut writer)?;
    for tensor in &tensors {
        writer.promise(&tensor.name, tensor.format, &tensor.dims)?;
    }
    let total = writer.tensor_bytes();
    let (mut progress, mut done, mut next) = (Progress::new(), 0, 0);
    let written = writer.write_with(out, &mut |_, out| {
        let tensor = &tensors[next];
        next += 1;
        tensor.write(plan.seed, next as u64, out, &mut |bytes_written| {
            done += bytes_written;
            progress.show(|| format!("{} of {}", bytes(done), bytes(total)));
        })
    });
    written.map_err(|error| Failure::model(path, error))
}

/// How the descriptions of all models begin that are made here.
const DESCRIPTION: &str = "random weights: shape ";
/// The seed that file names do not tell.
const SEED: u64 = 1;

impl Plan {
    fn new(arguments: &Arguments) -> Self {
        let mut shape = *SHAPES
            .iter()
            .find(|shape| shape.name.eq_ignore_ascii_case(&arguments.shape))
            .expect("the parser takes only names of the table");
        if let Some(layers) = arguments.layers {
            shape.layers = layers.into();
        }
        shape.context = arguments.context.unwrap_or(shape.context);
        let kind = TYPES
            .iter()
            .find(|row| row.name.eq_ignore_ascii_case(&arguments.kind))
            .expect("the parser takes only names of the table");
        Self {
            shape,
            kind: *kind,
            seed: arguments.seed,
        }
    }

    /// Its name in the cache: shape and type, and what differs from the published shape.
    fn file_name(&self) -> String {
        let Shape {
            name,
            layers,
            context,
            ..
        } = self.shape;
        let published = SHAPES.iter().find(|shape| shape.name == name);
        let mut file = String::from(name);
        if published.is_none_or(|shape| shape.layers != layers) {
            file += &format!("-{layers}-layers");
        }
        if published.is_none_or(|shape| shape.context != context) {
            file += &format!("-{context}-context");
        }
        if self.seed != SEED {
            file += &format!("-seed-{}", self.seed);
        }
        format!("{file}-{}.gguf", self.kind.name)
    }

    /// What a file of this plan says of itself.
    fn description(&self) -> String {
        let Shape {
            name,
            layers,
            context,
            ..
        } = self.shape;
        let (kind, seed) = (self.kind.name, self.seed);
        format!("{DESCRIPTION}{name}, {layers} layers, context {context}, type {kind}, seed {seed}")
    }

    /// Tells of a model that can be made, but not run.
    fn warn(&self) {
        let architecture = self.shape.architecture;
        if !architectures().any(|known| known == architecture) {
            complain(&format!(
                "this build cannot run the model: it does not know the architecture '{architecture}'"
            ));
        }
    }

    fn set_metadata(&self, writer: &mut Writer<'_>) -> Result<(), Error> {
        let shape = &self.shape;
        let architecture = shape.architecture;
        writer.set("general.architecture", architecture)?;
        writer.set("general.name", shape.name)?;
        writer.set("general.description", &*self.description())?;
        writer.set("general.file_type", self.kind.id)?;
        let values: [(&str, Value); 13] = [
            ("vocab_size", (shape.vocab as u32).into()),
            ("context_length", shape.context.into()),
            ("embedding_length", (shape.dim as u32).into()),
            ("block_count", (shape.layers as u32).into()),
            ("feed_forward_length", (shape.hidden as u32).into()),
            ("attention.head_count", (shape.heads as u32).into()),
            ("attention.head_count_kv", (shape.kv_heads as u32).into()),
            ("attention.key_length", (shape.head_dim as u32).into()),
            ("attention.value_length", (shape.head_dim as u32).into()),
            (
                "attention.layer_norm_rms_epsilon",
                shape.norm_epsilon.into(),
            ),
            ("rope.dimension_count", (shape.head_dim as u32).into()),
            ("rope.freq_base", shape.rope_base.into()),
            ("rope.scaling.type", "none".into()),
        ];
        for (key, value) in values {
            writer.set(&format!("{architecture}.{key}"), value)?;
        }
        if let Some(Experts { count, used }) = shape.experts {
            for (key, value) in [
                ("expert_count", count),
                ("expert_used_count", used),
                ("expert_feed_forward_length", shape.hidden),
            ] {
                writer.set(&format!("{architecture}.{key}"), value as u32)?;
            }
        }
        set_vocabulary(writer, shape.vocab)
    }

    fn tensors(&self) -> Vec<Tensor> {
        let shape = &self.shape;
        let (dim, hidden) = (shape.dim, shape.hidden);
        let (q, kv) = (
            shape.heads * shape.head_dim,
            shape.kv_heads * shape.head_dim,
        );
        let embedding = match shape.tied {
            true => Role::Output,
            false => Role::Other,
        };
        let qk_norms = match shape.qk_norms {
            QkNorms::None => None,
            QkNorms::OfHeads => Some([shape.head_dim; 2]),
            QkNorms::OfRows => Some([q, kv]),
        };
        let mut all = vec![self.matrix("token_embd", embedding, 0, dim, shape.vocab)];
        for layer in 0..shape.layers {
            let matrix = |part: &str, role, columns, rows| {
                self.matrix(&format!("blk.{layer}.{part}"), role, layer, columns, rows)
            };
            let norm = |part: &str, len| norm(&format!("blk.{layer}.{part}"), len);
            all.push(norm("attn_norm", dim));
            all.push(matrix("attn_q", Role::Other, dim, q));
            all.push(matrix("attn_k", Role::Other, dim, kv));
            all.push(matrix("attn_v", Role::Values, dim, kv));
            if let Some([queries, keys]) = qk_norms {
                all.push(norm("attn_q_norm", queries));
                all.push(norm("attn_k_norm", keys));
            }
            all.push(matrix("attn_output", Role::AttentionOut, q, dim));
            all.push(norm("ffn_norm", dim));
            let experts = shape.experts.map(|experts| experts.count);
            let network = |part: &str, role, columns, rows| {
                let suffix = if experts.is_some() { "_exps" } else { "" };
                let mut tensor = matrix(&format!("{part}{suffix}"), role, columns, rows);
                tensor.dims.extend(experts);
                tensor
            };
            all.extend(experts.map(|count| Tensor {
                name: format!("blk.{layer}.ffn_gate_inp.weight"),
                format: Format::F32,
                dims: vec![dim, count],
            }));
            all.push(network("ffn_gate", Role::Other, dim, hidden));
            all.push(network("ffn_up", Role::Other, dim, hidden));
            all.push(network("ffn_down", Role::Down, hidden, dim));
        }
        all.push(norm("output_norm", dim));
        if !shape.tied {
            all.push(self.matrix("output", Role::Output, 0, dim, shape.vocab));
        }
        all
    }

    fn matrix(&self, name: &str, role: Role, layer: usize, columns: u64, rows: u64) -> Tensor {
        let place = Place {
            role,
            layer,
            layers: self.shape.layers,
            group: self.shape.heads / self.shape.kv_heads,
            columns,
        };
        Tensor {
            name: format!("{name}.weight"),
            format: self.kind.format_at(place),
            dims: vec![columns, rows],
        }
    }
}

fn norm(name: &str, len: u64) -> Tensor {
    Tensor {
        name: format!("{name}.weight"),
        format: Format::F32,
        dims: vec![len],
    }
}

impl Tensor {
    /// Writes its bytes, random by `seed` and its `number`; norms are ones. Tells `written` how
    /// many bytes each piece had.
    fn write(
        &self,
        seed: u64,
        number: u64,
        out: &mut dyn Write,
        written: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        let columns = self.dims[0];
        let row_bytes = self
            .format
            .bytes(columns)
            .expect("the writer has checked it") as usize;
        if self.dims.len() == 1 {
            return out.write_all(&1f32.to_le_bytes().repeat(columns as usize));
        }
        let rows = self.dims[1..].iter().product();
        // A row of it times activations of size 1 gives about 1.
        let deviation = 1.0 / (columns as f32).sqrt();
        let mut row = vec![0; row_bytes];
        for i in 0..rows {
            let step = number << 32 | i;
            random_blocks(self.format, deviation, Random { seed, step }, &mut row)
                .map_err(io::Error::other)?;
            out.write_all(&row)?;
            written(row_bytes as u64);
        }
        Ok(())
    }
}

/// A vocabulary of scored tokens: three special ones, the bytes, then all words of one letter, of
/// two, and so on, each with and without a space in front; shorter ones have higher scores.
fn set_vocabulary(writer: &mut Writer<'_>, vocab: u64) -> Result<(), Error> {
    const NORMAL: i32 = 1;
    const UNKNOWN: i32 = 2;
    const CONTROL: i32 = 3;
    const BYTE: i32 = 6;
    let special = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)];
    let special = special.map(|(text, kind)| (text.to_string(), kind));
    let bytes = (0..256).map(|byte| (format!("<0x{byte:02X}>"), BYTE));
    let words = (0..).map(|i: u64| match i % 2 {
        0 => (format!("\u{2581}{}", word(i / 2)), NORMAL),
        _ => (word(i / 2 + 1), NORMAL),
    });
    let tokens = special.into_iter().chain(bytes).chain(words);
    let (texts, kinds): (Vec<String>, Vec<i32>) = tokens.take(vocab as usize).unzip();
    let scores: Vec<f32> = (0..vocab).map(|i| -(i as f32)).collect();
    let prefix = "tokenizer.ggml";
    let values: [(&str, Value); 8] = [
        ("model", SCORED_TOKENIZER.into()),
        ("tokens", Strings::from_iter(texts).into()),
        ("scores", scores.into()),
        ("token_type", kinds.into()),
        ("bos_token_id", 1u32.into()),
        ("eos_token_id", 2u32.into()),
        ("unknown_token_id", 0u32.into()),
        ("add_bos_token", true.into()),
    ];
    for (key, value) in values {
        writer.set(&format!("{prefix}.{key}"), value)?;
    }
    Ok(())
}

/// Number `i` of all words of small letters: the empty one, a to z, aa, ab, ...
fn word(mut i: u64) -> String {
    let mut letters = Vec::new();
    while i > 0 {
        letters.push(b'a' + ((i - 1) % 26) as u8);
        i = (i - 1) / 26;
    }
    letters
        .iter()
        .rev()
        .map(|&letter| char::from(letter))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_all_different() {
        let first: Vec<String> = [0, 1, 26, 27, 28, 702, 703].map(word).into();
        assert_eq!(first, ["", "a", "z", "aa", "ab", "zz", "aaa"]);
    }
}
