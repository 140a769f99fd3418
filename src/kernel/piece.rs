//! Pieces of pages as register tiles read them: as they are stored, or decoded to f32. A piece of keys
//! is a whole page, or several side by side.

use std::ops::Range;

use crate::quant::GROUP;

use super::simd::Simd;
use super::{Plane, Scaled, lanes};

/// Rows and columns of a piece, at most: as many as a large page has tokens.
pub(super) const PIECE: usize = 64;

/// Blocks of 32 dimensions in a piece.
const BLOCKS: usize = PIECE / GROUP;

/// Rows of lanes, `stride` apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lanes<'a, E> {
    pub values: &'a [E],
    pub stride: usize,
}

impl<E> Lanes<'_, E> {
    #[inline(always)]
    pub fn from(self, at: usize) -> Self {
        Self {
            values: self.values.get(at..).unwrap_or(&[]),
            ..self
        }
    }
}

/// A part of a plane that tiles can read.
pub(super) enum Piece<'a> {
    Decoded(Lanes<'a, f32>),
    Halves(Lanes<'a, [u8; 2]>),
}

impl<'a> Piece<'a> {
    /// Some dimensions of the keys of pages of `tokens` tokens, which make up a piece: (dimensions,
    /// PIECE).
    #[inline(always)]
    pub fn of_keys<V: Simd>(
        v: V,
        (pages, tokens): (&[(Plane<'a>, Plane<'a>)], usize),
        dims: Range<usize>,
        reads: bool,
        room: &'a mut [f32],
    ) -> Self {
        if tokens == PIECE {
            return Self::new(v, pages[0].0, dims, (PIECE, 0..PIECE), reads, room);
        }
        for (page, (keys, _)) in pages.iter().enumerate() {
            let part = Part {
                rows: dims.clone(),
                width: tokens,
                columns: 0..tokens,
            };
            part.decode::<V, 0>(v, keys, PIECE, page * tokens, room);
        }
        Self::Decoded(Lanes {
            values: room,
            stride: PIECE,
        })
    }

    /// Some rows and columns of a plane whose rows have `width` values, decoded to `room` unless
    /// they can be read as they are, which `reads` asks for where there is a choice.
    #[inline(always)]
    pub fn new<V: Simd>(
        v: V,
        plane: Plane<'a>,
        rows: Range<usize>,
        (width, columns): (usize, Range<usize>),
        reads: bool,
        room: &'a mut [f32],
    ) -> Self {
        let first = rows.start * width + columns.start;
        let stride = columns.len().next_multiple_of(V::LANES);
        match plane {
            Plane::F32(values) if stride == columns.len() => {
                let values = &values[first..];
                return Self::Decoded(Lanes {
                    values,
                    stride: width,
                });
            }
            Plane::F16(values) if reads => {
                let values = &values[first..];
                return Self::Halves(Lanes {
                    values,
                    stride: width,
                });
            }
            _ => {}
        }
        let part = Part {
            rows,
            width,
            columns,
        };
        // Most pieces are whole, and loops of a known length faster.
        match part.columns.len() {
            PIECE => part.decode::<V, PIECE>(v, &plane, stride, 0, room),
            _ => part.decode::<V, 0>(v, &plane, stride, 0, room),
        }
        Self::Decoded(Lanes {
            values: room,
            stride,
        })
    }
}

/// Some rows and columns of a plane whose rows have `width` values.
struct Part {
    rows: Range<usize>,
    width: usize,
    columns: Range<usize>,
}

impl Part {
    /// Decodes row by row to `room`, from column `first` of its rows of `stride` on; zeros make up
    /// whole vectors. `LEN` is the number of columns, if not 0.
    #[inline(always)]
    fn decode<V: Simd, const LEN: usize>(
        &self,
        v: V,
        plane: &Plane<'_>,
        stride: usize,
        first: usize,
        room: &mut [f32],
    ) {
        let len = if LEN > 0 { LEN } else { self.columns.len() };
        let out = room.chunks_exact_mut(stride).map(|row| &mut row[first..]);
        let start = |row: usize| row * self.width + self.columns.start;
        match plane {
            Plane::F32(values) => {
                for (row, out) in self.rows.clone().zip(out) {
                    decode(v, &values[start(row)..][..len], out);
                }
            }
            Plane::F16(values) => {
                for (row, out) in self.rows.clone().zip(out) {
                    decode(v, &values[start(row)..][..len], out);
                }
            }
            Plane::Q8(plane) if plane.rows == 1 => {
                let (scales, blocks) = (self.value_scales(v, plane), len.div_ceil(GROUP));
                for (i, out) in (0..self.rows.len()).zip(out) {
                    let bytes = &plane.bytes[start(self.rows.start + i)..][..len];
                    for block in 0..blocks {
                        let scale = Scales::One(v.splat_float(scales[i * BLOCKS + block]));
                        let (from, to) = (block * GROUP, len.min((block + 1) * GROUP));
                        scale.apply(v, &bytes[from..to], &mut out[from..]);
                    }
                }
            }
            Plane::Q8(plane) => {
                let mut scales = [0.0; PIECE];
                for (row, out) in self.rows.clone().zip(out) {
                    if row == self.rows.start || row % plane.rows == 0 {
                        let halves = plane.scales(row, self.width, self.columns.start);
                        decode(v, &halves[..len], &mut scales);
                    }
                    Scales::Each(&scales).apply(v, &plane.bytes[start(row)..][..len], out);
                }
            }
        }
    }

    /// The scales of the blocks of each row: (rows, BLOCKS).
    #[inline(always)]
    fn value_scales<V: Simd>(&self, v: V, plane: &Scaled<'_>) -> [f32; BLOCKS * PIECE] {
        let blocks = self.columns.len().div_ceil(GROUP);
        let mut halves = [[0; 2]; BLOCKS * PIECE];
        for (i, row) in self.rows.clone().enumerate() {
            let scales = plane.scales(row, self.width, self.columns.start);
            for block in 0..blocks {
                halves[i * BLOCKS + block] = scales[block];
            }
        }
        let mut scales = [0.0; BLOCKS * PIECE];
        decode(v, &halves, &mut scales);
        scales
    }
}

/// What bytes are multiplied with.
enum Scales<'a, V: Simd> {
    One(V::Float),
    Each(&'a [f32; PIECE]),
}

impl<V: Simd> Scales<'_, V> {
    #[inline(always)]
    fn from(&self, v: V, at: usize) -> V::Float {
        match self {
            Self::One(scale) => *scale,
            Self::Each(scales) => v.load(&scales[at..]),
        }
    }

    /// Each byte times its scale; zeros make up whole vectors.
    #[inline(always)]
    fn apply(&self, v: V, bytes: &[u8], out: &mut [f32]) {
        let len = bytes.len() - bytes.len() % V::LANES;
        for at in (0..len).step_by(V::LANES) {
            let values = v.load_i8(&bytes[at..]);
            v.store(v.mul(values, self.from(v, at)), &mut out[at..]);
        }
        if len < bytes.len() {
            let mut lanes = [0; lanes::LANES];
            lanes[..bytes.len() - len].copy_from_slice(&bytes[len..]);
            v.store(v.mul(v.load_i8(&lanes), self.from(v, len)), &mut out[len..]);
        }
    }
}

