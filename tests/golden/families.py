"""Dense decoders: golden models with everything active that each family has."""

import math

import numpy as np

from parts import Architecture, Case, interleaved, mapped, rope_metadata

SMALL = dict(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
    tie_word_embeddings=True,
)
HEADS = {**SMALL, "head_dim": 10}


def attribute(config, *names):
    """The first of the attributes that the config has."""
    for name in names:
        if getattr(config, name, None) is not None:
            return getattr(config, name)
    return None


def common(config):
    """The keys of every decoder."""
    yield "{arch}.vocab_size", config.vocab_size
    yield "{arch}.block_count", attribute(config, "num_hidden_layers", "n_layer")
    context = attribute(config, "max_position_embeddings", "max_seq_len", "n_positions")
    yield "{arch}.context_length", context or 256
    yield "{arch}.embedding_length", config.hidden_size
    hidden = attribute(config, "intermediate_size", "ffn_hidden_size", "n_inner")
    yield "{arch}.feed_forward_length", hidden or 4 * config.hidden_size
    yield "{arch}.attention.head_count", config.num_attention_heads
    kv_heads = attribute(config, "num_key_value_heads")
    if kv_heads and config.model_type != "falcon":
        yield "{arch}.attention.head_count_kv", kv_heads
    if attribute(config, "head_dim") and config.model_type != "falcon":
        yield "{arch}.attention.key_length", config.head_dim
        yield "{arch}.attention.value_length", config.head_dim
    epsilon = attribute(config, "layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps")
    if epsilon:
        yield "{arch}.attention.layer_norm_epsilon", epsilon
    if attribute(config, "rms_norm_eps"):
        yield "{arch}.attention.layer_norm_rms_epsilon", config.rms_norm_eps


def metadata(*more, rope="rope_parameters"):
    """The common keys, those of the rotation, and more: functions of the config that give pairs."""

    def keys(config):
        yield from common(config)
        parameters = getattr(config, rope, None)
        if parameters:
            parameters = parameters.get("full_attention", parameters)
            yield from rope_metadata(parameters)
            partial = parameters.get("partial_rotary_factor", 1.0)
            head = attribute(config, "head_dim") or config.hidden_size // config.num_attention_heads
            yield "{arch}.rope.dimension_count", int(head * partial)
        for function in more:
            yield from function(config)

    return keys


def key(name: str, value):
    """One more key: `value` is a function of the config."""
    return lambda config: [("{arch}." + name, value(config))]


def window(config):
    yield "{arch}.attention.sliding_window", config.sliding_window


def decoder(model, gguf_arch, base, *more, special=None, name="", flat="", around=None):
    """A row of ARCHITECTURES whose transformers classes are called by `model`."""
    causal = model if model.endswith("Model") else model + "ForCausalLM"
    causal, config = (causal, model + "Config") if "/" not in model else model.split("/")
    tensors = mapped(gguf_arch, special)
    tensors = around(tensors) if around else tensors
    return Architecture(causal, config, base, metadata(*more), tensors, name, True, flat)


def plus_one(config, name, values):
    """Files hold the whole factor where the model adds one to it."""
    return values + 1.0


def transposed(config, name, values):
    return np.ascontiguousarray(values.T)


def by_kind(kinds_first: int):
    """Rows of (heads, kinds, head_dim) in the order of (kinds, heads, head_dim)."""

    def change(config, name, values):
        heads = config.num_attention_heads
        split = values.reshape(heads, kinds_first, -1, *values.shape[1:])
        return np.ascontiguousarray(split.swapaxes(0, 1)).reshape(values.shape)

    return change


def falcon_qkv(config, name, values):
    """Rows of (kv_heads, queries of a group + 2, head_dim) as queries, keys, values."""
    groups = config.num_kv_heads if config.new_decoder_architecture else 1
    dim = config.hidden_size // config.num_attention_heads
    split = values.reshape(groups, -1, dim, values.shape[-1])
    parts = (split[:, :-2], split[:, -2], split[:, -1])
    return np.concatenate([part.reshape(-1, values.shape[-1]) for part in parts])


def pairs(config, name, values):
    """Rows of queries and keys for interleaved rotation."""
    heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
    return interleaved(heads)(values)


PAIRS = {r".*\.(q|k)_proj\.(weight|bias)": pairs}


def factors(config, name, values):
    """A tensor and, with the first, the factors of the rotation for short and long contexts."""
    rope = config.rope_parameters
    yield "token_embd.weight", values
    if rope["rope_type"] != "longrope":
        return
    yield "rope_factors_short.weight", np.array(rope["short_factor"], np.float32)
    yield "rope_factors_long.weight", np.array(rope["long_factor"], np.float32)


