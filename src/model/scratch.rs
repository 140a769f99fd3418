//! The activations of a pass: allocated once for a number of rows, lent to one pass after another.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::budget::{Budget, Buffer, Tag};
use crate::error::Result;
use crate::kv::Page;
use crate::model::batch::{Batch, reserved};
use crate::model::spec::{RecurrenceKind, Spec};
use crate::ops::attention::Spans;
use crate::ops::experts::Pick;
use crate::quant::{Activation, GROUP};

/// The buffers of a pass.
#[derive(Debug)]
pub struct Scratch {
    /// The rows of the pass that has this scratch.
    pub batch: Batch,
    /// What it is large enough for.
    pub size: Size,
    /// Residual stream: (rows, dim).
    pub hidden: Buffer<f32>,
    /// What a block adds to the stream: (rows, dim).
    pub delta: Buffer<f32>,
    /// Normed stream: (rows, dim).
    pub normed: Buffer<f32>,
    /// Queries, keys and values: (rows, qkv_width).
    pub qkv: Buffer<f32>,
    /// What attention or a recurrence gives: (rows, its width); at the end (outputs, dim).
    pub attended: Buffer<f32>,
    /// Gate and up projections: (rows, gated width), or (slots, gated width of experts).
    pub ffn: Buffer<f32>,
    /// The quantized form of a matmul's input: (rows, widest input / 32).
    pub quants: Buffer<Activation>,
    /// Cosines and sines of each row's position: (rows, pairs of all position embeddings).
    pub turns: Buffer<[f32; 2]>,
    /// Logits of the rows that want them: (outputs, vocab).
    pub logits: Buffer<f32>,
    /// Spans of some rows' attention, see [`Spans`].
    pub spans: Buffer<f32>,
    /// Pages on loan while they are written.
    pub lent: Vec<Page>,
    /// Logits of the routers, then scores: (rows, experts and perhaps one).
    pub router: Buffer<f32>,
    /// What a choice among experts is made by: (rows, experts).
    pub choice: Buffer<f32>,
    /// Experts that rows take: (rows, used).
    pub picks: Buffer<Pick>,
    /// Room to sort them: (experts + 1).
    pub counts: Buffer<u32>,
    /// The pick of each slot: (slots), a slot for each pick.
    pub order: Buffer<u32>,
    /// What experts take and give, (slots, dim), or what products with a matrix of each head take,
    /// (heads, rows, columns).
    pub slots: Buffer<f32>,
    /// What these give: (heads, rows, outputs).
    pub products: Buffer<f32>,
    /// What latent attention makes of a token first: (rows, low_width).
    pub low: Buffer<f32>,
    /// Its queries as they are made: (rows, q_width).
    pub wide: Buffer<f32>,
    /// The quantized form of what they take: (slots, wider input / 32).
    pub slot_quants: Buffer<Activation>,
    /// What a recurrent layer makes of a token first: (rows, in_width).
    pub mixed: Buffer<f32>,
    /// What its convolution gives: (rows, channels).
    pub convolved: Buffer<f32>,
    /// What a selective state space makes of that: (rows, low_width).
    pub narrow: Buffer<f32>,
    /// How heads or columns decay and take: (rows, steps), or (rows, inner).
    pub steps: Buffer<f32>,
    /// What states give: (rows, inner).
    pub scanned: Buffer<f32>,
}

/// What a pass asks of its scratch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows of its batch.
    pub rows: usize,
    /// Rows whose logits are wanted.
    pub outputs: usize,
    /// Tokens that its sequences may hold.
    pub context: usize,
}

impl Size {
    fn covers(&self, wanted: &Self) -> bool {
        self.rows >= wanted.rows && self.outputs >= wanted.outputs && self.context >= wanted.context
    }
}

/// Lengths of the buffers, in values. Products that no memory could hold saturate.
#[derive(Default)]
struct Lengths {
    dim: usize,
    qkv: usize,
    attended: usize,
    ffn: usize,
    quants: usize,
    turns: usize,
    logits: usize,
    spans: usize,
    router: usize,
    choice: usize,
    picks: usize,
    counts: usize,
    slots: usize,
    slot_quants: usize,
    products: usize,
    low: usize,
    wide: usize,
    mixed: usize,
    convolved: usize,
    narrow: usize,
    steps: usize,
    scanned: usize,
}

