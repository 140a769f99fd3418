//! What a measurement has to do at least: multiply-adds, and bytes of weights to read.

use lightgpt::gguf::TensorInfo;
use lightgpt::kv::KvFormat;
use lightgpt::model::Model;

use crate::output::Failure;

/// Multiply-adds, by what their limit is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MultiplyAdds {
    /// With weights in blocks, which are integers.
    pub integer: u64,
    /// With weights that are floats, and those of attention.
    pub float: u64,
}

/// The sizes of a model that its work follows from.
#[derive(Debug)]
pub struct Work {
    /// Matrices of the layers, for a token.
    layers: MultiplyAdds,
    /// The output matrix, for a token whose logits are wanted.
    output: MultiplyAdds,
    /// Attention, for a token and a key.
    key: u64,
    /// Weights that a token reads.
    pub token_bytes: u64,
    /// Keys and values that a token reads of each token before it, where all layers see it.
    key_bytes: u64,
}

impl Work {
    /// The work of a model; of its experts, of those that a token takes.
    pub fn of(model: &Model, kv: KvFormat) -> Result<Self, Failure> {
        let tensors = model.gguf().tensors();
        let named = |name: &str| tensors.iter().find(|tensor| &*tensor.name == name);
        let embedding = named("token_embd.weight");
        let output = named("output.weight");
        let is = |tensor: &TensorInfo, other: Option<&TensorInfo>| {
            other.is_some_and(|other| other.name == tensor.name)
        };
        let spec = &model.network()?.spec;
        // Of a tensor's values or bytes, those that a token meets.
        let active = |tensor: &TensorInfo, all: u64| match spec.experts {
            Some(experts) if tensor.name.contains("_exps.") => {
                all / experts.count as u64 * experts.routing.used as u64
            }
            _ => all,
        };
        let (mut layers, mut last) = (MultiplyAdds::default(), MultiplyAdds::default());
        for tensor in tensors.iter().filter(|tensor| tensor.dimensions > 1) {
            if !is(tensor, embedding) && !is(tensor, output) {
                layers.add(tensor, active(tensor, tensor.values()));
            }
        }
        if let Some(tensor) = output.or(embedding) {
            last.add(tensor, tensor.values());
        }
        // Of an embedding that is not the output too, a token reads one row.
        let read = tensors
            .iter()
            .filter(|tensor| output.is_none() || !is(tensor, embedding))
            .map(|tensor| active(tensor, tensor.bytes.len() as u64));
        let keys = spec.layers * spec.heads * (spec.k_dim + spec.v_dim);
        Ok(Self {
            layers,
            output: last,
            key: keys as u64,
            token_bytes: read.sum(),
            key_bytes: model.network()?.layout(kv).token_bytes() as u64,
        })
    }

    /// Keys and values that each of `tokens` tokens behind `depth` others reads, in the mean, in bytes.
    pub fn kv_bytes(&self, tokens: u64, depth: u64) -> u64 {
        self.key_bytes * (2 * depth + tokens + 1) / 2
    }

    /// Work for `tokens` behind `depth` others, with logits after `outputs` of them.
    pub fn multiply_adds(&self, tokens: u64, depth: u64, outputs: u64) -> MultiplyAdds {
        // Each token attends to those before it and to itself.
        let keys = tokens * depth + tokens * (tokens + 1) / 2;
        MultiplyAdds {
            integer: self.layers.integer * tokens + self.output.integer * outputs,
            float: self.layers.float * tokens + self.output.float * outputs + self.key * keys,
        }
    }
}

impl MultiplyAdds {
    /// The same so many times.
    pub fn times(self, count: u64) -> Self {
        Self {
            integer: self.integer * count,
            float: self.float * count,
        }
    }

    /// Integers and floats.
    pub fn all(self) -> u64 {
        self.integer + self.float
    }

    fn add(&mut self, tensor: &TensorInfo, values: u64) {
        match tensor.format.block_len() {
            1 => self.float += values,
            _ => self.integer += values,
        }
    }
}
