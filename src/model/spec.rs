//! The degrees of freedom of a transformer: what differs between models, never whose it is.

mod check;
mod experts;
mod latent;
mod pooled;
mod recurrence;

use std::ops::Range;

use crate::kernel::{Nonlinearity, Scoring, Window};
use crate::kv::{LayerShape, SPAN_TOKENS, StateShape};
use crate::ops::attention::Heads;
use crate::ops::norm::NormKind;
use crate::ops::rope::Rope;

pub use check::{epsilon_key, require};
pub use experts::Experts;
pub use latent::Latent;
pub use pooled::{Curve, Head, Pooling};
pub use recurrence::{Recurrence, RecurrenceKind};

/// Everything the one forward pass needs to know about a model, checked once when made. Norms and
/// biases that a file may have or not are no part of it: the weights tell.
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
    /// Layers behind them that guess further tokens; no pass runs them.
    pub spare_layers: usize,
    /// Width of the feed-forward network; 0: there is none.
    pub hidden: usize,
    /// Query heads; 1, of one value, where no layer attends.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Values in a query and a key.
    pub k_dim: usize,
    /// Values in a value row.
    pub v_dim: usize,

    /// What is done to a token's embedding.
    pub embedding: Embedding,
    /// All norms but those of heads.
    pub norm: NormSpec,
    /// Where norms stand.
    pub norms: Placement,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Whether attention and feed-forward network read the same stream, and both add to it.
    pub parallel: bool,
    /// Factor of what a block adds to the residual stream.
    pub residual_scale: f32,

    /// How keys and values are made of narrow vectors, which are all that is kept.
    pub latent: Option<Latent>,
    /// Position embeddings of queries and keys, of which a layer has one or none.
    pub ropes: Vec<Rope>,
    /// Factor of attention scores.
    pub attention_scale: f32,
    /// Bound of attention scores, `cap * tanh(score / cap)`; 0: none.
    pub attention_softcap: f32,
    /// Bound of queries, keys and values; 0: none.
    pub qkv_limit: f32,
    /// The largest slope of a linear bias by distance; 0: no bias.
    pub alibi: f32,
    /// Whether each head has a score that no value belongs to.
    pub sinks: bool,
    /// Growth of queries with their position, in layers without position embedding.
    pub temperature: Option<Temperature>,
    /// Whether a query brings a gate of what its head gives: (heads, k_dim and v_dim) in the file.
    pub gated_heads: bool,

    /// What recurrent layers do.
    pub recurrence: Option<Recurrence>,

    /// How the gate of the feed-forward network works.
    pub gating: Gating,

    /// Networks of which a token takes a few.
    pub experts: Option<Experts>,

    /// Whether it predicts tokens: without, there are no logits.
    pub predicts: bool,
    /// What its file says that one row is made of those of a text by.
    pub pooling: Pooling,
    /// Widths of what such a row goes through then, one after the other.
    pub projections: Vec<usize>,
    /// What makes scores of such a row.
    pub head: Option<Head>,

    /// Factor of logits.
    pub logit_scale: f32,
    /// Bound of logits, `cap * tanh(logit / cap)`; 0: none.
    pub logit_softcap: f32,

    /// What differs from layer to layer: (layers).
    pub each: Vec<LayerSpec>,
}

/// What is done to a token's embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Embedding {
    /// Its factor.
    pub scale: f32,
    /// Whether it is normed.
    pub norm: bool,
    /// Whether a learned vector of its position is added.
    pub positions: bool,
    /// Texts of an input that have a vector each, which is added to those of its tokens; 0: none.
    pub segments: usize,
}

impl Embedding {
    /// Nothing.
    pub const PLAIN: Self = Self {
        scale: 1.0,
        norm: false,
        positions: false,
        segments: 0,
    };
}

/// A norm of rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormSpec {
    /// Its kind.
    pub kind: NormKind,
    /// Added to the mean square.
    pub epsilon: f32,
    /// Whether it has weights; without them all are 1.
    pub weights: bool,
}

/// Where the norms of a layer stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Before attention and feed-forward network.
    pub before: bool,
    /// Before the first layer's attention too, if so.
    pub first: bool,
    /// Behind them, before they are added to the stream.
    pub behind: bool,
    /// Of the stream, when they are added.
    pub of_sum: bool,
    /// Of the last layer's stream.
    pub last: bool,
}

impl Placement {
    /// Before each block, and at the end.
    pub const BEFORE: Self = Self {
        before: true,
        first: true,
        behind: false,
        of_sum: false,
        last: true,
    };

    /// Of each sum of stream and block.
    pub const OF_SUMS: Self = Self {
        before: false,
        first: false,
        behind: false,
        of_sum: true,
        last: false,
    };
}

/// Norms of queries and keys, of the kind of the others, by themselves (a tensor as wide as a head),
/// each head with its own weights (heads by its width), or all heads as one row (their whole width).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// There are none.
    None,
    /// Before the position embedding.
    Before,
    /// Behind it.
    Behind,
    /// Behind it, without weights, by the mean square, in layers that have a position embedding.
    Plain,
}

/// Queries at position p are multiplied with `1 + scale * ln(1 + floor((p + 1) / floor))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    /// Positions that share a factor.
    pub floor: f32,
    /// How fast it grows.
    pub scale: f32,
}

/// How a feed-forward network's gate works.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gating {
    /// There is none: `down(f(up(x)))`.
    None,
    /// `down(f(gate(x)) * up(x))`
    Product,
    /// The same with bounded values and one added, see
    /// [`Kernels::swiglu_clamped`](crate::kernel::Kernels::swiglu_clamped).
    Clamped {
        /// Slope of the sigmoid.
        alpha: f32,
        /// Bound of both values.
        limit: f32,
    },
}

