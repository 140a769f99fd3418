//! The weights of layers that keep a state, by their names in the file.

use std::ops::Range;

use crate::budget::{Budget, Buffer, Tag};
use crate::error::Result;
use crate::kernel::LANES;
use crate::model::spec::{Recurrence, RecurrenceKind};
use crate::ops::matmul::Linear;
use crate::ops::norm::{HeadNorm, Norm, NormKind};

use super::file::File;

/// Weights of a layer that keeps a state.
#[derive(Debug)]
pub struct RecurrentWeights {
    /// What is made of a token first, side by side: (in_width, dim)
    pub inputs: Vec<Linear>,
    /// The convolution, the oldest input first: (taps, channels)
    pub taps: Buffer<f32>,
    /// (channels)
    pub taps_bias: Option<Buffer<f32>>,
    /// Norms of parts of what the convolution gives, or of what is made of it.
    pub norms: Vec<(Range<usize>, HeadNorm)>,
    /// What a state goes on with.
    pub state: Option<StateWeights>,
    /// Of what comes out, by heads or groups of them.
    pub out_norm: Option<HeadNorm>,
    /// (dim, inner)
    pub out: Linear,
}

/// What a state goes on with.
#[derive(Debug)]
pub struct StateWeights {
    /// How fast heads decay, (heads), or values by themselves, as a state lies.
    pub decay: Buffer<f32>,
    /// What is added to steps: (heads)
    pub step_bias: Option<Buffer<f32>>,
    /// What makes steps and rows, (low_width, inner), and the steps of columns, (inner, rank).
    pub low: Option<(Linear, Linear)>,
    /// Factor of what goes past the state: (heads), or (inner).
    pub skip: Option<Buffer<f32>>,
    /// Whether both numbers of a head stand together with those of its group, and not with their
    /// like.
    pub paired: bool,
}

/// Added to the squares of keys and queries.
const KEY_EPSILON: f32 = 1e-6;

impl RecurrentWeights {
    pub(super) fn load(file: &mut File<'_>, layer: usize) -> Result<Option<Self>> {
        let spec = file.spec;
        let recurs = spec.each[layer].mixer.recurs();
        let Some(recurrence) = spec.recurrence.as_ref().filter(|_| recurs) else {
            return Ok(None);
        };
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (convolution, out) = match recurrence.kind {
            RecurrenceKind::Convolution => ("shortconv.conv", "shortconv.out_proj"),
            _ => ("ssm_conv1d", "ssm_out"),
        };
        let shape = [recurrence.taps, recurrence.channels()];
        let taps = file.values(&name(&format!("{convolution}.weight")), shape)?;
        let (inputs, paired) = inputs(file, recurrence, &name)?;
        let state = StateWeights::load(file, recurrence, paired, &name)?;
        Ok(Some(Self {
            inputs,
            taps: transposed(&taps, shape, file.budget)?,
            taps_bias: file.bias(&name(convolution), recurrence.channels())?,
            norms: norms(file, recurrence)?,
            state,
            out_norm: out_norm(file, recurrence, &name("ssm_norm.weight"))?,
            out: file.linear(&name(out), spec.dim, recurrence.inner)?,
        }))
    }
}

impl StateWeights {
    fn load(
        file: &mut File<'_>,
        recurrence: &Recurrence,
        paired: bool,
        name: &dyn Fn(&str) -> String,
    ) -> Result<Option<Self>> {
        let Recurrence {
            inner, rows, heads, ..
        } = *recurrence;
        let (low, decay, skip) = match recurrence.kind {
            RecurrenceKind::Convolution => return Ok(None),
            RecurrenceKind::Selective { rank, .. } => {
                let low = file.linear(&name("ssm_x"), recurrence.low_width(), inner)?;
                let steps = file.linear(&name("ssm_dt"), inner, rank)?;
                let decay = file.values(&name("ssm_a"), [rows, inner])?;
                let decay = blocked(&decay, [rows, inner], file.budget)?;
                let skip = file.vector(&name("ssm_d"), inner)?;
                (Some((low, steps)), decay, Some(skip))
            }
            RecurrenceKind::Heads => {
                let decay = of_heads(file, &name("ssm_a"), heads)?;
                (None, decay, Some(of_heads(file, &name("ssm_d"), heads)?))
            }
            RecurrenceKind::Delta { .. } => (None, of_heads(file, &name("ssm_a"), heads)?, None),
        };
        let step_bias = match low {
            None => Some(file.vector(&name("ssm_dt.bias"), heads)?),
            Some(_) => None,
        };
        Ok(Some(Self {
            decay,
            step_bias,
            low,
            skip,
            paired,
        }))
    }
}

