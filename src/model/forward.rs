//! The one forward pass: a list of phases over a batch of rows, which can pause between tasks.
//!
//! [`Pass::run`] goes on where it stopped: (layer, phase, next task). Everything a later call needs
//! lies in the scratch and in the caches. Rows do not see each other except through the caches, and
//! each row's arithmetic is the same in any batch, so logits depend on the tokens alone.

use crate::control::{Flow, Signals};
use crate::error::{Code, Error, Result};
use crate::kernel::{Input, Kernels};
use crate::kv::{Cache, PAGE_TOKENS};
use crate::model::Network;
use crate::model::batch::Row;
use crate::model::scratch::Scratch;
use crate::model::weights::Layer;
use crate::ops::attention::{self, Query};
use crate::ops::matmul::{self, Linear};
use crate::quant::GROUP;
use crate::team::{Chunks, Partition, PerWorker, Team, Tiles};

/// A piece of a pass; each has its own tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Embed,
    NormAttention,
    Qkv,
    Rope,
    Store,
    Attend,
    PackAttended,
    AttentionOut,
    NormFfn,
    GateUp,
    Activate,
    Down,
    NormOutput,
    Logits,
    Done,
}

/// A forward pass over a batch, from its start to its logits.
#[derive(Debug)]
pub struct Pass {
    scratch: Scratch,
    layer: usize,
    phase: Phase,
    task: usize,
}

/// What the phases of a call work with.
struct Context<'a> {
    network: &'a Network,
    kernels: &'a Kernels,
    team: &'a Team,
    signals: Signals<'a>,
}

impl Pass {
    /// Begins a pass over `rows`, at most as many as the scratch holds. The caller has checked the
    /// tokens and reserved the caches.
    pub fn new(mut scratch: Scratch, rows: impl Iterator<Item = Row>) -> Self {
        scratch.batch.set(rows);
        assert!(
            scratch.batch.rows().len() <= scratch.size.rows,
            "the scratch holds the batch"
        );
        Self {
            scratch,
            layer: 0,
            phase: Phase::Embed,
            task: 0,
        }
    }

    /// The batch.
    pub fn rows(&self) -> &[Row] {
        self.scratch.batch.rows()
    }

    /// The scratch, for the next user.
    pub fn into_scratch(self) -> Scratch {
        self.scratch
    }

    /// Logits of output number `output` of a finished pass: (vocab).
    pub fn logits(&self, output: usize, vocab: usize) -> &[f32] {
        &self.scratch.logits[output * vocab..][..vocab]
    }

    /// Goes on until the pass is done or the deadline has passed; at least one task runs. After an
    /// error the pass cannot go on.
    pub fn run(
        &mut self,
        network: &Network,
        team: &Team,
        caches: &mut [Cache],
        signals: Signals<'_>,
    ) -> Result<Flow> {
        let context = Context {
            network,
            kernels: network.kernels,
            team,
            signals,
        };
        let _call = team.call();
        while self.phase != Phase::Done {
            if self.run_phase(&context, caches)? == Flow::Paused {
                return Ok(Flow::Paused);
            }
            self.task = 0;
            self.advance(network.spec.layers);
            if self.phase != Phase::Done && signals.due() {
                return Ok(Flow::Paused);
            }
        }
        Ok(Flow::Done)
    }

    fn advance(&mut self, layers: usize) {
        use Phase::*;
        self.phase = match self.phase {
            Embed => NormAttention,
            NormAttention => Qkv,
            Qkv => Rope,
            Rope => Store,
            Store => Attend,
            Attend => PackAttended,
            PackAttended => AttentionOut,
            AttentionOut => NormFfn,
            NormFfn => GateUp,
            GateUp => Activate,
            Activate => Down,
            Down => {
                self.layer += 1;
                if self.layer < layers {
                    NormAttention
                } else {
                    NormOutput
                }
            }
            NormOutput => Logits,
            Logits | Done => Done,
        };
    }

