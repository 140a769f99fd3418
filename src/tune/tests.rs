use super::*;

#[test]
fn an_interval_lies_around_the_median() {
    let faster = [10.0; 50];
    let slower: Vec<f64> = (1..=50).map(|i| 10.0 * f64::from(i)).collect();
    let ratio = Ratio::of(&slower, &faster);
    // The ranks of the binomial distribution: 18 and 33 of 50.
    assert_eq!((ratio.low, ratio.median, ratio.high), (18.0, 25.5, 33.0));
    let few = Ratio::of(&[3.0, 1.0, 2.0], &[1.0; 3]);
    assert_eq!((few.low, few.median, few.high), (1.0, 2.0, 3.0));
}

#[test]
fn the_rule_is_judged_by_the_interval() {
    let of = |low, high| {
        let median = (low + high) / 2.0;
        let chosen = Ratio { median, low, high };
        let comparison = Comparison {
            estimate_ns: 0,
            is_shared: false,
            serial_ns: 1.0,
            parallel_ns: 1.0,
            chosen_ns: 1.0,
            parallel: chosen,
            chosen,
        };
        comparison.verdict()
    };
    assert_eq!(of(0.98, 1.02), Verdict::Kept);
    assert_eq!(of(0.96, 0.98), Verdict::Open);
    assert_eq!(of(0.90, 0.96), Verdict::Broken);
}

fn teams() -> Teams {
    Teams::new(|| TeamOptions {
        threads: 2,
        ..TeamOptions::default()
    })
    .unwrap()
}

const ONCE: Effort = Effort {
    turns: 1,
    is_quick: true,
};

#[test]
fn every_operation_is_cut_and_compared() {
    let teams = teams();
    let mut shared = 0;
    for operation in &operations(ONCE) {
        let one = Comparison::of(operation, &teams, ONCE).unwrap();
        let is_single = one.estimate_ns == 0;
        assert!(!(is_single && one.is_shared), "{operation:?}");
        let is_sampling = operation.name == "sampling";
        assert!(!is_sampling || is_single, "{operation:?}");
        shared += usize::from(one.is_shared);
        assert!(one.serial_ns > 0.0 && one.parallel_ns > 0.0 && one.chosen_ns > 0.0);
    }
    assert!(shared > 5, "{shared}");
}

#[test]
fn products_and_cuts_are_measured() {
    let teams = teams();
    let all = products(1, &teams, ONCE).unwrap();
    assert_eq!(all[0].over_floats.median, 1.0);
    assert!(
        all.iter()
            .all(|one| one.one_thread > 0.0 && one.all_threads > 0.0)
    );
    let shape = Shape {
        format: crate::quant::Format::Q4_0,
        tokens: 40,
        outputs: 200,
        columns: 64,
    };
    let cut = cut(shape, &teams, ONCE).unwrap();
    assert!(cut.tried > 4 && cut.rate > 0.0);
    assert!(cut.best.1.is_multiple_of(48) && cut.best.0 <= 40, "{cut:?}");
}
