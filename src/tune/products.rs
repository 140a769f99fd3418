//! Products of matrices: what the format of the weights is worth, and how they are best cut.

use crate::budget::Buffer;
use crate::control::Signals;
use crate::error::Result;
use crate::gguf::TensorInfo;
use crate::kernel::Input;
use crate::ops::matmul::{self, Linear};
use crate::quant::{self, Activation, Format, GROUP};
use crate::random::Random;
use crate::team::{Team, Tiles};
use crate::tensor::Matrix;

use super::operations::floats;
use super::ratio::{Ratio, median};
use super::turns::take_turns;
use super::{Effort, Teams, kernels};

/// Random weights, and the rows that they are multiplied with.
pub(super) struct Weights {
    linear: [Linear; 1],
    tokens: usize,
    floats: Buffer<f32>,
    quants: Vec<Activation>,
}

impl Weights {
    /// A matrix of `outputs` by `columns`, and `tokens` rows.
    pub fn new(format: Format, outputs: usize, columns: usize, tokens: usize) -> Result<Self> {
        let row_bytes = format.bytes(columns as u64).expect("whole blocks") as usize;
        let mut bytes = vec![0; outputs * row_bytes];
        for (step, row) in (0..).zip(bytes.chunks_exact_mut(row_bytes)) {
            quant::random_blocks(format, 0.02, Random { seed: 1, step }, row)?;
        }
        let tensor = TensorInfo {
            name: "weights".into(),
            format,
            dims: [columns as u64, outputs as u64, 1, 1],
            dimensions: 2,
            bytes: bytes.into(),
            offset: 0,
            part: 0,
        };
        let floats = floats(tokens * columns)?;
        let mut quants = vec![Activation::default(); tokens * columns / GROUP];
        kernels().quantize_row(&floats, &mut quants);
        let weight = Matrix::new(&tensor, outputs, columns)?;
        Ok(Self {
            linear: [Linear::new(weight)],
            tokens,
            floats,
            quants,
        })
    }

    pub fn linears(&self) -> &[Linear] {
        &self.linear
    }

    pub fn input(&self) -> Input<'_> {
        let columns = self.linear[0].weight.columns();
        Input::new(columns, &self.floats, &self.quants)
    }

    /// Multiplies as `team` does it, in tiles of `tile` if given.
    fn multiply(&self, team: &Team, tile: Option<(usize, usize)>, out: &mut [f32]) -> Result<()> {
        let (x, threads) = (self.input(), team.threads());
        let tiles = match tile {
            Some(tile) => Tiles::new(out, self.linear[0].weight.rows(), tile),
            None => matmul::tiles(
                kernels(),
                &self.linear,
                (self.tokens, x.columns),
                threads,
                out,
            ),
        };
        team.run(&Signals::default(), &mut 0, tiles, |_, tile| {
            matmul::side_by_side(kernels(), &self.linear, &x, threads, tile);
            Ok(())
        })?;
        Ok(())
    }
}

/// The speed of a format, in multiply-adds a second.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// Of the weights.
    pub format: Format,
    /// Rows that they are multiplied with.
    pub tokens: usize,
    /// With one thread.
    pub one_thread: f64,
    /// With all.
    pub all_threads: f64,
    /// How much faster than F32, with all threads.
    pub over_floats: Ratio,
}

/// Outputs and columns of the matrices whose formats are compared.
pub const PRODUCT_SIDE: usize = 2048;

/// Compares formats, F32 first, for so many tokens.
///
/// # Errors
/// `OUT_OF_MEMORY`.
pub fn products(tokens: usize, teams: &Teams, effort: Effort) -> Result<Vec<Product>> {
    let formats = [Format::F32, Format::F16, Format::Q8_0, Format::Q4_0];
    let weights = formats.map(|format| Weights::new(format, PRODUCT_SIDE, PRODUCT_SIDE, tokens));
    let weights = weights.into_iter().collect::<Result<Vec<_>>>()?;
    let each = |team| weights.iter().map(move |weights| (team, weights));
    let ways: Vec<_> = each(&*teams.serial).chain(each(&*teams.chosen)).collect();
    let mut out = floats(tokens * PRODUCT_SIDE)?;
    let times = take_turns(&ways, effort.turns, &mut |team, weights| {
        weights.multiply(team, None, &mut out)
    })?;
    let (one, all) = times.split_at(formats.len());
    let work = (tokens * PRODUCT_SIDE * PRODUCT_SIDE) as f64;
    let rate = |times: &[f64]| 1e9 * work / median(times);
    let made = formats
        .iter()
        .zip(one)
        .zip(all)
        .map(|((&format, one), shared)| Product {
            format,
            tokens,
            one_thread: rate(one),
            all_threads: rate(shared),
            over_floats: Ratio::of(&all[0], shared),
        });
    Ok(made.collect())
}