def longrope(config):
    rope = config.rope_parameters
    if rope["rope_type"] == "longrope":
        original = rope["original_max_position_embeddings"]
        growth = math.log(config.max_position_embeddings / original) / math.log(original)
        yield "{arch}.rope.scaling.attn_factor", math.sqrt(1.0 + growth)
        yield "{arch}.rope.scaling.original_context_length", original


def stacked(tensors):
    """The norms of all heads of a layer are one tensor."""

    def change(config, parameters):
        rest = dict(parameters)
        for layer in range(config.num_hidden_layers):
            for kind in "qk":
                stem = f"model.layers.{layer}.self_attn.{kind}_layernorm.norms."
                names = sorted(name for name in parameters if name.startswith(stem))
                if names:
                    heads = np.stack([rest.pop(name) for name in names])
                    yield f"blk.{layer}.attn_{kind}_norm.weight", heads, names
        yield from tensors(config, rest)

    return change


def rope(theta=10000.0, kind="default", **rest):
    return dict(rope_type=kind, rope_theta=theta, **rest)


def layers(kinds: str):
    """Layer types by letters: s(liding), f(ull)."""
    names = {"s": "sliding_attention", "f": "full_attention"}
    return [names[kind] for kind in kinds]


def local_rope(config):
    local = config.rope_parameters["sliding_attention"]
    if local["rope_theta"] != 10000.0:
        yield "{arch}.rope.freq_base_swa", float(local["rope_theta"])


ARCHITECTURES = {
    "qwen2": decoder("Qwen2", "QWEN2", {**SMALL, "rope_parameters": rope(5000.0)}),
    "qwen3": decoder("Qwen3", "QWEN3", {**HEADS, "rope_parameters": rope(5000.0)}),
    "phi3": decoder(
        "Phi3",
        "PHI3",
        {**SMALL, "tie_word_embeddings": False, "num_attention_heads": 2, "sliding_window": 12},
        window,
        longrope,
        special={"model.embed_tokens.weight": factors},
    ),
    "gemma": decoder("Gemma", "GEMMA", HEADS, special={r".*norm\.weight": plus_one}),
    "gemma2": decoder(
        "Gemma2",
        "GEMMA2",
        {
            **HEADS,
            "query_pre_attn_scalar": 10,
            "num_hidden_layers": 3,
            "sliding_window": 9,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 12.0,
        },
        window,
        key("attn_logit_softcapping", lambda c: c.attn_logit_softcapping),
        key("final_logit_softcapping", lambda c: c.final_logit_softcapping),
        special={r".*norm\.weight": plus_one},
    ),
    "gemma3": decoder(
        "Gemma3ForCausalLM/Gemma3TextConfig",
        "GEMMA3",
        {
            **HEADS,
            "num_hidden_layers": 6,
            "hidden_size": 24,
            "intermediate_size": 40,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 9,
            "rope_parameters": {
                "full_attention": rope(50000.0, "linear", factor=4.0),
                "sliding_attention": rope(500.0),
            },
        },
        window,
        local_rope,
        special={r".*norm\.weight": plus_one},
    ),
    "gpt2": decoder(
        "GPT2LMHeadModel/GPT2Config",
        "GPT2",
        dict(
            vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=128, n_inner=56,
            bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
        ),
        special={r".*(c_attn|c_proj|c_fc)\.weight": transposed},
    ),
    "gptneox": decoder(
        "GPTNeoX",
        "GPTNEOX",
        {
            **SMALL,
            "tie_word_embeddings": False,
            "num_key_value_heads": None,
            "rope_parameters": rope(partial_rotary_factor=0.5),
        },
        key("use_parallel_residual", lambda c: c.use_parallel_residual),
        special={r".*query_key_value\.(weight|bias)": by_kind(3)},
    ),
    "phi2": decoder(
        "Phi",
        "PHI2",
        {
            **SMALL,
            "tie_word_embeddings": False,
            "rope_parameters": rope(partial_rotary_factor=0.5),
        },
    ),
    "falcon": decoder(
        "Falcon",
        "FALCON",
        {
            **{k: v for k, v in SMALL.items() if k not in ("intermediate_size",)},
            "ffn_hidden_size": 48,
            "rope_parameters": rope(),
        },
        key(
            "attention.head_count_kv",
            lambda c: c.num_kv_heads if c.new_decoder_architecture else 1,
        ),
        special={r".*query_key_value\.weight": falcon_qkv},
    ),
    "starcoder2": decoder("Starcoder2", "STARCODER2", SMALL),
    "stablelm": decoder(
        "StableLm",
        "STABLELM",
        {**SMALL, "rope_parameters": rope(partial_rotary_factor=0.5), "use_qkv_bias": True},
        key("use_parallel_residual", lambda c: c.use_parallel_residual),
        around=stacked,
    ),
    "mpt": decoder(
        "Mpt",
        "MPT",
        dict(
            vocab_size=96,
            d_model=36,
            n_layers=2,
            n_heads=6,
            expansion_ratio=2,
            max_seq_len=256,
            attn_config=dict(clip_qkv=1.2, alibi_bias_max=8),
        ),
        key("attention.clamp_kqv", lambda c: c.attn_config.clip_qkv),
        key("attention.max_alibi_bias", lambda c: float(c.attn_config.alibi_bias_max)),
    ),
    "bloom": decoder(
        "Bloom",
        "BLOOM",
        dict(
            vocab_size=96,
            hidden_size=32,
            n_layer=2,
            n_head=4,
            bos_token_id=1,
            eos_token_id=2,
            tie_word_embeddings=False,
        ),
        special={
            r".*query_key_value\.(weight|bias)": by_kind(3),
            r"transformer.word_embeddings_layernorm\.(weight|bias)": lambda c, name, values: [
                ("token_embd_norm." + name.split(".")[-1], values)
            ],
        },
    ),
    "olmo": decoder(
        "Olmo",
        "OLMO",
        {**SMALL, "clip_qkv": 1.2},
        key("attention.clamp_kqv", lambda c: c.clip_qkv),
        key("attention.layer_norm_epsilon", lambda c: 1e-5),
        special=PAIRS,
    ),
    "olmo2": decoder("Olmo2", "OLMO2", {**SMALL, "tie_word_embeddings": False}),
    "olmo3": decoder(
        "Olmo3",
        "OLMO2",
        {
            **SMALL,
            "num_hidden_layers": 4,
            "hidden_size": 24,
            "intermediate_size": 32,
            "sliding_window": 9,
            "rope_parameters": {
                "full_attention": rope(
                    500.0, "yarn", factor=4.0, original_max_position_embeddings=64
                ),
                "sliding_attention": rope(500.0),
            },
        },
        window,
        name="olmo2",
    ),
}

