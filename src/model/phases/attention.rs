//! The phases of attention.

use std::ops::Range;

use super::{Context, layer_not_finite, takes_quants};
use crate::control::Flow;
use crate::error::Result;
use crate::float;
use crate::kernel::Input;
use crate::kv::Cache;
use crate::model::Network;
use crate::model::forward::Pass;
use crate::model::scratch::Scratch;
use crate::model::spec::{QkNorm, Spec, Temperature};
use crate::ops::attention::{self, Block, Queries, Spans};
use crate::ops::matmul::Linear;
use crate::ops::rope::Style;
use crate::quant::GROUP;
use crate::team::{Chunks, Tiles};

impl Pass {
    /// qkv = normed x (q, k, v).
    pub(in crate::model) fn qkv(
        &mut self,
        context: &Context<'_>,
        linears: &[Linear],
    ) -> Result<Flow> {
        let spec = &context.network.spec;
        let x = Input::new(spec.dim, &self.scratch.normed, &self.scratch.quants);
        let n = self.scratch.batch.rows().len();
        context.matmul(
            (&mut self.task, self.threads),
            linears,
            x,
            n,
            &mut self.scratch.qkv,
        )
    }

    /// Whether anything is done to queries, keys and values before they are used.
    pub(in crate::model) fn shapes_qkv(&self, spec: &Spec) -> bool {
        let layer = &spec.each[self.layer];
        layer.rope.is_some()
            || spec.qkv_limit > 0.0
            || spec.qk_norm != QkNorm::None
            || spec.temperature.is_some()
    }

    /// Bounds, norms and turns queries and keys in place.
    pub(in crate::model) fn shape_qkv(&mut self, context: &Context<'_>) -> Result<Flow> {
        let Network {
            spec,
            weights,
            kernels,
            ..
        } = context.network;
        let (n, width, pairs) = (
            self.scratch.batch.rows().len(),
            spec.qkv_width(),
            spec.pairs(),
        );
        let qkv = Chunks::new(&mut self.scratch.qkv[..n * width], width);
        let (turns, rows, layer) = (&self.scratch.turns, self.scratch.batch.rows(), self.layer);
        let weights = &weights.layers[layer];
        let rope = spec.each[layer]
            .rope
            .map(|i| (&spec.ropes[i], spec.turns(i)));
        let turning = (spec.heads + spec.kv_heads) * spec.k_dim;
        context.run(&mut self.task, qkv, |task, qkv| {
            if spec.qkv_limit > 0.0 {
                kernels.clamp(qkv, spec.qkv_limit);
            }
            let norm = |qkv: &mut [f32]| {
                let (queries, keys) = qkv[..turning].split_at_mut(spec.q_width());
                let norms = [(&weights.q_norm, queries), (&weights.k_norm, keys)];
                norms.into_iter().fold(true, |finite, (norm, heads)| {
                    finite & norm.as_ref().is_none_or(|norm| norm.apply(kernels, heads))
                })
            };
            let mut finite = spec.qk_norm != QkNorm::Before || norm(qkv);
            if let Some((rope, range)) = &rope {
                let turns = &turns[task * pairs..][range.clone()];
                for head in qkv[..turning].chunks_exact_mut(spec.k_dim) {
                    match rope.style {
                        Style::Interleaved => kernels.rope_interleaved(head, turns),
                        Style::Halves => kernels.rope_halves(head, turns),
                    }
                }
            }
            finite &= match spec.qk_norm {
                QkNorm::Behind => norm(qkv),
                QkNorm::Plain if rope.is_some() => norm(qkv),
                QkNorm::None | QkNorm::Before | QkNorm::Plain => true,
            };
            if let (Some(temperature), None) = (&spec.temperature, &rope) {
                let factor = warmth(temperature, rows[task].position);
                kernels.scale(&mut qkv[..spec.q_width()], factor);
            }
            finite.then_some(()).ok_or_else(|| layer_not_finite(layer))
        })
    }

    /// Writes keys and values of the batch to the caches; a task has a page.
    pub(in crate::model) fn store(
        &mut self,
        context: &Context<'_>,
        caches: &mut [Cache],
    ) -> Result<Flow> {
        let Network { spec, kernels, .. } = context.network;
        let Scratch {
            batch, lent, qkv, ..
        } = &mut self.scratch;
        let (rows, layer) = (batch.rows(), self.layer);
        let page_tokens = context.network.page_tokens;
        let pages = || {
            let first = |range: &Range<usize>| rows[range.start].page(page_tokens);
            batch.pages().iter().map(first)
        };
        lent.extend(pages().map(|(cache, page)| caches[cache].lend(page)));
        let width = spec.qkv_width();
        let (k_start, v_start) = (spec.q_width(), spec.q_width() + spec.kv_heads * spec.k_dim);
        // A nanosecond for each number, as keys are scattered.
        let values = rows.len() * (width - k_start);
        let pages_lent = Chunks::new(lent, 1).taking(values);
        let flow = context.run(&mut self.task, pages_lent, |task, page| {
            let range = batch.pages()[task].clone();
            let layout = caches[rows[range.start].sequence].layout();
            for i in range {
                let qkv = &qkv[i * width..][..width];
                for head in 0..spec.kv_heads {
                    let key = &qkv[k_start + head * spec.k_dim..][..spec.k_dim];
                    let value = &qkv[v_start + head * spec.v_dim..][..spec.v_dim];
                    let slot = rows[i].position % page_tokens;
                    if !page[0].store(kernels, layout, (layer, head), slot, (key, value)) {
                        return Err(layer_not_finite(layer));
                    }
                }
            }
            Ok(())
        });
        for ((cache, page), data) in pages().zip(lent.drain(..)) {
            caches[cache].restore(page, data);
        }
        flow
    }

