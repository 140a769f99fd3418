//! Taking tensors of a file by their names: each is checked, and none may be left over.

use std::collections::HashSet;
use std::ops::Range;

use crate::budget::{Budget, Buffer, Tag};
use crate::error::{Code, Error, Result};
use crate::gguf::{Gguf, TensorInfo};
use crate::model::spec::{QkNorm, Spec, require};
use crate::ops::matmul::{self, Linear};
use crate::ops::norm::{HeadNorm, Norm, NormKind};
use crate::ops::rope::{Factors, Frequencies};
use crate::tensor::{self, Matrix};

/// Tensors that carry nothing the engine does not compute itself.
const IGNORED: &[&str] = &["attn_rot_embd.weight"];

/// The file's tensors, and which of them were taken.
pub struct File<'a> {
    pub gguf: &'a Gguf,
    pub spec: &'a Spec,
    pub budget: &'a Budget,
    taken: HashSet<&'a str>,
}

impl<'a> File<'a> {
    pub fn new(gguf: &'a Gguf, spec: &'a Spec, budget: &'a Budget) -> Result<Self> {
        let (tensors, mut taken) = (gguf.tensors().len(), HashSet::new());
        let room = taken.try_reserve(tensors);
        room.map_err(|_| no_memory(tensors))?;
        Ok(Self {
            gguf,
            spec,
            budget,
            taken,
        })
    }

