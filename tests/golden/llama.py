"""The llama family: golden models of the first architecture, one a degree of freedom."""

from parts import Architecture, Case, decoder_metadata, llama_tensors

LLAMA = dict(
    vocab_size=128,
    hidden_size=40,
    intermediate_size=72,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=10,
    max_position_embeddings=512,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=2,
    rope_parameters=dict(rope_type="default", rope_theta=10000.0),
)

ARCHITECTURES = {
    "llama": Architecture(
        "LlamaForCausalLM", "LlamaConfig", LLAMA, decoder_metadata, llama_tensors
    ),
}


def rope(kind: str, theta: float = 10000.0, **rest) -> dict:
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=theta, **rest))


CASES = [
    Case(
        "llama-gqa",
        "llama",
        dict(hidden_size=32, intermediate_size=96, head_dim=8, **rope("default", 5000.0)),
        "grouped queries 4/2, untied, theta 5000",
    ),
    Case(
        "llama-tied",
        "llama",
        dict(
            hidden_size=48,
            num_attention_heads=6,
            head_dim=8,
            rms_norm_eps=1e-3,
            tie_word_embeddings=True,
        ),
        "tied embeddings, grouped queries 6/2, large epsilon; key_length is left out",
        omit=("{arch}.attention.key_length", "{arch}.attention.value_length"),
    ),
    Case(
        "llama-bias",
        "llama",
        dict(attention_bias=True, mlp_bias=True, num_key_value_heads=1),
        "biases in attention and MLP, one key head for all (multi-query)",
    ),
    Case(
        "llama-head-dim",
        "llama",
        dict(head_dim=18, rms_norm_eps=1e-6),
        "heads of 18 where dim / heads is 10",
    ),
    Case(
        "llama-mha-odd",
        "llama",
        dict(
            vocab_size=131,
            hidden_size=30,
            intermediate_size=89,
            num_hidden_layers=3,
            num_attention_heads=3,
            num_key_value_heads=3,
            head_dim=10,
        ),
        "no grouping, three layers, sizes that fill no block or vector (131, 30, 89, 10); "
        "no tokenizer key, head_count_kv, freq_base, vocab_size or rope dimension_count",
        omit=(
            "tokenizer.ggml.model",
            "{arch}.attention.head_count_kv",
            "{arch}.vocab_size",
            "{arch}.rope.freq_base",
            "{arch}.rope.dimension_count",
        ),
    ),
    Case(
        "llama-rope-linear",
        "llama",
        dict(head_dim=16, **rope("linear", factor=4.0)),
        "linear rope scaling by 4",
    ),
    Case(
        "llama-rope-llama3",
        "llama",
        dict(
            head_dim=20,
            **rope(
                "llama3",
                500.0,
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=32,
            ),
        ),
        "llama3 rope scaling by 8 over 32 positions: a rope_freqs tensor",
    ),
    Case(
        "llama-rope-yarn",
        "llama",
        dict(
            head_dim=16,
            **rope(
                "yarn",
                1000.0,
                factor=4.0,
                beta_fast=4.0,
                beta_slow=2.0,
                original_max_position_embeddings=128,
            ),
        ),
        "yarn scaling by 4 over 128 positions, betas 4 and 2",
    ),
    Case(
        "llama-rope-yarn-attn",
        "llama",
        dict(
            head_dim=22,
            **rope(
                "yarn",
                factor=8.0,
                attention_factor=1.5,
                original_max_position_embeddings=64,
            ),
        ),
        "yarn scaling by 8 over 64 positions, default betas, attention factor 1.5: "
        "attn_factor holds it divided by yarn's own 1 + 0.1 ln 8",
    ),
]
