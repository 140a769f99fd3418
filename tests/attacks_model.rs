//! Known attacks on the layer above the container, rows 16, 31, 33, 36 and 37 of the table: files
//! that are whole as containers and whose keys or tensors lie about the model.
//!
//! Each is a valid tiny model with one thing changed, opened through a map, a copy and memory; it
//! must give exactly the expected status with a message that names the place, within 100 ms and
//! 64 MiB of allocations.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/attack.rs"]
mod attack;
#[path = "support/hostile.rs"]
mod hostile;
#[path = "support/tiny.rs"]
mod tiny;

use lightgpt::error::Code;
use lightgpt::gguf::Value;
use lightgpt::quant::Format;

use attack::Loader;
use hostile::{accepted, bad_key, broken, open, refused, run};
use tiny::{SMALL, Tiny};

const NONE: &[(&str, f32)] = &[];

#[test]
fn the_unchanged_model_runs() {
    accepted("r37-valid", |_| {}).unwrap();
    accepted("r37-valid-tokenizer", |tiny| {
        *tiny = tiny.clone().with_tokenizer(11)
    })
    .unwrap();
}

#[test]
fn row_16_and_33_block_count() {
    let key = "block_count";
    bad_key(
        key,
        "2",
        &[
            "key 'llama.block_count' at offset ",
            ": expected u32, found string",
        ],
    );
    bad_key(key, 2f32, &["expected u32, found f32"]);
    bad_key(key, vec![2u32], &["expected u32, found array of u32"]);
    bad_key(key, true, &["expected u32, found bool"]);
    bad_key(key, 0u32, &["expected 1 to 1024, found 0"]);
    bad_key(key, -1i32, &["fits u32, found -1"]);
    bad_key(key, 1025u32, &["expected 1 to 1024, found 1025"]);
    bad_key(key, u32::MAX, &["expected 1 to 1024, found 4294967295"]);
    bad_key(key, 1u64 << 32, &["fits u32, found 4294967296"]);
    let count = |count: u32| move |tiny: &mut Tiny| _ = tiny.set("llama.block_count", count);
    for more in [3, 513, 1024] {
        broken(
            "r33-more",
            count(more),
            &["tensor 'blk.2.attn_norm.weight'", "not found"],
        );
    }
    refused(
        "r33-fewer",
        count(1),
        Code::Unsupported,
        &["tensor 'blk.1.", "not part"],
    );
    let missing = |tiny: &mut Tiny| _ = tiny.unset("llama.block_count");
    broken(
        "r33-missing",
        missing,
        &["key 'llama.block_count'", "missing"],
    );
}

#[test]
fn row_31_token_ids() {
    let named = |key: &'static str, value: Value| {
        move |tiny: &mut Tiny| {
            *tiny = tiny.clone().with_tokenizer(11);
            tiny.set(key, value.clone());
        }
    };
    for name in [
        "bos",
        "eos",
        "eot",
        "eom",
        "unknown",
        "padding",
        "seperator",
        "mask",
    ] {
        let key: &'static str = format!("tokenizer.ggml.{name}_token_id").leak();
        broken(
            "r31",
            named(key, 11u32.into()),
            &[key, "one of 11 tokens, found 11"],
        );
        broken(
            "r31",
            named(key, u32::MAX.into()),
            &[key, "found 4294967295"],
        );
        broken("r31", named(key, (-1i32).into()), &[key, "found -1"]);
        broken("r31", named(key, "2".into()), &[key, "found string"]);
        accepted("r31-last", named(key, 10u32.into())).unwrap();
    }
    // The ids that a file does not name have defaults; a vocabulary of one token has none of them.
    let mut one = Tiny::new(tiny::Sizes { vocab: 1, ..SMALL }).with_tokenizer(1);
    let model = one.open();
    let tokenizer = model.tokenizer().unwrap();
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.is_end(2)),
        (None, None, false)
    );
    run(&model, 0).unwrap();
    let bytes = one.set("tokenizer.ggml.eos_token_id", 1u32).bytes();
    let e = open("r31-one", &bytes, Loader::Map).unwrap_err();
    assert_eq!(e.code(), Code::Format, "{e}");
}

