//! The phases of a dense feed-forward network.

use super::{Context, layer_not_finite};
use crate::control::Flow;
use crate::error::Result;
use crate::kernel::{Input, Kernels, Nonlinearity};
use crate::model::forward::Pass;
use crate::model::spec::Gating;
use crate::ops::matmul::Linear;
use crate::quant::GROUP;
use crate::team::Chunks;

impl Pass {
    /// ffn = normed x (gate, up).
    pub(in crate::model) fn gate_up(
        &mut self,
        context: &Context<'_>,
        linears: &[Linear],
    ) -> Result<Flow> {
        let dim = context.network.spec.dim;
        let x = Input {
            columns: dim,
            stride: dim,
            floats: &self.scratch.normed,
            quants: &self.scratch.quants,
        };
        let n = self.scratch.batch.rows().len();
        context.matmul(
            (&mut self.task, self.threads),
            linears,
            x,
            n,
            &mut self.scratch.ffn,
        )
    }

    /// The first half of ffn = activation(gate) * up, or all of it = activation(up); quantized if
    /// wanted.
    pub(in crate::model) fn activate(&mut self, context: &Context<'_>, pack: bool) -> Result<Flow> {
        let spec = &context.network.spec;
        let (hidden, width) = (spec.hidden, spec.ffn_width());
        let (n, groups) = (self.scratch.batch.rows().len(), hidden.div_ceil(GROUP));
        let parts = (
            Chunks::new(&mut self.scratch.ffn[..n * width], width),
            Chunks::new(&mut self.scratch.quants[..n * groups], groups),
        );
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
    pub(in crate::model) fn down(&mut self, context: &Context<'_>, down: &Linear) -> Result<Flow> {
        let spec = &context.network.spec;
        let x = Input {
            columns: spec.hidden,
            stride: spec.ffn_width(),
            floats: &self.scratch.ffn,
            quants: &self.scratch.quants,
        };
        let n = self.scratch.batch.rows().len();
        context.matmul(
            (&mut self.task, self.threads),
            std::slice::from_ref(down),
            x,
            n,
            &mut self.scratch.delta,
        )
    }
}

/// gate = activation(gate) * up, or without gating the activation alone.
fn activate(
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
