//! How many tokens are measured: what the options say, and for what they leave open numbers that fit
//! the model.

use crate::output::{Failure, complain};

use super::{Arguments, Kind, Measurement, batch};

/// Tokens of a prompt, where the model has room for them.
const PREFILL: usize = 512;
/// Tokens behind it.
const DECODE: usize = 128;

/// Numbers of tokens.
pub struct Lengths {
    prefill: Vec<usize>,
    decode: Vec<usize>,
    depths: Vec<usize>,
    sequences: usize,
    steps: usize,
}

impl Lengths {
    /// What `arguments` say, for a model that attends over `context` tokens.
    pub fn new(arguments: &Arguments, context: usize) -> Result<Self, Failure> {
        let given = |numbers: &Option<Vec<u32>>| -> Option<Vec<usize>> {
            let numbers = numbers.as_ref()?.iter();
            Some(numbers.map(|&tokens| tokens as usize).collect())
        };
        let (prefill, decode) = (given(&arguments.prefill), given(&arguments.decode));
        let depths: Vec<usize> = arguments
            .depth
            .iter()
            .map(|&depth| depth as usize)
            .collect();
        let room = context.saturating_sub(max(&depths));
        let behind =
            |given: &Option<Vec<usize>>| room.saturating_sub(given.as_deref().map_or(0, max));
        let decode_default = match prefill {
            Some(_) => DECODE.min(behind(&prefill)),
            None => DECODE.min(room / 4),
        };
        let prefill_default = match decode {
            Some(_) => PREFILL.min(behind(&decode)),
            None => PREFILL.min(room - decode_default),
        };
        let smaller = (prefill.is_none() && prefill_default < PREFILL)
            || (decode.is_none() && decode_default < DECODE);
        let lengths = Self {
            prefill: prefill.unwrap_or_else(|| vec![prefill_default]),
            decode: decode.unwrap_or_else(|| vec![decode_default]),
            depths,
            sequences: arguments.sequences as usize,
            steps: arguments.steps as usize,
        };
        lengths.check(context)?;
        if smaller {
            let (prefill, decode) = (list(&lengths.prefill), list(&lengths.decode));
            complain(&format!(
                "the model's context of {context} tokens has room for --prefill {prefill} --decode {decode}"
            ));
        }
        Ok(lengths)
    }

    fn check(&self, context: usize) -> Result<(), Failure> {
        let (prefill, decode, depth) = (max(&self.prefill), max(&self.decode), max(&self.depths));
        let behind = batch::DEPTH + self.steps + 1;
        if self.sequences > 0 && behind > context {
            return Err(Failure::Usage(format!(
                "--steps {}: expected at most {context} tokens in all (the model's context), found \
                {behind} with the prompt and its first token",
                self.steps
            )));
        }
        let sum = depth + prefill + decode;
        match sum <= context {
            true => Ok(()),
            false => Err(Failure::Usage(format!(
                "--depth {depth}, --prefill {prefill}, --decode {decode}: expected at most \
                {context} tokens in all (the model's context), found {sum}"
            ))),
        }
    }

    /// All measurements of a repetition, in order.
    pub fn measurements(&self) -> Result<Vec<Measurement>, Failure> {
        let mut all = Vec::new();
        let prompts = |&depth: &usize| self.prefill.iter().map(move |&prompt| (depth, prompt));
        for (depth, prompt) in self.depths.iter().flat_map(prompts) {
            all.push(Measurement {
                kind: Kind::Prefill,
                tokens: prompt,
                depth,
                sequences: 1,
            });
            all.extend(self.decode.iter().map(|&tokens| Measurement {
                kind: Kind::Decode,
                tokens,
                depth: depth + prompt,
                sequences: 1,
            }));
        }
        all.push(Measurement {
            kind: Kind::Batch,
            tokens: self.sequences * self.steps,
            depth: batch::DEPTH,
            sequences: self.sequences,
        });
        all.retain(|one| one.tokens > 0);
        if all.is_empty() {
            let message = "--prefill, --decode: expected something to measure, found only 0";
            return Err(Failure::Usage(message.into()));
        }
        Ok(all)
    }
}

fn max(numbers: &[usize]) -> usize {
    numbers.iter().copied().max().unwrap_or(0)
}

fn list(numbers: &[usize]) -> String {
    let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
    numbers.join(",")
}
