//! What sessions and requests have evaluated, kept for others whose tokens begin the same way.
//!
//! A node of the tree has a page and the tokens in it; its children are the pages that followed.
//! They stand in the order of their tokens, so the one that has most in common with a prompt is a
//! neighbour of the prompt's own place. Tokens are compared with tokens: nothing is hashed, nothing
//! can collide. A page that is partly filled, or partly wanted, is shared too; who goes on behind
//! the common part copies it ([`Cache::reserve`]).
//!
//! Recurrent layers go on from a state, which is kept for the end of what was offered: there, and only
//! there, others go on from it.
//!
//! Only leaves are given up, the least recently used first; every doubling of a page's uses counts
//! like a later use ([`PATIENCE`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::budget::{Budget, Shared};
use crate::error::{Code, Error, Result};
use crate::kv::{Cache, KvFormat, Page};

/// Fewer tokens than these are not worth a page.
pub const REUSE_MIN: usize = 8;

/// Calls that go by before a page loses its place to one that was used half as often.
const PATIENCE: u64 = 32;

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

#[derive(Debug, Default)]
struct Tree {
    roots: BTreeMap<Domain, usize>,
    /// (nodes), those of `free` not in use.
    nodes: Vec<Node>,
    free: Vec<usize>,
    /// Nodes without children, the first to go first.
    leaves: BTreeSet<(u64, usize)>,
    /// Pages and states that were given up, to be dropped without the lock.
    gone: Vec<(Page, Option<Shared<f32>>)>,
    /// Calls so far.
    now: u64,
    statistics: PrefixStatistics,
}

#[derive(Debug, Default)]
struct Node {
    /// `None` in roots.
    page: Option<Held>,
    children: BTreeMap<Arc<[u32]>, usize>,
}

/// A page in the tree.
#[derive(Debug)]
struct Held {
    page: Page,
    /// The state after its tokens.
    state: Option<Shared<f32>>,
    bytes: u64,
    /// Its tokens; fewer than a page has room for in leaves only.
    tokens: Arc<[u32]>,
    parent: usize,
    /// The last call that used it.
    used: u64,
    uses: u64,
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
        while tree.statistics.bytes > self.bytes_allowed() && tree.evict(|_| true) {}
        let gone = std::mem::take(&mut tree.gone);
        drop((tree, gone));
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
    /// one that comes from there, first those that no session uses; false if there is none. One that
    /// a session uses is no memory, but lets that session write it without a copy, and pages before
    /// it go that the session has forgotten.
    pub fn make_room(&self, budget: &Budget, short: Code) -> bool {
        let counts = |account: &Budget| match short {
            Code::OutOfMemory => account.shares_source(budget),
            _ => account.is(budget),
        };
        let mut tree = self.lock();
        let found = tree.evict(|held| held.is_alone() && held.is_charged_to(counts))
            || tree.evict(|held| held.is_charged_to(counts));
        let gone = std::mem::take(&mut tree.gone);
        drop((tree, gone));
        found
    }

