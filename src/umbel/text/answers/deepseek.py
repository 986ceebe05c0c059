"""DeepSeek's calls between marks: V3 and R1 with a kind and a code block of JSON, V3.1 with the bare JSON."""

from __future__ import annotations

import re

from umbel.text.answers.base import NO_TYPES, Parts, Types, call_of, outside, whole_json

_CALL = re.compile(
    r"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>(?P<v3>[^\n]+)\n```json\n(?P<block>.*?)\n```\s*"
    r"|(?P<v31>[^<\n]+)<｜tool▁sep｜>(?P<bare>.*?))<｜tool▁call▁end｜>",
    re.DOTALL,
)
_AROUND = re.compile("<｜tool▁calls▁(?:begin|end)｜>")


def read(text: str, types: Types = NO_TYPES) -> Parts:
    """Calls by their marks."""
    calls = []
    for one in _CALL.finditer(text):
        arguments = whole_json(one["block"] or one["bare"] or "")
        call = call_of({"name": (one["v3"] or one["v31"]).strip(), "arguments": arguments})
        if call is not None:
            calls.append((one.span(), call))
    if not calls:
        return Parts(text)
    spans = sorted([*(span for span, _ in calls), *(mark.span() for mark in _AROUND.finditer(text))])
    return Parts(outside(text, spans), tuple(call for _, call in calls))