#[test]
fn row_37_heads() {
    bad_key("attention.head_count", 0u32, &["found 0"]);
    bad_key("attention.head_count", u32::MAX, &["found 4294967295"]);
    bad_key("attention.head_count", 3u32, &["a divisor of 3, found 2"]);
    bad_key(
        "attention.head_count_kv",
        0u32,
        &["expected 1 to 4, found 0"],
    );
    bad_key(
        "attention.head_count_kv",
        5u32,
        &["expected 1 to 4, found 5"],
    );
    bad_key(
        "attention.head_count_kv",
        3u32,
        &["a divisor of 4, found 3"],
    );
    bad_key("attention.head_count_kv", u32::MAX, &["found 4294967295"]);
    // A number for each of the two layers is well-formed.
    for key in ["attention.head_count_kv", "feed_forward_length"] {
        let key = format!("llama.{key}");
        let change = |tiny: &mut Tiny| _ = tiny.set(&key, vec![2u32, 2]);
        let places = [
            &*key,
            " at offset ",
            "one u32 for all layers, found array of u32",
        ];
        refused("r37-per-layer", change, Code::Unsupported, &places);
    }
    bad_key(
        "attention.head_count_kv",
        vec![2i32],
        &["expected u32, found array of i32"],
    );
    for (heads, place) in [(2, "blk.0.attn_q"), (8, "blk.0.attn_q")] {
        let change = |tiny: &mut Tiny| _ = tiny.set("llama.attention.head_count", heads as u32);
        broken("r37-heads", change, &[place, "expected the shape"]);
    }
    let change = |tiny: &mut Tiny| _ = tiny.set("llama.attention.head_count_kv", 4u32);
    broken(
        "r37-kv-heads",
        change,
        &["blk.0.attn_k.weight", "[16, 16, 1, 1], found [16, 8, 1, 1]"],
    );
}

#[test]
fn row_37_widths() {
    bad_key(
        "embedding_length",
        0u32,
        &["expected 1 to 16777216, found 0"],
    );
    bad_key("embedding_length", u32::MAX, &["found 4294967295"]);
    bad_key("embedding_length", 64.5f32, &["expected u32, found f32"]);
    bad_key(
        "feed_forward_length",
        0u32,
        &["expected 1 to 16777216, found 0"],
    );
    bad_key("feed_forward_length", u32::MAX, &["found 4294967295"]);
    bad_key(
        "feed_forward_length",
        vec![24u32; 3],
        &["found array of u32"],
    );
    bad_key("context_length", 0u32, &["expected 1 to 16777216, found 0"]);
    bad_key("context_length", u32::MAX, &["found 4294967295"]);
    for (key, length) in [
        ("attention.key_length", "key"),
        ("attention.value_length", "value"),
    ] {
        bad_key(key, 0u32, &[length, "found 0"]);
        bad_key(key, u32::MAX, &[length, "found 4294967295"]);
        bad_key(key, (1u32 << 22) + 1, &["expected 1 to 4194304"]);
    }
    let derived = |dim: u32| {
        move |tiny: &mut Tiny| {
            tiny.unset("llama.attention.key_length");
            tiny.unset("llama.attention.value_length");
            tiny.set("llama.embedding_length", dim);
        }
    };
    broken(
        "r37-divides",
        derived(18),
        &["attention.head_count", "a divisor of 18, found 4"],
    );
    broken("r37-zero", derived(0), &["embedding_length", "found 0"]);
    broken(
        "r37-huge",
        derived(u32::MAX - 3),
        &["embedding_length", "found 4294967292"],
    );
    broken(
        "r37-shape",
        derived(20),
        &["tensor 'token_embd.weight'", "[20, 11, 1, 1]"],
    );
    for key in ["context_length", "embedding_length", "feed_forward_length"] {
        let key = format!("llama.{key}");
        broken(
            "r37-missing",
            |tiny| _ = tiny.unset(&key),
            &[&key, "missing"],
        );
    }
    let missing = |tiny: &mut Tiny| _ = tiny.unset("llama.attention.head_count");
    broken(
        "r37-missing",
        missing,
        &["'llama.attention.head_count'", "missing"],
    );
}

