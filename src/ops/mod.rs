//! The mathematics of a pass on slices: no model knowledge, no threads of its own.

pub mod attention;
pub mod matmul;
pub mod rope;

/// Multiply-adds that one task should have at most, so that a pass can pause or stop soon: some
/// 200 microseconds of work.
pub const TASK_MAX: usize = 1 << 21;
