//! A sampler's options in C, and the constants for them.

use std::mem::offset_of;

use super::arguments::{flags, input, invalid, size};
use super::model::lightgpt_model;
use super::objects::enter;
use super::options::Struct;
use crate::error::Result;
use crate::sampler::{Infill, Mirostat, SamplerOptions, StageKind};

/// `temperature` is set; without it, it is 0.8.
pub const LIGHTGPT_SAMPLER_TEMPERATURE: u32 = 1 << 0;
/// `top_k` is set; without it, it is 40.
pub const LIGHTGPT_SAMPLER_TOP_K: u32 = 1 << 1;
/// `top_p` is set; without it, it is 0.95.
pub const LIGHTGPT_SAMPLER_TOP_P: u32 = 1 << 2;
/// `seed` is set; without it, it is random.
pub const LIGHTGPT_SAMPLER_SEED: u32 = 1 << 3;
/// `xtc_threshold` is set; without it, it is 0.1.
pub const LIGHTGPT_SAMPLER_XTC_THRESHOLD: u32 = 1 << 4;
/// `dynamic_temperature_exponent` is set; without it, it is 1.
pub const LIGHTGPT_SAMPLER_DYNAMIC_TEMPERATURE_EXPONENT: u32 = 1 << 5;
/// `dry_allowed_length` is set; without it, it is 2.
pub const LIGHTGPT_SAMPLER_DRY_ALLOWED_LENGTH: u32 = 1 << 6;
/// `mirostat_tau` is set; without it, it is 5.
pub const LIGHTGPT_SAMPLER_MIROSTAT_TAU: u32 = 1 << 7;
/// `mirostat_eta` is set; without it, it is 0.1.
pub const LIGHTGPT_SAMPLER_MIROSTAT_ETA: u32 = 1 << 8;
/// `adaptive_target` is set: adaptive-p chooses.
pub const LIGHTGPT_SAMPLER_ADAPTIVE_TARGET: u32 = 1 << 9;
/// `adaptive_decay` is set; without it, it is 0.9.
pub const LIGHTGPT_SAMPLER_ADAPTIVE_DECAY: u32 = 1 << 10;

/// Not a stage of `order`, where the choice itself is always last: the place in front of it, for
/// lightgpt_sampler_add_stage.
pub const LIGHTGPT_STAGE_PICK: u32 = 0;
/// The stage of `logit_biases`.
pub const LIGHTGPT_STAGE_LOGIT_BIAS: u32 = 1;
/// The stage of the repetition, frequency and presence penalties.
pub const LIGHTGPT_STAGE_PENALTIES: u32 = 2;
/// The stage of DRY.
pub const LIGHTGPT_STAGE_DRY: u32 = 3;
/// The stage of `top_n_sigma`.
pub const LIGHTGPT_STAGE_TOP_N_SIGMA: u32 = 4;
/// The stage of `top_k`.
pub const LIGHTGPT_STAGE_TOP_K: u32 = 5;
/// The stage of `typical_p`.
pub const LIGHTGPT_STAGE_TYPICAL: u32 = 6;
/// The stage of `top_p`.
pub const LIGHTGPT_STAGE_TOP_P: u32 = 7;
/// The stage of `min_p`.
pub const LIGHTGPT_STAGE_MIN_P: u32 = 8;
/// The stage of XTC.
pub const LIGHTGPT_STAGE_XTC: u32 = 9;
/// The stage of the temperature, fixed or dynamic.
pub const LIGHTGPT_STAGE_TEMPERATURE: u32 = 10;
/// The stage of `infill`.
pub const LIGHTGPT_STAGE_INFILL: u32 = 11;

/// A token, and what is added to its logit.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_logit_bias {
    /// The token; one outside the vocabulary does nothing.
    pub token: u32,
    /// Added to its logit; -INFINITY: never this token.
    pub bias: f32,
}

/// Tokens in a row.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_tokens {
    /// The first of `tokens_len` tokens; NULL with 0.
    pub tokens: *const u32,
    /// Their number.
    pub tokens_len: u64,
}

