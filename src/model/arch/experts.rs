//! Decoders with mixtures of experts: what each has that others do not.

use crate::error::Result;
use crate::float;
use crate::kernel::Window;
use crate::model::spec::{Experts, Gating, Latent, QkNorm, Spec, Temperature};
use crate::ops::experts::{Gate, Routing};
use crate::ops::norm::NormKind;
use crate::ops::rope::{Scaling, Style};

use super::keys::{Keys, inverse_root};
use super::rms;

/// How a family routes where its files do not say.
pub(super) const SOFTMAX: Routing = Routing {
    used: 0,
    gate: Gate::Softmax,
    groups: 1,
    groups_used: 1,
    group_best: 2,
    normalise: true,
    scale: 1.0,
};

/// A dense model unless the file has experts.
pub fn llama(keys: &Keys<'_>) -> Result<Spec> {
    let spec = rms::llama(keys)?;
    match keys.or("expert_count", 0)? {
        0 => Ok(spec),
        _ => keys.with_experts(spec, SOFTMAX, every_layer),
    }
}

pub fn qwen2moe(keys: &Keys<'_>) -> Result<Spec> {
    let routing = Routing {
        normalise: false,
        ..SOFTMAX
    };
    keys.with_experts(rms::qwen2(keys)?, routing, every_layer)
}

pub fn qwen3moe(keys: &Keys<'_>) -> Result<Spec> {
    keys.with_experts(rms::normed_heads(keys)?, SOFTMAX, every_layer)
}

/// Queries and keys are normed as whole rows.
pub fn olmoe(keys: &Keys<'_>) -> Result<Spec> {
    let routing = Routing {
        normalise: false,
        ..SOFTMAX
    };
    keys.with_experts(rms::normed_heads(keys)?, routing, every_layer)
}

pub fn granitemoe(keys: &Keys<'_>) -> Result<Spec> {
    keys.with_experts(rms::granite(keys)?, SOFTMAX, every_layer)
}

pub fn glm4moe(keys: &Keys<'_>) -> Result<Spec> {
    let spec = rms::qwen2(keys)?;
    let spec = Spec {
        qk_norm: keys.optional_qk_norm(),
        ..spec
    };
    let routing = Routing {
        gate: Gate::Sigmoid,
        ..SOFTMAX
    };
    let dense = keys.or("leading_dense_block_count", 0)?;
    keys.with_experts(spec, routing, |layer| layer >= dense)
}

pub fn hunyuan_moe(keys: &Keys<'_>) -> Result<Spec> {
    keys.with_experts(rms::hunyuan_dense(keys)?, SOFTMAX, every_layer)
}

/// Experts in every so manieth layer behind the first few.
pub fn ernie4_5_moe(keys: &Keys<'_>) -> Result<Spec> {
    let dense = keys.or("leading_dense_block_count", 0)?;
    let step = keys.or("interleave_moe_layer_step", 1)?.max(1);
    let has = |layer: usize| layer >= dense && (layer + 1).is_multiple_of(step);
    keys.with_experts(rms::llama(keys)?, SOFTMAX, has)
}

pub fn dots1(keys: &Keys<'_>) -> Result<Spec> {
    let dense = keys.or("leading_dense_block_count", 0)?;
    keys.with_experts(rms::normed_heads(keys)?, SOFTMAX, |layer| layer >= dense)
}

/// Every other layer has a window.
pub fn gpt_oss(keys: &Keys<'_>) -> Result<Spec> {
    let spec = rms::qwen2(keys)?;
    let (window, local) = (keys.window_or(128)?, keys.is_local(spec.layers, 2)?);
    let each = local.iter().map(|&local| match local {
        true => (window, Some(0)),
        false => (Window::All, Some(0)),
    });
    let gating = Gating::Clamped {
        alpha: 1.702,
        limit: 7.0,
    };
    let spec = Spec {
        sinks: true,
        gating,
        ..spec
    };
    let routing = Routing {
        gate: Gate::SoftmaxOfChosen,
        ..SOFTMAX
    };
    keys.with_experts(spec.with_layers(each), routing, every_layer)
}

/// Every fourth layer sees all keys and has no position embedding; the others see their chunk. The
/// largest model, known by its experts, does not norm queries and keys.
pub fn llama4(keys: &Keys<'_>) -> Result<Spec> {
    const LARGEST: usize = 128;
    let spec = keys.decoder(NormKind::Rms, Style::Interleaved)?;
    let chunk = keys.or("attention.sliding_window", 8192)?.max(1);
    let local = keys.is_local(spec.layers, 4)?;
    let each = local.iter().map(|&local| match local {
        true => (Window::Chunked(chunk), Some(0)),
        false => (Window::All, None),
    });
    let floor = keys.or("attention.temperature_length", 8192)? as f32;
    let temperature = Temperature {
        floor,
        scale: keys.number_or("attention.temperature_scale", 0.1)?,
    };
    let qk_norm = match keys.or("expert_count", 0)? {
        LARGEST => QkNorm::None,
        _ => QkNorm::Plain,
    };
    let spec = Spec {
        qk_norm,
        temperature: Some(temperature),
        ..spec
    };
    let routing = Routing {
        gate: Gate::Sigmoid,
        normalise: false,
        ..SOFTMAX
    };
    let step = keys.or("interleave_moe_layer_step", 1)?.max(1);
    let has = |layer: usize| (layer + 1).is_multiple_of(step);
    let spec = keys.with_experts(spec.with_layers(each), routing, has)?;
    let experts = spec.experts.map(|experts| Experts {
        shared_hidden: experts.hidden,
        weighs_input: true,
        ..experts
    });
    Ok(Spec { experts, ..spec })
}

/// Keys and values are made of narrow vectors. Its YaRN leaves rotations as long as they are, and
/// makes scores larger instead.
pub fn deepseek2(keys: &Keys<'_>) -> Result<Spec> {
    let spec = rms::llama(keys)?;
    let latent = Latent {
        q_rank: keys.or("attention.q_lora_rank", 0)?,
        kv_rank: keys.required("attention.kv_lora_rank")?,
        head_dim: keys.required("attention.key_length_mla")?,
        value_dim: keys.required("attention.value_length_mla")?,
    };
    let (mut ropes, mut growth) = (spec.ropes, 1.0);
    if let Scaling::Yarn(yarn) = &mut ropes[0].scaling {
        let step = f64::from(keys.number_or("rope.scaling.yarn_log_multiplier", 0.0)?);
        growth = 1.0 + step * float::ln64(yarn.factor);
        yarn.growth = if step > 0.0 { 0.0 } else { yarn.growth };
    }
    let spec = Spec {
        kv_heads: 1,
        k_dim: latent.kv_rank.saturating_add(ropes[0].dims),
        v_dim: latent.kv_rank,
        attention_scale: inverse_root(latent.head_dim as f32) * (growth * growth) as f32,
        latent: Some(latent),
        ropes,
        ..spec
    };
    let gate = match keys.or("expert_gating_func", 1)? {
        2 => Gate::Sigmoid,
        _ => Gate::Softmax,
    };
    let routing = Routing {
        gate,
        group_best: if gate == Gate::Sigmoid { 2 } else { 1 },
        normalise: false,
        ..SOFTMAX
    };
    let dense = keys.or("leading_dense_block_count", 0)?;
    keys.with_experts(spec, routing, |layer| layer >= dense)
}

pub(super) fn every_layer(_: usize) -> bool {
    true
}
