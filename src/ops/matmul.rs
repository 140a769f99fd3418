//! Rows times weights: `y = x W^T + b`, for several matrices side by side.

use crate::budget::Buffer;
use crate::kernel::{Input, Kernels};
use crate::team::{Tile, Tiles};
use crate::tensor::Matrix;

/// Multiply-adds that one task should have at least: some 5 microseconds of work.
const TASK_MIN: usize = 1 << 17;
/// Outputs of a task are a multiple of it: the rows that the kernels take at once.
const PANEL: usize = 48;
/// The same for a single token.
const PANEL_ONE: usize = 16;
/// Tokens of a task, at most: enough to make up for unpacking the weights.
const TOKENS_MAX: usize = 128;
/// How much longer a multiply-add takes with floats, or where one token brings in all weights, of four
/// bits each.
const COST: usize = 4;
/// Fewer tokens (but one) take as long as so many, for which weights are unpacked once.
const FEW: usize = 8;
/// Tasks of a thread, at least, where the work allows: so that threads end together, and read from one
/// region of memory.
const TASKS: usize = 16;
/// Bytes of weights of a task, at most: what a thread reads in some 100 microseconds.
const READ_MAX: usize = 2 << 20;

/// A matrix, or several of one shape, one behind the other, and what is done to their products.
#[derive(Debug)]
pub struct Linear {
    /// The weights.
    pub weight: Matrix,
    /// What products are multiplied with.
    pub factors: Factors,
    /// What is added then: (rows)
    pub bias: Option<Buffer<f32>>,
}

/// Factors of the products of matrices.
#[derive(Debug)]
pub enum Factors {
    /// One for all; 1 changes nothing.
    One(f32),
    /// One for each matrix: (matrices)
    Each(Buffer<f32>),
}

impl Linear {
    /// A matrix alone.
    pub fn new(weight: Matrix) -> Self {
        Self {
            weight,
            factors: Factors::One(1.0),
            bias: None,
        }
    }

    /// The factor of an output.
    fn factor(&self, output: usize) -> f32 {
        match &self.factors {
            Factors::One(factor) => *factor,
            Factors::Each(factors) => factors[output / (self.weight.rows() / factors.len())],
        }
    }
}

/// What the outputs of a tile are a multiple of.
pub fn panel(tokens: usize) -> usize {
    if tokens == 1 { PANEL_ONE } else { PANEL }
}

/// Multiply-adds of a task, at most, with weights like these, each of which is used for about `shared`
/// tokens: a pass pauses between tasks only.
pub fn task_max(kernels: &Kernels, linears: &[Linear], shared: usize) -> usize {
    let most = |linear: &Linear| {
        let format = linear.weight.format();
        let (values, bytes) = (format.block_len(), format.block_bytes());
        let computed = kernels.task_max() / if values == 1 { COST } else { 1 };
        computed.min((READ_MAX / bytes * values).saturating_mul(shared.max(1)))
    };
    let most = linears.iter().map(most).min();
    most.unwrap_or(kernels.task_max()).max(TASK_MIN)
}

/// How to cut (tokens, outputs) of dot products over `columns` into tiles for `threads`: tokens and
/// outputs of a tile of at most `task_max` multiply-adds, if a panel has no more. The cut depends on
/// nothing else, so a paused phase finds it again.
pub fn tiling(
    task_max: usize,
    (tokens, outputs, columns): (usize, usize, usize),
    threads: usize,
) -> (usize, usize) {
    let panel = panel(tokens);
    let macs = panel.saturating_mul(columns);
    let rows = tokens.clamp(1, TOKENS_MAX).min((task_max / macs).max(1));
    let rows = tokens.div_ceil(tokens.div_ceil(rows).max(1)).max(1);
    let all = tokens.saturating_mul(outputs).saturating_mul(columns);
    let task = (all / (TASKS * threads)).clamp(TASK_MIN, task_max);
    let panels = (task / rows.saturating_mul(macs)).clamp(1, outputs.div_ceil(panel).max(1));
    (rows, panels * panel)
}

/// Tiles of the products of `tokens` rows of `columns` values with `linears`, side by side: `out` is
/// (tokens, sum of the linears' rows).
pub fn tiles<'a>(
    kernels: &Kernels,
    linears: &[Linear],
    (tokens, columns): (usize, usize),
    threads: usize,
    out: &'a mut [f32],
) -> Tiles<'a, f32> {
    let outputs = linears.iter().map(|linear| linear.weight.rows()).sum();
    let work_ns = work_ns(kernels, linears, (tokens, outputs, columns));
    let tile = tile(kernels, linears, (tokens, columns), threads);
    Tiles::new(&mut out[..tokens * outputs], outputs, tile).taking(work_ns)
}

/// Tokens and outputs of such a tile. For a single token, what it brings in counts.
pub fn tile(
    kernels: &Kernels,
    linears: &[Linear],
    (tokens, columns): (usize, usize),
    threads: usize,
) -> (usize, usize) {
    let outputs = linears.iter().map(|linear| linear.weight.rows()).sum();
    let columns = match tokens {
        1 => columns.saturating_mul(breadth(linears)),
        _ => columns,
    };
    let most = task_max(kernels, linears, tokens);
    tiling(most, (tokens, outputs, columns), threads)
}

