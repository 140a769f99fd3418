//! The architectures: `general.architecture` and the file's keys become a [`Spec`].
//!
//! This is the one place that knows models by name; a row of [`TABLE`] and its function are all an
//! architecture has.

use crate::error::{Code, Error, Result};
use crate::gguf::{Metadata, Value};
use crate::model::spec::{Spec, require};
use crate::ops::rope::{Rope, Scaling, Yarn};

/// An architecture: its name in model files, and how its keys are read.
struct Architecture {
    name: &'static str,
    spec: fn(&Keys<'_>) -> Result<Spec>,
}

const ARCHITECTURE: &str = "general.architecture";

const TABLE: &[Architecture] = &[Architecture {
    name: "llama",
    spec: llama,
}];

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
pub fn spec(metadata: &Metadata, vocab: impl FnOnce() -> Result<usize>) -> Result<Spec> {
    let name = name(metadata)?;
    let Some(row) = TABLE.iter().find(|row| row.name == name) else {
        let known = names().collect::<Vec<_>>().join(", ");
        let message = format!("unknown architecture '{name}'; this build knows: {known}");
        let place = metadata.place(ARCHITECTURE);
        return Err(Error::new(Code::Unsupported, place, message));
    };
    let keys = Keys {
        metadata,
        prefix: name,
        vocab: vocab()?,
    };
    let vocab = keys.or("vocab_size", keys.vocab)?;
    let expected = format!("{}, the rows of the embedding", keys.vocab);
    let agrees = vocab == keys.vocab;
    require(agrees, || keys.place("vocab_size"), expected, vocab)?;
    (row.spec)(&keys)?.checked(|name| keys.place(name))
}

fn llama(keys: &Keys<'_>) -> Result<Spec> {
    let dim = keys.required("embedding_length")?;
    let heads = keys.required("attention.head_count")?;
    let k_dim = keys.head_dim("attention.key_length", dim, heads)?;
    let v_dim = keys.head_dim("attention.value_length", dim, heads)?;
    let experts = keys.or("expert_count", 0)?;
    if experts > 0 {
        let message = format!("expected a dense model, found {experts} experts");
        return Err(Error::new(
            Code::Unsupported,
            keys.place("expert_count"),
            message,
        ));
    }
    Ok(Spec {
        context: keys.required("context_length")?,
        vocab: keys.vocab,
        dim,
        layers: keys.required("block_count")?,
        hidden: keys.required("feed_forward_length")?,
        heads,
        kv_heads: keys.or("attention.head_count_kv", heads)?,
        k_dim,
        v_dim,
        norm_epsilon: keys
            .number("attention.layer_norm_rms_epsilon")?
            .unwrap_or(1e-5),
        rope: Rope {
            dims: keys.or("rope.dimension_count", k_dim)?,
            base: f64::from(keys.number("rope.freq_base")?.unwrap_or(10000.0)),
            scaling: keys.rope_scaling()?,
        },
        attention_scale: 1.0 / (k_dim as f32).sqrt(),
    })
}

/// The keys of one architecture: `<prefix>.<name>`.
struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: &'a str,
    vocab: usize,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn place(&self, name: &str) -> String {
        self.metadata.place(&self.key(name))
    }

    fn count(&self, name: &str) -> Result<Option<usize>> {
        self.check_not_per_layer(name)?;
        let count = self.metadata.u32(&self.key(name))?;
        Ok(count.map(|count| count as usize))
    }

    fn required(&self, name: &str) -> Result<usize> {
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

    fn or(&self, name: &str, default: usize) -> Result<usize> {
        Ok(self.count(name)?.unwrap_or(default))
    }

    fn number(&self, name: &str) -> Result<Option<f32>> {
        self.metadata.f32(&self.key(name))
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
        let positive = |name: &str, default: f32| {
            let value = self.number(name)?.unwrap_or(default);
            require(
                value.is_finite() && value > 0.0,
                || self.place(name),
                "a finite number above 0",
                value,
            )?;
            Ok(f64::from(value))
        };
        let context = self.required("context_length")?;
        let original = "rope.scaling.original_context_length";
        let original_context = self.or(original, context)?;
        require(
            original_context > 0,
            || self.place(original),
            "a number above 0",
            original_context,
        )?;
        Ok(Yarn {
            factor,
            original_context: original_context as f64,
            beta_fast: positive("rope.scaling.yarn_beta_fast", 32.0)?,
            beta_slow: positive("rope.scaling.yarn_beta_slow", 1.0)?,
            attention_factor: positive("rope.scaling.attn_factor", 1.0)?,
        })
    }
}
