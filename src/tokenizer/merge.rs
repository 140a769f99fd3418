//! Joins neighbouring symbols by rank until no pair has a rule: the core of both families.
//!
//! The pair with the lowest rank is joined first, the leftmost of equal ones. Short pieces are
//! scanned again after every step; long ones keep their pairs in a heap, O(n log n) in all.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::error::Result;
use crate::tokenizer::job::Watch;
use crate::tokenizer::vocabulary::{out_of_memory, reserve};

/// The id of a symbol that is no token.
pub(super) const NO_ID: u32 = u32::MAX;

/// The rank of what cannot be joined; also the mark of a symbol that was joined to its left.
const NO_RANK: u32 = u32::MAX;

/// Pieces of at most this many symbols are scanned; measured: a heap pays off beyond.
const SCAN_MAX: usize = 24;

/// Bytes that can be gone through while an entry of the heap is made or taken.
const ENTRY_WORK: usize = 16;

/// What a pair becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Join {
    /// Lower goes first; below `u32::MAX`.
    pub(super) rank: u32,
    /// The token that the pair becomes.
    pub(super) id: u32,
}

/// The rules of a vocabulary.
pub(super) trait Rules {
    /// What `left` and `right`, neighbours in `piece`, become together.
    fn join(&self, piece: &[u8], left: &Symbol, right: &Symbol) -> Option<Join>;
}

/// Some bytes of a piece, as one symbol.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol {
    /// The token, or `NO_ID`.
    pub(super) id: u32,
    /// First byte in the piece.
    pub(super) start: u32,
    /// Past the last byte.
    pub(super) end: u32,
    /// What it and its right neighbour become.
    joined: u32,
    rank: u32,
    left: u32,
    right: u32,
}

/// The symbols of one piece; kept between pieces for its memory.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    /// `rank << 32 | index`; entries whose symbol has another rank by now are stale.
    heap: BinaryHeap<Reverse<u64>>,
}

impl Merger {
    /// Forgets the last piece and makes room for `count` symbols.
    pub(super) fn clear(&mut self, count: usize) -> Result<()> {
        self.symbols.clear();
        reserve(&mut self.symbols, count)
    }

    /// Appends a symbol that covers the bytes from `start` to `end` of the piece.
    #[inline]
    pub(super) fn push(&mut self, id: u32, start: usize, end: usize) {
        let index = self.symbols.len() as u32;
        self.symbols.push(Symbol {
            id,
            start: start as u32,
            end: end as u32,
            joined: NO_ID,
            rank: NO_RANK,
            left: index.wrapping_sub(1),
            right: index + 1,
        });
    }

    /// Joins what the rules allow; the symbols that remain, in order.
    pub(super) fn merge(
        &mut self,
        rules: &impl Rules,
        piece: &[u8],
        watch: &mut Watch<'_>,
    ) -> Result<impl Iterator<Item = &Symbol>> {
        if self.symbols.len() <= SCAN_MAX {
            self.merge_by_scan(rules, piece);
        } else {
            self.merge_by_heap(rules, piece, watch)?;
        }
        Ok(self.remaining())
    }

    fn merge_by_scan(&mut self, rules: &impl Rules, piece: &[u8]) {
        let symbols = &mut self.symbols;
        let refresh = |symbols: &mut [Symbol], at: usize| {
            let join = symbols
                .get(at + 1)
                .and_then(|right| rules.join(piece, &symbols[at], right));
            symbols[at].rank = join.map_or(NO_RANK, |join| join.rank);
            symbols[at].joined = join.map_or(NO_ID, |join| join.id);
        };
        for at in 0..symbols.len() {
            refresh(symbols, at);
        }
        loop {
            let (mut rank, mut at) = (NO_RANK, 0);
            for (index, symbol) in symbols.iter().enumerate() {
                if symbol.rank < rank {
                    (rank, at) = (symbol.rank, index);
                }
            }
            if rank == NO_RANK {
                break;
            }
            symbols[at].id = symbols[at].joined;
            symbols[at].end = symbols.remove(at + 1).end;
            refresh(symbols, at);
            if at > 0 {
                refresh(symbols, at - 1);
            }
        }
        // The links still describe the symbols as they were pushed.
        for (index, symbol) in symbols.iter_mut().enumerate() {
            symbol.right = index as u32 + 1;
        }
    }

