//! Asking for memory while something else is worked on.

use super::simd::Simd;

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// Where the cache lines of `bytes` bytes begin.
#[inline(always)]
pub(super) fn lines(bytes: usize) -> impl Iterator<Item = usize> {
    (0..bytes).step_by(LINE)
}

/// What is fetched while a strip is worked on, a few lines at a time: a core waits for no more than
/// some ten at once, and who asks for more stands still.
pub(super) struct Ahead {
    /// Where the first of the rows that are left begins.
    row: *const u8,
    /// The next byte of the row.
    at: usize,
    /// Of each row.
    bytes: usize,
    stride: usize,
    /// Those that are left.
    rows: usize,
    /// Lines at a time.
    lines: usize,
}

impl Ahead {
    /// `bytes` bytes of each of `rows` rows, the first of which begin at `start`, in `times` parts.
    #[inline(always)]
    pub fn new(
        start: *const u8,
        (rows, stride, bytes): (usize, usize, usize),
        times: usize,
    ) -> Self {
        Self {
            row: start,
            at: 0,
            bytes,
            stride,
            rows,
            lines: (rows * bytes.div_ceil(LINE)).div_ceil(times),
        }
    }

    #[inline(always)]
    pub fn fetch<V: Simd>(&mut self, v: V) {
        for _ in 0..self.lines {
            if self.rows == 0 {
                return;
            }
            v.prefetch(self.row.wrapping_add(self.at));
            self.at += LINE;
            if self.at >= self.bytes {
                self.row = self.row.wrapping_add(self.stride);
                (self.at, self.rows) = (0, self.rows - 1);
            }
        }
    }
}