CASES = [
    Case("qwen2", "qwen2", {}, "biases of queries, keys and values, tied"),
    Case("qwen3", "qwen3", {}, "norms of each head, heads of 10 where dim / heads is 8"),
    Case("phi3-window", "phi3", {}, "fused projections, window 12"),
    Case(
        "phi3-longrope",
        "phi3",
        dict(
            sliding_window=None,
            original_max_position_embeddings=4,
            rope_parameters=rope(
                1000.0,
                "longrope",
                original_max_position_embeddings=4,
                short_factor=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
                long_factor=[1.5, 2.0, 2.5, 3.0, 4.0, 6.0],
                partial_rotary_factor=0.75,
            ),
        ),
        "three quarters of a head turn, with the long factors: the context is above the original",
        omit=("{arch}.attention.sliding_window",),
    ),
    Case("gemma", "gemma", {}, "scaled embedding, norms plus one, tanh GELU gate"),
    Case("gemma2", "gemma2", {}, "both softcaps, norms on both sides, window 9 in two of three"),
    Case("gemma3", "gemma3", {}, "norms of heads, window 9 and own rotation in five of six"),
    Case("gpt2", "gpt2", {}, "learned positions, fused biased projections"),
    Case("gptneox", "gptneox", {}, "parallel blocks with two norms, half of a head turns"),
    Case(
        "gptneox-sequential",
        "gptneox",
        dict(use_parallel_residual=False),
        "the same one after the other",
    ),
    Case("phi2", "phi2", {}, "parallel blocks with one norm, biases everywhere"),
    Case("falcon-7b", "falcon", {}, "parallel blocks with one norm, one key head, GELU"),
    Case(
        "falcon-40b",
        "falcon",
        dict(new_decoder_architecture=True, num_kv_heads=2),
        "parallel blocks with two norms, grouped fused projections",
    ),
    Case("starcoder2", "starcoder2", {}, "layer norms, biases, tanh GELU without gate"),
    Case("stablelm", "stablelm", {}, "layer norms, gate, half of a head turns, biases"),
    Case(
        "stablelm-parallel",
        "stablelm",
        dict(use_parallel_residual=True, use_qkv_bias=False, qk_layernorm=True),
        "parallel blocks with one norm, each head normed with its own weights",
    ),
    Case("mpt", "mpt", {}, "linear bias of six heads, bounded projections"),
    Case("bloom", "bloom", {}, "linear bias, normed embedding"),
    Case("olmo", "olmo", {}, "norms without weights, bounded projections"),
    Case("olmo2", "olmo2", {}, "norms behind the blocks, and of whole rows of queries and keys"),
    Case("olmo3", "olmo3", {}, "the same with window 9, and yarn where there is none"),
]
