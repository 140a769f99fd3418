//! How the tasks of a phase divide a buffer: each task gets its own part, nobody else has it.
//!
//! A [`Partition`] borrows its buffer exclusively for one run of a phase, and the team asks for
//! the part of each task once, so tasks on several threads write without locks and safe code
//! cannot make them overlap.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};

/// Divides something among the tasks of a phase.
///
/// # Safety
/// Parts of different tasks must not overlap, except in what depends on the worker alone; parts
/// of different workers must not overlap there.
pub unsafe trait Partition: Sync {
    /// What one task gets.
    type Part;

    /// How many tasks there are.
    fn tasks(&self) -> usize;

    /// How many workers may take part.
    fn workers(&self) -> usize {
        usize::MAX
    }

    /// The part of `task` when `worker` runs it.
    ///
    /// # Safety
    /// `task < tasks()` and `worker < workers()`; a task is asked for once, and a worker asks
    /// again only after it has given up its former part.
    unsafe fn part(&self, task: usize, worker: usize) -> Self::Part;
}

/// So many tasks, which share nothing that they write.
#[derive(Debug, Clone, Copy)]
pub struct Tasks(pub usize);

// SAFETY: a part is `()`.
unsafe impl Partition for Tasks {
    type Part = ();

    fn tasks(&self) -> usize {
        self.0
    }

    unsafe fn part(&self, _: usize, _: usize) {}
}

/// Consecutive chunks of a slice; the last may be shorter.
#[derive(Debug)]
pub struct Chunks<'a, T> {
    data: *mut T,
    len: usize,
    chunk: usize,
    buffer: PhantomData<&'a mut [T]>,
}

// SAFETY: shared use hands out disjoint parts only, each to one thread.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

impl<'a, T> Chunks<'a, T> {
    /// Task i gets the i-th `chunk` values of `data`.
    pub fn new(data: &'a mut [T], chunk: usize) -> Self {
        assert!(chunk > 0, "a chunk holds something");
        Self {
            data: data.as_mut_ptr(),
            len: data.len(),
            chunk,
            buffer: PhantomData,
        }
    }
}

// SAFETY: chunks of different tasks are disjoint ranges of an exclusively borrowed slice.
unsafe impl<'a, T: Send> Partition for Chunks<'a, T> {
    type Part = &'a mut [T];

    fn tasks(&self) -> usize {
        self.len.div_ceil(self.chunk)
    }

    unsafe fn part(&self, task: usize, _: usize) -> &'a mut [T] {
        let start = task * self.chunk;
        let len = self.chunk.min(self.len - start);
        // SAFETY: `start + len <= self.len`, and this range belongs to this task alone.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}

/// One slice for each worker: scratch that a task may use and need not keep.
#[derive(Debug)]
pub struct PerWorker<'a, T>(Chunks<'a, T>);

impl<'a, T> PerWorker<'a, T> {
    /// Worker i gets the i-th `len` values of `data`; there are as many workers as fit.
    pub fn new(data: &'a mut [T], len: usize) -> Self {
        let whole = data.len() / len.max(1) * len.max(1);
        Self(Chunks::new(&mut data[..whole], len.max(1)))
    }
}

// SAFETY: the part depends on the worker alone, and those of different workers are disjoint.
unsafe impl<'a, T: Send> Partition for PerWorker<'a, T> {
    type Part = WorkerPart<'a, T>;

    fn tasks(&self) -> usize {
        usize::MAX
    }

    fn workers(&self) -> usize {
        self.0.tasks()
    }

    unsafe fn part(&self, _: usize, worker: usize) -> WorkerPart<'a, T> {
        // SAFETY: `worker < workers()`, and a worker gives its part up before it asks again.
        WorkerPart(unsafe { self.0.part(worker, 0) })
    }
}

/// A worker's slice. Bodies get it by reference and cannot make another, so they cannot keep it.
#[derive(Debug)]
pub struct WorkerPart<'a, T>(&'a mut [T]);

impl<T> Deref for WorkerPart<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.0
    }
}

impl<T> DerefMut for WorkerPart<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.0
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
    buffer: PhantomData<&'a mut [T]>,
}

// SAFETY: shared use hands out disjoint tiles only, each to one thread.
unsafe impl<T: Send> Sync for Tiles<'_, T> {}

impl<'a, T> Tiles<'a, T> {
    /// Divides `data`, (rows, columns), into tiles of `tile_rows` by `tile_columns`; those at the
    /// edges may be smaller. Task numbers run down the rows of tiles first, so that neighbouring
    /// tasks share their columns (the weights).
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
            buffer: PhantomData,
        }
    }
}

// SAFETY: tiles of different tasks have no element in common.
unsafe impl<'a, T: Send> Partition for Tiles<'a, T> {
    type Part = Tile<'a, T>;

    fn tasks(&self) -> usize {
        self.rows.div_ceil(self.tile_rows) * self.columns.div_ceil(self.tile_columns)
    }

    unsafe fn part(&self, task: usize, _: usize) -> Tile<'a, T> {
        let down = self.rows.div_ceil(self.tile_rows);
        let row = task % down * self.tile_rows;
        let column = task / down * self.tile_columns;
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
        // SAFETY: as safe as its members: `tasks` and `workers` are what all of them allow.
        unsafe impl<$($name: Partition),*> Partition for ($($name,)*) {
            type Part = ($($name::Part,)*);

            fn tasks(&self) -> usize {
                usize::MAX$(.min(self.$index.tasks()))*
            }

            fn workers(&self) -> usize {
                usize::MAX$(.min(self.$index.workers()))*
            }

            unsafe fn part(&self, task: usize, worker: usize) -> Self::Part {
                // SAFETY: the caller keeps the same promise for every member.
                ($(unsafe { self.$index.part(task, worker) },)*)
            }
        }
    };
}

tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
