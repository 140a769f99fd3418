#!/usr/bin/env python3
"""Writes the golden vocabularies of `tests/tokenizer_pieces.rs`: tiny ones trained here, and what
their makers' own libraries make of some texts.

Needs: pip install sentencepiece tokenizers gguf   (made with 0.2.3, 0.23.3, 0.19)

    make.py     writes unigram.gguf, unigram-bytes.gguf, wordpiece.gguf and golden.json beside it
"""

import io
import itertools
import json
from pathlib import Path

import gguf
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2 as protocol

HERE = Path(__file__).resolve().parent

WORDS = (
    "the a small old red green river mountain house window garden children teacher Anna Peter "
    "walks walked walking sees seen finds found carries quickly slowly never often über naïve café "
    "Straße Öl 東京 日本語 北京 россия поезд 12 345 2024 3.14 don't it's e-mail well-known !? ..."
).split()
TEXTS = [
    "the old house",
    " the  old   house ",
    "walking walked walks",
    "Anna sees the green garden.",
    "unbelievably reddish greenhouse",
    "naïve café über Straße",
    "nai\u0308ve cafe\u0301 u\u0308ber",
    "ＡＢＣ ｔｈｅ ﬁnds ㎏",
    "東京と北京 日本語",
    "россия поезд",
    "zzz qqq xxyyzz",
    "日x月y",
    "a\tb\nc\r\nd",
    "zero\u200bwidth so\u00adft",
    "\u2581the\u2581 \u2581",
    "   ",
    "\u200b\u200b",
    "",
    "😀 the 😀😀",
    "İstanbul ÇA VA",
    "it's don't e-mail well-known!?",
    "각 하 각",
    "x" * 101 + " " + "walks" * 20,
    "[CLS] the [SEP]",
    "हिन्दी ภาษาไทย",
    "\ufffd the \ue000 \u0085 end",
]
RULES = {  # what NFKC does with some characters, and what is left out
    "\uff21": "A", "\uff22": "B", "\uff23": "C", "\uff54": "t", "\uff48": "h", "\uff45": "e",
    "\ufb01": "fi", "\u338f": "kg", "e\u0301": "é", "i\u0308": "ï", "u\u0308": "ü",
    "\u200b": "", "\u00ad": "", "\t": " ", "\n": " ", "\r": " ", "\u2581": " ",
}  # fmt: skip


def corpus() -> list:
    """Sentences of all pairs of words that are so far apart."""
    pairs = itertools.product(range(len(WORDS)), (1, 3, 7, 12, 20))
    return [f"{WORDS[i]} {WORDS[(i + step) % len(WORDS)]} {WORDS[i]}" for i, step in pairs]


def trained(byte_fallback: bool) -> protocol.ModelProto:
    rules = HERE / "rules.tsv"
    codes = lambda text: " ".join(f"{ord(c):X}" for c in text)
    rules.write_text("".join(f"{codes(a)}\t{codes(b)}\n" for a, b in RULES.items()))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_writer=model,
        model_type="unigram",
        vocab_size=350 if byte_fallback else 105,
        character_coverage=0.995,
        normalization_rule_tsv=str(rules),
        byte_fallback=byte_fallback,
        user_defined_symbols=["<sep>"],
        num_threads=1,
        minloglevel=2,
    )
    rules.unlink()
    return protocol.ModelProto.FromString(model.getvalue())


def write_unigram(path: Path, model: protocol.ModelProto) -> None:
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_tokenizer_model("t5")
    writer.add_token_list([piece.piece.encode() for piece in model.pieces])
    writer.add_token_scores([piece.score for piece in model.pieces])
    writer.add_token_types([piece.type for piece in model.pieces])
    writer.add_add_space_prefix(model.normalizer_spec.add_dummy_prefix)
    writer.add_remove_extra_whitespaces(model.normalizer_spec.remove_extra_whitespaces)
    writer.add_precompiled_charsmap(model.normalizer_spec.precompiled_charsmap)
    writer.add_unk_token_id(model.trainer_spec.unk_id)
    writer.add_bos_token_id(model.trainer_spec.bos_id)
    writer.add_eos_token_id(model.trainer_spec.eos_id)
    finish(writer)


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def unigram(name: str, byte_fallback: bool) -> dict:
    """Ids by the flags of spaces."""
    model = trained(byte_fallback)
    write_unigram(HERE / f"{name}.gguf", model)
    made = {}
    for prefix, squeeze in itertools.product((True, False), repeat=2):
        model.normalizer_spec.add_dummy_prefix = prefix
        model.normalizer_spec.remove_extra_whitespaces = squeeze
        processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
        made[f"{name} {int(prefix)} {int(squeeze)}"] = [processor.encode(text) for text in TEXTS]
    return made


def wordpiece() -> dict:
    """Ids with and without capitals and accents."""
    made = {}
    for name, lowercase in (("wordpiece", True), ("wordpiece-cased", False)):
        options = dict(lowercase=lowercase, strip_accents=lowercase)
        tokens = pieces(tokenizers.BertWordPieceTokenizer(**options))
        ids = {token: i for i, token in enumerate(tokens)}
        tokenizer = tokenizers.BertWordPieceTokenizer(vocab=ids, **options)
        writer = gguf.GGUFWriter(HERE / f"{name}.gguf", "bert")
        writer.add_tokenizer_model("bert")
        writer.add_token_list([phantom(token).encode() for token in tokens])
        writer.add_token_types([3 if is_special(token) else 1 for token in tokens])
        writer.add_bos_token_id(ids["[CLS]"])
        writer.add_sep_token_id(ids["[SEP]"])
        writer.add_unk_token_id(ids["[UNK]"])
        finish(writer)
        encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        plain = [text for text in TEXTS if "[" not in text]
        made[name] = [encode(text) if text in plain else None for text in TEXTS]
    return made


def pieces(tokenizer) -> list:
    """All words but the long ones, their ends, and most characters."""
    words = tokenizer.normalizer.normalize_str(" ".join(WORDS))
    words = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(words)]
    letters = sorted({c for word in words for c in word} - set("qzß"))
    ends = sorted({"##" + word[at:] for word in words for at in (3, 4) if word[at:]})
    whole = sorted({word for word in words if 1 < len(word) < 7})
    known = [*letters, *("##" + c for c in letters), *whole, *ends]
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *dict.fromkeys(known)]


def is_special(token: str) -> bool:
    return token.startswith("[") and token.endswith("]") and len(token) > 2


def phantom(token: str) -> str:
    """Files mark what begins a word, where the library marks what goes on."""
    if is_special(token):
        return token
    return token[2:] if token.startswith("##") else "\u2581" + token


def main() -> None:
    made = {"texts": TEXTS, **unigram("unigram", False), **unigram("unigram-bytes", True)}
    made.update(wordpiece())
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in made.items())
    (HERE / "golden.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
