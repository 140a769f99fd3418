"""What golden models are made of: weights, the tensors of a file, its metadata."""

import math
import re
from dataclasses import dataclass
from typing import Callable, Iterator

import gguf
import numpy as np
import torch


@dataclass(frozen=True)
class Architecture:
    """How one `general.architecture` is made and written."""

    model: object  # transformers class by name, or what makes a model of a config
    config: str  # transformers config class
    base: dict  # config of every case, before its own changes
    metadata: Callable  # (config) -> iterator of (key, value); "{arch}" is filled in
    tensors: Callable  # (config, parameters) -> iterator of (name, array, parameters used)
    name: str = ""  # general.architecture, if not the key of the row
    half: bool = False  # whether matrices are stored as F16, which their values then fit
    flat: str = ""  # parameters (a pattern) that are drawn as numbers of about 1
    encode: Callable = None  # of an encoder: (model, tokens, split) -> rows, what is made of them


@dataclass(frozen=True)
class Case:
    """One golden: a config, a note, and which optional metadata it leaves out."""

    name: str
    arch: str
    changes: dict
    note: str
    omit: tuple = ()  # metadata keys that the file does not hold: their defaults must apply
    add: tuple = ()  # (key, value) metadata that the config does not express
    lengths: tuple = (5, 24, 70)  # tokens of the sequences


# ---- weights: what a parameter's name says about its size ----


def draw(name: str, shape: tuple, dim: int, rng: np.random.RandomState) -> np.ndarray:
    """Noisy weights, large enough that every part of the model shows in the logits."""
    noise = rng.standard_normal(shape)
    if re.search(r"[nN]orm|ln_", name) and name.endswith("weight") and len(shape) < 3:
        if "embed" not in name or len(shape) == 1:
            return 1.0 + 0.3 * noise
    if name.endswith("bias"):
        return (0.1 if "correction" in name else 0.3) * noise
    if re.search(r"embed_tokens|lm_head|wte|embed_in|embed_out|word_embeddings", name):
        return noise * 2.5 / math.sqrt(dim)  # logits of a standard deviation near 2.5
    gain = 1.7 if re.search(r"q_proj|k_proj|qkv|query_key|c_attn", name) else 1.0
    return noise * gain / math.sqrt(shape[-1])


LOUD = re.compile(r"(o_proj|down_proj|c_proj|4h_to_h|dense|fc2|out_proj)\.weight|experts.down")


def fill(model: torch.nn.Module, dim: int, seed: int, arch: Architecture) -> dict:
    """Sets every parameter; returns them by name (a tied one appears once)."""
    rng = np.random.RandomState(seed)
    parameters = {}
    with torch.no_grad():
        # A bias of the choice among experts is trained, but no parameter.
        trained = re.compile("correction_bias|expert_bias")
        biases = [pair for pair in model.named_buffers() if trained.search(pair[0])]
        for name, parameter in sorted([*model.named_parameters(), *biases]):
            shape = tuple(parameter.shape)
            if arch.flat and re.search(arch.flat, name):
                values = rng.standard_normal(shape).astype(np.float32)
            else:
                values = draw(name, shape, dim, rng).astype(np.float32)
                # What blocks add to the stream is loud, or tied models would repeat themselves.
                if arch.half and LOUD.search(name):
                    values *= 3.0
            if arch.half and values.ndim > 1:
                values = values.astype(np.float16).astype(np.float32)
            parameter.copy_(torch.from_numpy(values))
            parameters[name] = values
    return parameters


# ---- tensors: transformers names -> GGUF names ----


def rename(parameters: dict, modules: dict, layers: int, transform=None) -> Iterator:
    """Maps modules by name; `.weight` and `.bias` follow, absent ones are left out."""
    transform = transform or {}
    for source, target in modules.items():
        for layer in range(layers) if "{n}" in source else [0]:
            for suffix in (".weight", ".bias"):
                name = source.format(n=layer) + suffix
                if name in parameters:
                    change = transform.get(source, lambda values: values)
                    yield target.format(n=layer) + suffix, change(parameters[name]), [name]


