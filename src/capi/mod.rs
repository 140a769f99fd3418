//! The C interface: `include/lightgpt.h` is made from these files, in this order.
//!
//! `guard` is what every export runs inside, `handles` and `objects` make misuse of handles
//! harmless, `options` and `arguments` check what C hands over. A file per object follows. Nothing
//! here knows how a model works.
//!
//! The header's comments are the ones on public items; they speak C.
#![allow(unsafe_code)]
#![allow(non_camel_case_types)] // the names are C's
#![allow(clippy::missing_safety_doc)] // the header's opening and each function state the contract

mod allocator;
mod arguments;
mod batch_metrics;
mod batch_queue;
mod batch_request;
mod branch;
mod chat;
mod diversity;
mod embed;
mod generate;
mod guard;
mod handles;
mod library;
mod message;
mod metadata;
mod model;
mod objects;
mod options;
mod prefix;
mod reader;
mod sampler;
mod sampler_options;
mod saved;
mod session;
mod stage;
mod status;
mod team;
mod tokenizer;

pub use allocator::*;
pub use batch_metrics::*;
pub use batch_queue::*;
pub use batch_request::*;
pub use branch::*;
pub use chat::*;
pub use diversity::*;
pub use embed::*;
pub use generate::*;
pub use guard::lightgpt_last_error;
pub use library::*;
pub use metadata::*;
pub use model::*;
pub use options::lightgpt_destroy_fn;
pub use prefix::*;
pub use reader::*;
pub use sampler::*;
pub use sampler_options::*;
pub use saved::*;
pub use session::*;
pub use stage::*;
pub use status::*;
pub use team::*;
pub use tokenizer::*;

/// Under these names the tests give `handles` the locks of `loom`.
mod sync {
    pub use std::sync::{Condvar, Mutex, MutexGuard};
}

#[cfg(test)]
mod tests;
