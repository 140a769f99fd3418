//! Known attacks on GGUF loaders, rows 1 to 22 of the container part without those on tensors:
//! the public records of what crashed others, each rebuilt here byte by byte, opened through a
//! map, a copy and memory.
//!
//! Each must give exactly the expected status with a message that names the place, within 100 ms
//! and 64 MiB of allocations.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/attack.rs"]
mod attack;

use lightgpt::control::Control;
use lightgpt::error::Code;
use lightgpt::gguf::{Gguf, LoadOptions, Metadata, Source, Strings, Writer};
use lightgpt::quant::Format;

use attack::{ARRAY, LOADERS, Loader, Raw, STRING, U32, accepted, broken, open, read_all, refused};

/// A small model with every kind of thing in its head, and the length that it needs.
fn tiny() -> (Vec<u8>, usize) {
    let mut writer = Writer::new();
    writer.set("general.architecture", "llama").unwrap();
    writer.set("llama.block_count", 1u32).unwrap();
    writer.set("flag", true).unwrap();
    writer.set("scores", vec![0.5f32, -1.0]).unwrap();
    let tokens: Strings = ["a", "bc", ""].into_iter().collect();
    writer.set("tokens", tokens).unwrap();
    writer
        .tensor("w", Format::Q4_0, &[32, 2], vec![1; 36])
        .unwrap();
    writer.tensor("b", Format::F32, &[3], vec![2; 12]).unwrap();
    (writer.to_bytes(), 20) // 20 bytes of padding behind the last tensor
}

#[test]
fn row_01_every_prefix() {
    broken(
        "r01-magic",
        Raw(b"GGUF".to_vec()),
        &["version at offset 4", "found 0"],
    );
    let (bytes, padding) = tiny();
    for len in 0..=bytes.len() {
        for loader in LOADERS {
            let opened = open("r01-prefix", &bytes[..len], loader);
            let code = opened.as_ref().map(read_all).map_err(|e| e.code());
            let whole = len + padding >= bytes.len();
            assert_eq!(
                code,
                if whole { Ok(()) } else { Err(Code::Format) },
                "{len} {loader:?}"
            );
        }
    }
}

#[test]
fn every_head_byte_changed() {
    let (bytes, _) = tiny();
    let head = bytes.len() - 96;
    for i in 0..head {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[i] = value;
            let codes = LOADERS.map(|loader| match open("head-byte", &changed, loader) {
                Ok(gguf) => {
                    read_all(&gguf);
                    None
                }
                Err(e) => {
                    assert!(!e.to_string().is_empty());
                    Some(e.code())
                }
            });
            assert!(
                matches!(codes[0], None | Some(Code::Format | Code::Unsupported)),
                "{i}"
            );
            assert_eq!(
                (codes[0], codes[0]),
                (codes[1], codes[2]),
                "byte {i} set to {value}"
            );
        }
    }
}

#[test]
fn random_damage() {
    let (bytes, _) = tiny();
    let mut state = 1u64;
    let mut random = |below: usize| {
        // The multiplier and increment of Knuth's MMIX generator.
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for _ in 0..20_000 {
        let mut damaged = bytes.clone();
        for _ in 0..1 + random(4) {
            let at = random(damaged.len());
            damaged[at] = random(256) as u8;
        }
        damaged.truncate(damaged.len() - random(2) * random(bytes.len()));
        let options = LoadOptions::default();
        let opened = Gguf::open(Source::Owned(damaged), &options, &mut Control::none());
        match opened {
            Ok(gguf) => read_all(&gguf),
            Err(e) => assert!(matches!(e.code(), Code::Format | Code::Unsupported), "{e}"),
        }
    }
}

#[test]
fn row_02_tensor_counts() {
    for tensors in [u64::MAX, u64::MAX / 33 + 2, u64::MAX / 56 + 2, 1 << 40] {
        broken(
            "r02",
            Raw::new(tensors, 0),
            &["tensor directory at offset 24", "found 0"],
        );
    }
}

#[test]
fn row_03_key_counts() {
    for keys in [u64::MAX, u64::MAX / 14 + 2, u64::MAX / 48 + 2, 500_000_000] {
        broken("r03", Raw::new(0, keys), &["keys at offset 24", "found 0"]);
    }
}

#[test]
fn row_04_string_lengths() {
    for len in [u64::MAX, 1 << 63, 200] {
        let pad = [0; 40];
        let key = Raw::new(0, 1).u64(len).raw(&pad);
        broken("r04-key", key, &["key number 0", "at offset 32"]);
        let value = Raw::new(0, 1).key("k", STRING).u64(len).raw(&pad);
        broken(
            "r04-value",
            value,
            &["key 'k'", "string at offset 45", "found 40"],
        );
        let item = Raw::new(0, 1)
            .key("k", ARRAY)
            .u32(STRING)
            .u64(1)
            .u64(len)
            .raw(&pad);
        broken(
            "r04-item",
            item,
            &["key 'k'", "item 0", "at offset 57", "found 40"],
        );
        let name = Raw::new(1, 0).u64(len).raw(&pad);
        broken("r04-tensor", name, &["tensor number 0", "at offset 32"]);
    }
}

#[test]
fn row_05_array_lengths() {
    for count in [1 << 61, 1 << 60, u64::MAX / 64, u64::MAX, 41] {
        for kind in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] {
            let raw = Raw::new(0, 1)
                .key("k", ARRAY)
                .u32(kind)
                .u64(count)
                .raw(&[0; 40]);
            broken("r05", raw, &["key 'k'", "at offset 49", "found 40"]);
        }
    }
}

