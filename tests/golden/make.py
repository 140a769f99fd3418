#!/usr/bin/env python3
"""Writes the golden models: tiny random transformers models as GGUF files with their logits.

Needs: pip install torch transformers gguf numpy   (made with 2.15, 5.23, 0.19, 2.4)

    make.py                 writes every case into its folder beside this file
    make.py --only NAME...  only these cases
    make.py --check         regenerates into a temporary folder and compares with what is here
    make.py --list          names and notes

A case is one row of CASES: a name, an architecture, what its config changes, a note. An
architecture is one row of ARCHITECTURES: the transformers classes, base config, a function for the
metadata and one for the tensors. Every parameter of the model must end up in the file, or the
script stops. The weights come from the case's name alone (a frozen numpy generator), never from
torch, so other versions of the packages write the same model files; logits may move by rounding.
"""

import argparse
import json
import math
import sys
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

import gguf
import numpy as np
import torch
import transformers

HERE = Path(__file__).resolve().parent
LENGTHS = (5, 24, 70)  # tokens of the three sequences
GREEDY = 16  # tokens that continue each
MARGIN = 0.01  # the least gap between the two best logits of a greedy step
DISTINCT = 6  # the least number of different tokens in a greedy continuation
CASE_BYTES_MAX = 250_000
LOGITS_TOLERANCE = 2e-4  # of --check: what rounding in other torch builds may do


@dataclass(frozen=True)
class Architecture:
    """How one `general.architecture` is made and written."""

    model: str  # transformers class
    config: str  # transformers config class
    base: dict  # config of every case, before its own changes
    metadata: Callable  # (config) -> iterator of (key, value); "{arch}" is filled in
    tensors: Callable  # (config, parameters) -> iterator of (name, array, parameters used)


@dataclass(frozen=True)
class Case:
    """One golden: a config, a note, and which optional metadata it leaves out."""

    name: str
    arch: str
    changes: dict
    note: str
    omit: tuple = ()  # metadata keys that the file does not hold: their defaults must apply
    add: tuple = ()  # (key, value) metadata that the config does not express


# ---- weights: what a parameter's name says about its size ----


def draw(name: str, shape: tuple, dim: int, rng: np.random.RandomState) -> np.ndarray:
    """Noisy weights, large enough that every part of the model shows in the logits."""
    noise = rng.standard_normal(shape)
    if "norm" in name and name.endswith("weight"):
        return 1.0 + 0.3 * noise
    if name.endswith("bias"):
        return 0.3 * noise
    if "embed_tokens" in name or "lm_head" in name:
        return noise * 2.5 / math.sqrt(dim)  # logits of a standard deviation near 2.5
    gain = 1.7 if "q_proj" in name or "k_proj" in name else 1.0  # attention that looks somewhere
    return noise * gain / math.sqrt(shape[-1])


def fill(model: torch.nn.Module, dim: int, seed: int) -> dict:
    """Sets every parameter; returns them by name (a tied one appears once)."""
    rng = np.random.RandomState(seed)
    parameters = {}
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            values = draw(name, tuple(parameter.shape), dim, rng).astype(np.float32)
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


def llama3_factors(config) -> np.ndarray:
    """By what each rotation frequency is divided: 1 for short waves, `factor` for long ones."""
    rope = config.rope_parameters
    pairs = np.arange(0, config.head_dim, 2)
    waves = 2 * math.pi * rope["rope_theta"] ** (pairs / config.head_dim)
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


# ---- the tables ----

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


# ---- a case from config to files ----


def build(case: Case, seed: int):
    """The model with its weights, and the weights by name."""
    arch = ARCHITECTURES[case.arch]
    config = getattr(transformers, arch.config)(**{**arch.base, **case.changes})
    config._attn_implementation = "eager"
    model = getattr(transformers, arch.model)(config).to(torch.float32).eval()
    return model, config, fill(model, config.hidden_size, seed)


def sequences(vocab: int, seed: int) -> list:
    """Random tokens after the begin token 1."""
    rng = np.random.RandomState(seed ^ 0x5EED)
    return [[1] + rng.randint(3, vocab, length - 1).tolist() for length in LENGTHS]


