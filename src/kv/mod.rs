//! The memory of a sequence: pages of keys and values.
//!
//! A page holds [`PAGE_TOKENS`] tokens of all layers. For each layer and head it has a plane of
//! keys, transposed, (k_dim, PAGE_TOKENS), so that a score's lanes are keys, and a plane of values,
//! (PAGE_TOKENS, v_dim). A sequence is a table of pages: what it costs to rewind, share or fork it.

use std::sync::Arc;

use crate::budget::{Budget, Buffer, Tag};
use crate::error::{Code, Error, Result};
use crate::float::f16_from_f32;
use crate::kernel::Plane;

pub use crate::kernel::{PAGE_TOKENS, SPAN_TOKENS};

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvFormat {
    /// Rounded to f16: half the memory; moves logits by about 1e-3 of their size.
    #[default]
    F16,
    /// As computed: the reference.
    F32,
}

impl KvFormat {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// What one layer keeps of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerShape {
    /// Key and value heads.
    pub heads: usize,
    /// Values in a key.
    pub k_dim: usize,
    /// Values in a value row.
    pub v_dim: usize,
}

/// Where everything lies in a page.
#[derive(Debug)]
pub struct Layout {
    format: KvFormat,
    layers: Vec<(LayerShape, usize)>,
    page_values: usize,
}

impl Layout {
    /// The layout of pages for `layers`.
    pub fn new(format: KvFormat, layers: impl Iterator<Item = LayerShape>) -> Self {
        let mut page_values = 0;
        let layers = layers
            .map(|shape| {
                let start = page_values;
                page_values += shape.heads * (shape.k_dim + shape.v_dim) * PAGE_TOKENS;
                (shape, start)
            })
            .collect();
        Self {
            format,
            layers,
            page_values,
        }
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> usize {
        self.page_values * self.format.bytes()
    }

    /// Where the keys and the values of a head begin and end.
    fn planes(&self, layer: usize, head: usize) -> (LayerShape, usize, usize, usize) {
        let (shape, start) = self.layers[layer];
        let keys = start + head * (shape.k_dim + shape.v_dim) * PAGE_TOKENS;
        let values = keys + shape.k_dim * PAGE_TOKENS;
        (shape, keys, values, values + shape.v_dim * PAGE_TOKENS)
    }
}

/// Keys and values of [`PAGE_TOKENS`] consecutive positions.
#[derive(Debug)]
pub struct Page(Data);

#[derive(Debug)]
enum Data {
    /// Its table lent it to a task that writes it.
    Lent,
    F32(Buffer<f32>),
    F16(Buffer<[u8; 2]>),
}

impl Page {
    fn new(layout: &Layout, budget: &Budget) -> Result<Self> {
        Ok(Self(match layout.format {
            KvFormat::F32 => Data::F32(budget.allocate(Tag::Kv, layout.page_values)?),
            KvFormat::F16 => Data::F16(budget.allocate(Tag::Kv, layout.page_values)?),
        }))
    }

    /// Stores the key, (k_dim), and the value row, (v_dim), of one head for the token in `slot`.
    pub fn store(
        &mut self,
        layout: &Layout,
        (layer, head): (usize, usize),
        slot: usize,
        (key, value): (&[f32], &[f32]),
    ) {
        let (shape, keys, values, _) = layout.planes(layer, head);
        let value_at = values + slot * shape.v_dim;
        match &mut self.0 {
            Data::Lent => unreachable!("a lent page is with the one who writes it"),
            Data::F32(data) => {
                for (d, k) in key.iter().enumerate() {
                    data[keys + d * PAGE_TOKENS + slot] = *k;
                }
                data[value_at..][..shape.v_dim].copy_from_slice(value);
            }
            Data::F16(data) => {
                for (d, k) in key.iter().enumerate() {
                    data[keys + d * PAGE_TOKENS + slot] = f16_from_f32(*k).to_le_bytes();
                }
                for (out, v) in data[value_at..][..shape.v_dim].iter_mut().zip(value) {
                    *out = f16_from_f32(*v).to_le_bytes();
                }
            }
        }
    }

    /// The keys of a head, (k_dim, PAGE_TOKENS), and its value rows, (PAGE_TOKENS, v_dim).
    pub fn planes(&self, layout: &Layout, layer: usize, head: usize) -> (Plane<'_>, Plane<'_>) {
        let (_, keys, values, end) = layout.planes(layer, head);
        match &self.0 {
            Data::Lent => unreachable!("pages are back before anyone reads"),
            Data::F32(data) => (
                Plane::F32(&data[keys..values]),
                Plane::F32(&data[values..end]),
            ),
            Data::F16(data) => (
                Plane::F16(&data[keys..values]),
                Plane::F16(&data[values..end]),
            ),
        }
    }
}

/// The pages of one sequence, from position 0 on.
#[derive(Debug)]
pub struct Cache {
    layout: Arc<Layout>,
    budget: Budget,
    pages: Vec<Page>,
    /// Pages that a rewind gave back.
    spare: Vec<Page>,
}

impl Cache {
    /// An empty table that can hold `tokens` without growing itself; or `OUT_OF_MEMORY`.
    pub fn new(layout: Arc<Layout>, budget: Budget, tokens: usize) -> Result<Self> {
        let mut cache = Self {
            layout,
            budget,
            pages: Vec::new(),
            spare: Vec::new(),
        };
        cache.reserve_table(tokens.div_ceil(PAGE_TOKENS))?;
        Ok(cache)
    }

