//! What sessions and requests of a model share, in C.

use std::mem::offset_of;

use super::guard::guard;
use super::model::lightgpt_model;
use super::objects::enter;
use super::options::{OutStruct, Struct};
use super::status::LIGHTGPT_OK;

/// What was kept of the sessions and requests of a model for those whose text begins the same way, and
/// what came of it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_prefix_statistics {
    /// Set by the caller: sizeof(lightgpt_prefix_statistics).
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Prompts whose beginning was looked for.
    pub lookups: u64,
    /// Those of which a part was found.
    pub hits: u64,
    /// Tokens that need not be evaluated again.
    pub tokens: u64,
    /// Pages of keys and values that are kept, see lightgpt_open_options.
    pub pages: u64,
    /// Their bytes, states included; those that are used as well are counted too.
    pub bytes: u64,
    /// The most bytes that are kept.
    pub bytes_max: u64,
    /// Pages that were given up, because others were worth more or memory was short.
    pub evictions: u64,
}

// SAFETY: as the trait asks.
unsafe impl Struct for lightgpt_prefix_statistics {
    const SIZE_MIN: usize = offset_of!(Self, evictions) + size_of::<u64>();
}

/// Says what the sessions and requests of a model share.
///
/// What one has evaluated, others whose tokens begin the same way need not evaluate again, if
/// they keep keys and values in the same format and have the same salt. That happens by itself; it
/// can be seen in time and memory only.
///
/// statistics: not NULL, initialised with LIGHTGPT_PREFIX_STATISTICS_INIT. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_model_prefix_statistics(
    model: *const lightgpt_model,
    statistics: *mut lightgpt_prefix_statistics,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a struct as large as it says.
        let out = unsafe { OutStruct::new(statistics, "statistics") }?;
        let found = enter(model)?.model.prefixes().statistics();
        out.set(&lightgpt_prefix_statistics {
            struct_size: 0,
            reserved: 0,
            lookups: found.lookups,
            hits: found.hits,
            tokens: found.tokens,
            pages: found.pages,
            bytes: found.bytes,
            bytes_max: found.bytes_max,
            evictions: found.evictions,
        });
        Ok(LIGHTGPT_OK)
    })
}
