//! The one forward pass: a list of phases over a batch of rows, which can pause between tasks.
//!
//! [`Pass::run`] goes on where it stopped: (layer, phase, next task). Everything a later call needs
//! lies in the scratch and in the caches. Rows do not see each other except through the caches, and
//! each row's arithmetic is the same in any batch, so logits depend on the tokens alone.

use std::ops::Range;

use crate::control::{Flow, Signals};
use crate::error::Result;
use crate::kv::Cache;
use crate::model::Network;
use crate::model::batch::Row;
use crate::model::phases::{Context, Entry, Reads, takes_quants};
use crate::model::scratch::Scratch;
use crate::model::spec::{Experts, Latent, Recurrence, RecurrenceKind};
use crate::model::weights::{ExpertWeights, Ffn, LatentWeights, Layer, RecurrentWeights};
use crate::ops::matmul::Linear;
use crate::team::Team;

/// A piece of a pass; each has its own tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Embed,
    NormAttention,
    StateIn,
    Low,
    LowShape,
    Queries,
    GatherQueries,
    OfKeys,
    ScatterQueries,
    Qkv,
    ShapeQkv,
    Store,
    Attend,
    Join,
    GatherValues,
    OfValues,
    ScatterValues,
    AttentionOut,
    Product,
    Convolve,
    Narrow,
    ShapeNarrow,
    Steps,
    Scan,
    Gate,
    StateOut,
    AddState,
    NormFfn,
    Route,
    Choose,
    Gather,
    ExpertsIn,
    ExpertsActivate,
    ExpertsOut,
    GateUp,
    Activate,
    Down,
    Combine,
    NormOutput,
    Logits,
    Done,
}

/// What a pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The logits of the rows that want output.
    Logits,
    /// What the last layer makes of them.
    Rows,
}

/// A forward pass over a batch, from its start to its logits.
#[derive(Debug)]
pub struct Pass {
    pub(super) scratch: Scratch,
    /// What it is for.
    pub(super) goal: Goal,
    /// Threads for which matmuls are cut into tasks, the same in every call.
    pub(super) threads: usize,
    pub(super) layer: usize,
    pub(super) phase: Phase,
    /// Number of the block whose attention is computed, or of the sequence whose states are.
    pub(super) block: usize,
    pub(super) task: usize,
}

