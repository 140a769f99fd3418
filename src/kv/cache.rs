//! The pages of one sequence, which may share them with others.
//!
//! A page that several sequences hold is never written: who goes on behind it gets a copy first
//! ([`Cache::reserve`]). So a fork costs a reference for each page, and two timelines part at the
//! first token in which they differ.

use std::ops::Range;
use std::sync::Arc;

use crate::budget::Budget;
use crate::error::{Code, Error, Result};
use crate::kv::{Layout, PAGE_TOKENS, Page, SPAN_TOKENS};

/// The pages of one sequence, from position 0 on.
#[derive(Debug)]
pub struct Cache {
    layout: Arc<Layout>,
    budget: Budget,
    pages: Vec<Page>,
    /// Tokens at the start whose pages are gone: whole spans.
    forgotten: usize,
}

impl Cache {
    /// An empty table that can hold `tokens` without growing itself; or `OUT_OF_MEMORY`.
    pub fn new(layout: Arc<Layout>, budget: Budget, tokens: usize) -> Result<Self> {
        let mut cache = Self {
            layout,
            budget,
            pages: Vec::new(),
            forgotten: 0,
        };
        cache.reserve_table(tokens)?;
        Ok(cache)
    }

    /// A sequence that begins with the same `tokens` tokens, and shares the pages that hold them; or
    /// `OUT_OF_MEMORY`.
    pub fn fork(&self, tokens: usize) -> Result<Self> {
        let mut fork = Self::new(Arc::clone(&self.layout), self.budget.clone(), tokens)?;
        let pages = tokens.div_ceil(PAGE_TOKENS);
        fork.pages.extend_from_slice(&self.pages[..pages]);
        fork.forgotten = self.forgotten;
        fork.truncate(tokens);
        Ok(fork)
    }

    /// Where everything lies in its pages.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Makes room to write `tokens`, which follow what is there or take its place: new pages, and
    /// copies of those that others hold too. On failure the sequence is as it was.
    pub fn reserve(&mut self, tokens: Range<usize>) -> Result<()> {
        let (there, wanted) = (self.pages.len(), tokens.end.div_ceil(PAGE_TOKENS));
        self.reserve_table(tokens.end)?;
        for page in &mut self.pages[(tokens.start / PAGE_TOKENS).min(there)..wanted.min(there)] {
            if !page.is_alone() {
                *page = page.copy(&self.budget)?;
            }
        }
        while self.pages.len() < wanted {
            match Page::new(&self.layout, &self.budget) {
                Ok(page) => self.pages.push(page),
                Err(error) => {
                    self.pages.truncate(there);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Room in the table for `tokens` in all; or `OUT_OF_MEMORY`.
    pub fn reserve_table(&mut self, tokens: usize) -> Result<()> {
        let pages = tokens.div_ceil(PAGE_TOKENS);
        let more = pages.saturating_sub(self.pages.len());
        self.pages.try_reserve(more).map_err(|_| {
            let message = format!("no memory for a table of {pages} pages");
            Error::new(Code::OutOfMemory, "pages", message)
        })
    }

    /// Keeps the first `tokens` tokens and gives up the pages without any; nothing, if the last of
    /// these tokens is forgotten.
    pub fn truncate(&mut self, tokens: usize) {
        if tokens < self.forgotten {
            self.forgotten = 0;
            self.pages.clear();
        }
        self.pages.truncate(tokens.div_ceil(PAGE_TOKENS));
    }

    /// Gives up the pages of the first `tokens` tokens, as far as they are whole spans: no query to
    /// come sees them.
    pub fn forget(&mut self, tokens: usize) {
        let end = tokens.min(self.pages.len() * PAGE_TOKENS) / SPAN_TOKENS * SPAN_TOKENS;
        if end > self.forgotten {
            let gone = self.forgotten / PAGE_TOKENS..end / PAGE_TOKENS;
            self.pages[gone].fill(Page::absent());
            self.forgotten = end;
        }
    }

    /// Tokens at the start whose pages are gone.
    pub fn forgotten(&self) -> usize {
        self.forgotten
    }

    /// Page number `page`.
    pub fn page(&self, page: usize) -> &Page {
        &self.pages[page]
    }

    /// Takes a page out of the table for a task that writes it; it is reserved.
    pub fn lend(&mut self, page: usize) -> Page {
        std::mem::replace(&mut self.pages[page], Page::absent())
    }

    /// Puts a lent page back.
    pub fn restore(&mut self, page: usize, data: Page) {
        self.pages[page] = data;
    }

    /// Bytes of all its pages, shared or not.
    pub fn bytes(&self) -> u64 {
        let pages = self.pages.len() - self.forgotten / PAGE_TOKENS;
        pages as u64 * self.layout.page_charge()
    }
}

#[cfg(test)]
mod tests;
