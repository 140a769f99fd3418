//! Reading the keys of an architecture, `<name>.<key>`, and what most of them have in common.

use crate::error::{Code, Error, Result};
use crate::gguf::{Gguf, Metadata, Value};
use crate::kernel::{Nonlinearity, Window};
use crate::model::spec::{
    Embedding, Experts, Gating, LAYERS_MAX, LayerSpec, Mixer, NormSpec, Placement, Pooling, QkNorm,
    Spec, WIDTH_MAX, epsilon_key, require,
};
use crate::ops::experts::{Gate, Routing};
use crate::ops::norm::NormKind;
use crate::ops::rope::{Rope, Scaling, Style, Yarn};

/// The keys of one architecture.
pub(super) struct Keys<'a> {
    gguf: &'a Gguf,
    metadata: &'a Metadata,
    prefix: &'a str,
    /// Rows of the embedding.
    pub vocab: usize,
}

impl<'a> Keys<'a> {
    pub fn new(gguf: &'a Gguf, prefix: &'a str, vocab: usize) -> Self {
        Self {
            gguf,
            metadata: gguf.metadata(),
            prefix,
            vocab,
        }
    }

    /// What most decoders share: norms before both blocks, a gated network, all layers alike, with
    /// the position embedding in the given style.
    pub fn decoder(&self, kind: NormKind, style: Style) -> Result<Spec> {
        self.turning(self.decoder_without_rope(kind)?, style)
    }

    /// The position embedding in the given style in all layers.
    pub fn turning(&self, spec: Spec, style: Style) -> Result<Spec> {
        let ropes = vec![self.rope(style, spec.k_dim)?];
        let each = std::iter::repeat((Window::All, Some(0)));
        Ok(Spec { ropes, ..spec }.with_layers(each))
    }

    /// The same without position embedding in queries and keys.
    pub fn decoder_without_rope(&self, kind: NormKind) -> Result<Spec> {
        let kv_heads = self.count("attention.head_count_kv")?;
        self.attending(kind, kv_heads)
    }

    /// A decoder some layers of which have no keys and values, and which: those whose heads of these
    /// the file counts as 0.
    pub fn partly_attending(&self, kind: NormKind) -> Result<(Spec, Vec<bool>)> {
        let name = "attention.head_count_kv";
        let each = self.metadata.required(&self.key(name), Metadata::u32s)?;
        let most = each.iter().copied().max().unwrap_or(0);
        let alike = each.iter().all(|heads| [0, most].contains(heads));
        if !alike {
            let message = format!("expected 0 or {most} for each layer, found {each:?}");
            return Err(Error::new(Code::Unsupported, self.place(name), message));
        }
        let spec = self.attending(kind, Some(most.max(1) as usize))?;
        self.check_len(name, each.len(), spec.layers)?;
        Ok((spec, each.iter().map(|heads| *heads > 0).collect()))
    }

    fn attending(&self, kind: NormKind, kv_heads: Option<usize>) -> Result<Spec> {
        let dim = self.required("embedding_length")?;
        let heads = self.required("attention.head_count")?;
        let hidden = self.required("feed_forward_length")?;
        let bounded = (1..=WIDTH_MAX).contains(&hidden);
        let (place, expected) = (
            || self.place("feed_forward_length"),
            format!("1 to {WIDTH_MAX}"),
        );
        require(bounded, place, expected, hidden)?;
        let k_dim = self.head_dim("attention.key_length", dim, heads)?;
        let v_dim = self.head_dim("attention.value_length", dim, heads)?;
        Ok(Spec {
            hidden,
            heads,
            kv_heads: kv_heads.unwrap_or(heads),
            k_dim,
            v_dim,
            attention_scale: 1.0 / (k_dim as f32).sqrt(),
            ..self.bare(kind)?
        })
    }

