//! Infill: for filling a gap in a text, ends early rather than late. To be placed behind top-k and
//! top-p.
//!
//! Source: its author's published description (G. Gerganov, "add infill sampler", 2024). With p over
//! the n candidates, and ends for the tokens that end generation:
//! 1. if n times the sum of the ends is above the sum of the texts, only the ends stay. (The
//!    author's program triples the first; the description does not, and is what counts here.)
//! 2. a token and all those whose texts begin with its text become one: the likeliest of them, with
//!    the sum of their p; which come first does not matter.
//! 3. texts below 0.2 go; then, of t texts left, those below 1 / (t + 1) of all that is left.
//! 4. if no candidate is left, the token that ends a turn is put there, else the one of a text.

use std::sync::Arc;

use crate::error::{Code, Error, Result};
use crate::float;
use crate::kernel::Ranked;
use crate::sampler::candidates::Candidates;
use crate::sampler::rank::better;
use crate::tokenizer::{Attribute, Tokenizer};

/// The infill stage of one vocabulary; clones share it. The default one knows no token.
#[derive(Debug, Clone, Default)]
pub struct Infill(Arc<Texts>);

#[derive(Debug, Default)]
struct Texts {
    bytes: Vec<u8>,
    /// Where the text of each token ends, and whether the token ends generation.
    tokens: Vec<(usize, bool)>,
    end: Option<u32>,
}

impl Infill {
    /// Copies what it needs of a vocabulary; or fails with `OUT_OF_MEMORY`.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let ids = 0..tokenizer.vocab_len() as u32;
        let end = tokenizer.eot().or(tokenizer.eos());
        Self::from_texts(
            ids.map(|id| {
                let control = tokenizer.attribute(id) == Some(Attribute::Control);
                let text = tokenizer.token_bytes(id).filter(|_| !control);
                (text.unwrap_or_default(), tokenizer.is_end(id))
            }),
            end,
        )
    }

    pub(super) fn from_texts<'a>(
        texts: impl Iterator<Item = (&'a [u8], bool)>,
        end: Option<u32>,
    ) -> Result<Self> {
        let (mut bytes, mut tokens) = (Vec::new(), Vec::new());
        for (text, is_end) in texts {
            let room = bytes.try_reserve(text.len());
            room.and(tokens.try_reserve(1)).map_err(|_| {
                let message = "no memory for the texts of the vocabulary";
                Error::new(Code::OutOfMemory, "infill", message)
            })?;
            bytes.extend_from_slice(text);
            tokens.push((bytes.len(), is_end));
        }
        Ok(Self(Arc::new(Texts { bytes, tokens, end })))
    }

    fn text(&self, token: u32) -> &[u8] {
        let Texts { bytes, tokens, .. } = &*self.0;
        let token = token as usize;
        let end = tokens.get(token).map_or(0, |(end, _)| *end);
        let start = token.checked_sub(1).and_then(|before| tokens.get(before));
        bytes
            .get(start.map_or(0, |(end, _)| *end)..end)
            .unwrap_or_default()
    }

    fn is_end(&self, token: u32) -> bool {
        self.0
            .tokens
            .get(token as usize)
            .is_some_and(|(_, is_end)| *is_end)
    }

    pub(super) fn apply(&self, candidates: &mut Candidates<'_>) -> Result<()> {
        candidates.compact()?;
        let total = candidates.weigh()?;
        let len = candidates.len();
        let mut keys = std::mem::take(&mut candidates.buffers.keys);
        let mut order = std::mem::take(&mut candidates.buffers.order);
        let p = &mut keys[..len];
        for (p, weight) in p.iter_mut().zip(candidates.weights()) {
            *p = (f64::from(*weight) / total) as f32;
        }
        self.decide(&|i| candidates.token(i), p, &mut order);
        for (logit, p) in candidates.logits_mut().iter_mut().zip(&*p) {
            *logit = float::ln(*p);
        }
        let left = p.iter().any(|p| *p > 0.0);
        candidates.buffers.keys = keys;
        candidates.buffers.order = order;
        if let (false, Some(end)) = (left, self.0.end) {
            candidates.replace_all(end);
        }
        Ok(())
    }

    /// Steps 1 to 3 on the probabilities; a zero excludes.
    fn decide(&self, token: &dyn Fn(usize) -> u32, p: &mut [f32], order: &mut [Ranked]) {
        let is_end = |i: usize| self.is_end(token(i));
        let ends: f32 = (0..p.len()).filter(|i| is_end(*i)).map(|i| p[i]).sum();
        if ends * p.len() as f32 > 1.0 - ends {
            let texts = (0..p.len()).filter(|i| !is_end(*i));
            texts.for_each(|i| p[i] = 0.0);
            return;
        }
        self.join(token, p, order);
        let drop_texts_below = |p: &mut [f32], threshold: f32| {
            for (i, p) in p.iter_mut().enumerate() {
                if *p < threshold && !is_end(i) {
                    *p = 0.0;
                }
            }
            (0..p.len()).filter(|i| p[*i] > 0.0 && !is_end(*i)).count()
        };
        let texts = drop_texts_below(p, 0.2);
        if texts > 0 {
            let sum: f32 = p.iter().sum();
            drop_texts_below(p, sum / (texts + 1) as f32);
        }
    }

    /// Step 2: in the order of their texts, tokens that begin with a text follow it.
    fn join(&self, token: &dyn Fn(usize) -> u32, p: &mut [f32], order: &mut [Ranked]) {
        let text = |ranked: &Ranked| self.text(token(ranked.position as usize));
        let mut count = 0;
        for (i, &key) in p.iter().enumerate() {
            order[count].position = i as u32;
            order[count].key = key;
            count += usize::from(!self.is_end(token(i)) && !text(&order[count]).is_empty());
        }
        let mut order = &mut order[..count];
        order.sort_unstable_by(|a, b| text(a).cmp(text(b)).then(a.position.cmp(&b.position)));
        while let Some(first) = order.first() {
            let root = text(first);
            let begins = |ranked: &&Ranked| text(ranked).starts_with(root);
            let count = order.iter().take_while(begins).count();
            let (group, rest) = order.split_at_mut(count);
            let sum: f32 = group.iter().map(|ranked| ranked.key).sum();
            group
                .iter()
                .for_each(|ranked| p[ranked.position as usize] = 0.0);
            if let Some(best) = group.iter().min_by(|a, b| better(a, b)) {
                p[best.position as usize] = sum;
            }
            order = rest;
        }
    }
}
