//! The shared bodies with 512-bit vectors (Skylake-X, Zen 4 and later).

crate::kernel::instance::instance!(
    Isa::Avx512,
    crate::float::Hard,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2"
);
