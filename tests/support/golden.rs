//! Golden cases: their folders, and how near to them logits are.
#![allow(dead_code)] // not every program uses all of it

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

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
    pub logits: Vec<f32>, // (positions of all sequences, vocab)
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
        let bytes = fs::read(folder.join("logits.f32")).expect("a case has logits");
        let (words, rest) = bytes.as_chunks::<4>();
        let case = Case {
            architecture: about["arch"].as_str().expect("a name").into(),
            vocab: shape[1] as usize,
            tokens: lists("tokens"),
            greedy: lists("greedy"),
            logits: words.iter().map(|&word| f32::from_le_bytes(word)).collect(),
        };
        let positions: usize = case.tokens.iter().map(Vec::len).sum();
        assert_eq!(shape[0] as usize, positions, "{folder:?}: positions");
        assert_eq!(
            case.logits.len(),
            positions * case.vocab,
            "{folder:?}: size"
        );
        assert!(rest.is_empty() && case.tokens.len() == case.greedy.len());
        case
    }
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
