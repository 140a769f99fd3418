//! Two texts as one input, a question and a document, for models that see both at once: side by
//! side, or in a template.

use crate::control::Signals;
use crate::error::{Code, Error, Result};
use crate::tokenizer::job::{Job, Watch};
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

    /// Appends the tokens of a template that has two texts in the places of `{query}` and
    /// `{document}`. Its control tokens are parsed; the texts of such tokens in the two are plain text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_with`]; `UNSUPPORTED` for a template that lacks a place.
    pub fn encode_template(
        &self,
        (template, texts): (&str, [&str; 2]),
        tokens_max: usize,
        signals: Signals<'_>,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let filled = Filled::new(template, texts)?;
        let find = |from: usize, watch: &mut Watch<'_>| {
            let mut start = 0;
            for &(end, whose) in &filled.parts {
                let finder = match whose {
                    Whose::Template => &self.special,
                    Whose::User => &self.user_defined,
                };
                let within = &filled.text[..end];
                let found = finder.find(&self.vocabulary, within, from.max(start), watch)?;
                if found.is_some() {
                    return Ok(found);
                }
                start = end;
            }
            Ok(None)
        };
        let before = out.len();
        let job = &mut Job::new(tokens_max, signals, out);
        let result = self.encode_around((&filled.text, find), true, job);
        result.map_err(|error| {
            out.truncate(before);
            match error.code() {
                Code::ContextFull => too_many(tokens_max),
                _ => error,
            }
        })
    }
}

/// A template with texts in its places.
struct Filled {
    text: String,
    /// Where parts of it end, and whose they are.
    parts: Vec<(usize, Whose)>,
}

#[derive(Clone, Copy)]
enum Whose {
    Template,
    User,
}

impl Filled {
    fn new(template: &str, texts: [&str; 2]) -> Result<Self> {
        const PLACES: [&str; 2] = ["{query}", "{document}"];
        let mut filled = Self {
            text: String::new(),
            parts: Vec::new(),
        };
        let (mut rest, mut seen) = (template, [false; 2]);
        loop {
            let places = PLACES.iter().enumerate();
            let places = places.filter_map(|(i, place)| Some((rest.find(place)?, i)));
            let Some((at, i)) = places.min() else {
                break;
            };
            filled.push(&rest[..at], Whose::Template)?;
            filled.push(texts[i], Whose::User)?;
            rest = &rest[at + PLACES[i].len()..];
            seen[i] = true;
        }
        filled.push(rest, Whose::Template)?;
        match seen {
            [true, true] => Ok(filled),
            _ => {
                let message = "expected {query} and {document} in it, found neither or one";
                Err(Error::new(Code::Unsupported, "template", message))
            }
        }
    }

    fn push(&mut self, text: &str, whose: Whose) -> Result<()> {
        let room = self.text.try_reserve(text.len());
        room.and_then(|()| self.parts.try_reserve(1))
            .map_err(|_| out_of_memory())?;
        self.text.push_str(text);
        self.parts.push((self.text.len(), whose));
        Ok(())
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