impl Lengths {
    fn new(spec: &Spec, size: &Size) -> Self {
        let rows = |width: usize| size.rows.saturating_mul(width);
        let recurrent = spec.recurrence.as_ref();
        let inner = recurrent.map_or(0, |recurrence| recurrence.widest());
        let attended = spec.attended_width().max(spec.out_width()).max(inner);
        let q_rank = spec.latent.map_or(0, |latent| latent.q_rank);
        let widest = spec.dim.max(attended).max(spec.hidden_max()).max(q_rank);
        let mut dense = Self {
            dim: rows(spec.dim),
            qkv: rows(spec.qkv_width()),
            // The last norm lays deltas of outputs there.
            attended: rows(attended.max(spec.dim)),
            ffn: rows(spec.gated_width(spec.hidden_max())),
            quants: rows(widest.div_ceil(GROUP)),
            turns: rows(spec.pairs().max(1)),
            logits: size.outputs.saturating_mul(spec.logits()),
            spans: Spans::scratch_len(spec.attention_heads(), size.context),
            ..Self::default()
        };
        if let Some(latent) = &spec.latent {
            let heads = rows(spec.heads);
            dense.slots = heads.saturating_mul(latent.widest());
            dense.slot_quants = heads.saturating_mul(latent.widest().div_ceil(GROUP));
            dense.products = dense.slots;
            dense.low = rows(latent.low_width(spec));
            dense.wide = rows(latent.q_width(spec));
        }
        if let Some(recurrence) = recurrent {
            dense.mixed = rows(recurrence.in_width());
            dense.convolved = rows(recurrence.channels());
            dense.narrow = rows(recurrence.low_width());
            dense.steps = rows(match recurrence.kind {
                RecurrenceKind::Selective { .. } => recurrence.inner,
                _ => recurrence.steps().max(1),
            });
            dense.scanned = rows(recurrence.inner);
        }
        let Some(experts) = &spec.experts else {
            return dense;
        };
        let picks = rows(experts.routing.used);
        let slots = |width: usize| picks.saturating_mul(width);
        Self {
            ffn: dense.ffn.max(slots(spec.gated_width(experts.hidden))),
            router: rows(experts.count + 1),
            choice: rows(experts.count),
            picks,
            counts: experts.count + 1,
            slots: dense.slots.max(slots(spec.dim)),
            slot_quants: dense
                .slot_quants
                .max(slots(spec.dim.max(experts.hidden).div_ceil(GROUP))),
            ..dense
        }
    }
}

impl Scratch {
    /// Buffers for passes of `size`.
    pub fn new(spec: &Spec, size: Size, budget: &Budget) -> Result<Self> {
        let lengths = Lengths::new(spec, &size);
        let floats = |len: usize| budget.allocate::<f32>(Tag::Scratch, len);
        let quants = |len: usize| budget.allocate_filled(Tag::Scratch, len, Activation::default());
        Ok(Self {
            batch: Batch::with_capacity(size.rows)?,
            size,
            hidden: floats(lengths.dim)?,
            delta: floats(lengths.dim)?,
            normed: floats(lengths.dim)?,
            qkv: floats(lengths.qkv)?,
            attended: floats(lengths.attended)?,
            ffn: floats(lengths.ffn)?,
            quants: quants(lengths.quants)?,
            turns: budget.allocate(Tag::Scratch, lengths.turns)?,
            logits: floats(lengths.logits)?,
            spans: floats(lengths.spans)?,
            lent: reserved(size.rows)?,
            router: floats(lengths.router)?,
            choice: floats(lengths.choice)?,
            picks: budget.allocate_filled(Tag::Scratch, lengths.picks, Pick::default())?,
            counts: budget.allocate(Tag::Scratch, lengths.counts)?,
            order: budget.allocate(Tag::Scratch, lengths.picks)?,
            slots: floats(lengths.slots)?,
            slot_quants: quants(lengths.slot_quants)?,
            products: floats(lengths.products)?,
            low: floats(lengths.low)?,
            wide: floats(lengths.wide)?,
            mixed: floats(lengths.mixed)?,
            convolved: floats(lengths.convolved)?,
            narrow: floats(lengths.narrow)?,
            steps: floats(lengths.steps)?,
            scanned: floats(lengths.scanned)?,
        })
    }

    /// What [`Scratch::new`] charges for the same arguments, in bytes.
    pub fn bytes(spec: &Spec, size: Size) -> u64 {
        let lengths = Lengths::new(spec, &size);
        let floats = [
            lengths.dim,
            lengths.dim,
            lengths.dim,
            lengths.qkv,
            lengths.attended,
            lengths.ffn,
            lengths.logits,
            lengths.spans,
            lengths.router,
            lengths.choice,
            lengths.slots,
            lengths.products,
            lengths.low,
            lengths.wide,
            lengths.mixed,
            lengths.convolved,
            lengths.narrow,
            lengths.steps,
            lengths.scanned,
        ];
        let numbers = [lengths.counts, lengths.picks];
        let quants = [lengths.quants, lengths.slot_quants];
        floats.map(Budget::charge_of::<f32>).iter().sum::<u64>()
            + numbers.map(Budget::charge_of::<u32>).iter().sum::<u64>()
            + quants
                .map(Budget::charge_of::<Activation>)
                .iter()
                .sum::<u64>()
            + Budget::charge_of::<Pick>(lengths.picks)
            + Budget::charge_of::<[f32; 2]>(lengths.turns)
    }
}

/// Idle scratch that is kept, at most.
const IDLE_MAX: usize = 8;

/// Scratch that no pass has at the moment. A pass holds its scratch also while it is paused.
#[derive(Debug, Default)]
pub struct Pool(Mutex<Vec<Scratch>>);

impl Pool {
    /// The idle scratch with the fewest rows that is large enough, or a new one.
    pub fn take(&self, spec: &Spec, size: Size, budget: &Budget) -> Result<Scratch> {
        let mut idle = self.lock();
        let fits = |&i: &usize| idle[i].size.covers(&size);
        let best = (0..idle.len())
            .filter(fits)
            .min_by_key(|&i| idle[i].size.rows);
        if let Some(best) = best {
            return Ok(idle.swap_remove(best));
        }
        // What the new one covers as well goes first. Memory is given back without the lock.
        let covered = idle.iter().position(|scratch| size.covers(&scratch.size));
        let covered = covered.map(|at| idle.swap_remove(at));
        drop(idle);
        drop(covered);
        Scratch::new(spec, size, budget)
    }

    /// Gives scratch back.
    pub fn give(&self, scratch: Scratch) {
        let mut idle = self.lock();
        if idle.len() < IDLE_MAX {
            idle.push(scratch);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Scratch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