/// Decodes a row; zeros make up whole vectors.
#[inline(always)]
fn decode<V: Simd, E: Load>(v: V, row: &[E], out: &mut [f32]) {
    let (whole, rest) = row.split_at(row.len() - row.len() % V::LANES);
    for (row, out) in whole
        .chunks_exact(V::LANES)
        .zip(out.chunks_exact_mut(V::LANES))
    {
        v.store(E::load(v, row), out);
    }
    if !rest.is_empty() {
        let mut lanes = [E::ZERO; lanes::LANES];
        lanes[..rest.len()].copy_from_slice(rest);
        v.store(E::load(v, &lanes), &mut out[whole.len()..]);
    }
}

/// What a tile can load.
pub(super) trait Load: Copy {
    const ZERO: Self;
    /// Whether it is what pages are decoded to.
    const DECODED: bool;
    fn load<V: Simd>(v: V, values: &[Self]) -> V::Float;
}

impl Load for f32 {
    const ZERO: Self = 0.0;
    const DECODED: bool = true;

    #[inline(always)]
    fn load<V: Simd>(v: V, values: &[Self]) -> V::Float {
        v.load(values)
    }
}

impl Load for [u8; 2] {
    const ZERO: Self = [0; 2];
    const DECODED: bool = false;

    #[inline(always)]
    fn load<V: Simd>(v: V, values: &[Self]) -> V::Float {
        v.load_f16(values)
    }
}

/// A vector of values, zeros where there are none.
#[inline(always)]
pub(super) fn load_some<V: Simd>(v: V, values: &[f32]) -> V::Float {
    if values.len() >= V::LANES {
        return v.load(values);
    }
    let mut lanes = [0.0; lanes::LANES];
    lanes[..values.len()].copy_from_slice(values);
    v.load(&lanes)
}

/// As many lanes as there is room for.
#[inline(always)]
pub(super) fn store_some<V: Simd>(v: V, a: V::Float, out: &mut [f32]) {
    if out.len() >= V::LANES {
        return v.store(a, out);
    }
    let mut lanes = [0.0; lanes::LANES];
    v.store(a, &mut lanes);
    out.copy_from_slice(&lanes[..out.len()]);
}
