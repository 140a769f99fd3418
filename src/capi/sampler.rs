//! The sampler in C.

use std::mem::offset_of;
use std::sync::{Mutex, TryLockError};

use super::arguments::{Out, input, invalid};
use super::guard::guard;
use super::handles::Kind;
use super::objects::{Handle, Object, enter, free, insert};
use super::options::{OutStruct, Struct, read};
use super::sampler_options::{STAGES_MAX, lightgpt_sampler_options, sampler_options};
use super::status::LIGHTGPT_OK;
use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::sampler::{Custom, Sampler, SamplerOptions, StageKind, check_frequencies};

/// Chooses a token from logits. One thread at a time; lightgpt_session_generate and
/// lightgpt_session_begin work on a copy, so that one sampler serves any number of sessions and
/// they leave it as it is.
///
/// Only mirostat and adaptive-p learn from choice to choice. Here they learn from
/// lightgpt_sampler_sample and _sample_after, until lightgpt_sampler_reset. A session keeps what
/// they learn in its turns: the next turn goes on where the last one ended whose sampler had the
/// same one of the two with the same parameters, also if that was another handle; only without
/// such a turn does it start with what the sampler itself has learnt. LIGHTGPT_CANCEL, an error and
/// lightgpt_session_rewind take that back to the end of the last turn that stays as a whole.
#[derive(Debug)]
pub struct lightgpt_sampler {
    _opaque: (),
}

pub(super) struct SamplerObject(Mutex<Made>);

/// A sampler, and what it was made from: a stage may be added.
struct Made {
    options: SamplerOptions,
    sampler: Sampler,
}

impl Object for SamplerObject {}

impl Handle for lightgpt_sampler {
    type Object = SamplerObject;
    const KIND: Kind = Kind::Sampler;
}

impl SamplerObject {
    /// Uses the sampler, unless another thread does.
    pub fn with<R>(&self, work: impl FnOnce(&mut Sampler) -> Result<R>) -> Result<R> {
        self.with_all(|made| work(&mut made.sampler))
    }

    /// Makes the sampler anew with one more stage; its seed and its state stay.
    pub fn add_stage(&self, before: Option<StageKind>, stage: Custom) -> Result<()> {
        self.with_all(|Made { options, sampler }| {
            if options.custom.len() == STAGES_MAX {
                let message =
                    format!("the sampler has {STAGES_MAX} already, the most there can be");
                return Err(invalid("stage", message));
            }
            options.custom.push((before, stage));
            options.seed = Some(sampler.seed());
            let state = sampler.state();
            *sampler = Sampler::new(options).inspect_err(|_| {
                options.custom.pop();
            })?;
            sampler.restore(state);
            Ok(())
        })
    }

    fn with_all<R>(&self, work: impl FnOnce(&mut Made) -> Result<R>) -> Result<R> {
        match self.0.try_lock() {
            Ok(mut made) => work(&mut made),
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
/// Errors: LIGHTGPT_INVALID_ARGUMENT (a member out of its range, used or not; the message names it),
/// LIGHTGPT_UNSUPPORTED (infill with a model that has no tokenizer), LIGHTGPT_OUT_OF_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_sampler_new(
    options: *const lightgpt_sampler_options,
    sampler: *mut *mut lightgpt_sampler,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a place for a handle, and for options as large as they say.
        let (out, options) = unsafe { (Out::new(sampler, "sampler")?, read(options, "options")?) };
        // SAFETY: the header asks for what the comments of the members say.
        let options = unsafe { sampler_options(&options) }?;
        let sampler = Sampler::new(&options)?;
        out.set(insert(SamplerObject(Mutex::new(Made {
            options,
            sampler,
        })))?);
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
/// same step makes the same choice again, except with mirostat and adaptive-p, which learn from
/// each choice.
///
/// logits: `logits_len` numbers, more than 0. token: not NULL. One thread at a time. It is
/// lightgpt_sampler_sample_after with no tokens before: penalties and DRY do nothing.
/// Errors: as there.
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
        let (out, logits) = unsafe { (Out::new(token, "token")?, some(logits, logits_len)?) };
        out.set(enter(sampler)?.with(|sampler| sampler.sample(logits, &[], step))?);
        Ok(LIGHTGPT_OK)
    })
}

