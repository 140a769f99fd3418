//! Pages and states as bytes, little-endian, as they lie in memory: whole pages, zeros behind the last
//! token.

use std::io::{self, Read, Write};

use super::{Cache, Data, KvFormat, Layout, PAGE_SIZES, Page, Prefixes, SPAN_TOKENS, own};
use crate::error::{Code, Error, Result};
use crate::quant::GROUP;

/// Values that are converted at once.
const PIECE: usize = 1024;

/// What of a sequence is saved.
#[derive(Debug, Clone, Copy)]
pub struct Extent<'a> {
    /// Tokens whose pages are there, those included that are forgotten.
    pub tokens: usize,
    /// Tokens at the start whose pages are not.
    pub forgotten: usize,
    /// Tokens of a page.
    pub page_tokens: usize,
    /// Tokens after which there are states, rising.
    pub states: &'a [usize],
}

impl Cache {
    /// Writes the pages of the first `tokens` tokens, those excepted that are forgotten, and the states
    /// after `states` tokens each, which are held.
    pub fn write_to(
        &self,
        tokens: usize,
        states: &[usize],
        out: &mut impl Write,
    ) -> io::Result<()> {
        for number in self.saved_pages(tokens) {
            let filled = tokens - number * self.layout.page_tokens;
            match filled < self.layout.page_tokens {
                true => self.page_of_first(number, filled)?.write_to(out)?,
                false => self.page(number).write_to(out)?,
            }
        }
        let shared = |&tokens: &usize| self.state().share(tokens);
        states
            .iter()
            .filter_map(shared)
            .try_for_each(|values| write_floats(&values, out))
    }

    /// A page as if it had only been written by its first `tokens` tokens: the rest may be of others
    /// that it was shared with, or of what was taken back, and is nobody's business.
    fn page_of_first(&self, number: usize, tokens: usize) -> io::Result<Page> {
        let page = Page::new(&self.layout, &self.budget.sibling(None));
        let mut page = page.map_err(io::Error::other)?;
        for slot in 0..tokens {
            let place = (&*self.layout, slot);
            page.copy_token(place, self.page(number), place);
        }
        Ok(page)
    }

    /// Bytes that [`Cache::write_to`] writes.
    pub fn written_bytes(&self, tokens: usize, states: &[usize]) -> usize {
        let state_bytes = size_of::<f32>() * self.layout.state.size();
        self.saved_pages(tokens).len() * self.layout.page_bytes + states.len() * state_bytes
    }

    fn saved_pages(&self, tokens: usize) -> std::ops::Range<usize> {
        let page_tokens = self.layout.page_tokens;
        self.forgotten() / page_tokens..tokens.div_ceil(page_tokens)
    }

    /// Reads what [`Cache::write_to`] wrote, perhaps with pages of another size. The sequence is empty
    /// before. What `prefixes` keep gives way to it.
    ///
    /// # Errors
    /// `FORMAT` if `saved` contradicts itself, or the input ends too early; `IO`, `MEMORY_CAP`,
    /// `OUT_OF_MEMORY`.
    pub fn read_from(
        &mut self,
        saved: Extent<'_>,
        prefixes: &Prefixes,
        input: &mut impl Read,
    ) -> Result<()> {
        saved.check()?;
        let Extent {
            tokens, forgotten, ..
        } = saved;
        self.reserve_table(tokens)?;
        self.forgotten = forgotten;
        let pages = forgotten / self.layout.page_tokens;
        self.pages.resize(pages, Page::absent());
        match saved.page_tokens == self.layout.page_tokens {
            true => {
                while self.pages.len() < self.pages_of(tokens) {
                    let page = self.read_page(&self.layout, prefixes, input)?;
                    self.pages.push(page);
                }
            }
            false => self.read_other_pages(saved, prefixes, input)?,
        }
        for &tokens in saved.states {
            let values = self.state_mut().receive(tokens)?;
            read_floats(values, input).map_err(|error| refused(&error))?;
        }
        Ok(())
    }

    fn read_page(
        &self,
        layout: &Layout,
        prefixes: &Prefixes,
        input: &mut impl Read,
    ) -> Result<Page> {
        let page = || Page::new(layout, &self.budget);
        let mut page = prefixes.with_room(&self.budget, page)?;
        page.read_from(input)?;
        Ok(page)
    }

    /// Reads pages of another size, and lays out anew what they hold.
    fn read_other_pages(
        &mut self,
        saved: Extent<'_>,
        prefixes: &Prefixes,
        input: &mut impl Read,
    ) -> Result<()> {
        let layers = self.layout.layers.iter().map(|(shape, _)| *shape);
        let theirs = Layout::new(self.layout.format, saved.page_tokens, layers);
        for start in (saved.forgotten..saved.tokens).step_by(saved.page_tokens) {
            let end = saved.tokens.min(start + saved.page_tokens);
            let page = self.read_page(&theirs, prefixes, input)?;
            prefixes.reserve(self, start..end)?;
            for token in start..end {
                let ours = self.layout.page_tokens;
                let from = (&theirs, token % saved.page_tokens);
                let to = (&*self.layout, token % ours);
                self.pages[token / ours].copy_token(to, &page, from);
            }
        }
        Ok(())
    }
}

