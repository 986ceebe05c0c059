"""JSON calls behind a mark, `{"name": ..., "arguments": {...}}` or a list of them: how most families write calls."""

from __future__ import annotations

import re

from umbel.text.answers.base import NO_TYPES, CallReader, Parts, ToolCall, Types, calls_of, json_at, outside


def tagged(begin: str, end: str = "") -> CallReader:
    """Reads calls between two marks, the last of which may be left open; without an `end`, up to the next one."""
    closing = rf"(?:{re.escape(end)}|\Z)" if end else rf"(?={re.escape(begin)}|\Z)"
    section = re.compile(rf"{re.escape(begin)}(.*?){closing}", re.DOTALL)

    def read(text: str, types: Types = NO_TYPES) -> Parts:
        found = [(one.span(), calls) for one in section.finditer(text) if (calls := _calls(one[1]))]
        if not found:
            return Parts(text)
        return Parts(outside(text, [span for span, _ in found]), tuple(call for _, calls in found for call in calls))

    return read


def _calls(text: str) -> tuple[ToolCall, ...] | None:
    """The calls of a text that holds nothing else: objects behind one another, or a list of them."""
    values, at = list[object](), 0
    while text[at:].strip():
        value, at = json_at(text, at)
        if at < 0:
            return None
        values += value if isinstance(value, list) else [value]
    return calls_of(values)
