//! How varied texts are: distinct-n, repetition, entropy, self-BLEU.
//!
//! A sequence is of tokens, words (see [`words`]) or anything else that can be compared. All are
//! plain counts of n-grams: runs of n neighbours within one sequence.

use std::collections::BTreeMap;

use crate::float::{exp64, ln64};

/// The words of a text: what white space separates.
pub fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// The share of different n-grams among all n-grams of all sequences; 0 if there is none.
///
/// Source: Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models",
/// 2016.
pub fn distinct<T: Ord>(sequences: &[&[T]], n: usize) -> f64 {
    let counts = count(sequences, n);
    ratio(counts.len(), counts.values().sum())
}

/// The share of the n-grams of one sequence that were there before: 1 minus the share of different
/// ones; 0 if there is no n-gram.
///
/// Source: Welleck et al., "Neural Text Generation with Unlikelihood Training", 2020 (seq-rep-n).
pub fn repetition<T: Ord>(sequence: &[T], n: usize) -> f64 {
    let counts = count(&[sequence], n);
    let all: usize = counts.values().sum();
    ratio(all - counts.len(), all)
}

/// The repetition rate of one sequence: the geometric mean, over n from 1 to 4, of the share of
/// different n-grams that occur more than once within a window of 1000.
///
/// Source: Cettolo, Bertoldi and Federico, "The Repetition Rate of Text as a Predictor of the
/// Effectiveness of Machine Translation Adaptation", 2014.
pub fn repetition_rate<T: Ord>(sequence: &[T]) -> f64 {
    const WINDOW: usize = 1000;
    let mut logarithms = 0.0;
    for n in 1..=4 {
        let (mut repeated, mut different) = (0, 0);
        for window in sequence.chunks(WINDOW) {
            let counts = count(&[window], n);
            repeated += counts.values().filter(|count| **count > 1).count();
            different += counts.len();
        }
        logarithms += ln64(ratio(repeated, different));
    }
    exp64(logarithms / 4.0)
}

/// The entropy of the distribution of n-grams over all sequences, in bits.
///
/// Source: Zhang et al., "Generating Informative and Diverse Conversational Responses via
/// Adversarial Information Maximization", 2018 (Ent-n).
pub fn entropy<T: Ord>(sequences: &[&[T]], n: usize) -> f64 {
    let counts = count(sequences, n);
    let all: usize = counts.values().sum();
    let nats: f64 = counts
        .values()
        .map(|count| ratio(*count, all))
        .map(|p| -p * ln64(p))
        .sum();
    // An empty sum, and one of a single n-gram, is -0.
    nats / std::f64::consts::LN_2 + 0.0
}

/// The mean BLEU of each sequence against all others, of n-grams up to `n` (4 is customary): near 1
/// if they are alike, near 0 if they have nothing in common. 0 for fewer than two sequences.
///
/// Sources: Zhu et al., "Texygen: A Benchmarking Platform for Text Generation Models", 2018;
/// Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation", 2002, with
/// the reference length nearest to the sequence's; a precision of 0 counts as 0.1 matches (Chen and
/// Cherry, "A Systematic Comparison of Smoothing Techniques for Sentence-Level BLEU", 2014,
/// smoothing 1). So it does where a sequence is too short for n-grams, as in Texygen: two equal
/// sequences of 2 have 0.1^(1/2) with n = 4.
pub fn self_bleu<T: Ord>(sequences: &[&[T]], n: usize) -> f64 {
    if sequences.len() < 2 || n == 0 {
        return 0.0;
    }
    let mut logarithms = vec![0.0; sequences.len()];
    for n in 1..=n {
        let most = most_often(sequences, n);
        for (owner, sequence) in sequences.iter().enumerate() {
            let counts = count(&[sequence], n);
            let matched = |(gram, count): (&&[T], &usize)| {
                let most = most.get(gram).map_or(0, |most| most.among_others(owner));
                (*count).min(most)
            };
            let matches: usize = counts.iter().map(matched).sum();
            let all: usize = counts.values().sum();
            let matches = if matches == 0 { 0.1 } else { matches as f64 };
            logarithms[owner] += ln64(matches / all.max(1) as f64);
        }
    }
    let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.len()).collect();
    let bleu = |(owner, logarithm): (usize, &f64)| {
        brevity_penalty(&lengths, owner) * exp64(logarithm / n as f64)
    };
    let scores = logarithms.iter().enumerate().map(bleu);
    scores.sum::<f64>() / sequences.len() as f64
}

/// How often an n-gram occurs in the sequence that has it most often, and in the next one.
#[derive(Debug, Default)]
struct Most {
    first: (usize, usize),
    second: usize,
}

impl Most {
    fn among_others(&self, owner: usize) -> usize {
        let (first, count) = self.first;
        if first == owner { self.second } else { count }
    }
}

