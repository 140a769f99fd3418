//! How varied texts are, in C.

use std::ffi::c_char;
use std::mem::offset_of;

use super::arguments::{input, invalid, size, text};
use super::guard::guard;
use super::options::{OutStruct, Struct};
use super::sampler_options::lightgpt_tokens;
use super::status::LIGHTGPT_OK;
use crate::error::{Code, Error, Result};
use crate::sampler::diversity::{distinct, entropy, repetition, repetition_rate, self_bleu};

/// A text.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_text {
    /// `text_bytes` bytes of UTF-8; NULL with 0.
    pub text: *const c_char,
    /// Bytes at `text`.
    pub text_bytes: u64,
}

/// How varied some sequences are, by their n-grams: runs of n neighbours in one sequence.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lightgpt_diversity {
    /// Set by the caller: sizeof(lightgpt_diversity).
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Distinct-n: the share of different n-grams among all of all sequences.
    pub distinct: f64,
    /// The share of a sequence's n-grams that it had before (seq-rep-n), the mean of all sequences.
    pub repetition: f64,
    /// Repetition rate: the geometric mean, for n from 1 to 4, of the share of different n-grams
    /// that come more than once within 1000 elements; the mean of all sequences.
    pub repetition_rate: f64,
    /// Entropy of the distribution of n-grams, in bits (Ent-n).
    pub entropy: f64,
    /// Self-BLEU with n-grams up to n: near 1 if the sequences are alike, near 0 if they have
    /// nothing in common, or are shorter than n; 0 for a single one.
    pub self_bleu: f64,
}

// SAFETY: as the trait asks.
unsafe impl Struct for lightgpt_diversity {
    const SIZE_MIN: usize = offset_of!(Self, self_bleu) + size_of::<f64>();
}

const SEQUENCES_MAX: usize = 2048;
const N_MAX: u32 = 16;

/// Measures how varied sequences of tokens are: samples of a model, say, or one text.
///
/// sequences: `sequences_len` of them, 1 to 2048. n: the length of the n-grams, 1 to 16.
/// diversity: not NULL, initialised with LIGHTGPT_DIVERSITY_INIT. Any thread.
/// Errors: LIGHTGPT_OUT_OF_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_diversity_measure(
    sequences: *const lightgpt_tokens,
    sequences_len: usize,
    n: u32,
    diversity: *mut lightgpt_diversity,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a struct as large as it says, and for `sequences_len`
        // sequences.
        let (out, sequences) = unsafe {
            let out = OutStruct::new(diversity, "diversity")?;
            (out, input(sequences, some(sequences_len)?, "sequences")?)
        };
        let tokens = |given: &lightgpt_tokens| {
            let len = size(given.tokens_len, "sequences")?;
            // SAFETY: the header asks for as many tokens as the sequence says.
            unsafe { input(given.tokens, len, "sequences") }
        };
        let sequences = sequences.iter().map(tokens).collect::<Result<Vec<_>>>()?;
        out.set(&measure(&sequences, n)?);
        Ok(LIGHTGPT_OK)
    })
}

/// Measures how varied texts are: as lightgpt_diversity_measure, with the words of each text, which
/// white space separates.
///
/// texts: `texts_len` of them, 1 to 2048. Else as there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lightgpt_diversity_measure_texts(
    texts: *const lightgpt_text,
    texts_len: usize,
    n: u32,
    diversity: *mut lightgpt_diversity,
) -> i32 {
    guard(|| {
        // SAFETY: the header asks for a struct as large as it says, and for `texts_len` texts.
        let (out, texts) = unsafe {
            let out = OutStruct::new(diversity, "diversity")?;
            (out, input(texts, some(texts_len)?, "texts")?)
        };
        let words = |given: &lightgpt_text| {
            let bytes = size(given.text_bytes, "texts")?;
            // SAFETY: the header asks for as many bytes as the text says.
            words(unsafe { text(given.text, bytes, "texts") }?)
        };
        let texts = texts.iter().map(words).collect::<Result<Vec<_>>>()?;
        let texts: Vec<&[&str]> = texts.iter().map(Vec::as_slice).collect();
        out.set(&measure(&texts, n)?);
        Ok(LIGHTGPT_OK)
    })
}

fn some(sequences: usize) -> Result<usize> {
    match sequences {
        1..=SEQUENCES_MAX => Ok(sequences),
        _ => {
            let message = format!("expected 1 to {SEQUENCES_MAX}, found {sequences}");
            Err(invalid("sequences", message))
        }
    }
}

fn words(text: &str) -> Result<Vec<&str>> {
    let mut words = Vec::new();
    let room = words.try_reserve_exact(text.split_whitespace().count());
    room.map_err(|_| Error::new(Code::OutOfMemory, "texts", "no memory for a list of words"))?;
    words.extend(text.split_whitespace());
    Ok(words)
}

fn measure<T: Ord>(sequences: &[&[T]], n: u32) -> Result<lightgpt_diversity> {
    if !(1..=N_MAX).contains(&n) {
        return Err(invalid("n", format!("expected 1 to {N_MAX}, found {n}")));
    }
    let n = n as usize;
    let mean = |measure: &dyn Fn(&[T]) -> f64| {
        sequences.iter().map(|s| measure(s)).sum::<f64>() / sequences.len() as f64
    };
    Ok(lightgpt_diversity {
        struct_size: 0,
        reserved: 0,
        distinct: distinct(sequences, n),
        repetition: mean(&|sequence| repetition(sequence, n)),
        repetition_rate: mean(&|sequence| repetition_rate(sequence)),
        entropy: entropy(sequences, n),
        self_bleu: self_bleu(sequences, n),
    })
}
