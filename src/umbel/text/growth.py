"""Bounds how much longer a tokenizer's rules can make a text: a file can hold sixty rules that each double it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer

from umbel.errors import ModelError

MAX_GROWTH = 1_024
MAX_RULES = 256
MAX_AROUND = 1_024
_MAY_MATCH_NOTHING = ("*", "?", "|", "^", "$", "{0", "{,", "\\b", "\\B", "\\A", "\\z", "\\Z", "\\G")


def check_growth(backend: Tokenizer) -> None:
    """Raise ModelError where the normaliser or the decoder may make a text over `MAX_GROWTH` times as long."""
    for name, part in (("normalizer", backend.normalizer), ("decoder", backend.decoder)):
        rules = [] if part is None else list(_rules(json.loads(part.__getstate__())))
        if len(rules) > MAX_RULES:
            raise ModelError(f"tokenizer.json: {name} of {len(rules):,} rules: at most {MAX_RULES} are accepted")
        growth = 1
        for rule in rules:
            growth *= _growth(rule)
        if growth > MAX_GROWTH:
            raise ModelError(
                f"tokenizer.json: {name} may make a text over {MAX_GROWTH:,} times as long; no sound one needs that"
            )


def check_around(backend: Tokenizer) -> None:
    """Raise ModelError where over `MAX_AROUND` tokens are put around every text."""
    around = backend.num_special_tokens_to_add(False)
    if around > MAX_AROUND:
        raise ModelError(f"tokenizer.json: {around:,} tokens around every text: at most {MAX_AROUND:,} are accepted")


def _rules(part: Any) -> Iterator[Mapping[str, Any]]:
    """The rules of a part, with nested sequences flattened."""
    inner = part.get("normalizers") or part.get("decoders")
    if not inner:
        yield part
    for each in inner or ():
        yield from _rules(each)


def _growth(rule: Mapping[str, Any]) -> int:
    """The most characters that a rule makes of one."""
    if rule.get("type") == "Prepend":
        return 1 + len(rule["prepend"])
    if rule.get("type") != "Replace":
        return 1
    n_chars, pattern = len(rule["content"]), rule["pattern"]
    if "String" in pattern:
        return -(-n_chars // len(pattern["String"])) or 1 if pattern["String"] else n_chars + 1
    return (n_chars + any(sign in pattern["Regex"] for sign in _MAY_MATCH_NOTHING)) or 1
