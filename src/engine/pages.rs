//! The pages of sequences that run: a table for each slot, all charged to one budget. What they share
//! with others of the same model is looked up when they come, and left to it when they go.

use std::ops::Range;
use std::sync::Arc;

use super::scheduler::Memory;
use crate::budget::Budget;
use crate::error::Result;
use crate::kv::{Cache, Domain, KvFormat, Layout};
use crate::model::Model;

/// A table of pages for each slot.
#[derive(Debug)]
pub struct Pages {
    model: Arc<Model>,
    layout: Arc<Layout>,
    /// By slot.
    caches: Vec<Cache>,
}

/// What is known of a sequence.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// All its tokens.
    pub tokens: &'a [u32],
    /// With whom it shares what is evaluated.
    pub domain: Option<Domain>,
}

/// The pages, with those whose tokens they hold.
#[derive(Debug)]
pub struct Shelf<'a, F> {
    pub pages: &'a mut Pages,
    /// What is known of a job, if anything is.
    pub known: F,
}

impl Pages {
    /// Empty tables for `slots` sequences.
    pub fn new(model: &Arc<Model>, kv: KvFormat, budget: &Budget, slots: usize) -> Result<Self> {
        let layout = Arc::new(model.network()?.layout(kv));
        let cache = || Cache::new(Arc::clone(&layout), budget.clone(), 0);
        let caches = (0..slots).map(|_| model.prefixes().with_room(budget, cache));
        Ok(Self {
            caches: caches.collect::<Result<_>>()?,
            model: Arc::clone(model),
            layout,
        })
    }

    /// All tables, by slot.
    pub fn caches(&mut self) -> &mut [Cache] {
        &mut self.caches
    }

    /// Bytes of all pages.
    pub fn bytes(&self) -> u64 {
        self.caches.iter().map(Cache::bytes).sum()
    }

    /// Where everything lies in a page.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Lets others have what a slot has evaluated: whole pages, and with the last one if its sequence
    /// does not go on.
    pub fn offer(&mut self, slot: usize, known: Known<'_>, evaluated: usize, ends: bool) {
        if let Some(domain) = &known.domain {
            let (cache, tokens) = (&mut self.caches[slot], &known.tokens[..evaluated]);
            self.model.prefixes().offer(domain, tokens, ends, cache);
        }
    }

    /// Nobody will see the first `tokens` tokens of a slot any more.
    pub fn forget(&mut self, slot: usize, tokens: usize) {
        self.caches[slot].forget(tokens);
    }
}

impl<'a, F: Fn(u64) -> Option<Known<'a>>> Memory for Shelf<'_, F> {
    fn enter(&mut self, slot: usize, id: u64) -> usize {
        let Some((known, domain)) = (self.known)(id).and_then(|known| Some((known, known.domain?)))
        else {
            return 0;
        };
        let cache = &mut self.pages.caches[slot];
        let prefixes = self.pages.model.prefixes();
        prefixes.adopt(&domain, known.tokens, 0, cache)
    }

    fn reserve(&mut self, slot: usize, tokens: Range<usize>) -> Result<()> {
        let Pages { model, caches, .. } = &mut *self.pages;
        model.prefixes().reserve(&mut caches[slot], tokens)
    }

    fn release(&mut self, slot: usize, id: u64, evaluated: usize) {
        if let Some(known) = (self.known)(id) {
            self.pages.offer(slot, known, evaluated, true);
        }
        self.pages.caches[slot].truncate(0);
    }
}
