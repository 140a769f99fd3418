//! The tree of pages against a list of everything that was ever offered.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::*;
use crate::budget::Budget;
use crate::kernel::{Kernels, detect};
use crate::kv::cache::tests::{Dice, layout, read, write};
use crate::kv::{LayerShape, Layout, PAGE_SIZES, StateShape};
use crate::random::Random;

/// With [`STEPS`]: 400,000 sessions that are made, go on or end, most of which look, make room,
/// write, offer and forget: two million operations.
const ROUNDS: u64 = 8_000;
const STEPS: u64 = 50;

/// A session: its tokens, and what a pass stores for them.
struct Timeline {
    domain: Domain,
    tokens: Vec<u32>,
    values: Vec<f32>,
    cache: Cache,
}

impl Timeline {
    fn feed(&mut self, tokens: impl IntoIterator<Item = u32>) {
        self.tokens.extend(tokens);
        // As keys and values are, each is a function of the domain and of all tokens up to it.
        let mut hash = 2 * self.domain.salt + u64::from(self.domain.is_long);
        let values = self.tokens.iter().map(|token| {
            hash = (hash * 2 + u64::from(*token) + 1).wrapping_mul(0x0100_0000_01b3) >> 2;
            (hash % (1 << 20)) as f32
        });
        self.values = values.collect();
    }

    fn evaluate(&mut self, kernels: &Kernels, tokens: Range<usize>) {
        for position in tokens {
            write(kernels, &mut self.cache, position, self.values[position]);
        }
    }

    fn check(&self, end: usize) {
        let held = self.values[..end].iter().enumerate();
        for (position, &value) in held.skip(self.cache.forgotten()) {
            assert_eq!(read(&self.cache, position), [value, -value], "{position}");
        }
    }
}

