"""Tokenises the beginnings that chats have in common once, where that gives the ids of the whole text, token for token.

Special tokens split a text before anything else looks at it, so the text after one is tokenised as if it stood alone:
ids(a + b) = ids(a) + ids(b) when `a` ends in a special token. That does not hold when a rule treats the beginning of a
text differently, or when the token absorbs characters around it; then nothing is shared.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer

LEAST_CHARS = 256  # of a beginning: less is tokenised sooner than looked up
_KEPT = 64
_STARTLESS = frozenset(
    {
        "ByteLevel", "Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "BertPreTokenizer",
        "UnicodeScripts", "Metaspace", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Replace", "StripAccents", "Sequence",
    }
)  # fmt: skip


def breaks_of(backend: Tokenizer) -> re.Pattern[str] | None:
    """A pattern of the special tokens after which a text may be cut, None when there is none or it is not safe."""
    for part in (backend.normalizer, backend.pre_tokenizer):
        if part is not None and not _startless(json.loads(part.__getstate__())):
            return None
    added = list(backend.get_added_tokens_decoder().values())
    if getattr(backend.model, "dropout", None) or any(token.single_word for token in added):
        return None
    contents = [token.content for token in added]
    plain = [token.content for token in added if not (token.normalized or token.lstrip or token.rstrip)]
    safe = [content for content in plain if content and not any(_overlap(content, other) for other in contents)]
    return re.compile("|".join(map(re.escape, safe))) if safe else None


def _startless(part: dict[str, Any]) -> bool:
    """Whether a normaliser or pre-tokenizer treats the beginning of a text like any other place."""
    steps = [*(part.get("normalizers") or []), *(part.get("pretokenizers") or [])]
    if part["type"] not in _STARTLESS or part.get("add_prefix_space"):
        return False
    if part["type"] == "Metaspace" and part.get("prepend_scheme") != "never":
        return False
    return all(map(_startless, steps))


def _overlap(content: str, other: str) -> bool:
    """Whether finding `other` in a text may keep `content` from being found at its place."""
    if content == other:
        return any(content[-n:] == content[:n] for n in range(1, len(content)))
    return content in other or any(other[-n:] == content[:n] for n in range(1, min(len(content), len(other) + 1)))


class SharedBeginnings:
    """Encodes texts, and their common beginnings only once; remembers the beginnings that were used last.

    `encode` returns the ids of each text and must not add special tokens.
    """

    def __init__(self, breaks: re.Pattern[str], encode: Callable[[Sequence[str]], list[list[int]]]):
        self._breaks = breaks
        self._encode = encode
        self._known: dict[str, list[int]] = {}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        beginnings = self._beginnings(texts)
        new = [text for text in dict.fromkeys(beginnings) if text and text not in self._known]
        for text, ids in zip(new, self._encode(new) if new else [], strict=True):
            self._known[text] = ids
        rests = self._encode([text[len(start) :] for text, start in zip(texts, beginnings, strict=True)])
        whole = [self._known[start] + rest if start else rest for start, rest in zip(beginnings, rests, strict=True)]
        for text in list(self._known)[: max(0, len(self._known) - _KEPT)]:
            del self._known[text]
        return whole

    def _beginnings(self, texts: Sequence[str]) -> list[str]:
        """The longest beginning of each text, up to a special token, that another text has too; "" for none."""
        cuts = [self._cuts(text) for text in texts]
        counts = Counter(start for starts in cuts for start in starts)
        return [
            next((start for start in reversed(starts) if counts[start] > 1 or start in self._known), "")
            for starts in cuts
        ]

    def _cuts(self, text: str) -> list[str]:
        if len(text) < LEAST_CHARS:
            return []
        ends = [match.end() for match in self._breaks.finditer(text)]
        return [text[:end] for end in ends if end >= LEAST_CHARS]
