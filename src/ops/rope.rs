//! Rotary position embedding: the angles of each pair of dimensions at a position.
//!
//! Sources: Su et al., "RoFormer", 2021; linear scaling: Chen et al., "Extending Context Window of
//! Large Language Models via Positional Interpolation", 2023; Peng et al., "YaRN: Efficient Context
//! Window Extension of Large Language Models", 2023; factors by context: Ding et al., "LongRoPE", 2024.

use crate::float;

/// How angles change for contexts longer than the model was first trained for.
#[derive(Debug, Clone, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// Positions are divided by a factor.
    Linear(f64),
    /// Low frequencies are interpolated, high ones kept.
    Yarn(Yarn),
}

/// The parameters of YaRN.
#[derive(Debug, Clone, PartialEq)]
pub struct Yarn {
    /// How much longer the context has become.
    pub factor: f64,
    /// The context that the model was first trained for.
    pub original_context: f64,
    /// Rotations over the original context above which a frequency is kept.
    pub beta_fast: f64,
    /// Rotations below which a frequency is interpolated in full.
    pub beta_slow: f64,
    /// How queries and keys grow with the logarithm of the factor.
    pub growth: f64,
}

/// Which dimensions of a head are a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Neighbours: (2i, 2i + 1).
    Interleaved,
    /// Those of two halves: (i, i + dims / 2).
    Halves,
}

/// Rotary embedding of a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Which dimensions are pairs.
    pub style: Style,
    /// Dimensions of a head that turn; even.
    pub dims: usize,
    /// Base of the geometric series of wavelengths.
    pub base: f64,
    /// Change for long contexts.
    pub scaling: Scaling,
    /// Extra factor of queries and keys.
    pub magnitude: f64,
    /// The context that the model was first trained for.
    pub original_context: usize,
}

/// Factors that a file brings for the frequencies, each (dims / 2).
#[derive(Debug, Clone, Copy, Default)]
pub struct Factors<'a> {
    /// By which frequencies are divided.
    pub usual: Option<&'a [f32]>,
    /// The same for sequences that may become longer than the original context.
    pub long: Option<&'a [f32]>,
}

/// The frequencies of a [`Rope`], ready to be turned into angles.
#[derive(Debug, Clone)]
pub struct Frequencies {
    /// Radians a position, (dims / 2).
    usual: Box<[f64]>,
    /// The same for sequences that may become longer than `original_context`, if they differ.
    long: Option<Box<[f64]>>,
    original_context: usize,
    /// Factor of sines and cosines.
    magnitude: f64,
}

impl Frequencies {
    /// The frequencies of `rope`.
    pub fn new(rope: &Rope, factors: Factors<'_>) -> Self {
        let grown = match &rope.scaling {
            Scaling::Yarn(yarn) => 1.0 + yarn.growth * float::ln64(yarn.factor),
            Scaling::None | Scaling::Linear(_) => 1.0,
        };
        Self {
            usual: rope.radians(factors.usual),
            long: factors.long.map(|factors| rope.radians(Some(factors))),
            original_context: rope.original_context,
            magnitude: rope.magnitude * grown,
        }
    }

    /// Pairs that turn.
    pub fn pairs(&self) -> usize {
        self.usual.len()
    }

    /// Whether sequences that may have `context` tokens turn by the frequencies of long ones.
    pub fn is_long(&self, context: usize) -> bool {
        self.long.is_some() && context > self.original_context
    }

    /// (cosine, sine) of every pair at `position`, of a sequence that may have `context` tokens:
    /// (pairs).
    pub fn turns(&self, position: usize, context: usize, out: &mut [[f32; 2]]) {
        let radians = match &self.long {
            Some(long) if self.is_long(context) => long,
            _ => &self.usual,
        };
        for (out, radians) in out.iter_mut().zip(radians) {
            let (sin, cos) = float::sin_cos64(position as f64 * radians);
            *out = [(cos * self.magnitude) as f32, (sin * self.magnitude) as f32];
        }
    }
}

impl Rope {
    /// Radians a position of each pair, divided by its element of `factors`.
    fn radians(&self, factors: Option<&[f32]>) -> Box<[f64]> {
        let pairs = self.dims / 2;
        let mut radians: Box<[f64]> = (0..pairs)
            .map(|i| float::pow64(self.base, -2.0 * i as f64 / self.dims as f64))
            .collect();
        if let Some(factors) = factors {
            for (radians, factor) in radians.iter_mut().zip(factors) {
                *radians /= f64::from(*factor);
            }
        }
        match &self.scaling {
            Scaling::None => {}
            Scaling::Linear(factor) => radians.iter_mut().for_each(|r| *r /= factor),
            Scaling::Yarn(yarn) => yarn.interpolate(self, &mut radians),
        }
        radians
    }
}

