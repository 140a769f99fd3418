//! A tiny llama model, every key and tensor of which a test can change before it is written.
#![allow(dead_code)] // not every program uses all of it

use std::path::Path;
use std::sync::Arc;

use lightgpt::control::Control;
use lightgpt::gguf::{LoadOptions, Source, Strings, Value, Writer};
use lightgpt::model::{Model, OpenOptions};
use lightgpt::quant::Format;
use lightgpt::sampler::{Sampler, SamplerOptions};
use lightgpt::session::{Action, GenerateOptions, Session, SessionOptions};
use lightgpt::team::{Team, TeamOptions};

/// The sizes of a model.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub dim: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub k_dim: usize,
    pub v_dim: usize,
    pub hidden: usize,
    pub layers: usize,
    pub vocab: usize,
    pub context: usize,
}

/// Small enough to try every byte of it.
pub const SMALL: Sizes = Sizes {
    dim: 16,
    heads: 4,
    kv_heads: 2,
    k_dim: 4,
    v_dim: 4,
    hidden: 24,
    layers: 2,
    vocab: 11,
    context: 64,
};

/// A tensor of the model in the making.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub name: String,
    pub format: Format,
    pub dims: Vec<u64>,
    pub bytes: Arc<[u8]>,
}

/// A model in the making.
#[derive(Debug, Clone)]
pub struct Tiny {
    pub keys: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
}

impl Tiny {
    /// A valid model of f32 weights.
    pub fn new(sizes: Sizes) -> Self {
        Self::with(sizes, &|_| Format::F32)
    }

    /// A valid model; `format` gives each matrix, by name, the format of its random blocks.
    pub fn with(sizes: Sizes, format: &dyn Fn(&str) -> Format) -> Self {
        let mut tiny = Self {
            keys: Vec::new(),
            tensors: Vec::new(),
        };
        tiny.set("general.architecture", "llama");
        tiny.set("llama.context_length", sizes.context as u32);
        tiny.set("llama.embedding_length", sizes.dim as u32);
        tiny.set("llama.block_count", sizes.layers as u32);
        tiny.set("llama.feed_forward_length", sizes.hidden as u32);
        tiny.set("llama.attention.head_count", sizes.heads as u32);
        tiny.set("llama.attention.head_count_kv", sizes.kv_heads as u32);
        tiny.set("llama.attention.key_length", sizes.k_dim as u32);
        tiny.set("llama.attention.value_length", sizes.v_dim as u32);
        tiny.set("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
        tiny.set("llama.rope.dimension_count", sizes.k_dim as u32);
        tiny.set("llama.rope.freq_base", 10000f32);
        for (name, rows, columns) in matrices(sizes) {
            let dims = [columns as u64, rows as u64];
            let format = format(&name);
            let bytes = blocks(&name, format, rows * columns);
            tiny.add(&name, format, &dims, bytes);
        }
        for name in norms(sizes) {
            let ones: Vec<u8> = (0..sizes.dim).flat_map(|_| 1f32.to_le_bytes()).collect();
            tiny.add(&name, Format::F32, &[sizes.dim as u64], ones);
        }
        tiny
    }

    /// Adds the keys of a tokenizer of `vocab` tokens: three control tokens, then letters.
    pub fn with_tokenizer(mut self, vocab: usize) -> Self {
        let text = |id: usize| match id {
            0 => "<unk>".into(),
            1 => "<s>".into(),
            2 => "</s>".into(),
            _ => format!("t{id}"),
        };
        let texts: Vec<String> = (0..vocab).map(text).collect();
        let tokens: Strings = texts.iter().map(String::as_str).collect();
        let kind = |id: usize| [2, 3, 3].get(id).copied().unwrap_or(1);
        self.set("tokenizer.ggml.model", "llama");
        self.set("tokenizer.ggml.tokens", tokens);
        self.set("tokenizer.ggml.scores", vec![0f32; vocab]);
        self.set(
            "tokenizer.ggml.token_type",
            (0..vocab).map(kind).collect::<Vec<i32>>(),
        );
        self
    }

    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        let value = value.into();
        match self.keys.iter_mut().find(|entry| entry.0 == key) {
            Some(entry) => entry.1 = value,
            None => self.keys.push((key.into(), value)),
        }
        self
    }

    pub fn unset(&mut self, key: &str) -> &mut Self {
        self.keys.retain(|entry| entry.0 != key);
        self
    }

    pub fn add(&mut self, name: &str, format: Format, dims: &[u64], bytes: Vec<u8>) -> &mut Self {
        let (name, dims) = (name.into(), dims.into());
        self.tensors.push(Tensor {
            name,
            format,
            dims,
            bytes: bytes.into(),
        });
        self
    }

    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors
            .iter_mut()
            .find(|tensor| tensor.name == name)
            .expect("it is there")
    }

    /// Gives a tensor of f32 these values.
    pub fn fill(&mut self, name: &str, values: &[f32]) -> &mut Self {
        self.tensor(name).bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        for (key, value) in &self.keys {
            writer.set(key, value.clone()).expect("a good key");
        }
        for Tensor {
            name,
            format,
            dims,
            bytes,
        } in &self.tensors
        {
            writer
                .tensor(name, *format, dims, &bytes[..])
                .expect("a good tensor");
        }
        writer.to_bytes()
    }

    /// The model, opened from memory.
    pub fn open(&self) -> Arc<Model> {
        open(self.bytes(), LoadOptions::default())
    }
}

