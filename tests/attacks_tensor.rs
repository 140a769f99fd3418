//! Known attacks on GGUF loaders, those of the container part that are about tensors: dimensions,
//! sizes, offsets, names and formats. The rules are those of `attacks_file.rs`.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/attack.rs"]
mod attack;

use attack::{F32, I8, Raw, accepted, broken};

#[test]
fn row_06_dimension_counts() {
    for dimensions in [0, 5, 255, u32::MAX] {
        let raw = Raw::new(1, 0).string("w").u32(dimensions).raw(&[1; 64]);
        let found = format!("found {dimensions}");
        broken(
            "r06",
            raw,
            &[
                "tensor 'w'",
                "dimensions at offset 33",
                "expected 1 to 4",
                &found,
            ],
        );
    }
}

#[test]
fn rows_09_and_10_sizes_that_wrap_together() {
    let third = 1 << 61; // F32: 2^63 bytes each
    let raw = (0..3).fold(Raw::new(3, 0), |raw, i| {
        raw.tensor(&format!("t{i}"), &[third - 8], F32, i << 20)
    });
    broken(
        "r09",
        raw.data(64),
        &["tensor 't0'", "expected 9223372036854775776 bytes"],
    );
    let dim = 0x7fff_ffff_ffff_ffc0;
    let raw = Raw::new(2, 0)
        .tensor("a", &[dim], I8, 0)
        .tensor("b", &[dim], I8, dim);
    broken("r10", raw.data(528), &["tensor 'a'", "offset 0", "bytes"]);
}

#[test]
fn row_11_products_that_wrap() {
    // 2^20 * (2^42 + 1) * 4 bytes is 4 MiB modulo 2^64.
    let raw = Raw::new(1, 0)
        .tensor("w", &[1 << 20, (1 << 42) + 1], F32, 0)
        .data(4 << 20);
    broken(
        "r11-bytes",
        raw,
        &["tensor 'w'", "below 2^64", "4398046511105"],
    );
    let raw = Raw::new(1, 0)
        .tensor("w", &[1 << 32, 1 << 32, 1 << 32, 1], I8, 0)
        .data(64);
    broken("r11-values", raw, &["tensor 'w'", "below 2^64"]);
}

#[test]
fn row_12_dimensions() {
    let one = |dims: &[u64], format| Raw::new(1, 0).tensor("w", dims, format, 0).data(64);
    let max = i32::MAX as u64 * 4;
    broken(
        "r12-minus",
        one(&[u64::MAX], I8),
        &["tensor 'w'", "18446744073709551615"],
    );
    broken(
        "r12-minus-two",
        one(&[u64::MAX, 2], I8),
        &["tensor 'w'", "below 2^64"],
    );
    broken(
        "r12-zero",
        one(&[0], F32),
        &["tensor 'w'", "above 0", "[0, 1, 1, 1]"],
    );
    broken(
        "r12-zero-rows",
        one(&[4, 0], F32),
        &["tensor 'w'", "above 0"],
    );
    broken(
        "r12-int-max",
        one(&[max, max], F32),
        &["tensor 'w'", "below 2^64"],
    );
    broken(
        "r12-i64",
        one(&[1 << 61], 27),
        &["tensor 'w'", "below 2^64"],
    );
    broken(
        "r12-block",
        one(&[33, 32], 2),
        &["tensor 'w'", "Q4_0 blocks of 32", "found 33"],
    );
    broken(
        "r12-super-block",
        one(&[128], 12),
        &["tensor 'w'", "Q4_K blocks of 256"],
    );
}

#[test]
fn row_14_extents() {
    let at = |offset, data| Raw::new(1, 0).tensor("w", &[8], F32, offset).data(data);
    accepted("r14-fits", at(32, 64));
    broken(
        "r14-by-one",
        at(32, 63),
        &["tensor 'w'", "32 bytes at offset 32", "has 127 bytes"],
    );
    broken(
        "r14-far",
        at(8 << 30, 64),
        &["tensor 'w'", "offset 8589934592"],
    );
    broken(
        "r14-unaligned",
        at(31, 64),
        &["tensor 'w'", "aligned to 32, found 31"],
    );
    broken(
        "r14-minus-one",
        at(u64::MAX, 64),
        &["tensor 'w'", "found 18446744073709551615"],
    );
    broken(
        "r14-before-data",
        at(u64::MAX - 31, 64),
        &["tensor 'w'", "offset 18446744073709551584"],
    );
    let two = |b| {
        Raw::new(2, 0)
            .tensor("a", &[16], F32, 0)
            .tensor("b", &[8], F32, b)
            .data(96)
    };
    accepted("r14-side-by-side", two(64));
    broken(
        "r14-overlap",
        two(32),
        &["tensor 'b'", "offset 32 inside 'a'", "ends at 64"],
    );
    broken("r14-same", two(0), &["no overlap"]);
}

#[test]
fn row_19_tensors() {
    let twice = Raw::new(2, 0)
        .tensor("w", &[8], F32, 0)
        .tensor("w", &[8], F32, 32)
        .data(64);
    broken("r19-names", twice, &["tensor 'w'", "twice"]);
    let one = |name: &str| Raw::new(1, 0).tensor(name, &[8], F32, 0).data(32);
    accepted("r19-64", one(&"n".repeat(64)));
    broken(
        "r19-65",
        one(&"n".repeat(65)),
        &["tensor number 0", "64 bytes at most, found 65"],
    );
    broken(
        "r19-unnamed",
        one(""),
        &["tensor number 0 at offset 24", "empty"],
    );
    for id in [4, 5, 31, 32, 33, 36, 37, 38, 43, 1 << 31, u32::MAX] {
        let raw = Raw::new(1, 0).tensor("w", &[256], id, 0).data(1024);
        broken(
            "r19-type",
            raw,
            &["tensor 'w'", "format at offset 45", &format!("found {id}")],
        );
    }
}

#[test]
fn row_20_cut_tensor_data() {
    let raw = |data| Raw::new(1, 0).tensor("w", &[1024], F32, 0).data(data);
    accepted("r20-whole", raw(4096));
    for data in [0, 1, 2048, 4095] {
        broken(
            "r20-cut",
            raw(data),
            &["tensor 'w'", "expected 4096 bytes at offset 0"],
        );
    }
}

#[test]
fn row_21_dimensions_above_i32() {
    for dim in [1 << 31, (1 << 32) + 1, 1 << 40] {
        let raw = Raw::new(1, 0).tensor("w", &[dim], I8, 0).data(64);
        broken(
            "r21",
            raw,
            &["tensor 'w'", &format!("expected {dim} bytes")],
        );
    }
}