    pub fn find(&mut self, name: &str) -> Option<&'a TensorInfo> {
        let tensor = self.gguf.tensor(name)?;
        self.taken.insert(&tensor.name);
        Some(tensor)
    }

    pub fn has(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    pub fn tensor(&mut self, name: &str) -> Result<&'a TensorInfo> {
        self.find(name).ok_or_else(|| missing(name))
    }

    pub fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix> {
        Matrix::new(self.tensor(name)?, rows, columns)
    }

    pub fn vector(&mut self, name: &str, len: usize) -> Result<Buffer<f32>> {
        tensor::vector(self.tensor(name)?, len, self.budget)
    }

    /// A tensor of two dimensions as f32.
    pub fn values(&mut self, name: &str, shape: [usize; 2]) -> Result<Buffer<f32>> {
        tensor::values(self.tensor(name)?, shape, self.budget)
    }

    pub fn linear(&mut self, name: &str, rows: usize, columns: usize) -> Result<Linear> {
        Ok(Linear {
            weight: self.matrix(&format!("{name}.weight"), rows, columns)?,
            factors: matmul::Factors::One(self.factor(name)?),
            bias: self.bias(name, rows)?,
        })
    }

    /// Some rows of a matrix, then others, each a matrix of their own.
    pub fn parts(
        &mut self,
        name: &str,
        [rows, columns]: [usize; 2],
        ranges: impl Iterator<Item = Range<usize>>,
    ) -> Result<Vec<Linear>> {
        let whole = self.matrix(&format!("{name}.weight"), rows, columns)?;
        let factor = self.factor(name)?;
        let part = |range| Linear {
            factors: matmul::Factors::One(factor),
            ..Linear::new(whole.part(range))
        };
        Ok(ranges.map(part).collect())
    }

    /// What the products of a matrix are multiplied with; 1 if the file does not say.
    fn factor(&mut self, name: &str) -> Result<f32> {
        let factors = self.factors(name, 1)?;
        Ok(factors.map_or(1.0, |factors| factors[0]))
    }

    /// The same of `count` matrices. What stands beside it in some files, the scale of inputs that are
    /// rounded to four bits, says nothing about ours.
    fn factors(&mut self, name: &str, count: usize) -> Result<Option<Buffer<f32>>> {
        self.find(&format!("{name}.input_scale"));
        let Some(tensor) = self.find(&format!("{name}.scale")) else {
            return Ok(None);
        };
        let factors = tensor::vector(tensor, count, self.budget)?;
        let bad = factors.iter().find(|factor| !factor.is_finite());
        let place = || format!("tensor '{}'", tensor.name);
        require(bad.is_none(), place, "finite factors", bad.unwrap_or(&0.0))?;
        Ok(Some(factors))
    }

    /// `count` matrices.
    pub fn stack(
        &mut self,
        name: &str,
        count: usize,
        [rows, columns]: [usize; 2],
    ) -> Result<Linear> {
        let tensor = self.tensor(&format!("{name}.weight"))?;
        let weight = Matrix::stack(tensor, count, rows, columns)?;
        let bias = self.find(&format!("{name}.bias"));
        let bias = bias
            .map(|bias| tensor::values(bias, [rows, count], self.budget))
            .transpose()?;
        let factors = self.factors(name, count)?;
        Ok(Linear {
            weight,
            factors: factors.map_or(matmul::Factors::One(1.0), matmul::Factors::Each),
            bias,
        })
    }

    /// A norm of rows of `width`; the bias of one by mean and deviation is optional.
    pub fn norm(&mut self, name: &str, width: usize) -> Result<Norm> {
        let spec = self.spec.norm;
        // Some files leave the suffix out.
        let full = match self.has(name) {
            true => name.into(),
            false => format!("{name}.weight"),
        };
        let weight = match spec.weights {
            true => self.vector(&full, width)?,
            false => self.budget.allocate_filled(Tag::Misc, width, 1.0)?,
        };
        let bias = match spec.weights && spec.kind == NormKind::Layer {
            true => self.bias(name, width)?,
            false => None,
        };
        Ok(Norm {
            kind: spec.kind,
            epsilon: spec.epsilon,
            weight,
            bias,
        })
    }

    pub fn bias(&mut self, name: &str, width: usize) -> Result<Option<Buffer<f32>>> {
        let bias = self.find(&format!("{name}.bias"));
        bias.map(|bias| tensor::vector(bias, width, self.budget))
            .transpose()
    }

    /// A norm of queries or keys; its shape tells whether it is that of all heads, of each with its
    /// own weights, or of each with the same.
    pub fn head_norm(&mut self, name: &str, heads: usize) -> Result<Option<HeadNorm>> {
        let spec = self.spec;
        match spec.qk_norm {
            QkNorm::None => return Ok(None),
            QkNorm::Plain => return self.plain_head_norm().map(Some),
            QkNorm::Before | QkNorm::Behind => {}
        }
        let tensor = self.tensor(&format!("{name}.weight"))?;
        let (dim, all) = (spec.k_dim, heads * spec.k_dim);
        let (width, shape) = match tensor.dims[..2] == [all as u64, 1] {
            true => (all, [all, 1]),
            false if tensor.dims[1] > 1 => (dim, [dim, heads]),
            false => (dim, [dim, 1]),
        };
        let weight = tensor::values(tensor, shape, self.budget)?;
        let bias = match spec.norm.kind {
            NormKind::Layer => self.bias(name, weight.len())?,
            NormKind::Rms => None,
        };
        Ok(Some(HeadNorm {
            norm: Norm {
                kind: spec.norm.kind,
                epsilon: spec.norm.epsilon,
                weight,
                bias,
            },
            width,
        }))
    }

    /// A norm of each head without weights.
    fn plain_head_norm(&self) -> Result<HeadNorm> {
        let width = self.spec.k_dim;
        let norm = Norm {
            kind: NormKind::Rms,
            epsilon: self.spec.norm.epsilon,
            weight: self.budget.allocate_filled(Tag::Misc, width, 1.0)?,
            bias: None,
        };
        Ok(HeadNorm { norm, width })
    }

    /// Of all position embeddings; the file's factors are those of the first.
    pub fn frequencies(&mut self) -> Result<Vec<Frequencies>> {
        let Some((first, others)) = self.spec.ropes.split_first() else {
            return Ok(Vec::new());
        };
        let budget = self.budget;
        let mut factors = |name: &str| {
            let tensor = self.find(name);
            tensor
                .map(|tensor| positive(tensor, first.dims / 2, budget))
                .transpose()
        };
        let long = factors("rope_factors_long.weight")?;
        let usual = match factors("rope_factors_short.weight")? {
            None => factors("rope_freqs.weight")?,
            short => short,
        };
        let factors = Factors {
            usual: usual.as_deref(),
            long: long.as_deref(),
        };
        let others = others
            .iter()
            .map(|rope| Frequencies::new(rope, Factors::default()));
        Ok(std::iter::once(Frequencies::new(first, factors))
            .chain(others)
            .collect())
    }

    /// Whether a tensor belongs to one of the layers that no pass runs.
    fn is_spare(&self, name: &str) -> bool {
        let layers = self.spec.layers..self.spec.layers + self.spec.spare_layers;
        let layer = name
            .strip_prefix("blk.")
            .and_then(|rest| rest.split('.').next());
        let layer = layer.and_then(|layer| layer.parse().ok());
        layer.is_some_and(|layer| layers.contains(&layer))
    }

    pub fn check_all_taken(&self) -> Result<()> {
        let stray = self.gguf.tensors().iter().find(|tensor| {
            let name: &str = &tensor.name;
            let ignored = IGNORED.iter().any(|ignored| name.ends_with(ignored));
            !self.taken.contains(name) && !ignored && !self.is_spare(name)
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

pub fn no_memory(items: usize) -> Error {
    let message = format!("no memory for a list of {items}");
    Error::new(Code::OutOfMemory, "weights", message)
}

pub fn missing(name: &str) -> Error {
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