impl Extent<'_> {
    fn check(&self) -> Result<()> {
        let is_forgotten = self.forgotten.is_multiple_of(SPAN_TOKENS)
            && self.forgotten <= self.tokens.saturating_sub(1);
        match is_forgotten && PAGE_SIZES.contains(&self.page_tokens) {
            true => Ok(()),
            false => {
                let message = format!("they contradict themselves: {self:?}");
                Err(Error::new(Code::Format, "saved pages", message))
            }
        }
    }
}

/// A table of a page: entries of all its tokens.
struct Table {
    /// Where it begins, in values of the page's memory.
    start: usize,
    /// Entries of a token.
    width: usize,
    /// Values of an entry.
    entry: usize,
    /// Whether the entries of a token are a column.
    is_transposed: bool,
}

impl Table {
    /// Where entry number `entry` of a token begins, in a page of `tokens` tokens.
    fn at(&self, slot: usize, entry: usize, tokens: usize) -> usize {
        let number = match self.is_transposed {
            true => entry * tokens + slot,
            false => slot * self.width + entry,
        };
        self.start + number * self.entry
    }
}

impl Layout {
    /// The tables of a page, in an order that does not depend on its size.
    fn tables(&self) -> impl Iterator<Item = Table> {
        let heads = |layer: usize| (0..self.layers[layer].0.heads).map(move |head| (layer, head));
        let all = (0..self.layers.len()).flat_map(heads);
        all.flat_map(|(layer, head)| {
            let (shape, keys, values) = self.planes(layer, head);
            let tables = |start: usize, width: usize, is_transposed| {
                let unit = match self.format {
                    KvFormat::F16 => 2,
                    KvFormat::F32 => 4,
                    KvFormat::Q8_0 => 1,
                };
                let table = |start, width, entry| Table {
                    start,
                    width,
                    entry,
                    is_transposed,
                };
                let values = table(start / unit, width, 1);
                let scales = table(start + self.page_tokens * width, width.div_ceil(GROUP), 2);
                let scales = (self.format == KvFormat::Q8_0).then_some(scales);
                std::iter::once(values).chain(scales)
            };
            let keys = tables(keys.start, shape.k_dim, true);
            keys.chain(tables(values.start, shape.v_dim, false))
        })
    }
}

impl Page {
    /// Takes over what another page holds of a token; each comes with its layout and the token's slot.
    fn copy_token(&mut self, to: (&Layout, usize), other: &Self, from: (&Layout, usize)) {
        fn copy<T: Copy>(
            (to, layout, slot): (&mut [T], &Layout, usize),
            (from, other, from_slot): (&[T], &Layout, usize),
        ) {
            for (table, theirs) in layout.tables().zip(other.tables()) {
                for entry in 0..table.width {
                    let at = table.at(slot, entry, layout.page_tokens);
                    let from_at = theirs.at(from_slot, entry, other.page_tokens);
                    to[at..at + table.entry].copy_from_slice(&from[from_at..][..table.entry]);
                }
            }
        }
        match (&mut self.0, &other.0) {
            (Data::F32(ours), Data::F32(theirs)) => {
                copy((own(ours), to.0, to.1), (&theirs[..], from.0, from.1));
            }
            (Data::F16(ours), Data::F16(theirs)) => {
                copy((own(ours), to.0, to.1), (&theirs[..], from.0, from.1));
            }
            (Data::Q8(ours), Data::Q8(theirs)) => {
                copy((own(ours), to.0, to.1), (&theirs[..], from.0, from.1));
            }
            _ => unreachable!("both are there and of one format"),
        }
    }

    fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        match &self.0 {
            Data::Absent => Ok(()),
            Data::F16(data) => out.write_all(data.as_flattened()),
            Data::Q8(data) => out.write_all(data),
            Data::F32(data) => write_floats(data, out),
        }
    }

    fn read_from(&mut self, input: &mut impl Read) -> Result<()> {
        let read = match &mut self.0 {
            Data::Absent => Ok(()),
            Data::F16(data) => input.read_exact(own(data).as_flattened_mut()),
            Data::Q8(data) => input.read_exact(own(data)),
            Data::F32(data) => read_floats(own(data), input),
        };
        read.map_err(|error| refused(&error))
    }
}

fn write_floats(values: &[f32], out: &mut impl Write) -> io::Result<()> {
    values.chunks(PIECE).try_for_each(|values| {
        let mut piece = [[0; 4]; PIECE];
        for (bytes, value) in piece.iter_mut().zip(values) {
            *bytes = value.to_le_bytes();
        }
        out.write_all(piece[..values.len()].as_flattened())
    })
}

fn read_floats(values: &mut [f32], input: &mut impl Read) -> io::Result<()> {
    values.chunks_mut(PIECE).try_for_each(|values| {
        let mut piece = [[0; 4]; PIECE];
        input.read_exact(piece[..values.len()].as_flattened_mut())?;
        for (value, bytes) in values.iter_mut().zip(piece) {
            *value = f32::from_le_bytes(bytes);
        }
        Ok(())
    })
}

/// What a reader or writer of saved bytes says.
pub fn refused(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Error::new(Code::Format, "saved session", "it ends too early")
        }
        _ => Error::new(Code::Io, "saved session", error.to_string()),
    }
}
