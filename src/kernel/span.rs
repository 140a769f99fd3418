//! What attention to the keys of one span works with: queries, pages, and how products become scores.

use std::ops::Range;

use crate::quant::GROUP;

use super::{Plane, elementwise, lanes};

/// Tokens in a span, by absolute position: attention is a softmax for each span, then a join
/// (`docs/numerics.md`), so the way a context is cut over pages, calls or threads does not show.
pub const SPAN_TOKENS: usize = 256;

/// Tokens that pages may have: parts of a piece, of which a span has several.
pub const PAGE_SIZES: [usize; 3] = [16, 32, 64];

/// Floats of the result of a query: the values weighted, (v_dim), the largest score, the sum of the
/// weights; then what aligns the next.
pub fn result_len(v_dim: usize) -> usize {
    (v_dim + 2).next_multiple_of(lanes::LANES)
}

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Window {
    /// All up to its own.
    #[default]
    All,
    /// The nearest so many, its own included.
    Sliding(usize),
    /// Those of its own chunk: chunks of so many follow each other from position 0 on.
    Chunked(usize),
    /// All of its sequence, those behind it too.
    Both,
    /// Those of its sequence that are at most so many positions away, before and behind it.
    Around(usize),
}

impl Window {
    /// The most keys that a query sees.
    pub fn keys(self) -> usize {
        match self {
            Self::All | Self::Both => usize::MAX,
            Self::Sliding(keys) | Self::Chunked(keys) => keys,
            Self::Around(reach) => reach.saturating_mul(2).saturating_add(1),
        }
    }

    /// The first position that a query at `position` sees.
    #[inline(always)]
    pub fn first(self, position: usize) -> usize {
        match self {
            Self::All | Self::Both => 0,
            Self::Sliding(keys) => (position + 1).saturating_sub(keys),
            Self::Chunked(keys) => position - position % keys,
            Self::Around(reach) => position.saturating_sub(reach),
        }
    }

    /// The end of what a query at `position` sees in a sequence of `tokens`.
    #[inline(always)]
    pub fn end(self, position: usize, tokens: usize) -> usize {
        match self {
            Self::All | Self::Sliding(_) | Self::Chunked(_) => position + 1,
            Self::Both => tokens,
            Self::Around(reach) => tokens.min(position.saturating_add(reach).saturating_add(1)),
        }
    }

    /// Whether a query sees nothing behind itself.
    pub fn is_causal(self) -> bool {
        matches!(self, Self::All | Self::Sliding(_) | Self::Chunked(_))
    }
}

/// What becomes of the product of a query and a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scoring {
    /// It is multiplied with this.
    pub scale: f32,
    /// Then `cap * tanh(score / cap)` takes its place, unless the cap is 0.
    pub softcap: f32,
    /// Keys outside are skipped.
    pub window: Window,
}

/// Query heads of consecutive positions, and the keys and values of a span.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// (rows, stride), of which the first `heads * k_dim` count.
    pub queries: &'a [f32],
    /// Distance between rows of queries.
    pub stride: usize,
    /// Query heads of a row; all of them see the same keys.
    pub heads: usize,
    /// Values in a query and a key.
    pub k_dim: usize,
    /// Values in a value row.
    pub v_dim: usize,
    /// Tokens of a page: one of [`PAGE_SIZES`].
    pub page_tokens: usize,
    /// Keys, (k_dim, page_tokens), and values, (page_tokens, v_dim), of the span's pages, as many
    /// as the last row sees.
    pub pages: &'a [(Plane<'a>, Plane<'a>)],
    /// Keys from the beginning of the span up to that of the first row, its own included; each row
    /// has one more than the row before it.
    pub seen: isize,
    /// Position of the span's first key.
    pub start: usize,
    /// Keys of the sequence; windows that end with a row's own key do not ask.
    pub tokens: usize,
    /// How products become scores, and which keys are seen at all.
    pub scoring: Scoring,
    /// What is added to the scores of each head, times the distance between query and key as a
    /// negative number: (heads) or none.
    pub slopes: &'a [f32],
}