    fn run_phase(&mut self, context: &Context<'_>, caches: &mut [Cache]) -> Result<Flow> {
        let network = context.network;
        let layer = || &network.weights.layers[self.layer];
        match self.phase {
            Phase::Embed => self.embed(context),
            Phase::NormAttention => {
                let (norm, pack) = (&layer().attention_norm, wants_quants(&qkv(layer())));
                self.norm(context, norm, self.layer > 0, pack)
            }
            Phase::Qkv => self.qkv(context, &qkv(layer())),
            Phase::Rope => self.rope(context),
            Phase::Store => self.store(context, caches),
            Phase::Attend => self.attend(context, caches),
            Phase::PackAttended => self.pack_attended(context),
            Phase::AttentionOut => self.attention_out(context, &layer().attention_out),
            Phase::NormFfn => {
                let (norm, pack) = (&layer().ffn_norm, wants_quants(&gate_up(layer())));
                self.norm(context, norm, true, pack)
            }
            Phase::GateUp => self.gate_up(context, &gate_up(layer())),
            Phase::Activate => self.activate(context, wants_quants(&[&layer().down])),
            Phase::Down => self.down(context, &layer().down),
            Phase::NormOutput => self.norm_output(context),
            Phase::Logits => self.logits_phase(context),
            Phase::Done => Ok(Flow::Done),
        }
    }

