"""Two texts as one prompt, as cross-encoders read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def encode_pairs(encode: Callable[[Any], list[list[int]]], pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
    """Token ids of two texts each, joined as the tokenizer's own files join pairs; `encode` is a Tokenizer's, whose
    library takes a pair wherever it takes a text. Raises InvalidRequest as that does."""
    return encode(pairs)
