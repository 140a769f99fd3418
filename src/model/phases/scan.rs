//! The phase in which states go from token to token.

use super::Context;
use super::recurrent::Parts;
use crate::control::Flow;
use crate::error::Result;
use crate::kernel::{Kernels, Lane};
use crate::kv::Cache;
use crate::model::forward::Pass;
use crate::model::scratch::Scratch;
use crate::model::spec::{Recurrence, RecurrenceKind};
use crate::model::weights::StateWeights;
use crate::ops::recurrence::{self, Columns, Place};
use crate::team::{Chunks, Tiles};

impl Pass {
    /// scanned = what the states of a sequence give, token after token; a task has some columns.
    pub(in crate::model) fn scan(
        &mut self,
        context: &Context<'_>,
        (weights, recurrence): Parts<'_>,
        caches: &mut [Cache],
    ) -> Result<Flow> {
        let Scratch {
            batch,
            convolved,
            narrow,
            steps,
            scanned,
            ..
        } = &mut self.scratch;
        let (rows, inner) = (batch.sequences()[self.block].clone(), recurrence.inner);
        let sequence = batch.rows()[rows.start].sequence;
        let columns = Columns {
            count: inner,
            head_width: recurrence.head_width(),
            rows: recurrence.rows,
        };
        let (width, state) = columns.of_task(rows.len());
        let (old, new) = caches[sequence].state_mut().matrices(self.layer);
        let scanned = &mut scanned[rows.start * inner..rows.end * inner];
        let tile = (rows.len(), width);
        let parts = (Chunks::new(new, state), Tiles::new(scanned, inner, tile));
        let scan = Scan {
            kernels: context.kernels,
            recurrence,
            weights: weights.state.as_ref().expect("only a state is scanned"),
            convolved: &convolved[rows.start * recurrence.channels()..],
            narrow: &narrow[rows.start * recurrence.low_width()..],
            steps,
            first: rows.start,
        };
        context.run(&mut self.task, parts, |task, (new, out)| {
            let old = old.map(|old| &old[task * state..][..new.len()]);
            match recurrence.kind {
                RecurrenceKind::Selective { rank, .. } => {
                    columns.scan(old, new, out, |place, state| {
                        scan.selective(rank, place, state)
                    })
                }
                RecurrenceKind::Delta { .. } => {
                    columns.scan(old, new, out, |place, state| scan.delta(place, state));
                }
                RecurrenceKind::Heads | RecurrenceKind::Convolution => {
                    columns.scan(old, new, out, |place, state| scan.heads(place, state));
                }
            }
            Ok(())
        })
    }
}

/// What states go on with: rows from that of the sequence's first token on.
struct Scan<'a> {
    kernels: &'a Kernels,
    recurrence: &'a Recurrence,
    weights: &'a StateWeights,
    /// (rows, channels)
    convolved: &'a [f32],
    /// (rows, low_width)
    narrow: &'a [f32],
    /// All rows of the batch.
    steps: &'a [f32],
    /// The sequence's first.
    first: usize,
}

impl Scan<'_> {
    /// The convolution of a token.
    fn of(&self, token: usize) -> &[f32] {
        let channels = self.recurrence.channels();
        &self.convolved[token * channels..][..channels]
    }

    /// How much a head decays, and how much it takes.
    fn step(&self, place: &Place) -> [f32; 2] {
        let (row, heads) = (self.first + place.token, self.recurrence.heads);
        let steps = &self.steps[row * 2 * heads..][..2 * heads];
        [steps[place.head], steps[heads + place.head]]
    }

    /// The values that begin at `start` in a row, and those behind them, as many as a state has rows:
    /// those of the group of a head.
    fn rows<'a>(&self, row: &'a [f32], start: usize, head: usize) -> [&'a [f32]; 2] {
        let (rows, groups) = (self.recurrence.rows, self.recurrence.groups);
        let first = start + self.recurrence.group(head) * rows;
        [&row[first..][..rows], &row[first + groups * rows..][..rows]]
    }

    /// A state space with heads.
    fn heads(&self, place: &Place, state: &mut [Lane]) -> Lane {
        let row = self.of(place.token);
        let x = recurrence::lane(&row[place.columns.clone()]);
        let [decay, step] = self.step(place);
        let taken = x.map(|x| x * step);
        let b_c = self.rows(row, self.recurrence.inner, place.head);
        let given = self.kernels.state_step(state, decay, &taken, b_c);
        let skip = self
            .weights
            .skip
            .as_ref()
            .map_or(0.0, |skip| skip[place.head]);
        std::array::from_fn(|lane| given[lane] + skip * x[lane])
    }

    /// A selective state space.
    fn selective(&self, rank: usize, place: &Place, state: &mut [Lane]) -> Lane {
        let (inner, width) = (self.recurrence.inner, self.recurrence.low_width());
        let x = recurrence::lane(&self.of(place.token)[place.columns.clone()]);
        let steps = &self.steps[(self.first + place.token) * inner..][..inner];
        let step = recurrence::lane(&steps[place.columns.clone()]);
        let b_c = self.rows(&self.narrow[place.token * width..][..width], rank, 0);
        let rows = self.recurrence.rows;
        let decay = &self.weights.decay.as_chunks().0[place.head * rows..][..rows];
        let given = self.kernels.selective_step(state, decay, [&step, &x], b_c);
        let skip = self.weights.skip.as_deref().unwrap_or(&[]);
        let skip = recurrence::lane(skip.get(place.columns.clone()).unwrap_or(&[]));
        std::array::from_fn(|lane| given[lane] + skip[lane] * x[lane])
    }

    /// A memory from keys to values.
    fn delta(&self, place: &Place, state: &mut [Lane]) -> Lane {
        let row = self.of(place.token);
        let start = 2 * self.recurrence.groups * self.recurrence.rows;
        let values = &row[start..][place.columns.clone()];
        let value = recurrence::lane(values);
        let [query, key] = self.rows(row, 0, place.head);
        let step = self.step(place);
        self.kernels.delta_step(state, step, &value, [key, query])
    }
}