    /// Layers that do nothing yet: no attention, no feed-forward network.
    pub fn bare(&self, kind: NormKind) -> Result<Spec> {
        let (blocks, name) = (self.required("block_count")?, "nextn_predict_layers");
        let bounded = (1..=LAYERS_MAX).contains(&blocks);
        let expected = format!("1 to {LAYERS_MAX}");
        require(bounded, || self.place("block_count"), expected, blocks)?;
        let spare_layers = self.or(name, 0)?;
        let fewer = spare_layers < blocks;
        let expected = format!("fewer than {blocks}");
        require(fewer, || self.place(name), expected, spare_layers)?;
        let layers = blocks - spare_layers;
        let epsilon = self.number(epsilon_key(kind))?.unwrap_or(1e-5);
        Ok(Spec {
            context: self.required("context_length")?,
            vocab: self.vocab,
            dim: self.required("embedding_length")?,
            layers,
            spare_layers,
            hidden: 0,
            heads: 1,
            kv_heads: 1,
            k_dim: 1,
            v_dim: 1,
            embedding: Embedding::PLAIN,
            norm: NormSpec {
                kind,
                epsilon,
                weights: true,
            },
            norms: Placement::BEFORE,
            qk_norm: QkNorm::None,
            parallel: false,
            residual_scale: 1.0,
            latent: None,
            ropes: Vec::new(),
            attention_scale: 1.0,
            attention_softcap: 0.0,
            qkv_limit: 0.0,
            alibi: 0.0,
            sinks: false,
            temperature: None,
            gated_heads: false,
            recurrence: None,
            gating: Gating::Product,
            experts: None,
            predicts: true,
            pooling: self.pooling(Pooling::Last)?,
            projections: Vec::new(),
            head: None,
            logit_scale: 1.0,
            logit_softcap: 0.0,
            each: vec![
                LayerSpec {
                    mixer: Mixer::Attention,
                    window: Window::All,
                    rope: None,
                    nonlinearity: Nonlinearity::Silu,
                    experts: false,
                };
                layers
            ],
        })
    }

    /// Adds the experts that the file tells of, in layers that `has` them; `routing` says what the
    /// file does not.
    pub fn with_experts(
        &self,
        spec: Spec,
        routing: Routing,
        has: impl Fn(usize) -> bool,
    ) -> Result<Spec> {
        let gate = match self.count("expert_gating_func")? {
            None | Some(0) => routing.gate,
            Some(1) => Gate::Softmax,
            Some(2) => Gate::Sigmoid,
            Some(3) => Gate::SoftmaxOfChosen,
            Some(other) => {
                let message = format!("expected 1, 2 or 3, found {other}");
                let place = self.place("expert_gating_func");
                return Err(Error::new(Code::Unsupported, place, message));
            }
        };
        let hidden = self.or("expert_feed_forward_length", spec.hidden)?;
        let shared = match self.or("expert_shared_feed_forward_length", 0)? {
            0 => self.or("expert_shared_count", 0)?.saturating_mul(hidden),
            shared => shared,
        };
        let routing = Routing {
            used: self.required("expert_used_count")?,
            gate,
            groups: self.or("expert_group_count", 1)?.max(1),
            groups_used: self.or("expert_group_used_count", 1)?.max(1),
            normalise: self.flag_or("expert_weights_norm", routing.normalise)?,
            scale: self.number_or("expert_weights_scale", routing.scale)?,
            ..routing
        };
        let experts = Experts {
            count: self.required("expert_count")?,
            hidden,
            shared_hidden: shared,
            routing,
            weighs_input: false,
        };
        let mut spec = spec;
        spec.experts = Some(experts);
        for (i, layer) in spec.each.iter_mut().enumerate() {
            layer.experts = has(i);
        }
        Ok(spec)
    }

    /// How the file says that rows of a text become one.
    pub fn pooling(&self, default: Pooling) -> Result<Pooling> {
        Ok(match self.count("pooling_type")? {
            None => default,
            Some(0) => Pooling::None,
            Some(1) => Pooling::Mean,
            Some(2) => Pooling::First,
            Some(3) => Pooling::Last,
            Some(4) => Pooling::Rank,
            Some(other) => {
                let message = format!("expected 0 to 4, found {other}");
                let place = self.place("pooling_type");
                return Err(Error::new(Code::Unsupported, place, message));
            }
        })
    }

    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    pub fn place(&self, name: &str) -> String {
        self.metadata.place(&self.key(name))
    }

