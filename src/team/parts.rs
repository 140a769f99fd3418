//! How the tasks of a phase divide a buffer: each task gets its own part, nobody else has it.
//!
//! A [`Partition`] borrows its buffer exclusively for one run of a phase, and the team asks for
//! the part of each task once, so tasks on several threads write without locks and safe code
//! cannot make them overlap. It also says about how much work there is, so that the team knows
//! whether sharing it pays.

use std::marker::PhantomData;
use std::ops::Range;

/// Bytes that a phase changes in a nanosecond, if it says nothing else: what norms and rotations do.
const BYTES_PER_NS: usize = 48;

/// Divides something among the tasks of a phase.
///
/// # Safety
/// Parts of different tasks must not overlap.
pub unsafe trait Partition: Sync {
    /// What one task gets.
    type Part;

    /// How many tasks there are.
    fn tasks(&self) -> usize;

    /// About how many nanoseconds all tasks take on one thread.
    fn work_ns(&self) -> usize;

    /// The part of `task`.
    ///
    /// # Safety
    /// `task < tasks()`, and each task is asked for once.
    unsafe fn part(&self, task: usize) -> Self::Part;
}

/// So many tasks, which share nothing that they write; of any length.
#[derive(Debug, Clone, Copy)]
pub struct Tasks(pub usize);

// SAFETY: a part is `()`.
unsafe impl Partition for Tasks {
    type Part = ();

    fn tasks(&self) -> usize {
        self.0
    }

    fn work_ns(&self) -> usize {
        usize::MAX
    }

    unsafe fn part(&self, _: usize) {}
}

/// Consecutive chunks of a slice; the last may be shorter.
#[derive(Debug)]
pub struct Chunks<'a, T> {
    data: *mut T,
    len: usize,
    chunk: usize,
    work_ns: usize,
    buffer: PhantomData<&'a mut [T]>,
}

// SAFETY: shared use hands out disjoint parts only, each to one thread.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

impl<'a, T> Chunks<'a, T> {
    /// Task i gets the i-th `chunk` values of `data`.
    pub fn new(data: &'a mut [T], chunk: usize) -> Self {
        assert!(chunk > 0, "a chunk holds something");
        Self {
            work_ns: size_of_val(data) / BYTES_PER_NS,
            data: data.as_mut_ptr(),
            len: data.len(),
            chunk,
            buffer: PhantomData,
        }
    }

    /// The same where all chunks take about `work_ns` nanoseconds on one thread.
    pub fn taking(self, work_ns: usize) -> Self {
        Self { work_ns, ..self }
    }
}

// SAFETY: chunks of different tasks are disjoint ranges of an exclusively borrowed slice.
unsafe impl<'a, T: Send> Partition for Chunks<'a, T> {
    type Part = &'a mut [T];

    fn tasks(&self) -> usize {
        self.len.div_ceil(self.chunk)
    }

    fn work_ns(&self) -> usize {
        self.work_ns
    }

    unsafe fn part(&self, task: usize) -> &'a mut [T] {
        let start = task * self.chunk;
        let len = self.chunk.min(self.len - start);
        // SAFETY: `start + len <= self.len`, and this range belongs to this task alone.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}

/// Tiles of a row-major matrix: blocks of rows by blocks of columns.
#[derive(Debug)]
pub struct Tiles<'a, T> {
    data: *mut T,
    rows: usize,
    columns: usize,
    tile_rows: usize,
    tile_columns: usize,
    work_ns: usize,
    buffer: PhantomData<&'a mut [T]>,
}

// SAFETY: shared use hands out disjoint tiles only, each to one thread.
unsafe impl<T: Send> Sync for Tiles<'_, T> {}

impl<'a, T> Tiles<'a, T> {
    /// Divides `data`, (rows, columns), into tiles of `tile_rows` by `tile_columns`; those at the
    /// edges may be smaller. Task numbers run along a row of tiles first, so that neighbouring tasks
    /// share their rows (the activations, which stay in the cache; weights are few for many rows).
    pub fn new(
        data: &'a mut [T],
        columns: usize,
        (tile_rows, tile_columns): (usize, usize),
    ) -> Self {
        assert!(
            columns > 0 && tile_rows > 0 && tile_columns > 0,
            "a tile holds something"
        );
        assert!(data.len().is_multiple_of(columns), "whole rows");
        let rows = data.len() / columns;
        let data = data.as_mut_ptr();
        Self {
            data,
            rows,
            columns,
            tile_rows,
            tile_columns,
            work_ns: usize::MAX,
            buffer: PhantomData,
        }
    }

