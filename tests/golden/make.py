#!/usr/bin/env python3
"""Writes the golden models: tiny random transformers models as GGUF files with their logits.

Needs: pip install torch transformers gguf numpy   (made with 2.15, 5.23, 0.19, 2.4)

    make.py                 writes every case into its folder beside this file
    make.py --only NAME...  only these cases
    make.py --check         regenerates into a temporary folder and compares with what is here
    make.py --list          names and notes

A case (families.py, llama.py) is a name, an architecture, what its config changes, a note. An
architecture is a row of ARCHITECTURES: the transformers classes, base config, a function for the
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
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers

import encoders
import experts
import families
import llama
import more
import recurrent
from parts import Case, fill

HERE = Path(__file__).resolve().parent
GREEDY = 16  # tokens that continue each
MARGIN = 0.01  # the least gap between the two best logits of a greedy step
DISTINCT = 6  # the least number of different tokens in a greedy continuation
CASE_BYTES_MAX = 250_000
LOGITS_TOLERANCE = 2e-4  # of --check: what rounding in other torch builds may do

TABLES = (llama, families, more, experts, recurrent, encoders)
ARCHITECTURES = {key: row for table in TABLES for key, row in table.ARCHITECTURES.items()}
CASES = [case for table in TABLES for case in table.CASES]


# ---- a case from config to files ----


def build(case: Case, seed: int):
    """The model with its weights, and the weights by name."""
    arch = ARCHITECTURES[case.arch]
    config = getattr(transformers, arch.config)(**{**arch.base, **case.changes})
    config._attn_implementation = "eager"
    make = arch.model if callable(arch.model) else getattr(transformers, arch.model)
    model = make(config).to(torch.float32).eval()
    return model, config, fill(model, config.hidden_size, seed, arch)


def sequences(vocab: int, seed: int, lengths: tuple) -> list:
    """Random tokens after the begin token 1."""
    rng = np.random.RandomState(seed ^ 0x5EED)
    return [[1] + rng.randint(3, vocab, length - 1).tolist() for length in lengths]


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
        tokens = sequences(config.vocab_size, seed, case.lengths)
        greedy = [continue_greedily(model, sequence) for sequence in tokens]
        margin = min(lead for _, lead in greedy)
        each = [set(ids) for ids, _ in greedy]
        # Tied models repeat themselves; together the three must not.
        varied = [set().union(*each)] if ARCHITECTURES[case.arch].half else each
        if margin >= MARGIN and all(len(ids) >= DISTINCT for ids in varied):
            return seed, model, config, parameters, tokens, [ids for ids, _ in greedy], margin
    sys.exit(f"{case.name}: no seed gives clear continuations; are its weights too flat?")


def write_model(path: Path, case: Case, config, parameters: dict) -> None:
    """The GGUF file: metadata, then every parameter exactly once."""
    arch = ARCHITECTURES[case.arch]
    name = arch.name or case.arch
    writer = gguf.GGUFWriter(path, name)
    writer.add_name(case.name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    config.parameters = parameters  # some files hold weights as keys
    metadata = [("tokenizer.ggml.model", "none"), *arch.metadata(config), *case.add]
    metadata = list(dict(metadata).items())
    unknown = set(case.omit) - {key for key, _ in metadata}
    if unknown:
        sys.exit(f"{case.name}: omits keys that it would not have: {unknown}")
    for key, value in metadata:
        if key not in case.omit:
            add_value(writer, key.format(arch=name), value)
    unused = set(parameters)
    for tensor, values, used in arch.tensors(config, parameters):
        unused -= set(used)
        if tensor is None:
            continue
        half = arch.half and values.ndim > 1 and tensor.endswith(".weight") and "norm" not in tensor
        kind = np.float16 if half else np.float32
        writer.add_tensor(tensor, np.ascontiguousarray(values, dtype=kind))
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
    if ARCHITECTURES[case.arch].encode:
        return write_encoder(case, folder)
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
        "arch": arch.name or case.arch,
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
    size = write_about(case, folder, about)
    print(f"{case.name}: seed {seed}, margin {margin:.4f}, {size} bytes")


def write_about(case: Case, folder: Path, about: dict) -> int:
    """Writes case.json; returns the size of the case."""
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in about.items())
    (folder / "case.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    if size > CASE_BYTES_MAX:
        sys.exit(f"{case.name}: {size} bytes, more than {CASE_BYTES_MAX}")
    return size


@torch.no_grad()
def write_encoder(case: Case, folder: Path) -> None:
    """All files of a case whose model gives rows and embeddings or scores."""
    seed = zlib.crc32(case.name.encode()) % 100_000
    model, config, parameters = build(case, seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder / "model.gguf", case, config, parameters)
    arch = ARCHITECTURES[case.arch]
    tokens = sequences(config.vocab_size, seed, case.lengths)
    splits = [len(sequence) // 2 for sequence in tokens]
    made = [arch.encode(model, *both) for both in zip(tokens, splits)]
    rows = np.concatenate([rows.float().numpy() for rows, _ in made]).astype("<f4")
    pooled = np.stack([pooled.float().numpy() for _, pooled in made]).astype("<f4")
    (folder / "logits.f32").write_bytes(rows.tobytes())
    (folder / "pooled.f32").write_bytes(pooled.tobytes())
    about = {
        "case": case.name,
        "kind": "encoder",
        "hf_class": getattr(arch.model, "__name__", arch.model),
        "arch": arch.name or case.arch,
        "note": case.note,
        "seed": seed,
        "vocab": config.vocab_size,
        "n_params": sum(values.size for values in parameters.values()),
        "config": {**arch.base, **case.changes},
        "tokens": tokens,
        "splits": splits,
        "logits": {
            "file": "logits.f32",
            "dtype": "f32le",
            "shape": list(rows.shape),
            "layout": "last layer's rows of all sequences, in order of tokens[]; row = position",
        },
        "pooled": {
            "file": "pooled.f32",
            "dtype": "f32le",
            "shape": list(pooled.shape),
            "layout": "for each sequence its embedding, not normalised, or its scores",
        },
        "greedy": [[] for _ in tokens],
    }
    print(f"{case.name}: seed {seed}, {write_about(case, folder, about)} bytes")


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
    if (stored / "pooled.f32").is_file():
        old, new = (np.fromfile(place / "pooled.f32", "<f4") for place in (stored, fresh))
        if old.shape != new.shape or np.abs(old - new).max() > LOGITS_TOLERANCE:
            found.append(f"{name}: embeddings differ")
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