impl Pass {
    /// Begins a pass over `rows`, at most as many as the scratch holds. The caller has checked the
    /// tokens and reserved the caches; of a model that is not causal the rows are the whole sequence.
    /// Tasks are cut for `threads`, whoever runs them.
    pub fn new(
        network: &Network,
        mut scratch: Scratch,
        rows: impl Iterator<Item = Row>,
        goal: Goal,
        threads: usize,
    ) -> Self {
        scratch.batch.set(rows, network.page_tokens);
        assert!(
            scratch.batch.rows().len() <= scratch.size.rows,
            "the scratch holds the batch"
        );
        Self {
            scratch,
            goal,
            threads,
            layer: 0,
            phase: Phase::Embed,
            block: 0,
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

    /// Row number `output` of those that want output, of a finished pass for rows: (dim).
    pub fn row(&self, output: usize, dim: usize) -> &[f32] {
        &self.scratch.normed[output * dim..][..dim]
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
        if self.phase == Phase::Embed {
            let begin =
                |cache: &mut Cache, tokens: Range<usize>| cache.state_mut().begin(tokens.start);
            self.each_sequence(caches, begin)?;
        }
        while self.phase != Phase::Done {
            if self.run_phase(&context, caches)? == Flow::Paused {
                return Ok(Flow::Paused);
            }
            self.task = 0;
            self.advance(network);
            if self.phase != Phase::Done && signals.due() {
                return Ok(Flow::Paused);
            }
        }
        self.each_sequence(caches, |cache, tokens| {
            cache.state_mut().commit(tokens.end);
            Ok(())
        })?;
        Ok(Flow::Done)
    }

    /// Calls `visit` with the cache of each sequence, and its tokens in the batch.
    fn each_sequence(
        &self,
        caches: &mut [Cache],
        visit: impl Fn(&mut Cache, Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let batch = &self.scratch.batch;
        batch.sequences().iter().try_for_each(|rows| {
            let first = batch.rows()[rows.start];
            let tokens = first.position..first.position + rows.len();
            visit(&mut caches[first.sequence], tokens)
        })
    }

    /// Goes to the next phase that the model has in this layer.
    fn advance(&mut self, network: &Network) {
        use Phase::*;
        // The layers' are over where the output begins.
        let last = network.spec.layers - 1;
        let layer = &network.weights.layers[self.layer.min(last)];
        self.phase = match self.phase {
            Embed => NormAttention,
            NormAttention if layer.recurrent.is_some() => StateIn,
            NormAttention if layer.latent.is_some() => Low,
            Low => LowShape,
            LowShape => Queries,
            Queries => GatherQueries,
            GatherQueries => OfKeys,
            OfKeys => ScatterQueries,
            NormAttention => Qkv,
            StateIn if !layer.qkv.is_empty() => Qkv,
            Qkv if self.shapes_qkv(&network.spec) => ShapeQkv,
            Qkv | ShapeQkv | ScatterQueries => Store,
            Store => {
                self.block = 0;
                Attend
            }
            Attend => Join,
            Join => {
                self.block += 1;
                match self.attention_block(network).0 {
                    Some(_) => Attend,
                    None if layer.latent.is_some() => GatherValues,
                    None => AttentionOut,
                }
            }
            GatherValues => OfValues,
            OfValues => ScatterValues,
            ScatterValues => AttentionOut,
            AttentionOut if layer.recurrent.is_some() => self.within_recurrence(network),
            StateIn | Product | Convolve | Narrow | ShapeNarrow | Steps | Scan | Gate => {
                self.within_recurrence(network)
            }
            StateOut if !layer.qkv.is_empty() => AddState,
            AttentionOut | StateOut | AddState if feeds(layer) => NormFfn,
            NormFfn if layer.experts.is_some() => Route,
            Route => Choose,
            Choose => Gather,
            Gather => ExpertsIn,
            ExpertsIn => ExpertsActivate,
            ExpertsActivate => ExpertsOut,
            NormFfn | ExpertsOut if layer.ffn.is_some() => GateUp,
            GateUp => Activate,
            Activate => Down,
            NormFfn | ExpertsOut | Down if layer.experts.is_some() => Combine,
            NormFfn | ExpertsOut | Down | Combine | AttentionOut | StateOut | AddState => {
                self.layer += 1;
                if self.layer < network.spec.layers {
                    NormAttention
                } else {
                    NormOutput
                }
            }
            NormOutput if self.goal == Goal::Logits => Logits,
            NormOutput | Logits | Done => Done,
        };
    }

    /// The same between what a recurrent layer makes of a token first and what it gives.
    fn within_recurrence(&mut self, network: &Network) -> Phase {
        use Phase::*;
        let kind = network
            .spec
            .recurrence
            .as_ref()
            .map(|recurrence| recurrence.kind);
        let is_convolution = kind == Some(RecurrenceKind::Convolution);
        let is_selective = matches!(kind, Some(RecurrenceKind::Selective { .. }));
        match self.phase {
            StateIn | AttentionOut if is_convolution => Product,
            StateIn | AttentionOut | Product => Convolve,
            Convolve if is_convolution => Gate,
            Convolve if is_selective => Narrow,
            Narrow => ShapeNarrow,
            ShapeNarrow => Steps,
            Convolve | Steps => {
                self.block = 0;
                Scan
            }
            Scan => {
                self.block += 1;
                match self.block < self.scratch.batch.sequences().len() {
                    true => Scan,
                    false => Gate,
                }
            }
            _ => StateOut,
        }
    }

    fn run_phase(&mut self, context: &Context<'_>, caches: &mut [Cache]) -> Result<Flow> {
        let network = context.network;
        let layer = || &network.weights.layers[self.layer];
        match self.phase {
            Phase::Embed => self.embed(context),
            Phase::NormAttention => self.enter(context, &self.attention_entry(network)),
            Phase::Low => self.low(context, &layer().qkv),
            Phase::LowShape => self.low_shape(context, latent(network, layer())),
            Phase::Queries => self.queries(context, latent(network, layer())),
            Phase::GatherQueries => self.gather_queries(context, latent(network, layer())),
            Phase::OfKeys => self.of_heads(context, &latent(network, layer()).0.k_b),
            Phase::ScatterQueries => self.scatter_queries(context, latent(network, layer())),
            Phase::GatherValues => self.gather_values(context, latent(network, layer())),
            Phase::OfValues => self.of_heads(context, &latent(network, layer()).0.v_b),
            Phase::ScatterValues => {
                let latent = latent(network, layer()).1;
                self.scatter_values(context, (latent, attention_out(layer())))
            }
            Phase::Qkv => self.qkv(context, &layer().qkv),
            Phase::ShapeQkv => self.shape_qkv(context),
            Phase::Store => self.store(context, caches),
            Phase::Attend => self.attend(context, caches),
            Phase::Join => self.join(context),
            Phase::AttentionOut => self.attention_out(context, attention_out(layer())),
            Phase::StateIn => self.state_in(context, recurrent(network, layer()).0),
            Phase::Product => self.product(context, recurrent(network, layer()).1),
            Phase::Convolve => self.convolve(context, recurrent(network, layer()), caches),
            Phase::Narrow => self.narrow(context, recurrent(network, layer())),
            Phase::ShapeNarrow => self.shape_narrow(context, recurrent(network, layer())),
            Phase::Steps => self.steps(context, recurrent(network, layer())),
            Phase::Scan => self.scan(context, recurrent(network, layer()), caches),
            Phase::Gate => self.gate(context, recurrent(network, layer())),
            Phase::StateOut => {
                let attends = !layer().qkv.is_empty();
                self.state_out(context, (recurrent(network, layer()).0, attends))
            }
            Phase::AddState => self.add_state(context),
            Phase::NormFfn => self.enter(context, &self.ffn_entry(network)),
            Phase::GateUp => self.gate_up(context, ffn(layer())),
            Phase::Activate => self.activate(context, ffn(layer())),
            Phase::Down => self.down(context, ffn(layer())),
            Phase::Route => self.route(context, experts(network, layer()).0),
            Phase::Choose => self.choose(context, experts(network, layer())),
            Phase::Gather => self.gather(context, experts(network, layer())),
            Phase::ExpertsIn => self.experts_in(context, experts(network, layer())),
            Phase::ExpertsActivate => self.experts_activate(context, experts(network, layer())),
            Phase::ExpertsOut => self.experts_out(context, experts(network, layer())),
            Phase::Combine => self.combine(context, experts(network, layer())),
            Phase::NormOutput => self.norm_output(context),
            Phase::Logits => self.logits_phase(context),
            Phase::Done => Ok(Flow::Done),
        }
    }

    /// What comes before the attention of this layer.
    fn attention_entry<'a>(&self, network: &'a Network) -> Entry<'a> {
        let layers = &network.weights.layers;
        let before = self.layer.checked_sub(1).map(|before| &layers[before]);
        let layer = &layers[self.layer];
        let state = layer.recurrent.iter().flat_map(|state| &state.inputs);
        let mut all = layer.qkv.iter().chain(state);
        Entry {
            adds: before.is_some(),
            behind: before.and_then(|before| before.ffn_post_norm.as_ref()),
            of_sum: [before.and_then(|before| before.ffn_sum_norm.as_ref()), None],
            reads: Reads::Stream(layer.attention_norm.as_ref()),
            parallel: false,
            pack: all.any(takes_quants),
        }
    }

    /// What comes before its feed-forward network.
    fn ffn_entry<'a>(&self, network: &'a Network) -> Entry<'a> {
        let (spec, layer) = (&network.spec, &network.weights.layers[self.layer]);
        let norm = layer.ffn_norm.as_ref();
        let dense = layer.ffn.iter().flat_map(|ffn| &ffn.inputs);
        let experts = layer.experts.iter();
        let experts = experts.flat_map(|experts| experts.router.iter().chain(&experts.inputs));
        let mut all = dense.chain(experts);
        Entry {
            adds: true,
            behind: layer.attention_post_norm.as_ref(),
            of_sum: [
                layer.attention_sum_norm.as_ref(),
                layer.attention_second_norm.as_ref(),
            ],
            reads: match spec.parallel && norm.is_none() {
                true => Reads::Same,
                false => Reads::Stream(norm),
            },
            parallel: spec.parallel,
            pack: all.any(takes_quants),
        }
    }
}

