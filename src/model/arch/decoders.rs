//! Dense decoders: what each has that others do not.

use crate::error::Result;
use crate::kernel::{Nonlinearity, Window};
use crate::model::spec::{Embedding, Gating, NormSpec, Placement, QkNorm, Spec};
use crate::ops::norm::NormKind;
use crate::ops::rope::{Scaling, Style};

use super::keys::{Keys, inverse_root};

/// Files hold query and key rows in the order of interleaved pairs.
pub fn llama(keys: &Keys<'_>) -> Result<Spec> {
    keys.decoder(NormKind::Rms, Style::Interleaved)
}

pub fn qwen2(keys: &Keys<'_>) -> Result<Spec> {
    keys.decoder(NormKind::Rms, Style::Halves)
}

pub fn qwen3(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Rms, Style::Halves)?;
    Ok(Spec {
        qk_norm: QkNorm::Before,
        ..spec
    })
}

/// Its window, if any, is that of all layers.
pub fn phi3(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Rms, Style::Halves)?;
    let window = keys.window()?;
    Ok(spec.with_layers(std::iter::repeat((window, Some(0)))))
}

/// Files hold its norms with the one added that the model adds to their weights.
pub fn gemma(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Rms, Style::Halves)?;
    let embedding = Embedding {
        scale: (spec.dim as f32).sqrt(),
        ..spec.embedding
    };
    Ok(Spec { embedding, ..spec }.with_nonlinearity(Nonlinearity::GeluTanh))
}

pub fn gemma2(keys: &Keys<'_>) -> Result<Spec> {
    let spec = gemma(keys)?;
    let window = keys.window_or(4096)?;
    let local = keys.is_local(spec.layers, 2)?;
    let each = local.iter().map(|&local| match local {
        true => (window, Some(0)),
        false => (Window::All, Some(0)),
    });
    Ok(Spec {
        norms: Placement {
            before: true,
            behind: true,
        },
        attention_scale: query_scale(&spec, 46),
        attention_softcap: keys.number_or("attn_logit_softcapping", 50.0)?,
        logit_softcap: keys.number_or("final_logit_softcapping", 30.0)?,
        ..spec
    }
    .with_layers(each))
}

/// Layers with a window have a position embedding of their own.
pub fn gemma3(keys: &Keys<'_>) -> Result<Spec> {
    let spec = gemma(keys)?;
    let mut local_rope = spec.ropes[0].clone();
    local_rope.base = f64::from(keys.number_or("rope.freq_base_swa", 10000.0)?);
    local_rope.scaling = Scaling::None;
    let (window, local) = (keys.window()?, keys.is_local(spec.layers, 6)?);
    let each = local.iter().map(|&local| match local {
        true => (window, Some(1)),
        false => (Window::All, Some(0)),
    });
    Ok(Spec {
        norms: Placement {
            before: true,
            behind: true,
        },
        qk_norm: QkNorm::Before,
        attention_scale: query_scale(&spec, 62),
        logit_softcap: keys.number_or("final_logit_softcapping", 0.0)?,
        ropes: vec![spec.ropes[0].clone(), local_rope],
        ..spec
    }
    .with_layers(each))
}

/// Files do not hold the factor of queries: it is that of a head's width, but for the largest model,
/// which is known by its layers.
fn query_scale(spec: &Spec, layers_of_largest: usize) -> f32 {
    match spec.layers == layers_of_largest {
        true => inverse_root(spec.dim as f32 / spec.heads as f32),
        false => inverse_root(spec.k_dim as f32),
    }
}

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

/// The third generation bears this name too: it has windows, and a position embedding that is not
/// scaled in layers that have one.
pub fn olmo2(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Rms, Style::Halves)?;
    let mut local_rope = spec.ropes[0].clone();
    (local_rope.scaling, local_rope.magnitude) = (Scaling::None, 1.0);
    let (window, local) = (keys.window()?, keys.is_local(spec.layers, 4)?);
    let each = local
        .iter()
        .map(|&local| match local && window != Window::All {
            true => (window, Some(1)),
            false => (Window::All, Some(0)),
        });
    Ok(Spec {
        norms: Placement {
            before: false,
            behind: true,
        },
        qk_norm: QkNorm::Before,
        ropes: vec![spec.ropes[0].clone(), local_rope],
        ..spec
    }
    .with_layers(each))
}