    /// Where everything lies in its pages.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Makes room for `tokens` tokens in all. On failure nothing has changed but spare pages.
    pub fn reserve(&mut self, tokens: usize) -> Result<()> {
        let wanted = tokens
            .div_ceil(PAGE_TOKENS)
            .saturating_sub(self.pages.len());
        self.reserve_table(wanted)?;
        while self.spare.len() < wanted {
            self.spare.push(Page::new(&self.layout, &self.budget)?);
        }
        for _ in 0..wanted {
            self.pages.extend(self.spare.pop());
        }
        Ok(())
    }

    /// Room in the tables for `more` pages.
    fn reserve_table(&mut self, more: usize) -> Result<()> {
        let pages = self.pages.try_reserve(more);
        // A rewind may turn all pages into spare ones.
        let all = self.pages.len() + more;
        let spare = self.spare.try_reserve(all.saturating_sub(self.spare.len()));
        pages.and(spare).map_err(|_| {
            let message = format!("no memory for a table of {all} pages");
            Error::new(Code::OutOfMemory, "pages", message)
        })
    }

    /// Keeps the first `tokens` tokens; pages without any become spare.
    pub fn truncate(&mut self, tokens: usize) {
        let keep = tokens.div_ceil(PAGE_TOKENS);
        while self.pages.len() > keep {
            self.spare.extend(self.pages.pop());
        }
    }

    /// Page number `page`.
    pub fn page(&self, page: usize) -> &Page {
        &self.pages[page]
    }

    /// Takes a page out of the table for a task that writes it.
    pub fn lend(&mut self, page: usize) -> Page {
        std::mem::replace(&mut self.pages[page], Page(Data::Lent))
    }

    /// Puts a lent page back.
    pub fn restore(&mut self, page: usize, data: Page) {
        self.pages[page] = data;
    }

    /// Bytes of all its pages.
    pub fn bytes(&self) -> usize {
        (self.pages.len() + self.spare.len()) * self.layout.page_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(format: KvFormat) -> Arc<Layout> {
        let shape = LayerShape {
            heads: 2,
            k_dim: 3,
            v_dim: 5,
        };
        Arc::new(Layout::new(format, [shape, shape].into_iter()))
    }

    #[test]
    fn what_is_stored_lies_where_the_planes_say() {
        for format in [KvFormat::F32, KvFormat::F16] {
            let layout = layout(format);
            let mut page = Page::new(&layout, &Budget::default()).unwrap();
            for (layer, head) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let id = (layer * 2 + head) as f32;
                let (key, value) = ([id, 1.0, 2.0], [3.0, 4.0, 5.0, 6.0, id]);
                page.store(&layout, (layer, head), 7, (&key, &value));
            }
            for (layer, head) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let id = (layer * 2 + head) as f32;
                let (keys, values) = page.planes(&layout, layer, head);
                let keys: Vec<f32> = plane(keys).chunks(PAGE_TOKENS).map(|d| d[7]).collect();
                assert_eq!(keys, [id, 1.0, 2.0]);
                assert_eq!(plane(values)[7 * 5..8 * 5], [3.0, 4.0, 5.0, 6.0, id]);
            }
        }
    }

    fn plane(plane: Plane<'_>) -> Vec<f32> {
        match plane {
            Plane::F32(plane) => plane.to_vec(),
            Plane::F16(plane) => plane
                .iter()
                .map(|h| crate::float::f16_to_f32(u16::from_le_bytes(*h)))
                .collect(),
        }
    }

    #[test]
    fn pages_are_reused_and_a_cap_leaves_the_table_whole() {
        let layout = layout(KvFormat::F16);
        let page = layout.page_bytes() as u64;
        let budget = Budget::new(Some(2 * page.next_multiple_of(64)), None);
        let mut cache = Cache::new(layout, budget.clone(), 1000).unwrap();
        cache.reserve(PAGE_TOKENS + 1).unwrap();
        assert!(cache.reserve(2 * PAGE_TOKENS + 1).is_err());
        assert_eq!(cache.pages.len(), 2);
        cache.truncate(3);
        assert_eq!((cache.pages.len(), cache.spare.len()), (1, 1));
        cache.reserve(2 * PAGE_TOKENS).unwrap();
        assert_eq!(
            (cache.pages.len(), budget.bytes()),
            (2, 2 * page.next_multiple_of(64))
        );
        drop(cache);
        assert_eq!(budget.bytes(), 0);
    }
}
