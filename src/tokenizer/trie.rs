//! Tokens by their bytes: finds all that begin at a place of a text, in one walk.
//!
//! A radix tree (Morrison, "PATRICIA", 1968): a node stands for the bytes that all tokens below it
//! have in common, so there are at most twice as many nodes as tokens.

use std::ops::Range;

use crate::error::Result;
use crate::tokenizer::merge::NO_ID;
use crate::tokenizer::vocabulary::{Texts, out_of_memory, reserve};

/// A set of tokens.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// The byte that leads from its parent to each node; of the root it means nothing.
    bytes: Vec<u8>,
    /// Bytes at the start of each text that are left out.
    skip: usize,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    /// A token of which the node's bytes are the start.
    sample: u32,
    /// How many they are, with those of all nodes above.
    end: u32,
    /// The token that they are, or `NO_ID`.
    id: u32,
    /// The first child; the others follow up to the first of the next node.
    children: u32,
}

impl Trie {
    /// The tokens that `include` accepts, without the first `skip` bytes of their texts, all of
    /// which are longer. Of equal texts the first is found.
    pub(super) fn new(texts: &Texts, skip: usize, include: impl Fn(u32) -> bool) -> Result<Self> {
        let text = |id| &texts.get(id).unwrap_or_default()[skip..];
        let wanted = || (0..texts.len() as u32).filter(|&id| include(id));
        let mut ids = Vec::new();
        reserve(&mut ids, wanted().count())?;
        ids.extend(wanted());
        ids.sort_unstable_by(|&a, &b| text(a).cmp(text(b)).then(a.cmp(&b)));
        let mut trie = Self {
            nodes: Vec::new(),
            bytes: Vec::new(),
            skip,
        };
        let mut ranges: Vec<Range<usize>> = Vec::new();
        if !ids.is_empty() {
            trie.push(0, 0..ids.len(), &mut ranges)?;
        }
        let mut node = 0;
        while let Some(range) = ranges.get(node).cloned() {
            let (sample, last) = (ids[range.start], ids[range.end - 1]);
            let pairs = text(sample).iter().zip(text(last));
            let end = pairs.take_while(|(a, b)| a == b).count();
            // What is as short as that comes first.
            let whole = |id: &&u32| text(**id).len() == end;
            let ends_here = ids[range.clone()].iter().take_while(whole).count();
            trie.nodes[node] = Node {
                sample,
                end: end as u32,
                id: if ends_here > 0 { sample } else { NO_ID },
                children: trie.nodes.len() as u32,
            };
            let mut start = range.start + ends_here;
            while start < range.end {
                let byte = text(ids[start])[end];
                let same = ids[start..range.end].partition_point(|&id| text(id)[end] == byte);
                trie.push(byte, start..start + same, &mut ranges)?;
                start += same;
            }
            node += 1;
        }
        Ok(trie)
    }

    /// Appends a node whose tokens are known, but nothing else.
    fn push(
        &mut self,
        byte: u8,
        range: Range<usize>,
        ranges: &mut Vec<Range<usize>>,
    ) -> Result<()> {
        let room = self.nodes.try_reserve(1).and(self.bytes.try_reserve(1));
        room.and(ranges.try_reserve(1))
            .map_err(|_| out_of_memory())?;
        self.nodes.push(Node {
            sample: 0,
            end: 0,
            id: NO_ID,
            children: 0,
        });
        self.bytes.push(byte);
        ranges.push(range);
        Ok(())
    }

    /// Calls `found` with each token that `text` begins with and its length, the shortest first;
    /// returns how many bytes of `text` were looked at.
    #[inline]
    pub(super) fn prefixes(
        &self,
        texts: &Texts,
        text: &[u8],
        mut found: impl FnMut(u32, usize),
    ) -> usize {
        let (mut at, mut depth) = (0, 0);
        while let Some(node) = self.nodes.get(at) {
            let end = node.end as usize;
            let label = &texts.get(node.sample).unwrap_or_default()[self.skip..][depth..end];
            if !text[depth..].starts_with(label) {
                return end.min(text.len());
            }
            depth = end;
            if node.id != NO_ID {
                found(node.id, end);
            }
            let Some(byte) = text.get(end) else {
                break;
            };
            let next = self
                .nodes
                .get(at + 1)
                .map_or(self.nodes.len(), |next| next.children as usize);
            let first = node.children as usize;
            match self.bytes[first..next].binary_search(byte) {
                Ok(child) => at = first + child,
                Err(_) => break,
            }
        }
        depth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(items: &[&str]) -> Texts {
        let mut texts = Texts::with_room(items.len()).unwrap();
        for item in items {
            texts
                .push(item.as_bytes(), |out| out.extend(item.as_bytes()))
                .unwrap();
        }
        texts
    }

    fn found(trie: &Trie, texts: &Texts, text: &str) -> Vec<(u32, usize)> {
        let mut all = Vec::new();
        trie.prefixes(texts, text.as_bytes(), |id, len| all.push((id, len)));
        all
    }

    #[test]
    fn all_tokens_that_begin_a_text_are_found() {
        let texts = texts(&["ab", "a", "abcd", "abce", "b", "ab", "xyz", "", "abcdefgh"]);
        let trie = Trie::new(&texts, 0, |id| id != 7).unwrap();
        assert_eq!(found(&trie, &texts, "abcdef"), [(1, 1), (0, 2), (2, 4)]);
        assert_eq!(found(&trie, &texts, "abc"), [(1, 1), (0, 2)]);
        assert_eq!(
            found(&trie, &texts, "abcdefgh!"),
            [(1, 1), (0, 2), (2, 4), (8, 8)]
        );
        assert_eq!(found(&trie, &texts, "xy"), []);
        assert_eq!(found(&trie, &texts, "xyz"), [(6, 3)]);
        assert_eq!(found(&trie, &texts, "q"), []);
        assert_eq!(found(&trie, &texts, ""), []);
    }

    #[test]
    fn sets_without_tokens_or_with_one_work_and_starts_are_left_out() {
        let texts = texts(&["--ab", "--a"]);
        let none = Trie::new(&texts, 0, |_| false).unwrap();
        assert_eq!(found(&none, &texts, "--ab"), []);
        let one = Trie::new(&texts, 0, |id| id == 0).unwrap();
        assert_eq!(found(&one, &texts, "--abc"), [(0, 4)]);
        assert_eq!(found(&one, &texts, "--"), []);
        let both = Trie::new(&texts, 2, |_| true).unwrap();
        assert_eq!(found(&both, &texts, "abc"), [(1, 1), (0, 2)]);
    }
}
