//! Times, counted by how long they are.

/// The upper bounds of all buckets but the last, in microseconds: 0.1 ms to 100 s.
pub const BOUNDS_US: [u64; BUCKETS - 1] = [
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
];

/// Numbers of a histogram.
pub const BUCKETS: usize = 20;

/// How many times were at most as long as the bucket's bound, and longer than the one before it;
/// the last bucket has no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Histogram {
    /// By bucket.
    pub counts: [u64; BUCKETS],
}

impl Histogram {
    /// Counts a time.
    pub(super) fn add(&mut self, us: u64) {
        self.counts[BOUNDS_US.partition_point(|&bound| bound < us)] += 1;
    }

    /// All times.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_in_its_bucket() {
        let mut histogram = Histogram::default();
        for us in [0, 100, 101, 100_000_000, 100_000_001, u64::MAX] {
            histogram.add(us);
        }
        let mut expected = [0; BUCKETS];
        (expected[0], expected[1], expected[18], expected[19]) = (2, 1, 1, 2);
        assert_eq!(histogram.counts, expected);
        assert_eq!(histogram.count(), 6);
        assert!(BOUNDS_US.is_sorted());
    }
}
