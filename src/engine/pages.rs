//! The pages of sequences that run: a table for each slot, all charged to one budget.

use std::sync::Arc;

use super::scheduler::Memory;
use crate::budget::Budget;
use crate::error::Result;
use crate::kv::{Cache, KvFormat, Layout};
use crate::model::Spec;

/// A table of pages for each slot.
#[derive(Debug)]
pub struct Pages {
    layout: Arc<Layout>,
    budget: Budget,
    /// By slot.
    caches: Vec<Cache>,
    /// Slots whose pages nobody needs: they are for who comes next, until they are short elsewhere.
    idle: Vec<bool>,
}

impl Pages {
    /// Empty tables for `slots` sequences.
    pub fn new(spec: &Spec, kv: KvFormat, budget: Budget, slots: usize) -> Result<Self> {
        let layout = Arc::new(Layout::new(kv, spec.layer_shapes()));
        let cache = |_| Cache::new(Arc::clone(&layout), budget.clone(), 0);
        let caches = (0..slots).map(cache).collect::<Result<_>>()?;
        Ok(Self {
            layout,
            budget,
            caches,
            idle: vec![true; slots],
        })
    }

    /// All tables, by slot.
    pub fn caches(&mut self) -> &mut [Cache] {
        &mut self.caches
    }

    /// Bytes of all pages.
    pub fn bytes(&self) -> u64 {
        self.caches.iter().map(|cache| cache.bytes()).sum()
    }

    /// Bytes that a page is charged.
    pub fn page_charge(&self) -> u64 {
        self.layout.page_charge()
    }

    /// Gives the pages of idle slots back, but for slot `except`; whether there were any.
    fn reclaim(&mut self, except: usize) -> Result<bool> {
        let mut found = false;
        for (slot, cache) in self.caches.iter_mut().enumerate() {
            if self.idle[slot] && slot != except && cache.bytes() > 0 {
                *cache = Cache::new(Arc::clone(&self.layout), self.budget.clone(), 0)?;
                found = true;
            }
        }
        Ok(found)
    }
}

impl Memory for Pages {
    fn reserve(&mut self, slot: usize, tokens: usize) -> Result<()> {
        self.idle[slot] = false;
        let Err(error) = self.caches[slot].reserve(0..tokens) else {
            return Ok(());
        };
        match self.reclaim(slot)? {
            true => self.caches[slot].reserve(0..tokens),
            false => Err(error),
        }
    }

    fn release(&mut self, slot: usize) {
        self.idle[slot] = true;
        self.caches[slot].truncate(0);
    }
}
