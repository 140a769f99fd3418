//! Known attacks on whole models, row 37 of the table, second part: the architecture, the vocabulary
//! and the tensors lie; then every prefix of a model, and every byte of its head changed.
//!
//! Each must give exactly the expected status with a message that names the place, within 100 ms
//! and 64 MiB of allocations; what opens nevertheless must run or say why not.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/attack.rs"]
mod attack;
#[path = "support/hostile.rs"]
mod hostile;
#[path = "support/tiny.rs"]
mod tiny;

use lightgpt::error::Code;
use lightgpt::gguf::{Strings, Value};
use lightgpt::quant::Format;

use attack::LOADERS;
use hostile::{accepted, bad_key, broken, open, refused, run};
use tiny::{SMALL, Tiny, matrices, norms};

#[test]
fn row_37_architecture_and_experts() {
    const KEY: &str = "general.architecture";
    let named = |value: Value| move |tiny: &mut Tiny| _ = tiny.set(KEY, value.clone());
    for name in ["rwkv9", "", "LLAMA", "llama\0", "../llama"] {
        let places = [KEY, "unknown architecture", name, "this build knows: llama"];
        refused("r37-arch", named(name.into()), Code::Unsupported, &places);
    }
    broken(
        "r37-arch-kind",
        named(7u32.into()),
        &[KEY, "expected string, found u32"],
    );
    broken(
        "r37-arch-utf8",
        named(Value::String([0xff].into())),
        &[KEY, "expected UTF-8"],
    );
    broken(
        "r37-arch-missing",
        |tiny| _ = tiny.unset(KEY),
        &[KEY, "missing"],
    );
    // Whatever is wrong besides, an unknown architecture is what the user should hear of.
    let bare = |tiny: &mut Tiny| {
        tiny.keys.retain(|(key, _)| key == KEY);
        tiny.tensors.clear();
        tiny.set(KEY, "rwkv9");
    };
    refused("r37-arch-bare", bare, Code::Unsupported, &[KEY, "rwkv9"]);
    for (experts, used, place) in [
        (8, 0, "expert_used_count"),
        (8, 9, "expert_used_count"),
        (8, u32::MAX, "expert_used_count"),
        (5000, 2, "expert_count"),
        (u32::MAX, 2, "expert_count"),
        (8, 2, "tensor 'blk.0.ffn_gate_inp.weight'"),
    ] {
        let change = |tiny: &mut Tiny| {
            tiny.set("llama.expert_count", experts);
            tiny.set("llama.expert_used_count", used);
        };
        broken("r37-experts", change, &[place]);
    }
    for (key, value) in [
        ("expert_group_count", 3),
        ("expert_group_count", 9),
        ("expert_group_used_count", 2),
        ("expert_feed_forward_length", u32::MAX),
        ("expert_shared_feed_forward_length", u32::MAX),
        ("expert_shared_count", u32::MAX),
    ] {
        let change = |tiny: &mut Tiny| {
            tiny.set("llama.expert_count", 8u32);
            tiny.set("llama.expert_used_count", 2u32);
            tiny.set(&format!("llama.{key}"), value);
        };
        let place = key.replace("shared_count", "shared_feed_forward_length");
        broken("r37-experts", change, &[&place]);
    }
    let gate = |tiny: &mut Tiny| {
        tiny.set("llama.expert_count", 8u32);
        tiny.set("llama.expert_used_count", 2u32);
        tiny.set("llama.expert_gating_func", 7u32);
    };
    let places = ["llama.expert_gating_func", "found 7"];
    refused("r37-experts", gate, Code::Unsupported, &places);
    bad_key("expert_count", "8", &["expected u32, found string"]);
    accepted("r37-no-experts", |tiny| {
        _ = tiny.set("llama.expert_count", 0u32)
    })
    .unwrap();
}

#[test]
fn row_37_vocabulary_and_embedding() {
    for tokens in [1, 10, 12, 4000] {
        let change = |tiny: &mut Tiny| *tiny = tiny.clone().with_tokenizer(tokens);
        let found = format!("found {tokens}");
        let places = [
            "key 'tokenizer.ggml.tokens' at offset ",
            "11 tokens",
            &found,
        ];
        broken("r37-vocab", change, &places);
        let change = |tiny: &mut Tiny| _ = tiny.set("llama.vocab_size", tokens as u32);
        let places = ["key 'llama.vocab_size' at offset ", "11, the rows", &found];
        broken("r37-vocab-size", change, &places);
    }
    accepted("r37-vocab-size", |tiny| {
        _ = tiny.set("llama.vocab_size", 11u32);
    })
    .unwrap();
    for key in ["scores", "token_type"] {
        let key = format!("tokenizer.ggml.{key}");
        let kinds = |tiny: &mut Tiny| {
            *tiny = tiny.clone().with_tokenizer(11);
            tiny.set(&key, vec![1u8; 11]);
        };
        broken("r30", kinds, &[&key, "found array of u8"]);
    }
    let none = |tiny: &mut Tiny| {
        *tiny = tiny.clone().with_tokenizer(11);
        tiny.set("tokenizer.ggml.tokens", Strings::default());
    };
    broken("r37-no-tokens", none, &["tokenizer.ggml.tokens", "found 0"]);
}

