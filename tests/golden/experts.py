"""Mixtures of experts: golden models with every way of routing."""

import re

import numpy as np

from families import HEADS, PAIRS, SMALL, decoder, key, rope, window
from more import GRANITE, multipliers, renamed
from parts import Case


def block(name: str) -> str:
    return "blk." + re.search(r"layers\.(\d+)\.", name).group(1)


def halves(config, name, values):
    """(experts, gate and up, dim) as two tensors."""
    gate, up = np.split(values, 2, axis=1)
    return [(block(name) + ".ffn_gate_exps.weight", gate), (block(name) + ".ffn_up_exps.weight", up)]


def turned_halves(config, name, values):
    """The same of (experts, dim, gate and up)."""
    return halves(config, name, values.swapaxes(1, 2))


def alternating(config, name, values):
    """Gate and up in turn, (experts, dim, both), or the bias (experts, both)."""
    values = values.swapaxes(1, 2) if values.ndim == 3 else values
    kind = "bias" if name.endswith("bias") else "weight"
    return [
        (f"{block(name)}.ffn_gate_exps.{kind}", values[:, 0::2]),
        (f"{block(name)}.ffn_up_exps.{kind}", values[:, 1::2]),
    ]


def down(config, name, values):
    return [(block(name) + ".ffn_down_exps.weight", values)]


def turned_down(config, name, values):
    kind = "bias" if name.endswith("bias") else "weight"
    values = values.swapaxes(1, 2) if values.ndim == 3 else values
    return [(f"{block(name)}.ffn_down_exps.{kind}", values)]


def correction(config, name, values):
    return [(block(name) + ".exp_probs_b.bias", values.reshape(-1))]


def router(config, name, values):
    return [(f"{block(name)}.ffn_gate_inp.{name.split('.')[-1]}", values)]


def shared(config, name, values):
    part = re.search(r"(gate|up|down)_proj", name).group(1)
    return [(f"{block(name)}.ffn_{part}_shexp.weight", values)]


STACKS = {
    r".*experts\.gate_up_proj": halves,
    r".*experts\.down_proj": down,
    r".*e_score_correction_bias": correction,
    r".*(mlp\.gate|router|gate\.wg)\.weight": router,
    r".*(shared_experts|shared_mlp|shared_expert)\.\w+\.weight": shared,
}
TURNED = {
    r".*experts\.gate_up_proj(_bias)?": alternating,
    r".*experts\.down_proj(_bias)?": turned_down,
    r".*router\.(weight|bias)": router,
}


def counts(count: str, used: str, hidden: str = "", *more):
    """The keys of experts, by the names that the config has for them."""

    def keys(config):
        yield "{arch}.expert_count", getattr(config, count)
        chosen = getattr(config, used)
        yield "{arch}.expert_used_count", chosen if isinstance(chosen, int) else chosen[0]
        if hidden:
            yield "{arch}.expert_feed_forward_length", getattr(config, hidden)
        for name, attribute in more:
            yield "{arch}." + name, getattr(config, attribute)

    return keys


UNTIED = {**SMALL, "tie_word_embeddings": False, "intermediate_size": 24, "hidden_size": 24}
GROUPED = dict(
    n_routed_experts=8,
    num_experts_per_tok=3,
    moe_intermediate_size=16,
    n_shared_experts=2,
    first_k_dense_replace=1,
    routed_scaling_factor=1.7,
    norm_topk_prob=True,
    n_group=4,
    topk_group=2,
)
GROUP_KEYS = (
    ("expert_group_count", "n_group"),
    ("expert_group_used_count", "topk_group"),
    ("expert_weights_scale", "routed_scaling_factor"),
    ("expert_weights_norm", "norm_topk_prob"),
    ("expert_shared_count", "n_shared_experts"),
    ("leading_dense_block_count", "first_k_dense_replace"),
)
SIGMOID = key("expert_gating_func", lambda c: 2)

