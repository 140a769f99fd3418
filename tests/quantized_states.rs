//! Models that keep states, with quantized matrices: near to the same models in f32, and the same
//! bits for every ISA and any chunks.
#![allow(clippy::unwrap_used)] // tests

#[path = "support/timeline.rs"]
mod timeline;
#[path = "support/tiny.rs"]
mod tiny;

use lightgpt::gguf::{LoadOptions, Source, Value};
use lightgpt::kernel;
use lightgpt::quant::{self, Format};

use timeline::Timeline;
use tiny::{Tiny, blocks};

const DIM: usize = 64;
const INNER: usize = 96;
const VOCAB: usize = 40;
const LAYERS: usize = 2;
const TAPS: usize = 4;
const ROWS: usize = 5;

/// What is special of a kind: architecture, keys, matrices and vectors of a layer.
struct Kind {
    name: &'static str,
    keys: &'static [(&'static str, u32)],
    /// Rows and columns.
    matrices: &'static [(&'static str, usize, usize)],
    /// Dimensions, and about what values are.
    vectors: &'static [(&'static str, &'static [u64], f32)],
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "mamba",
        keys: &[("ssm.time_step_rank", 32), ("ssm.state_size", ROWS as u32)],
        matrices: &[
            ("ssm_in", 2 * INNER, DIM),
            ("ssm_x", 32 + 2 * ROWS, INNER),
            ("ssm_dt", INNER, 32),
            ("ssm_out", DIM, INNER),
        ],
        vectors: &[
            ("ssm_conv1d.weight", &[TAPS as u64, INNER as u64], 0.5),
            ("ssm_conv1d.bias", &[INNER as u64], 0.1),
            ("ssm_dt.bias", &[INNER as u64], 0.1),
            ("ssm_a", &[ROWS as u64, INNER as u64], -0.5),
            ("ssm_d", &[INNER as u64], 1.0),
        ],
    },
    Kind {
        name: "mamba2",
        keys: &[
            ("ssm.time_step_rank", 4),
            ("ssm.state_size", ROWS as u32),
            ("ssm.group_count", 2),
        ],
        matrices: &[
            ("ssm_in", 2 * INNER + 4 * ROWS + 4, DIM),
            ("ssm_out", DIM, INNER),
        ],
        vectors: &[
            (
                "ssm_conv1d.weight",
                &[TAPS as u64, (INNER + 4 * ROWS) as u64],
                0.5,
            ),
            ("ssm_dt.bias", &[4], 0.1),
            ("ssm_a", &[1, 4], -0.5),
            ("ssm_d", &[1, 4], 1.0),
            ("ssm_norm.weight", &[INNER as u64 / 2, 2], 1.0),
        ],
    },
    Kind {
        name: "qwen35",
        keys: &[
            ("ssm.time_step_rank", 4),
            ("ssm.state_size", ROWS as u32),
            ("ssm.group_count", 2),
            ("full_attention_interval", 9),
            ("attention.head_count", 2),
            ("feed_forward_length", 32),
        ],
        matrices: &[
            ("attn_qkv", INNER + 4 * ROWS, DIM),
            ("attn_gate", INNER, DIM),
            ("ssm_beta", 4, DIM),
            ("ssm_alpha", 4, DIM),
            ("ssm_out", DIM, INNER),
            ("ffn_gate", 32, DIM),
            ("ffn_up", 32, DIM),
            ("ffn_down", DIM, 32),
        ],
        vectors: &[
            (
                "ssm_conv1d.weight",
                &[TAPS as u64, (INNER + 4 * ROWS) as u64],
                0.5,
            ),
            ("ssm_dt.bias", &[4], 0.1),
            ("ssm_a", &[4], -0.5),
            ("ssm_norm.weight", &[INNER as u64 / 4], 1.0),
            ("post_attention_norm.weight", &[DIM as u64], 1.0),
        ],
    },
    Kind {
        name: "lfm2",
        keys: &[
            ("shortconv.l_cache", TAPS as u32),
            ("attention.head_count", 2),
            ("feed_forward_length", 32),
        ],
        matrices: &[
            ("shortconv.in_proj", 3 * DIM, DIM),
            ("shortconv.out_proj", DIM, DIM),
            ("ffn_gate", 32, DIM),
            ("ffn_up", 32, DIM),
            ("ffn_down", DIM, 32),
        ],
        vectors: &[
            ("shortconv.conv.weight", &[TAPS as u64, DIM as u64], 0.5),
            ("ffn_norm.weight", &[DIM as u64], 1.0),
        ],
    },
];

