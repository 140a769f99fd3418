//! What is made of the rows of a whole text.

/// How the rows of a text become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// They stay.
    None,
    /// Their mean.
    Mean,
    /// The first.
    First,
    /// The last.
    Last,
    /// They become scores.
    Rank,
}

/// What makes scores of a row: a layer with a curve, then a matrix, either of which may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How the rows of a text become the one.
    pub pooling: Pooling,
    /// Width of what the layer gives; 0: there is none.
    pub inner: usize,
    /// Its curve.
    pub curve: Curve,
    /// Whether what it gives is normed.
    pub norm: bool,
    /// What the matrix gives, scores if nothing else is said; 0: there is none, the layer gives them.
    pub outputs: usize,
    /// Whether it gives two numbers, for yes and for no, whose difference is the score: the logarithm
    /// of the odds.
    pub odds: bool,
}

impl Head {
    /// Number of the scores.
    pub fn scores(&self) -> usize {
        match self.outputs {
            _ if self.odds => 1,
            0 => self.inner,
            outputs => outputs,
        }
    }
}

/// The curve of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// Hyperbolic tangent.
    Tanh,
    /// See [`Nonlinearity::Gelu`](crate::kernel::Nonlinearity::Gelu).
    Gelu,
}
