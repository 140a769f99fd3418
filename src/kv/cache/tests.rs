//! Tables of pages against lists of tokens, which know nothing of sharing.

use std::collections::HashSet;

use super::*;
use crate::error::Code;
use crate::kernel::{Kernels, Plane, detect};
use crate::kv::{KvFormat, LayerShape, StateShape};
use crate::random::Random;

pub(in crate::kv) fn layout(format: KvFormat) -> Arc<Layout> {
    let shape = LayerShape {
        heads: 1,
        k_dim: 1,
        v_dim: 1,
        state: StateShape::default(),
    };
    Arc::new(Layout::new(format, std::iter::once(shape)))
}

/// Stores `value` at `position`, as a pass does.
pub(in crate::kv) fn write(kernels: &Kernels, cache: &mut Cache, position: usize, value: f32) {
    let layout = Arc::clone(&cache.layout);
    let number = position / PAGE_TOKENS;
    let mut page = cache.lend(number);
    let slot = position % PAGE_TOKENS;
    assert!(page.store(kernels, &layout, (0, 0), slot, (&[value], &[-value])));
    cache.restore(number, page);
}

/// The key and the value at `position`.
pub(in crate::kv) fn read(cache: &Cache, position: usize) -> [f32; 2] {
    let page = cache.page(position / PAGE_TOKENS);
    let (keys, values) = page.planes(&cache.layout, 0, 0);
    let (mut key, mut value) = ([0.0], [0.0]);
    keys.decode(0, PAGE_TOKENS, position % PAGE_TOKENS, &mut key);
    values.decode(position % PAGE_TOKENS, 1, 0, &mut value);
    [key[0], value[0]]
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
        let there = pair.forgotten / PAGE_TOKENS..all;
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
        4 => pairs[one].truncate(len - len % PAGE_TOKENS),
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
    let (layout, kernels) = (layout(KvFormat::F32), detect());
    // Sometimes enough for all.
    let cap = 30 * layout.page_charge();
    let mut refused = 0;
    for round in 0..20 {
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
        let layout = layout(format);
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
    let layout = layout(KvFormat::F16);
    let budget = Budget::new(Some(2 * layout.page_charge()), None);
    let mut cache = Cache::new(layout, budget.clone(), 1000).unwrap();
    cache.reserve(0..PAGE_TOKENS + 1).unwrap();
    assert!(cache.reserve(PAGE_TOKENS + 1..3 * PAGE_TOKENS + 1).is_err());
    assert_eq!(cache.pages.len(), 2);
    // A copy does not fit either, until one of the two gives way.
    let fork = cache.fork(PAGE_TOKENS + 1).unwrap();
    let refused = cache.reserve(PAGE_TOKENS + 1..PAGE_TOKENS + 2);
    assert_eq!(refused.map_err(|e| e.code()), Err(Code::MemoryCap));
    drop(fork);
    cache.reserve(PAGE_TOKENS + 1..2 * PAGE_TOKENS).unwrap();
    cache.truncate(3);
    assert_eq!((cache.pages.len(), budget.bytes()), (1, cache.bytes()));
    drop(cache);
    assert_eq!(budget.bytes(), 0);
}