ARCHITECTURES = {
    "mixtral": decoder(
        "Mixtral",
        "LLAMA",
        {**UNTIED, "num_local_experts": 4, "num_experts_per_tok": 2},
        counts("num_local_experts", "num_experts_per_tok"),
        special={**STACKS, **PAIRS},
        name="llama",
    ),
    "qwen2moe": decoder(
        "Qwen2Moe",
        "QWEN2MOE",
        {
            **UNTIED,
            "num_experts": 5,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 20,
        },
        counts("num_experts", "num_experts_per_tok", "moe_intermediate_size"),
        key("expert_shared_feed_forward_length", lambda c: c.shared_expert_intermediate_size),
        special={
            r".*shared_expert_gate\.weight": lambda c, name, values: [
                (block(name) + ".ffn_gate_inp_shexp.weight", values.reshape(-1))
            ],
            **STACKS,
        },
    ),
    "qwen3moe": decoder(
        "Qwen3Moe",
        "QWEN3MOE",
        {
            **UNTIED,
            "head_dim": 10,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "norm_topk_prob": True,
        },
        counts("num_experts", "num_experts_per_tok", "moe_intermediate_size"),
        special=STACKS,
    ),
    "olmoe": decoder(
        "Olmoe",
        "OLMOE",
        {**UNTIED, "num_experts": 5, "num_experts_per_tok": 2},
        counts("num_experts", "num_experts_per_tok"),
        special=STACKS,
    ),
    "granitemoe": decoder(
        "GraniteMoe",
        "GRANITE_MOE",
        {**UNTIED, **GRANITE, "num_local_experts": 4, "num_experts_per_tok": 2},
        counts("num_local_experts", "num_experts_per_tok"),
        multipliers,
        special={**STACKS, **PAIRS},
    ),
    "glm4moe": decoder(
        "Glm4Moe",
        "GLM4_MOE",
        {
            **UNTIED,
            **GROUPED,
            "head_dim": 12,
            "use_qk_norm": True,
            "attention_bias": True,
            "rope_parameters": rope(partial_rotary_factor=0.5),
        },
        counts("n_routed_experts", "num_experts_per_tok", "moe_intermediate_size", *GROUP_KEYS),
        SIGMOID,
        key("block_count", lambda c: c.num_hidden_layers + 1),
        key("nextn_predict_layers", lambda c: 1),
        special={
            "model.embed_tokens.weight": lambda c, name, values: [
                ("token_embd.weight", values),
                (f"blk.{c.num_hidden_layers}.nextn.enorm.weight", values[0]),
            ],
            **renamed(post_attention_layernorm="post_attention_norm"),
            **STACKS,
        },
    ),
    "hunyuan-moe": decoder(
        "HunYuanMoEV1",
        "HUNYUAN_MOE",
        {**UNTIED, "head_dim": 8, "num_experts": 4, "moe_topk": 2},
        counts("num_experts", "moe_topk"),
        key("expert_shared_feed_forward_length", lambda c: c.intermediate_size),
        special=STACKS,
    ),
    "ernie4_5-moe": decoder(
        "Ernie4_5_Moe",
        "ERNIE4_5_MOE",
        {
            **UNTIED,
            "moe_num_experts": 5,
            "moe_k": 2,
            "moe_intermediate_size": 16,
            "moe_num_shared_experts": 2,
            "moe_layer_start_index": 1,
        },
        counts("moe_num_experts", "moe_k", "moe_intermediate_size"),
        key("expert_shared_feed_forward_length", lambda c: 32),
        key("leading_dense_block_count", lambda c: c.moe_layer_start_index),
        key("interleave_moe_layer_step", lambda c: c.moe_layer_interval),
        special=STACKS,
    ),
    "dots1": decoder(
        "Dots1",
        "DOTS1",
        {**UNTIED, **GROUPED, "n_group": 1, "topk_group": 1},
        counts("n_routed_experts", "num_experts_per_tok", "moe_intermediate_size", *GROUP_KEYS),
        SIGMOID,
        special=STACKS,
    ),
    "gpt-oss": decoder(
        "GptOss",
        "GPT_OSS",
        {
            **UNTIED,
            "head_dim": 12,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 9,
            "rope_parameters": rope(
                1000.0, "yarn", factor=4.0, original_max_position_embeddings=64,
                beta_fast=32.0, beta_slow=1.0, truncate=True,
            ),
        },
        counts("num_local_experts", "num_experts_per_tok", "intermediate_size"),
        window,
        special={
            **TURNED,
            **renamed(post_attention_layernorm="post_attention_norm"),
            r".*self_attn\.sinks": lambda c, name, values: [
                (block(name) + ".attn_sinks.weight", values)
            ],
        },
        flat=r"sinks|experts.*bias",
    ),
    "llama4": decoder(
        "Llama4ForCausalLM/Llama4TextConfig",
        "LLAMA4",
        {
            **UNTIED,
            "num_hidden_layers": 4,
            "head_dim": 8,
            "intermediate_size": 16,
            "intermediate_size_mlp": 28,
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "interleave_moe_layer_step": 2,
            "attention_chunk_size": 16,
            "floor_scale": 8,
            "attn_scale": 0.5,
        },
        counts("num_local_experts", "num_experts_per_tok", "intermediate_size"),
        key("feed_forward_length", lambda c: c.intermediate_size_mlp),
        key("interleave_moe_layer_step", lambda c: c.interleave_moe_layer_step),
        key("attention.sliding_window", lambda c: c.attention_chunk_size),
        key("attention.temperature_length", lambda c: c.floor_scale),
        key("attention.temperature_scale", lambda c: c.attn_scale),
        special={
            r".*experts\.gate_up_proj": turned_halves,
            r".*experts\.down_proj": turned_down,
            r".*(shared_expert)\.\w+\.weight": shared,
            r".*router\.weight": router,
            **{
                rf"model\.layers\.\d+\.feed_forward\.{part}_proj\.weight": (
                    lambda c, name, values, part=part: [
                        (f"{block(name)}.ffn_{part}.weight", values)
                    ]
                )
                for part in ("gate", "up", "down")
            },
        },
    ),
}

