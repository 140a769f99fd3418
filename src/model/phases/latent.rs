//! The phases of latent attention: a token keeps one narrow vector from which the keys and values of
//! all heads could be made. Instead the matrix that would make keys is applied to queries, and the one
//! that would make values to what attention gives, so that the narrow vectors are key and value of a
//! single head. Source: arXiv 2405.04434, section 2.1.
//!
//! Products with a matrix of each head take rows in the order (heads, rows of the batch).

use std::ops::Range;

use super::{Context, layer_not_finite, wants_quants};
use crate::control::Flow;
use crate::error::Result;
use crate::kernel::{Input, Kernels};
use crate::model::forward::Pass;
use crate::model::scratch::Scratch;
use crate::model::spec::Latent;
use crate::model::weights::LatentWeights;
use crate::ops::experts::Stacks;
use crate::ops::matmul::Linear;
use crate::ops::rope::Style;
use crate::quant::GROUP;
use crate::team::Chunks;

/// What a phase of latent attention works with.
type Parts<'a> = (&'a LatentWeights, &'a Latent);

impl Pass {
    /// low = normed x (what queries are made of, the latent vector and the shared part of keys).
    pub(in crate::model) fn low(
        &mut self,
        context: &Context<'_>,
        linears: &[Linear],
    ) -> Result<Flow> {
        let dim = context.network.spec.dim;
        let x = Input::new(dim, &self.scratch.normed, &self.scratch.quants);
        let n = self.scratch.batch.rows().len();
        let task = (&mut self.task, self.threads);
        context.matmul(task, linears, x, n, &mut self.scratch.low)
    }

    /// Norms both latent vectors, turns the shared part of keys, and gives keys and values out.
    pub(in crate::model) fn low_shape(
        &mut self,
        context: &Context<'_>,
        (weights, latent): Parts<'_>,
    ) -> Result<Flow> {
        let (spec, kernels, layer) = (&context.network.spec, context.kernels, self.layer);
        let (width, q_low) = (latent.low_width(spec), latent.q_low(spec));
        let (n, qkv_width) = (self.scratch.batch.rows().len(), spec.qkv_width());
        let (pairs, groups) = (spec.pairs(), latent.q_rank.div_ceil(GROUP).max(1));
        let Scratch {
            low,
            qkv,
            quants,
            turns,
            ..
        } = &mut self.scratch;
        let parts = (
            Chunks::new(&mut low[..n * width], width),
            Chunks::new(&mut qkv[..n * qkv_width], qkv_width),
            Chunks::new(&mut quants[..n * groups], groups),
        );
        let pack = weights
            .q_b
            .as_ref()
            .is_some_and(|q_b| wants_quants(std::slice::from_ref(q_b)));
        let turn = Turn::new(context, layer);
        context.run(&mut self.task, parts, |row, (low, qkv, quants)| {
            let (queries, keys) = low.split_at_mut(q_low);
            let (narrow, shared) = keys.split_at_mut(latent.kv_rank);
            let mut finite = weights.kv_norm.apply(kernels, narrow);
            turn.apply(shared, &turns[row * pairs..][..pairs]);
            let key = &mut qkv[spec.q_width()..];
            key[..latent.kv_rank].copy_from_slice(narrow);
            key[latent.kv_rank..spec.k_dim].copy_from_slice(shared);
            key[spec.k_dim..][..latent.kv_rank].copy_from_slice(narrow);
            if let Some(norm) = &weights.q_norm {
                finite &= norm.apply(kernels, queries);
                finite &= !pack || kernels.quantize_row(queries, quants);
            }
            finite.then_some(()).ok_or_else(|| layer_not_finite(layer))
        })
    }

    /// wide = queries made of their latent vector.
    pub(in crate::model) fn queries(
        &mut self,
        context: &Context<'_>,
        (weights, latent): Parts<'_>,
    ) -> Result<Flow> {
        let Some(q_b) = &weights.q_b else {
            return Ok(Flow::Done);
        };
        let x = Input {
            columns: latent.q_rank,
            stride: latent.low_width(&context.network.spec),
            floats: &self.scratch.low,
            quants: &self.scratch.quants,
        };
        let n = self.scratch.batch.rows().len();
        let task = (&mut self.task, self.threads);
        let q_b = std::slice::from_ref(q_b);
        context.matmul(task, q_b, x, n, &mut self.scratch.wide)
    }

    /// slots = the part of each head's query that does not turn, quantized if wanted.
    pub(in crate::model) fn gather_queries(
        &mut self,
        context: &Context<'_>,
        (weights, latent): Parts<'_>,
    ) -> Result<Flow> {
        let spec = &context.network.spec;
        let Scratch {
            low,
            wide,
            batch,
            slots,
            slot_quants,
            ..
        } = &mut self.scratch;
        let (from, stride): (&[f32], usize) = match &weights.q_b {
            Some(_) => (wide, latent.q_width(spec)),
            None => (low, latent.low_width(spec)),
        };
        let n = batch.rows().len();
        let width = latent.head_dim;
        let place = |slot: usize| slot % n * stride + slot / n * width;
        let (len, pack) = (
            latent.plain_dim(spec),
            wants_quants(std::slice::from_ref(&weights.k_b)),
        );
        let groups = len.div_ceil(GROUP);
        let parts = (
            Chunks::new(&mut slots[..spec.heads * n * len], len),
            Chunks::new(&mut slot_quants[..spec.heads * n * groups], groups),
        );
        let (layer, kernels) = (self.layer, context.kernels);
        context.run(&mut self.task, parts, |slot, (x, quants)| {
            x.copy_from_slice(&from[place(slot)..][..len]);
            let finite = !pack || kernels.quantize_row(x, quants);
            finite.then_some(()).ok_or_else(|| layer_not_finite(layer))
        })
    }

