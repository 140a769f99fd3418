//! The phases of a feed-forward network that all tokens take.

use super::{Context, layer_not_finite, wants_quants};
use crate::control::Flow;
use crate::error::Result;
use crate::kernel::{Input, Kernels, Nonlinearity};
use crate::model::forward::Pass;
use crate::model::spec::Gating;
use crate::model::weights::Ffn;
use crate::quant::GROUP;
use crate::team::Chunks;

impl Pass {
    /// ffn = normed x (gate, up).
    pub(in crate::model) fn gate_up(&mut self, context: &Context<'_>, ffn: &Ffn) -> Result<Flow> {
        let dim = context.network.spec.dim;
        let x = Input::new(dim, &self.scratch.normed, &self.scratch.quants);
        let n = self.scratch.batch.rows().len();
        context.matmul(
            (&mut self.task, self.threads),
            &ffn.inputs,
            x,
            n,
            &mut self.scratch.ffn,
        )
    }

    /// The first half of ffn = activation(gate) * up, or all of it = activation(up); quantized if
    /// wanted.
    pub(in crate::model) fn activate(&mut self, context: &Context<'_>, ffn: &Ffn) -> Result<Flow> {
        let spec = &context.network.spec;
        let hidden = ffn.down.weight.columns();
        let width = spec.gated_width(hidden);
        let (n, groups) = (self.scratch.batch.rows().len(), hidden.div_ceil(GROUP));
        let parts = (
            // A nanosecond for each exponential.
            Chunks::new(&mut self.scratch.ffn[..n * width], width).taking(n * hidden),
            Chunks::new(&mut self.scratch.quants[..n * groups], groups),
        );
        let pack = wants_quants(std::slice::from_ref(&ffn.down));
        let (layer, kernels) = (self.layer, context.kernels);
        let function = spec.each[layer].nonlinearity;
        context.run(&mut self.task, parts, |_, (ffn, quants)| {
            let (gate, up) = ffn.split_at_mut(hidden);
            activate(kernels, function, spec.gating, (gate, up));
            let finite = !pack || kernels.quantize_row(gate, quants);
            finite.then_some(()).ok_or_else(|| layer_not_finite(layer))
        })
    }

    /// delta = (first half of ffn) x down.
    pub(in crate::model) fn down(&mut self, context: &Context<'_>, ffn: &Ffn) -> Result<Flow> {
        let hidden = ffn.down.weight.columns();
        let x = Input {
            columns: hidden,
            stride: context.network.spec.gated_width(hidden),
            floats: &self.scratch.ffn,
            quants: &self.scratch.quants,
        };
        let n = self.scratch.batch.rows().len();
        context.matmul(
            (&mut self.task, self.threads),
            std::slice::from_ref(&ffn.down),
            x,
            n,
            &mut self.scratch.delta,
        )
    }
}

/// gate = activation(gate) * up, or without gating the activation alone.
pub(super) fn activate(
    kernels: &Kernels,
    function: Nonlinearity,
    gating: Gating,
    (gate, up): (&mut [f32], &[f32]),
) {
    match (gating, function) {
        (Gating::None, function) => kernels.activate(function, gate),
        (Gating::Product, Nonlinearity::Silu) => kernels.swiglu(gate, up),
        (Gating::Product, function) => {
            kernels.activate(function, gate);
            kernels.multiply(gate, up);
        }
        (Gating::Clamped { alpha, limit }, _) => kernels.swiglu_clamped(gate, up, alpha, limit),
    }
}