fn most_often<'a, T: Ord>(sequences: &[&'a [T]], n: usize) -> BTreeMap<&'a [T], Most> {
    let mut all: BTreeMap<&[T], Most> = BTreeMap::new();
    for (owner, sequence) in sequences.iter().enumerate() {
        for (gram, count) in count(&[sequence], n) {
            let most = all.entry(gram).or_default();
            if count > most.first.1 {
                most.second = most.first.1;
                most.first = (owner, count);
            } else {
                most.second = most.second.max(count);
            }
        }
    }
    all
}

/// `min(1, e^(1 - r / c))` for the other length r that is nearest to c, the shorter of two.
fn brevity_penalty(lengths: &[usize], owner: usize) -> f64 {
    let own = lengths[owner];
    let others = lengths.iter().enumerate().filter(|(i, _)| *i != owner);
    let nearest = others
        .map(|(_, length)| (length.abs_diff(own), *length))
        .min();
    let reference = nearest.map_or(own, |(_, length)| length);
    if own == 0 {
        return 0.0;
    }
    exp64((1.0 - reference as f64 / own as f64).min(0.0))
}

fn count<'a, T: Ord>(sequences: &[&'a [T]], n: usize) -> BTreeMap<&'a [T], usize> {
    let mut counts = BTreeMap::new();
    if n > 0 {
        for gram in sequences.iter().flat_map(|sequence| sequence.windows(n)) {
            *counts.entry(gram).or_default() += 1;
        }
    }
    counts
}

fn ratio(part: usize, all: usize) -> f64 {
    if all == 0 {
        0.0
    } else {
        part as f64 / all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() < 1e-12,
            "{found}, expected {expected}"
        );
    }

    #[test]
    fn distinct_and_repetition_by_hand() {
        // "the cat the cat sat": 3 of 5 words differ; pairs: the-cat, cat-the, the-cat, cat-sat, 3
        // of 4 differ; triples: all 3 differ.
        let text = words("the cat the  cat\nsat");
        near(distinct(&[&text], 1), 0.6);
        near(distinct(&[&text], 2), 0.75);
        near(repetition(&text, 2), 0.25);
        near(repetition(&text, 3), 0.0);
        near(repetition(&text, 6), 0.0);
        near(distinct(&[&[1, 2][..], &[1, 2], &[3]], 1), 0.6);
        near(distinct::<u32>(&[], 2), 0.0);
        near(distinct(&[&[1][..]], 0), 0.0);
    }

    #[test]
    fn repetition_rate_by_hand() {
        // 1 2 3 4 1 2 3 4: repeated among different n-grams: 4 of 4; 12 23 34 of 12 23 34 41;
        // 123 234 of 123 234 341 412; 1234 of 1234 2341 3412 4123.
        let expected: f64 = 1.0 * (3.0 / 4.0) * (2.0 / 4.0) * (1.0 / 4.0);
        near(
            repetition_rate(&[1, 2, 3, 4, 1, 2, 3, 4]),
            expected.powf(0.25),
        );
        near(repetition_rate(&[1, 2, 3, 4, 5]), 0.0);
        near(repetition_rate(&[7; 50]), 1.0);
    }

    #[test]
    fn entropy_by_hand() {
        // Shares 1/2, 1/4, 1/4: 1/2 + 2/4 + 2/4 bits.
        near(entropy(&[&[1, 1, 2, 3][..]], 1), 1.5);
        near(entropy(&[&[1, 1, 1][..]], 2), 0.0);
        near(entropy(&[&[1, 2][..], &[3, 4]], 2), 1.0);
        for nothing in [entropy(&[&[1][..]], 1), entropy(&[&[1][..]], 2)] {
            assert_eq!(nothing.to_bits(), 0.0f64.to_bits());
        }
    }

    #[test]
    fn self_bleu_by_hand() {
        near(self_bleu(&[&[1, 2, 3, 4, 5][..], &[1, 2, 3, 4, 5]], 4), 1.0);
        // abcd against abxy: words 2 of 4, pairs 1 of 3, one length: sqrt(1/6) each.
        let (a, b) = (words("a b c d"), words("a b x y"));
        near(self_bleu(&[&a, &b], 2), (1.0f64 / 6.0).sqrt());
        // ab against abcd: precision 1, penalty e^(1 - 4/2); abcd against ab: words 2 of 4, pairs 1
        // of 3, no penalty.
        let (a, b) = (words("a b"), words("a b c d"));
        let expected = ((-1.0f64).exp() + (1.0f64 / 6.0).sqrt()) / 2.0;
        near(self_bleu(&[&a, &b], 2), expected);
        // Clipping: "a a a" has one a in common with "a b c". Pairs: none, 0.1 of 2 counts.
        let (a, b) = (words("a a a"), words("a b c"));
        near(self_bleu(&[&a, &b], 2), (1.0 / 3.0 * 0.05f64).sqrt());
        near(self_bleu(&[&a], 4), 0.0);
        // Equals without triples: 0.1 of one counts, and of one 4-gram.
        near(self_bleu(&[&[1, 2][..], &[1, 2]], 4), 0.01f64.powf(0.25));
        near(self_bleu(&[&[1, 2][..], &[1, 2]], 2), 1.0);
    }
}
