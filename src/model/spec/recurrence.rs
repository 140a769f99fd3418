//! Layers that keep a state of fixed size: how wide what they compute is, and where it lies.

use crate::error::Result;
use crate::kernel::LANES;
use crate::kv::StateShape;

use super::{WIDTH_MAX, require};

/// A layer's second way to see earlier tokens, besides attention. A convolution sees the last few;
/// all but the first kind go on with a state of columns, which a token changes and reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recurrence {
    /// What a state is and does.
    pub kind: RecurrenceKind,
    /// Inputs that the convolution sees.
    pub taps: usize,
    /// Width of what comes out, before the output matrix: the columns of all heads.
    pub inner: usize,
    /// Rows of a state; 0: there is none.
    pub rows: usize,
    /// Heads; columns of a head decay alike.
    pub heads: usize,
    /// Groups of heads with rows in common; divides `heads`.
    pub groups: usize,
}

/// What a state is and does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecurrenceKind {
    /// There is none: a product goes through the convolution, and another value gates it.
    Convolution,
    /// A state space, each value of which decays by itself.
    Selective {
        /// Width of the vector that steps are made of.
        rank: usize,
        /// Whether that vector and the rows are normed by the mean square, without weights.
        norms: bool,
    },
    /// A state space with heads.
    Heads,
    /// A memory from keys to values.
    Delta {
        /// Whether heads of a group are `groups` apart, and not neighbours.
        tiled: bool,
    },
}

/// The most inputs that a convolution sees.
const TAPS_MAX: usize = 64;

impl Recurrence {
    /// Columns of a head; where values decay by themselves, as many as are computed together.
    pub fn head_width(&self) -> usize {
        match self.kind {
            RecurrenceKind::Selective { .. } => LANES.min(self.inner),
            _ => self.inner / self.heads,
        }
    }

    /// Values of the convolution.
    pub fn channels(&self) -> usize {
        match self.kind {
            RecurrenceKind::Convolution | RecurrenceKind::Selective { .. } => self.inner,
            RecurrenceKind::Heads | RecurrenceKind::Delta { .. } => {
                self.inner + 2 * self.groups * self.rows
            }
        }
    }

    /// Width of what is made of a token first.
    pub fn in_width(&self) -> usize {
        match self.kind {
            RecurrenceKind::Convolution => 3 * self.inner,
            RecurrenceKind::Selective { .. } => 2 * self.inner,
            RecurrenceKind::Heads => self.inner + self.channels() + self.heads,
            RecurrenceKind::Delta { .. } => self.channels() + self.inner + 2 * self.heads,
        }
    }

    /// Where the inputs of the convolution begin in it.
    pub fn channels_start(&self) -> usize {
        match self.kind {
            RecurrenceKind::Heads => self.inner,
            _ => 0,
        }
    }

    /// Where the gate of what comes out begins in it: (inner).
    pub fn gate_start(&self) -> usize {
        match self.kind {
            RecurrenceKind::Heads => 0,
            _ => self.channels(),
        }
    }

    /// Where that begins which says how the heads decay.
    pub fn steps_start(&self) -> usize {
        self.inner + self.channels()
    }

    /// Numbers of a head that are made of it: how much it decays, and how much it takes.
    pub fn steps(&self) -> usize {
        match self.kind {
            RecurrenceKind::Convolution | RecurrenceKind::Selective { .. } => 0,
            RecurrenceKind::Heads | RecurrenceKind::Delta { .. } => 2 * self.heads,
        }
    }

    /// Width of what a selective state space makes of the convolution: what steps are made of, and
    /// the rows.
    pub fn low_width(&self) -> usize {
        match self.kind {
            RecurrenceKind::Selective { rank, .. } => rank + 2 * self.rows,
            _ => 0,
        }
    }

    /// The widest row that a matrix takes.
    pub fn widest(&self) -> usize {
        match self.kind {
            RecurrenceKind::Selective { rank, .. } => self.inner.max(rank),
            _ => self.inner,
        }
    }

    /// The group of a head.
    pub fn group(&self, head: usize) -> usize {
        match self.kind {
            RecurrenceKind::Delta { tiled: true } => head % self.groups,
            _ => head / (self.heads / self.groups),
        }
    }

    /// Values of a head's state: blocks of 16 columns, each (rows, 16).
    pub fn head_values(&self) -> usize {
        let blocks = self.head_width().div_ceil(LANES);
        blocks.saturating_mul(LANES).saturating_mul(self.rows)
    }

    /// What a layer keeps.
    pub fn shape(&self) -> StateShape {
        let heads = self.inner.div_ceil(self.head_width());
        StateShape {
            window: (self.taps - 1).saturating_mul(self.channels()),
            matrix: self.head_values().saturating_mul(heads),
        }
    }

    /// Checks what the fields must satisfy together; `place` says where the file has a
    /// hyperparameter.
    pub(super) fn check(&self, place: impl Fn(&str) -> String) -> Result<()> {
        let range = |name: &str, value: usize, max: usize| {
            let holds = (1..=max).contains(&value);
            require(holds, || place(name), format!("1 to {max}"), value)
        };
        let taps = match self.kind {
            RecurrenceKind::Convolution => "shortconv.l_cache",
            _ => "ssm.conv_kernel",
        };
        range(taps, self.taps, TAPS_MAX)?;
        range("ssm.inner_size", self.inner, WIDTH_MAX)?;
        if self.kind == RecurrenceKind::Convolution {
            return Ok(());
        }
        range("ssm.state_size", self.rows, WIDTH_MAX)?;
        if let RecurrenceKind::Selective { rank, .. } = self.kind {
            return range("ssm.time_step_rank", rank, WIDTH_MAX);
        }
        range("ssm.time_step_rank", self.heads, self.inner)?;
        let divides = self.inner.is_multiple_of(self.heads);
        let expected = format!("a divisor of {}", self.inner);
        let name = "ssm.time_step_rank";
        require(divides, || place(name), expected, self.heads)?;
        range("ssm.group_count", self.groups, self.heads)?;
        let divides = self.heads.is_multiple_of(self.groups);
        let expected = format!("a divisor of {}", self.heads);
        let name = "ssm.group_count";
        require(divides, || place(name), expected, self.groups)
    }
}
