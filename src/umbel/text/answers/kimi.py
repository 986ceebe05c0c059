"""Kimi-K2's calls between marks: `functions.NAME:NUMBER`, and the arguments as JSON."""

from __future__ import annotations

import re

from umbel.text.answers.base import NO_TYPES, Parts, Types, call_of, outside, whole_json

_CALL = re.compile(
    r"<\|tool_call_begin\|>\s*(?:functions\.)?(?P<name>[\w.-]+):\d+\s*<\|tool_call_argument_begin\|>"
    r"(?P<arguments>.*?)<\|tool_call_end\|>",
    re.DOTALL,
)
_AROUND = re.compile(r"<\|tool_calls_section_(?:begin|end)\|>")


def read(text: str, types: Types = NO_TYPES) -> Parts:
    """Calls by their marks."""
    calls = []
    for one in _CALL.finditer(text):
        call = call_of({"name": one["name"], "arguments": whole_json(one["arguments"])})
        if call is not None:
            calls.append((one.span(), call))
    if not calls:
        return Parts(text)
    spans = sorted([*(span for span, _ in calls), *(mark.span() for mark in _AROUND.finditer(text))])
    return Parts(outside(text, spans), tuple(call for _, call in calls))
