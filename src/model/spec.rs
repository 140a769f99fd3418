//! The degrees of freedom of a transformer: what differs between models, never whose it is.

use crate::error::{Code, Error, Result};
use crate::kv::LayerShape;
use crate::ops::attention::Heads;
use crate::ops::rope::Rope;

/// Everything the one forward pass needs to know about a model, checked once when made.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Tokens it can attend over.
    pub context: usize,
    /// Tokens it knows.
    pub vocab: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Layers.
    pub layers: usize,
    /// Width of the feed-forward network.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Values in a query and a key.
    pub k_dim: usize,
    /// Values in a value row.
    pub v_dim: usize,
    /// Added to the mean square in norms.
    pub norm_epsilon: f32,
    /// Position embedding of queries and keys.
    pub rope: Rope,
    /// Factor of attention scores.
    pub attention_scale: f32,
}

/// The most layers a model may have.
pub const LAYERS_MAX: usize = 1024;
/// The largest width, number of heads or vocabulary.
pub const WIDTH_MAX: usize = 1 << 24;
/// The longest context.
pub const CONTEXT_MAX: usize = 1 << 24;

impl Spec {
    /// Width of all queries of a token.
    pub fn q_width(&self) -> usize {
        self.heads * self.k_dim
    }

    /// Width of queries, keys and values of a token.
    pub fn qkv_width(&self) -> usize {
        self.q_width() + self.kv_heads * (self.k_dim + self.v_dim)
    }

    /// How query heads share those of keys and values.
    pub fn attention_heads(&self) -> Heads {
        Heads {
            kv_heads: self.kv_heads,
            group: self.heads / self.kv_heads,
            k_dim: self.k_dim,
            v_dim: self.v_dim,
        }
    }

    /// Width of what attention gives for a token.
    pub fn attended_width(&self) -> usize {
        self.heads * self.v_dim
    }

    /// What each layer keeps of a token.
    pub fn layer_shapes(&self) -> impl Iterator<Item = LayerShape> {
        let shape = LayerShape {
            heads: self.kv_heads,
            k_dim: self.k_dim,
            v_dim: self.v_dim,
        };
        std::iter::repeat_n(shape, self.layers)
    }

    /// Checks what the fields must satisfy together, so that nothing below divides by zero or
    /// overflows. `place` says where the file has a hyperparameter.
    pub fn checked(self, place: impl Fn(&str) -> String) -> Result<Self> {
        let rope = &self.rope;
        let range = |name: &str, value: usize, max: usize| {
            let holds = (1..=max).contains(&value);
            require(holds, || place(name), format!("1 to {max}"), value)
        };
        range("context_length", self.context, CONTEXT_MAX)?;
        range("vocab_size", self.vocab, WIDTH_MAX)?;
        range("embedding_length", self.dim, WIDTH_MAX)?;
        range("block_count", self.layers, LAYERS_MAX)?;
        range("feed_forward_length", self.hidden, WIDTH_MAX)?;
        range("attention.head_count", self.heads, WIDTH_MAX)?;
        range("attention.head_count_kv", self.kv_heads, self.heads)?;
        let divides = self.heads.is_multiple_of(self.kv_heads);
        let expected = format!("a divisor of {}", self.heads);
        let name = "attention.head_count_kv";
        require(divides, || place(name), expected, self.kv_heads)?;
        range("attention.key_length", self.k_dim, WIDTH_MAX / self.heads)?;
        range("attention.value_length", self.v_dim, WIDTH_MAX / self.heads)?;
        let turns = rope.dims.is_multiple_of(2) && (2..=self.k_dim).contains(&rope.dims);
        let expected = format!("an even number from 2 to {}", self.k_dim);
        require(turns, || place("rope.dimension_count"), expected, rope.dims)?;
        let base = rope.base.is_finite() && rope.base > 1.0;
        let expected = "a finite number above 1";
        require(base, || place("rope.freq_base"), expected, rope.base)?;
        let epsilon = self.norm_epsilon.is_finite() && self.norm_epsilon > 0.0;
        let name = "attention.layer_norm_rms_epsilon";
        let expected = "a finite number above 0";
        require(epsilon, || place(name), expected, self.norm_epsilon)?;
        Ok(self)
    }
}

/// Fails with `FORMAT` at `place` unless `holds`.
pub fn require(
    holds: bool,
    place: impl FnOnce() -> String,
    expected: impl std::fmt::Display,
    found: impl std::fmt::Display,
) -> Result<()> {
    if holds {
        return Ok(());
    }
    let message = format!("expected {expected}, found {found}");
    Err(Error::new(Code::Format, place(), message))
}
