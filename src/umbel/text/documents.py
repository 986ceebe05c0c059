"""Prompts whose documents are made tokens each alone, so that a document is the same tokens wherever it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from umbel.errors import InvalidRequest
from umbel.ir.documents import Span

BLANK = "\n\n"  # behind a document: a part of it


Encode = Callable[[Sequence[str]], list[list[int]]]
"""Gives the token ids of each text."""


class TextParts(NamedTuple):
    """A text and its documents, in characters: disjoint, ascending, with something behind them."""

    text: str
    documents: Sequence[Span]


class TokenParts(NamedTuple):
    """A prompt and its documents, in tokens."""

    ids: list[int]
    documents: tuple[Span, ...]


def encode_parts(begin: Encode, alone: Encode, prompts: Sequence[TextParts]) -> list[TokenParts]:
    """Prompts in pieces: what stands before the first document, each document, and what is behind them. `begin` makes
    tokens of the first of these, `alone` of one that stands behind others. What is between two documents belongs to the
    first of them, as does a blank line behind the last. Raises InvalidRequest where a tokenizer puts tokens behind
    texts."""
    split = [_pieces(prompt) for prompt in prompts]
    texts = list(dict.fromkeys(piece for pieces in split for piece in pieces))
    ids = dict(zip(texts, alone(texts), strict=True))
    heads = list(dict.fromkeys(pieces[0] for pieces in split))
    begun = dict(zip(heads, begin(heads), strict=True))
    return [_joined(begun[pieces[0]], [ids[piece] for piece in pieces]) for pieces in split]


def _pieces(prompt: TextParts) -> list[str]:
    """The text before the documents, each document, the text behind them."""
    text, last = prompt.text, prompt.documents[-1][1]
    if text.startswith(BLANK, last) and len(text) > last + len(BLANK):
        last += len(BLANK)
    cuts = [0, *(first for first, _ in prompt.documents), last, len(text)]
    return [text[first:end] for first, end in pairwise(cuts)]


def _joined(begun: list[int], pieces: Sequence[list[int]]) -> TokenParts:
    head = pieces[0]
    if head and begun[-len(head) :] != head:
        message = "the tokenizer puts tokens behind a text, where documents would follow: leave the technique out"
        raise InvalidRequest("unsupported_parameter", message, "documents")
    found, spans = list(begun), list[Span]()
    for piece in pieces[1:-1]:
        if piece:
            spans.append((len(found), len(found) + len(piece)))
        found += piece
    return TokenParts(found + pieces[-1], tuple(spans))