/// Chooses a token that follows the tokens `history`, of which penalties and DRY take account.
///
/// logits: `logits_len` numbers, more than 0; minus infinity excludes a token. history:
/// `history_len` tokens; NULL with 0. step: the new token's place in its text, as a session counts;
/// the random numbers depend on it and on the seed alone. token: not NULL. One thread at a time.
/// Errors: LIGHTGPT_NONFINITE (a logit is not a number or plus infinity, or no token is left),
/// LIGHTGPT_CANCELLED (a stage of the host's own said so), LIGHTGPT_BUSY, LIGHTGPT_OUT_OF_MEMORY,
/// LIGHTGPT_INVALID_ARGUMENT (no logits).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_sampler_sample_after(
    sampler: *mut lightgpt_sampler,
    logits: *const f32,
    logits_len: usize,
    history: *const u32,
    history_len: usize,
    step: u64,
    token: *mut u32,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a place for a token, for `logits_len` and for `history_len`
        // numbers.
        let (out, logits, history) = unsafe {
            let out = Out::new(token, "token")?;
            let history = input(history, history_len, "history")?;
            (out, some(logits, logits_len)?, history)
        };
        out.set(enter(sampler)?.with(|sampler| sampler.sample(logits, history, step))?);
        Ok(LIGHTGPT_OK)
    })
}

/// Forgets what mirostat and adaptive-p have learnt from lightgpt_sampler_sample and _sample_after;
/// for a new text. What a session has learnt stays; rewinding it to 0 tokens forgets that.
///
/// One thread at a time. Errors: LIGHTGPT_BUSY.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_sampler_reset(sampler: *mut lightgpt_sampler) -> i32 {
    guard(|| {
        enter(sampler)?.with(|sampler| {
            sampler.reset();
            Ok(LIGHTGPT_OK)
        })
    })
}

/// What lightgpt_sampler_check has found: Pearson's chi-square test.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_chi_square {
    /// Set by the caller: sizeof(lightgpt_chi_square).
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// The sum of (observed - expected)^2 / expected over the classes: tokens, those that are
    /// expected fewer than 5 times taken together.
    pub statistic: f64,
    /// Degrees of freedom: classes minus 1.
    pub degrees: u64,
    /// How likely a statistic at least as large is, if the choices follow the distribution: a
    /// sampler that is right has one below 0.001 once in a thousand seeds.
    pub p_value: f64,
}

// SAFETY: as the trait asks.
unsafe impl Struct for lightgpt_chi_square {
    const SIZE_MIN: usize = offset_of!(Self, p_value) + size_of::<f64>();
}

/// Checks that a sampler chooses as often as it should: chooses `draws` times, at the steps from 0,
/// and compares how often each token came with the distribution that the stages leave.
///
/// The sampler stays as it is. logits, history: as for lightgpt_sampler_sample_after. draws: 1 to
/// 100 million; the time grows with them, and more with XTC or a stage of the host's own, since
/// they may leave another distribution at each step. result: not NULL, initialised with
/// LIGHTGPT_CHI_SQUARE_INIT. One thread at a time.
/// Errors: as for lightgpt_sampler_sample_after.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_sampler_check(
    sampler: *mut lightgpt_sampler,
    logits: *const f32,
    logits_len: usize,
    history: *const u32,
    history_len: usize,
    draws: u64,
    result: *mut lightgpt_chi_square,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a struct as large as it says, for `logits_len` and for
        // `history_len` numbers.
        let (out, logits, history) = unsafe {
            let out = OutStruct::new(result, "result")?;
            let history = input(history, history_len, "history")?;
            (out, some(logits, logits_len)?, history)
        };
        let found = enter(sampler)?.with(|sampler| {
            check_frequencies(sampler, logits, history, draws, &mut Control::none())
        })?;
        out.set(&lightgpt_chi_square {
            struct_size: 0,
            reserved: 0,
            statistic: found.statistic,
            degrees: found.degrees as u64,
            p_value: found.p_value,
        });
        Ok(LIGHTGPT_OK)
    })
}

/// Gives a sampler back; NULL is fine. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn lightgpt_sampler_free(sampler: *mut lightgpt_sampler) -> i32 {
    free(sampler)
}

/// Logits, at least one.
///
/// # Safety
/// As for [`input`].
unsafe fn some<'a>(logits: *const f32, len: usize) -> Result<&'a [f32]> {
    if len == 0 {
        return Err(invalid("logits", "expected at least one, found none"));
    }
    // SAFETY: promised by the caller.
    unsafe { input(logits, len, "logits") }
}
