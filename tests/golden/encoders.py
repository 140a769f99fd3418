"""Encoders: golden models with their rows, embeddings and scores."""

import dataclasses
import math
from typing import Iterator

import numpy as np
import torch
import transformers
from torch import nn
from torch.nn import functional

import families
from parts import Architecture, Case, mapped, rename

SMALL = dict(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=96,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)

POOLINGS = dict(none=0, mean=1, first=2, last=3, rank=4)


# ---- references that transformers lacks ----


class Linears(nn.Module):
    """Modules by name: `widths` gives outputs and inputs of matrices, or the width of a norm."""

    def __init__(self, widths: dict, biased: set):
        super().__init__()
        for name, width in widths.items():
            if isinstance(width, int):
                self.add_module(name, nn.LayerNorm(width, eps=1e-12))
            else:
                rows, columns = width
                self.add_module(name, nn.Linear(columns, rows, bias=name in biased))


class AlibiEncoder(nn.Module):
    """jina-bert-v2 as its authors define it: BERT with a symmetric linear bias by distance and a
    GELU gate. The one for code norms queries and keys, and adds a layer's input twice."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        dim, hidden = config.hidden_size, config.intermediate_size
        self.word_embeddings = nn.Embedding(config.vocab_size, dim)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, dim)
        self.embedding_norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        widths = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), (dim, dim))
        widths |= dict(attention_norm=dim, output_norm=dim)
        widths |= dict(gated=(2 * hidden, dim), down=(dim, hidden))
        if config.for_code:
            widths |= dict(q_norm=dim, k_norm=dim, second_norm=dim)
        biased = {"q_proj", "k_proj", "v_proj", "o_proj", "down"}
        layers = (Linears(widths, biased) for _ in range(config.num_hidden_layers))
        self.layers = nn.ModuleList(layers)

    def slopes(self) -> list:
        """A geometric series for a power of two; others go on with those between."""
        heads = self.config.num_attention_heads

        def series(count: int) -> list:
            return [2.0 ** (-8.0 * (i + 1) / count) for i in range(count)]

        power = 2 ** int(math.log2(heads))
        return series(power) + series(2 * power)[0::2][: heads - power]

    def forward(self, input_ids, token_type_ids):
        config, heads = self.config, self.config.num_attention_heads
        rows = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        rows = self.embedding_norm(rows)[0]
        count = len(rows)
        places = torch.arange(count)
        distances = (places[None] - places[:, None]).abs().float()
        bias = -torch.tensor(self.slopes())[:, None, None] * distances
        for layer in self.layers:
            q, k, v = layer.q_proj(rows), layer.k_proj(rows), layer.v_proj(rows)
            if config.for_code:
                q, k = layer.q_norm(q), layer.k_norm(k)
            q, k, v = (x.view(count, heads, -1).transpose(0, 1) for x in (q, k, v))
            scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]) + bias
            mixed = (scores.softmax(-1) @ v).transpose(0, 1).reshape(count, -1)
            attended = layer.attention_norm(layer.o_proj(mixed) + rows)
            if config.for_code:
                attended = layer.second_norm(attended + rows)
            gate, up = layer.gated(attended).chunk(2, -1)
            rows = layer.output_norm(layer.down(functional.gelu(gate) * up) + attended)
        return rows


class ProjectedGemma(nn.Module):
    """Gemma 3 that sees both sides, and two matrices behind the mean of its rows."""

    def __init__(self, config):
        super().__init__()
        self.model = transformers.Gemma3TextModel(config)
        self.dense_2 = nn.Linear(config.hidden_size, 56, bias=False)
        self.dense_3 = nn.Linear(56, config.hidden_size, bias=False)


# ---- what a text becomes: (model, tokens, tokens of its first part) -> rows, one row ----


def segments(tokens: list, split: int) -> torch.Tensor:
    return torch.tensor([[0] * split + [1] * (len(tokens) - split)])


def whole(pool):
    """One text; `pool` makes one row of its rows."""

    def encode(model, tokens, split):
        ids, kinds = torch.tensor([tokens]), segments(tokens, len(tokens))
        if isinstance(model, transformers.ModernBertModel):
            rows = model(ids).last_hidden_state[0]
        elif isinstance(model, ProjectedGemma):
            rows = model.model(ids, use_cache=False).last_hidden_state[0]
            return rows, model.dense_3(model.dense_2(pool(rows)))
        elif isinstance(model, AlibiEncoder):
            rows = model(ids, kinds)
        else:
            rows = model(ids, token_type_ids=kinds).last_hidden_state[0]
        return rows, pool(rows)

    return encode


def pair(body: str):
    """Two texts, whose scores are what is made of them."""

    def encode(model, tokens, split):
        ids = torch.tensor([tokens])
        alone, both = segments(tokens, len(tokens)), segments(tokens, split)
        if body == "model":
            return model.model(ids).last_hidden_state[0], model(ids).logits[0]
        rows = getattr(model, body)(ids, token_type_ids=alone).last_hidden_state[0]
        return rows, model(ids, token_type_ids=both).logits[0]

    return encode


def mean(rows):
    return rows.mean(0)


def first(rows):
    return rows[0]


# ---- tensors ----

EMBEDDINGS = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.LayerNorm": "token_embd_norm",
}
BERT = {
    **EMBEDDINGS,
    "encoder.layer.{n}.attention.self.query": "blk.{n}.attn_q",
    "encoder.layer.{n}.attention.self.key": "blk.{n}.attn_k",
    "encoder.layer.{n}.attention.self.value": "blk.{n}.attn_v",
    "encoder.layer.{n}.attention.output.dense": "blk.{n}.attn_output",
    "encoder.layer.{n}.attention.output.LayerNorm": "blk.{n}.attn_output_norm",
    "encoder.layer.{n}.intermediate.dense": "blk.{n}.ffn_up",
    "encoder.layer.{n}.output.dense": "blk.{n}.ffn_down",
    "encoder.layer.{n}.output.LayerNorm": "blk.{n}.layer_output_norm",
}
ROBERTA = {
    **{"roberta." + name: target for name, target in BERT.items()},
    "classifier.dense": "cls",
    "classifier.out_proj": "cls.output",
}
NOMIC = {
    **EMBEDDINGS,
    "layers.{n}.self_attn.o_proj": "blk.{n}.attn_output",
    "layers.{n}.post_attention_layernorm": "blk.{n}.attn_output_norm",
    "layers.{n}.mlp.gate_proj": "blk.{n}.ffn_gate",
    "layers.{n}.mlp.up_proj": "blk.{n}.ffn_up",
    "layers.{n}.mlp.down_proj": "blk.{n}.ffn_down",
    "layers.{n}.post_mlp_layernorm": "blk.{n}.layer_output_norm",
}
JINA = {
    "word_embeddings": "token_embd",
    "token_type_embeddings": "token_types",
    "embedding_norm": "token_embd_norm",
    "layers.{n}.q_proj": "blk.{n}.attn_q",
    "layers.{n}.k_proj": "blk.{n}.attn_k",
    "layers.{n}.v_proj": "blk.{n}.attn_v",
    "layers.{n}.q_norm": "blk.{n}.attn_q_norm",
    "layers.{n}.k_norm": "blk.{n}.attn_k_norm",
    "layers.{n}.o_proj": "blk.{n}.attn_output",
    "layers.{n}.attention_norm": "blk.{n}.attn_output_norm",
    "layers.{n}.second_norm": "blk.{n}.attn_norm_2",
    "layers.{n}.gated": "blk.{n}.ffn_up",
    "layers.{n}.down": "blk.{n}.ffn_down",
    "layers.{n}.output_norm": "blk.{n}.layer_output_norm",
}
MODERN = {
    "model.embeddings.tok_embeddings": "token_embd",
    "model.embeddings.norm": "token_embd_norm",
    "model.layers.{n}.attn_norm": "blk.{n}.attn_norm",
    "model.layers.{n}.attn.Wqkv": "blk.{n}.attn_qkv",
    "model.layers.{n}.attn.Wo": "blk.{n}.attn_output",
    "model.layers.{n}.mlp_norm": "blk.{n}.ffn_norm",
    "model.layers.{n}.mlp.Wi": "blk.{n}.ffn_up",
    "model.layers.{n}.mlp.Wo": "blk.{n}.ffn_down",
    "model.final_norm": "output_norm",
    "head.dense": "cls",
    "head.norm": "cls.norm",
    "classifier": "cls.output",
}
GEMMA = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.layers.{n}.input_layernorm": "blk.{n}.attn_norm",
    "model.layers.{n}.self_attn.q_proj": "blk.{n}.attn_q",
    "model.layers.{n}.self_attn.k_proj": "blk.{n}.attn_k",
    "model.layers.{n}.self_attn.v_proj": "blk.{n}.attn_v",
    "model.layers.{n}.self_attn.o_proj": "blk.{n}.attn_output",
    "model.layers.{n}.self_attn.q_norm": "blk.{n}.attn_q_norm",
    "model.layers.{n}.self_attn.k_norm": "blk.{n}.attn_k_norm",
    "model.layers.{n}.post_attention_layernorm": "blk.{n}.post_attention_norm",
    "model.layers.{n}.pre_feedforward_layernorm": "blk.{n}.ffn_norm",
    "model.layers.{n}.post_feedforward_layernorm": "blk.{n}.post_ffw_norm",
    "model.layers.{n}.mlp.gate_proj": "blk.{n}.ffn_gate",
    "model.layers.{n}.mlp.up_proj": "blk.{n}.ffn_up",
    "model.layers.{n}.mlp.down_proj": "blk.{n}.ffn_down",
    "dense_2": "dense_2",
    "dense_3": "dense_3",
}


def named(modules: dict, change=lambda name, values: values):
    """The tensors by their names, each as `change` makes it."""

    def tensors(config, parameters: dict) -> Iterator:
        for target, values, used in rename(parameters, modules, config.num_hidden_layers):
            yield target, change(used[0], values), used

    return tensors


def without_padding(name: str, values):
    """Positions count from behind the padding token's number, 0; files hold those that are used."""
    return values[1:] if "roberta" in name and "position_embeddings" in name else values


