//! The shared bodies with 256-bit vectors and FMA (x86-64-v3: Haswell, Zen and later).

crate::kernel::instance::instance!(Isa::Avx2, crate::float::Hard, "avx2,fma,f16c,bmi1,bmi2");
