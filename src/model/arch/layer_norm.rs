//! Dense decoders with norms by mean and deviation: what each has that others do not.

use crate::error::Result;
use crate::kernel::{Nonlinearity, Window};
use crate::model::spec::{Embedding, Gating, NormSpec, QkNorm, Spec};
use crate::ops::norm::NormKind;
use crate::ops::rope::Style;

use super::keys::Keys;

pub fn gpt2(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder_without_rope(NormKind::Layer)?;
    let embedding = Embedding {
        positions: true,
        ..spec.embedding
    };
    Ok(Spec {
        embedding,
        gating: Gating::None,
        ..spec
    }
    .with_nonlinearity(Nonlinearity::GeluTanh))
}

pub fn gptneox(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Layer, Style::Halves)?;
    Ok(Spec {
        parallel: keys.flag_or("use_parallel_residual", true)?,
        gating: Gating::None,
        ..spec
    }
    .with_nonlinearity(Nonlinearity::Gelu))
}

pub fn phi2(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Layer, Style::Halves)?;
    Ok(Spec {
        parallel: true,
        gating: Gating::None,
        ..spec
    }
    .with_nonlinearity(Nonlinearity::GeluTanh))
}

pub fn falcon(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Layer, Style::Halves)?;
    Ok(Spec {
        parallel: true,
        gating: Gating::None,
        ..spec
    }
    .with_nonlinearity(Nonlinearity::Gelu))
}

pub fn starcoder2(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Layer, Style::Halves)?;
    let window = keys.window()?;
    Ok(Spec {
        gating: Gating::None,
        ..spec
    }
    .with_layers(std::iter::repeat((window, Some(0))))
    .with_nonlinearity(Nonlinearity::GeluTanh))
}

/// The larger ones are parallel and norm each head.
pub fn stablelm(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Layer, Style::Halves)?;
    Ok(Spec {
        parallel: keys.flag_or("use_parallel_residual", false)?,
        qk_norm: keys.optional_qk_norm(),
        ..spec
    })
}

pub fn mpt(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder_without_rope(NormKind::Layer)?;
    let embedding = Embedding {
        positions: keys.has("position_embd.weight"),
        ..spec.embedding
    };
    Ok(Spec {
        embedding,
        qk_norm: keys.optional_qk_norm(),
        qkv_limit: keys.number_or("attention.clamp_kqv", 0.0)?,
        alibi: keys.number_or("attention.max_alibi_bias", 0.0)?,
        gating: Gating::None,
        ..spec
    }
    .with_nonlinearity(Nonlinearity::Gelu))
}

pub fn bloom(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder_without_rope(NormKind::Layer)?;
    let embedding = Embedding {
        norm: true,
        ..spec.embedding
    };
    Ok(Spec {
        embedding,
        alibi: keys.number_or("attention.max_alibi_bias", 8.0)?,
        gating: Gating::None,
        ..spec
    }
    .with_nonlinearity(Nonlinearity::GeluTanh))
}

/// Its norms have no weights; files hold queries and keys in the order of interleaved pairs.
pub fn olmo(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Layer, Style::Interleaved)?;
    let norm = NormSpec {
        weights: false,
        ..spec.norm
    };
    Ok(Spec {
        norm,
        qkv_limit: keys.number_or("attention.clamp_kqv", 0.0)?,
        ..spec
    })
}

/// Pairs of neighbours turn.
pub fn command_r(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Layer, Style::Interleaved)?;
    Ok(Spec {
        parallel: true,
        qk_norm: keys.optional_qk_norm(),
        logit_scale: keys.number_or("logit_scale", 0.0625)?,
        ..spec
    })
}

/// Only layers with a window have a position embedding.
pub fn cohere2(keys: &Keys<'_>) -> Result<Spec> {
    let spec = command_r(keys)?;
    let (window, local) = (keys.window_or(4096)?, keys.is_local(spec.layers, 4)?);
    let each = local.iter().map(|&local| match local {
        true => (window, Some(0)),
        false => (Window::All, None),
    });
    Ok(Spec {
        qk_norm: QkNorm::None,
        ..spec
    }
    .with_layers(each))
}

/// Files hold its norms with the one added that the model adds to their weights.
pub fn nemotron(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Layer, Style::Halves)?;
    Ok(Spec {
        gating: Gating::None,
        ..spec
    }
    .with_nonlinearity(Nonlinearity::ReluSquared))
}
