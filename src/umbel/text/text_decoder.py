"""Token ids to text, as it reads after the text before it, and the bytes of single tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

_ALIKE = frozenset({"ByteLevel", "ByteFallback", "Fuse"})
CLEAN_UP = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
    (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip
CLEAN_UP_CHARS = frozenset("".join(before for before, _ in CLEAN_UP))


class TextDecoder:
    """Turns ids into text.

    `cleans_up`: texts are cleaned (`clean_up`).
    `first_apart`: the first token of a text is decoded differently from one after another token.
    """

    def __init__(self, backend: Tokenizer, *, clean_up: bool):
        self._backend = backend
        self.cleans_up = clean_up
        self.first_apart = _treats_first_apart(backend)
        self._byte_level = _is_byte_level(backend)
        self._context_chars: dict[tuple[int, ...], int] = {}

    def token_text(self, token_id: int) -> str | None:
        """The vocabulary entry of an id, None when there is none."""
        return self._backend.id_to_token(token_id)

    def decode_batch(self, rows: Sequence[Sequence[int]], *, skip_special_tokens: bool = True) -> list[str]:
        """The text of each row of token ids; unknown ids give no text."""
        texts = self._decode_raw(rows, skip_special_tokens=skip_special_tokens)
        return [clean_up(text) for text in texts] if self.cleans_up else texts

    def context_of(
        self, prompt: Sequence[int] | NDArray[np.int32], *, skip_special_tokens: bool = True
    ) -> tuple[int, ...]:
        """The token of a prompt after which its answer is decoded; none where that makes no difference.

        Decoders drop the blank of a text's first token, which must stay in an answer unless its prompt has no text. A
        single byte is never taken, as the library decodes neighbouring bytes as one.
        """
        if not self.first_apart:
            return ()
        any_bytes = False
        for token_id in map(int, reversed(prompt)):
            if token_id in self.byte_ids:
                any_bytes = True
            elif not (skip_special_tokens and token_id in self.special_ids) and self.token_text(token_id):
                return (token_id,)
        return self._letter if any_bytes else ()

    def decode_answers(
        self, rows: Sequence[Sequence[int]], contexts: Sequence[tuple[int, ...]], *, skip_special_tokens: bool = True
    ) -> list[str]:
        """The text of each row of token ids, as it reads after its context."""
        if skip_special_tokens:
            rows = [[i for i in ids if i not in self.special_ids] for ids in rows]
        whole = self._decode_raw([[*c, *ids] for c, ids in zip(contexts, rows, strict=True)], skip_special_tokens=False)
        texts = [text[self.n_context_chars(c) :] for c, text in zip(contexts, whole, strict=True)]
        return [clean_up(text) for text in texts] if self.cleans_up else texts

    def n_context_chars(self, context: tuple[int, ...]) -> int:
        """Length of a context's own text."""
        if context not in self._context_chars:
            (text,) = self._decode_raw([context], skip_special_tokens=False)
            self._context_chars[context] = len(text)
        return self._context_chars[context]

    def token_bytes(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes that each id adds to a text when it is not its first token; an unknown id adds none."""
        if self._byte_level:
            return [_byte_level_bytes(self.token_text(i) or "") for i in ids]
        known = [i for i in ids if self.token_text(i) is not None]
        pairs = self.decode_answers([[i] for i in known], [(i,) for i in known], skip_special_tokens=False)
        found = {i: text.encode() for i, text in zip(known, pairs, strict=True)}
        found |= {i: bytes([byte]) for i, byte in self._bytes_by_id.items() if i in found}
        return [found.get(i, b"") for i in ids]

    def decode_raw(self, ids: Sequence[int]) -> str:
        """The text of token ids, special ones shown, nothing cleaned up."""
        return self._decode_raw([ids], skip_special_tokens=False)[0]

    def _decode_raw(self, rows: Sequence[Sequence[int]], *, skip_special_tokens: bool) -> list[str]:
        if skip_special_tokens:  # the library would show those that are marked as normalised
            rows = [[i for i in ids if i not in self.special_ids] for ids in rows]
        texts: list[str] = self._backend.decode_batch(rows, skip_special_tokens=False)
        return texts

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that `skip_special_tokens` leaves out."""
        return frozenset(self.special_texts.values())

    @cached_property
    def special_texts(self) -> dict[str, int]:
        """The ids of special tokens by their texts."""
        tokens = self._backend.get_added_tokens_decoder().items()
        return {token.content: i for i, token in tokens if token.special}

    def notes_on_stops(self, stops: Iterable[str]) -> list[str]:
        """Notes on stop strings that cannot match, because special tokens, which they contain, have no visible text."""
        found = []
        for stop in stops:
            held = [text for text in self.special_texts if text != stop and text in stop]
            parts = [text for text in self.special_texts if text.startswith(stop) or text.endswith(stop)]
            if stop in self.special_texts or not (held or (parts and len(stop) > 1)):
                continue
            relation, text = ("holds", held[0]) if held else ("is a part of", parts[0])
            found.append(
                f"the stop string {stop!r} {relation} the special token {text!r}, whose text does not show, so it does "
                f"not match there: give {text!r} alone, or skip_special_tokens=false"
            )
        return found

    @cached_property
    def byte_ids(self) -> frozenset[int]:
        """Ids of single bytes (`<0x41>`), where the tokenizer spells unknown characters with them."""
        return frozenset(self._bytes_by_id)

    @cached_property
    def _bytes_by_id(self) -> dict[int, int]:
        return _byte_fallback_ids(self._backend)

    @cached_property
    def _letter(self) -> tuple[int, ...]:
        """The token of a byte that is a character of its own: a context for answers to prompts of bytes alone."""
        return tuple(i for i, byte in self._bytes_by_id.items() if byte == ord("A"))[:1]


def clean_up(text: str) -> str:
    """Clean up a text as transformers does for tokenizers that ask for `clean_up_tokenization_spaces`."""
    for before, after in CLEAN_UP:
        text = text.replace(before, after)
    return text


class CleanUp:
    """`clean_up` of a text that comes in pieces; holds back text that later text may still change."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> str:
        """Take new text, return the cleaned text that has become final."""
        text = self._held + text
        # No replacement reaches over a character that is in none of them.
        end = next((i for i in range(len(text), 0, -1) if text[i - 1] not in CLEAN_UP_CHARS), 0)
        self._held = text[end:]
        return clean_up(text[:end])

    def rest(self, text: str = "") -> str:
        """The text held back, followed by `text`, cleaned as if no more came."""
        return clean_up(self._held + text)


def _treats_first_apart(backend: Tokenizer) -> bool:
    """Whether the decoder turns a token into other characters at the beginning of a text than after another token."""
    decoder = backend.decoder
    return decoder is None or not _alike(json.loads(decoder.__getstate__()))


def _alike(part: Mapping[str, Any]) -> bool:
    kind = part["type"]
    if kind == "Sequence":
        return all(map(_alike, part["decoders"]))
    if kind == "Metaspace":
        return part.get("prepend_scheme") == "never"
    if kind == "Strip":
        return part["start"] == 0
    return kind in _ALIKE or (kind == "Replace" and "String" in part["pattern"])


def _is_byte_level(backend: Tokenizer) -> bool:
    """Whether each character of a vocabulary entry stands for one byte, as in GPT-2."""
    decoder = backend.decoder
    return decoder is not None and json.loads(decoder.__getstate__())["type"] == "ByteLevel"


@cache
def _byte_of_char() -> Mapping[str, int]:
    """GPT-2's characters for bytes: printable ones stand for themselves, the others for 256 and up, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    pairs = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    return MappingProxyType(pairs)


def _byte_level_bytes(entry: str) -> bytes:
    """The bytes of a vocabulary entry of a byte-level tokenizer; an entry with any other character is plain text."""
    values = [_byte_of_char().get(char) for char in entry]
    return entry.encode() if None in values else bytes(value for value in values if value is not None)


def _byte_fallback_ids(backend: Tokenizer) -> dict[int, int]:
    """Byte by id of the tokens that stand for single bytes (`<0x41>`), where the decoder reads them so."""
    decoder = backend.decoder
    if decoder is None or b"ByteFallback" not in decoder.__getstate__():
        return {}
    names = [(f"<0x{byte:{form}}>", byte) for byte in range(256) for form in ("02X", "02x")]
    found = [(backend.token_to_id(name), byte) for name, byte in names]
    return {i: byte for i, byte in found if i is not None}