    /// hidden = embedding[token]; turns = angles of the position.
    fn embed(&mut self, context: &Context<'_>) -> Result<Flow> {
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
    fn norm(
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
    fn qkv(&mut self, context: &Context<'_>, linears: &[&Linear]) -> Result<Flow> {
        let spec = &context.network.spec;
        let x = Input {
            columns: spec.dim,
            stride: spec.dim,
            floats: &self.scratch.normed,
            quants: &self.scratch.quants,
        };
        let n = self.scratch.batch.rows().len();
        context.matmul(&mut self.task, linears, x, n, &mut self.scratch.qkv)
    }

    /// Turns queries and keys in place.
    fn rope(&mut self, context: &Context<'_>) -> Result<Flow> {
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
    fn store(&mut self, context: &Context<'_>, caches: &mut [Cache]) -> Result<Flow> {
        let spec = &context.network.spec;
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
                    page[0].store(layout, (layer, head), slot, (key, value));
                }
            }
            Ok(())
        });
        for ((cache, page), data) in pages().zip(lent.drain(..)) {
            caches[cache].restore(page, data);
        }
        flow
    }

    /// attended = attention of each query head over its sequence; a task has one row and the query
    /// heads of one key head.
    fn attend(&mut self, context: &Context<'_>, caches: &[Cache]) -> Result<Flow> {
        let Network { spec, kernels, .. } = context.network;
        let (n, group) = (self.scratch.batch.rows().len(), spec.heads / spec.kv_heads);
        let width = spec.attended_width();
        let tile = (1, group * spec.v_dim);
        let scratch = attention::scratch_len(self.scratch.size.context, spec.v_dim);
        let parts = (
            Tiles::new(&mut self.scratch.attended[..n * width], width, tile),
            PerWorker::new(&mut self.scratch.attention, scratch),
        );
        let (qkv, rows, layer) = (&self.scratch.qkv, self.scratch.batch.rows(), self.layer);
        let qkv_width = spec.qkv_width();
        context.run(&mut self.task, parts, |_, (out, scratch)| {
            let i = out.row_range().start;
            let kv_head = out.column_range().start / (group * spec.v_dim);
            let place = Query {
                layer,
                kv_head,
                position: rows[i].position,
                scale: spec.attention_scale,
            };
            let queries = &qkv[i * qkv_width + kv_head * group * spec.k_dim..];
            let queries = queries.chunks_exact(spec.k_dim);
            for (query, out) in queries.zip(out.row_mut(0).chunks_exact_mut(spec.v_dim)) {
                let cache = &caches[rows[i].sequence];
                attention::attend(kernels, cache, place, query, scratch, out);
            }
            Ok(())
        })
    }

    /// Quantizes what attention gave, if its matrix wants that.
    fn pack_attended(&mut self, context: &Context<'_>) -> Result<Flow> {
        let width = context.network.spec.attended_width();
        let out = &context.network.weights.layers[self.layer].attention_out;
        if !wants_quants(&[out]) {
            return Ok(Flow::Done);
        }
        let (n, groups) = (self.scratch.batch.rows().len(), width / GROUP);
        let quants = Chunks::new(&mut self.scratch.quants[..n * groups], groups);
        let (attended, layer) = (&self.scratch.attended, self.layer);
        context.run(&mut self.task, quants, |task, quants| {
            let finite = context
                .kernels
                .quantize_row(&attended[task * width..][..width], quants);
            finite.then_some(()).ok_or_else(|| layer_not_finite(layer))
        })
    }

    /// delta = attended x out.
    fn attention_out(&mut self, context: &Context<'_>, out: &Linear) -> Result<Flow> {
        let width = context.network.spec.attended_width();
        let x = Input {
            columns: width,
            stride: width,
            floats: &self.scratch.attended,
            quants: &self.scratch.quants,
        };
        let n = self.scratch.batch.rows().len();
        context.matmul(&mut self.task, &[out], x, n, &mut self.scratch.delta)
    }

    /// ffn = normed x (gate, up).
    fn gate_up(&mut self, context: &Context<'_>, linears: &[&Linear]) -> Result<Flow> {
        let dim = context.network.spec.dim;
        let x = Input {
            columns: dim,
            stride: dim,
            floats: &self.scratch.normed,
            quants: &self.scratch.quants,
        };
        let n = self.scratch.batch.rows().len();
        context.matmul(&mut self.task, linears, x, n, &mut self.scratch.ffn)
    }

    /// gate = silu(gate) * up, quantized if wanted.
    fn activate(&mut self, context: &Context<'_>, pack: bool) -> Result<Flow> {
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
    fn down(&mut self, context: &Context<'_>, down: &Linear) -> Result<Flow> {
        let hidden = context.network.spec.hidden;
        let x = Input {
            columns: hidden,
            stride: 2 * hidden,
            floats: &self.scratch.ffn,
            quants: &self.scratch.quants,
        };
        let n = self.scratch.batch.rows().len();
        context.matmul(&mut self.task, &[down], x, n, &mut self.scratch.delta)
    }

    /// normed = rms_norm(hidden + delta) of the rows that want logits, one after the other.
    fn norm_output(&mut self, context: &Context<'_>) -> Result<Flow> {
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
    fn logits_phase(&mut self, context: &Context<'_>) -> Result<Flow> {
        let Network { spec, weights, .. } = context.network;
        let x = Input {
            columns: spec.dim,
            stride: spec.dim,
            floats: &self.scratch.normed,
            quants: &self.scratch.quants,
        };
        let (n, vocab) = (self.scratch.batch.outputs().len(), spec.vocab);
        let tile = matmul::tiling(n, vocab, x.columns, context.team.threads());
        let tiles = Tiles::new(&mut self.scratch.logits[..n * vocab], vocab, tile);
        context.run(&mut self.task, tiles, |_, tile| {
            matmul::side_by_side(context.kernels, &[&weights.output], &x, tile);
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
        task: &mut usize,
        linears: &[&Linear],
        x: Input<'_>,
        n: usize,
        out: &mut [f32],
    ) -> Result<Flow> {
        let outputs: usize = linears.iter().map(|linear| linear.weight.rows()).sum();
        let tile = matmul::tiling(n, outputs, x.columns, self.team.threads());
        let tiles = Tiles::new(&mut out[..n * outputs], outputs, tile);
        self.run(task, tiles, |_, tile| {
            matmul::side_by_side(self.kernels, linears, &x, tile);
            Ok(())
        })
    }
}

fn qkv(layer: &Layer) -> [&Linear; 3] {
    [&layer.q, &layer.k, &layer.v]
}

fn gate_up(layer: &Layer) -> [&Linear; 2] {
    [&layer.gate, &layer.up]
}

/// Whether one of the matrices takes quantized rows.
fn wants_quants(linears: &[&Linear]) -> bool {
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
