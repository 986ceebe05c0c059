"""`[TOOL_CALLS]` and a list of calls, or for each call its name and arguments: Mistral's models, older and newer."""

from __future__ import annotations

import re

from umbel.text.answers.base import NO_TYPES, Parts, ToolCall, Types, calls_of, json_at

_TAG = "[TOOL_CALLS]"
_NAMED = re.compile(r"\s*(?:\[TOOL_CALLS\])?\s*([\w.-]+)\s*(?:\[CALL_ID\][\w-]*)?(?:\[ARGS\])?\s*(?=\{)")


def read(text: str, types: Types = NO_TYPES) -> Parts:
    """Calls, where there is nothing but calls behind the first tag."""
    before, tag, inner = text.partition(_TAG)
    calls = (_listed(inner) or _named(inner)) if tag else None
    return Parts(text) if not calls else Parts(before.strip(), calls)


def _listed(text: str) -> tuple[ToolCall, ...] | None:
    values, end = json_at(text, 0)
    if end < 0 or text[end:].strip() or not isinstance(values, list):
        return None
    return calls_of(values)


def _named(text: str) -> tuple[ToolCall, ...] | None:
    found, at = list[object](), 0
    while text[at:].strip():
        name = _NAMED.match(text, at)
        if name is None:
            return None
        arguments, at = json_at(text, name.end())
        if at < 0:
            return None
        found.append({"name": name[1], "arguments": arguments})
    return calls_of(found)