def plus_one(name: str, values):
    """Files hold the whole factor where the model adds one to it."""
    return values + 1.0 if "norm" in name else values


def nomic_tensors(config, parameters: dict) -> Iterator:
    """Queries, keys and values are one matrix."""
    yield from rename(parameters, NOMIC, config.num_hidden_layers)
    for n in range(config.num_hidden_layers):
        names = [f"layers.{n}.self_attn.{x}_proj.weight" for x in "qkv"]
        fused = np.concatenate([parameters[name] for name in names])
        yield f"blk.{n}.attn_qkv.weight", fused, names


# ---- metadata ----


def keys(pooling: str, *more):
    """What the files of encoders say; `more` are functions of the config that give pairs."""

    def metadata(config) -> Iterator:
        yield "{arch}.block_count", config.num_hidden_layers
        offset = 1 if config.model_type == "roberta" else 0
        yield "{arch}.context_length", config.max_position_embeddings - offset
        yield "{arch}.embedding_length", config.hidden_size
        yield "{arch}.feed_forward_length", config.intermediate_size
        yield "{arch}.attention.head_count", config.num_attention_heads
        yield "{arch}.attention.causal", False
        yield "{arch}.pooling_type", POOLINGS[pooling]
        if getattr(config, "type_vocab_size", 0):
            yield "tokenizer.ggml.token_type_count", config.type_vocab_size
        for function in more:
            yield from function(config)

    return metadata


