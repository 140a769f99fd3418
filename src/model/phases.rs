//! The phases of a forward pass: what each computes, and how it is cut into tasks.
//!
//! A phase reads what earlier ones left in the scratch and writes parts that its tasks do not share.
//! Calling one again after a pause goes on with its next task.

use std::ops::Range;

use crate::control::{Flow, Signals};
use crate::error::{Code, Error, Result};
use crate::kernel::{Input, Kernels};
use crate::kv::{Cache, PAGE_TOKENS};
use crate::model::Network;
use crate::model::forward::{Pass, Phase};
use crate::model::scratch::Scratch;
use crate::model::weights::Layer;
use crate::ops::attention::{self, Block, Queries, Spans};
use crate::ops::matmul::{self, Linear};
use crate::quant::GROUP;
use crate::team::{Chunks, Partition, Team, Tiles};

/// What the phases of a call work with.
pub(super) struct Context<'a> {
    pub network: &'a Network,
    pub kernels: &'a Kernels,
    pub team: &'a Team,
    pub signals: Signals<'a>,
}

impl Pass {
    /// hidden = embedding[token]; turns = angles of the position.
    pub(super) fn embed(&mut self, context: &Context<'_>) -> Result<Flow> {
        let Network { spec, weights, .. } = context.network;
        let (n, pairs) = (self.scratch.batch.rows().len(), weights.frequencies.pairs());
        let hidden = Chunks::new(&mut self.scratch.hidden[..n * spec.dim], spec.dim);
        let turns = Chunks::new(&mut self.scratch.turns[..n * pairs], pairs);
        let rows = self.scratch.batch.rows();
        context.run(&mut self.task, (hidden, turns), |task, (hidden, turns)| {
            weights.frequencies.turns(rows[task].position, turns);
            weights
                .embedding
                .decode_row(rows[task].token as usize, hidden)
        })
    }

    /// hidden += delta (but for the first layer); normed = rms_norm(hidden), quantized if wanted.
    pub(super) fn norm(
        &mut self,
        context: &Context<'_>,
        weight: &[f32],
        add_delta: bool,
        pack: bool,
    ) -> Result<Flow> {
        let spec = &context.network.spec;
        let (n, dim, groups) = (
            self.scratch.batch.rows().len(),
            spec.dim,
            spec.dim.div_ceil(GROUP),
        );
        let parts = (
            Chunks::new(&mut self.scratch.hidden[..n * dim], dim),
            Chunks::new(&mut self.scratch.normed[..n * dim], dim),
            Chunks::new(&mut self.scratch.quants[..n * groups], groups),
        );
        let (delta, layer, kernels) = (&self.scratch.delta, self.layer, context.kernels);
        // The first norm of a layer is the first to see what the layer before it gave.
        let is_first = self.phase == Phase::NormAttention;
        let stream_from = layer.saturating_sub(usize::from(is_first));
        context.run(&mut self.task, parts, |task, (hidden, normed, quants)| {
            if add_delta {
                kernels.add(hidden, &delta[task * dim..][..dim]);
            }
            normed.copy_from_slice(hidden);
            if !kernels.rms_norm(normed, weight, spec.norm_epsilon) {
                return Err(layer_not_finite(stream_from));
            }
            let finite = !pack || kernels.quantize_row(normed, quants);
            finite.then_some(()).ok_or_else(|| layer_not_finite(layer))
        })
    }

    /// qkv = normed x (q, k, v).
    pub(super) fn qkv(&mut self, context: &Context<'_>, linears: &[&Linear]) -> Result<Flow> {
        let spec = &context.network.spec;
        let x = Input {
            columns: spec.dim,
            stride: spec.dim,
            floats: &self.scratch.normed,
            quants: &self.scratch.quants,
        };
        let n = self.scratch.batch.rows().len();
        context.matmul(
            (&mut self.task, self.threads),
            linears,
            x,
            n,
            &mut self.scratch.qkv,
        )
    }

    /// Turns queries and keys in place.
    pub(super) fn rope(&mut self, context: &Context<'_>) -> Result<Flow> {
        let Network {
            spec,
            weights,
            kernels,
            ..
        } = context.network;
        let (n, width, pairs) = (
            self.scratch.batch.rows().len(),
            spec.qkv_width(),
            weights.frequencies.pairs(),
        );
        let qkv = Chunks::new(&mut self.scratch.qkv[..n * width], width);
        let turns = &self.scratch.turns;
        let turning = (spec.heads + spec.kv_heads) * spec.k_dim;
        context.run(&mut self.task, qkv, |task, qkv| {
            for head in qkv[..turning].chunks_exact_mut(spec.k_dim) {
                kernels.rope_interleaved(head, &turns[task * pairs..][..pairs]);
            }
            Ok(())
        })
    }