#[test]
fn row_37_products_that_overflow() {
    // Each value is within its limit; the tensors that they ask for would have 2^48 values.
    let sizes = |sizes: &'static [(&'static str, u32)]| {
        move |tiny: &mut Tiny| {
            sizes
                .iter()
                .for_each(|(key, value)| _ = tiny.set(&format!("llama.{key}"), *value))
        }
    };
    const WIDE: &[(&str, u32)] = &[
        ("attention.head_count", 1 << 23),
        ("attention.head_count_kv", 1 << 23),
        ("attention.key_length", 2),
        ("attention.value_length", 2),
        ("rope.dimension_count", 2),
        ("block_count", 1024),
        ("context_length", 1 << 24),
    ];
    broken(
        "r37-wide",
        sizes(WIDE),
        &["blk.0.attn_q.weight", "[16, 16777216, 1, 1]"],
    );
    const HIDDEN: &[(&str, u32)] = &[("feed_forward_length", 1 << 24), ("block_count", 1024)];
    broken(
        "r37-hidden",
        sizes(HIDDEN),
        &["blk.0.ffn_gate.weight", "[16, 16777216, 1, 1]"],
    );
    const DIM: &[(&str, u32)] = &[("embedding_length", 1 << 24)];
    broken(
        "r37-dim",
        sizes(DIM),
        &["token_embd.weight", "[16777216, 11, 1, 1]"],
    );
}

#[test]
fn row_37_numbers() {
    const POSITIVE: &str = "expected a finite number above 0";
    let key = "attention.layer_norm_rms_epsilon";
    for epsilon in [f32::NAN, f32::INFINITY, -1.0, 0.0, -0.0] {
        bad_key(key, epsilon, &[POSITIVE]);
    }
    bad_key(key, 1e-60f64, &[POSITIVE, "found 0"]);
    bad_key(key, 1e60f64, &[POSITIVE, "found inf"]);
    bad_key(key, 1u32, &["expected f32, found u32"]);
    for base in [f32::NAN, f32::INFINITY, -10.0, 0.0, 1.0] {
        bad_key(
            "rope.freq_base",
            base,
            &["expected a finite number above 1"],
        );
    }
    bad_key("rope.freq_base", "10000", &["expected f32, found string"]);
    bad_key(
        "rope.dimension_count",
        0u32,
        &["even number from 2 to 4, found 0"],
    );
    bad_key(
        "rope.dimension_count",
        3u32,
        &["even number from 2 to 4, found 3"],
    );
    bad_key(
        "rope.dimension_count",
        6u32,
        &["even number from 2 to 4, found 6"],
    );
    bad_key("rope.dimension_count", u32::MAX, &["found 4294967295"]);
    let odd = |tiny: &mut Tiny| {
        tiny.unset("llama.rope.dimension_count");
        tiny.set("llama.attention.key_length", 3u32);
    };
    broken(
        "r37-odd",
        odd,
        &["rope.dimension_count", "even number from 2 to 3, found 3"],
    );
    let float = |key: &'static str, value: f32| move |t: &mut Tiny| _ = t.set(key, value);
    const EPSILON: &str = "llama.attention.layer_norm_rms_epsilon";
    for extreme in [f32::MAX, f32::MIN_POSITIVE, f32::from_bits(1)] {
        accepted("r37-epsilon", float(EPSILON, extreme)).unwrap();
    }
    for extreme in [f32::MAX, 1.0f32.next_up()] {
        accepted("r37-base", float("llama.rope.freq_base", extreme)).unwrap();
    }
}

