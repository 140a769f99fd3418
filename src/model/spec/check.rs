//! What the fields of a spec must satisfy together.

use crate::error::{Code, Error, Result};
use crate::ops::norm::NormKind;

use super::{CONTEXT_MAX, LAYERS_MAX, Spec, Temperature, WIDTH_MAX};

impl Spec {
    /// Checks what the fields must satisfy together, so that nothing below divides by zero or
    /// overflows. `place` says where the file has a hyperparameter.
    pub fn checked(self, place: impl Fn(&str) -> String) -> Result<Self> {
        let range = |name: &str, value: usize, max: usize| {
            let holds = (1..=max).contains(&value);
            require(holds, || place(name), format!("1 to {max}"), value)
        };
        range("context_length", self.context, CONTEXT_MAX)?;
        range("vocab_size", self.vocab, WIDTH_MAX)?;
        range("embedding_length", self.dim, WIDTH_MAX)?;
        range("block_count", self.layers, LAYERS_MAX)?;
        range("feed_forward_length", self.hidden.max(1), WIDTH_MAX)?;
        range("attention.head_count", self.heads, WIDTH_MAX)?;
        range("attention.head_count_kv", self.kv_heads, self.heads)?;
        let divides = self.heads.is_multiple_of(self.kv_heads);
        let expected = format!("a divisor of {}", self.heads);
        let name = "attention.head_count_kv";
        require(divides, || place(name), expected, self.kv_heads)?;
        range("attention.key_length", self.k_dim, WIDTH_MAX / self.heads)?;
        range("attention.value_length", self.v_dim, WIDTH_MAX / self.heads)?;
        for rope in &self.ropes {
            let turns = rope.dims.is_multiple_of(2) && (2..=self.k_dim).contains(&rope.dims);
            let expected = format!("an even number from 2 to {}", self.k_dim);
            require(turns, || place("rope.dimension_count"), expected, rope.dims)?;
            let base = rope.base.is_finite() && rope.base > 1.0;
            let expected = "a finite number above 1";
            require(base, || place("rope.freq_base"), expected, rope.base)?;
        }
        let epsilon = self.norm.epsilon.is_finite() && self.norm.epsilon > 0.0;
        let expected = "a finite number above 0";
        let name = epsilon_key(self.norm.kind);
        require(epsilon, || place(name), expected, self.norm.epsilon)?;
        self.check_factors(&place)?;
        if let Some(latent) = &self.latent {
            latent.check(&self, &place)?;
        }
        if let Some(experts) = &self.experts {
            experts.check(&place)?;
        }
        if let Some(recurrence) = &self.recurrence {
            recurrence.check(&place)?;
        }
        assert_eq!(self.each.len(), self.layers, "each layer has its own");
        Ok(self)
    }

    /// Checks what is multiplied with, and what bounds.
    fn check_factors(&self, place: impl Fn(&str) -> String) -> Result<()> {
        for (name, factor) in [
            ("embedding_scale", self.embedding.scale),
            ("residual_scale", self.residual_scale),
            ("attention.scale", self.attention_scale),
            ("logit_scale", self.logit_scale),
        ] {
            let holds = factor.is_finite() && factor != 0.0;
            require(holds, || place(name), "a finite number but 0", factor)?;
        }
        for (name, bound) in [
            ("attn_logit_softcapping", self.attention_softcap),
            ("attention.clamp_kqv", self.qkv_limit),
            ("attention.max_alibi_bias", self.alibi),
            ("final_logit_softcapping", self.logit_softcap),
        ] {
            let holds = bound.is_finite() && bound >= 0.0;
            require(holds, || place(name), "a finite number from 0 on", bound)?;
        }
        if let Some(Temperature { floor, scale }) = self.temperature {
            let name = "attention.temperature_length";
            let holds = floor.is_finite() && floor >= 1.0;
            require(holds, || place(name), "a finite number from 1 on", floor)?;
            let name = "attention.temperature_scale";
            require(scale.is_finite(), || place(name), "a finite number", scale)?;
        }
        Ok(())
    }
}

/// The key of the epsilon of norms of a kind.
pub fn epsilon_key(kind: NormKind) -> &'static str {
    match kind {
        NormKind::Rms => "attention.layer_norm_rms_epsilon",
        NormKind::Layer => "attention.layer_norm_epsilon",
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