#[test]
fn row_07_values_that_break_off() {
    let cut = Raw::new(0, 2)
        .key("a", U32)
        .u32(1)
        .key("b", ARRAY)
        .u32(STRING)
        .u64(1)
        .u64(3);
    broken(
        "r07-cut",
        cut.raw(b"xy"),
        &["key 'b'", "item 0", "expected 3 bytes, found 2"],
    );
    let kind = Raw::new(0, 1).key("b", ARRAY).u32(13).u64(1).raw(&[0; 9]);
    broken(
        "r07-kind",
        kind,
        &["key 'b'", "value type at offset 37", "found 13"],
    );
}

#[test]
fn row_08_missing_and_empty_values() {
    let missing = Raw::new(0, 2).key("a", STRING).string("").key("b", STRING);
    broken(
        "r08-missing",
        missing,
        &["key 'b'", "length of the string", "found 0"],
    );
    let empty = Raw::new(0, 2)
        .key("a", STRING)
        .string("")
        .key("b", ARRAY)
        .u32(STRING)
        .u64(0);
    let gguf = accepted("r08-empty", empty);
    assert_eq!(gguf.metadata().str("a").unwrap(), Some(""));
    assert!(gguf.metadata().strings("b").unwrap().unwrap().is_empty());
    let e = gguf.metadata().required("c", Metadata::str).unwrap_err();
    assert!(e.code() == Code::Format && e.to_string().contains("key 'c'"));
}

#[test]
fn row_13_alignment() {
    const KEY: &str = "general.alignment";
    for alignment in [0, 13, 1 << 31, u32::MAX] {
        let raw = Raw::new(0, 1).key(KEY, U32).u32(alignment);
        let found = format!("found {alignment}");
        broken(
            "r13",
            raw,
            &["key 'general.alignment'", "power of two", &found],
        );
    }
    broken(
        "r13-i32",
        Raw::new(0, 1).key(KEY, 5).u32(32),
        &[KEY, "found i32"],
    );
    broken(
        "r13-string",
        Raw::new(0, 1).key(KEY, STRING).string("32"),
        &[KEY, "found string"],
    );
    let raw = Raw::new(0, 1).key(KEY, ARRAY).u32(U32).u64(1).u32(32);
    broken("r13-array", raw, &[KEY, "found array of u32"]);
}

#[test]
fn row_15_huge_claims_in_tiny_files() {
    let raw = Raw::new(1 << 62, 1 << 62).raw(&[0xff; 32]);
    broken("r15-counts", raw, &["keys at offset 24", "found 32"]);
    let v1 = Raw(b"GGUF".to_vec()).u32(1).u32(0).u32(1).u32(u32::MAX);
    refused("r15-v1", v1, Code::Unsupported, &["version 1"]);
}

#[test]
fn row_17_nested_arrays() {
    let nested = |depth: usize| {
        let raw = Raw::new(0, 1).key("k", ARRAY);
        (1..depth)
            .fold(raw, |raw, _| raw.u32(ARRAY).u64(1))
            .u32(U32)
            .u64(1)
            .u32(7)
    };
    accepted("r17-four", nested(4));
    broken(
        "r17-five",
        nested(5),
        &["key 'k'", "nested array at offset 73", "4 levels"],
    );
    broken(
        "r17-deep",
        nested(100_000),
        &["key 'k'", "nested array", "4 levels"],
    );
}

