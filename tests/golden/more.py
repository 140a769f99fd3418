"""More dense decoders, of the same kind as families.py."""

import re

import numpy as np

from families import HEADS, PAIRS, SMALL, decoder, key, layers, plus_one, rope, window
from parts import Case, llama3_factors


def renamed(**names):
    """Modules of a layer by the tensors that they become."""

    def change(config, name, values):
        match = re.match(r"model\.layers\.(\d+)\.(.*)\.(weight|bias)$", name)
        module = match.group(2).replace(".", "__")
        return [(f"blk.{match.group(1)}.{names[module]}.{match.group(3)}", values)]

    pattern = "|".join(re.escape(module.replace("__", ".")) for module in names)
    return {rf"model\.layers\.\d+\.({pattern})\.(weight|bias)": change}


def multipliers(config):
    yield "{arch}.attention.scale", config.attention_multiplier
    yield from stream_multipliers(config)


def stream_multipliers(config):
    yield "{arch}.embedding_scale", config.embedding_multiplier
    yield "{arch}.residual_scale", config.residual_multiplier
    yield "{arch}.logit_scale", config.logits_scaling


def local_layers(config):
    kinds = [kind == "sliding_attention" for kind in config.layer_types]
    yield "{arch}.attention.sliding_window_pattern", kinds


def turning_factors(config, name, values):
    """Llama3 scaling is a tensor."""
    return [("token_embd.weight", values), ("rope_freqs.weight", llama3_factors(config, 8))]


def curves(config):
    for name in ("alpha_n", "alpha_p"):
        values = [
            float(config.parameters[f"model.layers.{n}.mlp.act_fn.{name}"][0])
            for n in range(config.num_hidden_layers)
        ]
        yield "xielu." + name, values
    yield "xielu.beta", [0.5] * config.num_hidden_layers
    yield "xielu.eps", [-1e-6] * config.num_hidden_layers


GRANITE = dict(
    embedding_multiplier=3.0,
    attention_multiplier=0.5,
    residual_multiplier=0.6,
    logits_scaling=0.5,
    tie_word_embeddings=False,
)
NARROW = {**SMALL, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 4}

ARCHITECTURES = {
    "granite": decoder("Granite", "GRANITE", {**SMALL, **GRANITE}, multipliers, special=PAIRS),
    "minicpm": decoder(
        "Granite",
        "MINICPM",
        {**SMALL, **GRANITE, "attention_multiplier": 8**-0.5},
        stream_multipliers,
        special=PAIRS,
    ),
    "command-r": decoder(
        "Cohere", "COMMAND_R", {**SMALL, "logit_scale": 0.7}, key("logit_scale", lambda c: c.logit_scale)
    ),
    "cohere2": decoder(
        "Cohere2",
        "COHERE2",
        {**NARROW, "logit_scale": 0.7, "sliding_window": 9},
        window,
        key("logit_scale", lambda c: c.logit_scale),
    ),
    "internlm2": decoder("Llama", "INTERNLM2", {**SMALL, "tie_word_embeddings": False}, special=PAIRS),
    "glm4": decoder(
        "Glm4",
        "GLM4",
        {
            **SMALL,
            "head_dim": 12,
            "rope_parameters": rope(partial_rotary_factor=0.5),
            "tie_word_embeddings": False,
        },
        special=renamed(
            post_self_attn_layernorm="post_attention_norm",
            post_attention_layernorm="ffn_norm",
            post_mlp_layernorm="post_ffw_norm",
            mlp__gate_up_proj="ffn_up",
        ),
    ),
    "exaone4": decoder(
        "Exaone4",
        "EXAONE4",
        {**NARROW, "sliding_window": 9, "layer_types": layers("sssf")},
        window,
        local_layers,
        special=renamed(
            post_attention_layernorm="post_attention_norm",
            post_feedforward_layernorm="post_ffw_norm",
        ),
    ),
    "nemotron": decoder(
        "Nemotron",
        "NEMOTRON",
        {**SMALL, "rope_parameters": rope(partial_rotary_factor=0.5), "tie_word_embeddings": False},
        special={r".*norm\.weight": plus_one},
    ),
    "smollm3": decoder("SmolLM3", "SMOLLM3", NARROW, special=PAIRS),
    "ernie4_5": decoder("Ernie4_5", "ERNIE4_5", {**HEADS, "use_bias": True}),
    "hunyuan-dense": decoder("HunYuanDenseV1", "HUNYUAN_DENSE", HEADS),
    "seed_oss": decoder(
        "SeedOss", "SEED_OSS", {**HEADS, "attention_out_bias": True, "tie_word_embeddings": False}
    ),
    "arcee": decoder("Arcee", "ARCEE", {**SMALL, "tie_word_embeddings": False}, special=PAIRS),
    "apertus": decoder(
        "Apertus",
        "APERTUS",
        {
            **SMALL,
            "tie_word_embeddings": False,
            "rope_parameters": rope(
                500.0,
                "llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=32,
            ),
        },
        curves,
        special={"model.embed_tokens.weight": turning_factors, r".*act_fn\..*": lambda config, name, values: [(None, values)]},
        flat="act_fn",
    ),
}

CASES = [
    Case("granite", "granite", {}, "factors of embedding, attention, blocks and logits"),
    Case("minicpm", "minicpm", {}, "factors of embedding, blocks and logits"),
    Case("command-r", "command-r", {}, "parallel blocks, norm without bias, factor of logits"),
    Case("command-r-norms", "command-r", dict(use_qk_norm=True), "the same with norms of each head"),
    Case("cohere2", "cohere2", {}, "window 9 with rotation in three of four layers, none in the last"),
    Case(
        "cohere2-long",
        "cohere2",
        dict(vocab_size=48, sliding_window=40, max_position_embeddings=512),
        "the same with window 40 over 300 tokens: more than a span of attention",
        lengths=(300,),
    ),
    Case("internlm2", "internlm2", {}, "as llama: the reference is its class"),
    Case("glm4", "glm4", {}, "norms on both sides, half of a head turns in pairs, biases"),
    Case("exaone4", "exaone4", {}, "norms behind, window 9 with rotation in three of four layers"),
    Case("exaone4-plain", "exaone4", dict(sliding_window=None, layer_types=layers("ffff")),
         "the same without windows: every layer turns",
         omit=("{arch}.attention.sliding_window", "{arch}.attention.sliding_window_pattern")),
    Case("nemotron", "nemotron", {}, "layer norms plus one, squared ReLU, half of a head turns"),
    Case("smollm3", "smollm3", {}, "no rotation in the fourth layer"),
    Case("ernie4_5", "ernie4_5", {}, "biases, heads of 10 that turn in pairs"),
    Case("hunyuan-dense", "hunyuan-dense", {}, "norms of heads behind the rotation"),
    Case("seed_oss", "seed_oss", {}, "biases, heads of 10"),
    Case("arcee", "arcee", {}, "squared ReLU without gate"),
    Case("apertus", "apertus", {}, "xIELU of each layer, norms of heads, llama3 scaling"),
]