/// What differs from layer to layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerSpec {
    /// How it sees earlier tokens.
    pub mixer: Mixer,
    /// Keys that a query sees.
    pub window: Window,
    /// Which position embedding it has.
    pub rope: Option<usize>,
    /// Activation function of the feed-forward network.
    pub nonlinearity: Nonlinearity,
    /// Whether its feed-forward network is one of experts.
    pub experts: bool,
}

/// How a layer sees earlier tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mixer {
    /// By their keys and values.
    Attention,
    /// By a state that all of them have left.
    Recurrence,
    /// By both, whose sum it gives.
    Both,
}

impl Mixer {
    /// Whether it has keys and values.
    pub fn attends(self) -> bool {
        self != Self::Recurrence
    }

    /// Whether it has a state.
    pub fn recurs(self) -> bool {
        self != Self::Attention
    }
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

    /// Numbers of an embedding of a text.
    pub fn embedding_width(&self) -> usize {
        self.projections.last().copied().unwrap_or(self.dim)
    }

    /// Whether a token's row depends on those before it only.
    pub fn is_causal(&self) -> bool {
        self.each.iter().all(|layer| layer.window.is_causal())
    }

    /// Logits of a position.
    pub fn logits(&self) -> usize {
        if self.predicts { self.vocab } else { 0 }
    }

    /// Where the gates of heads begin, if they have any, behind queries, keys and values.
    pub fn gates_start(&self) -> usize {
        self.q_width() + self.kv_heads * (self.k_dim + self.v_dim)
    }

    /// Width of queries, keys, values and gates of a token.
    pub fn qkv_width(&self) -> usize {
        match self.gated_heads {
            true => self.gates_start() + self.attended_width(),
            false => self.gates_start(),
        }
    }

    /// Width of what a feed-forward network of width `hidden` makes of a token first.
    pub fn gated_width(&self, hidden: usize) -> usize {
        match self.gating {
            Gating::None => hidden,
            Gating::Product | Gating::Clamped { .. } => 2 * hidden,
        }
    }

    /// Width inside the widest network that takes all tokens.
    pub fn hidden_max(&self) -> usize {
        let shared = self.experts.map_or(0, |experts| experts.shared_hidden);
        self.hidden.max(shared)
    }

    /// Pairs of all position embeddings.
    pub fn pairs(&self) -> usize {
        self.ropes.iter().map(|rope| rope.dims / 2).sum()
    }

    /// Where the pairs of a position embedding are among those of all.
    pub fn turns(&self, rope: usize) -> Range<usize> {
        let start = self.ropes[..rope].iter().map(|rope| rope.dims / 2).sum();
        start..start + self.ropes[rope].dims / 2
    }

    /// The same in all layers.
    pub fn with_nonlinearity(mut self, nonlinearity: Nonlinearity) -> Self {
        for layer in &mut self.each {
            layer.nonlinearity = nonlinearity;
        }
        self
    }

    /// Windows and position embeddings of the layers.
    pub fn with_layers(mut self, layers: impl Iterator<Item = (Window, Option<usize>)>) -> Self {
        for (layer, (window, rope)) in self.each.iter_mut().zip(layers) {
            (layer.window, layer.rope) = (window, rope);
        }
        self
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

    /// Width of what is made of it before it goes to the stream.
    pub fn out_width(&self) -> usize {
        self.latent.map_or(self.attended_width(), |latent| {
            self.heads * latent.value_dim
        })
    }

    /// The first position whose keys a query at `position` or behind it sees in any layer.
    pub fn first_seen(&self, position: usize) -> usize {
        let layers = self.each.iter();
        let first = layers.map(|layer| layer.window.first(position)).min();
        first.unwrap_or(0)
    }

    /// The most tokens whose keys and values a sequence of `context` tokens keeps at once, when it
    /// takes up to `rows` at a time: those that no layer sees any more are forgotten by spans.
    pub fn kept_tokens(&self, context: usize, rows: usize) -> usize {
        let widest = self.each.iter().map(|layer| layer.window.keys()).max();
        let kept = widest.unwrap_or(usize::MAX).saturating_add(rows);
        kept.saturating_add(SPAN_TOKENS).min(context)
    }

    /// How products of queries and keys become scores in a layer.
    pub fn scoring(&self, layer: usize) -> Scoring {
        Scoring {
            scale: self.attention_scale,
            softcap: self.attention_softcap,
            window: self.each[layer].window,
        }
    }

    /// What each layer keeps of a token, and of all tokens together.
    pub fn layer_shapes(&self) -> impl Iterator<Item = LayerShape> {
        self.each.iter().map(|layer| LayerShape {
            heads: if layer.mixer.attends() {
                self.kv_heads
            } else {
                0
            },
            k_dim: self.k_dim,
            v_dim: self.v_dim,
            state: match &self.recurrence {
                Some(recurrence) if layer.mixer.recurs() => recurrence.shape(),
                _ => StateShape::default(),
            },
        })
    }

    /// Makes the layers that `recurs` recurrent, in place of attending.
    pub fn with_recurrence(
        mut self,
        recurrence: Recurrence,
        recurs: impl Fn(usize) -> bool,
    ) -> Self {
        self.recurrence = Some(recurrence);
        for (i, layer) in self.each.iter_mut().enumerate() {
            if recurs(i) {
                (layer.mixer, layer.rope) = (Mixer::Recurrence, None);
            }
        }
        self
    }
}
