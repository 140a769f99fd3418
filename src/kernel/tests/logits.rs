//! Passes over logits against the scalar twin, to the bit, and against what they are for.

use super::*;

/// Values as above, a fifth of them minus infinity, as logits of excluded tokens are.
fn logits(seed: u64, len: usize) -> Vec<f32> {
    let excluded = |step: u64| Random { seed, step }.bits(3).is_multiple_of(5);
    let pairs = (0..).zip(floats(seed, len));
    pairs
        .map(|(i, x)| if excluded(i) { f32::NEG_INFINITY } else { x })
        .collect()
}

/// The bits of f64 values.
fn wide(values: &[f64]) -> Vec<f32> {
    let halves = |x: &f64| [x.to_bits() as u32, (x.to_bits() >> 32) as u32];
    values.iter().flat_map(halves).map(f32::from_bits).collect()
}

#[test]
fn passes_over_logits() {
    for len in LENGTHS.into_iter().chain([1024, 1500, 5000]) {
        let blocks = len.div_ceil(BLOCK);
        let x = logits(1, len);
        let weights: Vec<f32> = floats(2, len).iter().map(|x| x.abs()).collect();
        same("block_maxima", |k| {
            let mut out = vec![0.0; blocks];
            assert!(k.block_maxima(&x, &mut out));
            out
        });
        same("sums", |k| {
            let mut out = vec![0.0; len.div_ceil(SUMMED)];
            let total = k.sums(&weights, &mut out);
            [out, wide(&[total])].concat()
        });
        same("exp_weights", |k| {
            let (mut out, mut sums) = (vec![0.0; len], vec![0.0; len.div_ceil(SUMMED)]);
            let total = k.exp_weights(&x, 2100.0, &mut out, &mut sums);
            assert!(out.iter().all(|w| *w == 0.0) && total == 0.0);
            let below: Vec<f32> = x.iter().map(|x| x.min(9.0)).collect();
            let total = k.exp_weights(&below, 9.0, &mut out, &mut sums);
            [out, sums, wide(&[total])].concat()
        });
        same("weighted_depth", |k| {
            wide(&[k.weighted_depth(&x, &weights, 3.0)])
        });
        same("moments", |k| wide(&k.moments(&x, 1.5)));
        same("nearness", |k| {
            let mut out = vec![0.0; len];
            k.nearness(&x, 0.25, &mut out);
            out
        });
    }
}

#[test]
fn selections_of_logits() {
    for len in LENGTHS.into_iter().chain([1024, 1500, 5000]) {
        let blocks = len.div_ceil(BLOCK);
        let x = logits(1, len);
        let weights: Vec<f32> = floats(2, len).iter().map(|x| x.abs()).collect();
        let thresholds = [3.0, 0.25, 0.0, f32::MIN];
        same("masses_from", |k| {
            let masses = k.masses_from(x[..].into(), &weights, &thresholds);
            for (mass, threshold) in masses.iter().zip(thresholds) {
                let reached = x.iter().zip(&weights).filter(|(x, _)| **x >= threshold);
                let expected: f64 = reached.map(|(_, weight)| f64::from(*weight)).sum();
                assert!((mass - expected).abs() <= 1e-6 * expected);
            }
            wide(&masses)
        });
        let centre = Some(0.25);
        let near = Keys { logits: &x, centre };
        let far: Vec<f32> = x.iter().map(|x| near.of(*x)).collect();
        for kernels in available() {
            // Keys made on the way are those that were made before.
            let masses = |keys| wide(&kernels.masses_from(keys, &weights, &thresholds));
            assert_eq!(bits(&masses(near)), bits(&masses(far[..].into())));
            let (mut masked, mut expected) = (weights.clone(), weights.clone());
            kernels.mask(near, -0.5, -1.0, &mut masked);
            kernels.mask(far[..].into(), -0.5, -1.0, &mut expected);
            assert_eq!(masked, expected);
            let collected = |keys| {
                let mut found = vec![Ranked::default(); len];
                let reach = (&vec![0.0; blocks][..], 0.0);
                let count = kernels.collect(keys, [-0.5, 0.0], reach, &mut found);
                found[..count].to_vec()
            };
            assert_eq!(collected(near), collected(far[..].into()));
        }
        for rows in [1, 4, 7] {
            same("group_maxima", |k| {
                let mut maxima = vec![0.0; len.div_ceil(rows * LANES) * LANES];
                k.group_maxima(&x, rows, &mut maxima);
                for (group, max) in maxima.iter().enumerate() {
                    let own = |at: &usize| at / LANES / rows == group / LANES;
                    let own = |at: &usize| own(at) && at % LANES == group % LANES;
                    let keys = (0..len).filter(own).map(|at| x[at]);
                    assert_eq!(keys.fold(f32::NEG_INFINITY, f32::max), *max);
                }
                maxima
            });
        }
        for [low, high] in [
            [-0.25, 0.5],
            [0.0, f32::INFINITY],
            [f32::MIN, 1e9],
            [1.0, 1.0],
        ] {
            same("collect", |k| {
                let mut maxima = vec![0.0; blocks];
                k.block_maxima(&x, &mut maxima);
                let mut found = vec![Ranked::default(); len];
                let count = k.collect(x[..].into(), [low, high], (&maxima, low), &mut found);
                let within = (0..).zip(&x).filter(|(_, x)| (low..high).contains(*x));
                let expected = within.map(|(position, key)| Ranked {
                    key: *key,
                    position,
                });
                assert!(found[..count].iter().copied().eq(expected));
                vec![]
            });
        }
    }
}

