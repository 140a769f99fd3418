//! The phases of a mixture of experts: rows of the batch become slots, one for each expert that a row
//! takes, in the order of the experts, so that the weights of each are read once.

use super::{Context, ffn, layer_not_finite, wants_floats, wants_quants};
use crate::control::Flow;
use crate::error::Result;
use crate::float;
use crate::kernel::Input;
use crate::model::forward::Pass;
use crate::model::scratch::Scratch;
use crate::model::spec::Experts;
use crate::model::weights::ExpertWeights;
use crate::ops::experts::{self, Stacks};
use crate::ops::matmul;
use crate::quant::GROUP;
use crate::team::{Chunks, Tiles};

impl Pass {
    /// router = normed x (router and, if so, the gate of the shared network).
    pub(in crate::model) fn route(
        &mut self,
        context: &Context<'_>,
        weights: &ExpertWeights,
    ) -> Result<Flow> {
        let dim = context.network.spec.dim;
        let x = Input::new(dim, &self.scratch.normed, &self.scratch.quants);
        let n = self.scratch.batch.rows().len();
        context.matmul(
            (&mut self.task, self.threads),
            &weights.router,
            x,
            n,
            &mut self.scratch.router,
        )
    }

    /// Each row chooses; then all picks get their slots.
    pub(in crate::model) fn choose(
        &mut self,
        context: &Context<'_>,
        (weights, experts): (&ExpertWeights, &Experts),
    ) -> Result<Flow> {
        let (n, used) = (self.scratch.batch.rows().len(), experts.routing.used);
        let Scratch {
            router,
            choice,
            picks,
            counts,
            order,
            ..
        } = &mut self.scratch;
        let width = weights
            .router
            .iter()
            .map(|linear| linear.weight.rows())
            .sum();
        let parts = (
            Chunks::new(&mut router[..n * width], width),
            // A nanosecond for each score.
            Chunks::new(&mut choice[..n * experts.count], experts.count).taking(n * experts.count),
            Chunks::new(&mut picks[..n * used], used),
        );
        let bias = weights.bias.as_deref().unwrap_or(&[]);
        let flow = context.run(&mut self.task, parts, |_, (router, room, picks)| {
            let logits = &mut router[..experts.count];
            experts.routing.choose(logits, bias, room, picks);
            Ok(())
        })?;
        if flow == Flow::Done {
            let counts = &mut counts[..=experts.count];
            experts::sort(&mut picks[..n * used], counts, &mut order[..n * used]);
        }
        Ok(flow)
    }

    /// slots = the normed row of each slot, in the forms that are wanted.
    pub(in crate::model) fn gather(
        &mut self,
        context: &Context<'_>,
        (weights, experts): (&ExpertWeights, &Experts),
    ) -> Result<Flow> {
        let (dim, used) = (context.network.spec.dim, experts.routing.used);
        let (n, groups) = (self.scratch.batch.rows().len() * used, dim.div_ceil(GROUP));
        let Scratch {
            slots,
            slot_quants,
            normed,
            quants: normed_quants,
            picks,
            order,
            ..
        } = &mut self.scratch;
        let parts = (
            Chunks::new(&mut slots[..n * dim], dim),
            Chunks::new(&mut slot_quants[..n * groups], groups),
        );
        let (pack, layer, kernels) = (wants_quants(&weights.inputs), self.layer, context.kernels);
        let scaled = experts.weighs_input;
        let floats = scaled || wants_floats(&weights.inputs);
        context.run(&mut self.task, parts, |slot, (x, quants)| {
            let pick = order[slot] as usize;
            let row = pick / used;
            if floats {
                x.copy_from_slice(&normed[row * dim..][..dim]);
            }
            if scaled {
                kernels.scale(x, picks[pick].weight);
            }
            match pack {
                true if scaled => {
                    let finite = kernels.quantize_row(x, quants);
                    return finite.then_some(()).ok_or_else(|| layer_not_finite(layer));
                }
                true => quants.copy_from_slice(&normed_quants[row * groups..][..groups]),
                false => {}
            }
            Ok(())
        })
    }

    /// ffn = slots x (gate, up) of each slot's expert.
    pub(in crate::model) fn experts_in(
        &mut self,
        context: &Context<'_>,
        (weights, experts): (&ExpertWeights, &Experts),
    ) -> Result<Flow> {
        let dim = context.network.spec.dim;
        let Scratch {
            slots,
            slot_quants,
            ffn,
            batch,
            picks,
            order,
            ..
        } = &mut self.scratch;
        let x = Input::new(dim, slots, slot_quants);
        let rows = batch.rows().len();
        let stacks = Stacks {
            linears: &weights.inputs,
            experts: experts.count,
            slots: rows * experts.routing.used,
            expert_of: |slot: usize| picks[order[slot] as usize].expert as usize,
        };
        let task = (&mut self.task, self.threads);
        context.products(task, stacks, (rows, x), ffn)
    }

