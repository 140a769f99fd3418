//! The pages of one sequence, which may share them with others.
//!
//! A page that several sequences hold is never written: who goes on behind it gets a copy first
//! ([`Cache::reserve`]). So a fork costs a reference for each page, and two timelines part at the
//! first token in which they differ.

use std::ops::Range;
use std::sync::Arc;

use crate::budget::Budget;
use crate::error::{Code, Error, Result};
use crate::kv::{Layout, Page, SPAN_TOKENS, State};

/// The pages of one sequence, from position 0 on.
#[derive(Debug)]
pub struct Cache {
    pub(super) layout: Arc<Layout>,
    pub(super) budget: Budget,
    pub(super) pages: Vec<Page>,
    /// Tokens at the start whose pages are gone: whole spans.
    pub(super) forgotten: usize,
    state: State,
}

impl Cache {
    /// An empty table that can hold `tokens` without growing itself, and what recurrent layers need;
    /// or `OUT_OF_MEMORY`, `MEMORY_CAP`.
    pub fn new(layout: Arc<Layout>, budget: Budget, tokens: usize) -> Result<Self> {
        let state = State::new(Arc::clone(&layout.state), &budget)?;
        Self::with_state(layout, budget, tokens, state)
    }

    fn with_state(
        layout: Arc<Layout>,
        budget: Budget,
        tokens: usize,
        state: State,
    ) -> Result<Self> {
        let mut cache = Self {
            layout,
            budget,
            pages: Vec::new(),
            forgotten: 0,
            state,
        };
        cache.reserve_table(tokens)?;
        Ok(cache)
    }

    /// A sequence that begins with the same `tokens` tokens, and shares the pages that hold them; or
    /// `OUT_OF_MEMORY`.
    pub fn fork(&self, tokens: usize) -> Result<Self> {
        let (layout, budget) = (Arc::clone(&self.layout), self.budget.clone());
        let mut fork = Self::with_state(layout, budget, tokens, self.state.fork())?;
        let pages = self.pages_of(tokens);
        fork.pages.extend_from_slice(&self.pages[..pages]);
        fork.forgotten = self.forgotten;
        fork.truncate(tokens);
        Ok(fork)
    }

    /// Where everything lies in its pages.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Pages that hold so many tokens.
    pub(super) fn pages_of(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.layout.page_tokens)
    }

    /// Makes room to write `tokens`, which follow what is there or take its place: new pages, and
    /// copies of those that others hold too, and a place for a state. On failure the sequence is as it
    /// was, but perhaps for a state that a rewind could have gone to.
    pub fn reserve(&mut self, tokens: Range<usize>) -> Result<()> {
        let (there, wanted) = (self.pages.len(), self.pages_of(tokens.end));
        let written = self.range_written(&tokens);
        self.reserve_table(tokens.end)?;
        self.state.reserve(tokens.start)?;
        for page in &mut self.pages[written] {
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

    /// The pages that are there of those that `tokens` are written to.
    pub(super) fn written(&self, tokens: &Range<usize>) -> &[Page] {
        &self.pages[self.range_written(tokens)]
    }

    fn range_written(&self, tokens: &Range<usize>) -> Range<usize> {
        let first = tokens.start / self.layout.page_tokens;
        let pages = first..self.pages_of(tokens.end);
        let there = self.pages.len();
        pages.start.min(there)..pages.end.min(there)
    }

    /// Room in the table for `tokens` in all; or `OUT_OF_MEMORY`.
    pub fn reserve_table(&mut self, tokens: usize) -> Result<()> {
        let pages = self.pages_of(tokens);
        let more = pages.saturating_sub(self.pages.len());
        self.pages.try_reserve(more).map_err(|_| {
            let message = format!("no memory for a table of {pages} pages");
            Error::new(Code::OutOfMemory, "pages", message)
        })
    }

    /// Keeps the first `tokens` tokens and gives up the pages without any; nothing, if the last of
    /// these tokens is forgotten.
    pub fn truncate(&mut self, tokens: usize) {
        self.state.truncate(tokens);
        if tokens < self.forgotten {
            self.forgotten = 0;
            self.pages.clear();
        }
        self.pages.truncate(self.pages_of(tokens));
    }

    /// Gives up the pages of the first `tokens` tokens, as far as they are whole spans: no query to
    /// come sees them.
    pub fn forget(&mut self, tokens: usize) {
        let page = self.layout.page_tokens;
        let end = tokens.min(self.pages.len() * page) / SPAN_TOKENS * SPAN_TOKENS;
        if end > self.forgotten {
            let gone = self.forgotten / page..end / page;
            self.pages[gone].fill(Page::absent());
            self.forgotten = end;
        }
    }

    /// Tokens at the start whose pages are gone.
    pub fn forgotten(&self) -> usize {
        self.forgotten
    }

    /// What its recurrent layers keep.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The same, to be changed.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// Takes `pages` over in place of its own from number `first` on; the table has room for them.
    pub(super) fn adopt(&mut self, first: usize, pages: Vec<Page>) {
        self.pages.truncate(first);
        self.pages.extend(pages);
    }

    /// Takes a page over in place of one with the same content, which it gives back; none if that
    /// was forgotten.
    pub(super) fn replace(&mut self, page: usize, same: Page) -> Option<Page> {
        let is_held = page * self.layout.page_tokens >= self.forgotten;
        is_held.then(|| std::mem::replace(&mut self.pages[page], same))
    }

    /// Page number `page`, unless it has been forgotten.
    pub(super) fn held(&self, page: usize) -> Option<&Page> {
        (page * self.layout.page_tokens >= self.forgotten).then(|| &self.pages[page])
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

    /// Bytes of all its pages and states, shared or not.
    pub fn bytes(&self) -> u64 {
        let pages = self.pages.len() - self.forgotten / self.layout.page_tokens;
        pages as u64 * self.layout.page_charge() + self.state.bytes()
    }
}

#[cfg(test)]
pub(super) mod tests;