/// About how many nanoseconds (tokens, outputs) of dot products over `columns` take on one thread,
/// with weights like these.
pub fn work_ns(
    kernels: &Kernels,
    linears: &[Linear],
    (tokens, outputs, columns): (usize, usize, usize),
) -> usize {
    let is_float = |linear: &Linear| linear.weight.format().block_len() == 1;
    let cost = match tokens {
        1 => COST * breadth(linears),
        _ if linears.iter().any(is_float) => COST,
        _ => 1,
    };
    let tokens = if tokens > 1 { tokens.max(FEW) } else { tokens };
    let multiply_adds = tokens.saturating_mul(outputs).saturating_mul(columns);
    kernels.work_ns(multiply_adds.saturating_mul(cost))
}

/// How much more a token brings in of these than of weights with four bits: as many times.
fn breadth(linears: &[Linear]) -> usize {
    let formats = linears.iter().map(|linear| linear.weight.format());
    let breadths = formats.map(|format| 2 * format.block_bytes() / format.block_len());
    breadths.fold(1, usize::max)
}

/// Computes a tile of the outputs of `linears`, which stand side by side in the tile's matrix:
/// (rows, sum of the linears' rows). `threads` work on such tiles.
pub fn side_by_side(
    kernels: &Kernels,
    linears: &[Linear],
    x: &Input<'_>,
    threads: usize,
    tile: &mut Tile<'_, f32>,
) {
    let wanted = tile.column_range();
    // Others have the tiles that follow.
    let behind = wanted.end + (threads - 1) * wanted.len();
    let mut start = 0;
    for linear in linears {
        let end = start + linear.weight.rows();
        let (from, to) = (wanted.start.max(start), wanted.end.min(end));
        if from < to {
            let mut part = tile.columns_mut(from - wanted.start..to - wanted.start);
            let outputs = from - start..to - start;
            let next = weights_from(linears, if to < wanted.end { to } else { behind });
            some(kernels, linear, outputs, (x, next), &mut part);
        }
        start = end;
    }
}

/// The weights of the outputs of `linears` from `output` on, as far as they are those of one of them.
fn weights_from(linears: &[Linear], output: usize) -> &[u8] {
    let mut start = 0;
    for Linear { weight, .. } in linears {
        let end = start + weight.rows();
        if output < end {
            return weight.row_bytes(output - start..weight.rows());
        }
        start = end;
    }
    &[]
}

/// Computes the outputs `outputs` of a matrix, or of one of several, which are the columns of the tile;
/// `next`: see [`Kernels::matmul`].
pub fn some(
    kernels: &Kernels,
    linear: &Linear,
    outputs: std::ops::Range<usize>,
    (x, next): (&Input<'_>, &[u8]),
    tile: &mut Tile<'_, f32>,
) {
    let weight = &linear.weight;
    let rows = weight.row_bytes(outputs.clone());
    kernels.matmul(weight.format(), rows, x, next, tile);
    let factor = linear.factor(outputs.start);
    if factor != 1.0 {
        for row in 0..tile.row_range().len() {
            kernels.scale(tile.row_mut(row), factor);
        }
    }
    if let Some(bias) = &linear.bias {
        for row in 0..tile.row_range().len() {
            kernels.add(tile.row_mut(row), &bias[outputs.clone()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::TensorInfo;
    use crate::quant::Format;

    fn linear(format: Format) -> Linear {
        let tensor = TensorInfo {
            name: "weights".into(),
            format,
            dims: [256, 1, 1, 1],
            dimensions: 2,
            bytes: vec![0; format.bytes(256).unwrap() as usize].into(),
            offset: 0,
            part: 0,
        };
        let weight = Matrix::new(&tensor, 1, 256).unwrap();
        Linear::new(weight)
    }

    #[test]
    fn tasks_compute_and_read_for_a_bounded_time() {
        let kernels = crate::kernel::detect();
        for format in [
            Format::F32,
            Format::F16,
            Format::Q8_0,
            Format::Q4_0,
            Format::Q6_K,
        ] {
            let linears = [linear(Format::Q4_0), linear(format)];
            for shared in [0, 1, 16, 256] {
                let most = task_max(kernels, &linears, shared);
                let weights = most / shared.max(1);
                let read = weights * format.block_bytes() / format.block_len();
                assert!(read <= READ_MAX || most == TASK_MIN);
                let cost = if format.block_len() == 1 { COST } else { 1 };
                assert!(most * cost <= kernels.task_max());
            }
        }
        assert_eq!(
            task_max(kernels, &[linear(Format::Q4_0)], 4096),
            kernels.task_max()
        );
    }

    #[test]
    fn tiles_are_panels_of_bounded_work() {
        let shapes = [
            (1, 4096, 256),
            (512, 2048, 2048),
            (7, 64, 64),
            (1, 1, 1),
            (300, 9, 14336),
            (64, 16, 1 << 24),
        ];
        for (tokens, outputs, columns) in shapes {
            for threads in [1, 2, 64] {
                let kernels = crate::kernel::detect();
                let most = kernels.task_max();
                let (rows, width) = tiling(most, (tokens, outputs, columns), threads);
                let panel = panel(tokens);
                assert!(width.is_multiple_of(panel) && width < outputs + panel);
                assert!((1..=tokens.min(TOKENS_MAX)).contains(&rows));
                // A panel for one token is the least that can be.
                assert!(rows * width * columns <= most.max(panel * columns));
            }
        }
    }
}