/// The tree is what its counters and lists say.
fn check(prefixes: &Prefixes, page_tokens: usize) {
    let tree = prefixes.lock();
    let mut unused = tree.free.clone();
    unused.sort_unstable();
    unused.dedup();
    assert_eq!(unused.len(), tree.free.len(), "no place is free twice");
    let (mut pages, mut bytes, mut leaves, mut roots) = (0, 0, BTreeSet::new(), 0);
    for (place, node) in tree.nodes.iter().enumerate() {
        if unused.binary_search(&place).is_ok() {
            continue;
        }
        for (tokens, &child) in &node.children {
            let held = tree.nodes[child].page.as_ref().unwrap();
            assert_eq!((held.parent, &held.tokens), (place, tokens));
        }
        let Some(held) = &node.page else {
            roots += 1;
            assert!(!node.children.is_empty());
            assert!(tree.roots.values().any(|root| *root == place));
            continue;
        };
        (pages, bytes) = (pages + 1, bytes + held.bytes);
        assert_eq!(
            tree.nodes[held.parent].children.get(&held.tokens),
            Some(&place)
        );
        if node.children.is_empty() {
            leaves.insert((held.rank(), place));
        } else {
            assert_eq!(held.tokens.len(), page_tokens);
        }
    }
    assert_eq!((roots, &leaves), (tree.roots.len(), &tree.leaves));
    assert_eq!(
        (pages, bytes),
        (tree.statistics.pages, tree.statistics.bytes)
    );
    assert!(bytes <= prefixes.bytes_max);
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Tokens that begin as some that were there before, or not.
fn prompt(dice: &mut Dice, offered: &[(Domain, Vec<u32>)]) -> Vec<u32> {
    let mut tokens = Vec::new();
    if !offered.is_empty() {
        let (_, before) = &offered[dice.below(offered.len())];
        tokens.extend_from_slice(&before[..dice.below(before.len() + 1)]);
    }
    let more = 1 + dice.below(150);
    tokens.extend((0..more).map(|_| dice.below(2) as u32));
    tokens
}

struct World {
    layout: Arc<Layout>,
    budget: Budget,
    prefixes: Prefixes,
    /// Sessions that live on.
    living: Vec<Timeline>,
    offered: Vec<(Domain, Vec<u32>)>,
}

impl World {
    /// Makes room as a session does; false if there is none.
    fn reserve(&self, cache: &mut Cache, tokens: Range<usize>) -> bool {
        self.prefixes.reserve(cache, tokens).is_ok()
    }

    /// A session with a prompt, part of which is perhaps evaluated before it looks.
    fn session(&mut self, dice: &mut Dice, kernels: &Kernels, forgets: bool) {
        let domain = Domain {
            format: KvFormat::F32,
            is_long: dice.below(4) == 0,
            salt: dice.below(2) as u64,
        };
        let mut one = Timeline {
            domain,
            tokens: Vec::new(),
            values: Vec::new(),
            cache: Cache::new(Arc::clone(&self.layout), self.budget.clone(), 0).unwrap(),
        };
        one.feed(prompt(dice, &self.offered));
        let len = one.tokens.len();
        let own = [0, dice.below(len)][dice.below(2)];
        if !self.reserve(&mut one.cache, 0..own) {
            return;
        }
        one.evaluate(kernels, 0..own);
        let Timeline { tokens, cache, .. } = &mut one;
        let found = self.prefixes.adopt(&domain, tokens, own, cache);
        self.prefixes.count(found - own);
        let of_domain = self.offered.iter().filter(|(of, _)| *of == domain);
        let most = of_domain.map(|(_, before)| common(before, tokens)).max();
        let most = most.unwrap_or(0).min(len - 1);
        let expected = if most < own + REUSE_MIN { own } else { most };
        match forgets {
            true => assert!(found <= expected),
            false => assert_eq!(found, expected),
        }
        one.check(found);
        if self.reserve(&mut one.cache, found..len) {
            one.evaluate(kernels, found..len);
            self.offer(one, dice);
        }
    }

    /// Lets others have a session's pages, some of which it then forgets.
    fn offer(&mut self, mut one: Timeline, dice: &mut Dice) {
        let Timeline {
            domain,
            tokens,
            cache,
            ..
        } = &mut one;
        let with_rest = dice.below(2) == 0;
        let page = self.layout.page_tokens();
        let mut kept = tokens.len() / page * page;
        if with_rest && tokens.len() >= kept + REUSE_MIN {
            kept = tokens.len();
        }
        self.prefixes.offer(domain, tokens, with_rest, cache);
        self.offered.push((*domain, tokens[..kept].to_vec()));
        if dice.below(4) == 0 {
            cache.forget(dice.below(tokens.len() + 1));
        }
        one.check(one.tokens.len());
        self.living.push(one);
    }

    /// A session that lives goes on, or ends.
    fn go_on(&mut self, dice: &mut Dice, kernels: &Kernels) {
        let one = dice.below(self.living.len());
        let mut one = self.living.swap_remove(one);
        let len = one.tokens.len();
        one.check(len);
        if dice.below(2) == 0 || self.living.len() > 8 {
            return;
        }
        let more = dice.below(100);
        if self.reserve(&mut one.cache, len..len + more) {
            one.feed((0..more).map(|_| dice.below(2) as u32));
            one.evaluate(kernels, len..len + more);
            self.offer(one, dice);
        }
    }
}

#[test]
fn what_is_found_is_what_was_offered() {
    let layouts = PAGE_SIZES.map(|tokens| layout(KvFormat::F32, tokens));
    let kernels = detect();
    let (mut hits, mut evictions) = (0, 0);
    for round in 0..ROUNDS {
        let layout = &layouts[round as usize / 3 % 3];
        let some = (2560 / layout.page_tokens()) as u64 * layout.page_charge();
        let (limit, cap) =
            [(u64::MAX, None), (some, None), (u64::MAX, Some(some))][round as usize % 3];
        let mut world = World {
            layout: Arc::clone(layout),
            budget: Budget::new(cap, None),
            prefixes: Prefixes::new(limit),
            living: Vec::new(),
            offered: Vec::new(),
        };
        for step in 0..STEPS {
            let random = Random { seed: round, step };
            let mut dice = Dice { random, draw: 0 };
            match dice.below(3) {
                0 if !world.living.is_empty() => world.go_on(&mut dice, kernels),
                _ => world.session(&mut dice, kernels, round % 3 > 0),
            }
            if step % 16 == 0 {
                check(&world.prefixes, layout.page_tokens());
            }
        }
        let statistics = world.prefixes.statistics();
        hits += statistics.hits;
        evictions += statistics.evictions;
        drop(world.living);
        assert_eq!(world.budget.bytes(), statistics.bytes);
        while world.prefixes.make_room(&world.budget, Code::MemoryCap) {}
        check(&world.prefixes, layout.page_tokens());
        let left = world.prefixes.statistics();
        assert_eq!((left.pages, world.budget.bytes()), (0, 0));
        assert_eq!(world.prefixes.lock().roots.len(), 0);
    }
    assert!(hits > 50_000 && evictions > 50_000, "{hits}, {evictions}");
}

const DOMAIN: Domain = Domain {
    format: KvFormat::F32,
    is_long: false,
    salt: 0,
};

/// What a sequence uses stays while memory is short: to give it up would give none back.
#[test]
fn what_is_in_use_is_no_room() {
    let layout = layout(KvFormat::F32, 64);
    let budget = Budget::new(Some(6 * layout.page_charge()), None);
    let prefixes = Prefixes::new(u64::MAX);
    let cache = || Cache::new(Arc::clone(&layout), budget.clone(), 0).unwrap();
    let tokens: Vec<u32> = (0..320).collect();
    let (mut user, mut other) = (cache(), cache());
    prefixes.reserve(&mut user, 0..320).unwrap();
    prefixes.offer(&DOMAIN, &tokens, false, &mut user);
    assert!(prefixes.reserve(&mut other, 0..128).is_err());
    assert_eq!(prefixes.statistics().pages, 5);
    // Pages that it has forgotten are room, but behind them is one that it has not.
    user.forget(256);
    prefixes.reserve(&mut other, 0..128).unwrap();
    assert_eq!(prefixes.statistics().pages, 3);
}

/// A sequence whose own pages and states are kept goes on with them where there is no room for others.
#[test]
fn what_is_kept_is_in_nobodys_way() {
    let layout = recurrent_layout(16);
    let cap = 4 * layout.page_charge() + layout.state().charge();
    let budget = Budget::new(Some(cap), None);
    let prefixes = Prefixes::new(u64::MAX);
    let mut cache = Cache::new(Arc::clone(&layout), budget, 0).unwrap();
    let tokens: Vec<u32> = (0..64).collect();
    prefixes.reserve(&mut cache, 0..64).unwrap();
    // The fourth pass needs the place of a state, the last one that of a page.
    for range in [0..16, 16..32, 32..48, 48..64, 48..56] {
        prefixes.reserve(&mut cache, range.clone()).unwrap();
        pass(&mut cache, detect(), &tokens, range.clone());
        prefixes.offer(&DOMAIN, &tokens[..range.end], false, &mut cache);
    }
    assert!(prefixes.statistics().evictions > 0);
}

/// A number that depends on all tokens.
fn hash_of(tokens: &[u32]) -> f32 {
    let mix = |hash: u64, token: &u64| (hash ^ token).wrapping_mul(0x0100_0000_01b3) >> 3;
    let hash = tokens.iter().map(|token| u64::from(*token) + 1);
    (hash.fold(7, |hash, token| mix(hash, &token)) % (1 << 20)) as f32
}

/// A pass over tokens, which leaves a state that depends on all of them.
fn pass(cache: &mut Cache, kernels: &Kernels, tokens: &[u32], range: Range<usize>) {
    for position in range.clone() {
        write(kernels, cache, position, hash_of(&tokens[..=position]));
    }
    let state = cache.state_mut();
    state.begin(range.start).unwrap();
    let (old, new) = state.windows(0);
    let expected = (range.start > 0).then(|| hash_of(&tokens[..range.start]));
    assert_eq!(old.map(|old| old[0]), expected);
    new[0] = hash_of(&tokens[..range.end]);
    state.commit(range.end);
}

/// Sequences with states go on where others were offered, and nowhere else.
#[test]
fn states_are_found_where_they_were_offered() {
    let (mut hits, mut evictions, kernels) = (0, 0, detect());
    for round in 0..1000 {
        let layout = recurrent_layout(PAGE_SIZES[round as usize % 3]);
        let some = 16 * (layout.page_charge() + layout.state().state_charge());
        let limit = [u64::MAX, some][round as usize % 2];
        let (prefixes, budget) = (Prefixes::new(limit), Budget::default());
        let mut offered = Vec::new();
        for step in 0..STEPS {
            let random = Random { seed: round, step };
            let mut dice = Dice { random, draw: 0 };
            let domain = Domain {
                format: KvFormat::F32,
                is_long: false,
                salt: dice.below(2) as u64,
            };
            let tokens = prompt(&mut dice, &offered);
            let mut cache = Cache::new(Arc::clone(&layout), budget.clone(), 0).unwrap();
            let found = prefixes.adopt(&domain, &tokens, 0, &mut cache);
            let is_begin = |(of, before): &&(Domain, Vec<u32>)| {
                *of == domain && tokens.len() > before.len() && tokens.starts_with(before)
            };
            let ends = offered
                .iter()
                .filter(is_begin)
                .map(|(_, before)| before.len());
            let ends: Vec<usize> = ends.filter(|end| *end >= REUSE_MIN).collect();
            match limit {
                u64::MAX => assert_eq!(found, ends.iter().copied().max().unwrap_or(0)),
                _ => assert!(found == 0 || ends.contains(&found)),
            }
            for position in 0..found {
                let value = hash_of(&tokens[..=position]);
                assert_eq!(read(&cache, position), [value, -value]);
            }
            // Where its prompt ends, and where it does.
            let middle = found + dice.below(tokens.len() - found);
            for range in [found..middle, middle..tokens.len()] {
                if !range.is_empty() {
                    cache.reserve(range.clone()).unwrap();
                    pass(&mut cache, kernels, &tokens, range.clone());
                    let with_rest = range.end == tokens.len();
                    prefixes.offer(&domain, &tokens[..range.end], with_rest, &mut cache);
                    offered.push((domain, tokens[..range.end].to_vec()));
                }
            }
            check(&prefixes, layout.page_tokens());
            hits += usize::from(found > 0);
        }
        let statistics = prefixes.statistics();
        evictions += statistics.evictions;
        assert_eq!(budget.bytes(), statistics.bytes);
        while prefixes.make_room(&budget, Code::MemoryCap) {}
        assert_eq!(budget.bytes(), 0);
    }
    assert!(hits > 5_000 && evictions > 5_000, "{hits}, {evictions}");
}

fn recurrent_layout(page_tokens: usize) -> Arc<Layout> {
    let state = StateShape {
        window: 1,
        matrix: 2,
    };
    let shape = LayerShape {
        heads: 1,
        k_dim: 1,
        v_dim: 1,
        state,
    };
    Arc::new(Layout::new(
        KvFormat::F32,
        page_tokens,
        std::iter::once(shape),
    ))
}