    /// The same where all tiles take about `work_ns` nanoseconds on one thread; without it, so many
    /// that they are shared.
    pub fn taking(self, work_ns: usize) -> Self {
        Self { work_ns, ..self }
    }
}

// SAFETY: tiles of different tasks have no element in common.
unsafe impl<'a, T: Send> Partition for Tiles<'a, T> {
    type Part = Tile<'a, T>;

    fn tasks(&self) -> usize {
        self.rows.div_ceil(self.tile_rows) * self.columns.div_ceil(self.tile_columns)
    }

    fn work_ns(&self) -> usize {
        self.work_ns
    }

    unsafe fn part(&self, task: usize) -> Tile<'a, T> {
        let across = self.columns.div_ceil(self.tile_columns);
        let row = task / across * self.tile_rows;
        let column = task % across * self.tile_columns;
        Tile {
            data: self.data,
            stride: self.columns,
            row,
            rows: self.tile_rows.min(self.rows - row),
            column,
            columns: self.tile_columns.min(self.columns - column),
            buffer: PhantomData,
        }
    }
}

/// A block of rows and columns of a row-major matrix, writable by one task.
#[derive(Debug)]
pub struct Tile<'a, T> {
    data: *mut T,
    stride: usize,
    row: usize,
    rows: usize,
    column: usize,
    columns: usize,
    buffer: PhantomData<&'a mut [T]>,
}

impl<'a, T> Tile<'a, T> {
    /// The whole of a row-major matrix of `columns` columns.
    pub fn whole(data: &'a mut [T], columns: usize) -> Self {
        assert!(
            columns > 0 && data.len().is_multiple_of(columns),
            "whole rows"
        );
        let rows = data.len() / columns;
        let data = data.as_mut_ptr();
        Self {
            data,
            stride: columns,
            row: 0,
            rows,
            column: 0,
            columns,
            buffer: PhantomData,
        }
    }

    /// The matrix's rows that the tile covers.
    pub fn row_range(&self) -> Range<usize> {
        self.row..self.row + self.rows
    }

    /// The matrix's columns that the tile covers.
    pub fn column_range(&self) -> Range<usize> {
        self.column..self.column + self.columns
    }

    /// The tile's `columns`, counted from its first.
    pub fn columns_mut(&mut self, columns: Range<usize>) -> Tile<'_, T> {
        assert!(
            columns.start <= columns.end && columns.end <= self.columns,
            "in the tile"
        );
        Tile {
            column: self.column + columns.start,
            columns: columns.len(),
            buffer: PhantomData,
            ..*self
        }
    }

    /// The tile's `rows` and `columns`, counted from its first.
    pub fn part_mut(&mut self, rows: Range<usize>, columns: Range<usize>) -> Tile<'_, T> {
        assert!(
            rows.start <= rows.end && rows.end <= self.rows,
            "in the tile"
        );
        Tile {
            row: self.row + rows.start,
            rows: rows.len(),
            ..self.columns_mut(columns)
        }
    }

    /// Row `row` of the tile, counted from its first: (columns).
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "a row of the tile");
        // SAFETY: `row` and the columns lie inside the matrix, and no other task has this tile.
        unsafe {
            let start = self.data.add((self.row + row) * self.stride + self.column);
            std::slice::from_raw_parts_mut(start, self.columns)
        }
    }
}

macro_rules! tuples {
    ($($name:ident $index:tt),*) => {
        // SAFETY: as safe as its members: `tasks` is what all of them have.
        unsafe impl<$($name: Partition),*> Partition for ($($name,)*) {
            type Part = ($($name::Part,)*);

            fn tasks(&self) -> usize {
                usize::MAX$(.min(self.$index.tasks()))*
            }

            fn work_ns(&self) -> usize {
                0usize$(.saturating_add(self.$index.work_ns()))*
            }

            unsafe fn part(&self, task: usize) -> Self::Part {
                // SAFETY: the caller keeps the same promise for every member.
                ($(unsafe { self.$index.part(task) },)*)
            }
        }
    };
}

tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
