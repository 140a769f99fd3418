//! The memory of a sequence: pages of keys and values.
//!
//! A page holds some tokens of all layers, one of [`PAGE_SIZES`]. For each layer and head it has a plane
//! of keys, transposed, (k_dim, tokens), so that a score's lanes are keys, and a plane of values,
//! (tokens, v_dim). A sequence is a table of pages: what it costs to rewind, share or fork it. Recurrent
//! layers keep a [`State`] instead.

mod cache;
mod prefix;
mod saved;
mod state;

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::budget::{Budget, Shared, Tag, Zero};
use crate::error::Result;
use crate::float::f16_from_f32;
use crate::kernel::{Kernels, Plane, Scaled};
use crate::quant::{Activation, GROUP};

pub use crate::kernel::{PAGE_SIZES, SPAN_TOKENS};
pub use cache::Cache;
pub use prefix::{Domain, PrefixStatistics, Prefixes, REUSE_MIN};
pub use saved::{Extent, refused};
pub use state::{SLOTS, State, StateLayout, StateShape};

/// Tokens of a page, unless the user says: the size that is fastest to attend over.
pub const PAGE_TOKENS: usize = 64;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
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
    /// Bytes of the keys of a head in a page of `tokens` tokens, and of its values.
    fn plane_bytes(self, shape: &LayerShape, tokens: usize) -> (usize, usize) {
        let bytes = |dims: usize| match self {
            Self::F16 => 2 * dims,
            Self::F32 => 4 * dims,
            Self::Q8_0 => dims + 2 * dims.div_ceil(GROUP),
        };
        (tokens * bytes(shape.k_dim), tokens * bytes(shape.v_dim))
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
    /// What it keeps of all tokens together.
    pub state: StateShape,
}

/// Where everything lies in a page.
#[derive(Debug)]
pub struct Layout {
    format: KvFormat,
    page_tokens: usize,
    /// Each layer, and the byte where it begins.
    layers: Vec<(LayerShape, usize)>,
    page_bytes: usize,
    state: Arc<StateLayout>,
}

impl Layout {
    /// The layout of pages of `page_tokens` tokens, one of [`PAGE_SIZES`], for `layers`.
    pub fn new(
        format: KvFormat,
        page_tokens: usize,
        layers: impl Iterator<Item = LayerShape>,
    ) -> Self {
        assert!(PAGE_SIZES.contains(&page_tokens), "a size of pages");
        let mut page_bytes = 0;
        let layers: Vec<_> = layers
            .map(|shape| {
                let start = page_bytes;
                let (keys, values) = format.plane_bytes(&shape, page_tokens);
                page_bytes += shape.heads * (keys + values);
                (shape, start)
            })
            .collect();
        let state = StateLayout::new(layers.iter().map(|(shape, _)| shape.state));
        Self {
            format,
            page_tokens,
            layers,
            page_bytes,
            state: Arc::new(state),
        }
    }

    /// How keys and values are stored.
    pub fn format(&self) -> KvFormat {
        self.format
    }

    /// Tokens of a page.
    pub fn page_tokens(&self) -> usize {
        self.page_tokens
    }

    /// Where everything lies in its states.
    pub fn state(&self) -> &StateLayout {
        &self.state
    }

    /// Bytes of the keys and values of a token in all layers.
    pub fn token_bytes(&self) -> usize {
        self.page_bytes / self.page_tokens
    }

    /// What a page is charged, in bytes.
    pub fn page_charge(&self) -> u64 {
        Budget::charge_of_shared::<u8>(self.page_bytes)
    }

    /// The bytes of the keys and of the values of a head.
    fn planes(&self, layer: usize, head: usize) -> (LayerShape, Range<usize>, Range<usize>) {
        let (shape, start) = self.layers[layer];
        let (keys, values) = self.format.plane_bytes(&shape, self.page_tokens);
        let start = start + head * (keys + values);
        let middle = start + keys;
        (shape, start..middle, middle..middle + values)
    }
}

/// Keys and values of consecutive positions. Clones are the same page.
#[derive(Debug, Clone)]
pub struct Page(Data);

#[derive(Debug, Clone)]
enum Data {
    /// Its table lent it to a task that writes it, or has given it up.
    Absent,
    F32(Shared<f32>),
    F16(Shared<[u8; 2]>),
    /// For each plane the integers, then the scales.
    Q8(Shared<u8>),
}

impl Page {
    fn new(layout: &Layout, budget: &Budget) -> Result<Self> {
        let bytes = layout.page_bytes;
        Ok(Self(match layout.format {
            KvFormat::F32 => Data::F32(budget.allocate_shared(Tag::Kv, bytes / 4)?),
            KvFormat::F16 => Data::F16(budget.allocate_shared(Tag::Kv, bytes / 2)?),
            KvFormat::Q8_0 => Data::Q8(budget.allocate_shared(Tag::Kv, bytes)?),
        }))
    }

    /// The place of a page that is not there.
    fn absent() -> Self {
        Self(Data::Absent)
    }

    /// Whether nobody else holds it.
    fn is_alone(&self) -> bool {
        self.owners() == 1
    }

    /// How many hold it.
    fn owners(&self) -> usize {
        match &self.0 {
            Data::Absent => 1,
            Data::F32(data) => data.owners(),
            Data::F16(data) => data.owners(),
            Data::Q8(data) => data.owners(),
        }
    }