@torch.no_grad()
def evaluate(model, tokens: list) -> np.ndarray:
    """Logits (positions, vocab) of one sequence, without a cache."""
    return model(torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()


def continue_greedily(model, tokens: list) -> tuple:
    """GREEDY tokens and the smallest lead of a best logit over the second."""
    tokens, margin = list(tokens), math.inf
    for _ in range(GREEDY):
        last = evaluate(model, tokens)[-1]
        best = np.sort(last)[-2:]
        margin = min(margin, float(best[1] - best[0]))
        tokens.append(int(last.argmax()))
    return tokens[-GREEDY:], margin


def search(case: Case):
    """The first seed from the case's name whose continuations are clear and not monotonous."""
    first = zlib.crc32(case.name.encode()) % 100_000
    for seed in range(first, first + 200):
        model, config, parameters = build(case, seed)
        tokens = sequences(config.vocab_size, seed)
        greedy = [continue_greedily(model, sequence) for sequence in tokens]
        margin = min(lead for _, lead in greedy)
        if margin >= MARGIN and all(len(set(ids)) >= DISTINCT for ids, _ in greedy):
            return seed, model, config, parameters, tokens, [ids for ids, _ in greedy], margin
    sys.exit(f"{case.name}: no seed gives clear continuations; are its weights too flat?")


def write_model(path: Path, case: Case, config, parameters: dict) -> None:
    """The GGUF file: metadata, then every parameter exactly once."""
    arch = ARCHITECTURES[case.arch]
    writer = gguf.GGUFWriter(path, case.arch)
    writer.add_name(case.name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    metadata = [("tokenizer.ggml.model", "none"), *arch.metadata(config), *case.add]
    unknown = set(case.omit) - {key for key, _ in metadata}
    if unknown:
        sys.exit(f"{case.name}: omits keys that it would not have: {unknown}")
    for key, value in metadata:
        if key not in case.omit:
            add_value(writer, key.format(arch=case.arch), value)
    unused = set(parameters)
    for name, values, used in arch.tensors(config, parameters):
        writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float32))
        unused -= set(used)
    if unused:
        sys.exit(f"{case.name}: parameters without a tensor: {sorted(unused)}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_value(writer: gguf.GGUFWriter, key: str, value) -> None:
    """Writes metadata by its Python type: u32, f32, bool, string or an array."""
    add = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    add[type(value)](key, value)


def write_case(case: Case, folder: Path) -> None:
    """All files of one case."""
    seed, model, config, parameters, tokens, greedy, margin = search(case)
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder / "model.gguf", case, config, parameters)
    logits = np.concatenate([evaluate(model, sequence) for sequence in tokens]).astype("<f4")
    (folder / "logits.f32").write_bytes(logits.tobytes())
    arch = ARCHITECTURES[case.arch]
    about = {
        "case": case.name,
        "kind": "causal",
        "hf_class": arch.model,
        "arch": case.arch,
        "note": case.note,
        "seed": seed,
        "vocab": config.vocab_size,
        "n_params": sum(values.size for values in parameters.values()),
        "config": {**arch.base, **case.changes},
        "tokens": tokens,
        "logits": {
            "file": "logits.f32",
            "dtype": "f32le",
            "shape": list(logits.shape),
            "layout": "rows of all sequences concatenated in order of tokens[]; row = position",
        },
        "greedy": greedy,
        "greedy_min_margin": round(margin, 5),
        "logit_std": round(float(logits.std()), 5),
        "logit_max": round(float(logits.max()), 5),
    }
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in about.items())
    (folder / "case.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    if size > CASE_BYTES_MAX:
        sys.exit(f"{case.name}: {size} bytes, more than {CASE_BYTES_MAX}")
    print(f"{case.name}: seed {seed}, margin {margin:.4f}, {size} bytes")


# ---- comparing ----


def differences(name: str, fresh: Path, stored: Path) -> list:
    """What differs between a case made anew and the stored one."""
    if not (stored / "case.json").is_file():
        return [f"{name}: not there"]
    found = []
    if (fresh / "model.gguf").read_bytes() != (stored / "model.gguf").read_bytes():
        found.append(f"{name}: model.gguf differs")
    old, new = (json.loads((place / "case.json").read_text()) for place in (stored, fresh))
    rounded = ("greedy_min_margin", "logit_std", "logit_max")
    for key in sorted((set(old) | set(new)) - set(rounded)):
        if old.get(key) != new.get(key):
            found.append(f"{name}: case.json differs at {key}")
    old, new = (np.fromfile(place / "logits.f32", "<f4") for place in (stored, fresh))
    if old.shape != new.shape:
        found.append(f"{name}: {old.size} logits stored, {new.size} made")
    elif np.abs(old - new).max() > LOGITS_TOLERANCE:
        found.append(f"{name}: logits differ by {np.abs(old - new).max():.2e}")
    return found


def check(cases: list) -> None:
    """Regenerates and compares; exits with 1 when anything differs."""
    found = []
    with tempfile.TemporaryDirectory() as fresh:
        for case in cases:
            write_case(case, Path(fresh, case.name))
            found += differences(case.name, Path(fresh, case.name), HERE / case.name)
    known = {case.name for case in CASES}
    stored = (file.parent.name for file in HERE.glob("*/case.json"))
    found += [f"{name}: no row of CASES makes it" for name in sorted(stored) if name not in known]
    print("\n".join(found) or f"{len(cases)} cases as stored")
    sys.exit(1 if found else 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these cases")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--list", action="store_true", help="names and notes")
    options = parser.parse_args()
    unknown = set(options.only or ()) - {case.name for case in CASES}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    cases = [case for case in CASES if not options.only or case.name in options.only]
    if options.list:
        for case in cases:
            print(f"{case.name}: {case.note}")
        return
    torch.set_num_threads(1)  # the order of sums must not depend on the machine
    if options.check:
        check(cases)
    for case in cases:
        write_case(case, HERE / case.name)


if __name__ == "__main__":
    main()
