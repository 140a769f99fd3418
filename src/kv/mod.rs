//! The memory of a sequence: pages of keys and values.
//!
//! A page holds [`PAGE_TOKENS`] tokens of all layers. For each layer and head it has a plane of
//! keys, transposed, (k_dim, PAGE_TOKENS), so that a score's lanes are keys, and a plane of values,
//! (PAGE_TOKENS, v_dim). A sequence is a table of pages: what it costs to rewind, share or fork it.

use std::ops::Range;
use std::sync::Arc;

use crate::budget::{Budget, Buffer, Tag};
use crate::error::{Code, Error, Result};
use crate::float::f16_from_f32;
use crate::kernel::{Kernels, Plane, Scaled};
use crate::quant::{Activation, GROUP};

pub use crate::kernel::{PAGE_TOKENS, SPAN_TOKENS};

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvFormat {
    /// Rounded to f16: half the memory; moves logits by about 1e-3 of their size.
    #[default]
    F16,
    /// As computed: the reference.
    F32,
    /// Bytes with an f16 scale for 32 of a head's values: about a quarter of the memory of f32;
    /// moves logits by about 1e-2 of their size.
    Q8_0,
}

impl KvFormat {
    /// Bytes of the keys of a head in a page, and of its values.
    fn plane_bytes(self, shape: &LayerShape) -> (usize, usize) {
        let bytes = |dims: usize| match self {
            Self::F16 => 2 * dims,
            Self::F32 => 4 * dims,
            Self::Q8_0 => dims + 2 * dims.div_ceil(GROUP),
        };
        (
            PAGE_TOKENS * bytes(shape.k_dim),
            PAGE_TOKENS * bytes(shape.v_dim),
        )
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
    /// Each layer, and the byte where it begins.
    layers: Vec<(LayerShape, usize)>,
    page_bytes: usize,
}

impl Layout {
    /// The layout of pages for `layers`.
    pub fn new(format: KvFormat, layers: impl Iterator<Item = LayerShape>) -> Self {
        let mut page_bytes = 0;
        let layers = layers
            .map(|shape| {
                let start = page_bytes;
                let (keys, values) = format.plane_bytes(&shape);
                page_bytes += shape.heads * (keys + values);
                (shape, start)
            })
            .collect();
        Self {
            format,
            layers,
            page_bytes,
        }
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// The bytes of the keys and of the values of a head.
    fn planes(&self, layer: usize, head: usize) -> (LayerShape, Range<usize>, Range<usize>) {
        let (shape, start) = self.layers[layer];
        let (keys, values) = self.format.plane_bytes(&shape);
        let start = start + head * (keys + values);
        let middle = start + keys;
        (shape, start..middle, middle..middle + values)
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
    /// For each plane the integers, then the scales.
    Q8(Buffer<u8>),
}

impl Page {
    fn new(layout: &Layout, budget: &Budget) -> Result<Self> {
        let bytes = layout.page_bytes;
        Ok(Self(match layout.format {
            KvFormat::F32 => Data::F32(budget.allocate(Tag::Kv, bytes / 4)?),
            KvFormat::F16 => Data::F16(budget.allocate(Tag::Kv, bytes / 2)?),
            KvFormat::Q8_0 => Data::Q8(budget.allocate(Tag::Kv, bytes)?),
        }))
    }

    /// Stores the key, (k_dim), and the value row, (v_dim), of one head for the token in `slot`;
    /// false if a value cannot be stored because it is not finite.
    pub fn store(
        &mut self,
        kernels: &Kernels,
        layout: &Layout,
        (layer, head): (usize, usize),
        slot: usize,
        (key, value): (&[f32], &[f32]),
    ) -> bool {
        let (shape, keys, values) = layout.planes(layer, head);
        match &mut self.0 {
            Data::Lent => unreachable!("a lent page is with the one who writes it"),
            Data::F32(data) => {
                let lanes = data[keys.start / 4 + slot..].iter_mut();
                for (out, k) in lanes.step_by(PAGE_TOKENS).zip(key) {
                    *out = *k;
                }
                data[values.start / 4 + slot * shape.v_dim..][..shape.v_dim].copy_from_slice(value);
                true
            }
            Data::F16(data) => {
                let lanes = data[keys.start / 2 + slot..].iter_mut();
                for (out, k) in lanes.step_by(PAGE_TOKENS).zip(key) {
                    *out = f16_from_f32(*k).to_le_bytes();
                }
                let row = &mut data[values.start / 2 + slot * shape.v_dim..];
                for (out, v) in row.iter_mut().zip(value) {
                    *out = f16_from_f32(*v).to_le_bytes();
                }
                true
            }
            Data::Q8(data) => {
                let (bytes, scales) = data[keys].split_at_mut(PAGE_TOKENS * shape.k_dim);
                let keys_stored = store_blocks(kernels, key, |block, i, quants| {
                    scales.as_chunks_mut().0[block * PAGE_TOKENS + slot] = quants.0;
                    for (d, q) in (i..).zip(quants.1) {
                        bytes[d * PAGE_TOKENS + slot] = *q as u8;
                    }
                });
                let (bytes, scales) = data[values].split_at_mut(PAGE_TOKENS * shape.v_dim);
                let blocks = shape.v_dim.div_ceil(GROUP);
                keys_stored
                    & store_blocks(kernels, value, |block, i, quants| {
                        scales.as_chunks_mut().0[slot * blocks + block] = quants.0;
                        for (d, q) in (i..).zip(quants.1) {
                            bytes[slot * shape.v_dim + d] = *q as u8;
                        }
                    })
            }
        }
    }

    /// The keys of a head, (k_dim, PAGE_TOKENS), and its value rows, (PAGE_TOKENS, v_dim).
    pub fn planes(&self, layout: &Layout, layer: usize, head: usize) -> (Plane<'_>, Plane<'_>) {
        let (shape, keys, values) = layout.planes(layer, head);
        match &self.0 {
            Data::Lent => unreachable!("pages are back before anyone reads"),
            Data::F32(data) => (
                Plane::F32(&data[keys.start / 4..keys.end / 4]),
                Plane::F32(&data[values.start / 4..values.end / 4]),
            ),
            Data::F16(data) => (
                Plane::F16(&data[keys.start / 2..keys.end / 2]),
                Plane::F16(&data[values.start / 2..values.end / 2]),
            ),
            Data::Q8(data) => {
                let plane = |bytes: Range<usize>, dims: usize, rows: usize| {
                    let (bytes, scales) = data[bytes].split_at(PAGE_TOKENS * dims);
                    let scales = scales.as_chunks().0;
                    Plane::Q8(Scaled {
                        bytes,
                        scales,
                        rows,
                    })
                };
                (
                    plane(keys, shape.k_dim, GROUP),
                    plane(values, shape.v_dim, 1),
                )
            }
        }
    }
}

/// Quantizes a row as activations are, the last block perhaps shorter, the scales rounded to f16:
/// `store` gets the number of each block, its first value's, scale and integers. False if a value
/// is not finite.
fn store_blocks(
    kernels: &Kernels,
    row: &[f32],
    mut store: impl FnMut(usize, usize, ([u8; 2], &[i8])),
) -> bool {
    let mut finite = true;
    for (block, values) in row.chunks(GROUP).enumerate() {
        let mut padded = [0.0; GROUP];
        padded[..values.len()].copy_from_slice(values);
        let mut quants = [Activation::default()];
        finite &= kernels.quantize_row(&padded, &mut quants);
        let scale = f16_from_f32(quants[0].scale).to_le_bytes();
        store(block, block * GROUP, (scale, &quants[0].q[..values.len()]));
    }
    finite
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

    /// An empty table for pages of the same layout and account, as [`Cache::new`].
    pub fn another(&self, tokens: usize) -> Result<Self> {
        Self::new(Arc::clone(&self.layout), self.budget.clone(), tokens)
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
            v_dim: 35,
        };
        Arc::new(Layout::new(format, [shape, shape].into_iter()))
    }

    #[test]
    fn what_is_stored_lies_where_the_planes_say() {
        for (format, error) in [
            (KvFormat::F32, 0.0),
            (KvFormat::F16, 0.0),
            (KvFormat::Q8_0, 0.03),
        ] {
            let (layout, kernels) = (layout(format), crate::kernel::detect());
            let mut page = Page::new(&layout, &Budget::default()).unwrap();
            let row = |id: f32, len: usize| -> Vec<f32> {
                (0..len).map(|i| id - (i % 7) as f32).collect()
            };
            let heads = [(0, 0), (0, 1), (1, 0), (1, 1)];
            for (layer, head) in heads {
                let id = (layer * 2 + head) as f32;
                let (key, value) = (row(id, 3), row(id + 0.5, 35));
                assert!(page.store(kernels, &layout, (layer, head), 7, (&key, &value)));
            }
            let near = |a: &[f32], b: &[f32]| {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= error)
            };
            for (layer, head) in heads {
                let id = (layer * 2 + head) as f32;
                let (keys, values) = page.planes(&layout, layer, head);
                let keys: Vec<f32> = (0..3).map(|d| decoded(&keys, d, PAGE_TOKENS)[7]).collect();
                assert!(near(&keys, &row(id, 3)), "{keys:?}");
                assert!(near(&decoded(&values, 7, 35), &row(id + 0.5, 35)));
            }
        }
    }

    fn decoded(plane: &Plane<'_>, row: usize, width: usize) -> Vec<f32> {
        let mut out = vec![0.0; width];
        plane.decode(row, width, 0, &mut out);
        out
    }

    #[test]
    fn what_is_not_finite_is_not_quantized() {
        let (layout, kernels) = (layout(KvFormat::Q8_0), crate::kernel::detect());
        let mut page = Page::new(&layout, &Budget::default()).unwrap();
        let mut value = [1.0; 35];
        value[34] = f32::NAN;
        assert!(!page.store(kernels, &layout, (0, 0), 0, (&[1.0; 3], &value)));
        assert!(!page.store(
            kernels,
            &layout,
            (0, 0),
            0,
            (&[f32::INFINITY; 3], &[1.0; 35])
        ));
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