/// What is made of a token first, and whether its last part is paired.
fn inputs(
    file: &mut File<'_>,
    recurrence: &Recurrence,
    name: &dyn Fn(&str) -> String,
) -> Result<(Vec<Linear>, bool)> {
    let (width, dim) = (recurrence.in_width(), file.spec.dim);
    let RecurrenceKind::Delta { .. } = recurrence.kind else {
        let part = match recurrence.kind {
            RecurrenceKind::Convolution => "shortconv.in_proj",
            _ => "ssm_in",
        };
        return Ok((vec![file.linear(&name(part), width, dim)?], false));
    };
    let mut all = match file.has(&name("ssm_in.weight")) {
        true => of_groups(file, recurrence, &name("ssm_in"))?,
        false => vec![
            file.linear(&name("attn_qkv"), recurrence.channels(), dim)?,
            file.linear(&name("attn_gate"), recurrence.inner, dim)?,
        ],
    };
    let paired = file.has(&name("ssm_ba.weight"));
    if paired {
        all.push(file.linear(&name("ssm_ba"), 2 * recurrence.heads, dim)?);
    } else {
        all.push(file.linear(&name("ssm_beta"), recurrence.heads, dim)?);
        all.push(file.linear(&name("ssm_alpha"), recurrence.heads, dim)?);
    }
    Ok((all, paired))
}

/// Older files hold queries, keys, values and gates of each group together.
fn of_groups(file: &mut File<'_>, recurrence: &Recurrence, name: &str) -> Result<Vec<Linear>> {
    let Recurrence {
        inner,
        rows,
        groups,
        ..
    } = *recurrence;
    let values = inner / groups;
    let ends = [rows, 2 * rows, 2 * rows + values, 2 * (rows + values)];
    let ranges = [rows, rows, values, values].into_iter().zip(ends);
    let of_groups = ranges.flat_map(|(width, end)| {
        let ends = (0..groups).map(move |group| group * 2 * (rows + values) + end);
        ends.map(move |end| end - width..end)
    });
    let shape = [2 * (groups * rows + inner), file.spec.dim];
    file.parts(name, shape, of_groups)
}

/// Norms of parts of a row: queries and keys of a memory are as long as 1, queries then divided by
/// the root of their width; what a selective state space is made of has a mean square of 1.
fn norms(file: &File<'_>, recurrence: &Recurrence) -> Result<Vec<(Range<usize>, HeadNorm)>> {
    let rows = recurrence.rows;
    let norm = |range: Range<usize>, width: usize, epsilon: f32, weight: f32| {
        let norm = Norm {
            kind: NormKind::Rms,
            epsilon,
            weight: file.budget.allocate_filled(Tag::Misc, width, weight)?,
            bias: None,
        };
        Ok((range, HeadNorm { norm, width }))
    };
    match recurrence.kind {
        RecurrenceKind::Selective { rank, norms: true } => {
            let epsilon = file.spec.norm.epsilon;
            let one = |range: Range<usize>| norm(range.clone(), range.len(), epsilon, 1.0);
            let (b, c) = (rank..rank + rows, rank + rows..rank + 2 * rows);
            [0..rank, b, c].into_iter().map(one).collect()
        }
        RecurrenceKind::Delta { .. } => {
            // Of the mean square, not of the square.
            let (keys, n) = (recurrence.groups * rows, rows as f32);
            let epsilon = KEY_EPSILON / n;
            [(0..keys, 1.0 / n), (keys..2 * keys, 1.0 / n.sqrt())]
                .into_iter()
                .map(|(range, weight)| norm(range, rows, epsilon, weight))
                .collect()
        }
        _ => Ok(Vec::new()),
    }
}

fn out_norm(file: &mut File<'_>, recurrence: &Recurrence, name: &str) -> Result<Option<HeadNorm>> {
    let groups = recurrence.groups;
    let (weight, width) = match recurrence.kind {
        RecurrenceKind::Heads if file.has(name) => {
            let width = recurrence.inner / groups;
            (file.values(name, [width, groups])?, width)
        }
        RecurrenceKind::Delta { .. } => {
            let width = recurrence.head_width();
            (file.vector(name, width)?, width)
        }
        _ => return Ok(None),
    };
    let norm = Norm {
        kind: NormKind::Rms,
        epsilon: file.spec.norm.epsilon,
        weight,
        bias: None,
    };
    Ok(Some(HeadNorm { norm, width }))
}

/// A value for each head, in a row or a column.
fn of_heads(file: &mut File<'_>, name: &str, heads: usize) -> Result<Buffer<f32>> {
    let is_column = file.tensor(name)?.dims[0] == 1;
    file.values(name, if is_column { [1, heads] } else { [heads, 1] })
}

/// (rows, columns) of (columns, rows).
fn transposed(values: &[f32], [rows, columns]: [usize; 2], budget: &Budget) -> Result<Buffer<f32>> {
    let mut out = budget.allocate(Tag::Misc, values.len())?;
    for (column, values) in values.chunks_exact(rows).enumerate() {
        for (row, value) in values.iter().enumerate() {
            out[row * columns + column] = *value;
        }
    }
    Ok(out)
}

/// Blocks of 16 columns, each (rows, 16), of (columns, rows); what is no column is 0.
fn blocked(values: &[f32], [rows, columns]: [usize; 2], budget: &Budget) -> Result<Buffer<f32>> {
    let len = columns.div_ceil(LANES) * LANES * rows;
    let mut out = budget.allocate(Tag::Misc, len)?;
    for (column, values) in values.chunks_exact(rows).enumerate() {
        let start = column / LANES * LANES * rows + column % LANES;
        for (row, value) in values.iter().enumerate() {
            out[start + row * LANES] = *value;
        }
    }
    Ok(out)
}
