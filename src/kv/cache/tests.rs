//! Tables of pages against lists of tokens, which know nothing of sharing.

use std::collections::HashSet;

use super::*;
use crate::error::Code;
use crate::kernel::{Kernels, Plane, detect};
use crate::kv::{KvFormat, LayerShape, PAGE_SIZES, StateShape};
use crate::random::Random;

pub(in crate::kv) fn layout(format: KvFormat, page_tokens: usize) -> Arc<Layout> {
    let shape = LayerShape {
        heads: 1,
        k_dim: 1,
        v_dim: 1,
        state: StateShape::default(),
    };
    Arc::new(Layout::new(format, page_tokens, std::iter::once(shape)))
}

/// Stores `value` at `position`, as a pass does.
pub(in crate::kv) fn write(kernels: &Kernels, cache: &mut Cache, position: usize, value: f32) {
    let layout = Arc::clone(&cache.layout);
    let (number, slot) = (position / layout.page_tokens, position % layout.page_tokens);
    let mut page = cache.lend(number);
    assert!(page.store(kernels, &layout, (0, 0), slot, (&[value], &[-value])));
    cache.restore(number, page);
}

/// The key and the value at `position`.
pub(in crate::kv) fn read(cache: &Cache, position: usize) -> [f32; 2] {
    let tokens = cache.layout.page_tokens;
    let page = cache.page(position / tokens);
    let (keys, values) = page.planes(&cache.layout, 0, 0);
    let (mut key, mut value) = ([0.0; PAGE_SIZES[2]], [0.0]);
    keys.decode(0, tokens, 0, &mut key[..tokens]);
    values.decode(position % tokens, 1, 0, &mut value);
    [key[position % tokens], value[0]]
}

/// A cache, and what it must hold.
struct Pair {
    cache: Cache,
    values: Vec<f32>,
    forgotten: usize,
}

impl Pair {
    fn check(&self) {
        assert_eq!(self.cache.forgotten(), self.forgotten);
        for (position, &value) in self.values.iter().enumerate().skip(self.forgotten) {
            assert_eq!(read(&self.cache, position), [value, -value], "{position}");
        }
    }

    fn truncate(&mut self, tokens: usize) {
        self.cache.truncate(tokens);
        self.cut(tokens);
    }

    fn cut(&mut self, tokens: usize) {
        if tokens < self.forgotten {
            self.forgotten = 0;
            self.values.clear();
        }
        self.values.truncate(tokens);
    }
}

/// Random numbers in a row.
pub(in crate::kv) struct Dice {
    pub(in crate::kv) random: Random,
    pub(in crate::kv) draw: u32,
}

impl Dice {
    pub(in crate::kv) fn below(&mut self, end: usize) -> usize {
        self.draw += 1;
        (self.random.bits(self.draw) % end as u64) as usize
    }
}

/// What is charged is what the tables hold, each page once.
fn check_bytes(pairs: &[Pair], budget: &Budget, layout: &Layout) {
    let mut pages = HashSet::new();
    for pair in pairs {
        pair.check();
        let all = pair.cache.pages.len();
        let there = pair.forgotten / layout.page_tokens..all;
        assert_eq!(
            pair.cache.bytes(),
            there.len() as u64 * layout.page_charge()
        );
        for page in &pair.cache.pages[there] {
            let (Plane::F32(keys), _) = page.planes(layout, 0, 0) else {
                unreachable!("pages of f32")
            };
            pages.insert(keys.as_ptr().addr());
        }
    }
    assert_eq!(budget.bytes(), pages.len() as u64 * layout.page_charge());
}

