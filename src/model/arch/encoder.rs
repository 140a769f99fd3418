//! Encoders: what each has that others do not. A token sees those behind it too, nothing is
//! predicted, and the rows of the last layer, or one made of them, are the result.

use crate::error::Result;
use crate::kernel::{Nonlinearity, Window};
use crate::model::spec::{Curve, Embedding, Gating, Head, Placement, Pooling, Spec, require};
use crate::ops::norm::NormKind;
use crate::ops::rope::Style;

use super::keys::Keys;
use super::rms;

/// Norms of sums, so that none is left for the end; absolute positions; biases.
pub fn bert(keys: &Keys<'_>) -> Result<Spec> {
    let spec = encoder(keys, keys.decoder_without_rope(NormKind::Layer)?)?;
    Ok(Spec {
        embedding: Embedding {
            norm: true,
            positions: keys.has("position_embd.weight"),
            ..spec.embedding
        },
        norms: Placement::OF_SUMS,
        gating: Gating::None,
        head: head(keys, Pooling::First, Curve::Tanh)?,
        ..spec
    }
    .with_nonlinearity(Nonlinearity::Gelu))
}

/// As the first, with a position embedding of queries and keys and a gated network.
pub fn nomic_bert(keys: &Keys<'_>) -> Result<Spec> {
    let spec = encoder(keys, keys.decoder(NormKind::Layer, Style::Halves)?)?;
    Ok(Spec {
        embedding: Embedding {
            norm: true,
            ..spec.embedding
        },
        norms: Placement::OF_SUMS,
        ..spec
    })
}

/// As the first, with a linear bias by distance and a gated network; the one for code norms queries
/// and keys, and the sum of a layer's input and its attention once more.
pub fn jina_bert_v2(keys: &Keys<'_>) -> Result<Spec> {
    let spec = encoder(keys, keys.decoder_without_rope(NormKind::Layer)?)?;
    Ok(Spec {
        embedding: Embedding {
            norm: true,
            ..spec.embedding
        },
        norms: Placement::OF_SUMS,
        qk_norm: keys.optional_qk_norm(),
        alibi: keys.number_or("attention.max_alibi_bias", 8.0)?,
        head: head(keys, Pooling::First, Curve::Tanh)?,
        ..spec
    }
    .with_nonlinearity(Nonlinearity::Gelu))
}

/// Every so manieth layer, from the first on, sees all; the others a window around, with a position
/// embedding of their own. The embedding is normed, so the first attention needs no norm.
pub fn modern_bert(keys: &Keys<'_>) -> Result<Spec> {
    let spec = encoder(keys, keys.decoder(NormKind::Layer, Style::Halves)?)?;
    let mut local_rope = spec.ropes[0].clone();
    local_rope.base = f64::from(keys.number_or("rope.freq_base_swa", 10000.0)?);
    let period = keys.or("attention.sliding_window_pattern", 3)?.max(1);
    let window = around(keys, 128)?;
    let each = (0..spec.layers).map(|layer| match layer.is_multiple_of(period) {
        true => (Window::Both, Some(0)),
        false => (window, Some(1)),
    });
    Ok(Spec {
        embedding: Embedding {
            norm: true,
            ..spec.embedding
        },
        norms: Placement {
            first: keys.has("blk.0.attn_norm.weight"),
            ..spec.norms
        },
        ropes: vec![spec.ropes[0].clone(), local_rope],
        head: head(keys, Pooling::Mean, Curve::Gelu)?,
        ..spec
    }
    .with_layers(each)
    .with_nonlinearity(Nonlinearity::Gelu))
}

/// A decoder that sees both sides, whose embeddings go through two matrices more.
pub fn gemma_embedding(keys: &Keys<'_>) -> Result<Spec> {
    let spec = encoder(keys, rms::gemma3(keys)?)?;
    let window = around(keys, 512)?;
    let each = spec.each.clone().into_iter().map(|layer| match layer.rope {
        Some(1) => (window, layer.rope),
        _ => (layer.window, layer.rope),
    });
    let mut projections = Vec::new();
    for name in ["dense_2", "dense_3"] {
        let Some(rows) = keys.rows(&format!("{name}.weight"))? else {
            break;
        };
        let key = format!("{name}_feat_out");
        let told = keys.or(&key, rows)?;
        let expected = format!("{rows}, the rows of its matrix");
        require(told == rows, || keys.place(&key), expected, told)?;
        projections.push(rows);
    }
    Ok(Spec {
        projections,
        ..spec
    }
    .with_layers(each))
}

/// What encoders share.
fn encoder(keys: &Keys<'_>, spec: Spec) -> Result<Spec> {
    let ropes: Vec<_> = spec.each.iter().map(|layer| layer.rope).collect();
    Ok(Spec {
        embedding: Embedding {
            segments: keys.rows("token_types.weight")?.unwrap_or(0),
            ..spec.embedding
        },
        predicts: false,
        pooling: keys.pooling(Pooling::Mean)?,
        ..spec
    }
    .with_layers(ropes.into_iter().map(|rope| (Window::Both, rope))))
}

/// Half of the window is on each side.
fn around(keys: &Keys<'_>, default: usize) -> Result<Window> {
    let window = keys.or("attention.sliding_window", default)?;
    Ok(Window::Around(window / 2))
}

/// What makes scores, if the file has it.
fn head(keys: &Keys<'_>, pooling: Pooling, curve: Curve) -> Result<Option<Head>> {
    let inner = keys.rows("cls.weight")?.unwrap_or(0);
    let outputs = keys.rows("cls.output.weight")?.unwrap_or(0);
    let head = Head {
        pooling,
        inner,
        curve,
        norm: keys.has("cls.norm.weight"),
        outputs,
        odds: false,
    };
    Ok((inner > 0 || outputs > 0).then_some(head))
}
