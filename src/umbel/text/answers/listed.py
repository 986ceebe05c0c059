"""`[{"name": ..., "parameters": {...}}, ...]`: answers that a grammar holds to calls of a row's own tools."""

from __future__ import annotations

from umbel.text.answers.base import NO_TYPES, Parts, Types, calls_of, whole_json


def read(text: str, types: Types = NO_TYPES) -> Parts:
    """The calls of a list that is complete."""
    values = whole_json(text)
    calls = calls_of(values) if isinstance(values, list) else None
    return Parts(text) if calls is None else Parts("", calls)
