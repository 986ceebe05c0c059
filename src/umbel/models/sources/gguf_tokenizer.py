"""The tokenizer of a GGUF file, as the tokenizer.json and tokenizer_config.json that it stands for.

Two kinds are read: byte-level BPE ("gpt2"), whose merges the file has, and SentencePiece's BPE ("llama"), whose merges
follow from the scores of its tokens: a pair is merged where its result is a token, the best-scored first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from umbel.errors import ModelError, nearest
from umbel.models.config_file import shorten
from umbel.models.sources.gguf_splits import SPLITS

NORMAL, UNKNOWN, CONTROL, OWN, UNUSED, BYTE = range(1, 7)
"""What kinds of tokens there are, as `tokenizer.ggml.token_type` numbers them; OWN are a user's."""

BLANK = "\N{LOWER ONE EIGHTH BLOCK}"  # what SentencePiece writes for a space
PADDING = re.compile(r"\[PAD\d+\]")  # fills a vocabulary up to the rows of the embedding
NAMED = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}
WITHOUT = (None, "none", "no_vocab")
TEMPLATE = "tokenizer.chat_template"
Json = dict[str, Any]


def has_tokenizer(metadata: Mapping[str, Any]) -> bool:
    """Whether a file comes with a tokenizer, of whatever kind."""
    return metadata.get("tokenizer.ggml.model") not in WITHOUT


def tokenizer_of(metadata: Mapping[str, Any]) -> Json:
    """The tokenizer.json of a file that has a tokenizer. Raises ModelError for kinds that are not read."""
    kind = metadata["tokenizer.ggml.model"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelError(f"tokenizer.ggml.model={shorten(kind)}: must be one of {', '.join(KINDS)}")
    tokens = _strings(metadata, "tokenizer.ggml.tokens")
    kinds = _numbers(metadata, "tokenizer.ggml.token_type", len(tokens))
    vocabulary = {
        token: i
        for i, (token, type_) in enumerate(zip(tokens, kinds, strict=True))
        if type_ != UNUSED or not PADDING.fullmatch(token)
    }
    whole = [_whole(i, tokens[i], type_) for i, type_ in enumerate(kinds) if type_ in (UNKNOWN, CONTROL, OWN)]
    made = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": whole}
    return made | KINDS[kind](metadata, vocabulary)


def tokenizer_config_of(metadata: Mapping[str, Any]) -> Json:
    """The tokenizer_config.json: special tokens by name, and chat templates."""
    tokens = _strings(metadata, "tokenizer.ggml.tokens")
    config: Json = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for name, key in NAMED.items():
        if (token := _token(metadata, key, tokens)) is not None:
            config[name] = token
    prefix = f"{TEMPLATE}."
    named = [{"name": k.removeprefix(prefix), "template": v} for k, v in metadata.items() if k.startswith(prefix)]
    default = metadata.get(TEMPLATE)
    if named and default is not None:
        named.append({"name": "default", "template": default})
    return config | ({"chat_template": named or default} if named or default else {})


def _bytes_bpe(metadata: Mapping[str, Any], vocabulary: dict[str, int]) -> Json:
    name = metadata.get("tokenizer.ggml.pre")
    if not isinstance(name, str) or name not in SPLITS:
        hint = nearest(name, SPLITS) if isinstance(name, str) else ""
        raise ModelError(
            f"tokenizer.ggml.pre={shorten(name)}: how texts are cut is known of {', '.join(SPLITS)}{hint}; give "
            "prompts as token ids, or use the model's original files"
        )
    split, merges = SPLITS[name], _strings(metadata, "tokenizer.ggml.merges")
    bos = _is_asked(metadata, "tokenizer.ggml.add_bos_token", split.bos)
    return {
        "normalizer": {"type": "NFC"} if split.nfc else None,
        "pre_tokenizer": split.pre_tokenizer(),
        "post_processor": _around(metadata, bos=bos)
        or {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": _bpe(vocabulary, merges) | {"ignore_merges": split.whole},
    }


def _sentencepiece(metadata: Mapping[str, Any], vocabulary: dict[str, int]) -> Json:
    tokens = _strings(metadata, "tokenizer.ggml.tokens")
    scores = _numbers(metadata, "tokenizer.ggml.scores", len(tokens))
    prefix = _is_asked(metadata, "tokenizer.ggml.add_space_prefix", True)
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    decoders = [{"type": "Replace", "pattern": {"String": BLANK}, "content": " "}, {"type": "ByteFallback"}]
    unknown = _token(metadata, "tokenizer.ggml.unknown_token_id", tokens)
    return {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [*([{"type": "Prepend", "prepend": BLANK}] if prefix else []), spaces],
        },
        "pre_tokenizer": None,
        "post_processor": _around(metadata, bos=_is_asked(metadata, "tokenizer.ggml.add_bos_token", True)),
        "decoder": {"type": "Sequence", "decoders": [*decoders, {"type": "Fuse"}, *strip]},
        "model": _bpe(vocabulary, merges_of(vocabulary, scores))
        | {"unk_token": unknown, "fuse_unk": True, "byte_fallback": True},
    }


KINDS: Mapping[str, Callable[[Mapping[str, Any], dict[str, int]], Json]] = {
    "gpt2": _bytes_bpe, "llama": _sentencepiece
}  # fmt: skip


def merges_of(vocabulary: Mapping[str, int], scores: list[Any]) -> list[list[str]]:
    """The pairs of tokens that make a token, best-scored first, as transformers orders them for these models."""
    found = []
    for token, i in vocabulary.items():
        halves = [(token[:at], token[at:]) for at in range(1, len(token))]
        own = [(left, right) for left, right in halves if left in vocabulary and right in vocabulary]
        own.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        found += [(scores[i], len(left), len(right), left, right) for left, right in own]
    found.sort(key=lambda merge: merge[:3], reverse=True)
    return [[left, right] for *_, left, right in found]


def _bpe(vocabulary: dict[str, int], merges: list[Any]) -> Json:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": merges,
    }