/// Latent attention in a phase of it.
fn latent<'a>(network: &'a Network, layer: &'a Layer) -> (&'a LatentWeights, &'a Latent) {
    let both = layer.latent.as_ref().zip(network.spec.latent.as_ref());
    both.expect("only a layer with latent attention comes here")
}

/// What a recurrent layer has in a phase of it.
fn recurrent<'a>(network: &'a Network, layer: &'a Layer) -> (&'a RecurrentWeights, &'a Recurrence) {
    let both = layer
        .recurrent
        .as_ref()
        .zip(network.spec.recurrence.as_ref());
    both.expect("only a recurrent layer comes here")
}

/// The last matrix of a layer that attends.
fn attention_out(layer: &Layer) -> &Linear {
    let out = layer.attention_out.as_ref();
    out.expect("only a layer that attends comes here")
}

/// Whether a layer has a feed-forward network.
fn feeds(layer: &Layer) -> bool {
    layer.ffn.is_some() || layer.experts.is_some()
}

/// The network that all tokens take in a phase that needs one.
fn ffn(layer: &Layer) -> &Ffn {
    layer
        .ffn
        .as_ref()
        .expect("only a layer with one comes here")
}

/// The experts in a phase that needs them.
fn experts<'a>(network: &'a Network, layer: &'a Layer) -> (&'a ExpertWeights, &'a Experts) {
    let both = layer.experts.as_ref().zip(network.spec.experts.as_ref());
    both.expect("only a layer with experts comes here")
}