/// How to choose tokens: which stages the logits pass, in which order, and what chooses in the end.
///
/// A member for which there is a LIGHTGPT_SAMPLER_ bit of its name counts only if that bit is set
/// in `flags`. Of the others, 0 means what their comment says; a stage whose members are all 0 is
/// off. What pointers lead to is read during the call only.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_sampler_options {
    /// Set by LIGHTGPT_SAMPLER_OPTIONS_INIT.
    pub struct_size: u32,
    /// LIGHTGPT_SAMPLER_ bits: which of the members with a bit are set.
    pub flags: u32,
    /// Divides the logits; 0: always the most likely token (greedy).
    pub temperature: f32,
    /// Only the `top_k` most likely tokens; 0: all.
    pub top_k: u32,
    /// Only the most likely tokens that together have this probability; 1: all.
    pub top_p: f32,
    /// Top-p, min-p, typical and XTC leave at least this many tokens; 0: 1.
    pub min_keep: u32,
    /// Same seed, model and tokens: same choice.
    pub seed: u64,
    /// Only tokens at least this likely, compared with the most likely one; 0: all.
    pub min_p: f32,
    /// Only the tokens whose surprise is nearest to the expected one, up to this sum of
    /// probabilities; 0 or 1: all.
    pub typical_p: f32,
    /// Only logits within so many standard deviations of the largest; 0: all.
    pub top_n_sigma: f32,
    /// How often XTC excludes the top choices but the last of them; 0: never.
    pub xtc_probability: f32,
    /// How likely a top choice of XTC is at least.
    pub xtc_threshold: f32,
    /// How far the temperature moves with the entropy, up and down; 0: not at all.
    pub dynamic_temperature_range: f32,
    /// Power of the entropy's share of the largest, for the dynamic temperature.
    pub dynamic_temperature_exponent: f32,
    /// Divides positive logits of tokens that have come and multiplies negative ones; 0 or 1: off.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit for each time it has come.
    pub frequency_penalty: f32,
    /// Subtracted from the logits of tokens that have come.
    pub presence_penalty: f32,
    /// Tokens that these three penalties look back on; 0: 64; UINT32_MAX: all.
    pub penalty_last: u32,
    /// Strength of DRY, which penalises going on with a repetition; 0: off; 0.8 is customary.
    pub dry_multiplier: f32,
    /// Growth of DRY with each token repeated, at least 1; 0: 1.75.
    pub dry_base: f32,
    /// The shortest repetition that DRY penalises, in tokens.
    pub dry_allowed_length: u32,
    /// Tokens that DRY looks back on; 0: 64; UINT32_MAX: all.
    pub dry_last: u32,
    /// Which mirostat chooses, 1 or 2; 0: none. It takes the place of the stages from top-n-sigma
    /// to XTC.
    pub mirostat: u32,
    /// Mirostat's target, in bits a token.
    pub mirostat_tau: f32,
    /// Mirostat's rate of learning.
    pub mirostat_eta: f32,
    /// Lets adaptive-p choose tokens of about this probability, unless mirostat chooses; below 0:
    /// off.
    pub adaptive_target: f32,
    /// Adaptive-p's weight of the past, 0 to 0.99.
    pub adaptive_decay: f32,
    /// Token sequences that no repetition of DRY reaches across: `dry_breakers_len` of them, at
    /// most 1024, each of 1 to 64 tokens. NULL with 0: none.
    pub dry_breakers: *const lightgpt_tokens,
    /// Sequences at `dry_breakers`.
    pub dry_breakers_len: u64,
    /// What is added to logits: `logit_biases_len` tokens, at most 4096; for more, see
    /// lightgpt_sampler_add_stage. NULL with 0: nothing.
    pub logit_biases: *const lightgpt_logit_bias,
    /// Tokens at `logit_biases`.
    pub logit_biases_len: u64,
    /// The stages before the choice, first to last: `order_len` LIGHTGPT_STAGE_ numbers from 1, at
    /// most 64; the others are off. NULL with 0: all, in the order of their numbers; not NULL with
    /// 0: none.
    pub order: *const u32,
    /// Numbers at `order`.
    pub order_len: u64,
    /// Prefer to end early, for filling a gap in a text, with the vocabulary of this model, which
    /// is copied. NULL: no.
    pub infill: *const lightgpt_model,
}

// SAFETY: as the trait asks; NULL pointers are all zeros.
unsafe impl Struct for lightgpt_sampler_options {
    const SIZE_MIN: usize = offset_of!(Self, seed) + size_of::<u64>();
}

