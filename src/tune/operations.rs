//! The operations of a forward pass, each at a size of its own, in the phases of the pass.

use std::fmt;
use std::sync::Arc;

use crate::budget::{Budget, Buffer, Tag};
use crate::control::Signals;
use crate::error::Result;
use crate::kernel::{Scoring, Window};
use crate::kv::{Cache, KvFormat, LayerShape, Layout, PAGE_TOKENS, StateShape};
use crate::ops::attention::{self, Heads, Place, Queries, Spans};
use crate::ops::matmul;
use crate::ops::norm::{HeadNorm, Norm, NormKind};
use crate::quant::{Activation, Format, GROUP};
use crate::sampler::{Sampler, SamplerOptions};
use crate::team::{Chunks, Partition, Team, Tiles};

use super::products::Weights;
use super::{Effort, kernels};

/// Multiply-adds that attention may have: larger ones only take longer to measure.
const WORK_MAX: usize = 1 << 29;
/// Values of a head.
const HEAD: usize = 64;
/// Query heads that share a key head.
const HEADS_SHARING: usize = 8;

/// Something that a pass does, at one size.
pub struct Operation {
    /// What is done.
    pub name: String,
    /// To how much.
    pub size: String,
    prepare: Box<dyn Fn() -> Result<Run>>,
}

/// Does it with a team; gives about how many nanoseconds it takes on one thread, as the team is told,
/// or 0 if it is a single task.
pub(super) type Run = Box<dyn FnMut(&Team) -> Result<usize>>;

impl Operation {
    fn new(name: &str, size: String, prepare: impl Fn() -> Result<Run> + 'static) -> Self {
        let (name, prepare) = (name.into(), Box::new(prepare));
        Self {
            name,
            size,
            prepare,
        }
    }

    /// Makes what it works on; or `OUT_OF_MEMORY`.
    pub(super) fn prepare(&self) -> Result<Run> {
        (self.prepare)()
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Operation({}, {})", self.name, self.size)
    }
}

/// All operations, small sizes first.
pub fn operations(effort: Effort) -> Vec<Operation> {
    let mut all = of_rows(effort);
    for rows in [1, 16, 512] {
        for keys in [16, 64, 256, 1024, 4096] {
            let work = 2 * rows * keys * 4 * HEADS_SHARING * HEAD;
            if keys >= rows && work <= WORK_MAX {
                let size = format!("{rows} x {keys} keys");
                let prepare = move || attention(rows, keys);
                all.push(Operation::new("attention", size, prepare));
            }
        }
    }
    all.extend(matmuls(effort));
    for vocab in [32_000, 150_000] {
        let prepare = move || sampling(vocab);
        all.push(Operation::new(
            "sampling",
            format!("{vocab} logits"),
            prepare,
        ));
    }
    all
}

/// What is done to each row by itself.
fn of_rows(effort: Effort) -> Vec<Operation> {
    type Prepare = fn(usize, usize) -> Result<Run>;
    let (rows, dims): (&[usize], &[usize]) = match effort.is_quick {
        true => (&[1, 4, 64], &[2048]),
        false => (&[1, 2, 4, 8, 16, 64, 512], &[576, 2048]),
    };
    // With a quarter as many key heads as query heads.
    let turning = |dim: usize| dim / HEAD * 5 / 4 * HEAD;
    let hidden = |dim: usize| dim * 11 / 4 / GROUP * GROUP;
    let mut all = Vec::new();
    for &dim in dims {
        let kinds: [(&str, Prepare, usize); 4] = [
            ("norm", norm, dim),
            ("Q/K norm", head_norm, turning(dim)),
            ("rope", rope, turning(dim)),
            ("activation", activation, hidden(dim)),
        ];
        for (name, prepare, width) in kinds {
            for &rows in rows {
                let size = format!("{rows} x {width}");
                all.push(Operation::new(name, size, move || prepare(rows, width)));
            }
        }
    }
    all
}