    /// The first half of ffn = activation(gate) * up, or all of it the activation; quantized if wanted.
    pub(in crate::model) fn experts_activate(
        &mut self,
        context: &Context<'_>,
        (weights, experts): (&ExpertWeights, &Experts),
    ) -> Result<Flow> {
        let spec = &context.network.spec;
        let n = self.scratch.batch.rows().len() * experts.routing.used;
        let (width, groups) = (
            spec.gated_width(experts.hidden),
            experts.hidden.div_ceil(GROUP),
        );
        let parts = (
            // A nanosecond for each exponential.
            Chunks::new(&mut self.scratch.ffn[..n * width], width).taking(n * experts.hidden),
            Chunks::new(&mut self.scratch.slot_quants[..n * groups], groups),
        );
        let pack = wants_quants(std::slice::from_ref(&weights.down));
        let (layer, kernels) = (self.layer, context.kernels);
        let function = spec.each[layer].nonlinearity;
        context.run(&mut self.task, parts, |_, (ffn, quants)| {
            let (gate, up) = ffn.split_at_mut(experts.hidden);
            ffn::activate(kernels, function, spec.gating, (gate, up));
            let finite = !pack || kernels.quantize_row(gate, quants);
            finite.then_some(()).ok_or_else(|| layer_not_finite(layer))
        })
    }

    /// slots = (first half of ffn) x down of each slot's expert.
    pub(in crate::model) fn experts_out(
        &mut self,
        context: &Context<'_>,
        (weights, experts): (&ExpertWeights, &Experts),
    ) -> Result<Flow> {
        let Scratch {
            slots,
            slot_quants,
            ffn,
            batch,
            picks,
            order,
            ..
        } = &mut self.scratch;
        let x = Input {
            columns: experts.hidden,
            stride: context.network.spec.gated_width(experts.hidden),
            floats: ffn,
            quants: slot_quants,
        };
        let rows = batch.rows().len();
        let stacks = Stacks {
            linears: std::slice::from_ref(&weights.down),
            experts: experts.count,
            slots: rows * experts.routing.used,
            expert_of: |slot: usize| picks[order[slot] as usize].expert as usize,
        };
        let task = (&mut self.task, self.threads);
        context.products(task, stacks, (rows, x), slots)
    }

    /// delta = what the shared network gave, if there is one, by its gate, and what the experts gave,
    /// by their weights, the best first.
    pub(in crate::model) fn combine(
        &mut self,
        context: &Context<'_>,
        (weights, experts): (&ExpertWeights, &Experts),
    ) -> Result<Flow> {
        let (dim, used) = (context.network.spec.dim, experts.routing.used);
        let n = self.scratch.batch.rows().len();
        let Scratch {
            delta,
            slots,
            picks,
            router,
            ..
        } = &mut self.scratch;
        let width: usize = weights
            .router
            .iter()
            .map(|linear| linear.weight.rows())
            .sum();
        let (kernels, is_gated) = (context.kernels, width > experts.count);
        let delta = Chunks::new(&mut delta[..n * dim], dim);
        context.run(&mut self.task, delta, |row, delta| {
            match experts.shared_hidden > 0 {
                true if is_gated => {
                    let gate = router[row * width + experts.count];
                    kernels.scale(delta, float::sigmoid(gate));
                }
                true => {}
                false => delta.fill(0.0),
            }
            for pick in &picks[row * used..][..used] {
                let given = &slots[pick.slot as usize * dim..][..dim];
                match experts.weighs_input {
                    true => kernels.add(delta, given),
                    false => kernels.add_scaled(delta, pick.weight, given),
                }
            }
            Ok(())
        })
    }
}

impl Context<'_> {
    /// out = the slots of x, which come of `rows` of the batch, each times the matrices of its expert,
    /// side by side.
    pub(super) fn products<E: Fn(usize) -> usize + Sync>(
        &self,
        (task, threads): (&mut usize, usize),
        stacks: Stacks<'_, E>,
        (rows, x): (usize, Input<'_>),
        out: &mut [f32],
    ) -> Result<Flow> {
        let (slots, outputs) = (stacks.slots, stacks.outputs());
        let shape = (slots, outputs, x.columns);
        // A single row has every expert once: a task reads consecutive weights then.
        let most = matmul::task_max(self.kernels, stacks.linears, slots / stacks.experts);
        let tile = match rows {
            1 => matmul::tiling(most, (1, slots * outputs, x.columns), threads),
            _ => matmul::tiling(most, shape, threads),
        };
        let work_ns = matmul::work_ns(self.kernels, stacks.linears, shape);
        let tiles = Tiles::new(&mut out[..slots * outputs], outputs, tile).taking(work_ns);
        self.run(task, tiles, |_, tile| {
            stacks.multiply(self.kernels, (&x, threads), tile);
            Ok(())
        })
    }
}
