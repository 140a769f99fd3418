//! LightGPT: a CPU inference engine for GPT-style language models, delivered as a C library.
//!
//! The modules stand bottom-up: a module imports only from those above it in this list
//! (`tests/house.rs` enforces it). `include/lightgpt.h` is the interface of `capi`; a Rust program
//! uses [`model`], [`session`] and [`team`]. `docs/architecture.md` is the map.

pub mod error;

pub mod float;

pub mod random;

pub mod budget;

pub mod control;

pub mod pressure;

pub mod team;

pub mod quant;

pub mod gguf;

pub mod tokenizer;

pub mod chat;

pub mod kernel;

pub mod tensor;

pub mod kv;

pub mod ops;

pub mod sampler;

pub mod model;

pub mod session;

pub mod engine;

pub mod tune;

pub mod capi;

/// Version of the arithmetic (`docs/numerics.md`): logits of two builds with one version are the
/// same to the bit.
pub const NUMERICS_VERSION: u32 = 1;