    /// products = slots x the matrix of each head.
    pub(in crate::model) fn of_heads(
        &mut self,
        context: &Context<'_>,
        matrix: &Linear,
    ) -> Result<Flow> {
        let (heads, n) = (context.network.spec.heads, self.scratch.batch.rows().len());
        let Scratch {
            slots,
            slot_quants,
            products,
            ..
        } = &mut self.scratch;
        let columns = matrix.weight.columns();
        let x = Input::new(columns, slots, slot_quants);
        let stacks = Stacks {
            linears: std::slice::from_ref(matrix),
            experts: heads,
            slots: n * heads,
            expert_of: |slot| slot / n,
        };
        let task = (&mut self.task, self.threads);
        context.products(task, stacks, (n, x), products)
    }

    /// Queries are what the products gave, and the part that turns.
    pub(in crate::model) fn scatter_queries(
        &mut self,
        context: &Context<'_>,
        (weights, latent): Parts<'_>,
    ) -> Result<Flow> {
        let spec = &context.network.spec;
        let (n, width, pairs) = (
            self.scratch.batch.rows().len(),
            spec.qkv_width(),
            spec.pairs(),
        );
        let Scratch {
            low,
            wide,
            products,
            turns,
            qkv,
            ..
        } = &mut self.scratch;
        let (from, stride): (&[f32], usize) = match &weights.q_b {
            Some(_) => (wide, latent.q_width(spec)),
            None => (low, latent.low_width(spec)),
        };
        let (turn, rank) = (Turn::new(context, self.layer), latent.kv_rank);
        let qkv = Chunks::new(&mut qkv[..n * width], width);
        context.run(&mut self.task, qkv, |row, qkv| {
            let queries = qkv[..spec.q_width()].chunks_exact_mut(spec.k_dim);
            for (head, query) in queries.enumerate() {
                query[..rank].copy_from_slice(&products[(head * n + row) * rank..][..rank]);
                let made = &from[row * stride + head * latent.head_dim..][..latent.head_dim];
                query[rank..].copy_from_slice(&made[latent.plain_dim(spec)..]);
                turn.apply(&mut query[rank..], &turns[row * pairs..][..pairs]);
            }
            Ok(())
        })
    }

    /// slots = what attention gave for each head, quantized if wanted.
    pub(in crate::model) fn gather_values(
        &mut self,
        context: &Context<'_>,
        (weights, latent): Parts<'_>,
    ) -> Result<Flow> {
        let spec = &context.network.spec;
        let (n, len, groups) = (
            self.scratch.batch.rows().len(),
            latent.kv_rank,
            latent.kv_rank.div_ceil(GROUP),
        );
        let Scratch {
            attended,
            slots,
            slot_quants,
            ..
        } = &mut self.scratch;
        let parts = (
            Chunks::new(&mut slots[..spec.heads * n * len], len),
            Chunks::new(&mut slot_quants[..spec.heads * n * groups], groups),
        );
        let pack = wants_quants(std::slice::from_ref(&weights.v_b));
        let (layer, kernels) = (self.layer, context.kernels);
        context.run(&mut self.task, parts, |slot, (x, quants)| {
            let start = (slot % n * spec.heads + slot / n) * len;
            x.copy_from_slice(&attended[start..][..len]);
            let finite = !pack || kernels.quantize_row(x, quants);
            finite.then_some(()).ok_or_else(|| layer_not_finite(layer))
        })
    }

    /// attended = the products of all heads, quantized if wanted.
    pub(in crate::model) fn scatter_values(
        &mut self,
        context: &Context<'_>,
        (latent, out): (&Latent, &Linear),
    ) -> Result<Flow> {
        let spec = &context.network.spec;
        let (n, len) = (self.scratch.batch.rows().len(), latent.value_dim);
        let width = spec.heads * len;
        let groups = width.div_ceil(GROUP);
        let Scratch {
            attended,
            quants,
            products,
            ..
        } = &mut self.scratch;
        let parts = (
            Chunks::new(&mut attended[..n * width], width),
            Chunks::new(&mut quants[..n * groups], groups),
        );
        let pack = wants_quants(std::slice::from_ref(out));
        let (layer, kernels) = (self.layer, context.kernels);
        context.run(&mut self.task, parts, |row, (attended, quants)| {
            for (head, out) in attended.chunks_exact_mut(len).enumerate() {
                out.copy_from_slice(&products[(head * n + row) * len..][..len]);
            }
            let finite = !pack || kernels.quantize_row(attended, quants);
            finite.then_some(()).ok_or_else(|| layer_not_finite(layer))
        })
    }
}

/// The position embedding of a layer, if it has one.
struct Turn<'a> {
    kernels: &'a Kernels,
    rope: Option<(Style, Range<usize>)>,
}

impl<'a> Turn<'a> {
    fn new(context: &Context<'a>, layer: usize) -> Self {
        let spec = &context.network.spec;
        let rope = spec.each[layer].rope;
        Self {
            kernels: context.kernels,
            rope: rope.map(|i| (spec.ropes[i].style, spec.turns(i))),
        }
    }

    /// Turns a part of a head by its share of the row's turns.
    fn apply(&self, part: &mut [f32], turns: &[[f32; 2]]) {
        match &self.rope {
            Some((Style::Interleaved, own)) => {
                self.kernels.rope_interleaved(part, &turns[own.clone()]);
            }
            Some((Style::Halves, own)) => self.kernels.rope_halves(part, &turns[own.clone()]),
            None => {}
        }
    }
}