CASES = [
    Case("mixtral", "mixtral", {}, "2 of 4 experts, weights that add up to 1"),
    Case("qwen2moe", "qwen2moe", {}, "3 of 5 experts, a shared network with a gate"),
    Case("qwen3moe", "qwen3moe", {}, "2 of 6 experts, norms of heads"),
    Case("olmoe", "olmoe", {}, "2 of 5 experts, weights as they are, norms of whole rows"),
    Case("granitemoe", "granitemoe", {}, "2 of 4 experts, factors in many places"),
    Case(
        "glm4moe",
        "glm4moe",
        {},
        "3 of 8 experts in 2 of 4 groups by sigmoids and a bias; a layer that guesses is left out",
    ),
    Case("hunyuan-moe", "hunyuan-moe", {}, "2 of 4 experts, a shared network"),
    Case("ernie4_5-moe", "ernie4_5-moe", {}, "2 of 5 experts by a bias, the first layer dense"),
    Case("dots1", "dots1", {}, "3 of 8 experts by sigmoids and a bias, the first layer dense"),
    Case("gpt-oss", "gpt-oss", {}, "sinks, window 9 in every other layer, biased bounded experts"),
    Case("llama4", "llama4", {}, "chunks of 16, temperature, experts in every other layer"),
    Case(
        "llama4-long",
        "llama4",
        dict(vocab_size=48, attention_chunk_size=100, max_position_embeddings=512),
        "the same with chunks of 100 over 300 tokens: more than a span of attention",
        lengths=(300,),
    ),
]


# ---- latent attention ----


def latent_tensors(inner):
    """The projection to keys and values is two stacks of matrices, the first turned."""

    def change(config, parameters):
        rest = dict(parameters)
        for name in [name for name in rest if "kv_b_proj" in name]:
            values = rest.pop(name)
            heads = values.reshape(config.num_attention_heads, -1, values.shape[-1])
            keys, made = np.split(heads, [config.qk_nope_head_dim], axis=1)
            yield block(name) + ".attn_k_b.weight", keys.swapaxes(1, 2), [name]
            yield block(name) + ".attn_v_b.weight", made, []
        yield from inner(config, rest)

    return change


def latent_keys(config):
    turning, rank = config.qk_rope_head_dim, config.kv_lora_rank
    if config.q_lora_rank:
        yield "{arch}.attention.q_lora_rank", config.q_lora_rank
    yield "{arch}.attention.kv_lora_rank", rank
    yield "{arch}.attention.head_count_kv", 1
    yield "{arch}.attention.key_length", rank + turning
    yield "{arch}.attention.value_length", rank
    yield "{arch}.attention.key_length_mla", config.qk_nope_head_dim + turning
    yield "{arch}.attention.value_length_mla", config.v_head_dim
    yield "{arch}.rope.dimension_count", turning
    if "mscale_all_dim" in config.rope_parameters:
        factor = 0.1 * config.rope_parameters["mscale_all_dim"]
        yield "{arch}.rope.scaling.yarn_log_multiplier", factor


LATENT = {
    **UNTIED,
    **GROUPED,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 12,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 9,
    "rms_norm_eps": 1e-6,
}
YARN = rope(
    1000.0,
    "yarn",
    factor=4.0,
    original_max_position_embeddings=64,
    beta_fast=32.0,
    beta_slow=1.0,
    mscale=0.8,
    mscale_all_dim=0.8,
)
LATENT_COUNTS = counts(
    "n_routed_experts", "num_experts_per_tok", "moe_intermediate_size", *GROUP_KEYS
)

ARCHITECTURES["deepseek2"] = decoder(
    "DeepseekV2",
    "DEEPSEEK2",
    {**LATENT, "topk_method": "group_limited_greedy", "norm_topk_prob": False},
    LATENT_COUNTS,
    key("expert_gating_func", lambda c: 1),
    latent_keys,
    special=STACKS,
    around=latent_tensors,
)
ARCHITECTURES["deepseek3"] = decoder(
    "DeepseekV3",
    "DEEPSEEK2",
    {**LATENT, "rope_parameters": YARN},
    LATENT_COUNTS,
    SIGMOID,
    latent_keys,
    special=STACKS,
    name="deepseek2",
    around=latent_tensors,
)

CASES += [
    Case("deepseek2", "deepseek2", {}, "latent attention, 3 of 8 experts in the best 2 of 4 groups"),
    Case(
        "deepseek2-lite",
        "deepseek2",
        dict(q_lora_rank=None, topk_method="greedy", n_group=1, topk_group=1),
        "queries made at once, experts without groups",
    ),
    Case("deepseek3", "deepseek3", {}, "sigmoids, a bias, sums of two a group; yarn of scores"),
]