/// A model with matrices in Q8_0, or in f32 of the same values.
fn model(kind: &Kind, format: Format) -> Vec<u8> {
    let mut tiny = Tiny {
        keys: Vec::new(),
        tensors: Vec::new(),
    };
    let key = |name: &str| format!("{}.{name}", kind.name);
    tiny.set("general.architecture", kind.name);
    for (name, value) in [
        ("context_length", 128),
        ("embedding_length", DIM as u32),
        ("block_count", LAYERS as u32),
        ("ssm.conv_kernel", TAPS as u32),
        ("ssm.inner_size", INNER as u32),
    ]
    .iter()
    .chain(kind.keys)
    {
        tiny.set(&key(name), *value);
    }
    // No layer attends.
    let none = Value::from(vec![0i32; LAYERS]);
    tiny.set(&key("attention.head_count_kv"), none);
    if kind.name == "qwen35" {
        tiny.set(&key("attention.head_count_kv"), 1u32);
    }
    tiny.set(&key("attention.layer_norm_rms_epsilon"), 1e-5f32);
    add_matrix(&mut tiny, "token_embd.weight", (VOCAB, DIM), format);
    add_values(&mut tiny, "output_norm.weight", &[DIM as u64], 20.0);
    for layer in 0..LAYERS {
        let name = |part: &str| format!("blk.{layer}.{part}");
        add_values(&mut tiny, &name("attn_norm.weight"), &[DIM as u64], 1.0);
        for (part, rows, columns) in kind.matrices {
            let name = name(&format!("{part}.weight"));
            add_matrix(&mut tiny, &name, (*rows, *columns), format);
        }
        for (part, dims, about) in kind.vectors {
            add_values(&mut tiny, &name(part), dims, *about);
        }
    }
    tiny.bytes()
}

fn add_matrix(tiny: &mut Tiny, name: &str, (rows, columns): (usize, usize), format: Format) {
    let mut bytes = blocks(name, Format::Q8_0, rows * columns);
    if format == Format::F32 {
        let mut values = vec![0.0; rows * columns];
        quant::decode(Format::Q8_0, &bytes, &mut values).unwrap();
        bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    }
    tiny.add(name, format, &[columns as u64, rows as u64], bytes);
}

/// Values from half of `about` to one and a half.
fn add_values(tiny: &mut Tiny, name: &str, dims: &[u64], about: f32) {
    let len = dims.iter().product::<u64>() as usize;
    let value = |i: usize| about * (0.5 + (i * 37 % 64) as f32 / 64.0);
    let bytes = (0..len).flat_map(|i| value(i).to_le_bytes()).collect();
    tiny.add(name, Format::F32, dims, bytes);
}

fn tokens() -> Vec<u32> {
    (0..50).map(|i| i * 2_654_435 % VOCAB as u32).collect()
}

fn logits(file: &[u8], kernels: &'static kernel::Kernels, chunk: usize) -> Vec<f32> {
    let mut timeline = Timeline::open_with(Source::Owned(file.to_vec()), 2, kernels);
    let tokens = tokens();
    tokens
        .chunks(chunk)
        .flat_map(|part| timeline.feed(part))
        .collect()
}

