//! What sessions and requests have evaluated, kept for others whose tokens begin the same way.
//!
//! A page that is partly filled, or partly wanted, is shared too; who goes on behind the common part
//! copies it ([`Cache::reserve`]). Recurrent layers go on from a state, which is kept for the end of
//! what was offered: there, and only there, others go on from it.

mod tree;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::budget::Budget;
use crate::error::{Code, Error, Result};
use crate::kv::{Cache, KvFormat, Page};

use tree::{Held, Tree};

/// Fewer tokens than these are not worth a page.
pub const REUSE_MIN: usize = 8;

/// What keys and values depend on besides the model and the tokens, and who may see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Domain {
    /// How they are stored.
    pub format: KvFormat,
    /// Whether positions are embedded as in contexts longer than the original one.
    pub is_long: bool,
    /// Those of another salt share nothing.
    pub salt: u64,
}

/// What the prefix cache has done and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrefixStatistics {
    /// Prompts that were looked up.
    pub lookups: u64,
    /// Those of which a part was found.
    pub hits: u64,
    /// Tokens that need not be evaluated.
    pub tokens: u64,
    /// Pages that are kept.
    pub pages: u64,
    /// Their bytes, those in use by sessions included.
    pub bytes: u64,
    /// The most bytes that are kept.
    pub bytes_max: u64,
    /// Pages that were given up.
    pub evictions: u64,
}

/// The prefix cache of a model.
#[derive(Debug, Default)]
pub struct Prefixes {
    tree: Mutex<Tree>,
    bytes_max: u64,
    /// While memory is short, less than `bytes_max`.
    bytes_allowed: AtomicU64,
}

