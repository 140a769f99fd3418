//! The ratio of two times, with how sure it is.

/// How much faster one way is than another: the median over turns, and its interval of 95 %.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// The median.
    pub median: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
}

impl Ratio {
    /// Of the times of the slower way by those of the faster one, turn by turn.
    ///
    /// The interval lies between two of the sorted ratios, as far from the middle as the binomial
    /// distribution says: nothing is assumed about how times spread.
    pub fn of(slower: &[f64], faster: &[f64]) -> Self {
        let ratios = slower
            .iter()
            .zip(faster)
            .map(|(slower, faster)| slower / faster);
        let sorted = sorted(ratios.collect());
        let count = sorted.len() as f64;
        let below = ((count - 1.96 * count.sqrt()) / 2.0).floor().max(1.0) as usize;
        Self {
            median: middle(&sorted),
            low: sorted[below - 1],
            high: sorted[sorted.len() - below],
        }
    }
}

/// The median of at least one number.
pub fn median(numbers: &[f64]) -> f64 {
    middle(&sorted(numbers.to_vec()))
}

fn sorted(mut numbers: Vec<f64>) -> Vec<f64> {
    numbers.sort_by(f64::total_cmp);
    numbers
}

fn middle(sorted: &[f64]) -> f64 {
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}