    /// Writes keys and values of the batch to the caches; a task has a page.
    pub(super) fn store(&mut self, context: &Context<'_>, caches: &mut [Cache]) -> Result<Flow> {
        let Network { spec, kernels, .. } = context.network;
        let Scratch {
            batch, lent, qkv, ..
        } = &mut self.scratch;
        let (rows, layer) = (batch.rows(), self.layer);
        let pages = || batch.pages().iter().map(|range| rows[range.start].page());
        lent.extend(pages().map(|(cache, page)| caches[cache].lend(page)));
        let width = spec.qkv_width();
        let (k_start, v_start) = (spec.q_width(), spec.q_width() + spec.kv_heads * spec.k_dim);
        let flow = context.run(&mut self.task, Chunks::new(lent, 1), |task, page| {
            let range = batch.pages()[task].clone();
            let layout = caches[rows[range.start].sequence].layout();
            for i in range {
                let qkv = &qkv[i * width..][..width];
                for head in 0..spec.kv_heads {
                    let key = &qkv[k_start + head * spec.k_dim..][..spec.k_dim];
                    let value = &qkv[v_start + head * spec.v_dim..][..spec.v_dim];
                    let slot = rows[i].position % PAGE_TOKENS;
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
    pub(super) fn attend(&mut self, context: &Context<'_>, caches: &[Cache]) -> Result<Flow> {
        let Network { spec, kernels, .. } = context.network;
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
        let rows = batch.rows();
        let queries = Queries {
            values: qkv,
            stride: spec.qkv_width(),
            block,
            place: |row: usize| (rows[row].sequence, rows[row].position),
            caches,
            layer: self.layer,
            scale: spec.attention_scale,
        };
        let tiles = Tiles::new(room, row_len, spans.tile());
        context.run(&mut self.task, tiles, |_, out| {
            attention::attend(kernels, &spans, &queries, out)
        })
    }

    /// attended = the spans of a block joined; rows that are complete are quantized if wanted.
    pub(super) fn join(&mut self, context: &Context<'_>) -> Result<Flow> {
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
        let (rows, layer) = (&batch.rows()[block.rows], self.layer);
        let head_width = width / spec.kv_heads;
        let columns = block.kv_heads.start * head_width..block.kv_heads.end * head_width;
        let pack = wants_quants(&[&weights.layers[layer].attention_out]) && columns.end == width;
        context.run(&mut self.task, parts, |task, (attended, quants)| {
            let row = &made[task * spans.row_len()..][..spans.row_len()];
            let out = &mut attended[columns.clone()];
            attention::join(kernels, &spans, row, rows[task].position, out);
            let finite = !pack || kernels.quantize_row(attended, quants);
            finite.then_some(()).ok_or_else(|| layer_not_finite(layer))
        })
    }

    /// What the scratch holds of the attention at once, if block `self.block` is not behind the
    /// end, and how it lies.
    pub(super) fn attention_block(&self, network: &Network) -> (Option<Block>, Spans) {
        let rows = self.scratch.batch.rows();
        let seen = rows.iter().map(|row| row.position + 1).max().unwrap_or(0);
        let spans = Spans::new(
            network.kernels,
            network.spec.attention_heads(),
            (rows.len(), seen),
            self.scratch.spans.len(),
            self.threads,
        );
        (spans.block(self.block, rows.len()), spans)
    }

    /// delta = attended x out.
    pub(super) fn attention_out(&mut self, context: &Context<'_>, out: &Linear) -> Result<Flow> {
        let width = context.network.spec.attended_width();
        let x = Input {
            columns: width,
            stride: width,
            floats: &self.scratch.attended,
            quants: &self.scratch.quants,
        };
        let n = self.scratch.batch.rows().len();
        context.matmul(
            (&mut self.task, self.threads),
            &[out],
            x,
            n,
            &mut self.scratch.delta,
        )
    }

    /// ffn = normed x (gate, up).
    pub(super) fn gate_up(&mut self, context: &Context<'_>, linears: &[&Linear]) -> Result<Flow> {
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

    /// gate = silu(gate) * up, quantized if wanted.
    pub(super) fn activate(&mut self, context: &Context<'_>, pack: bool) -> Result<Flow> {
        let hidden = context.network.spec.hidden;
        let (n, groups) = (self.scratch.batch.rows().len(), hidden.div_ceil(GROUP));
        let parts = (
            Chunks::new(&mut self.scratch.ffn[..n * 2 * hidden], 2 * hidden),
            Chunks::new(&mut self.scratch.quants[..n * groups], groups),
        );
        let (layer, kernels) = (self.layer, context.kernels);
        context.run(&mut self.task, parts, |_, (ffn, quants)| {
            let (gate, up) = ffn.split_at_mut(hidden);
            kernels.swiglu(gate, up);
            let finite = !pack || kernels.quantize_row(gate, quants);
            finite.then_some(()).ok_or_else(|| layer_not_finite(layer))
        })
    }

    /// delta = gate x down.
    pub(super) fn down(&mut self, context: &Context<'_>, down: &Linear) -> Result<Flow> {
        let hidden = context.network.spec.hidden;
        let x = Input {
            columns: hidden,
            stride: 2 * hidden,
            floats: &self.scratch.ffn,
            quants: &self.scratch.quants,
        };
        let n = self.scratch.batch.rows().len();
        context.matmul(
            (&mut self.task, self.threads),
            &[down],
            x,
            n,
            &mut self.scratch.delta,
        )
    }

    /// normed = rms_norm(hidden + delta) of the rows that want logits, one after the other.
    pub(super) fn norm_output(&mut self, context: &Context<'_>) -> Result<Flow> {
        let Network {
            spec,
            weights,
            kernels,
            ..
        } = context.network;
        let (n, dim, groups) = (
            self.scratch.batch.outputs().len(),
            spec.dim,
            spec.dim.div_ceil(GROUP),
        );
        let parts = (
            Chunks::new(&mut self.scratch.normed[..n * dim], dim),
            Chunks::new(&mut self.scratch.quants[..n * groups], groups),
        );
        let (hidden, delta, outputs) = (
            &self.scratch.hidden,
            &self.scratch.delta,
            self.scratch.batch.outputs(),
        );
        let (pack, layer) = (wants_quants(&[&weights.output]), self.layer - 1);
        context.run(&mut self.task, parts, |task, (normed, quants)| {
            let row = outputs[task] * dim;
            normed.copy_from_slice(&hidden[row..][..dim]);
            kernels.add(normed, &delta[row..][..dim]);
            if !kernels.rms_norm(normed, &weights.output_norm, spec.norm_epsilon) {
                return Err(layer_not_finite(layer));
            }
            let finite = !pack || kernels.quantize_row(normed, quants);
            finite.then_some(()).ok_or_else(|| not_finite("logits"))
        })
    }

    /// logits = normed x output, all finite: nobody can choose between the others.
    pub(super) fn logits_phase(&mut self, context: &Context<'_>) -> Result<Flow> {
        let Network { spec, weights, .. } = context.network;
        let x = Input {
            columns: spec.dim,
            stride: spec.dim,
            floats: &self.scratch.normed,
            quants: &self.scratch.quants,
        };
        let (n, vocab) = (self.scratch.batch.outputs().len(), spec.vocab);
        let threads = self.threads;
        let tile = matmul::tiling(context.kernels, (n, vocab, x.columns), threads);
        let tiles = Tiles::new(&mut self.scratch.logits[..n * vocab], vocab, tile);
        context.run(&mut self.task, tiles, |_, tile| {
            matmul::side_by_side(context.kernels, &[&weights.output], &x, threads, tile);
            let is_finite = |row: &[f32]| row.iter().fold(true, |all, x| all & x.is_finite());
            let finite = (0..tile.row_range().len()).all(|row| is_finite(tile.row_mut(row)));
            finite.then_some(()).ok_or_else(|| not_finite("logits"))
        })
    }
}

impl Context<'_> {
    fn run<P, F>(&self, task: &mut usize, parts: P, body: F) -> Result<Flow>
    where
        P: Partition,
        F: Fn(usize, &mut P::Part) -> Result<()> + Sync,
    {
        self.team.run(&self.signals, task, parts, body)
    }

    /// out = x (linears side by side), for `n` rows.
    fn matmul(
        &self,
        (task, threads): (&mut usize, usize),
        linears: &[&Linear],
        x: Input<'_>,
        n: usize,
        out: &mut [f32],
    ) -> Result<Flow> {
        let outputs: usize = linears.iter().map(|linear| linear.weight.rows()).sum();
        let tile = matmul::tiling(self.kernels, (n, outputs, x.columns), threads);
        let tiles = Tiles::new(&mut out[..n * outputs], outputs, tile);
        self.run(task, tiles, |_, tile| {
            matmul::side_by_side(self.kernels, linears, &x, threads, tile);
            Ok(())
        })
    }
}

pub(super) fn qkv(layer: &Layer) -> [&Linear; 3] {
    [&layer.q, &layer.k, &layer.v]
}

pub(super) fn gate_up(layer: &Layer) -> [&Linear; 2] {
    [&layer.gate, &layer.up]
}

/// Whether one of the matrices takes quantized rows.
pub(super) fn wants_quants(linears: &[&Linear]) -> bool {
    linears
        .iter()
        .any(|linear| linear.weight.format().block_len() > 1)
}

fn layer_not_finite(layer: usize) -> Error {
    not_finite(&format!("layer {layer}"))
}

fn not_finite(place: &str) -> Error {
    let message = "a value is infinite or not a number";
    Error::new(Code::NonFinite, place, message)
}
