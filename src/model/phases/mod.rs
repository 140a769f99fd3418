//! The phases of a forward pass: what each computes, and how it is cut into tasks.
//!
//! A phase reads what earlier ones left in the scratch and writes parts that its tasks do not share.
//! Calling one again after a pause goes on with its next task.

mod attention;
mod experts;
mod ffn;
mod latent;
mod recurrent;
mod scan;

use crate::control::{Flow, Signals};
use crate::error::{Code, Error, Result};
use crate::kernel::{Input, Kernels};
use crate::model::Network;
use crate::model::forward::{Goal, Pass, Phase};
use crate::ops::matmul::{self, Linear};
use crate::ops::norm::Norm;
use crate::quant::GROUP;
use crate::team::{Chunks, Partition, Team};

/// What the phases of a call work with.
pub(super) struct Context<'a> {
    pub network: &'a Network,
    pub kernels: &'a Kernels,
    pub team: &'a Team,
    pub signals: Signals<'a>,
}

/// What comes before a block: the stream takes what the block before it gave, and is normed.
pub(super) struct Entry<'a> {
    /// Whether there was a block before.
    pub adds: bool,
    /// Norm of what it gave.
    pub behind: Option<&'a Norm>,
    /// Norms of the sum, and of that and the stream as it was.
    pub of_sum: [Option<&'a Norm>; 2],
    /// What the block reads.
    pub reads: Reads<'a>,
    /// Whether it reads the stream as it was before it takes anything.
    pub parallel: bool,
    /// Whether the block wants its rows quantized.
    pub pack: bool,
}

/// What a block reads.
#[derive(Clone, Copy)]
pub(super) enum Reads<'a> {
    /// The stream normed, or as it is.
    Stream(Option<&'a Norm>),
    /// What the block before it read.
    Same,
}

impl Pass {
    /// hidden = embedding[token] and what is done to it; turns = angles of the position.
    pub(super) fn embed(&mut self, context: &Context<'_>) -> Result<Flow> {
        let Network { spec, weights, .. } = context.network;
        let (n, dim, pairs) = (self.scratch.batch.rows().len(), spec.dim, spec.pairs());
        let parts = (
            Chunks::new(&mut self.scratch.hidden[..n * dim], dim),
            Chunks::new(&mut self.scratch.normed[..n * dim], dim),
            Chunks::new(&mut self.scratch.turns[..n * pairs.max(1)], pairs.max(1)),
        );
        let (rows, kernels) = (self.scratch.batch.rows(), context.kernels);
        context.run(&mut self.task, parts, |task, (hidden, place, turns)| {
            let row = &rows[task];
            let mut start = 0;
            for frequencies in &weights.frequencies {
                let end = start + frequencies.pairs();
                frequencies.turns(row.position, row.context, &mut turns[start..end]);
                start = end;
            }
            weights.embedding.decode_row(row.token as usize, hidden)?;
            if spec.embedding.scale != 1.0 {
                kernels.scale(hidden, spec.embedding.scale);
            }
            if let Some(segments) = &weights.segments {
                segments.decode_row(row.segment, place)?;
                kernels.add(hidden, place);
            }
            if let Some(positions) = &weights.positions {
                positions.decode_row(row.position, place)?;
                kernels.add(hidden, place);
            }
            let normed = weights.embedding_norm.as_ref();
            let finite = normed.is_none_or(|norm| norm.apply(kernels, hidden));
            finite.then_some(()).ok_or_else(|| not_finite("embedding"))
        })
    }

    /// hidden += delta (normed and scaled, if so); normed = norm(hidden), quantized if wanted.
    pub(super) fn enter(&mut self, context: &Context<'_>, entry: &Entry<'_>) -> Result<Flow> {
        let spec = &context.network.spec;
        let (n, dim, groups) = (
            self.scratch.batch.rows().len(),
            spec.dim,
            spec.dim.div_ceil(GROUP),
        );
        let parts = (
            (
                Chunks::new(&mut self.scratch.hidden[..n * dim], dim),
                Chunks::new(&mut self.scratch.delta[..n * dim], dim),
            ),
            Chunks::new(&mut self.scratch.normed[..n * dim], dim),
            Chunks::new(&mut self.scratch.quants[..n * groups], groups),
        );
        let (layer, kernels) = (self.layer, context.kernels);
        // The first norm of a layer is the first to see what the layer before it gave.
        let is_first = self.phase == Phase::NormAttention;
        let stream_from = layer.saturating_sub(usize::from(is_first));
        context.run(
            &mut self.task,
            parts,
            |_, ((hidden, delta), normed, quants)| {
                let mut finite = true;
                if entry.adds && !entry.parallel {
                    finite &= settle(context, (entry.behind, entry.of_sum), hidden, delta);
                }
                if let Reads::Stream(norm) = entry.reads {
                    normed.copy_from_slice(hidden);
                    finite &= norm.is_none_or(|norm| norm.apply(kernels, normed));
                }
                if entry.adds && entry.parallel {
                    finite &= settle(context, (entry.behind, entry.of_sum), hidden, delta);
                }
                if !finite {
                    return Err(layer_not_finite(stream_from));
                }
                let finite = !entry.pack || kernels.quantize_row(normed, quants);
                finite.then_some(()).ok_or_else(|| layer_not_finite(layer))
            },
        )
    }