    fn merge_by_heap(
        &mut self,
        rules: &impl Rules,
        piece: &[u8],
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.clear();
        reserve(&mut entries, self.symbols.len())?;
        for at in 0..self.symbols.len() {
            watch.work(ENTRY_WORK)?;
            entries.extend(self.refresh(rules, piece, at));
        }
        self.heap = BinaryHeap::from(entries);
        while let Some(Reverse(entry)) = self.heap.pop() {
            let (rank, at) = ((entry >> 32) as u32, entry as u32 as usize);
            let symbol = self.symbols[at];
            watch.work(ENTRY_WORK)?;
            if symbol.rank != rank {
                continue;
            }
            let gone = &mut self.symbols[symbol.right as usize];
            gone.rank = NO_RANK;
            let (end, right) = (gone.end, gone.right);
            watch.work((end - symbol.start) as usize)?;
            let joined = &mut self.symbols[at];
            (joined.id, joined.end, joined.right) = (symbol.joined, end, right);
            if let Some(next) = self.symbols.get_mut(right as usize) {
                next.left = at as u32;
            }
            self.heap.try_reserve(2).map_err(|_| out_of_memory())?;
            let entry = self.refresh(rules, piece, at);
            self.heap.extend(entry);
            if symbol.left != NO_ID {
                let entry = self.refresh(rules, piece, symbol.left as usize);
                self.heap.extend(entry);
            }
        }
        Ok(())
    }

    /// Finds out anew what the symbol `at` and its right neighbour become; the heap's entry.
    fn refresh(&mut self, rules: &impl Rules, piece: &[u8], at: usize) -> Option<Reverse<u64>> {
        let symbol = &self.symbols[at];
        let right = self.symbols.get(symbol.right as usize);
        let join = right.and_then(|right| rules.join(piece, symbol, right));
        let symbol = &mut self.symbols[at];
        symbol.rank = join.map_or(NO_RANK, |join| join.rank);
        symbol.joined = join.map_or(NO_ID, |join| join.id);
        join.map(|join| Reverse(u64::from(join.rank) << 32 | at as u64))
    }

    fn remaining(&self) -> impl Iterator<Item = &Symbol> {
        let mut next = self.symbols.first();
        std::iter::from_fn(move || {
            let symbol = next?;
            next = self.symbols.get(symbol.right as usize);
            Some(symbol)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Rules by text, as a vocabulary with scores has them.
    struct ByText(HashMap<Vec<u8>, (u32, u32)>);

    impl Rules for ByText {
        fn join(&self, piece: &[u8], left: &Symbol, right: &Symbol) -> Option<Join> {
            let text = &piece[left.start as usize..right.end as usize];
            self.0.get(text).map(|&(rank, id)| Join { rank, id })
        }
    }

    /// The definition, word by word: join the best pair until there is none.
    fn naive(rules: &ByText, piece: &[u8]) -> Vec<Vec<u8>> {
        let mut parts: Vec<Vec<u8>> = piece.iter().map(|&byte| vec![byte]).collect();
        loop {
            let pairs = parts.windows(2).map(|pair| pair.concat());
            let ranks = pairs.map(|text| rules.0.get(&text).map(|rule| rule.0));
            let best = ranks
                .enumerate()
                .filter_map(|(at, rank)| Some((rank?, at)))
                .min();
            let Some((_, at)) = best else {
                return parts;
            };
            let right = parts.remove(at + 1);
            parts[at].extend(right);
        }
    }

    fn fast(merger: &mut Merger, rules: &ByText, piece: &[u8], by_heap: bool) -> Vec<Vec<u8>> {
        merger.clear(piece.len()).unwrap();
        for at in 0..piece.len() {
            merger.push(NO_ID, at, at + 1);
        }
        if by_heap {
            merger
                .merge_by_heap(rules, piece, &mut Watch::default())
                .unwrap();
        } else {
            merger.merge_by_scan(rules, piece);
        }
        let symbols = merger.remaining();
        symbols
            .map(|symbol| piece[symbol.start as usize..symbol.end as usize].to_vec())
            .collect()
    }

    #[test]
    fn both_ways_agree_with_the_definition() {
        let mut state = 7u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        let mut merger = Merger::default();
        for round in 0..600 {
            let letters = 1 + random(4);
            // Few ranks make many ties.
            let ranks = [3, 1000][round % 2];
            let mut rules = HashMap::new();
            for id in 0..random(60) as u32 {
                let length = 2 + random(6);
                let text: Vec<u8> = (0..length).map(|_| b'a' + random(letters) as u8).collect();
                rules.insert(text, (random(ranks) as u32, id));
            }
            let rules = ByText(rules);
            let length = random(120);
            let piece: Vec<u8> = (0..length).map(|_| b'a' + random(letters) as u8).collect();
            let expected = naive(&rules, &piece);
            assert_eq!(fast(&mut merger, &rules, &piece, true), expected);
            assert_eq!(fast(&mut merger, &rules, &piece, false), expected);
        }
    }
}