impl Yarn {
    /// Section 3.2 of the paper: a linear ramp between the two numbers of rotations.
    fn interpolate(&self, rope: &Rope, radians: &mut [f64]) {
        let last = rope.dims as f64 - 1.0;
        let low = at_least(self.pair_with(self.beta_fast, rope).floor(), 0.0);
        let high = at_most(self.pair_with(self.beta_slow, rope).ceil(), last);
        for (i, radians) in radians.iter_mut().enumerate() {
            let ramp = (i as f64 - low) / at_least(high - low, 0.001);
            let ramp = at_most(at_least(ramp, 0.0), 1.0);
            *radians = *radians / self.factor * ramp + *radians * (1.0 - ramp);
        }
    }

    /// The (fractional) pair that turns `rotations` times over the original context.
    fn pair_with(&self, rotations: f64, rope: &Rope) -> f64 {
        let wavelengths = self.original_context / (rotations * std::f64::consts::TAU);
        rope.dims as f64 * float::ln64(wavelengths) / (2.0 * float::ln64(rope.base))
    }
}

/// Comparisons with one definition, unlike those of `f64` (zeros of both signs, NaN).
fn at_least(x: f64, least: f64) -> f64 {
    if x > least { x } else { least }
}

fn at_most(x: f64, most: f64) -> f64 {
    if x < most { x } else { most }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(scaling: Scaling) -> Rope {
        Rope {
            style: Style::Halves,
            dims: 8,
            base: 10000.0,
            scaling,
            magnitude: 1.0,
            original_context: 64,
        }
    }

    fn turns(frequencies: &Frequencies, position: usize) -> Vec<[f32; 2]> {
        let mut out = vec![[0.0; 2]; frequencies.pairs()];
        frequencies.turns(position, 64, &mut out);
        out
    }

    #[test]
    fn angles_are_position_times_a_geometric_series() {
        let f = Frequencies::new(&rope(Scaling::None), Factors::default());
        for position in [0, 1, 77, 100_000] {
            for (i, [cos, sin]) in turns(&f, position).into_iter().enumerate() {
                let angle = position as f64 * 10000f64.powf(-(i as f64) / 4.0);
                assert!(
                    (f64::from(cos) - angle.cos()).abs() < 1e-6,
                    "{position} {i}"
                );
                assert!(
                    (f64::from(sin) - angle.sin()).abs() < 1e-6,
                    "{position} {i}"
                );
            }
        }
    }

    #[test]
    fn linear_scaling_and_factors_slow_the_turns() {
        let plain = Frequencies::new(&rope(Scaling::None), Factors::default());
        let linear = Frequencies::new(&rope(Scaling::Linear(4.0)), Factors::default());
        assert_eq!(turns(&linear, 40), turns(&plain, 10));
        let factors = Factors {
            usual: Some(&[1.0, 2.0, 4.0, 8.0]),
            long: Some(&[8.0; 4]),
        };
        let factors = Frequencies::new(&rope(Scaling::None), factors);
        assert_eq!(turns(&factors, 8)[3], turns(&plain, 1)[3]);
        assert_eq!(turns(&factors, 8)[0], turns(&plain, 8)[0]);
        let mut long = [[0.0; 2]; 4];
        factors.turns(8, 65, &mut long);
        assert_eq!(long[..], turns(&plain, 1));
    }

    #[test]
    fn yarn_keeps_fast_pairs_and_interpolates_slow_ones() {
        let yarn = Yarn {
            factor: 4.0,
            original_context: 64.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            growth: 0.1,
        };
        let plain = Frequencies::new(&rope(Scaling::None), Factors::default());
        let scaled = Frequencies::new(&rope(Scaling::Yarn(yarn)), Factors::default());
        let magnitude = 1.0 + 0.1 * 4f64.ln();
        assert!((scaled.magnitude - magnitude).abs() < 1e-12);
        assert_eq!(scaled.usual[0], plain.usual[0]);
        assert_eq!(scaled.usual[3], plain.usual[3] / 4.0);
    }
}
