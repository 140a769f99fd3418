//! The phases of layers that keep a state, but for what the state itself does.

use std::ops::Range;

use super::{Context, layer_not_finite, takes_quants};
use crate::control::Flow;
use crate::error::Result;
use crate::float;
use crate::kernel::{Input, Kernels, Nonlinearity};
use crate::kv::Cache;
use crate::model::batch::Row;
use crate::model::forward::Pass;
use crate::model::scratch::Scratch;
use crate::model::spec::{Recurrence, RecurrenceKind};
use crate::model::weights::{RecurrentWeights, StateWeights};
use crate::ops::matmul::Linear;
use crate::ops::recurrence;
use crate::quant::GROUP;
use crate::team::Chunks;

/// What the phases of a layer that keeps a state need.
pub(super) type Parts<'a> = (&'a RecurrentWeights, &'a Recurrence);

impl Pass {
    /// mixed = normed x inputs.
    pub(in crate::model) fn state_in(
        &mut self,
        context: &Context<'_>,
        weights: &RecurrentWeights,
    ) -> Result<Flow> {
        let dim = context.network.spec.dim;
        let x = Input::new(dim, &self.scratch.normed, &self.scratch.quants);
        let n = self.scratch.batch.rows().len();
        context.matmul(
            (&mut self.task, self.threads),
            &weights.inputs,
            x,
            n,
            &mut self.scratch.mixed,
        )
    }

    /// The first third of mixed *= the last: what goes through a convolution alone.
    pub(in crate::model) fn product(
        &mut self,
        context: &Context<'_>,
        recurrence: &Recurrence,
    ) -> Result<Flow> {
        let (n, inner) = (self.scratch.batch.rows().len(), recurrence.inner);
        let mixed = Chunks::new(&mut self.scratch.mixed[..n * 3 * inner], 3 * inner);
        context.run(&mut self.task, mixed, |_, mixed| {
            let (first, rest) = mixed.split_at_mut(inner);
            context.kernels.multiply(first, &rest[inner..]);
            Ok(())
        })
    }

    /// convolved = the convolution of mixed and of what the window holds, activated, normed and
    /// quantized if so; steps = those of the heads. Then the window takes the last inputs.
    pub(in crate::model) fn convolve(
        &mut self,
        context: &Context<'_>,
        (weights, recurrence): Parts<'_>,
        caches: &mut [Cache],
    ) -> Result<Flow> {
        let Scratch {
            batch,
            mixed,
            convolved,
            steps,
            quants,
            ..
        } = &mut self.scratch;
        let (n, channels) = (batch.rows().len(), recurrence.channels());
        let (width, groups) = (recurrence.steps().max(1), recurrence.inner.div_ceil(GROUP));
        let parts = (
            Chunks::new(&mut convolved[..n * channels], channels),
            Chunks::new(&mut steps[..n * width], width),
            Chunks::new(&mut quants[..n * groups], groups),
        );
        let inputs = Inputs {
            mixed,
            rows: batch.rows(),
            recurrence,
            layer: self.layer,
        };
        let taps = (&weights.taps[..], weights.taps_bias.as_deref());
        let low = weights.state.as_ref().and_then(|state| state.low.as_ref());
        let pack = low.is_some_and(|(low, _)| takes_quants(low));
        let (kernels, layer, seen_by) = (context.kernels, self.layer, &*caches);
        let flow = context.run(&mut self.task, parts, |row, (out, steps, quants)| {
            recurrence::convolve(kernels, taps, inputs.seen(seen_by, row), out);
            let mut finite = true;
            if let Some(state) = &weights.state {
                kernels.activate(Nonlinearity::Silu, out);
                set_steps(recurrence, state, inputs.steps(row), steps);
            }
            if let RecurrenceKind::Delta { .. } = recurrence.kind {
                finite &= norm_parts(kernels, weights, out);
            }
            finite &= !pack || kernels.quantize_row(out, quants);
            finite.then_some(()).ok_or_else(|| layer_not_finite(layer))
        })?;
        if flow == Flow::Done {
            for rows in batch.sequences() {
                inputs.keep(caches, rows.clone());
            }
        }
        Ok(flow)
    }

    /// narrow = convolved x what steps and rows are made by.
    pub(in crate::model) fn narrow(
        &mut self,
        context: &Context<'_>,
        (weights, recurrence): Parts<'_>,
    ) -> Result<Flow> {
        let x = Input::new(
            recurrence.inner,
            &self.scratch.convolved,
            &self.scratch.quants,
        );
        let n = self.scratch.batch.rows().len();
        context.matmul(
            (&mut self.task, self.threads),
            std::slice::from_ref(low(weights).0),
            x,
            n,
            &mut self.scratch.narrow,
        )
    }

