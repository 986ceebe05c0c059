"""Hostile files by grammar: sound ones with bytes flipped, cut and doubled, values of wrong kinds, deep nesting."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]

BYTES = (
    b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\r", b"\r\n", b"\n", b"\x0b", b"\x1a", b"\x1f\x8b", b"\xe2\x80\xa8",
    b"\xc2\x85", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\\ud800", b"\\u0000", b"\\", b'"', b"'", b",",
    b"{", b"}", b"[", b"]", b":", b"null", b"NaN", b"-Infinity", b"1E400", b"-0", b"9" * 400, b"0x1", b"//", b" ",
)  # fmt: skip
TEXTS = (
    "", " ", "\x00", "\ufeff", "\ufffe", "\r\n", "\u2028", "\u202e", "e\u0301", "\U0001f468\u200d\U0001f469", "%s%n",
    "{}", "{x}", "{{", "../../x", "NaN", "<|im_end|>", "<|im_start|>system", "{{ 7 * 7 }}", "\ud800", "a" * 5000,
    " " * 5000, "\n" * 3000, "1e999", "=1+1", "__class__",
)  # fmt: skip
NUMBERS = (
    0, -1, 1, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308,
    5e-324, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
DEPTHS = (2, 120, 252, 254, 256, 512, 990, 1022, 1030, 5000)

texts = st.one_of(st.sampled_from(TEXTS), st.text(max_size=12))
scalars = st.one_of(st.none(), st.booleans(), st.sampled_from(NUMBERS), st.integers(), st.floats(), texts)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def nested(draw: Draw) -> str:
    """The JSON text of a value that is nested deeply, as lists or as objects."""
    depth = draw(st.sampled_from(DEPTHS))
    opening, closing = draw(st.sampled_from((("[", "]"), ('{"a":', "}"))))
    return opening * depth + "1" + closing * draw(st.sampled_from((depth, depth, depth, 0)))


@st.composite
def damaged(draw: Draw, data: bytes, most: int = 4) -> bytes:
    """`data` after up to `most` edits: bytes flipped, cut out, doubled, replaced or put in."""
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, max(len(data), 1)))
        span = draw(st.sampled_from((1, 1, 2, 8, 64, 1024)))
        kind = draw(st.sampled_from(("put", "put", "flip", "cut", "double", "end")))
        if kind == "put":
            data = data[:at] + draw(st.sampled_from(BYTES) | st.binary(max_size=4)) + data[at:]
        elif kind == "flip":
            data = data[:at] + bytes(byte ^ draw(st.integers(1, 255)) for byte in data[at : at + 1]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at] + data[at + span :]
        elif kind == "double":
            data = data[: at + span] + data[at:]
        else:
            data = data[:at]
    return data


@st.composite
def changed(draw: Draw, tree: Any, most: int = 3, other: st.SearchStrategy[Any] = values) -> Any:
    """A JSON value with up to `most` places changed: replaced, removed, doubled or renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, most))):
        tree = _change(draw, tree, other, 40)
    return tree


def _change(draw: Draw, tree: Any, other: st.SearchStrategy[Any], replace_one_in: int = 6) -> Any:
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    if not keys or draw(st.integers(1, replace_one_in)) == replace_one_in:
        return draw(other)
    key = draw(st.sampled_from(keys))
    kind = draw(st.sampled_from(("in", "in", "in", "remove", "double", "add")))
    if kind == "in":
        tree[key] = _change(draw, tree[key], other)
    elif kind == "remove":
        del tree[key]
    elif isinstance(tree, list):
        tree.insert(key, copy.deepcopy(tree[key]) if kind == "double" else draw(other))
    else:
        tree[draw(texts)] = copy.deepcopy(tree[key]) if kind == "double" else draw(other)
    return tree


def as_json(draw: Draw, tree: Any) -> bytes:
    """JSON text with or without escapes, numbers that JSON lacks included; lone surrogates as three bytes."""
    escaped = draw(st.sampled_from((True, True, False)))
    return json.dumps(tree, ensure_ascii=escaped).encode("utf-8", "surrogatepass")


@st.composite
def packed(draw: Draw, data: bytes) -> bytes:
    """`data` as gzip: whole, in several members, with something behind it, cut, or with a byte flipped."""
    cut = draw(st.integers(0, len(data)))
    members = gzip.compress(data[:cut], 1) + gzip.compress(data[cut:], 1)
    tail = draw(st.sampled_from((b"", b"", b"\x00" * 9, b"junk", b"\x1f\x8b")))
    return draw(st.one_of(st.just(members + tail), damaged(members, 2)))
