//! The mathematics of a pass on slices: no model knowledge, no threads of its own.

pub mod attention;
pub mod experts;
pub mod matmul;
pub mod norm;
pub mod recurrence;
pub mod rope;
