"""Decoders whose layers, or some of them, keep a state in place of keys and values."""

import numpy as np

from experts import STACKS, UNTIED, block, counts, down, halves, router
from families import PAIRS, SMALL, decoder, key, plus_one, rope
from more import GRANITE, multipliers
from parts import Architecture, Case, mapped


# ---- what converters do to tensors ----


def decay(config, name, values):
    """Files hold what the logarithm is of, below 0."""
    return -np.exp(values)


def columns(change=lambda values: values):
    """A value for each head as a column."""
    return lambda config, name, values: change(values)[:, None]


def squeezed(config, name, values):
    return values.squeeze(1)


def step_bias(config, name, values):
    return [(block(name) + ".ssm_dt.bias", values)]


def grouped_norm(groups):
    return lambda config, name, values: values.reshape(getattr(config, groups), -1)


HEADS = {
    r".*\.A_log": columns(lambda values: -np.exp(values)),
    r".*\.(mamba|mixer)\.D": columns(),
    r".*\.dt_bias": step_bias,
    r".*conv1d\.weight": squeezed,
}
SELECTIVE = {r".*\.A_log": decay, r".*conv1d\.weight": squeezed}
STATES = r"A_log|\.D$|dt_bias"


# ---- state spaces alone ----


def plain(config):
    """The keys of models that do not attend."""
    yield "{arch}.vocab_size", config.vocab_size
    yield "{arch}.block_count", config.num_hidden_layers
    yield "{arch}.context_length", 1 << 20
    yield "{arch}.embedding_length", config.hidden_size
    yield "{arch}.feed_forward_length", 0
    yield "{arch}.attention.head_count", 0
    yield "{arch}.attention.layer_norm_rms_epsilon", config.layer_norm_epsilon
    yield "{arch}.ssm.conv_kernel", config.conv_kernel
    yield "{arch}.ssm.inner_size", int(config.expand * config.hidden_size)
    yield "{arch}.ssm.state_size", config.state_size


def selective(norms):
    def keys(config):
        yield from plain(config)
        yield "{arch}.ssm.time_step_rank", config.time_step_rank
        yield "{arch}.ssm.dt_b_c_rms", norms

    return keys


def with_heads(config):
    yield from plain(config)
    yield "{arch}.ssm.time_step_rank", config.num_heads
    yield "{arch}.ssm.group_count", config.n_groups


def states(model, gguf_arch, base, metadata, special, name=""):
    """A row of ARCHITECTURES without attention."""
    tensors = mapped(gguf_arch, special)
    causal, config = model + "ForCausalLM", model + "Config"
    return Architecture(causal, config, base, metadata, tensors, name, True, STATES)