#[test]
fn quantized_matrices_give_nearly_the_logits_of_floats() {
    for kind in &KINDS {
        let quantized = logits(&model(kind, Format::Q8_0), kernel::detect(), 50);
        let floats = logits(&model(kind, Format::F32), kernel::detect(), 50);
        let pairs = || quantized.iter().zip(&floats);
        let worst = pairs().fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        let largest = floats.iter().fold(0f32, |max, x| max.max(x.abs()));
        assert!(largest > 1.0, "{}: {largest}", kind.name);
        assert!(worst > 0.0, "{}: nothing was quantized", kind.name);
        assert!(
            worst < 0.06 * largest,
            "{}: {worst} of {largest}",
            kind.name
        );
    }
}

#[test]
fn neither_chunks_nor_the_isa_show() {
    for kind in &KINDS {
        let file = model(kind, Format::Q8_0);
        let truth = logits(&file, kernel::force(kernel::Isa::Scalar), 50);
        let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        for kernels in kernel::available() {
            for chunk in [1, 3, 17] {
                let made = logits(&file, kernels, chunk);
                let isa = kernels.isa().name();
                assert!(bits(&made) == bits(&truth), "{} {isa} {chunk}", kind.name);
            }
        }
    }
}

/// A file whose tensors do not fit its keys is refused with a word that says which.
#[test]
fn what_does_not_fit_is_named() {
    let bad = |kind: &Kind, key: &str, value: u32, place: &str| {
        let file = model(kind, Format::F32);
        let mut tiny = changed(&file);
        tiny.set(&format!("{}.{key}", kind.name), value);
        let options = lightgpt::model::OpenOptions {
            load: LoadOptions::default(),
            ..Default::default()
        };
        let control = &mut lightgpt::control::Control::none();
        let source = Source::Owned(tiny.bytes());
        let error = lightgpt::model::Model::open(source, &options, control).unwrap_err();
        let said = error.to_string();
        assert!(said.contains(place), "{key} {value}: {said}");
    };
    let [selective, heads, delta, convolution] = &KINDS;
    for value in [0, 65, u32::MAX] {
        bad(selective, "ssm.conv_kernel", value, "mamba.ssm.conv_kernel");
        bad(
            convolution,
            "shortconv.l_cache",
            value,
            "lfm2.shortconv.l_cache",
        );
    }
    bad(heads, "ssm.conv_kernel", 3, "blk.0.ssm_conv1d.weight");
    bad(heads, "ssm.inner_size", 0, "mamba2.ssm.inner_size");
    bad(heads, "ssm.inner_size", 98, "mamba2.ssm.time_step_rank");
    bad(heads, "ssm.inner_size", 192, "blk.0.ssm_conv1d.weight");
    bad(heads, "ssm.state_size", 1 << 24, "blk.0.ssm_conv1d.weight");
    bad(heads, "ssm.state_size", u32::MAX, "mamba2.ssm.state_size");
    bad(heads, "ssm.time_step_rank", 0, "mamba2.ssm.time_step_rank");
    bad(heads, "ssm.group_count", 3, "mamba2.ssm.group_count");
    bad(
        selective,
        "ssm.time_step_rank",
        0,
        "mamba.ssm.time_step_rank",
    );
    bad(
        selective,
        "ssm.time_step_rank",
        1 << 24,
        "blk.0.ssm_x.weight",
    );
    bad(delta, "ssm.group_count", 4, "blk.0.ssm_conv1d.weight");
    bad(delta, "full_attention_interval", 1, "blk.0.attn_q.weight");
}

/// A model to be changed.
fn changed(file: &[u8]) -> Tiny {
    let options = LoadOptions::default();
    let control = &mut lightgpt::control::Control::none();
    let gguf = lightgpt::gguf::Gguf::open(Source::Owned(file.to_vec()), &options, control).unwrap();
    let keys = gguf.metadata().iter();
    let mut tiny = Tiny {
        keys: keys
            .map(|(key, value)| (key.into(), value.clone()))
            .collect(),
        tensors: Vec::new(),
    };
    for tensor in gguf.tensors() {
        let dims = &tensor.dims[..tensor.dimensions as usize];
        tiny.add(&tensor.name, tensor.format, dims, tensor.bytes.to_vec());
    }
    tiny
}