/// A matrix and the rows that it is multiplied with.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Of the weights.
    pub format: Format,
    /// Rows.
    pub tokens: usize,
    /// Rows of the matrix.
    pub outputs: usize,
    /// Its columns.
    pub columns: usize,
}

/// How the tiles that are built in compare with the best of many.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Tokens and outputs of a tile, as built in.
    pub built_in: (usize, usize),
    /// The best that was found.
    pub best: (usize, usize),
    /// Tiles that were tried.
    pub tried: usize,
    /// Multiply-adds a second with the tiles that are built in.
    pub rate: f64,
    /// How much faster they are than the best.
    pub over_best: Ratio,
}

/// Cuts that are tried.
pub fn shapes(effort: Effort) -> Vec<Shape> {
    let formats = [Format::Q4_0, Format::Q4_K, Format::F16];
    let mut all = Vec::new();
    for format in &formats[..if effort.is_quick { 1 } else { 3 }] {
        // A token streams what no cache nearby holds.
        for (tokens, outputs) in [(1, 16384), (4, 4096), (16, 4096), (128, 4096), (512, 2048)] {
            all.push(Shape {
                format: *format,
                tokens,
                outputs,
                columns: 2048,
            });
        }
    }
    all
}

/// Tries tiles of all sizes that a pass may have, and measures the best of them again beside those
/// that are built in.
///
/// # Errors
/// `OUT_OF_MEMORY`.
pub fn cut(shape: Shape, teams: &Teams, effort: Effort) -> Result<Cut> {
    let Shape {
        format,
        tokens,
        outputs,
        columns,
    } = shape;
    let weights = Weights::new(format, outputs, columns, tokens)?;
    let mut out = floats(tokens * outputs)?;
    let mut run =
        |team: &Team, tile: &(usize, usize)| weights.multiply(team, Some(*tile), &mut out);
    let most = matmul::task_max(kernels(), weights.linears(), tokens);
    let sizes = (tokens, columns);
    let built_in = matmul::tile(kernels(), weights.linears(), sizes, teams.threads());
    let tiles = tiles(shape, most);
    let ways: Vec<_> = tiles.iter().map(|&tile| (&*teams.chosen, tile)).collect();
    let times = take_turns(&ways, effort.turns.div_ceil(10), &mut run)?;
    let all = tiles.iter().zip(&times);
    let best = all.min_by(|a, b| median(a.1).total_cmp(&median(b.1)));
    let best = best.map_or(built_in, |best| *best.0);
    let ways = [built_in, best].map(|tile| (&*teams.chosen, tile));
    let times = take_turns(&ways, effort.turns, &mut run)?;
    Ok(Cut {
        built_in,
        best,
        tried: tiles.len(),
        rate: 1e9 * (tokens * outputs * columns) as f64 / median(&times[0]),
        over_best: Ratio::of(&times[1], &times[0]),
    })
}

/// Tiles of whole panels with at most so many multiply-adds.
fn tiles(shape: Shape, most: usize) -> Vec<(usize, usize)> {
    let panel = matmul::panel(shape.tokens);
    let doubles = |from: usize, to: usize| {
        std::iter::successors(Some(from), |size| Some(2 * size)).take_while(move |&size| size <= to)
    };
    let mut all = Vec::new();
    for rows in doubles(shape.tokens.min(16), shape.tokens) {
        let task = |width: &usize| rows * width * shape.columns <= most;
        let widths = doubles(panel, shape.outputs).filter(task);
        all.extend(widths.map(|width| (rows, width)));
    }
    all
}
