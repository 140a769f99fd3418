//! The rows of a pass: which tokens, of which sequences, and what is wanted of them.

use std::ops::Range;

use crate::error::{Code, Error, Result};
use crate::ops::attention::Place;

/// One token of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Index of its cache. Rows of a sequence stand together, in the order of their positions.
    pub sequence: usize,
    /// Its position in the sequence; all earlier ones are in the cache or in this batch.
    pub position: usize,
    /// Tokens that its sequence may come to: some models choose position embeddings by it.
    pub context: usize,
    /// The token.
    pub token: u32,
    /// Which of the texts of its sequence it is part of; some models add a vector for it.
    pub segment: usize,
    /// Whether its logits are wanted.
    pub wants_output: bool,
}

impl Row {
    /// Its sequence, and the page of it, of `page_tokens` tokens, that its keys and values go to.
    pub fn page(&self, page_tokens: usize) -> (usize, usize) {
        (self.sequence, self.position / page_tokens)
    }
}

/// Rows, and what a pass derives from them.
#[derive(Debug, Default)]
pub struct Batch {
    rows: Vec<Row>,
    /// Tokens of each row's sequence: (rows)
    tokens: Vec<usize>,
    /// Rows that go to one page.
    pages: Vec<Range<usize>>,
    /// Rows of one sequence.
    sequences: Vec<Range<usize>>,
    /// Rows that want logits.
    outputs: Vec<usize>,
}

impl Batch {
    /// An empty batch that can take `rows` rows without growing; or `OUT_OF_MEMORY`.
    pub fn with_capacity(rows: usize) -> Result<Self> {
        Ok(Self {
            rows: reserved(rows)?,
            tokens: reserved(rows)?,
            pages: reserved(rows)?,
            sequences: reserved(rows)?,
            outputs: reserved(rows)?,
        })
    }

    /// Replaces the rows, whose keys and values go to pages of `page_tokens` tokens.
    pub fn set(&mut self, rows: impl Iterator<Item = Row>, page_tokens: usize) {
        self.rows.clear();
        self.rows.extend(rows);
        self.pages.clear();
        self.sequences.clear();
        self.outputs.clear();
        self.tokens.clear();
        let mut rest = &self.rows[..];
        while let Some(first) = rest.first() {
            let follows = |row: &&Row| row.sequence == first.sequence;
            let (same, others) = rest.split_at(rest.iter().take_while(follows).count());
            let last = same.last().unwrap_or(first).position;
            self.tokens.extend(same.iter().map(|_| last + 1));
            rest = others;
        }
        let page = |row: &Row| row.page(page_tokens);
        for (i, row) in self.rows.iter().enumerate() {
            match self.pages.last_mut() {
                Some(last) if page(&self.rows[last.start]) == page(row) => last.end = i + 1,
                _ => self.pages.push(i..i + 1),
            }
            match self.sequences.last_mut() {
                Some(last) if self.rows[last.start].sequence == row.sequence => last.end = i + 1,
                _ => self.sequences.push(i..i + 1),
            }
            if row.wants_output {
                self.outputs.push(i);
            }
        }
    }

    /// The rows, in order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Where the query of row `row` stands.
    pub fn place(&self, row: usize) -> Place {
        let Row {
            sequence, position, ..
        } = self.rows[row];
        Place {
            cache: sequence,
            position,
            tokens: self.tokens[row],
        }
    }

    /// Ranges of rows that go to one page each.
    pub fn pages(&self) -> &[Range<usize>] {
        &self.pages
    }

    /// Ranges of rows of one sequence each.
    pub fn sequences(&self) -> &[Range<usize>] {
        &self.sequences
    }

    /// Indices of the rows that want logits, in order.
    pub fn outputs(&self) -> &[usize] {
        &self.outputs
    }
}

/// An empty list with room for `len` values; or `OUT_OF_MEMORY`.
pub fn reserved<T>(len: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(len).map_err(|_| {
        Error::new(
            Code::OutOfMemory,
            "batch",
            format!("no memory for {len} rows"),
        )
    })?;
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_grouped_by_page() {
        let mut batch = Batch::with_capacity(8).unwrap();
        let row = |sequence, position| Row {
            sequence,
            position,
            context: 512,
            token: 0,
            segment: 0,
            wants_output: position % 2 == 1,
        };
        let page = 32;
        batch.set(
            [
                row(0, page - 2),
                row(0, page - 1),
                row(0, page),
                row(1, page),
            ]
            .into_iter(),
            page,
        );
        assert_eq!(batch.pages(), [0..2, 2..3, 3..4]);
        assert_eq!(batch.sequences(), [0..3, 3..4]);
        assert_eq!(batch.outputs(), [1]);
        let tokens = (0..4).map(|row| batch.place(row).tokens);
        assert!(tokens.eq([page + 1; 4]));
        batch.set(std::iter::empty(), page);
        assert!(batch.rows().is_empty() && batch.pages().is_empty());
    }
}