    /// Norms the parts of narrow, if so; its first part is quantized if wanted.
    pub(in crate::model) fn shape_narrow(
        &mut self,
        context: &Context<'_>,
        (weights, recurrence): Parts<'_>,
    ) -> Result<Flow> {
        let steps = low(weights).1;
        let (n, width, rank) = (
            self.scratch.batch.rows().len(),
            recurrence.low_width(),
            steps.weight.columns(),
        );
        let groups = rank.div_ceil(GROUP);
        let parts = (
            Chunks::new(&mut self.scratch.narrow[..n * width], width),
            Chunks::new(&mut self.scratch.quants[..n * groups], groups),
        );
        let (pack, layer, kernels) = (takes_quants(steps), self.layer, context.kernels);
        context.run(&mut self.task, parts, |_, (narrow, quants)| {
            let mut finite = norm_parts(kernels, weights, narrow);
            finite &= !pack || kernels.quantize_row(&narrow[..rank], quants);
            finite.then_some(()).ok_or_else(|| layer_not_finite(layer))
        })
    }

    /// steps = the first part of narrow x what makes steps of columns.
    pub(in crate::model) fn steps(
        &mut self,
        context: &Context<'_>,
        (weights, recurrence): Parts<'_>,
    ) -> Result<Flow> {
        let steps = low(weights).1;
        let x = Input {
            columns: steps.weight.columns(),
            stride: recurrence.low_width(),
            floats: &self.scratch.narrow,
            quants: &self.scratch.quants,
        };
        let n = self.scratch.batch.rows().len();
        context.matmul(
            (&mut self.task, self.threads),
            std::slice::from_ref(steps),
            x,
            n,
            &mut self.scratch.steps,
        )
    }

    /// attended = what comes out, gated and normed if so; quantized if wanted.
    pub(in crate::model) fn gate(
        &mut self,
        context: &Context<'_>,
        (weights, recurrence): Parts<'_>,
    ) -> Result<Flow> {
        let Scratch {
            batch,
            mixed,
            convolved,
            scanned,
            attended,
            quants,
            ..
        } = &mut self.scratch;
        let (n, inner) = (batch.rows().len(), recurrence.inner);
        let (width, groups) = (recurrence.in_width(), inner.div_ceil(GROUP));
        let parts = (
            Chunks::new(&mut attended[..n * inner], inner),
            Chunks::new(&mut scanned[..n * inner], inner),
            Chunks::new(&mut quants[..n * groups], groups),
        );
        let (pack, layer, kernels) = (takes_quants(&weights.out), self.layer, context.kernels);
        let norm = |x: &mut [f32]| {
            let norm = weights.out_norm.as_ref();
            norm.is_none_or(|norm| norm.apply(kernels, x))
        };
        context.run(&mut self.task, parts, |row, (out, scanned, quants)| {
            let gate = &mixed[row * width + recurrence.gate_start()..][..inner];
            out.copy_from_slice(gate);
            let mut finite = true;
            match recurrence.kind {
                RecurrenceKind::Convolution => {
                    kernels.multiply(out, &convolved[row * inner..][..inner]);
                }
                RecurrenceKind::Delta { .. } => {
                    finite &= norm(scanned);
                    kernels.swiglu(out, scanned);
                }
                RecurrenceKind::Selective { .. } | RecurrenceKind::Heads => {
                    kernels.swiglu(out, scanned);
                    finite &= norm(out);
                }
            }
            finite &= !pack || kernels.quantize_row(out, quants);
            finite.then_some(()).ok_or_else(|| layer_not_finite(layer))
        })
    }

    /// delta = attended x out; in normed, which nobody reads any more, if delta is what attention
    /// gave.
    pub(in crate::model) fn state_out(
        &mut self,
        context: &Context<'_>,
        (weights, attends): (&RecurrentWeights, bool),
    ) -> Result<Flow> {
        let width = weights.out.weight.columns();
        let x = Input::new(width, &self.scratch.attended, &self.scratch.quants);
        let n = self.scratch.batch.rows().len();
        let out = match attends {
            true => &mut self.scratch.normed,
            false => &mut self.scratch.delta,
        };
        let out_of = std::slice::from_ref(&weights.out);
        context.matmul((&mut self.task, self.threads), out_of, x, n, out)
    }