def _whole(i: int, token: str, kind: int) -> Json:
    """A token that is found in texts as a whole."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": token, **flags, "special": kind != OWN}


def _around(metadata: Mapping[str, Any], *, bos: bool) -> Json | None:
    """What puts tokens in front of a text and behind it; None where nothing does."""
    tokens, single, named = _strings(metadata, "tokenizer.ggml.tokens"), [{"Sequence": {"id": "A", "type_id": 0}}], {}
    for asked, name in ((bos, "bos"), (_is_asked(metadata, "tokenizer.ggml.add_eos_token", False), "eos")):
        if not asked:
            continue
        key = f"tokenizer.ggml.{name}_token_id"
        token = _token(metadata, key, tokens)
        if token is None:
            raise ModelError(f"texts are to have {name} added, but there is no {key}")
        named[token] = {"id": token, "ids": [int(metadata[key])], "tokens": [token]}
        special = {"SpecialToken": {"id": token, "type_id": 0}}
        single = [special, *single] if name == "bos" else [*single, special]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": named} if named else None


def _token(metadata: Mapping[str, Any], key: str, tokens: list[str]) -> str | None:
    i = metadata.get(key)
    if i is None:
        return None
    if not isinstance(i, int) or not 0 <= i < len(tokens):
        raise ModelError(f"{key}={shorten(i)}: there are {len(tokens):,} tokens")
    return tokens[i]


def _strings(metadata: Mapping[str, Any], key: str) -> list[str]:
    found = metadata.get(key)
    if not isinstance(found, list) or not found or not isinstance(found[0], str):
        raise ModelError(f"{key} is missing, or is no list of strings")
    return found


def _numbers(metadata: Mapping[str, Any], key: str, count: int) -> list[Any]:
    found = metadata.get(key)
    if not isinstance(found, list) or len(found) != count or not all(isinstance(one, (int, float)) for one in found):
        raise ModelError(f"{key} must be a list of {count:,} numbers, one for each token")
    return found


def _is_asked(metadata: Mapping[str, Any], key: str, default: bool) -> bool:
    value = metadata.get(key, default)
    if not isinstance(value, bool):
        raise ModelError(f"{key}={shorten(value)}: must be true or false")
    return value