impl Prefixes {
    /// A cache that keeps at most `bytes_max` bytes of pages; 0: nothing.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            tree: Mutex::default(),
            bytes_max,
            bytes_allowed: AtomicU64::new(bytes_max),
        }
    }

    /// Whether it keeps nothing.
    pub fn is_off(&self) -> bool {
        self.bytes_max == 0
    }

    /// Keeps at most so many bytes of pages from now on, and never more than at first.
    pub fn allow(&self, bytes: u64) {
        let bytes = bytes.min(self.bytes_max);
        if self.bytes_allowed.swap(bytes, Ordering::Relaxed) > bytes {
            self.shrink(self.lock());
        }
    }

    /// The most bytes of pages that are kept while there is enough memory.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// The most bytes of pages that are kept now.
    pub fn bytes_allowed(&self) -> u64 {
        self.bytes_allowed.load(Ordering::Relaxed)
    }

    /// Gives up pages until no more are kept than may be.
    fn shrink(&self, mut tree: MutexGuard<'_, Tree>) {
        while tree.statistics.bytes > self.bytes_allowed() && tree.evict(|_, _| true) {}
        leave(tree);
    }

    /// Gives `cache`, which holds the first `evaluated` of `tokens`, pages with more of them, and the
    /// state that belongs to them, if there are [`REUSE_MIN`]: how many it holds then. Never all: the
    /// last token's logits are not kept.
    pub fn adopt(
        &self,
        domain: &Domain,
        tokens: &[u32],
        evaluated: usize,
        cache: &mut Cache,
    ) -> usize {
        let mut tree = self.lock();
        tree.now += 1;
        let page = cache.layout().page_tokens();
        let wanted = &tokens[..tokens.len().saturating_sub(1)];
        let recurs = cache.layout().state().size() > 0;
        let (path, end) = match recurs {
            false => tree.find(domain, wanted, page),
            true => tree.find_state(domain, wanted, page),
        };
        if end < evaluated + REUSE_MIN || cache.reserve_table(end).is_err() {
            return evaluated;
        }
        let own = evaluated / page;
        let path = &path[own..end.div_ceil(page)];
        let pages: Vec<Page> = path.iter().map(|&node| tree.touch(node, 1)).collect();
        let last = path.last().and_then(|&node| tree.nodes[node].page.as_ref());
        let state = last.and_then(|held| held.state.clone());
        drop(tree);
        cache.adopt(own, pages);
        if let Some(state) = state.filter(|_| recurs) {
            cache.state_mut().take(end, state);
        }
        end
    }

    /// Counts a prompt that was looked up, of which `reused` tokens need not be evaluated.
    pub fn count(&self, reused: usize) {
        let statistics = &mut self.lock().statistics;
        statistics.lookups += 1;
        statistics.hits += u64::from(reused > 0);
        statistics.tokens += reused as u64;
    }

    /// Keeps the pages of `cache`, which holds `tokens`; also the last one that is partly filled, if
    /// `with_rest` or there is a state behind it. Where the tree has a page with the same tokens, that
    /// takes the cache's place.
    pub fn offer(&self, domain: &Domain, tokens: &[u32], with_rest: bool, cache: &mut Cache) {
        if tokens.len() < REUSE_MIN {
            return;
        }
        let state = cache.state().share(tokens.len());
        if state.is_none() && cache.layout().state().size() > 0 {
            return;
        }
        let mut tree = self.lock();
        tree.now += 1;
        let root = tree.root(domain);
        let (mut node, mut is_there) = (root, true);
        let page = cache.layout().page_tokens();
        for (number, tokens) in tokens.chunks(page).enumerate() {
            let is_rest = tokens.len() < page;
            let is_news = || tokens.len() >= REUSE_MIN && !tree.covers(node, tokens);
            if is_rest && state.is_none() && !(with_rest && is_news()) {
                break;
            }
            if let Some(&child) = tree.nodes[node].children.get(tokens) {
                let page = tree.touch(child, 0);
                let replaced = cache.replace(number, page);
                tree.gone.extend(replaced.map(|page| (page, None)));
                node = child;
            } else if let Some(page) = cache.held(number) {
                node = tree.add(node, tokens, page.clone(), cache.layout().page_charge());
            } else {
                is_there = false;
                break;
            }
        }
        if let Some(state) = state.filter(|_| is_there && node != root) {
            tree.add_state(node, state, cache.layout().state().state_charge());
        }
        tree.drop_if_empty(root);
        self.shrink(tree);
    }

    /// Gives up a page that is charged to `budget`, or where its source has no more (`OUT_OF_MEMORY`),
    /// one that comes from there; false if that gives no memory back. Pages that sequences use are
    /// none, and go only if they stand behind one that is: its sequence has forgotten it.
    pub fn make_room(&self, budget: &Budget, short: Code) -> bool {
        let counts = |account: &Budget| match short {
            Code::OutOfMemory => account.shares_source(budget),
            _ => account.is(budget),
        };
        let mut tree = self.lock();
        let frees = |held: &Held| held.frees(counts);
        let found = tree.evict(|tree, leaf| tree.line(leaf).take(1).any(frees))
            || tree.evict(|tree, leaf| tree.line(leaf).any(frees));
        leave(tree);
        found
    }

    /// Tries to allocate until there is room: while the cap of `budget` or the system refuses, pages
    /// go that are kept for sequences to come.
    pub fn with_room<T>(
        &self,
        budget: &Budget,
        mut allocate: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        loop {
            match allocate() {
                Err(error) if is_short(&error) && self.make_room(budget, error.code()) => {}
                outcome => return outcome,
            }
        }
    }

    /// [`Cache::reserve`] with room, at last also that of copies which the cache would make only
    /// because pages are kept here.
    pub fn reserve(&self, cache: &mut Cache, tokens: Range<usize>) -> Result<()> {
        let budget = cache.budget.clone();
        loop {
            match self.with_room(&budget, || cache.reserve(tokens.clone())) {
                Err(error) if is_short(&error) && self.step_aside(cache, &tokens) => {}
                outcome => return outcome,
            }
        }
    }

    /// Gives up a page, or one behind it, that `cache` then writes without a copy; false if there is
    /// none.
    fn step_aside(&self, cache: &Cache, tokens: &Range<usize>) -> bool {
        let mut tree = self.lock();
        let is_in_the_way = |held: &Held| held.is_in_the_way(cache, tokens);
        let found = tree.evict(|tree, leaf| tree.line(leaf).any(is_in_the_way));
        leave(tree);
        found
    }

    /// What it has done and holds.
    pub fn statistics(&self) -> PrefixStatistics {
        PrefixStatistics {
            bytes_max: self.bytes_max,
            ..self.lock().statistics
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Unlocks the tree, and then drops what it has given up.
fn leave(mut tree: MutexGuard<'_, Tree>) {
    let gone = std::mem::take(&mut tree.gone);
    drop((tree, gone));
}

fn is_short(error: &Error) -> bool {
    matches!(error.code(), Code::MemoryCap | Code::OutOfMemory)
}

#[cfg(test)]
mod tests;
