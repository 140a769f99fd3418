//! The pages of sequences that run: a table for each slot, all charged to one budget.

use std::sync::Arc;

use super::scheduler::Memory;
use crate::budget::Budget;
use crate::error::Result;
use crate::kv::{Cache, KvFormat, Layout};
use crate::model::Model;

/// A table of pages for each slot.
#[derive(Debug)]
pub struct Pages {
    model: Arc<Model>,
    budget: Budget,
    page_charge: u64,
    /// By slot.
    caches: Vec<Cache>,
}

impl Pages {
    /// Empty tables for `slots` sequences.
    pub fn new(model: &Arc<Model>, kv: KvFormat, budget: &Budget, slots: usize) -> Result<Self> {
        let layout = Arc::new(Layout::new(kv, model.network()?.spec.layer_shapes()));
        let cache = || Cache::new(Arc::clone(&layout), budget.clone(), 0);
        let caches = (0..slots).map(|_| model.prefixes().with_room(budget, cache));
        Ok(Self {
            caches: caches.collect::<Result<_>>()?,
            model: Arc::clone(model),
            budget: budget.clone(),
            page_charge: layout.page_charge(),
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

    /// Bytes that a page is charged.
    pub fn page_charge(&self) -> u64 {
        self.page_charge
    }

    /// Nobody will see the first `tokens` tokens of a slot any more.
    pub fn forget(&mut self, slot: usize, tokens: usize) {
        self.caches[slot].forget(tokens);
    }
}

impl Memory for Pages {
    fn reserve(&mut self, slot: usize, tokens: usize) -> Result<()> {
        let cache = &mut self.caches[slot];
        // Nobody else has the pages that are there: none has to be copied.
        let reserve = || cache.reserve(tokens..tokens);
        self.model.prefixes().with_room(&self.budget, reserve)
    }

    fn release(&mut self, slot: usize) {
        self.caches[slot].truncate(0);
    }
}