#[test]
fn row_18_magic_and_version() {
    let head = |magic: &[u8], version| Raw(magic.to_vec()).u32(version).u64(0).u64(0);
    broken(
        "r18-magic",
        head(b"FUGG", 3),
        &["magic at offset 0", "expected 'GGUF', found 'FUGG'"],
    );
    broken(
        "r18-v0",
        head(b"GGUF", 0),
        &["version at offset 4", "found 0"],
    );
    let swapped = 3u32.swap_bytes();
    for (version, text) in [(1, "version 1"), (4, "found 4"), (swapped, "big-endian")] {
        refused(
            "r18",
            head(b"GGUF", version),
            Code::Unsupported,
            &["version at offset 4", text],
        );
    }
    accepted("r18-v2", head(b"GGUF", 2));
}

#[test]
fn row_19_keys() {
    let twice = Raw::new(0, 2).key("k", U32).u32(1).key("k", U32).u32(2);
    broken("r19-twice", twice, &["key 'k'", "offset 41", "twice"]);
    broken(
        "r19-empty",
        Raw::new(0, 1).key("", U32).u64(1),
        &["key number 0 at offset 24", "empty"],
    );
    broken(
        "r19-nul",
        Raw::new(0, 1).key("a\0b", U32).u32(1),
        &["key number 0 at offset 24", "without NUL", r"'a\0b'"],
    );
    broken(
        "r19-nul-tensor",
        Raw::new(1, 0).tensor("a\0b", &[1], 0, 0).data(4),
        &["tensor number 0 at offset 24", "without NUL"],
    );
    let raw = Raw::new(0, 1).u64(1).raw(&[0xff]).u32(U32).u32(0);
    broken("r19-utf8", raw, &["key number 0 at offset 24", "UTF-8"]);
    let long = "k".repeat(1 << 16);
    broken(
        "r19-long",
        Raw::new(0, 1).key(&long, U32).u32(1),
        &["key number 0", "65535 bytes"],
    );
    for kind in [13, u32::MAX] {
        let found = format!("found {kind}");
        broken(
            "r19-kind",
            Raw::new(0, 1).key("k", kind).u64(0),
            &["key 'k'", "value type", &found],
        );
    }
    let raw = Raw::new(0, 1).key("k", 7).raw(&[2]);
    broken(
        "r19-bool",
        raw,
        &["key 'k'", "bool at offset 37", "expected 0 or 1, found 2"],
    );
    let raw = Raw::new(0, 1)
        .key("k", ARRAY)
        .u32(7)
        .u64(3)
        .raw(&[1, 0xff, 0]);
    broken(
        "r19-bools",
        raw,
        &["key 'k'", "bool at offset 50", "found 255"],
    );
}

#[test]
fn row_22_split_claims() {
    let split = |count: u32, number: u32| {
        Raw::new(0, 2)
            .key("split.count", U32)
            .u32(count)
            .key("split.no", U32)
            .u32(number)
    };
    for count in [65_535, u32::MAX] {
        let found = format!("found {count}");
        refused(
            "r22-count",
            split(count, 0),
            Code::Unsupported,
            &["split.count", &found],
        );
    }
    broken(
        "r22-number",
        split(2, 2),
        &["split.no", "expected below 2, found 2"],
    );
    broken("r22-alone", split(0, 5), &["split.no", "found 5"]);
    let kind = Raw::new(0, 1)
        .key("split.count", STRING)
        .string("../../etc/passwd");
    broken(
        "r22-kind",
        kind,
        &["split.count", "expected u64, found string"],
    );

    // What a split file is called decides, never what it holds; memory has no name.
    let e = open("r22-memory", &split(2, 0).0, Loader::Memory).unwrap_err();
    assert_eq!(e.code(), Code::Unsupported, "{e}");
    for name in [
        "r22-..",
        "r22-00003-of-00002",
        "r22-00001-of-00003",
        "r22-1-of-2",
    ] {
        let e = open(name, &split(2, 0).0, Loader::Map).unwrap_err();
        assert_eq!(e.code(), Code::Format, "{e}");
        assert!(e.to_string().contains("must be called"), "{e}");
    }
    let e = open("r22-00001-of-00002", &split(2, 0).0, Loader::Map).unwrap_err();
    assert_eq!(e.code(), Code::Io, "{e}");
    assert!(e.to_string().contains("r22-00002-of-00002.gguf"), "{e}");
}
