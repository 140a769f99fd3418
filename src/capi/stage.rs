//! Stages of the host's own: a function over the candidates.

use std::ffi::c_void;
use std::sync::Arc;

use super::arguments::invalid;
use super::guard::{callback, guard};
use super::model::LIGHTGPT_CONTINUE;
use super::objects::enter;
use super::options::{UserData, lightgpt_destroy_fn};
use super::sampler::lightgpt_sampler;
use super::sampler_options::{LIGHTGPT_STAGE_PICK, stage_kind};
use super::status::LIGHTGPT_OK;
use crate::error::{Code, Error, Result};
use crate::sampler::{Candidates, Custom, CustomStage};

/// A stage's answer: the token at `chosen` is the choice; the stages behind this one are skipped.
pub const LIGHTGPT_CHOOSE: i32 = 3;

/// The tokens that may still be chosen, as a stage of the host's own sees them. Later versions may
/// append members.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_candidates {
    /// sizeof(lightgpt_candidates) of the library.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// The tokens, `len` of them, rising.
    pub tokens: *const u32,
    /// Their logits, for the stage to change; -INFINITY excludes a token for good.
    pub logits: *mut f32,
    /// Number of tokens, at least 1.
    pub len: u64,
    /// The tokens of the text so far, `history_len` of them. Not to be used if that is 0.
    pub history: *const u32,
    /// Tokens at `history`.
    pub history_len: u64,
    /// The place of the token that is being chosen.
    pub step: u64,
    /// For an answer of LIGHTGPT_CHOOSE: which of the `len` tokens, from 0. Only this member and
    /// the logits are the stage's to write.
    pub chosen: u64,
}

/// A stage of the host's own: looks at the candidates, changes their logits, and answers
/// LIGHTGPT_CONTINUE, LIGHTGPT_CHOOSE with `chosen` set, or LIGHTGPT_CANCEL: the call that samples
/// answers LIGHTGPT_CANCELLED. Other answers count as LIGHTGPT_CANCEL.
///
/// The candidates are valid during the call. It runs on the thread that called in. For a choice
/// that can be repeated, it depends on nothing but the candidates; what it keeps at `user_data` is
/// not taken back when a turn is.
pub type lightgpt_stage_fn = Option<
    unsafe extern "C" fn(user_data: *mut c_void, candidates: *mut lightgpt_candidates) -> i32,
>;

/// Adds a stage of the host's own to a sampler.
///
/// before: the LIGHTGPT_STAGE_ number of the stage in front of which it stands, also if that one is
/// off; LIGHTGPT_STAGE_PICK: behind all others, where only the tokens that they left are candidates.
/// Of several in one place, the first that was added comes first.
/// stage: not NULL. It has no state but `user_data`, which all copies of the sampler share: those
/// that lightgpt_session_generate and _begin make. So it runs on several threads at once if several
/// sessions do with copies of one sampler; use a sampler for each where that is not wanted. Turns
/// that were begun before do not have it.
/// destroy: called with `user_data` when the sampler and its copies have gone; NULL: nothing to do.
/// `user_data` becomes the sampler's only if the call succeeds. One thread at a time.
/// Errors: LIGHTGPT_INVALID_ARGUMENT (no such stage, or it is not in `order`; 64 were added
/// already), LIGHTGPT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_sampler_add_stage(
    sampler: *mut lightgpt_sampler,
    before: u32,
    stage: lightgpt_stage_fn,
    user_data: *mut c_void,
    destroy: lightgpt_destroy_fn,
) -> i32 {
    guard(|| {
        let sampler = enter(sampler)?;
        let function = stage.ok_or_else(|| invalid("stage", "expected a function, found NULL"))?;
        let before = match before {
            LIGHTGPT_STAGE_PICK => None,
            number => Some(stage_kind(number, "before")?),
        };
        let data = Arc::new(UserData::new(user_data));
        let stage = HostStage {
            function,
            data: data.clone(),
        };
        sampler.add_stage(before, Custom(Box::new(stage)))?;
        data.keep(destroy);
        Ok(LIGHTGPT_OK)
    })
}

struct HostStage {
    function: unsafe extern "C" fn(*mut c_void, *mut lightgpt_candidates) -> i32,
    data: Arc<UserData>,
}

impl CustomStage for HostStage {
    fn apply(&mut self, candidates: &mut Candidates<'_>) -> Result<()> {
        let (history, step) = (candidates.history(), candidates.step());
        let (tokens, logits) = candidates.parts_mut();
        let mut given = lightgpt_candidates {
            struct_size: size_of::<lightgpt_candidates>() as u32,
            reserved: 0,
            tokens: tokens.as_ptr(),
            logits: logits.as_mut_ptr(),
            len: tokens.len() as u64,
            history: history.as_ptr(),
            history_len: history.len() as u64,
            step,
            chosen: 0,
        };
        // SAFETY: the header describes this call to who wrote the function.
        let answer = callback(|| unsafe { (self.function)(self.data.pointer, &raw mut given) });
        match answer {
            LIGHTGPT_CONTINUE => Ok(()),
            // What is too large for a position is no candidate either.
            LIGHTGPT_CHOOSE => {
                candidates.choose(usize::try_from(given.chosen).unwrap_or(usize::MAX))
            }
            _ => Err(Error::new(
                Code::Cancelled,
                "stage",
                "the host's own stage cancelled",
            )),
        }
    }

    fn duplicate(&self) -> Box<dyn CustomStage> {
        Box::new(Self {
            function: self.function,
            data: self.data.clone(),
        })
    }
}