/// One operation on some of the sequences.
fn operate(pairs: &mut Vec<Pair>, dice: &mut Dice, stamp: f32, kernels: &Kernels) {
    let one = dice.below(pairs.len());
    let len = pairs[one].values.len();
    match dice.below(16) {
        0 | 1 if pairs.len() < 12 => {
            let tokens = len - if len > 0 { dice.below(len.min(90)) } else { 0 };
            let mut fork = Pair {
                cache: pairs[one].cache.fork(tokens).unwrap(),
                values: pairs[one].values.clone(),
                forgotten: pairs[one].forgotten,
            };
            fork.cut(tokens);
            pairs.push(fork);
        }
        2 if pairs.len() > 1 => drop(pairs.swap_remove(one)),
        3 => pairs[one].truncate(dice.below(len + 1)),
        4 => {
            let page = pairs[one].cache.layout.page_tokens;
            pairs[one].truncate(len - len % page);
        }
        5 => {
            let tokens = dice.below(len + 1);
            let spans = tokens / SPAN_TOKENS * SPAN_TOKENS;
            pairs[one].forgotten = pairs[one].forgotten.max(spans);
            pairs[one].cache.forget(tokens);
        }
        6 if len > 0 => {
            // The last token once more, as when its logits are wanted again.
            let Pair { cache, values, .. } = &mut pairs[one];
            if cache.forgotten() < len && cache.reserve(len - 1..len).is_ok() {
                values[len - 1] = stamp;
                write(kernels, cache, len - 1, stamp);
            }
        }
        _ => {
            let Pair { cache, values, .. } = &mut pairs[one];
            let more = 1 + dice.below(24);
            match cache.reserve(len..len + more) {
                Ok(()) => (len..len + more).for_each(|position| {
                    values.push(stamp);
                    write(kernels, cache, position, stamp);
                }),
                // Whole, and room for others comes of giving it up.
                Err(error) => {
                    assert_eq!(error.code(), Code::MemoryCap);
                    pairs[one].check();
                    pairs[one].truncate(len / 2);
                }
            }
        }
    }
}

/// Two million operations: nobody sees what others write, every page that is charged is held, and
/// in the end none is.
#[test]
fn random_operations_leave_every_sequence_its_own() {
    let kernels = detect();
    let mut refused = 0;
    for round in 0..21 {
        let layout = layout(KvFormat::F32, PAGE_SIZES[round as usize % 3]);
        // Sometimes enough for all.
        let cap = (1920 / layout.page_tokens) as u64 * layout.page_charge();
        let budget = Budget::new((round % 4 > 0).then_some(cap), None);
        let empty = || Pair {
            cache: Cache::new(Arc::clone(&layout), budget.clone(), 0).unwrap(),
            values: Vec::new(),
            forgotten: 0,
        };
        let mut pairs = vec![empty()];
        for step in 0..100_000 {
            let random = Random { seed: round, step };
            operate(
                &mut pairs,
                &mut Dice { random, draw: 0 },
                step as f32,
                kernels,
            );
            if step % 251 == 0 {
                check_bytes(&pairs, &budget, &layout);
            }
        }
        refused += usize::from(budget.bytes_max() + layout.page_charge() > cap);
        check_bytes(&pairs, &budget, &layout);
        drop(pairs);
        assert_eq!(budget.bytes(), 0);
    }
    assert!(refused >= 10, "the cap was met in {refused} rounds");
}

#[test]
fn every_format_is_copied_before_it_is_written() {
    let kernels = detect();
    for format in [KvFormat::F32, KvFormat::F16, KvFormat::Q8_0] {
        let layout = layout(format, 64);
        let mut cache = Cache::new(Arc::clone(&layout), Budget::default(), 0).unwrap();
        cache.reserve(0..70).unwrap();
        (0..70).for_each(|position| write(kernels, &mut cache, position, 4.0));
        let mut fork = cache.fork(70).unwrap();
        fork.reserve(70..71).unwrap();
        write(kernels, &mut fork, 70, 8.0);
        // The other one writes too, and in the same place.
        cache.reserve(70..71).unwrap();
        write(kernels, &mut cache, 70, 2.0);
        let near = |cache: &Cache, position, value: f32| {
            let [k, v] = read(cache, position);
            assert!((k - value).abs() < 0.01 && (v + value).abs() < 0.01);
        };
        for position in 0..70 {
            near(&cache, position, 4.0);
            near(&fork, position, 4.0);
        }
        near(&cache, 70, 2.0);
        near(&fork, 70, 8.0);
        // The first page is still one for both.
        let held = cache.budget.bytes();
        assert_eq!(held, 3 * layout.page_charge());
    }
}

#[test]
fn a_cap_leaves_the_sequence_whole() {
    let layout = layout(KvFormat::F16, 64);
    let budget = Budget::new(Some(2 * layout.page_charge()), None);
    let mut cache = Cache::new(layout, budget.clone(), 1000).unwrap();
    cache.reserve(0..65).unwrap();
    assert!(cache.reserve(65..193).is_err());
    assert_eq!(cache.pages.len(), 2);
    // A copy does not fit either, until one of the two gives way.
    let fork = cache.fork(65).unwrap();
    let refused = cache.reserve(65..66);
    assert_eq!(refused.map_err(|e| e.code()), Err(Code::MemoryCap));
    drop(fork);
    cache.reserve(65..128).unwrap();
    cache.truncate(3);
    assert_eq!((cache.pages.len(), budget.bytes()), (1, cache.bytes()));
    drop(cache);
    assert_eq!(budget.bytes(), 0);
}
