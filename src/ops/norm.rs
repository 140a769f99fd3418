//! Norms of rows and of the heads in them.

use std::ops::Range;

use crate::budget::Buffer;
use crate::kernel::Kernels;

/// Kinds of norms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// By the mean square.
    Rms,
    /// By mean and deviation.
    Layer,
}

/// A norm with its weights.
#[derive(Debug)]
pub struct Norm {
    /// Its kind.
    pub kind: NormKind,
    /// Added to the mean square.
    pub epsilon: f32,
    /// Factors behind it: those of a row, or of some rows one after the other.
    pub weight: Buffer<f32>,
    /// What is added then, as long as the weights.
    pub bias: Option<Buffer<f32>>,
}

/// A norm of parts of a row.
#[derive(Debug)]
pub struct HeadNorm {
    /// Its weights are those of a part, or of all parts.
    pub norm: Norm,
    /// Width of a part.
    pub width: usize,
}

impl Norm {
    /// Norms a row in place; false if it is not finite.
    pub fn apply(&self, kernels: &Kernels, x: &mut [f32]) -> bool {
        self.apply_with(kernels, 0..self.weight.len(), x)
    }

    /// The same with some of the weights.
    fn apply_with(&self, kernels: &Kernels, weights: Range<usize>, x: &mut [f32]) -> bool {
        let weight = &self.weight[weights.clone()];
        let finite = match self.kind {
            NormKind::Rms => kernels.rms_norm(x, weight, self.epsilon),
            NormKind::Layer => kernels.layer_norm(x, weight, self.epsilon),
        };
        if let Some(bias) = &self.bias {
            kernels.add(x, &bias[weights]);
        }
        finite
    }
}

impl HeadNorm {
    /// Norms each part of a row in place; false if it is not finite.
    pub fn apply(&self, kernels: &Kernels, x: &mut [f32]) -> bool {
        let parts = x.chunks_exact_mut(self.width).enumerate();
        parts.fold(true, |finite, (i, part)| {
            let start = i * self.width % self.norm.weight.len();
            let weights = start..start + self.width;
            finite & self.norm.apply_with(kernels, weights, part)
        })
    }
}