    /// Tries to allocate until there is room: while the cap of `budget` or the system refuses, pages
    /// go that are kept for sequences to come.
    pub fn with_room<T>(
        &self,
        budget: &Budget,
        mut allocate: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let is_short = |error: &Error| matches!(error.code(), Code::MemoryCap | Code::OutOfMemory);
        loop {
            match allocate() {
                Err(error) if is_short(&error) && self.make_room(budget, error.code()) => {}
                outcome => return outcome,
            }
        }
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

impl Tree {
    /// The nodes whose pages, of `page` tokens, begin as `tokens` do, and how many that makes.
    fn find(&self, domain: &Domain, tokens: &[u32], page: usize) -> (Vec<usize>, usize) {
        let (mut path, mut found) = (Vec::new(), 0);
        let mut next = self.roots.get(domain).copied();
        while let Some(node) = next {
            let rest = &tokens[found..];
            let nearest = self.nearest(node, &rest[..rest.len().min(page)]);
            next = nearest.map(|(same, child)| {
                path.push(child);
                found += same;
                child
            });
            if nearest.is_some_and(|(same, _)| same < page) {
                break;
            }
        }
        (path, found)
    }

    /// The nodes up to that with the furthest state that a sequence which begins with `tokens` can go
    /// on from, and how many tokens that is after.
    fn find_state(&self, domain: &Domain, tokens: &[u32], page: usize) -> (Vec<usize>, usize) {
        let (mut path, mut seen) = (Vec::new(), 0);
        let mut best = None;
        let mut next = self.roots.get(domain).copied();
        while let Some(node) = next {
            let (children, rest) = (&self.nodes[node].children, &tokens[seen..]);
            let child = |len: usize| Some((*children.get(&rest[..len])?, len));
            let has_state = |(child, _): &(usize, usize)| {
                let held = self.nodes[*child].page.as_ref();
                held.is_some_and(|held| held.state.is_some())
            };
            let mut parts = (1..=rest.len().min(page)).rev();
            if let Some((child, len)) = parts.find_map(|len| child(len).filter(has_state)) {
                best = Some((path.len(), child, seen + len));
            }
            next = (rest.len() >= page)
                .then(|| child(page))
                .flatten()
                .map(|(child, _)| child);
            path.extend(next);
            seen += page;
        }
        let Some((len, last, end)) = best else {
            return (Vec::new(), 0);
        };
        path.truncate(len);
        path.push(last);
        (path, end)
    }

    /// The child that has most tokens in common with `wanted`, if any, and how many.
    fn nearest(&self, node: usize, wanted: &[u32]) -> Option<(usize, usize)> {
        let children = &self.nodes[node].children;
        let up_to = (Bound::Unbounded, Bound::Included(wanted));
        let behind = (Bound::Excluded(wanted), Bound::Unbounded);
        let neighbours = [
            children.range::<[u32], _>(up_to).next_back(),
            children.range::<[u32], _>(behind).next(),
        ];
        let same = |(tokens, &child): (&Arc<[u32]>, &usize)| {
            let pairs = tokens.iter().zip(wanted);
            (pairs.take_while(|(a, b)| a == b).count(), child)
        };
        let best = neighbours.into_iter().flatten().map(same).max();
        best.filter(|(same, _)| *same > 0)
    }

    /// Whether a child begins with `tokens`.
    fn covers(&self, node: usize, tokens: &[u32]) -> bool {
        let from = (Bound::Included(tokens), Bound::Unbounded);
        let mut children = self.nodes[node].children.range::<[u32], _>(from);
        children
            .next()
            .is_some_and(|(child, _)| child.starts_with(tokens))
    }

    /// Marks a node as used, so many times more; its page.
    fn touch(&mut self, node: usize, uses: u64) -> Page {
        let now = self.now;
        let Node { page, children } = &mut self.nodes[node];
        let held = page.as_mut().expect("only roots have no page");
        let before = held.rank();
        held.used = now;
        held.uses += uses;
        if children.is_empty() {
            self.leaves.remove(&(before, node));
            self.leaves.insert((held.rank(), node));
        }
        held.page.clone()
    }

    /// The root of a domain, made if it is not there.
    fn root(&mut self, domain: &Domain) -> usize {
        if let Some(&root) = self.roots.get(domain) {
            return root;
        }
        let root = self.place(Node::default());
        self.roots.insert(*domain, root);
        root
    }

    /// A place for a node.
    fn place(&mut self, node: Node) -> usize {
        match self.free.pop() {
            Some(place) => {
                self.nodes[place] = node;
                place
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        }
    }

    /// Keeps the state after a node's tokens, unless one is there.
    fn add_state(&mut self, node: usize, state: Shared<f32>, bytes: u64) {
        let held = self.nodes[node].page.as_mut();
        let held = held.expect("only roots have no page");
        if held.state.is_none() {
            held.state = Some(state);
            held.bytes += bytes;
            self.statistics.bytes += bytes;
        }
    }

    /// Adds a child, which takes the place of one that is a part of it and has no state.
    fn add(&mut self, parent: usize, tokens: &[u32], page: Page, bytes: u64) -> usize {
        let held = Held {
            page,
            state: None,
            bytes,
            tokens: tokens.into(),
            parent,
            used: self.now,
            uses: 1,
        };
        if let Some(parent_held) = &self.nodes[parent].page {
            self.leaves.remove(&(parent_held.rank(), parent));
        }
        self.statistics.pages += 1;
        self.statistics.bytes += bytes;
        let (key, rank) = (Arc::clone(&held.tokens), held.rank());
        let node = self.place(Node {
            page: Some(held),
            children: BTreeMap::new(),
        });
        self.leaves.insert((rank, node));
        let children = &mut self.nodes[parent].children;
        children.insert(key, node);
        let part = (REUSE_MIN..tokens.len()).find_map(|len| children.get(&tokens[..len]).copied());
        let held = part.and_then(|part| self.nodes[part].page.as_ref());
        if let (Some(part), true) = (part, held.is_some_and(|held| held.state.is_none())) {
            self.remove(part);
        }
        node
    }

    /// Takes a leaf out.
    fn remove(&mut self, leaf: usize) {
        let Node { page, children } = std::mem::take(&mut self.nodes[leaf]);
        let held = page.expect("a leaf has a page");
        assert!(children.is_empty(), "a leaf has no children");
        self.free.push(leaf);
        self.leaves.remove(&(held.rank(), leaf));
        self.statistics.pages -= 1;
        self.statistics.bytes -= held.bytes;
        let parent = &mut self.nodes[held.parent];
        parent.children.remove(&held.tokens);
        if parent.children.is_empty() {
            match &parent.page {
                Some(page) => {
                    self.leaves.insert((page.rank(), held.parent));
                }
                None => self.drop_if_empty(held.parent),
            }
        }
        self.gone.push((held.page, held.state));
    }

    /// Takes a root out that has no children.
    fn drop_if_empty(&mut self, root: usize) {
        if self.nodes[root].children.is_empty() {
            self.roots.retain(|_, node| *node != root);
            self.free.push(root);
        }
    }

    /// Takes the first leaf out that may go; false if there is none.
    fn evict(&mut self, may_go: impl Fn(&Held) -> bool) -> bool {
        let goes = |leaf: &usize| self.nodes[*leaf].page.as_ref().is_some_and(&may_go);
        let leaf = self.leaves.iter().map(|(_, leaf)| *leaf).find(goes);
        if let Some(leaf) = leaf {
            self.statistics.evictions += 1;
            self.remove(leaf);
        }
        leaf.is_some()
    }
}

impl Held {
    /// Whether no sequence uses it.
    fn is_alone(&self) -> bool {
        self.page.is_alone() && self.state.as_ref().is_none_or(Shared::is_alone)
    }

    /// Whether some of its memory is on an account that `counts`.
    fn is_charged_to(&self, counts: impl Fn(&Budget) -> bool) -> bool {
        let of_state = self.state.as_ref().map(Shared::budget);
        self.page.budget().into_iter().chain(of_state).any(counts)
    }

    /// Its place among leaves.
    fn rank(&self) -> u64 {
        self.used + PATIENCE * u64::from(self.uses.ilog2())
    }
}

#[cfg(test)]
mod tests;
