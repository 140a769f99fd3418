//! One token of a recurrence, for 16 columns of its state.
//!
//! Bodies as in `lanes`: written once, compiled for each CPU, the same bits everywhere. A state is
//! (rows, 16): lanes are columns, which do not see each other. A sum over rows has four parts, to
//! which row i adds by i mod 4; they are joined as (0 + 2) + (1 + 3).

use crate::float::{self, MulAdd};

use super::{Kernels, LANES};

/// A value for each column.
pub type Lane = [f32; LANES];

/// Parts of a sum over rows: enough for the latency of an addition.
const PARTS: usize = 4;

/// All pointers are unsafe to call without the CPU's features; see [`Kernels`].
pub(super) struct RecurrenceFunctions {
    pub multiply_add: unsafe fn(&mut [f32], &[f32], &[f32]),
    pub gate: unsafe fn(&mut [f32], &[f32]),
    pub state_step: unsafe fn(&mut [Lane], f32, &Lane, [&[f32]; 2]) -> Lane,
    pub selective_step: unsafe fn(&mut [Lane], &[Lane], [&Lane; 2], [&[f32]; 2]) -> Lane,
    pub delta_step: unsafe fn(&mut [Lane], [f32; 2], &Lane, [&[f32]; 2]) -> Lane,
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
    sum_rows(state, |i, row, sum| {
        for lane in 0..LANES {
            row[lane] = M::mul_add(b[i], x[lane], row[lane] * decay);
            sum[lane] = M::mul_add(row[lane], c[i], sum[lane]);
        }
    })
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
    sum_rows(state, |i, row, sum| {
        for lane in 0..LANES {
            let decay = float::exp(a[i][lane] * step[lane]);
            row[lane] = M::mul_add(b[i], x[lane], row[lane] * decay);
            sum[lane] = M::mul_add(row[lane], c[i], sum[lane]);
        }
    })
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
    let given = sum_rows(state, |i, row, sum| {
        for lane in 0..LANES {
            sum[lane] = M::mul_add(row[lane] * decay, key[i], sum[lane]);
        }
    });
    let mut change = *value;
    for lane in 0..LANES {
        change[lane] = (value[lane] - given[lane]) * beta;
    }
    sum_rows(state, |i, row, sum| {
        for lane in 0..LANES {
            row[lane] = M::mul_add(key[i], change[lane], row[lane] * decay);
            sum[lane] = M::mul_add(row[lane], query[i], sum[lane]);
        }
    })
}

/// Calls `step` with each row, its number, and the part of the sum that it adds to; returns the sum.
#[inline(always)]
fn sum_rows(state: &mut [Lane], step: impl Fn(usize, &mut Lane, &mut Lane)) -> Lane {
    let mut parts = [[0.0; LANES]; PARTS];
    let (whole, rest) = state.as_chunks_mut::<PARTS>();
    let done = PARTS * whole.len();
    for (i, rows) in whole.iter_mut().enumerate() {
        for part in 0..PARTS {
            step(PARTS * i + part, &mut rows[part], &mut parts[part]);
        }
    }
    // A copy: what a variable chooses from could not stay in registers above.
    let mut parts = parts;
    for (i, row) in rest.iter_mut().enumerate() {
        step(done + i, row, &mut parts[i]);
    }
    std::array::from_fn(|lane| {
        (parts[0][lane] + parts[2][lane]) + (parts[1][lane] + parts[3][lane])
    })
}
