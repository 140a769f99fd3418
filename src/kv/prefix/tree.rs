//! The tree of pages: what is found in it, what is added, and what goes first.
//!
//! A node has a page and the tokens in it; its children are the pages that followed. They stand in
//! the order of their tokens, so the one that has most in common with a prompt is a neighbour of the
//! prompt's own place. Tokens are compared with tokens: nothing is hashed, nothing can collide.
//!
//! Only leaves are given up, the least recently used first; every doubling of a page's uses counts
//! like a later use ([`PATIENCE`]).

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::ops::{Bound, Range};
use std::sync::Arc;

use crate::budget::{Budget, Shared};
use crate::kv::{Cache, Page};

use super::{Domain, PrefixStatistics, REUSE_MIN};

/// Calls that go by before a page loses its place to one that was used half as often.
const PATIENCE: u64 = 32;

#[derive(Debug, Default)]
pub struct Tree {
    pub roots: BTreeMap<Domain, usize>,
    /// (nodes), those of `free` not in use.
    pub nodes: Vec<Node>,
    pub free: Vec<usize>,
    /// Nodes without children, the first to go first.
    pub leaves: BTreeSet<(u64, usize)>,
    /// Pages and states that were given up, to be dropped without the lock.
    pub gone: Vec<(Page, Option<Shared<f32>>)>,
    /// Calls so far.
    pub now: u64,
    pub statistics: PrefixStatistics,
}

#[derive(Debug, Default)]
pub struct Node {
    /// `None` in roots.
    pub page: Option<Held>,
    pub children: BTreeMap<Arc<[u32]>, usize>,
}

/// A page in the tree.
#[derive(Debug)]
pub struct Held {
    pub page: Page,
    /// The state after its tokens.
    pub state: Option<Shared<f32>>,
    pub bytes: u64,
    /// Its tokens; fewer than a page has room for in leaves only.
    pub tokens: Arc<[u32]>,
    pub parent: usize,
    /// The last call that used it.
    pub used: u64,
    pub uses: u64,
}

impl Tree {
    /// The nodes whose pages, of `page` tokens, begin as `tokens` do, and how many that makes.
    pub fn find(&self, domain: &Domain, tokens: &[u32], page: usize) -> (Vec<usize>, usize) {
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
    pub fn find_state(&self, domain: &Domain, tokens: &[u32], page: usize) -> (Vec<usize>, usize) {
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
    pub fn covers(&self, node: usize, tokens: &[u32]) -> bool {
        let from = (Bound::Included(tokens), Bound::Unbounded);
        let mut children = self.nodes[node].children.range::<[u32], _>(from);
        children
            .next()
            .is_some_and(|(child, _)| child.starts_with(tokens))
    }

    /// Marks a node as used, so many times more; its page.
    pub fn touch(&mut self, node: usize, uses: u64) -> Page {
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
    pub fn root(&mut self, domain: &Domain) -> usize {
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
    pub fn add_state(&mut self, node: usize, state: Shared<f32>, bytes: u64) {
        let held = self.nodes[node].page.as_mut();
        let held = held.expect("only roots have no page");
        if held.state.is_none() {
            held.state = Some(state);
            held.bytes += bytes;
            self.statistics.bytes += bytes;
        }
    }

    /// Adds a child, which takes the place of one that is a part of it and has no state.
    pub fn add(&mut self, parent: usize, tokens: &[u32], page: Page, bytes: u64) -> usize {
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
    pub fn drop_if_empty(&mut self, root: usize) {
        if self.nodes[root].children.is_empty() {
            self.roots.retain(|_, node| *node != root);
            self.free.push(root);
        }
    }

    /// Takes the first leaf out that may go; false if there is none.
    pub fn evict(&mut self, may_go: impl Fn(&Self, usize) -> bool) -> bool {
        let mut leaves = self.leaves.iter().map(|(_, leaf)| *leaf);
        let leaf = leaves.find(|&leaf| may_go(self, leaf));
        if let Some(leaf) = leaf {
            self.statistics.evictions += 1;
            self.remove(leaf);
        }
        leaf.is_some()
    }

    /// The page of a node, and those before it, up to the first.
    pub fn line(&self, node: usize) -> impl Iterator<Item = &Held> {
        let page = move |node: usize| self.nodes[node].page.as_ref();
        iter::successors(page(node), move |held| page(held.parent))
    }
}

impl Held {
    /// Whether giving it up would give memory back to an account that `counts`: nobody else holds its
    /// page, or its state.
    pub fn frees(&self, counts: impl Fn(&Budget) -> bool) -> bool {
        let page = Some(&self.page).filter(|page| page.owners() == 1);
        let state = self.state.as_ref().filter(|state| state.is_alone());
        let accounts = page.and_then(Page::budget).into_iter();
        accounts.chain(state.map(Shared::budget)).any(counts)
    }

    /// Whether `cache`, before it writes `tokens`, needs memory for no other reason than that a page or
    /// state of its own is held here too. What it took over is charged to others, and none of its own.
    pub fn is_in_the_way(&self, cache: &Cache, tokens: &Range<usize>) -> bool {
        let is_own = |account: &Budget| account.is(&cache.budget);
        let mut written = cache.written(tokens).iter();
        let state = cache.state().written(tokens.start);
        let is_page = |page: &Page| page.is(&self.page) && page.budget().is_some_and(is_own);
        self.page.owners() == 2 && written.any(is_page)
            || state
                .zip(self.state.as_ref())
                .is_some_and(|(a, b)| a.is(b) && b.owners() == 2 && is_own(b.budget()))
    }

    /// Its place among leaves.
    pub fn rank(&self) -> u64 {
        self.used + PATIENCE * u64::from(self.uses.ilog2())
    }
}
