//! Two texts as one input: a question and a document, for models that see both at once.

use crate::control::Signals;
use crate::error::{Code, Error, Result};
use crate::tokenizer::vocabulary::out_of_memory;
use crate::tokenizer::{EncodeOptions, Tokenizer};

impl Tokenizer {
    /// Appends the tokens of two texts, with what the model file asks for around and between them;
    /// returns how many of them belong to the first. The texts of control tokens are plain text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_with`].
    pub fn encode_pair(
        &self,
        texts: [&str; 2],
        tokens_max: usize,
        signals: Signals<'_>,
        out: &mut Vec<u32>,
    ) -> Result<usize> {
        let before = out.len();
        let result = self.encode_both(texts, tokens_max, signals, out);
        result.map_err(|error| {
            out.truncate(before);
            match error.code() {
                Code::ContextFull => too_many(tokens_max),
                _ => error,
            }
        })
    }

    fn encode_both(
        &self,
        [first, second]: [&str; 2],
        tokens_max: usize,
        signals: Signals<'_>,
        out: &mut Vec<u32>,
    ) -> Result<usize> {
        let before = out.len();
        let special = EncodeOptions {
            add_special: true,
            parse_special: false,
        };
        self.encode_with(first, special, tokens_max, signals, out)?;
        push(
            self.roles.separator.filter(|_| self.roles.adds_separator),
            out,
        )?;
        let split = out.len() - before;
        let left = tokens_max.saturating_sub(split);
        self.encode_with(second, EncodeOptions::default(), left, signals, out)?;
        push(self.eos().filter(|_| self.adds_eos()), out)?;
        match out.len() - before <= tokens_max {
            true => Ok(split),
            false => Err(too_many(tokens_max)),
        }
    }
}

fn too_many(tokens_max: usize) -> Error {
    let message = format!("expected at most {tokens_max} tokens in both, found more");
    Error::new(Code::ContextFull, "texts", message)
}

fn push(token: Option<u32>, out: &mut Vec<u32>) -> Result<()> {
    out.try_reserve(1).map_err(|_| out_of_memory())?;
    out.extend(token);
    Ok(())
}