    /// Whether the file has a tensor.
    pub fn has(&self, tensor: &str) -> bool {
        self.gguf.tensor(tensor).is_some()
    }

    /// Rows of a matrix, if the file has it.
    pub fn rows(&self, tensor: &str) -> Result<Option<usize>> {
        let Some(tensor) = self.gguf.tensor(tensor) else {
            return Ok(None);
        };
        let rows = usize::try_from(tensor.dims[1]).ok();
        let rows = rows.filter(|rows| (1..=WIDTH_MAX).contains(rows));
        let found = tensor.dims[1];
        let place = || format!("tensor '{}'", tensor.name);
        require(
            rows.is_some(),
            place,
            format!("1 to {WIDTH_MAX} rows"),
            found,
        )?;
        Ok(rows)
    }

    /// Norms of queries and keys, if the file has them.
    pub fn optional_qk_norm(&self) -> QkNorm {
        match self.has("blk.0.attn_q_norm.weight") {
            true => QkNorm::Before,
            false => QkNorm::None,
        }
    }

    pub fn count(&self, name: &str) -> Result<Option<usize>> {
        self.check_not_per_layer(name)?;
        let count = self.metadata.u32(&self.key(name))?;
        Ok(count.map(|count| count as usize))
    }

    pub fn required(&self, name: &str) -> Result<usize> {
        self.check_not_per_layer(name)?;
        let count = self.metadata.required(&self.key(name), Metadata::u32)?;
        Ok(count as usize)
    }

    /// A number for each layer in place of one is well-formed, but nothing that this build can run.
    fn check_not_per_layer(&self, name: &str) -> Result<()> {
        let Some(value @ Value::Array(array)) = self.metadata.get(&self.key(name)) else {
            return Ok(());
        };
        let layers = self.metadata.u32(&self.key("block_count"));
        let each = layers.is_ok_and(|layers| layers.map(|n| n as usize) == Some(array.len()));
        if !each || !array.kind().is_integer() {
            return Ok(());
        }
        let found = value.type_name();
        let message = format!("expected one u32 for all layers, found {found}, one for each");
        Err(Error::new(Code::Unsupported, self.place(name), message))
    }

    pub fn or(&self, name: &str, default: usize) -> Result<usize> {
        Ok(self.count(name)?.unwrap_or(default))
    }

    pub fn number(&self, name: &str) -> Result<Option<f32>> {
        self.metadata.f32(&self.key(name))
    }

    pub fn number_or(&self, name: &str, default: f32) -> Result<f32> {
        Ok(self.number(name)?.unwrap_or(default))
    }