def layer_epsilon(config):
    epsilon = getattr(config, "layer_norm_eps", None) or config.norm_eps
    yield "{arch}.attention.layer_norm_epsilon", epsilon


def nomic_rope(config):
    yield "{arch}.rope.freq_base", float(config.rope_parameters["rope_theta"])


def two_ropes(config):
    rope = config.rope_parameters
    yield "{arch}.rope.freq_base", float(rope["full_attention"]["rope_theta"])
    yield "{arch}.rope.freq_base_swa", float(rope["sliding_attention"]["rope_theta"])


def modern_window(config):
    yield "{arch}.attention.sliding_window", config.local_attention
    yield "{arch}.attention.sliding_window_pattern", 3
    yield "{arch}.vocab_size", config.vocab_size
    yield "{arch}.rope.scaling.type", "none"


def gemma_keys(config):
    yield "{arch}.attention.head_count_kv", config.num_key_value_heads
    yield "{arch}.attention.key_length", config.head_dim
    yield "{arch}.attention.value_length", config.head_dim
    yield "{arch}.attention.layer_norm_rms_epsilon", config.rms_norm_eps
    yield "{arch}.attention.sliding_window", 2 * (config.sliding_window - 1)
    yield "{arch}.dense_2_feat_in", config.hidden_size
    yield "{arch}.dense_2_feat_out", 56
    yield "{arch}.dense_3_feat_in", 56
    yield "{arch}.dense_3_feat_out", config.hidden_size


def encoder(model, config, changes: dict, metadata, tensors, encode, name=""):
    base = {**SMALL, **changes}
    return Architecture(model, config, base, metadata, tensors, name, True, encode=encode)


def alone(model):
    """Only what the rows need of a model."""

    def make(config):
        return getattr(transformers, model)(config, add_pooling_layer=False)

    make.__name__ = model
    return make


