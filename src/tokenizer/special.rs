//! Finds tokens in a text that are never cut: control tokens and user-defined ones.
//!
//! At each place the longest token is taken. The tokens are sorted, and those that still agree
//! with the text are a range that narrows byte by byte, so a place costs at most the length of
//! the longest token.

use crate::error::Result;
use crate::tokenizer::job::Watch;
use crate::tokenizer::vocabulary::{Vocabulary, reserve};

/// A set of tokens to look for.
#[derive(Debug)]
pub(super) struct Finder {
    /// Ids, sorted by text.
    ids: Vec<u32>,
    /// The range in `ids` of the tokens that start with each byte.
    starts: Vec<(u32, u32)>, // (256)
}

/// A token found in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: u32,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Finder {
    /// A finder of the tokens that `include` accepts. Empty ones are left out, and ones that are
    /// not UTF-8, which no text contains.
    pub(super) fn new(vocabulary: &Vocabulary, include: impl Fn(u32) -> bool) -> Result<Self> {
        let text = |id| vocabulary.text(id).unwrap_or_default();
        let usable = |id| !text(id).is_empty() && std::str::from_utf8(text(id)).is_ok();
        let wanted = || (0..vocabulary.len() as u32).filter(|&id| include(id) && usable(id));
        let mut ids = Vec::new();
        reserve(&mut ids, wanted().count())?;
        ids.extend(wanted());
        // Of equal texts the lowest id comes first and is found.
        ids.sort_unstable_by(|&a, &b| text(a).cmp(text(b)).then(a.cmp(&b)));
        let starts = (0..=255u8).map(|byte| {
            let low = ids.partition_point(|&id| text(id)[0] < byte);
            let high = ids.partition_point(|&id| text(id)[0] <= byte);
            (low as u32, high as u32)
        });
        let starts = starts.collect();
        Ok(Self { ids, starts })
    }

    /// The first token in `text` at or after `from`, and the longest of those that start there.
    pub(super) fn find(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        from: usize,
        watch: &mut Watch<'_>,
    ) -> Result<Option<Found>> {
        if self.ids.is_empty() {
            return Ok(None);
        }
        let bytes = text.as_bytes();
        for start in from..bytes.len() {
            let (low, high) = self.starts[bytes[start] as usize];
            let candidates = &self.ids[low as usize..high as usize];
            let found = longest(vocabulary, candidates, &bytes[start..], watch)?;
            if let Some((id, length)) = found {
                let end = start + length;
                return Ok(Some(Found { id, start, end }));
            }
        }
        Ok(None)
    }
}

/// The longest of `candidates`, sorted tokens with the first byte of `text`, that `text` starts
/// with, and its length.
#[inline]
fn longest(
    vocabulary: &Vocabulary,
    candidates: &[u32],
    text: &[u8],
    watch: &mut Watch<'_>,
) -> Result<Option<(u32, usize)>> {
    let mut candidates = candidates;
    let mut best = None;
    let mut length = 1;
    loop {
        watch.work(1)?;
        // The shortest candidate is first: all agree with the text as far as `length`.
        let Some(&first) = candidates.first() else {
            return Ok(best);
        };
        if vocabulary
            .text(first)
            .is_some_and(|token| token.len() == length)
        {
            best = Some((first, length));
        }
        let Some(&byte) = text.get(length) else {
            return Ok(best);
        };
        let at = |id: u32| {
            vocabulary
                .text(id)
                .and_then(|token| token.get(length))
                .copied()
        };
        let low = candidates.partition_point(|&id| at(id) < Some(byte));
        let high = candidates.partition_point(|&id| at(id) <= Some(byte));
        candidates = &candidates[low..high];
        length += 1;
    }
}
