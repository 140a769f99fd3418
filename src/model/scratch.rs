//! The activations of a pass: allocated once for a number of rows, lent to one pass after another.

use std::sync::{Mutex, PoisonError};

use crate::budget::{Budget, Buffer, Tag};
use crate::error::Result;
use crate::kv::Page;
use crate::model::batch::Batch;
use crate::model::spec::Spec;
use crate::ops::attention;
use crate::quant::{Activation, GROUP};

/// The buffers of a pass over at most `rows` rows.
#[derive(Debug)]
pub struct Scratch {
    /// The rows of the pass that has this scratch.
    pub batch: Batch,
    /// Rows that fit.
    pub rows: usize,
    /// Workers that have a part of `attention`.
    pub workers: usize,
    /// Residual stream: (rows, dim).
    pub hidden: Buffer<f32>,
    /// What a block adds to the stream: (rows, dim).
    pub delta: Buffer<f32>,
    /// Normed stream: (rows, dim).
    pub normed: Buffer<f32>,
    /// Queries, keys and values: (rows, qkv_width).
    pub qkv: Buffer<f32>,
    /// What attention gives: (rows, attended_width).
    pub attended: Buffer<f32>,
    /// Gate and up projections: (rows, 2, hidden).
    pub ffn: Buffer<f32>,
    /// The quantized form of a matmul's input: (rows, widest input / 32).
    pub quants: Buffer<Activation>,
    /// Cosines and sines of each row's position: (rows, pairs).
    pub turns: Buffer<[f32; 2]>,
    /// Logits of the rows that want them: (outputs, vocab).
    pub logits: Buffer<f32>,
    /// Scores and spans of a query: (workers, attention::scratch_len).
    pub attention: Buffer<f32>,
    /// Pages on loan while they are written.
    pub lent: Vec<Page>,
}

/// Sizes of the buffers, in values.
struct Sizes {
    dim: usize,
    qkv: usize,
    attended: usize,
    ffn: usize,
    quants: usize,
    turns: usize,
    attention: usize,
}

impl Sizes {
    fn new(spec: &Spec) -> Self {
        let widest = spec.dim.max(spec.attended_width()).max(spec.hidden);
        Self {
            dim: spec.dim,
            qkv: spec.qkv_width(),
            attended: spec.attended_width(),
            ffn: 2 * spec.hidden,
            quants: widest.div_ceil(GROUP),
            turns: spec.rope.dims / 2,
            attention: attention::scratch_len(spec.context, spec.v_dim),
        }
    }
}

impl Scratch {
    /// Buffers for `rows` rows, `outputs` of which want logits, and `workers` threads.
    pub fn new(
        spec: &Spec,
        (rows, outputs, workers): (usize, usize, usize),
        budget: &Budget,
    ) -> Result<Self> {
        let sizes = Sizes::new(spec);
        let floats = |len: usize| budget.allocate::<f32>(Tag::Scratch, len);
        Ok(Self {
            batch: Batch::with_capacity(rows),
            rows,
            workers,
            hidden: floats(rows * sizes.dim)?,
            delta: floats(rows * sizes.dim)?,
            normed: floats(rows * sizes.dim)?,
            qkv: floats(rows * sizes.qkv)?,
            attended: floats(rows * sizes.attended)?,
            ffn: floats(rows * sizes.ffn)?,
            quants: budget.allocate(Tag::Scratch, rows * sizes.quants)?,
            turns: budget.allocate(Tag::Scratch, rows * sizes.turns)?,
            logits: floats(outputs * spec.vocab)?,
            attention: floats(workers * sizes.attention)?,
            lent: Vec::with_capacity(rows),
        })
    }

    /// What [`Scratch::new`] charges for the same arguments, in bytes.
    pub fn bytes(spec: &Spec, (rows, outputs, workers): (usize, usize, usize)) -> u64 {
        let sizes = Sizes::new(spec);
        let charged = |values: usize, size: usize| (values * size).next_multiple_of(64) as u64;
        let floats = [
            rows * sizes.dim,
            rows * sizes.dim,
            rows * sizes.dim,
            rows * sizes.qkv,
            rows * sizes.attended,
            rows * sizes.ffn,
            outputs * spec.vocab,
            workers * sizes.attention,
        ];
        floats.map(|values| charged(values, 4)).iter().sum::<u64>()
            + charged(rows * sizes.quants, size_of::<Activation>())
            + charged(rows * sizes.turns, size_of::<[f32; 2]>())
    }
}

/// Scratch that no pass has at the moment.
#[derive(Debug, Default)]
pub struct Pool(Mutex<Vec<Scratch>>);

impl Pool {
    /// The smallest idle scratch that is large enough, or a new one.
    pub fn take(
        &self,
        spec: &Spec,
        (rows, outputs, workers): (usize, usize, usize),
        budget: &Budget,
    ) -> Result<Scratch> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |s: &Scratch| {
            s.rows >= rows && s.workers >= workers && s.logits.len() >= outputs * spec.vocab
        };
        let best = idle
            .iter()
            .enumerate()
            .filter(|(_, s)| fits(s))
            .min_by_key(|(_, s)| s.rows);
        if let Some((at, _)) = best {
            return Ok(idle.swap_remove(at));
        }
        // What is too small for this pass serves no other of its size: let its memory go first.
        idle.retain(|s| s.rows > rows);
        drop(idle);
        Scratch::new(spec, (rows, outputs, workers), budget)
    }

    /// Gives scratch back.
    pub fn give(&self, scratch: Scratch) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(scratch);
    }
}