    pub fn flag_or(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.metadata.bool(&self.key(name))?.unwrap_or(default))
    }

    /// A number for each layer, finite, or one for all; the key is the whole name.
    pub fn each_number(&self, key: &str, layers: usize) -> Result<Vec<f32>> {
        let numbers = match self.metadata.get(key) {
            Some(Value::Array(_)) => self.metadata.required(key, Metadata::f32s)?.to_vec(),
            _ => vec![self.metadata.required(key, Metadata::f32)?; layers],
        };
        let place = || self.metadata.place(key);
        let expected = format!("{layers} finite values, one a layer");
        require(numbers.len() == layers, place, expected, numbers.len())?;
        let bad = numbers.iter().find(|number| !number.is_finite());
        require(bad.is_none(), place, "finite values", bad.unwrap_or(&0.0))?;
        Ok(numbers)
    }

    /// Whether the file has a key.
    pub fn has_key(&self, name: &str) -> bool {
        self.metadata.get(&self.key(name)).is_some()
    }

    fn check_len(&self, name: &str, len: usize, layers: usize) -> Result<()> {
        let expected = format!("{layers} values, one a layer");
        require(len == layers, || self.place(name), expected, len)
    }

    fn head_dim(&self, name: &str, dim: usize, heads: usize) -> Result<usize> {
        if let Some(head_dim) = self.count(name)? {
            return Ok(head_dim);
        }
        let divides = heads > 0 && dim.is_multiple_of(heads);
        require(
            divides,
            || self.place("attention.head_count"),
            format!("a divisor of {dim}"),
            heads,
        )?;
        Ok(dim / heads)
    }

    /// Which layers have a window: as the file says, or all but the last of each `period` layers (0:
    /// all layers).
    pub fn is_local(&self, layers: usize, period: usize) -> Result<Vec<bool>> {
        let name = "attention.sliding_window_pattern";
        if let Some(Value::Array(_)) = self.metadata.get(&self.key(name)) {
            let each = self.metadata.bools(&self.key(name))?.unwrap_or(&[]);
            self.check_len(name, each.len(), layers)?;
            return Ok(each.to_vec());
        }
        let period = self.or(name, period)?;
        let local = |layer: usize| period == 0 || layer % period < period - 1;
        Ok((0..layers).map(local).collect())
    }

    /// The window of layers that have one, if the file gives one.
    pub fn window(&self) -> Result<Window> {
        self.window_or(0)
    }

    /// The same with a default.
    pub fn window_or(&self, default: usize) -> Result<Window> {
        Ok(match self.or("attention.sliding_window", default)? {
            0 => Window::All,
            keys => Window::Sliding(keys),
        })
    }

    pub fn rope(&self, style: Style, k_dim: usize) -> Result<Rope> {
        let scaling = self.rope_scaling()?;
        Ok(Rope {
            style,
            dims: self.or("rope.dimension_count", k_dim)?,
            base: f64::from(self.number_or("rope.freq_base", 10000.0)?),
            scaling,
            magnitude: self.positive("rope.scaling.attn_factor", 1.0)?,
            original_context: self.original_context()?,
        })
    }

    fn rope_scaling(&self) -> Result<Scaling> {
        let kind = self.metadata.str(&self.key("rope.scaling.type"))?;
        // Older files give a factor without a type, or under an older name: that is linear.
        let factor = match self.number("rope.scaling.factor")? {
            None => self.number("rope.scale_linear")?,
            factor => factor,
        };
        let is_old = kind.is_none() && factor.is_some();
        let factor = f64::from(factor.unwrap_or(1.0));
        let holds = factor.is_finite() && factor > 0.0;
        require(
            holds,
            || self.place("rope.scaling.factor"),
            "a finite number above 0",
            factor,
        )?;
        match kind {
            _ if is_old => Ok(Scaling::Linear(factor)),
            None | Some("none") => Ok(Scaling::None),
            // The factors say it all.
            Some("longrope") if self.has("rope_factors_long.weight") => Ok(Scaling::None),
            Some("linear") => Ok(Scaling::Linear(factor)),
            Some("yarn") => self.yarn(factor).map(Scaling::Yarn),
            Some(other) => {
                let message = format!("expected none, linear or yarn, found '{other}'");
                Err(Error::new(
                    Code::Unsupported,
                    self.place("rope.scaling.type"),
                    message,
                ))
            }
        }
    }

    fn yarn(&self, factor: f64) -> Result<Yarn> {
        Ok(Yarn {
            factor,
            original_context: self.original_context()? as f64,
            beta_fast: self.positive("rope.scaling.yarn_beta_fast", 32.0)?,
            beta_slow: self.positive("rope.scaling.yarn_beta_slow", 1.0)?,
            growth: 0.1,
        })
    }

    /// The context that the model was first trained for.
    pub fn original_context(&self) -> Result<usize> {
        let context = self.required("context_length")?;
        let name = "rope.scaling.original_context_length";
        let Some(original) = self.count(name)? else {
            return Ok(context);
        };
        let place = || self.place(name);
        require(original > 0, place, "a number above 0", original)?;
        Ok(original)
    }

    pub fn positive(&self, name: &str, default: f32) -> Result<f64> {
        let value = self.number_or(name, default)?;
        require(
            value.is_finite() && value > 0.0,
            || self.place(name),
            "a finite number above 0",
            value,
        )?;
        Ok(f64::from(value))
    }
}

/// `1 / sqrt(x)`
pub(super) fn inverse_root(x: f32) -> f32 {
    1.0 / x.sqrt()
}