/// Products of several formats, shapes and numbers of tokens.
fn matmuls(effort: Effort) -> Vec<Operation> {
    let (tokens, sides): (&[usize], &[usize]) = match effort.is_quick {
        true => (&[1, 16], &[256, 1024]),
        false => (&[1, 2, 4, 16, 128], &[256, 512, 1024, 2048]),
    };
    let mut all = Vec::new();
    for format in [
        Format::Q4_0,
        Format::Q8_0,
        Format::Q4_K,
        Format::F16,
        Format::F32,
    ] {
        for &side in sides {
            for &tokens in tokens {
                let name = format!("matmul {}", format.name());
                let size = format!("{tokens} x {side} x {side}");
                let prepare = move || matmul(format, tokens, side);
                all.push(Operation::new(&name, size, prepare));
            }
        }
    }
    all
}

/// Runs a phase; its estimate, 0 if it is a single task.
fn phase<P: Partition>(
    team: &Team,
    parts: P,
    body: impl Fn(usize, &mut P::Part) -> Result<()> + Sync,
) -> Result<usize> {
    let estimate = match parts.tasks() {
        0 | 1 => 0,
        _ => parts.work_ns(),
    };
    team.run(&Signals::default(), &mut 0, parts, body)?;
    Ok(estimate)
}

/// What comes before a block: the stream takes what the block before it gave, is normed, quantized.
fn norm(rows: usize, dim: usize) -> Result<Run> {
    let groups = dim / GROUP;
    let mut hidden = floats(rows * dim)?;
    let (mut delta, mut normed) = (floats(rows * dim)?, floats(rows * dim)?);
    let mut quants = vec![Activation::default(); rows * groups];
    let norm = unit_norm(dim)?;
    Ok(Box::new(move |team| {
        let parts = (
            (Chunks::new(&mut hidden, dim), Chunks::new(&mut delta, dim)),
            Chunks::new(&mut normed, dim),
            Chunks::new(&mut quants, groups),
        );
        phase(team, parts, |_, ((hidden, delta), normed, quants)| {
            // So small that the sum stays, however often it is made.
            kernels().add_scaled(hidden, 1e-30, delta);
            normed.copy_from_slice(hidden);
            norm.apply(kernels(), normed);
            kernels().quantize_row(normed, quants);
            Ok(())
        })
    }))
}

/// The norm of each query and key.
fn head_norm(rows: usize, width: usize) -> Result<Run> {
    let mut values = floats(rows * width)?;
    let norm = HeadNorm {
        norm: unit_norm(HEAD)?,
        width: HEAD,
    };
    Ok(Box::new(move |team| {
        phase(team, Chunks::new(&mut values, width), |_, row| {
            norm.apply(kernels(), row);
            Ok(())
        })
    }))
}

/// Queries and keys turn by their positions.
fn rope(rows: usize, width: usize) -> Result<Run> {
    let mut values = floats(rows * width)?;
    let turns = vec![[0.6, 0.8]; HEAD / 2];
    Ok(Box::new(move |team| {
        phase(team, Chunks::new(&mut values, width), |_, row| {
            for head in row.chunks_exact_mut(HEAD) {
                kernels().rope_halves(head, &turns);
            }
            Ok(())
        })
    }))
}

/// The gate of a feed-forward network, and quantizing it.
fn activation(rows: usize, hidden: usize) -> Result<Run> {
    let groups = hidden / GROUP;
    let mut values = floats(rows * 2 * hidden)?;
    let mut quants = vec![Activation::default(); rows * groups];
    Ok(Box::new(move |team| {
        let parts = (
            Chunks::new(&mut values, 2 * hidden).taking(rows * hidden),
            Chunks::new(&mut quants, groups),
        );
        phase(team, parts, |_, (row, quants)| {
            let (gate, up) = row.split_at_mut(hidden);
            // Again and again on its own result, it would end in subnormal numbers.
            gate.copy_from_slice(up);
            kernels().swiglu(gate, up);
            kernels().quantize_row(gate, quants);
            Ok(())
        })
    }))
}