#[test]
fn filters_of_logits() {
    for len in LENGTHS.into_iter().chain([1024, 1500, 5000]) {
        let (blocks, parts) = (len.div_ceil(BLOCK), len.div_ceil(SUMMED));
        let x = logits(1, len);
        let weights: Vec<f32> = floats(2, len).iter().map(|x| x.abs()).collect();
        for threshold in [f32::NEG_INFINITY, f32::MIN, -0.5, 0.0, 0.25, 1e9] {
            same("filters", |k| {
                let (mut floor, mut mask) = (x.clone(), weights.clone());
                k.floor(&mut floor, threshold);
                k.mask(x[..].into(), threshold, -1.0, &mut mask);
                let count = k.count_from(&x, threshold);
                assert_eq!(count, x.iter().filter(|x| **x >= threshold).count());
                let zeroed = |threshold| {
                    let mut out = weights.clone();
                    k.mask(x[..].into(), threshold, 0.0, &mut out);
                    out
                };
                let mut kept = weights.clone();
                let low = threshold.max(f32::MIN);
                for high in [low, 0.5, f32::INFINITY] {
                    let (mut sums, mut expected) = (vec![0.0; parts], vec![0.0; parts]);
                    let mut found = vec![Ranked::default(); len];
                    kept.clone_from(&weights);
                    let range = [low, high];
                    let changed = (&mut kept[..], &mut sums[..]);
                    let count = k.exclude(x[..].into(), range, changed, &mut found);
                    k.sums(&zeroed(high.max(low)), &mut expected);
                    assert_eq!((&kept, &sums), (&zeroed(low), &expected));
                    let within = (0..).zip(&x).filter(|(_, x)| (low..high).contains(*x));
                    let keys = within.map(|(position, key)| Ranked {
                        key: *key,
                        position,
                    });
                    assert!(found[..count].iter().copied().eq(keys));
                }
                [floor, mask, kept].concat()
            });
        }
        for divisor in [0.3, 1e-38, 1e30] {
            same("divide", |k| {
                let mut out = x.clone();
                k.divide(&mut out, divisor);
                assert!(
                    out.iter()
                        .zip(&x)
                        .all(|(a, b)| a.is_finite() == b.is_finite())
                );
                out
            });
        }
        for (at, bad) in [
            (0, f32::NAN),
            (len / 2, f32::INFINITY),
            (len.max(1) - 1, f32::NAN),
        ] {
            let mut x = x.clone();
            if let Some(place) = x.get_mut(at) {
                *place = bad;
                let sound = |k: &Kernels| k.block_maxima(&x, &mut vec![0.0; blocks]);
                assert!(available().all(|kernels| !sound(kernels)));
            }
        }
    }
}