/// The most stages of an order, and of the host's own beside it.
pub(super) const STAGES_MAX: usize = 64;
const BIASES_MAX: usize = 4096;
const BREAKERS_MAX: usize = 1024;
const BREAKER_TOKENS_MAX: usize = 64;

const STAGES: [(u32, StageKind); 11] = [
    (LIGHTGPT_STAGE_LOGIT_BIAS, StageKind::LogitBias),
    (LIGHTGPT_STAGE_PENALTIES, StageKind::Penalties),
    (LIGHTGPT_STAGE_DRY, StageKind::Dry),
    (LIGHTGPT_STAGE_TOP_N_SIGMA, StageKind::TopNSigma),
    (LIGHTGPT_STAGE_TOP_K, StageKind::TopK),
    (LIGHTGPT_STAGE_TYPICAL, StageKind::Typical),
    (LIGHTGPT_STAGE_TOP_P, StageKind::TopP),
    (LIGHTGPT_STAGE_MIN_P, StageKind::MinP),
    (LIGHTGPT_STAGE_XTC, StageKind::Xtc),
    (LIGHTGPT_STAGE_TEMPERATURE, StageKind::Temperature),
    (LIGHTGPT_STAGE_INFILL, StageKind::Infill),
];

const KNOWN: u32 = LIGHTGPT_SAMPLER_TEMPERATURE
    | LIGHTGPT_SAMPLER_TOP_K
    | LIGHTGPT_SAMPLER_TOP_P
    | LIGHTGPT_SAMPLER_SEED
    | LIGHTGPT_SAMPLER_XTC_THRESHOLD
    | LIGHTGPT_SAMPLER_DYNAMIC_TEMPERATURE_EXPONENT
    | LIGHTGPT_SAMPLER_DRY_ALLOWED_LENGTH
    | LIGHTGPT_SAMPLER_MIROSTAT_TAU
    | LIGHTGPT_SAMPLER_MIROSTAT_ETA
    | LIGHTGPT_SAMPLER_ADAPTIVE_TARGET
    | LIGHTGPT_SAMPLER_ADAPTIVE_DECAY;

/// The stage with a LIGHTGPT_STAGE_ number.
pub(super) fn stage_kind(number: u32, place: &str) -> Result<StageKind> {
    let found = STAGES.iter().find(|(stage, _)| *stage == number);
    found.map(|(_, kind)| *kind).ok_or_else(|| {
        let message = format!("{number} is no LIGHTGPT_STAGE_ number that can stand here");
        invalid(place, message)
    })
}

/// # Safety
/// What `given` points to is as its members' comments ask.
pub(super) unsafe fn sampler_options(given: &lightgpt_sampler_options) -> Result<SamplerOptions> {
    let flags = flags(given.flags, KNOWN, "options.flags")?;
    let set = |bit| flags & bit != 0;
    let standard = SamplerOptions::default();
    let flagged = |bit, value: f32, standard: f32| if set(bit) { value } else { standard };
    let or = |value: f32, standard: f32| if value == 0.0 { standard } else { value };
    let mut options = SamplerOptions {
        temperature: flagged(LIGHTGPT_SAMPLER_TEMPERATURE, given.temperature, 0.8),
        top_k: match set(LIGHTGPT_SAMPLER_TOP_K) {
            true => given.top_k as usize,
            false => 40,
        },
        top_p: flagged(LIGHTGPT_SAMPLER_TOP_P, given.top_p, 0.95),
        seed: set(LIGHTGPT_SAMPLER_SEED).then_some(given.seed),
        dynamic_temperature_range: given.dynamic_temperature_range,
        dynamic_temperature_exponent: flagged(
            LIGHTGPT_SAMPLER_DYNAMIC_TEMPERATURE_EXPONENT,
            given.dynamic_temperature_exponent,
            standard.dynamic_temperature_exponent,
        ),
        min_p: given.min_p,
        typical_p: or(given.typical_p, standard.typical_p),
        top_n_sigma: given.top_n_sigma,
        xtc_probability: given.xtc_probability,
        xtc_threshold: flagged(
            LIGHTGPT_SAMPLER_XTC_THRESHOLD,
            given.xtc_threshold,
            standard.xtc_threshold,
        ),
        min_keep: given.min_keep as usize,
        penalty_last: tokens_back(given.penalty_last, standard.penalty_last),
        repetition_penalty: or(given.repetition_penalty, standard.repetition_penalty),
        frequency_penalty: given.frequency_penalty,
        presence_penalty: given.presence_penalty,
        dry_multiplier: given.dry_multiplier,
        dry_base: or(given.dry_base, standard.dry_base),
        dry_last: tokens_back(given.dry_last, standard.dry_last),
        ..standard
    };
    if set(LIGHTGPT_SAMPLER_DRY_ALLOWED_LENGTH) {
        options.dry_allowed_length = given.dry_allowed_length as usize;
    }
    set_pick(&mut options, given)?;
    // SAFETY: promised by the caller.
    unsafe { set_lists(&mut options, given) }?;
    if !given.infill.is_null() {
        options.infill = Some(Infill::new(enter(given.infill)?.model.tokenizer()?)?);
    }
    Ok(options)
}

