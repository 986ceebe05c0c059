"""`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`: Hermes, Qwen 2.5 and 3."""

from __future__ import annotations

import re

from umbel.text.answers.base import Parts, call_of, outside, whole_json

_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)


def read(text: str) -> Parts:
    """Calls by their tags, the last of which may be left open."""
    found = [(one.span(), call_of(whole_json(one[1]))) for one in _CALL.finditer(text)]
    calls = [(span, call) for span, call in found if call is not None]
    if not calls:
        return Parts(text)
    return Parts(outside(text, [span for span, _ in calls]), tuple(call for _, call in calls))