impl Attention<'_> {
    /// Whether the sizes fit an output of so many rows and columns.
    pub(super) fn check(&self, rows: usize, columns: usize) {
        let width = self.heads * self.k_dim;
        assert!(rows > 0 && self.heads > 0, "there are queries");
        assert_eq!(
            columns,
            self.heads * result_len(self.v_dim),
            "a result a head"
        );
        assert!(width <= self.stride, "the stride holds a row");
        assert!(
            self.queries.len() >= (rows - 1) * self.stride + width,
            "as many rows"
        );
        assert!(
            self.slopes.is_empty() || self.slopes.len() >= self.heads,
            "a slope a head"
        );
        let (seen, page_tokens) = (self.seen(rows - 1), self.page_tokens);
        assert!(PAGE_SIZES.contains(&page_tokens), "a size of pages");
        assert!(
            self.pages.len() >= seen.div_ceil(page_tokens),
            "what is seen"
        );
        for (keys, values) in self.pages {
            if let (Plane::Q8(keys), Plane::Q8(values)) = (keys, values) {
                let (k, v) = (self.k_dim.div_ceil(GROUP), self.v_dim.div_ceil(GROUP));
                assert_eq!((keys.rows, values.rows), (GROUP, 1), "blocks of dimensions");
                assert_eq!(keys.scales.len(), k * page_tokens, "scales of keys");
                assert_eq!(values.scales.len(), v * page_tokens, "scales of values");
            }
            assert_eq!(keys.len(), self.k_dim * page_tokens, "a page of keys");
            assert_eq!(values.len(), self.v_dim * page_tokens, "a page of values");
        }
    }

    /// Keys of the span up to the last that `row` sees.
    #[inline(always)]
    fn seen(&self, row: usize) -> usize {
        let own = self.seen + row as isize;
        let rest = self.tokens as isize - self.start as isize;
        let seen = match self.scoring.window {
            Window::All | Window::Sliding(_) | Window::Chunked(_) => own,
            Window::Both => rest,
            Window::Around(reach) => rest.min(own.saturating_add_unsigned(reach)),
        };
        seen.clamp(0, SPAN_TOKENS as isize) as usize
    }

    /// The position of `row`.
    #[inline(always)]
    fn position(&self, row: usize) -> usize {
        (self.start as isize + self.seen + row as isize - 1) as usize
    }

    /// Keys of the span that `row` sees; it is one of [`Attention::rows`].
    #[inline(always)]
    pub(super) fn keys(&self, row: usize) -> Range<usize> {
        let first = match self.scoring.window {
            Window::All | Window::Both => 0,
            window => window.first(self.position(row)).saturating_sub(self.start),
        };
        first..self.seen(row)
    }

    /// Those of so many rows that see a key.
    #[inline(always)]
    pub(super) fn rows(&self, rows: usize) -> Range<usize> {
        let first = (0..rows).take_while(|row| self.seen(*row) == 0).count();
        let sees = |row: &usize| self.keys(*row).start < SPAN_TOKENS;
        match self.scoring.window {
            Window::All | Window::Both => first..rows,
            // A window only moves on.
            _ => first..first + (first..rows).take_while(sees).count(),
        }
    }

    /// Turns products of query `head` of `row`, whose lanes begin with that of its first key, into
    /// scores.
    #[inline(always)]
    pub(super) fn shape(&self, row: usize, head: usize, products: &mut [[f32; lanes::LANES]]) {
        let Scoring { scale, softcap, .. } = self.scoring;
        let products = products.as_flattened_mut();
        elementwise::scale(products, scale);
        if softcap > 0.0 {
            elementwise::softcap(products, softcap);
        }
        if let Some(slope) = self.slopes.get(head) {
            let base = self.keys(row).start / lanes::LANES * lanes::LANES;
            let distance = (self.start + base) as f32 - self.position(row) as f32;
            for (i, score) in products.iter_mut().enumerate() {
                let distance = distance + i as f32;
                *score += slope * if distance > 0.0 { -distance } else { distance };
            }
        }
    }

    /// Whether products only need their factor.
    #[inline(always)]
    pub(super) fn is_plain(&self) -> bool {
        self.scoring.softcap == 0.0 && self.slopes.is_empty()
    }

    /// Whether the pages can only be read decoded.
    pub(super) fn is_quantized(&self) -> bool {
        matches!(self.pages, [(Plane::Q8(_), _), ..])
    }

    /// Query `head` of `row`.
    #[inline(always)]
    pub(super) fn query(&self, row: usize, head: usize) -> &[f32] {
        &self.queries[row * self.stride + head * self.k_dim..][..self.k_dim]
    }

    /// The result of query head `head` in a row of the output: the values weighted, (v_dim), and
    /// the largest score and the sum of the weights.
    #[inline(always)]
    pub(super) fn result<'o>(
        &self,
        row: &'o mut [f32],
        head: usize,
    ) -> (&'o mut [f32], &'o mut [f32; 2]) {
        let (values, rest) = row[head * result_len(self.v_dim)..].split_at_mut(self.v_dim);
        (values, rest.first_chunk_mut().expect("as long as a result"))
    }
}
