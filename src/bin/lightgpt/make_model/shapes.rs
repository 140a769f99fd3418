//! The table of shapes: sizes of published models, by their names. What is not a size (the
//! vocabulary's texts, scaling of positions) does not change what a pass costs, and is left out.

/// The sizes of a model, and what its file says beside them.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub name: &'static str,
    /// `general.architecture`
    pub architecture: &'static str,
    pub dim: u64,
    /// Width of the feed-forward network, or of each expert.
    pub hidden: u64,
    /// Networks of which a token takes a few.
    pub experts: Option<Experts>,
    pub layers: usize,
    pub heads: u64,
    pub kv_heads: u64,
    pub head_dim: u64,
    pub vocab: u64,
    /// The embedding is the output matrix too.
    pub tied: bool,
    pub qk_norms: QkNorms,
    pub norm_epsilon: f32,
    pub rope_base: f32,
    /// As published.
    pub context: u32,
    /// For tests: not shown in the help.
    pub hidden_name: bool,
}

/// Experts of each layer, and how many of them a token takes.
#[derive(Debug, Clone, Copy)]
pub struct Experts {
    pub count: u64,
    pub used: u64,
}

/// Norms of queries and keys.
#[derive(Debug, Clone, Copy)]
pub enum QkNorms {
    None,
    /// Of each head.
    OfHeads,
    /// Of all heads as one row.
    OfRows,
}

/// `tokenizer.ggml.model` of a vocabulary with scores.
pub const SCORED_TOKENIZER: &str = "llama";

const LLAMA: Shape = Shape {
    name: "",
    architecture: "llama",
    dim: 0,
    hidden: 0,
    experts: None,
    layers: 0,
    heads: 0,
    kv_heads: 0,
    head_dim: 64,
    vocab: 0,
    tied: true,
    qk_norms: QkNorms::None,
    norm_epsilon: 1e-5,
    rope_base: 10_000.0,
    context: 2048,
    hidden_name: false,
};

pub const SHAPES: [Shape; 8] = [
    Shape {
        name: "tinyllama-1.1b",
        dim: 2048,
        hidden: 5632,
        layers: 22,
        heads: 32,
        kv_heads: 4,
        vocab: 32_000,
        tied: false,
        ..LLAMA
    },
    Shape {
        name: "llama-3.2-1b",
        dim: 2048,
        hidden: 8192,
        layers: 16,
        heads: 32,
        kv_heads: 8,
        vocab: 128_256,
        rope_base: 500_000.0,
        context: 131_072,
        ..LLAMA
    },
    Shape {
        name: "qwen3-0.6b",
        architecture: "qwen3",
        dim: 1024,
        hidden: 3072,
        layers: 28,
        heads: 16,
        kv_heads: 8,
        head_dim: 128,
        vocab: 151_936,
        qk_norms: QkNorms::OfHeads,
        norm_epsilon: 1e-6,
        rope_base: 1_000_000.0,
        context: 40_960,
        ..LLAMA
    },
    Shape {
        name: "smollm2-135m",
        dim: 576,
        hidden: 1536,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        vocab: 49_152,
        rope_base: 100_000.0,
        context: 8192,
        ..LLAMA
    },
    Shape {
        name: "olmoe-1b-7b",
        architecture: "olmoe",
        dim: 2048,
        hidden: 1024,
        experts: Some(Experts { count: 64, used: 8 }),
        layers: 16,
        heads: 16,
        kv_heads: 16,
        head_dim: 128,
        vocab: 50_304,
        tied: false,
        qk_norms: QkNorms::OfRows,
        context: 4096,
        ..LLAMA
    },
    // Eight query heads a key head: types give them other formats than fewer.
    Shape {
        name: "test",
        dim: 256,
        hidden: 512,
        layers: 9,
        heads: 8,
        kv_heads: 1,
        head_dim: 32,
        vocab: 400,
        tied: false,
        hidden_name: true,
        ..LLAMA
    },
    Shape {
        name: "test-experts",
        architecture: "olmoe",
        dim: 256,
        hidden: 256,
        experts: Some(Experts { count: 4, used: 2 }),
        layers: 2,
        heads: 8,
        kv_heads: 1,
        head_dim: 32,
        vocab: 400,
        tied: false,
        qk_norms: QkNorms::OfRows,
        hidden_name: true,
        ..LLAMA
    },
    // Rows that are no whole blocks of 256.
    Shape {
        name: "test-odd",
        dim: 96,
        hidden: 160,
        layers: 9,
        heads: 3,
        kv_heads: 1,
        head_dim: 32,
        vocab: 300,
        hidden_name: true,
        ..LLAMA
    },
];
