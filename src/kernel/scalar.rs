//! The truth: the shared bodies compiled for the target's baseline.

/// Where the baseline has the instruction, it is used; elsewhere it is emulated, to the same bits.
#[cfg(target_arch = "aarch64")]
type MulAdd = crate::float::Hard;
#[cfg(not(target_arch = "aarch64"))]
type MulAdd = crate::float::Soft;

crate::kernel::instance::instance!(Isa::Scalar, MulAdd);
