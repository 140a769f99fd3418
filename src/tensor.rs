//! Weights as the operations see them: format, shape and bytes, checked once when made.

use crate::budget::{Budget, Buffer, Tag};
use crate::error::{Code, Error, Result};
use crate::gguf::{Bytes, TensorInfo};
use crate::quant::{self, Format, is_computable};

/// A matrix of weights on the file's own bytes. A row is what one output is computed from.
#[derive(Debug, Clone)]
pub struct Matrix {
    format: Format,
    rows: usize,
    columns: usize,
    row_bytes: usize,
    /// (rows, row_bytes)
    bytes: Bytes,
}

impl Matrix {
    /// The tensor as a matrix of `rows` outputs and `columns` inputs.
    ///
    /// # Errors
    /// `FORMAT` if its shape is another, `UNSUPPORTED` if its format cannot be multiplied with.
    pub fn new(tensor: &TensorInfo, rows: usize, columns: usize) -> Result<Self> {
        check_shape(tensor, [columns, rows, 1])?;
        Self::whole(tensor, rows, columns)
    }

    /// The tensor as `count` matrices of `rows` outputs and `columns` inputs, one after the other: a
    /// matrix of all their outputs.
    ///
    /// # Errors
    /// As [`Matrix::new`].
    pub fn stack(tensor: &TensorInfo, count: usize, rows: usize, columns: usize) -> Result<Self> {
        check_shape(tensor, [columns, rows, count])?;
        let all = rows.checked_mul(count).ok_or_else(|| {
            let message = format!("no room for {count} matrices of {rows} rows");
            Error::new(Code::Format, place(tensor), message)
        })?;
        Self::whole(tensor, all, columns)
    }

    fn whole(tensor: &TensorInfo, rows: usize, columns: usize) -> Result<Self> {
        let row_bytes = tensor
            .format
            .bytes(columns as u64)
            .and_then(|b| usize::try_from(b).ok());
        let row_bytes = row_bytes.filter(|b| b.checked_mul(rows) == Some(tensor.bytes.len()));
        let row_bytes = row_bytes.ok_or_else(|| {
            let found = tensor.bytes.len();
            let message = format!("expected {rows} rows of {columns} values, found {found} bytes");
            Error::new(Code::Format, place(tensor), message)
        })?;
        let format = tensor.format;
        Ok(Self {
            format,
            rows,
            columns,
            row_bytes,
            bytes: tensor.bytes.clone(),
        })
    }

    /// How the weights are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The bytes of the rows `range`.
    pub fn row_bytes(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.bytes[range.start * self.row_bytes..range.end * self.row_bytes]
    }

    /// Some of the rows, as a matrix of their own.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn part(&self, rows: std::ops::Range<usize>) -> Self {
        let (start, len) = (rows.start * self.row_bytes, rows.len() * self.row_bytes);
        let bytes = self.bytes.view(start, len);
        Self {
            rows: rows.len(),
            bytes: bytes.expect("rows of the matrix"),
            ..*self
        }
    }

    /// One row as f32: (columns).
    pub fn decode_row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        quant::decode(self.format, self.row_bytes(row..row + 1), out)
    }
}

/// A tensor of one dimension as f32, for norms and biases: (len). Charged to `budget`.
pub fn vector(tensor: &TensorInfo, len: usize, budget: &Budget) -> Result<Buffer<f32>> {
    values(tensor, [len, 1], budget)
}

/// A tensor of two dimensions as f32: (rows, columns). Charged to `budget`.
pub fn values(
    tensor: &TensorInfo,
    [columns, rows]: [usize; 2],
    budget: &Budget,
) -> Result<Buffer<f32>> {
    check_shape(tensor, [columns, rows, 1])?;
    let len = usize::try_from(tensor.dims[0] * tensor.dims[1]).map_err(|_| {
        let message = format!("no memory for {columns} x {rows} values");
        Error::new(Code::OutOfMemory, place(tensor), message)
    })?;
    let mut out = budget.allocate(Tag::Misc, len)?;
    quant::decode(tensor.format, &tensor.bytes, &mut out).map_err(|e| e.within(&place(tensor)))?;
    Ok(out)
}

fn check_shape(tensor: &TensorInfo, [columns, rows, count]: [usize; 3]) -> Result<()> {
    let expected = [columns as u64, rows as u64, count as u64, 1];
    if tensor.dims != expected {
        let message = format!("expected the shape {expected:?}, found {:?}", tensor.dims);
        return Err(Error::new(Code::Format, place(tensor), message));
    }
    if !is_computable(tensor.format) {
        let message = format!(
            "this build cannot compute with the format {}",
            tensor.format.name()
        );
        return Err(Error::new(Code::Unsupported, place(tensor), message));
    }
    Ok(())
}

fn place(tensor: &TensorInfo) -> String {
    format!("tensor '{}'", tensor.name)
}
