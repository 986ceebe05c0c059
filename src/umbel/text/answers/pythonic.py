"""Calls as Python writes them, read and never run: `[sun(city="Ulm", days=2), rain()]` (Llama 3.2 and 4, ToolACE), and
a line each between marks (OLMo 3)."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterable
from typing import Any

from umbel.text.answers.base import NO_TYPES, CallReader, Parts, ToolCall, Types

MAX_CHARS = 100_000  # of an answer that is read so
_NAMES = {"true": True, "false": False, "null": None}


def pythonic(begin: str = "", end: str = "", *, lines: bool = False) -> CallReader:
    """Reads an answer that is a list of calls, or a call on each of its `lines`; all of it or what stands between two
    marks."""

    def read(text: str, types: Types = NO_TYPES) -> Parts:
        before, mark, inner = text.partition(begin) if begin else ("", " ", text)
        if not mark:
            before, inner = "", text if not lines else ""
        inner, _, after = inner.partition(end) if end else (inner, "", "")
        calls = _calls(f"[{','.join(filter(None, inner.strip().splitlines()))}]" if lines else inner.strip())
        return Parts(text) if calls is None else Parts((before + after).strip(), calls)

    return read


def _calls(text: str) -> tuple[ToolCall, ...] | None:
    """The calls of a list; None where it is none, or holds anything but calls with literals by name."""
    if not text.startswith("[") or len(text) > MAX_CHARS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know
            tree = ast.parse(text, mode="eval").body
        return tuple(_call(one) for one in _items(tree)) or None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _items(node: ast.expr) -> Iterable[ast.expr]:
    if not isinstance(node, ast.List):
        raise ValueError("no list")
    return node.elts


def _call(node: ast.expr) -> ToolCall:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("no call with arguments by name")
    given = {one.arg: _value(one.value) for one in node.keywords}
    if None in given:
        raise ValueError("arguments without names")
    return ToolCall(_name(node.func), json.dumps(given, ensure_ascii=False))


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    if isinstance(node, ast.Name):
        return node.id
    raise ValueError("no name")


def _value(node: ast.expr) -> Any:
    """A literal, with JSON's names for what Python calls otherwise."""
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, str | int | float)):
        return node.value
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(one) for one in node.elts]
    if isinstance(node, ast.Dict) and all(
        isinstance(key, ast.Constant) and isinstance(key.value, str) for key in node.keys
    ):
        return {key.value: _value(one) for key, one in zip(node.keys, node.values, strict=True)}  # type: ignore[union-attr]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value(node.operand)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return -value
    raise ValueError("no literal")
