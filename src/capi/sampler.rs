//! The sampler in C.

use std::mem::offset_of;
use std::sync::{Mutex, TryLockError};

use super::arguments::{Out, flags, input, invalid};
use super::guard::guard;
use super::handles::Kind;
use super::objects::{Handle, Object, enter, free, insert};
use super::options::{Struct, read};
use super::status::LIGHTGPT_OK;
use crate::error::{Code, Error, Result};
use crate::sampler::{Sampler, SamplerOptions};

/// Chooses a token from logits. One thread at a time; lightgpt_session_generate and
/// lightgpt_session_begin work on a copy.
#[derive(Debug)]
pub struct lightgpt_sampler {
    _opaque: (),
}

/// `temperature` is set; without it, it is 0.8.
pub const LIGHTGPT_SAMPLER_TEMPERATURE: u32 = 1 << 0;
/// `top_k` is set; without it, it is 40.
pub const LIGHTGPT_SAMPLER_TOP_K: u32 = 1 << 1;
/// `top_p` is set; without it, it is 0.95.
pub const LIGHTGPT_SAMPLER_TOP_P: u32 = 1 << 2;
/// `seed` is set; without it, it is random.
pub const LIGHTGPT_SAMPLER_SEED: u32 = 1 << 3;

/// How to choose tokens. A member counts only if its bit in `flags` is set, because 0 means
/// something for most of them.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_sampler_options {
    /// Set by LIGHTGPT_SAMPLER_OPTIONS_INIT.
    pub struct_size: u32,
    /// LIGHTGPT_SAMPLER_ bits: which of the members below are set.
    pub flags: u32,
    /// Divides the logits; 0: always the most likely token (greedy).
    pub temperature: f32,
    /// Only the `top_k` most likely tokens; 0: all.
    pub top_k: u32,
    /// Only the most likely tokens that together have this probability: above 0, at most 1 (all).
    pub top_p: f32,
    /// Zero.
    pub reserved: u32,
    /// Same seed, model and tokens: same choice.
    pub seed: u64,
}

// SAFETY: as the trait asks.
unsafe impl Struct for lightgpt_sampler_options {
    const SIZE_MIN: usize = offset_of!(Self, seed) + size_of::<u64>();
    const RESERVED: &'static [usize] = &[offset_of!(Self, reserved)];
}

pub(super) struct SamplerObject(Mutex<Sampler>);

impl Object for SamplerObject {}

impl Handle for lightgpt_sampler {
    type Object = SamplerObject;
    const KIND: Kind = Kind::Sampler;
}

impl SamplerObject {
    /// Uses the sampler, unless another thread does.
    pub fn with<R>(&self, work: impl FnOnce(&mut Sampler) -> Result<R>) -> Result<R> {
        match self.0.try_lock() {
            Ok(mut sampler) => work(&mut sampler),
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(Code::Busy, "sampler", "another call uses it"))
            }
            Err(TryLockError::Poisoned(_)) => Err(Error::new(
                Code::Poisoned,
                "sampler",
                "an earlier defect left it unusable",
            )),
        }
    }
}

/// Makes a sampler.
///
/// options: NULL for the defaults. sampler: not NULL; gets a handle that lightgpt_sampler_free
/// gives back. Any thread.
/// Errors: LIGHTGPT_INVALID_ARGUMENT (a temperature below 0, a top_p that is not above 0 and at most
/// 1, not a number).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_sampler_new(
    options: *const lightgpt_sampler_options,
    sampler: *mut *mut lightgpt_sampler,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a place for a handle, and for options as large as they say.
        let (out, options) = unsafe { (Out::new(sampler, "sampler")?, read(options, "options")?) };
        let sampler = Sampler::new(&sampler_options(&options)?)?;
        out.set(insert(SamplerObject(Mutex::new(sampler)))?);
        Ok(LIGHTGPT_OK)
    })
}

/// Gives the seed, also one that was chosen at random.
///
/// seed: not NULL. One thread at a time. Errors: LIGHTGPT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_sampler_seed(
    sampler: *mut lightgpt_sampler,
    seed: *mut u64,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a place for a number.
        let out = unsafe { Out::new(seed, "seed") }?;
        out.set(enter(sampler)?.with(|sampler| Ok(sampler.seed()))?);
        Ok(LIGHTGPT_OK)
    })
}

/// Chooses a token: number `i` has the logit `logits[i]`. `step` numbers the choices of a text; the
/// same step makes the same choice again.
///
/// logits: `logits_len` numbers, more than 0. token: not NULL. One thread at a time.
/// Errors: LIGHTGPT_NONFINITE (a logit is not a number, or the largest is infinite), LIGHTGPT_BUSY,
/// LIGHTGPT_INVALID_ARGUMENT (no logits).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_sampler_sample(
    sampler: *mut lightgpt_sampler,
    logits: *const f32,
    logits_len: usize,
    step: u64,
    token: *mut u32,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a place for a token and for `logits_len` numbers.
        let (out, logits) = unsafe {
            (
                Out::new(token, "token")?,
                input(logits, logits_len, "logits")?,
            )
        };
        let sampler = enter(sampler)?;
        if logits.is_empty() {
            return Err(invalid("logits", "expected at least one, found none"));
        }
        out.set(sampler.with(|sampler| sampler.sample(logits, &[], step))?);
        Ok(LIGHTGPT_OK)
    })
}

/// Gives a sampler back; NULL is fine. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_sampler_free(sampler: *mut lightgpt_sampler) -> i32 {
    free(sampler)
}

fn sampler_options(given: &lightgpt_sampler_options) -> Result<SamplerOptions> {
    let known = LIGHTGPT_SAMPLER_TEMPERATURE
        | LIGHTGPT_SAMPLER_TOP_K
        | LIGHTGPT_SAMPLER_TOP_P
        | LIGHTGPT_SAMPLER_SEED;
    let flags = flags(given.flags, known, "options.flags")?;
    let set = |bit| flags & bit != 0;
    let mut options = SamplerOptions {
        temperature: 0.8,
        top_k: 40,
        top_p: 0.95,
        seed: set(LIGHTGPT_SAMPLER_SEED).then_some(given.seed),
        ..SamplerOptions::default()
    };
    if set(LIGHTGPT_SAMPLER_TEMPERATURE) {
        options.temperature = given.temperature;
    }
    if set(LIGHTGPT_SAMPLER_TOP_K) {
        options.top_k = given.top_k as usize;
    }
    if set(LIGHTGPT_SAMPLER_TOP_P) {
        options.top_p = given.top_p;
    }
    Ok(options)
}