/// Scores, softmax and values of the last `rows` of `keys` tokens, and joining their spans.
fn attention(rows: usize, keys: usize) -> Result<Run> {
    let heads = Heads {
        kv_heads: 4,
        group: HEADS_SHARING,
        k_dim: HEAD,
        v_dim: HEAD,
    };
    let width = heads.kv_heads * heads.group * HEAD;
    let caches = [cache(heads, keys)?];
    let queries = floats(rows * width)?;
    let (room, groups) = (Spans::scratch_len(heads, keys), width / GROUP);
    let (mut made, mut attended) = (floats(room)?, floats(rows * width)?);
    let mut quants = vec![Activation::default(); rows * groups];
    Ok(Box::new(move |team| {
        let all = (rows, 0..keys);
        let place = |row: usize| Place {
            cache: 0,
            position: keys - rows + row,
            tokens: keys,
        };
        let spans = Spans::new(kernels(), heads, all, room, team.threads());
        let mut estimate = 0;
        for block in (0..).map_while(|block| spans.block(block, rows)) {
            let queries = Queries {
                values: &queries,
                stride: width,
                block: block.clone(),
                place,
                caches: &caches,
                layer: 0,
                scoring: Scoring {
                    scale: 0.125,
                    softcap: 0.0,
                    window: Window::All,
                },
                slopes: &[],
            };
            let len = spans.row_len();
            let room = &mut made[..block.rows.len() * len];
            let tiles = Tiles::new(room, len, spans.tile()).taking(spans.work_ns());
            estimate = phase(team, tiles, |_, out| {
                attention::attend(kernels(), &spans, &queries, out)
            })?;
            let of_block = block.rows.start * width..block.rows.end * width;
            let group = heads.group * HEAD;
            let columns = block.kv_heads.start * group..block.kv_heads.end * group;
            let parts = (
                Chunks::new(&mut attended[of_block], width),
                Chunks::new(&mut quants, groups),
            );
            phase(team, parts, |row, (attended, quants)| {
                let seen = (Window::All, place(block.rows.start + row));
                let spans_of_row = &made[row * len..][..len];
                let out = &mut attended[columns.clone()];
                attention::join(kernels(), &spans, spans_of_row, seen, &[], out);
                kernels().quantize_row(attended, quants);
                Ok(())
            })?;
        }
        Ok(estimate)
    }))
}

/// A sequence of `keys` tokens, all zeros.
fn cache(heads: Heads, keys: usize) -> Result<Cache> {
    let shape = LayerShape {
        heads: heads.kv_heads,
        k_dim: heads.k_dim,
        v_dim: heads.v_dim,
        state: StateShape::default(),
    };
    let layout = Layout::new(KvFormat::F16, PAGE_TOKENS, std::iter::once(shape));
    let mut cache = Cache::new(Arc::new(layout), Budget::default(), keys)?;
    cache.reserve(0..keys)?;
    Ok(cache)
}

fn matmul(format: Format, tokens: usize, side: usize) -> Result<Run> {
    let weights = Weights::new(format, side, side, tokens)?;
    let mut out = floats(tokens * side)?;
    Ok(Box::new(move |team| {
        let (x, threads) = (weights.input(), team.threads());
        let linears = weights.linears();
        let tiles = matmul::tiles(kernels(), linears, (tokens, side), threads, &mut out);
        phase(team, tiles, |_, tile| {
            matmul::side_by_side(kernels(), linears, &x, threads, tile);
            Ok(())
        })
    }))
}

/// Choosing a token, which is the work of one thread at any size.
fn sampling(vocab: usize) -> Result<Run> {
    let logits = floats(vocab)?;
    let mut sampler = Sampler::new(&SamplerOptions::default())?;
    sampler.reserve(vocab, 0)?;
    let mut step = 0;
    Ok(Box::new(move |_| {
        step += 1;
        sampler.sample(&logits, &[], step)?;
        Ok(0)
    }))
}

fn unit_norm(dim: usize) -> Result<Norm> {
    Ok(Norm {
        kind: NormKind::Rms,
        epsilon: 1e-5,
        weight: Budget::default().allocate_filled(Tag::Misc, dim, 1.0)?,
        bias: None,
    })
}

/// Numbers of a size that stays in range, whatever is done to them again and again.
pub(super) fn floats(len: usize) -> Result<Buffer<f32>> {
    let mut values = Budget::default().allocate(Tag::Misc, len)?;
    for (i, value) in values.iter_mut().enumerate() {
        *value = (i * 37 % 101) as f32 / 50.0 - 1.0;
    }
    Ok(values)
}