    /// Spans of the attention of a block; a task has some spans of some rows and one key head.
    pub(in crate::model) fn attend(
        &mut self,
        context: &Context<'_>,
        caches: &[Cache],
    ) -> Result<Flow> {
        let Network {
            spec,
            weights,
            kernels,
            ..
        } = context.network;
        let (Some(block), spans) = self.attention_block(context.network) else {
            return Ok(Flow::Done);
        };
        let Scratch {
            batch,
            qkv,
            spans: out,
            ..
        } = &mut self.scratch;
        let row_len = spans.row_len();
        let room = &mut out[..block.rows.len() * row_len];
        let queries = Queries {
            values: qkv,
            stride: spec.qkv_width(),
            block,
            place: |row: usize| batch.place(row),
            caches,
            layer: self.layer,
            scoring: spec.scoring(self.layer),
            slopes: &weights.slopes,
        };
        let tiles = Tiles::new(room, row_len, spans.tile()).taking(spans.work_ns());
        context.run(&mut self.task, tiles, |_, out| {
            attention::attend(kernels, &spans, &queries, out)
        })
    }

    /// attended = the spans of a block joined; rows that are complete are quantized if wanted.
    pub(in crate::model) fn join(&mut self, context: &Context<'_>) -> Result<Flow> {
        let Network {
            spec,
            weights,
            kernels,
            ..
        } = context.network;
        let (Some(block), spans) = self.attention_block(context.network) else {
            return Ok(Flow::Done);
        };
        let (width, groups) = (spec.attended_width(), spec.attended_width().div_ceil(GROUP));
        let Scratch {
            batch,
            qkv,
            attended,
            quants,
            spans: made,
            ..
        } = &mut self.scratch;
        let Range { start, end } = block.rows;
        let parts = (
            Chunks::new(&mut attended[start * width..end * width], width),
            Chunks::new(&mut quants[start * groups..end * groups], groups),
        );
        let layer = self.layer;
        let window = spec.each[layer].window;
        let group = spec.heads / spec.kv_heads;
        let heads = block.kv_heads.start * group..block.kv_heads.end * group;
        let columns = heads.start * spec.v_dim..heads.end * spec.v_dim;
        let gates = spec.gated_heads.then(|| spec.gates_start() + columns.start);
        let (qkv, qkv_width) = (&*qkv, spec.qkv_width());
        let weights = &weights.layers[layer];
        let sinks = weights
            .sinks
            .as_ref()
            .map_or(&[][..], |sinks| &sinks[heads]);
        let packs = weights.attention_out.as_ref().is_some_and(takes_quants);
        let pack = packs && columns.end == width && spec.latent.is_none();
        context.run(&mut self.task, parts, |task, (attended, quants)| {
            let row = &made[task * spans.row_len()..][..spans.row_len()];
            let out = &mut attended[columns.clone()];
            let seen = (window, batch.place(start + task));
            attention::join(kernels, &spans, row, seen, sinks, out);
            if let Some(gates) = gates {
                kernels.gate(out, &qkv[(start + task) * qkv_width + gates..][..out.len()]);
            }
            let finite = !pack || kernels.quantize_row(attended, quants);
            finite.then_some(()).ok_or_else(|| layer_not_finite(layer))
        })
    }

    /// What the scratch holds of the attention at once, if block `self.block` is not behind the
    /// end, and how it lies.
    pub(in crate::model) fn attention_block(&self, network: &Network) -> (Option<Block>, Spans) {
        let batch = &self.scratch.batch;
        let rows = batch.rows();
        let window = network.spec.each[self.layer].window;
        let first = rows.iter().map(|row| window.first(row.position)).min();
        let last = (0..rows.len())
            .map(|row| batch.place(row).end(window))
            .max();
        let spans = Spans::new(
            network.kernels,
            network.spec.attention_heads(),
            (rows.len(), first.unwrap_or(0)..last.unwrap_or(0)),
            self.scratch.spans.len(),
            self.threads,
        );
        (spans.block(self.block, rows.len()), spans)
    }

    /// delta = attended x out.
    pub(in crate::model) fn attention_out(
        &mut self,
        context: &Context<'_>,
        out: &Linear,
    ) -> Result<Flow> {
        let width = out.weight.columns();
        let x = Input::new(width, &self.scratch.attended, &self.scratch.quants);
        let n = self.scratch.batch.rows().len();
        context.matmul(
            (&mut self.task, self.threads),
            std::slice::from_ref(out),
            x,
            n,
            &mut self.scratch.delta,
        )
    }
}

/// The factor of queries at `position`.
fn warmth(temperature: &Temperature, position: usize) -> f32 {
    let steps = ((position + 1) as f32 / temperature.floor).floor();
    1.0 + temperature.scale * float::ln(1.0 + steps)
}