fn tokens_back(given: u32, standard: usize) -> usize {
    match given {
        0 => standard,
        u32::MAX => usize::MAX,
        tokens => tokens as usize,
    }
}

fn set_pick(options: &mut SamplerOptions, given: &lightgpt_sampler_options) -> Result<()> {
    options.mirostat = match given.mirostat {
        0 => Mirostat::Off,
        1 => Mirostat::One,
        2 => Mirostat::Two,
        other => {
            let message = format!("expected 0, 1 or 2, found {other}");
            return Err(invalid("options.mirostat", message));
        }
    };
    let members = [
        (
            LIGHTGPT_SAMPLER_MIROSTAT_TAU,
            &mut options.mirostat_tau,
            given.mirostat_tau,
        ),
        (
            LIGHTGPT_SAMPLER_MIROSTAT_ETA,
            &mut options.mirostat_eta,
            given.mirostat_eta,
        ),
        (
            LIGHTGPT_SAMPLER_ADAPTIVE_TARGET,
            &mut options.adaptive_target,
            given.adaptive_target,
        ),
        (
            LIGHTGPT_SAMPLER_ADAPTIVE_DECAY,
            &mut options.adaptive_decay,
            given.adaptive_decay,
        ),
    ];
    for (bit, place, value) in members {
        if given.flags & bit != 0 {
            *place = value;
        }
    }
    Ok(())
}

/// Copies what the options point to, once its length is known to be allowed.
///
/// # Safety
/// What `given` points to is as its members' comments ask.
unsafe fn set_lists(options: &mut SamplerOptions, given: &lightgpt_sampler_options) -> Result<()> {
    // SAFETY: promised by the caller, here and below.
    let biases = unsafe {
        let len = given.logit_biases_len;
        at_most(given.logit_biases, len, BIASES_MAX, "options.logit_biases")
    }?;
    options.logit_bias = biases.iter().map(|b| (b.token, b.bias)).collect();
    // SAFETY: as above.
    let breakers = unsafe {
        let len = given.dry_breakers_len;
        at_most(
            given.dry_breakers,
            len,
            BREAKERS_MAX,
            "options.dry_breakers",
        )
    }?;
    let copy = |breaker: &lightgpt_tokens| {
        // SAFETY: as above.
        let tokens = unsafe {
            let (tokens, len) = (breaker.tokens, breaker.tokens_len);
            at_most(tokens, len, BREAKER_TOKENS_MAX, "options.dry_breakers")
        }?;
        Ok(tokens.to_vec())
    };
    options.dry_breakers = breakers.iter().map(copy).collect::<Result<_>>()?;
    if !given.order.is_null() || given.order_len > 0 {
        // SAFETY: as above.
        let order = unsafe { at_most(given.order, given.order_len, STAGES_MAX, "options.order") }?;
        let kinds = order.iter().map(|n| stage_kind(*n, "options.order"));
        options.order = kinds.collect::<Result<_>>()?;
    }
    Ok(())
}

/// The `len` values at `pointer`, if they are not too many.
///
/// # Safety
/// As for [`input`].
unsafe fn at_most<'a, T>(pointer: *const T, len: u64, max: usize, place: &str) -> Result<&'a [T]> {
    let len = size(len, place)?;
    if len > max {
        return Err(invalid(
            place,
            format!("expected at most {max}, found {len}"),
        ));
    }
    // SAFETY: promised by the caller.
    unsafe { input(pointer, len, place) }
}
