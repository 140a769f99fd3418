//! One token of a recurrence, for 16 columns of its state.
//!
//! Bodies as in `lanes`: written once, compiled for each CPU, the same bits everywhere. A state is
//! (rows, 16): lanes are columns, which do not see each other. A sum over rows has four parts, to
//! which row i adds by i mod 4; they are joined as (0 + 2) + (1 + 3).

use crate::float::{self, MulAdd};

use super::elementwise::scale;
use super::{Kernels, LANES};

/// A value for each column.
pub type Lane = [f32; LANES];

/// Parts of a sum over rows: enough for the latency of an addition.
const PARTS: usize = 4;

/// Two factors of each row.
type Rows<'a> = [&'a [f32]; 2];

type StateStep = unsafe fn(&mut [Lane], f32, &Lane, Rows<'_>) -> Lane;
type SelectiveStep = unsafe fn(&mut [Lane], &[Lane], [&Lane; 2], Rows<'_>) -> Lane;
type DeltaStep = unsafe fn(&mut [Lane], [f32; 2], &Lane, Rows<'_>) -> Lane;

/// All pointers are unsafe to call without the CPU's features; see [`Kernels`].
#[derive(Clone, Copy)]
pub(super) struct RecurrenceFunctions {
    pub multiply_add: unsafe fn(&mut [f32], &[f32], &[f32]),
    pub gate: unsafe fn(&mut [f32], &[f32]),
    pub state_step: StateStep,
    pub selective_step: SelectiveStep,
    pub delta_step: DeltaStep,
}

impl Kernels {
    /// `out += x * y`, of one length, rounded once.
    pub fn multiply_add(&self, out: &mut [f32], x: &[f32], y: &[f32]) {
        assert!(out.len() == x.len() && out.len() == y.len(), "one length");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.recurrence.multiply_add)(out, x, y) }
    }

    /// `out *= sigmoid(gate)`, of one length.
    pub fn gate(&self, out: &mut [f32], gate: &[f32]) {
        assert_eq!(out.len(), gate.len(), "one length");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.recurrence.gate)(out, gate) }
    }

    /// One token of a state space whose columns decay alike: each row of the state becomes
    /// `row * decay + b x`, `b` its own; returns the sum of the rows, each times its `c`. Both are
    /// (rows).
    pub fn state_step(&self, state: &mut [Lane], decay: f32, x: &Lane, b_c: [&[f32]; 2]) -> Lane {
        check_rows(state, b_c);
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.recurrence.state_step)(state, decay, x, b_c) }
    }

    /// The same where every value of a state decays by itself, with `exp(a * s)`, and `x` is taken
    /// times `s`, `s` the softplus of `step`: `a` is as large as the state.
    pub fn selective_step(
        &self,
        state: &mut [Lane],
        a: &[Lane],
        step_x: [&Lane; 2],
        b_c: [&[f32]; 2],
    ) -> Lane {
        check_rows(state, b_c);
        assert_eq!(a.len(), state.len(), "as large as the state");
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.recurrence.selective_step)(state, a, step_x, b_c) }
    }

    /// One token of a memory from keys to values: what it holds decays, and what it gives for `key`
    /// moves by the share `beta` to `value`; returns what it gives for `query`. Both are (rows).
    pub fn delta_step(
        &self,
        state: &mut [Lane],
        decay_beta: [f32; 2],
        value: &Lane,
        key_query: [&[f32]; 2],
    ) -> Lane {
        check_rows(state, key_query);
        // SAFETY: `self` proves the CPU's features.
        unsafe { (self.functions.recurrence.delta_step)(state, decay_beta, value, key_query) }
    }
}

fn check_rows(state: &[Lane], rows: [&[f32]; 2]) {
    let fits = rows.iter().all(|values| values.len() == state.len());
    assert!(fits, "a value a row");
}

/// See [`Kernels::state_step`].
///
/// Source: Dao and Gu, "Transformers are SSMs", 2024.
#[inline(always)]
pub fn state_step<M: MulAdd>(
    state: &mut [Lane],
    decay: f32,
    x: &Lane,
    [b, c]: [&[f32]; 2],
) -> Lane {
    let mut parts = [[0.0; LANES]; PARTS];
    for (row, (b, c)) in state.iter_mut().zip(b.iter().zip(c)) {
        for lane in 0..LANES {
            row[lane] = M::mul_add(*b, x[lane], row[lane] * decay);
        }
        parts = with_row::<M>(parts, row, *c);
    }
    joined(&parts)
}

/// See [`Kernels::selective_step`].
///
/// Source: Gu and Dao, "Linear-Time Sequence Modeling with Selective State Spaces", 2023.
#[inline(always)]
pub fn selective_step<M: MulAdd>(
    state: &mut [Lane],
    a: &[Lane],
    [step, x]: [&Lane; 2],
    [b, c]: [&[f32]; 2],
) -> Lane {
    let (mut step, mut x) = (*step, *x);
    for lane in 0..LANES {
        step[lane] = float::softplus(step[lane]);
        x[lane] *= step[lane];
    }
    let mut parts = [[0.0; LANES]; PARTS];
    for ((row, a), (b, c)) in state.iter_mut().zip(a).zip(b.iter().zip(c)) {
        for lane in 0..LANES {
            let decay = float::exp(a[lane] * step[lane]);
            row[lane] = M::mul_add(*b, x[lane], row[lane] * decay);
        }
        parts = with_row::<M>(parts, row, *c);
    }
    joined(&parts)
}

/// See [`Kernels::delta_step`].
///
/// Source: Yang, Kautz and Hatamizadeh, "Gated Delta Networks", 2024.
#[inline(always)]
pub fn delta_step<M: MulAdd>(
    state: &mut [Lane],
    [decay, beta]: [f32; 2],
    value: &Lane,
    [key, query]: [&[f32]; 2],
) -> Lane {
    let mut parts = [[0.0; LANES]; PARTS];
    for (row, key) in state.iter().zip(key) {
        let mut row = *row;
        scale(&mut row, decay);
        parts = with_row::<M>(parts, &row, *key);
    }
    let (given, mut change) = (joined(&parts), *value);
    for lane in 0..LANES {
        change[lane] = (value[lane] - given[lane]) * beta;
    }
    state_step::<M>(state, decay, &change, [key, query])
}

/// Adds a row times a factor to the part that is next. The parts go round, which does not show in
/// their sum: it takes the same pairs, wherever they begin.
#[inline(always)]
fn with_row<M: MulAdd>(parts: [Lane; PARTS], row: &Lane, factor: f32) -> [Lane; PARTS] {
    let [mut next, second, third, fourth] = parts;
    for lane in 0..LANES {
        next[lane] = M::mul_add(row[lane], factor, next[lane]);
    }
    [second, third, fourth, next]
}

#[inline(always)]
fn joined(parts: &[Lane; PARTS]) -> Lane {
    let mut sum = [0.0; LANES];
    for lane in 0..LANES {
        sum[lane] = (parts[0][lane] + parts[2][lane]) + (parts[1][lane] + parts[3][lane]);
    }
    sum
}