    /// Whether both are the same page.
    fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Data::F32(a), Data::F32(b)) => a.is(b),
            (Data::F16(a), Data::F16(b)) => a.is(b),
            (Data::Q8(a), Data::Q8(b)) => a.is(b),
            _ => false,
        }
    }

    /// The account that its memory is on.
    fn budget(&self) -> Option<&Budget> {
        match &self.0 {
            Data::Absent => None,
            Data::F32(data) => Some(data.budget()),
            Data::F16(data) => Some(data.budget()),
            Data::Q8(data) => Some(data.budget()),
        }
    }

    /// A page of its own with the same content.
    fn copy(&self, budget: &Budget) -> Result<Self> {
        fn copy<T: Zero>(data: &Shared<T>, budget: &Budget) -> Result<Shared<T>> {
            let mut copy = budget.allocate_shared(Tag::Kv, data.len())?;
            own(&mut copy).copy_from_slice(data);
            Ok(copy)
        }
        Ok(Self(match &self.0 {
            Data::Absent => Data::Absent,
            Data::F32(data) => Data::F32(copy(data, budget)?),
            Data::F16(data) => Data::F16(copy(data, budget)?),
            Data::Q8(data) => Data::Q8(copy(data, budget)?),
        }))
    }

    /// Stores the key, (k_dim), and the value row, (v_dim), of one head for the token in `slot`;
    /// false if a value cannot be stored because it is not finite. Nobody else holds the page.
    pub fn store(
        &mut self,
        kernels: &Kernels,
        layout: &Layout,
        (layer, head): (usize, usize),
        slot: usize,
        (key, value): (&[f32], &[f32]),
    ) -> bool {
        let (shape, keys, values) = layout.planes(layer, head);
        let tokens = layout.page_tokens;
        match &mut self.0 {
            Data::Absent => unreachable!("a lent page is with the one who writes it"),
            Data::F32(data) => {
                let data = own(data);
                let lanes = data[keys.start / 4 + slot..].iter_mut();
                for (out, k) in lanes.step_by(tokens).zip(key) {
                    *out = *k;
                }
                data[values.start / 4 + slot * shape.v_dim..][..shape.v_dim].copy_from_slice(value);
                true
            }
            Data::F16(data) => {
                let data = own(data);
                let lanes = data[keys.start / 2 + slot..].iter_mut();
                for (out, k) in lanes.step_by(tokens).zip(key) {
                    *out = f16_from_f32(*k).to_le_bytes();
                }
                let row = &mut data[values.start / 2 + slot * shape.v_dim..];
                for (out, v) in row.iter_mut().zip(value) {
                    *out = f16_from_f32(*v).to_le_bytes();
                }
                true
            }
            Data::Q8(data) => {
                let data = own(data);
                let (bytes, scales) = data[keys].split_at_mut(tokens * shape.k_dim);
                let keys_stored = store_blocks(kernels, key, |block, i, quants| {
                    scales.as_chunks_mut().0[block * tokens + slot] = quants.0;
                    for (d, q) in (i..).zip(quants.1) {
                        bytes[d * tokens + slot] = *q as u8;
                    }
                });
                let (bytes, scales) = data[values].split_at_mut(tokens * shape.v_dim);
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

    /// The keys of a head, (k_dim, tokens), and its value rows, (tokens, v_dim).
    pub fn planes(&self, layout: &Layout, layer: usize, head: usize) -> (Plane<'_>, Plane<'_>) {
        let (shape, keys, values) = layout.planes(layer, head);
        match &self.0 {
            Data::Absent => {
                unreachable!("pages are back before anyone reads, and seen ones are kept")
            }
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
                    let (bytes, scales) = data[bytes].split_at(layout.page_tokens * dims);
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

/// The values of a page that is written.
fn own<T: Zero>(data: &mut Shared<T>) -> &mut [T] {
    let alone = data.get_mut();
    alone.expect("pages are reserved for their sequence before it writes them")
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

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(format: KvFormat, page_tokens: usize) -> Layout {
        let shape = LayerShape {
            heads: 2,
            k_dim: 3,
            v_dim: 35,
            state: StateShape::default(),
        };
        Layout::new(format, page_tokens, [shape, shape].into_iter())
    }

    #[test]
    fn what_is_stored_lies_where_the_planes_say() {
        let formats = [
            (KvFormat::F32, 0.0),
            (KvFormat::F16, 0.0),
            (KvFormat::Q8_0, 0.03),
        ];
        for (format, error) in formats {
            for tokens in PAGE_SIZES {
                what_is_stored_is_there(&layout(format, tokens), error);
            }
        }
    }

    fn what_is_stored_is_there(layout: &Layout, error: f32) {
        let kernels = crate::kernel::detect();
        let mut page = Page::new(layout, &Budget::default()).unwrap();
        let row =
            |id: f32, len: usize| -> Vec<f32> { (0..len).map(|i| id - (i % 7) as f32).collect() };
        let heads = [(0, 0), (0, 1), (1, 0), (1, 1)];
        for (layer, head) in heads {
            let id = (layer * 2 + head) as f32;
            let (key, value) = (row(id, 3), row(id + 0.5, 35));
            assert!(page.store(kernels, layout, (layer, head), 7, (&key, &value)));
        }
        let near = |a: &[f32], b: &[f32]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= error)
        };
        for (layer, head) in heads {
            let id = (layer * 2 + head) as f32;
            let (keys, values) = page.planes(layout, layer, head);
            let keys: Vec<f32> = (0..3)
                .map(|d| decoded(&keys, d, layout.page_tokens())[7])
                .collect();
            assert!(near(&keys, &row(id, 3)), "{keys:?}");
            assert!(near(&decoded(&values, 7, 35), &row(id + 0.5, 35)));
        }
    }

    fn decoded(plane: &Plane<'_>, row: usize, width: usize) -> Vec<f32> {
        let mut out = vec![0.0; width];
        plane.decode(row, width, 0, &mut out);
        out
    }

    #[test]
    fn what_is_not_finite_is_not_quantized() {
        let (layout, kernels) = (layout(KvFormat::Q8_0, 64), crate::kernel::detect());
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
}