def mapped(arch: str, special: dict = None) -> Callable:
    """Names by the `gguf` package's own map, but for what `special` (pattern -> function of (config,
    name, values), giving names and arrays, or an array alone) makes of parameters."""
    key = getattr(gguf.MODEL_ARCH, arch)

    def tensors(config, parameters: dict) -> Iterator:
        names = gguf.get_tensor_name_map(key, config.num_hidden_layers)
        for name, values in parameters.items():
            made = values
            for pattern, change in (special or {}).items():
                if re.fullmatch(pattern, name):
                    made = change(config, name, values)
                    break
            if not isinstance(made, np.ndarray):
                yield from ((*pair, [name]) for pair in made)
                continue
            known = (name, name.removeprefix("transformer."))
            found = (names.get_name(name, try_suffixes=(".weight", ".bias")) for name in known)
            target = next((target for target in found if target), None)
            if target is None:
                raise SystemExit(f"{arch}: no name for {name}")
            yield target, made, [name]

    return tensors


def interleaved(heads: int) -> Callable:
    """Reorders the output rows of each head from halves (0 1 2 | 3 4 5) to pairs (0 3 1 4 2 5)."""

    def permute(values: np.ndarray) -> np.ndarray:
        halves = values.reshape(heads, 2, -1, *values.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)

    return permute


DECODER = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.{n}.input_layernorm": "blk.{n}.attn_norm",
    "model.layers.{n}.self_attn.q_proj": "blk.{n}.attn_q",
    "model.layers.{n}.self_attn.k_proj": "blk.{n}.attn_k",
    "model.layers.{n}.self_attn.v_proj": "blk.{n}.attn_v",
    "model.layers.{n}.self_attn.o_proj": "blk.{n}.attn_output",
    "model.layers.{n}.post_attention_layernorm": "blk.{n}.ffn_norm",
    "model.layers.{n}.mlp.gate_proj": "blk.{n}.ffn_gate",
    "model.layers.{n}.mlp.up_proj": "blk.{n}.ffn_up",
    "model.layers.{n}.mlp.down_proj": "blk.{n}.ffn_down",
}


def llama_tensors(config, parameters: dict) -> Iterator:
    """Llama files hold q and k for interleaved rope, and llama3 rope scaling as a tensor."""
    if config.rope_parameters["rope_type"] == "llama3":
        yield "rope_freqs.weight", llama3_factors(config), []
    permuted = {
        "model.layers.{n}.self_attn.q_proj": interleaved(config.num_attention_heads),
        "model.layers.{n}.self_attn.k_proj": interleaved(config.num_key_value_heads),
    }
    yield from rename(parameters, DECODER, config.num_hidden_layers, permuted)


def llama3_factors(config, head_dim: int = 0) -> np.ndarray:
    """By what each rotation frequency is divided: 1 for short waves, `factor` for long ones."""
    rope, head_dim = config.rope_parameters, head_dim or config.head_dim
    pairs = np.arange(0, head_dim, 2)
    waves = 2 * math.pi * rope["rope_theta"] ** (pairs / head_dim)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] / waves
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1.0 / ((1.0 - smooth) / rope["factor"] + smooth)).astype(np.float32)


# ---- metadata ----


def decoder_metadata(config) -> Iterator:
    """The keys of every decoder-only transformer."""
    yield "{arch}.block_count", config.num_hidden_layers
    yield "{arch}.context_length", config.max_position_embeddings
    yield "{arch}.embedding_length", config.hidden_size
    yield "{arch}.feed_forward_length", config.intermediate_size
    yield "{arch}.attention.head_count", config.num_attention_heads
    yield "{arch}.attention.head_count_kv", config.num_key_value_heads
    yield "{arch}.attention.key_length", config.head_dim
    yield "{arch}.attention.value_length", config.head_dim
    yield "{arch}.attention.layer_norm_rms_epsilon", config.rms_norm_eps
    yield "{arch}.vocab_size", config.vocab_size
    yield "{arch}.rope.dimension_count", config.head_dim
    yield from rope_metadata(config.rope_parameters)


def rope_metadata(rope: dict) -> Iterator:
    """Base and scaling of the rotation. Llama3 scaling is a tensor, not metadata."""
    yield "{arch}.rope.freq_base", float(rope["rope_theta"])
    kind = rope["rope_type"]
    if kind not in ("linear", "yarn"):
        return
    yield "{arch}.rope.scaling.type", kind
    yield "{arch}.rope.scaling.factor", float(rope["factor"])
    if kind == "yarn":
        original = rope["original_max_position_embeddings"]
        yield "{arch}.rope.scaling.original_context_length", original
        for name in ("beta_fast", "beta_slow"):
            if name in rope:
                yield "{arch}.rope.scaling.yarn_" + name, float(rope[name])
        if "attention_factor" in rope:  # the file's factor multiplies YaRN's own
            own = 1.0 + 0.1 * math.log(rope["factor"])
            yield "{arch}.rope.scaling.attn_factor", rope["attention_factor"] / own
