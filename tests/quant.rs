//! Decoding and encoding against bytes and values made by other programs.

// Helpers of tests may fail loudly, and a skipped test says so.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)]

use std::{fs, path::Path};

use lightgpt::quant::{Format, decode, encode, is_computable};

mod support;

fn floats(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect()
}

#[test]
fn decoded_values_equal_the_reference_to_the_bit() {
    let Some(folder) = support::shared("decoded_values", "data/quant") else {
        return;
    };
    for format in Format::all().filter(|&format| is_computable(format) && format != Format::F32) {
        let name = format.name();
        let mut cases = 0;
        for suffix in ["", ".rand"] {
            let bytes = folder.join(format!("{name}{suffix}.bin"));
            if !bytes.exists() {
                eprintln!("SKIPPED {name}{suffix}: not there");
                continue;
            }
            let expected = floats(&folder.join(format!("{name}{suffix}.f32")));
            let mut values = vec![f32::NAN; expected.len()];
            decode(format, &fs::read(bytes).unwrap(), &mut values).unwrap();
            for (i, (value, expected)) in values.iter().zip(&expected).enumerate() {
                let same = value.to_bits() == expected.to_bits();
                assert!(
                    same,
                    "{name}{suffix} [{i}]: {value:e}, expected {expected:e}"
                );
            }
            cases += values.len();
        }
        println!("{name}: {cases} values");
    }
}

#[test]
fn encoded_bytes_equal_the_reference() {
    let Some(folder) = support::shared("encoded_bytes", "data/quant") else {
        return;
    };
    let x = floats(&folder.join("src.f32"));
    for (format, file) in [
        (Format::F16, "F16.bin"),
        (Format::BF16, "BF16.bin"),
        (Format::Q8_0, "Q8_0.noimatrix.bin"),
        (Format::Q4_0, "Q4_0.noimatrix.bin"),
    ] {
        let expected = fs::read(folder.join(file)).unwrap();
        let mut bytes = vec![0; expected.len()];
        encode(format, &x, &mut bytes).unwrap();
        assert!(bytes == expected, "{file}");
    }
}