    /// normed = norm(hidden + delta) of the rows that want logits, one after the other.
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
        // Nobody needs what is no output any more.
        let parts = (
            Chunks::new(&mut self.scratch.normed[..n * dim], dim),
            Chunks::new(&mut self.scratch.attended[..n * dim], dim),
            Chunks::new(&mut self.scratch.quants[..n * groups], groups),
        );
        let (hidden, delta, outputs) = (
            &self.scratch.hidden,
            &self.scratch.delta,
            self.scratch.batch.outputs(),
        );
        let layer = self.layer - 1;
        let pack = self.goal == Goal::Logits && weights.output.as_ref().is_some_and(takes_quants);
        let last = &weights.layers[layer];
        let norms = (
            last.ffn_post_norm.as_ref(),
            [last.ffn_sum_norm.as_ref(), None],
        );
        context.run(&mut self.task, parts, |task, (normed, given, quants)| {
            let row = outputs[task] * dim;
            normed.copy_from_slice(&hidden[row..][..dim]);
            given.copy_from_slice(&delta[row..][..dim]);
            let mut finite = settle(context, norms, normed, given);
            if let Some(norm) = &weights.output_norm {
                finite &= norm.apply(kernels, normed);
            }
            if !finite {
                return Err(layer_not_finite(layer));
            }
            let finite = !pack || kernels.quantize_row(normed, quants);
            finite.then_some(()).ok_or_else(|| not_finite("logits"))
        })
    }

    /// logits = normed x output, scaled and bounded if so, all finite: nobody can choose between the
    /// others.
    pub(super) fn logits_phase(&mut self, context: &Context<'_>) -> Result<Flow> {
        let Network {
            spec,
            weights,
            kernels,
            ..
        } = context.network;
        let x = Input::new(spec.dim, &self.scratch.normed, &self.scratch.quants);
        let n = self.scratch.batch.outputs().len();
        let (threads, logits) = (self.threads, &mut self.scratch.logits);
        let output = weights.output.as_slice();
        let tiles = matmul::tiles(context.kernels, output, (n, spec.dim), threads, logits);
        context.run(&mut self.task, tiles, |_, tile| {
            matmul::side_by_side(context.kernels, output, &x, threads, tile);
            let mut finite = true;
            for row in 0..tile.row_range().len() {
                let row = tile.row_mut(row);
                if spec.logit_scale != 1.0 {
                    kernels.scale(row, spec.logit_scale);
                }
                if spec.logit_softcap > 0.0 {
                    kernels.softcap(row, spec.logit_softcap);
                }
                finite &= row.iter().fold(true, |all, x| all & x.is_finite());
            }
            finite.then_some(()).ok_or_else(|| not_finite("logits"))
        })
    }
}

/// hidden += delta, each or both normed and scaled, if the model does so; false if it is not finite.
fn settle(
    context: &Context<'_>,
    (behind, [of_sum, second]): (Option<&Norm>, [Option<&Norm>; 2]),
    hidden: &mut [f32],
    delta: &mut [f32],
) -> bool {
    let (kernels, scale) = (context.kernels, context.network.spec.residual_scale);
    let norm = |norm: Option<&Norm>, row: &mut [f32]| norm.is_none_or(|n| n.apply(kernels, row));
    let mut finite = norm(behind, delta);
    if let Some(second) = second {
        kernels.add(delta, hidden);
        finite &= norm(of_sum, delta);
        kernels.add(hidden, delta);
        return finite & second.apply(kernels, hidden);
    }
    match scale == 1.0 {
        true => kernels.add(hidden, delta),
        false => kernels.add_scaled(hidden, scale, delta),
    }
    finite & norm(of_sum, hidden)
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
        linears: &[Linear],
        x: Input<'_>,
        n: usize,
        out: &mut [f32],
    ) -> Result<Flow> {
        let tiles = matmul::tiles(self.kernels, linears, (n, x.columns), threads, out);
        self.run(task, tiles, |_, tile| {
            matmul::side_by_side(self.kernels, linears, &x, threads, tile);
            Ok(())
        })
    }
}

/// Whether one of the matrices takes quantized rows.
pub(super) fn wants_quants(linears: &[Linear]) -> bool {
    linears.iter().any(takes_quants)
}

/// Whether a matrix takes quantized rows.
pub(super) fn takes_quants(linear: &Linear) -> bool {
    linear.weight.format().block_len() > 1
}

/// Whether one of the matrices takes rows as they are.
fn wants_floats(linears: &[Linear]) -> bool {
    !linears.iter().all(takes_quants)
}

fn layer_not_finite(layer: usize) -> Error {
    not_finite(&format!("layer {layer}"))
}

fn not_finite(place: &str) -> Error {
    let message = "a value is infinite or not a number";
    Error::new(Code::NonFinite, place, message)
}