#[test]
fn row_37_tensors() {
    let names = matrices(SMALL)
        .into_iter()
        .map(|(name, ..)| name)
        .chain(norms(SMALL));
    for name in names {
        let place = format!("tensor '{name}'");
        let is_tied = name == "output.weight";
        if is_tied {
            accepted("r37-tied", |tiny| _ = tiny.remove(&name)).unwrap();
        } else {
            broken(
                "r37-missing",
                |tiny| _ = tiny.remove(&name),
                &[&place, "not found"],
            );
        }
        let swapped = |tiny: &mut Tiny| tiny.tensor(&name).dims = vec![1, 1, 2, 2];
        let mut short = Tiny::new(SMALL);
        let len = short.tensor(&name).bytes.len();
        let shorter = |tiny: &mut Tiny| {
            swapped(tiny);
            tiny.tensor(&name).bytes = vec![0; 16].into();
        };
        broken(
            "r37-shape",
            shorter,
            &[&place, "expected the shape", "found [1, 1, 2, 2]"],
        );
        let longer = |tiny: &mut Tiny| {
            let tensor = tiny.tensor(&name);
            tensor.dims[0] += 1;
            let values: u64 = tensor.dims.iter().product();
            tensor.bytes = vec![0; values as usize * 4].into();
        };
        broken("r37-longer", longer, &[&place, "expected the shape"]);
        let integers = |tiny: &mut Tiny| tiny.tensor(&name).format = Format::I32;
        let code = Code::Unsupported;
        refused(
            "r37-format",
            integers,
            code,
            &[&place, "cannot compute with the format I32"],
        );
        let deeper = |tiny: &mut Tiny| {
            let tensor = tiny.tensor(&name);
            tensor.dims.resize(4, 1);
            assert_eq!(tensor.bytes.len(), len);
        };
        accepted("r37-deeper", deeper).unwrap();
    }
}

#[test]
fn row_37_tensors_that_may_be_there_and_may_not() {
    let bias = |dims: u64| {
        let zeros = vec![0; dims as usize * 4];
        move |t: &mut Tiny| _ = t.add("blk.0.attn_k.bias", Format::F32, &[dims], zeros.clone())
    };
    accepted("r37-bias", bias(8)).unwrap();
    broken(
        "r37-bias",
        bias(16),
        &["tensor 'blk.0.attn_k.bias'", "expected the shape"],
    );
    for stray in [
        "blk.2.attn_norm.weight",
        "blk.00.attn_q.weight",
        "output_norm.bias",
        "x",
    ] {
        let change = |tiny: &mut Tiny| _ = tiny.add(stray, Format::F32, &[16], vec![0; 64]);
        let place = format!("tensor '{stray}'");
        refused(
            "r37-stray",
            change,
            Code::Unsupported,
            &[&place, "not part of this architecture"],
        );
    }
    let ignored = |tiny: &mut Tiny| {
        tiny.add(
            "blk.0.attn_rot_embd.weight",
            Format::F32,
            &[16],
            vec![0xff; 64],
        );
    };
    accepted("r37-ignored", ignored).unwrap();
}

/// One layer, so that there are not too many bytes.
fn shortest() -> (Vec<u8>, usize) {
    let mut tiny = Tiny::new(tiny::Sizes { layers: 1, ..SMALL }).with_tokenizer(11);
    let model = tiny.open();
    let data: usize = tiny
        .tensors
        .iter()
        .map(|t| t.bytes.len().next_multiple_of(32))
        .sum();
    run(&model, 0).unwrap();
    let bytes = tiny.set("general.name", "n").bytes();
    let head = bytes.len() - data;
    (bytes, head)
}

#[test]
fn every_prefix_of_a_model() {
    let (bytes, _) = shortest();
    for len in 0..=bytes.len() {
        for loader in LOADERS {
            let outcome = open("model-prefix", &bytes[..len], loader).and_then(|m| run(&m, 16));
            let code = outcome.map_err(|e| e.code());
            let expected = if len == bytes.len() {
                Ok(())
            } else {
                Err(Code::Format)
            };
            assert_eq!(code, expected, "{len} of {} {loader:?}", bytes.len());
        }
    }
}

#[test]
fn every_head_byte_of_a_model_changed() {
    let (bytes, head) = shortest();
    let (mut opened, mut refused) = (0, 0);
    for at in 0..head {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] = value;
            for loader in LOADERS {
                let model = open("model-head", &changed, loader);
                let context = model
                    .as_ref()
                    .map_or(0, |model| model.network().unwrap().spec.context.min(16));
                let ran = model.and_then(|model| run(&model, context));
                opened += u32::from(ran.is_ok());
                refused += u32::from(ran.is_err());
                if let Err(e) = ran {
                    let expected = [Code::Format, Code::Unsupported, Code::NonFinite];
                    assert!(
                        expected.contains(&e.code()),
                        "byte {at} set to {value}: {e}"
                    );
                    assert!(!e.to_string().is_empty());
                }
            }
        }
    }
    assert!(
        opened > 500 && refused > 500,
        "{opened} opened, {refused} refused"
    );
}