PLAIN = dict(
    vocab_size=96,
    hidden_size=24,
    num_hidden_layers=3,
    layer_norm_epsilon=1e-5,
    conv_kernel=4,
    expand=2,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
ONE_BY_ONE = {**PLAIN, "state_size": 6, "time_step_rank": 5, "tie_word_embeddings": True}


# ---- attention and state spaces ----


def mamba_keys(inner, heads, groups):
    def keys(config):
        yield "{arch}.ssm.conv_kernel", config.mamba_d_conv
        yield "{arch}.ssm.inner_size", inner(config)
        yield "{arch}.ssm.state_size", config.mamba_d_state
        yield "{arch}.ssm.time_step_rank", getattr(config, heads)
        yield "{arch}.ssm.group_count", getattr(config, groups)

    return keys


def scaled(parameter, attribute):
    """A tensor that a factor of the config goes into."""
    return {
        rf".*{parameter}\.weight": lambda config, name, values: values * attribute(config)
    }


def mixed_in(config, name, values):
    """Factors of each part."""
    inner, rows = config.mamba_d_ssm, config.mamba_n_groups * config.mamba_d_state
    parts = (inner, inner, rows, rows, config.mamba_n_heads)
    return values * config.ssm_in_multiplier * np.repeat(config.ssm_multipliers, parts)[:, None]


FACTORS = {
    **scaled("down_proj", lambda c: c.mlp_multipliers[1]),
    **scaled("gate_proj", lambda c: c.mlp_multipliers[0]),
    **scaled("k_proj", lambda c: c.key_multiplier * c.attention_in_multiplier),
    **scaled("(q|v)_proj", lambda c: c.attention_in_multiplier),
    **scaled("o_proj", lambda c: c.attention_out_multiplier),
    **scaled("mamba.out_proj", lambda c: c.ssm_out_multiplier),
    **scaled("lm_head", lambda c: c.lm_head_multiplier),
    **scaled("embed_tokens", lambda c: c.embedding_multiplier),
    r".*mamba\.in_proj\.weight": mixed_in,
    r".*mamba\.norm\.weight": grouped_norm("mamba_n_groups"),
}


def attending(config):
    """Heads of keys and values, 0 for layers that do not attend."""
    heads = config.num_key_value_heads
    kinds = [kind == "full_attention" for kind in config.layer_types]
    yield "{arch}.attention.head_count_kv", [heads if attends else 0 for attends in kinds]


def shared_halves(config, name, values):
    """Gate and up of the network that all tokens take: the only one, if there are no experts."""
    gate, up = np.split(values, 2)
    suffix = "_shexp" if config.num_local_experts else ""
    return [
        (f"{block(name)}.ffn_gate{suffix}.weight", gate),
        (f"{block(name)}.ffn_up{suffix}.weight", up),
    ]


def shared_down(config, name, values):
    suffix = "_shexp" if config.num_local_experts else ""
    return [(f"{block(name)}.ffn_down{suffix}.weight", values)]


def granite_experts(config):
    if config.num_local_experts:
        yield "{arch}.expert_count", config.num_local_experts
        yield "{arch}.expert_used_count", config.num_experts_per_tok
        yield "{arch}.expert_shared_feed_forward_length", config.shared_intermediate_size
    yield "{arch}.rope.scaling.finetuned", config.position_embedding_type == "rope"


def convolution(config):
    yield "{arch}.shortconv.l_cache", config.conv_L_cache
    yield "{arch}.attention.layer_norm_rms_epsilon", config.norm_eps


SHORT = {
    **{k: v for k, v in SMALL.items() if k != "tie_word_embeddings"},
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "conv_L_cache": 3,
    "layer_types": ["conv", "full_attention", "conv", "conv"],
    "rope_parameters": rope(1000.0),
}
SHORT_WEIGHTS = {r".*conv\.conv\.weight": squeezed}


def routed(config, name, values):
    return [(f"{block(name)}.exp_probs_b.bias", values)]


# ---- memories from keys to values ----


def delta_keys(config):
    yield "{arch}.ssm.conv_kernel", config.linear_conv_kernel_dim
    yield "{arch}.ssm.state_size", config.linear_key_head_dim
    yield "{arch}.ssm.group_count", config.linear_num_key_heads
    yield "{arch}.ssm.time_step_rank", config.linear_num_value_heads
    inner = config.linear_value_head_dim * config.linear_num_value_heads
    yield "{arch}.ssm.inner_size", inner
    interval = config.layer_types.index("full_attention") + 1
    yield "{arch}.full_attention_interval", interval


def of_kinds(config, name, values):
    """Rows of (groups, query and key and value and gate) as two tensors."""
    groups, rows = config.linear_num_key_heads, config.linear_key_head_dim
    width = config.linear_value_head_dim * config.linear_num_value_heads // groups
    split = values.reshape(groups, -1, values.shape[-1])
    parts = np.split(split, np.cumsum([rows, rows, width]), axis=1)
    query, key, value, gate = (part.reshape(-1, values.shape[-1]) for part in parts)
    return [
        (block(name) + ".attn_qkv.weight", np.concatenate([query, key, value])),
        (block(name) + ".attn_gate.weight", gate),
    ]


def as_it_is(config, name, values):
    return [(block(name) + ".ssm_in.weight", values)]


def tiled(width, start=0, axis=0):
    """Heads of a group, which are neighbours, `groups` apart."""

    def change(config, name, values):
        groups = config.linear_num_key_heads
        begin = start(config) if start else 0
        before, values = np.split(values, [begin], axis=axis)
        values = np.moveaxis(values, axis, 0)
        heads = values.reshape(groups, -1, width(config), *values.shape[1:])
        turned = heads.swapaxes(0, 1).reshape(values.shape)
        return np.concatenate([before, np.moveaxis(turned, 0, axis)], axis=axis)

    return change


def chained(*changes):
    def change(config, name, values):
        for step in changes:
            values = step(config, name, values)
        return values

    return change


def value_width(config):
    return config.linear_value_head_dim


def keys_width(config):
    return 2 * config.linear_num_key_heads * config.linear_key_head_dim


ONE = tiled(lambda config: 1)
DELTA = {
    r".*linear_attn\.norm\.weight": lambda config, name, values: values,
    r".*norm\.weight": plus_one,
    r".*\.A_log": decay,
    r".*\.dt_bias": step_bias,
    r".*conv1d\.weight": squeezed,
    r".*in_proj_qkvz\.weight": of_kinds,
    r".*shared_expert_gate\.weight": lambda config, name, values: [
        (block(name) + ".ffn_gate_inp_shexp.weight", values.reshape(-1))
    ],
    **STACKS,
}
TILED = {
    **DELTA,
    r".*\.A_log": chained(decay, ONE),
    r".*\.dt_bias": lambda config, name, values: step_bias(config, name, ONE(config, name, values)),
    r".*conv1d\.weight": chained(squeezed, tiled(value_width, keys_width)),
    r".*in_proj_qkv\.weight": tiled(value_width, keys_width),
    r".*in_proj_z\.weight": tiled(value_width),
    r".*in_proj_(a|b)\.weight": ONE,
    r".*linear_attn\.out_proj\.weight": tiled(value_width, axis=1),
}
MEMORY = {
    **UNTIED,
    "num_hidden_layers": 3,
    "head_dim": 8,
    "rope_parameters": rope(1000.0, partial_rotary_factor=0.5),
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 10,
    "linear_value_head_dim": 10,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
    "shared_expert_intermediate_size": 16,
}
EXPERT_KEYS = (
    counts("num_experts", "num_experts_per_tok", "moe_intermediate_size"),
    key("expert_shared_feed_forward_length", lambda c: c.shared_expert_intermediate_size),
)

ARCHITECTURES = {
    "mamba": states("Mamba", "MAMBA", ONE_BY_ONE, selective(False), SELECTIVE),
    "falcon-mamba": states(
        "FalconMamba",
        "MAMBA",
        {**ONE_BY_ONE, "mixer_rms_eps": 1e-5},
        selective(True),
        SELECTIVE,
        name="mamba",
    ),
    "mamba2": states(
        "Mamba2",
        "MAMBA2",
        {
            **PLAIN,
            "state_size": 7,
            "num_heads": 4,
            "head_dim": 12,
            "n_groups": 2,
            "chunk_size": 8,
            "tie_word_embeddings": False,
        },
        with_heads,
        {**HEADS, r".*mixer\.norm\.weight": grouped_norm("n_groups")},
    ),
    "falcon-h1": decoder(
        "FalconH1",
        "FALCON_H1",
        {
            **SMALL,
            "hidden_size": 24,
            "intermediate_size": 32,
            "head_dim": 8,
            "mamba_d_ssm": 40,
            "mamba_n_heads": 4,
            "mamba_d_head": 10,
            "mamba_n_groups": 2,
            "mamba_d_state": 6,
            "mamba_chunk_size": 8,
            "mamba_norm_before_gate": False,
            "mamba_rms_norm": True,
            "tie_word_embeddings": False,
            # Powers of 2, which leave F16 exact.
            "lm_head_multiplier": 0.5,
            "embedding_multiplier": 2.0,
            "mlp_multipliers": [0.5, 2.0],
            "key_multiplier": 0.5,
            "attention_out_multiplier": 2.0,
            "attention_in_multiplier": 0.5,
            "ssm_multipliers": [0.5, 2.0, 0.5, 2.0, 0.25],
            "ssm_in_multiplier": 0.5,
            "ssm_out_multiplier": 2.0,
        },
        mamba_keys(lambda c: c.mamba_d_ssm, "mamba_n_heads", "mamba_n_groups"),
        special={**HEADS, **FACTORS},
        flat=STATES,
    ),
    "granitehybrid": decoder(
        "GraniteMoeHybrid",
        "GRANITE_HYBRID",
        {
            **SMALL,
            **GRANITE,
            "hidden_size": 24,
            "intermediate_size": 16,
            "shared_intermediate_size": 20,
            "num_hidden_layers": 3,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "mamba_n_heads": 4,
            "mamba_n_groups": 2,
            "mamba_d_state": 6,
            "mamba_chunk_size": 8,
        },
        attending,
        mamba_keys(lambda c: c.mamba_expand * c.hidden_size, "mamba_n_heads", "mamba_n_groups"),
        multipliers,
        granite_experts,
        special={
            **HEADS,
            **PAIRS,
            r".*mamba\.norm\.weight": grouped_norm("mamba_n_groups"),
            r".*shared_mlp\.input_linear\.weight": shared_halves,
            r".*shared_mlp\.output_linear\.weight": shared_down,
            **STACKS,
        },
        flat=STATES,
    ),
    "lfm2": decoder(
        "Lfm2",
        "LFM2",
        {**SHORT, "block_auto_adjust_ff_dim": False},
        convolution,
        attending,
        special=SHORT_WEIGHTS,
    ),
    "lfm2moe": decoder(
        "Lfm2Moe",
        "LFM2MOE",
        {
            **SHORT,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 12,
            "num_dense_layers": 1,
        },
        convolution,
        attending,
        counts("num_experts", "num_experts_per_tok", "moe_intermediate_size"),
        key("leading_dense_block_count", lambda c: c.num_dense_layers),
        key("expert_gating_func", lambda c: 2),
        special={
            **SHORT_WEIGHTS,
            r".*experts\.gate_up_proj": halves,
            r".*experts\.down_proj": down,
            r".*feed_forward\.gate\.weight": router,
            r".*expert_bias": routed,
        },
    ),
    "qwen3next": decoder(
        "Qwen3Next",
        "QWEN3NEXT",
        {**MEMORY, **EXPERTS},
        delta_keys,
        *EXPERT_KEYS,
        special=DELTA,
        flat=STATES,
    ),
    "qwen3next-fused": decoder(
        "Qwen3Next",
        "QWEN3NEXT",
        {**MEMORY, **EXPERTS},
        delta_keys,
        *EXPERT_KEYS,
        special={**DELTA, r".*in_proj_qkvz\.weight": as_it_is},
        name="qwen3next",
        flat=STATES,
    ),
    "qwen35": decoder(
        "Qwen3_5ForCausalLM/Qwen3_5TextConfig",
        "QWEN35",
        MEMORY,
        delta_keys,
        special=TILED,
        flat=STATES,
    ),
    "qwen35moe": decoder(
        "Qwen3_5MoeForCausalLM/Qwen3_5MoeTextConfig",
        "QWEN35MOE",
        {**MEMORY, **EXPERTS},
        delta_keys,
        *EXPERT_KEYS,
        special=TILED,
        flat=STATES,
    ),
}

CASES = [
    Case("mamba", "mamba", {}, "state spaces of single columns"),
    Case("mamba-norms", "falcon-mamba", {}, "the same with norms of steps and rows"),
    Case("mamba2", "mamba2", {}, "4 heads of 12 columns in 2 groups, norms of groups"),
    Case("falcon-h1", "falcon-h1", {}, "attention and states side by side, factors everywhere"),
    Case(
        "falcon-h1-plain",
        "falcon-h1",
        dict(mamba_rms_norm=False, mamba_n_groups=1, mamba_conv_bias=False),
        "the same without norm and bias, one group",
    ),
    Case("granitehybrid", "granitehybrid", {}, "attention without rotation between states; experts"),
    Case(
        "granitehybrid-dense",
        "granitehybrid",
        dict(num_local_experts=0, intermediate_size=20, position_embedding_type="rope"),
        "the same with rotation, without experts",
    ),
    Case("lfm2", "lfm2", {}, "attention between short convolutions, norms of heads"),
    Case("lfm2moe", "lfm2moe", {}, "the same with 2 of 4 experts by sigmoids and a bias"),
    Case("qwen3next", "qwen3next", {}, "two memories, then gated heads; a gated shared network"),
    Case("qwen3next-fused", "qwen3next-fused", {}, "the same in the layout of older files"),
    Case("qwen35", "qwen35", {}, "the same without experts, heads of a group apart"),
    Case("qwen35moe", "qwen35moe", {}, "the same with experts"),
]
