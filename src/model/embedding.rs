//! What is made of the rows of a text: one row, an embedding, scores.
//!
//! Sums are made in f64, rows in order, so that neither chunks nor threads nor the CPU show.

use crate::control::Signals;
use crate::error::{Code, Error, Result};
use crate::float;
use crate::kernel::{Input, Nonlinearity};
use crate::model::Network;
use crate::model::batch::reserved;
use crate::model::spec::{Curve, Pooling};
use crate::ops::matmul::{self, Linear};
use crate::quant::{Activation, GROUP};
use crate::team::{Team, Tiles};

/// Makes one row of many, which come one after the other.
#[derive(Debug)]
pub struct Pool {
    pooling: Pooling,
    rows: usize,
    /// The row so far, or the sum of all: (dim)
    made: Vec<f64>,
}

impl Pool {
    /// Begins with rows of `dim` values; `OUT_OF_MEMORY`.
    pub fn new(pooling: Pooling, dim: usize) -> Result<Self> {
        let mut made = reserved(dim)?;
        made.resize(dim, 0.0);
        let rows = 0;
        Ok(Self {
            pooling,
            rows,
            made,
        })
    }

    /// Takes the next row.
    pub fn push(&mut self, row: &[f32]) {
        let pairs = self.made.iter_mut().zip(row.iter().map(|x| f64::from(*x)));
        match self.pooling {
            Pooling::First if self.rows > 0 => {}
            Pooling::Mean => pairs.for_each(|(sum, x)| *sum += x),
            _ => pairs.for_each(|(made, x)| *made = x),
        }
        self.rows += 1;
    }

    /// The row that they become: (dim).
    pub fn finish(self) -> Result<Vec<f32>> {
        let count = match self.pooling {
            Pooling::Mean => self.rows.max(1) as f64,
            _ => 1.0,
        };
        let mut row = reserved(self.made.len())?;
        row.extend(self.made.iter().map(|x| (x / count) as f32));
        Ok(row)
    }
}

/// Makes a row as long as 1; one of zeros stays.
pub fn normalise(row: &mut [f32]) {
    let squares = row.iter().map(|x| f64::from(*x) * f64::from(*x));
    let length = squares.fold(0.0, |sum, x| sum + x).sqrt();
    if length > 0.0 {
        for x in row {
            *x = (f64::from(*x) / length) as f32;
        }
    }
}

impl Network {
    /// The embedding of a text whose rows became `row`: (embedding_width).
    ///
    /// # Errors
    /// `NONFINITE`, `OUT_OF_MEMORY`, `CANCELLED`.
    pub fn embedding(&self, row: Vec<f32>, team: &Team, signals: Signals<'_>) -> Result<Vec<f32>> {
        let mut row = row;
        for projection in &self.weights.projections {
            row = self.multiply(projection, &row, (team, signals))?;
        }
        finite(row, "embedding")
    }

    /// The scores of a text whose rows became `row`.
    ///
    /// # Errors
    /// As [`Network::embedding`]; `UNSUPPORTED` without a head that makes scores.
    pub fn scores(&self, row: Vec<f32>, team: &Team, signals: Signals<'_>) -> Result<Vec<f32>> {
        let both = self.spec.head.as_ref().zip(self.weights.head.as_ref());
        let (head, weights) = both.ok_or_else(no_head)?;
        let mut row = row;
        if let Some(inner) = &weights.inner {
            row = self.multiply(inner, &row, (team, signals))?;
            match head.curve {
                Curve::Tanh => row.iter_mut().for_each(|x| *x = float::tanh(*x)),
                Curve::Gelu => self.kernels.activate(Nonlinearity::Gelu, &mut row),
            }
        }
        if let Some(norm) = &weights.norm {
            norm.apply(self.kernels, &mut row);
        }
        if let Some(outputs) = &weights.outputs {
            row = self.multiply(outputs, &row, (team, signals))?;
        }
        if let (true, [yes, no]) = (head.odds, &row[..]) {
            row[0] = yes - no;
            row.truncate(1);
        }
        finite(row, "scores")
    }

    /// A matrix times a row.
    fn multiply(
        &self,
        linear: &Linear,
        row: &[f32],
        (team, signals): (&Team, Signals<'_>),
    ) -> Result<Vec<f32>> {
        let columns = linear.weight.columns();
        assert_eq!(columns, row.len(), "as wide as the matrix");
        let mut quants = reserved(columns.div_ceil(GROUP))?;
        quants.resize(columns.div_ceil(GROUP), Activation::default());
        let packs = linear.weight.format().block_len() > 1;
        if packs && !self.kernels.quantize_row(row, &mut quants) {
            return Err(not_finite("embedding"));
        }
        let x = Input::new(columns, row, &quants);
        let outputs = linear.weight.rows();
        let mut out = reserved(outputs)?;
        out.resize(outputs, 0.0);
        let linears = std::slice::from_ref(linear);
        let tile = matmul::tile(self.kernels, linears, (1, columns), team.threads());
        let tiles = Tiles::new(&mut out, outputs, tile);
        // One row is not worth a pause.
        let signals = Signals {
            deadline: None,
            ..signals
        };
        team.run(&signals, &mut 0, tiles, |_, tile| {
            matmul::side_by_side(self.kernels, linears, &x, team.threads(), tile);
            Ok(())
        })?;
        Ok(out)
    }
}

/// Why a model makes no scores.
pub fn no_head() -> Error {
    let message = "its file has no head that makes scores: no cls.weight or cls.output.weight";
    Error::new(Code::Unsupported, "model", message)
}

fn finite(row: Vec<f32>, place: &str) -> Result<Vec<f32>> {
    match row.iter().all(|x| x.is_finite()) {
        true => Ok(row),
        false => Err(not_finite(place)),
    }
}

fn not_finite(place: &str) -> Error {
    Error::new(
        Code::NonFinite,
        place,
        "a value is infinite or not a number",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_one() {
        let rows = [[1.0, -2.0], [4.0, 0.5], [1.0, 3.0]];
        for (pooling, expected) in [
            (Pooling::Mean, [2.0, 0.5]),
            (Pooling::First, [1.0, -2.0]),
            (Pooling::Last, [1.0, 3.0]),
        ] {
            let mut pool = Pool::new(pooling, 2).unwrap();
            rows.iter().for_each(|row| pool.push(row));
            assert_eq!(pool.finish().unwrap(), expected, "{pooling:?}");
        }
    }

    #[test]
    fn lengths_become_one_where_there_is_a_length() {
        let mut row = [3.0, 0.0, -4.0];
        normalise(&mut row);
        assert_eq!(row, [0.6, 0.0, -0.8]);
        let mut large = [3e38, 3e38];
        normalise(&mut large);
        assert!((large[0] - 0.5f32.sqrt()).abs() < 1e-6);
        let mut zeros = [0.0; 3];
        normalise(&mut zeros);
        assert_eq!(zeros, [0.0; 3]);
    }
}
