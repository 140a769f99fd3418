//! Golden cases: their folders, and how near to them logits are.
#![allow(dead_code)] // not every program uses all of it

use std::fs;
use std::path::{Path, PathBuf};

use lightgpt::error::Result;
use serde_json::Value;

use crate::timeline::Timeline;

/// The largest difference of a logit that models of floats may show: other orders of the same float32
/// sums differ by 3e-5 here, any mistake by far more.
pub const TOLERANCE: f32 = 1e-3;

/// The project's own cases.
pub fn own_cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut folders: Vec<PathBuf> = fs::read_dir(&root)
        .expect("tests/golden is part of the checkout")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.join("case.json").is_file())
        .collect();
    folders.sort();
    folders
}

/// A golden case: the files of its folder.
pub struct Case {
    /// `general.architecture`
    pub architecture: String,
    pub vocab: usize,
    pub tokens: Vec<Vec<u32>>,
    pub greedy: Vec<Vec<u32>>,
    /// Of an encoder the rows of its last layer: (positions of all sequences, vocab or dim)
    pub logits: Vec<f32>,
    /// What an encoder makes of each sequence.
    pub pooled: Option<Pooled>,
}

/// What an encoder makes of sequences: embeddings, or scores of pairs.
pub struct Pooled {
    /// Where the second text of each pair begins.
    pub splits: Vec<usize>,
    pub values: Vec<f32>, // (sequences, width)
}

impl Case {
    pub fn read(folder: &Path) -> Case {
        let about = json(&folder.join("case.json"));
        let lists = |key: &str| -> Vec<Vec<u32>> {
            about[key]
                .as_array()
                .expect("sequences")
                .iter()
                .map(ids)
                .collect()
        };
        let shape = ids(&about["logits"]["shape"]);
        let pooled = (about["kind"] == "encoder").then(|| Pooled {
            splits: ids(&about["splits"])
                .iter()
                .map(|&at| at as usize)
                .collect(),
            values: values(&folder.join("pooled.f32")),
        });
        let case = Case {
            architecture: about["arch"].as_str().expect("a name").into(),
            vocab: shape[1] as usize,
            tokens: lists("tokens"),
            greedy: lists("greedy"),
            logits: values(&folder.join("logits.f32")),
            pooled,
        };
        let positions: usize = case.tokens.iter().map(Vec::len).sum();
        assert_eq!(shape[0] as usize, positions, "{folder:?}: positions");
        assert_eq!(
            case.logits.len(),
            positions * case.vocab,
            "{folder:?}: size"
        );
        assert_eq!(case.tokens.len(), case.greedy.len());
        case
    }

    /// What the model makes of sequence `i`, and what it should: logits of a decoder; of an encoder
    /// the rows of the last layer, then what it makes of them.
    pub fn pair(&self, i: usize, timeline: &mut Timeline) -> (Vec<f32>, Vec<f32>) {
        let (made, expected) = self.try_pair(i, timeline);
        (made.expect("finite logits"), expected)
    }

    /// The same; `NONFINITE` of a decoder that gives no finite logits.
    pub fn try_pair(&self, i: usize, timeline: &mut Timeline) -> (Result<Vec<f32>>, Vec<f32>) {
        let before: usize = self.tokens[..i].iter().map(Vec::len).sum();
        let rows = before * self.vocab..(before + self.tokens[i].len()) * self.vocab;
        let mut expected = self.logits[rows].to_vec();
        let Some(pooled) = &self.pooled else {
            return (timeline.try_feed(&self.tokens[i]), expected);
        };
        let width = pooled.values.len() / self.tokens.len();
        expected.extend(&pooled.values[i * width..][..width]);
        let made = timeline.encode(&self.tokens[i], pooled.splits[i]);
        (Ok(made), expected)
    }
}

/// The floats of a file.
fn values(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).expect("a case has it");
    let (words, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty(), "{path:?}: whole floats");
    words.iter().map(|&word| f32::from_le_bytes(word)).collect()
}

pub fn json(path: &Path) -> Value {
    let text = fs::read(path).expect("readable");
    serde_json::from_slice(&text).expect("JSON")
}

pub fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

pub fn floats(value: &Value) -> Vec<f32> {
    let values = value.as_array().expect("a list");
    values.iter().map(|value| number(value) as f32).collect()
}

pub fn ids(value: &Value) -> Vec<u32> {
    let values = value.as_array().expect("a list");
    values.iter().map(|value| number(value) as u32).collect()
}

/// Whether a difference is more than rounding (or not a number).
pub fn is_off(difference: f32) -> bool {
    difference.is_nan() || difference > TOLERANCE
}

/// The largest difference; NaN if any is.
pub fn largest(made: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(made.len(), expected.len(), "number of logits");
    let mut worst = 0f32;
    for (made, expected) in made.iter().zip(expected) {
        let difference = (made - expected).abs();
        if difference.is_nan() || difference > worst {
            worst = difference;
        }
        if worst.is_nan() {
            break;
        }
    }
    worst
}
