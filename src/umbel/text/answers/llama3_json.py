"""`{"name": ..., "parameters": {...}}`, the whole answer, several with semicolons between them: Llama 3.1 and 3.2."""

from __future__ import annotations

from umbel.text.answers.base import NO_TYPES, Parts, Types, calls_of, json_at

_TAG = "<|python_tag|>"


def read(text: str, types: Types = NO_TYPES) -> Parts:
    """Calls, where there is nothing but calls behind the tag, which may be left out."""
    before, _, inner = text.rpartition(_TAG)
    values, at = list[object](), 0
    while at < len(inner):
        value, at = json_at(inner, at)
        if at < 0:
            return Parts(text)
        values.append(value)
        rest = inner[at:].lstrip()
        if rest and rest[0] != ";":
            return Parts(text)
        at = len(inner) if not rest else len(inner) - len(rest) + 1
    calls = calls_of(values)
    return Parts(text) if calls is None else Parts(before.strip(), calls)