    /// delta += what the state gave.
    pub(in crate::model) fn add_state(&mut self, context: &Context<'_>) -> Result<Flow> {
        let (n, dim) = (self.scratch.batch.rows().len(), context.network.spec.dim);
        let delta = Chunks::new(&mut self.scratch.delta[..n * dim], dim);
        let given = &self.scratch.normed;
        context.run(&mut self.task, delta, |row, delta| {
            context.kernels.add(delta, &given[row * dim..][..dim]);
            Ok(())
        })
    }
}

/// What a layer makes of each token first, and what it saw before.
struct Inputs<'a> {
    /// (rows, in_width)
    mixed: &'a [f32],
    rows: &'a [Row],
    recurrence: &'a Recurrence,
    layer: usize,
}

impl<'a> Inputs<'a> {
    fn row(&self, row: usize) -> &'a [f32] {
        let width = self.recurrence.in_width();
        &self.mixed[row * width..][..width]
    }

    /// What goes into the convolution.
    fn channels(&self, row: usize) -> &'a [f32] {
        let start = self.recurrence.channels_start();
        &self.row(row)[start..][..self.recurrence.channels()]
    }

    /// What says how the heads decay.
    fn steps(&self, row: usize) -> &'a [f32] {
        &self.row(row)[self.recurrence.steps_start()..]
    }

    /// What the convolution of a row sees, the oldest first: rows of the batch and, before these,
    /// of the window. Nothing comes before a sequence.
    fn seen<'b>(
        &'b self,
        caches: &'b [Cache],
        row: usize,
    ) -> impl Iterator<Item = Option<&'b [f32]>> {
        let (rows, taps) = (self.rows, self.recurrence.taps);
        let Row {
            sequence, position, ..
        } = rows[row];
        let is_own = move |back: &usize| row >= *back && rows[row - back].sequence == sequence;
        let own = (1..taps).take_while(is_own).count();
        let window = caches[sequence].state().window(self.layer);
        let channels = self.recurrence.channels();
        (0..taps).rev().map(move |back| match back {
            _ if back > position => None,
            _ if back <= own => Some(self.channels(row - back)),
            _ => window.map(|window| &window[(taps - 1 + own - back) * channels..][..channels]),
        })
    }

    /// The window takes the last inputs of a sequence.
    fn keep(&self, caches: &mut [Cache], rows: Range<usize>) {
        let (kept, channels) = (self.recurrence.taps - 1, self.recurrence.channels());
        let state = caches[self.rows[rows.start].sequence].state_mut();
        let (old, new) = state.windows(self.layer);
        for (i, new) in new.chunks_exact_mut(channels).enumerate() {
            let at = i + rows.len();
            match (at.checked_sub(kept), old) {
                (Some(at), _) => new.copy_from_slice(self.channels(rows.start + at)),
                (None, Some(old)) => new.copy_from_slice(&old[at * channels..][..channels]),
                (None, None) => new.fill(0.0),
            }
        }
    }
}

/// How much each head decays, then how much each takes: `steps` of what is `made` of a token.
fn set_steps(recurrence: &Recurrence, state: &StateWeights, made: &[f32], steps: &mut [f32]) {
    let Recurrence { heads, groups, .. } = *recurrence;
    let bias = state.step_bias.as_deref().unwrap_or(&[]);
    match recurrence.kind {
        RecurrenceKind::Convolution | RecurrenceKind::Selective { .. } => {}
        RecurrenceKind::Heads => {
            for head in 0..heads {
                let step = float::softplus(made[head] + bias[head]);
                steps[head] = float::exp(step * state.decay[head]);
                steps[heads + head] = step;
            }
        }
        RecurrenceKind::Delta { .. } => {
            let near = heads / groups;
            for head in 0..heads {
                let (taken, step) = match state.paired {
                    true => (head / near * 2 * near + head % near, near),
                    false => (head, heads),
                };
                let step = float::softplus(made[taken + step] + bias[head]);
                steps[head] = float::exp(step * state.decay[head]);
                steps[heads + head] = float::sigmoid(made[taken]);
            }
        }
    }
}

/// Norms parts of a row; false if one is not finite.
fn norm_parts(kernels: &Kernels, weights: &RecurrentWeights, row: &mut [f32]) -> bool {
    weights.norms.iter().fold(true, |finite, (range, norm)| {
        finite & norm.apply(kernels, &mut row[range.clone()])
    })
}

/// What makes the rows and steps of a selective state space.
fn low(weights: &RecurrentWeights) -> (&Linear, &Linear) {
    let low = weights.state.as_ref().and_then(|state| state.low.as_ref());
    let (low, steps) = low.expect("only a selective state space comes here");
    (low, steps)
}