pub fn open(bytes: Vec<u8>, load: LoadOptions) -> Arc<Model> {
    let options = OpenOptions {
        load,
        ..OpenOptions::default()
    };
    Model::open(Source::Owned(bytes), &options, &mut Control::none()).expect("a valid model")
}

/// The model in the file at `path`.
pub fn open_path(path: &Path) -> Arc<Model> {
    let options = OpenOptions::default();
    Model::open(Source::Path(path), &options, &mut Control::none()).expect("a valid model")
}

pub fn team(threads: usize) -> Arc<Team> {
    Team::new(TeamOptions {
        threads,
        alone_ns: Some(0),
        ..TeamOptions::default()
    })
    .expect("threads start")
}

pub fn session(model: &Arc<Model>, team: &Arc<Team>) -> Session {
    Session::new(model.clone(), team.clone(), &SessionOptions::default()).expect("it fits")
}

/// Name, rows and columns of every matrix.
pub fn matrices(sizes: Sizes) -> Vec<(String, usize, usize)> {
    let Sizes {
        dim,
        heads,
        kv_heads,
        k_dim,
        v_dim,
        hidden,
        ..
    } = sizes;
    let mut all = vec![("token_embd.weight".into(), sizes.vocab, dim)];
    for layer in 0..sizes.layers {
        for (part, rows, columns) in [
            ("attn_q", heads * k_dim, dim),
            ("attn_k", kv_heads * k_dim, dim),
            ("attn_v", kv_heads * v_dim, dim),
            ("attn_output", dim, heads * v_dim),
            ("ffn_gate", hidden, dim),
            ("ffn_up", hidden, dim),
            ("ffn_down", dim, hidden),
        ] {
            all.push((format!("blk.{layer}.{part}.weight"), rows, columns));
        }
    }
    all.push(("output.weight".into(), sizes.vocab, dim));
    all
}

/// Names of all norms.
pub fn norms(sizes: Sizes) -> Vec<String> {
    let of_layer = |layer| ["attn_norm", "ffn_norm"].map(|n| format!("blk.{layer}.{n}.weight"));
    let mut all: Vec<String> = (0..sizes.layers).flat_map(of_layer).collect();
    all.push("output_norm.weight".into());
    all
}

/// Bytes that differ from seed to seed.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self, below: usize) -> usize {
        // The multiplier and increment of Knuth's MMIX generator.
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % below
    }
}

/// `values` random weights of some hundredths.
pub fn blocks(seed: &str, format: Format, values: usize) -> Vec<u8> {
    let mut noise = Noise(
        seed.bytes()
            .fold(7, |seed, byte| seed * 31 % 1_000_003 + u64::from(byte)),
    );
    if format == Format::F32 {
        let weight = |i: usize| (i as f32 - 128.0) / 512.0;
        return (0..values)
            .flat_map(|_| weight(noise.next(256)).to_le_bytes())
            .collect();
    }
    let mut bytes = vec![0; format.bytes(values as u64).expect("whole blocks") as usize];
    bytes
        .iter_mut()
        .for_each(|byte| *byte = noise.next(256) as u8);
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        set_scales(format, block, 0x1400); // 2^-10
    }
    bytes
}

/// Sets every f16 (and bf16, and f32) in a block that scales others to `half`.
pub fn set_scales(format: Format, block: &mut [u8], half: u16) {
    let places: &[usize] = match format {
        Format::F32 => {
            let value = lightgpt::float::f16_to_f32(half);
            return block.copy_from_slice(&value.to_le_bytes());
        }
        Format::BF16 => {
            let value = lightgpt::float::f16_to_f32(half);
            return block.copy_from_slice(&lightgpt::float::bf16_from_f32(value).to_le_bytes());
        }
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => &[0, 2],
        Format::Q2_K => &[80, 82],
        Format::Q3_K => &[108],
        Format::Q6_K => &[208],
        Format::TQ1_0 => &[52],
        Format::TQ2_0 => &[64],
        Format::IQ1_M => {
            // Four bits at the top of each 16.
            for i in 0..4 {
                let top = &mut block[49 + 2 * i];
                *top = *top & 15 | ((half >> (4 * i)) as u8) << 4;
            }
            return;
        }
        // These have bytes for scales, none of which is NaN or infinite.
        Format::MXFP4 => {
            let bits = lightgpt::float::f16_to_f32(half).to_bits();
            block[0] = ((bits >> 23) as u8).saturating_add(1);
            return;
        }
        Format::NVFP4 => {
            let value = lightgpt::float::f16_to_f32(half).abs();
            return block[..4].fill((1024.0 * value).min(126.0) as u8);
        }
        _ => &[0],
    };
    for &at in places {
        block[at..at + 2].copy_from_slice(&half.to_le_bytes());
    }
}

/// The bits of a session's logits.
pub fn bits(session: &mut Session) -> Vec<u32> {
    let logits = session.logits(&mut Control::none());
    let logits = logits.expect("what was fed has logits");
    logits.iter().map(|logit| logit.to_bits()).collect()
}

/// Generates so many tokens, whatever they are.
pub fn generate(session: &mut Session, seed: u64, tokens_max: usize) {
    let sampler = SamplerOptions {
        temperature: 1.0,
        seed: Some(seed),
        ..Default::default()
    };
    let options = GenerateOptions {
        tokens_max,
        ignore_end: true,
        ..GenerateOptions::new(Sampler::new(&sampler).expect("valid options"))
    };
    session
        .generate(&options, &mut Control::none(), &mut |_| Action::Continue)
        .expect("room for so many tokens");
}
