//! The weights by their names in the file, each checked against the [`Spec`] when it is taken.

use std::collections::HashSet;

use crate::budget::{Budget, Buffer};
use crate::error::{Code, Error, Result};
use crate::gguf::{Gguf, TensorInfo};
use crate::model::spec::Spec;
use crate::ops::matmul::Linear;
use crate::ops::rope::Frequencies;
use crate::tensor::{self, Matrix};

/// All weights of a model.
#[derive(Debug)]
pub struct Weights {
    /// (vocab, dim)
    pub embedding: Matrix,
    /// One entry a layer.
    pub layers: Vec<Layer>,
    /// (dim)
    pub output_norm: Buffer<f32>,
    /// (vocab, dim); the embedding again where the file ties them.
    pub output: Linear,
    /// Angles of the position embedding.
    pub frequencies: Frequencies,
}

/// The weights of a layer.
#[derive(Debug)]
pub struct Layer {
    /// (dim)
    pub attention_norm: Buffer<f32>,
    /// (heads * k_dim, dim)
    pub q: Linear,
    /// (kv_heads * k_dim, dim)
    pub k: Linear,
    /// (kv_heads * v_dim, dim)
    pub v: Linear,
    /// (dim, heads * v_dim)
    pub attention_out: Linear,
    /// (dim)
    pub ffn_norm: Buffer<f32>,
    /// (hidden, dim)
    pub gate: Linear,
    /// (hidden, dim)
    pub up: Linear,
    /// (dim, hidden)
    pub down: Linear,
}

/// Tensors that carry nothing the engine does not compute itself.
const IGNORED: &[&str] = &["attn_rot_embd.weight"];

/// The name of the embedding, whose rows are the vocabulary.
const EMBEDDING: &str = "token_embd.weight";

/// Rows of the embedding.
pub fn vocab(gguf: &Gguf) -> Result<usize> {
    let rows = gguf
        .tensor(EMBEDDING)
        .ok_or_else(|| missing(EMBEDDING))?
        .dims[1];
    usize::try_from(rows).map_err(|_| {
        let message = format!("expected a vocabulary, found {rows} rows");
        Error::new(Code::Format, format!("tensor '{EMBEDDING}'"), message)
    })
}

impl Weights {
    /// Takes all tensors of the file; norms and biases are decoded into memory of `budget`. One
    /// that is missing, has another shape, or is not part of the model is an error.
    pub fn load(gguf: &Gguf, spec: &Spec, budget: &Budget) -> Result<Self> {
        let mut file = File {
            gguf,
            budget,
            taken: HashSet::new(),
        };
        let tensors = gguf.tensors().len();
        let taken = file.taken.try_reserve(tensors);
        taken.map_err(|_| no_memory(tensors))?;
        let embedding = file.matrix(EMBEDDING, spec.vocab, spec.dim)?;
        let mut layers = Vec::new();
        let room = layers.try_reserve_exact(spec.layers);
        room.map_err(|_| no_memory(spec.layers))?;
        for i in 0..spec.layers {
            layers.push(Layer::load(&mut file, spec, i)?);
        }
        let output_norm = file.vector("output_norm.weight", spec.dim)?;
        let output = match file.find("output.weight") {
            Some(_) => file.linear("output", spec.vocab, spec.dim)?,
            None => Linear {
                weight: embedding.clone(),
                bias: None,
            },
        };
        let factors = match file.find("rope_freqs.weight") {
            Some(tensor) => Some(positive(tensor, spec.rope.dims / 2, budget)?),
            None => None,
        };
        file.check_all_taken()?;
        let frequencies = Frequencies::new(&spec.rope, factors.as_deref());
        Ok(Self {
            embedding,
            layers,
            output_norm,
            output,
            frequencies,
        })
    }
}

impl Layer {
    fn load(file: &mut File<'_>, spec: &Spec, layer: usize) -> Result<Self> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let kv = |dim: usize| spec.kv_heads * dim;
        Ok(Self {
            attention_norm: file.vector(&name("attn_norm.weight"), spec.dim)?,
            q: file.linear(&name("attn_q"), spec.q_width(), spec.dim)?,
            k: file.linear(&name("attn_k"), kv(spec.k_dim), spec.dim)?,
            v: file.linear(&name("attn_v"), kv(spec.v_dim), spec.dim)?,
            attention_out: file.linear(&name("attn_output"), spec.dim, spec.attended_width())?,
            ffn_norm: file.vector(&name("ffn_norm.weight"), spec.dim)?,
            gate: file.linear(&name("ffn_gate"), spec.hidden, spec.dim)?,
            up: file.linear(&name("ffn_up"), spec.hidden, spec.dim)?,
            down: file.linear(&name("ffn_down"), spec.dim, spec.hidden)?,
        })
    }
}

/// The file's tensors, and which of them were taken.
struct File<'a> {
    gguf: &'a Gguf,
    budget: &'a Budget,
    taken: HashSet<&'a str>,
}

impl<'a> File<'a> {
    fn find(&mut self, name: &str) -> Option<&'a TensorInfo> {
        let tensor = self.gguf.tensor(name)?;
        self.taken.insert(&tensor.name);
        Some(tensor)
    }

    fn tensor(&mut self, name: &str) -> Result<&'a TensorInfo> {
        self.find(name).ok_or_else(|| missing(name))
    }

    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix> {
        Matrix::new(self.tensor(name)?, rows, columns)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Buffer<f32>> {
        tensor::vector(self.tensor(name)?, len, self.budget)
    }

    fn linear(&mut self, name: &str, rows: usize, columns: usize) -> Result<Linear> {
        let weight = self.matrix(&format!("{name}.weight"), rows, columns)?;
        let bias = self.find(&format!("{name}.bias"));
        let bias = bias
            .map(|bias| tensor::vector(bias, rows, self.budget))
            .transpose()?;
        Ok(Linear { weight, bias })
    }

    fn check_all_taken(&self) -> Result<()> {
        let stray = self.gguf.tensors().iter().find(|tensor| {
            let name: &str = &tensor.name;
            !self.taken.contains(name) && !IGNORED.iter().any(|ignored| name.ends_with(ignored))
        });
        let Some(stray) = stray else {
            return Ok(());
        };
        let message = "not part of this architecture as far as this build knows it";
        Err(Error::new(
            Code::Unsupported,
            format!("tensor '{}'", stray.name),
            message,
        ))
    }
}

fn no_memory(items: usize) -> Error {
    let message = format!("no memory for a list of {items}");
    Error::new(Code::OutOfMemory, "weights", message)
}

fn missing(name: &str) -> Error {
    let message = "expected by the hyperparameters, not found in the file";
    Error::new(Code::Format, format!("tensor '{name}'"), message)
}

/// The factors that a file gives for its frequencies.
fn positive(tensor: &TensorInfo, len: usize, budget: &Budget) -> Result<Buffer<f32>> {
    let factors = tensor::vector(tensor, len, budget)?;
    match factors
        .iter()
        .find(|factor| !(factor.is_finite() && **factor > 0.0))
    {
        None => Ok(factors),
        Some(bad) => {
            let message = format!("expected finite factors above 0, found {bad}");
            Err(Error::new(
                Code::Format,
                format!("tensor '{}'", tensor.name),
                message,
            ))
        }
    }
}