def theta(base: float) -> dict:
    return dict(rope_type="default", rope_theta=base)


MODERN_BASE = dict(
    num_hidden_layers=4,
    norm_bias=False,
    local_attention=16,
    cls_token_id=1,
    sep_token_id=2,
    rope_parameters=dict(full_attention=theta(5000.0), sliding_attention=theta(100.0)),
)

ARCHITECTURES = {
    "bert": encoder(
        alone("BertModel"), "BertConfig", dict(hidden_act="gelu"),
        keys("mean", layer_epsilon), named(BERT), whole(mean),
    ),
    "bert-first": encoder(
        alone("BertModel"), "BertConfig", dict(hidden_act="gelu"),
        keys("first", layer_epsilon), named(BERT), whole(first), "bert",
    ),
    "bert-rank": encoder(
        "RobertaForSequenceClassification", "RobertaConfig",
        dict(type_vocab_size=2, num_labels=1),
        keys("rank", layer_epsilon), named(ROBERTA, without_padding), pair("roberta"), "bert",
    ),
    "nomic-bert": encoder(
        alone("NomicBertModel"), "NomicBertConfig",
        dict(rope_parameters=theta(1000.0)),
        keys("mean", layer_epsilon, nomic_rope), nomic_tensors, whole(mean),
    ),
    "jina-bert-v2": encoder(
        AlibiEncoder, "BertConfig", dict(for_code=False, num_attention_heads=6, hidden_size=48),
        keys("mean", layer_epsilon), named(JINA), whole(mean),
    ),
    "modern-bert": encoder(
        "ModernBertForSequenceClassification", "ModernBertConfig",
        dict(**MODERN_BASE, classifier_pooling="mean", num_labels=3, classifier_bias=True),
        keys("rank", layer_epsilon, two_ropes, modern_window), named(MODERN), pair("model"),
    ),
    "gemma-embedding": encoder(
        ProjectedGemma, "Gemma3TextConfig",
        dict(
            num_hidden_layers=6, hidden_size=24, intermediate_size=40, head_dim=8,
            num_key_value_heads=2, query_pre_attn_scalar=8, sliding_window=16,
            use_bidirectional_attention=True,
            rope_parameters=dict(
                full_attention=theta(50000.0), sliding_attention=theta(500.0),
            ),
        ),
        keys("mean", two_ropes, gemma_keys), named(GEMMA, plus_one), whole(mean),
    ),
}

YES, NO = 40, 41


def answer(model, tokens, split):
    """The logarithm of the odds of yes and no behind the text."""
    made = model(torch.tensor([tokens]), output_hidden_states=True, use_cache=False)
    logits = made.logits[0, -1]
    return made.hidden_states[-1][0], (logits[YES] - logits[NO])[None]


def ranking(config) -> Iterator:
    yield from QWEN3.metadata(config)
    yield "{arch}.pooling_type", POOLINGS["rank"]
    yield "{arch}.classifier.output_labels", ["yes", "no"]


def answers(config, name, values):
    """The embedding, which is the output too, and its rows of the two answers."""
    return [("token_embd.weight", values), ("cls.output.weight", values[[YES, NO]])]


QWEN3 = families.ARCHITECTURES["qwen3"]
ARCHITECTURES["qwen3-rank"] = dataclasses.replace(
    QWEN3,
    metadata=ranking,
    tensors=mapped("QWEN3", {r"model\.embed_tokens\.weight": answers}),
    name="qwen3",
    encode=answer,
)

CASES = [
    Case("qwen3-rank", "qwen3-rank", {}, "a decoder that says yes or no: the odds of both"),
    Case("bert", "bert", {}, "norms of sums, positions, two kinds of text, the mean"),
    Case("bert-first", "bert-first", {}, "the first row"),
    Case("bert-rank", "bert-rank", {}, "scores of pairs of texts by a head with two layers"),
    Case("nomic-bert", "nomic-bert", {}, "as bert with rotation and a gate, fused projections"),
    Case("jina-bert-v2", "jina-bert-v2", {}, "symmetric linear bias of six heads, GELU gate"),
    Case(
        "jina-bert-v2-code",
        "jina-bert-v2",
        dict(for_code=True),
        "norms of queries and keys, the sum of attention normed twice",
    ),
    Case(
        "modern-bert",
        "modern-bert",
        {},
        "windows around in two of three layers with their own rotation, three scores of the mean",
    ),
    Case("gemma-embedding", "gemma-embedding", {}, "windows around, two matrices behind the mean"),
]
