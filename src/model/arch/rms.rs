//! Dense decoders with norms by the mean square and gated networks: what each has that others do not.

use crate::error::Result;
use crate::float;
use crate::kernel::{Nonlinearity, Window, Xielu};
use crate::model::spec::{
    Curve, Embedding, Gating, Head, Placement, Pooling, QkNorm, Spec, require,
};
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

pub fn normed_heads(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Rms, Style::Halves)?;
    Ok(Spec {
        qk_norm: QkNorm::Before,
        ..spec
    })
}

/// The same; files of rerankers hold the output's rows for yes and for no.
pub fn qwen3(keys: &Keys<'_>) -> Result<Spec> {
    const ANSWERS: usize = 2;
    let name = "cls.output.weight";
    let outputs = keys.rows(name)?;
    let place = || format!("tensor '{name}'");
    let holds = outputs.is_none_or(|outputs| outputs == ANSWERS);
    require(holds, place, "2 rows", outputs.unwrap_or(ANSWERS))?;
    Ok(Spec {
        head: outputs.map(|outputs| Head {
            pooling: Pooling::Last,
            inner: 0,
            curve: Curve::Tanh,
            norm: false,
            outputs,
            odds: true,
        }),
        ..normed_heads(keys)?
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
            behind: true,
            ..spec.norms
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
            behind: true,
            ..spec.norms
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
            ..spec.norms
        },
        qk_norm: QkNorm::Before,
        ropes: vec![spec.ropes[0].clone(), local_rope],
        ..spec
    }
    .with_layers(each))
}

/// As the first, with factors in many places.
pub fn granite(keys: &Keys<'_>) -> Result<Spec> {
    let spec = llama(keys)?;
    let embedding = Embedding {
        scale: keys.number_or("embedding_scale", 1.0)?,
        ..spec.embedding
    };
    Ok(Spec {
        embedding,
        residual_scale: keys.number_or("residual_scale", 1.0)?,
        attention_scale: keys.number_or("attention.scale", spec.attention_scale)?,
        logit_scale: 1.0 / keys.number_or("logit_scale", 1.0)?,
        ..spec
    })
}

/// The same; older files do not say its factors.
pub fn minicpm(keys: &Keys<'_>) -> Result<Spec> {
    let spec = llama(keys)?;
    let embedding = Embedding {
        scale: keys.number_or("embedding_scale", 12.0)?,
        ..spec.embedding
    };
    let (residual, logit) = (
        1.4 * inverse_root(spec.layers as f32),
        spec.dim as f32 / 256.0,
    );
    Ok(Spec {
        embedding,
        residual_scale: keys.number_or("residual_scale", residual)?,
        logit_scale: 1.0 / keys.number_or("logit_scale", logit)?,
        ..spec
    })
}

/// A part of each head turns, in pairs of neighbours.
pub fn glm4(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Rms, Style::Interleaved)?;
    Ok(Spec {
        norms: Placement {
            behind: true,
            ..spec.norms
        },
        ..spec
    })
}

/// Where some layers have windows, only these have a position embedding. Older files of the large
/// model, known by its layers, do not say which.
pub fn exaone4(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Rms, Style::Halves)?;
    let is_mixed = keys.has_key("attention.sliding_window_pattern") || spec.layers == 64;
    let window = keys.window_or(4096)?;
    let local = keys.is_local(spec.layers, 4)?;
    let each = local.iter().map(|&local| match (is_mixed, local) {
        (false, _) => (Window::All, Some(0)),
        (true, true) => (window, Some(0)),
        (true, false) => (Window::All, None),
    });
    Ok(Spec {
        norms: Placement {
            before: false,
            behind: true,
            ..spec.norms
        },
        qk_norm: QkNorm::Before,
        ..spec
    }
    .with_layers(each))
}

/// As the first, but every fourth layer has no position embedding.
pub fn smollm3(keys: &Keys<'_>) -> Result<Spec> {
    let turns = |layer: usize| (layer % 4 < 3).then_some(0);
    let each = (0..).map(|layer| (Window::All, turns(layer)));
    Ok(llama(keys)?.with_layers(each))
}

pub fn hunyuan_dense(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Rms, Style::Halves)?;
    Ok(Spec {
        qk_norm: QkNorm::Behind,
        ..spec
    })
}

/// As the first, without gate.
pub fn arcee(keys: &Keys<'_>) -> Result<Spec> {
    let spec = llama(keys)?;
    Ok(Spec {
        gating: Gating::None,
        ..spec
    }
    .with_nonlinearity(Nonlinearity::ReluSquared))
}

/// The curve of its activation is another in each layer.
pub fn apertus(keys: &Keys<'_>) -> Result<Spec> {
    let spec = keys.decoder(NormKind::Rms, Style::Halves)?;
    let of_layers = |name: &str| keys.each_number(name, spec.layers);
    let (a, c) = (of_layers("xielu.alpha_p")?, of_layers("xielu.alpha_n")?);
    let (b, epsilon) = (of_layers("xielu.beta")?, of_layers("xielu.eps")?);
    let mut spec = Spec {
        qk_norm: QkNorm::Before,
        gating: Gating::None,
        ..spec
    };
    for (i, layer) in spec.each.iter_mut().enumerate() {
        layer.nonlinearity = Nonlinearity::Xielu(Xielu {
            a: float::softplus(a[i]),
            b: b[i],
            c: b[i] + float::softplus(c[i]),
            epsilon: epsilon[i],
        });
    }
    Ok(spec)
}
