//! Decoders whose layers, or some of them, keep a state in place of keys and values: what each has
//! that others do not.

use crate::error::Result;
use crate::model::spec::{Embedding, Mixer, QkNorm, Recurrence, RecurrenceKind, Spec};
use crate::ops::experts::{Gate, Routing};
use crate::ops::norm::NormKind;
use crate::ops::rope::Style;

use super::experts::{SOFTMAX, every_layer};
use super::keys::Keys;

/// State spaces alone, without feed-forward networks.
pub fn mamba(keys: &Keys<'_>) -> Result<Spec> {
    let kind = RecurrenceKind::Selective {
        rank: keys.required("ssm.time_step_rank")?,
        norms: keys.flag_or("ssm.dt_b_c_rms", false)?,
    };
    let recurrence = Recurrence {
        kind,
        heads: 1,
        groups: 1,
        ..heads(keys)?
    };
    Ok(keys
        .bare(NormKind::Rms)?
        .with_recurrence(recurrence, every_layer))
}

/// The same with heads.
pub fn mamba2(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.bare(NormKind::Rms)?;
    Ok(spec.with_recurrence(heads(keys)?, every_layer))
}

/// Attention and a state space side by side in each layer. Files hold weights that its many factors
/// are already in.
pub fn falcon_h1(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Rms, Style::Halves)?;
    let mut spec = Spec {
        recurrence: Some(heads(keys)?),
        ..spec
    };
    for layer in &mut spec.each {
        layer.mixer = Mixer::Both;
    }
    Ok(spec)
}

/// State spaces with heads, attention in some layers, which turn only if the file says so; perhaps
/// experts and a network that all tokens take besides.
pub fn granite_hybrid(keys: &Keys<'_>) -> Result<Spec> {
    let (spec, attends) = keys.partly_attending(NormKind::Rms)?;
    let spec = match keys.flag_or("rope.scaling.finetuned", true)? {
        true => keys.turning(spec, Style::Interleaved)?,
        false => spec,
    };
    let embedding = Embedding {
        scale: keys.number_or("embedding_scale", 1.0)?,
        ..spec.embedding
    };
    let spec = Spec {
        embedding,
        residual_scale: keys.number_or("residual_scale", 1.0)?,
        attention_scale: keys.number_or("attention.scale", spec.attention_scale)?,
        logit_scale: 1.0 / keys.number_or("logit_scale", 1.0)?,
        ..spec
    };
    let spec = spec.with_recurrence(heads(keys)?, |layer| !attends[layer]);
    match keys.or("expert_count", 0)? {
        0 => Ok(spec),
        _ => keys.with_experts(spec, SOFTMAX, every_layer),
    }
}

/// Short convolutions, attention in some layers.
pub fn lfm2(keys: &Keys<'_>) -> Result<Spec> {
    let (spec, attends) = keys.partly_attending(NormKind::Rms)?;
    let recurrence = Recurrence {
        kind: RecurrenceKind::Convolution,
        taps: keys.required("shortconv.l_cache")?,
        inner: spec.dim,
        rows: 0,
        heads: 1,
        groups: 1,
    };
    let spec = Spec {
        qk_norm: QkNorm::Before,
        ..keys.turning(spec, Style::Halves)?
    };
    Ok(spec.with_recurrence(recurrence, |layer| !attends[layer]))
}

pub fn lfm2moe(keys: &Keys<'_>) -> Result<Spec> {
    let routing = Routing {
        gate: Gate::Sigmoid,
        ..SOFTMAX
    };
    let dense = keys.or("leading_dense_block_count", 0)?;
    keys.with_experts(lfm2(keys)?, routing, |layer| layer >= dense)
}

/// Memories from keys to values; every so manieth layer attends, with gated heads. A part of each
/// turns.
pub fn qwen3next(keys: &Keys<'_>) -> Result<Spec> {
    keys.with_experts(delta(keys, false)?, SOFTMAX, every_layer)
}

/// The same without experts; heads of a group are apart in its files. Positions in texts are the
/// same in all sections of the rotation.
pub fn qwen35(keys: &Keys<'_>) -> Result<Spec> {
    delta(keys, true)
}

pub fn qwen35moe(keys: &Keys<'_>) -> Result<Spec> {
    keys.with_experts(delta(keys, true)?, SOFTMAX, every_layer)
}

fn delta(keys: &Keys<'_>, tiled: bool) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Rms, Style::Halves)?;
    let recurrence = Recurrence {
        kind: RecurrenceKind::Delta { tiled },
        ..heads(keys)?
    };
    let interval = keys.or("full_attention_interval", 4)?.max(1);
    let spec = Spec {
        qk_norm: QkNorm::Before,
        gated_heads: true,
        ..spec
    };
    let recurs = |layer: usize| !(layer + 1).is_multiple_of(interval);
    Ok(spec.with_recurrence(recurrence, recurs))
}

/// What a file says of a state space with heads.
fn heads(keys: &Keys<'_>) -> Result<Recurrence> {
    Ok(Recurrence {
        kind: RecurrenceKind::Heads,
        taps: keys.required("ssm.conv_kernel")?,
        inner: keys.required("ssm.inner_size")?,
        rows: keys.required("ssm.state_size")?,
        heads: keys.required("ssm.time_step_rank")?,
        groups: keys.or("ssm.group_count", 1)?,
    })
}
