//! One token of each recurrence: every instance against the scalar twin, and that against f64.

use super::*;

const ROWS: [usize; 7] = [1, 2, 3, 4, 5, 16, 131];

fn lanes(seed: u64, rows: usize) -> Vec<Lane> {
    floats(seed, rows * LANES).as_chunks::<LANES>().0.to_vec()
}

fn all(state: &[Lane], given: Lane) -> Vec<f32> {
    state.iter().flatten().copied().chain(given).collect()
}

#[test]
fn recurrences() {
    for rows in ROWS {
        let (state, a) = (lanes(1, rows), lanes(2, rows));
        let (x, step) = (lanes(3, 1)[0], lanes(4, 1)[0]);
        let (b, c) = (&floats(5, rows)[..], &floats(6, rows)[..]);
        let a: Vec<Lane> = a.iter().map(|a| a.map(|a| -a.abs())).collect();
        same("state_step", |k| {
            let mut state = state.clone();
            let given = k.state_step(&mut state, 0.7, &x, [b, c]);
            all(&state, given)
        });
        same("selective_step", |k| {
            let mut state = state.clone();
            let given = k.selective_step(&mut state, &a, [&step, &x], [b, c]);
            all(&state, given)
        });
        same("delta_step", |k| {
            let mut state = state.clone();
            let given = k.delta_step(&mut state, [0.7, 0.4], &x, [b, c]);
            all(&state, given)
        });
    }
    for len in LENGTHS {
        let (out, x, y) = (floats(1, len), floats(2, len), floats(3, len));
        same("multiply_add", |k| {
            let mut out = out.clone();
            k.multiply_add(&mut out, &x, &y);
            out
        });
        same("gate", |k| {
            let mut out = out.clone();
            k.gate(&mut out, &x);
            out
        });
    }
}

/// Values of about 1.
fn mild(seed: u64, rows: usize) -> Vec<Lane> {
    let mild = |x: f32| {
        if x == 0.0 {
            0.0
        } else {
            x.signum() * (0.5 + x.abs() % 1.0)
        }
    };
    lanes(seed, rows)
        .iter()
        .map(|lane| lane.map(mild))
        .collect()
}

fn near(found: f32, expected: f64, size: f64) -> bool {
    (f64::from(found) - expected).abs() <= 1e-6 * size
}

#[test]
fn recurrences_do_what_they_say() {
    let (rows, lane) = (37, 5);
    let state = mild(1, rows);
    let (b, c): (Vec<f32>, Vec<f32>) = mild(2, rows).iter().map(|l| (l[0], l[1])).unzip();
    let (x, step, a) = (mild(3, 1)[0], mild(4, 1)[0], mild(5, rows));
    let (wide, k) = (f64::from, detect());
    let column: Vec<f64> = state.iter().map(|row| wide(row[lane])).collect();
    let dot = |values: &[f64], by: &[f32]| -> f64 {
        values
            .iter()
            .zip(by)
            .map(|(value, by)| value * wide(*by))
            .sum()
    };

    let mut made = state.clone();
    let given = k.state_step(&mut made, 0.7, &x, [&b, &c]);
    let rows_now = column.iter().zip(&b);
    let truth: Vec<f64> = rows_now
        .map(|(row, b)| row * wide(0.7f32) + wide(*b) * wide(x[lane]))
        .collect();
    assert!(near(given[lane], dot(&truth, &c), 100.0));
    assert!(
        made.iter()
            .zip(&truth)
            .all(|(row, truth)| near(row[lane], *truth, 5.0))
    );

    let mut made = state.clone();
    let given = k.selective_step(&mut made, &a, [&step, &x], [&b, &c]);
    let s = wide(step[lane]).exp().ln_1p();
    let rows_now = column.iter().zip(&a).zip(&b);
    let truth: Vec<f64> = rows_now
        .map(|((row, a), b)| row * (wide(a[lane]) * s).exp() + wide(*b) * wide(x[lane]) * s)
        .collect();
    assert!(near(given[lane], dot(&truth, &c), 2000.0));
    assert!(
        made.iter()
            .zip(&truth)
            .all(|(row, truth)| near(row[lane], *truth, 100.0))
    );

    let mut made = state;
    let given = k.delta_step(&mut made, [0.7, 0.4], &x, [&b, &c]);
    let decayed: Vec<f64> = column.iter().map(|row| row * wide(0.7f32)).collect();
    let change = (wide(x[lane]) - dot(&decayed, &b)) * wide(0.4f32);
    let truth: Vec<f64> = decayed
        .iter()
        .zip(&b)
        .map(|(row, b)| row + wide(*b) * change)
        .collect();
    assert!(near(given[lane], dot(&truth, &c), 1000.0));
    assert!(
        made.iter()
            .zip(&truth)
            .all(|(row, truth)| near(row[lane], *truth, 50.0))
    );
}
