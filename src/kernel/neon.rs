//! The shared bodies with NEON, which every aarch64 CPU has.

crate::kernel::instance::instance!(Isa::Neon, crate::float::Hard, "neon");