#[test]
fn row_37_rope_scaling() {
    let scaling = |kind: &'static str, floats: &'static [(&'static str, f32)]| {
        move |tiny: &mut Tiny| {
            tiny.set("llama.rope.scaling.type", kind);
            floats
                .iter()
                .for_each(|(key, x)| _ = tiny.set(&format!("llama.rope.{key}"), *x))
        }
    };
    for kind in ["longrope", "dynamic", "", "LINEAR"] {
        let places = [
            "key 'llama.rope.scaling.type'",
            "none, linear or yarn",
            kind,
        ];
        refused(
            "r37-scaling",
            scaling(kind, NONE),
            Code::Unsupported,
            &places,
        );
    }
    bad_key("rope.scaling.type", 1u32, &["expected string, found u32"]);
    bad_key("rope.scaling.factor", 4u32, &["expected f32, found u32"]);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -4.0] {
        for key in ["scaling.factor", "scale_linear"] {
            let floats: &'static [_] = vec![(key, bad)].leak();
            for kind in ["none", "linear", "yarn"] {
                let places = ["rope.scaling.factor", "expected a finite number above 0"];
                broken("r37-factor", scaling(kind, floats), &places);
            }
        }
        for key in ["yarn_beta_fast", "yarn_beta_slow", "attn_factor"] {
            let key: &'static str = format!("scaling.{key}").leak();
            let floats: &'static [_] = vec![(key, bad)].leak();
            broken(
                "r37-yarn",
                scaling("yarn", floats),
                &[key, "finite number above 0"],
            );
        }
    }
    let original = |tiny: &mut Tiny| {
        scaling("yarn", NONE)(tiny);
        tiny.set("llama.rope.scaling.original_context_length", 0u32);
    };
    broken(
        "r37-original",
        original,
        &["original_context_length", "found 0"],
    );
    let extremes = [f32::MAX, f32::MIN_POSITIVE, f32::from_bits(1), 1.0];
    for extreme in extremes {
        let factor: &'static [_] = vec![("scaling.factor", extreme)].leak();
        for kind in ["none", "linear", "yarn"] {
            let _ = accepted("r37-extreme", scaling(kind, factor));
        }
        for key in ["yarn_beta_fast", "yarn_beta_slow", "attn_factor"] {
            let key: &'static str = format!("scaling.{key}").leak();
            for other in extremes {
                let floats: &'static [_] = vec![(key, extreme), ("scaling.factor", other)].leak();
                let _ = accepted("r37-extreme-yarn", scaling("yarn", floats));
            }
        }
    }
}

#[test]
fn row_37_rope_factors() {
    let factors = |dims: &'static [u64], values: &'static [f32]| {
        move |tiny: &mut Tiny| {
            let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            tiny.add("rope_freqs.weight", Format::F32, dims, bytes);
        }
    };
    const PLACE: &str = "tensor 'rope_freqs.weight'";
    for bad in [0.0, -0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let values: &'static [f32] = vec![1.0, bad].leak();
        broken(
            "r37-factors",
            factors(&[2], values),
            &[PLACE, "finite factors above 0"],
        );
    }
    broken(
        "r37-factors",
        factors(&[1], &[1.0]),
        &[PLACE, "[2, 1, 1, 1], found [1, 1, 1, 1]"],
    );
    broken(
        "r37-factors",
        factors(&[4], &[1.0; 4]),
        &[PLACE, "found [4, 1, 1, 1]"],
    );
    for extreme in [f32::MAX, f32::MIN_POSITIVE, f32::from_bits(1)] {
        let values: &'static [f32] = vec![extreme; 2].leak();
        let _ = accepted("r37-factors-extreme", factors(&[2], values));
    }
}
