"""gpt-oss: an answer is messages with marks. Those of the channel `analysis` are reasoning, those `to=functions.NAME`
call a tool, and the others, of `final` or `commentary`, are its content."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from umbel.text.answers.base import NO_TYPES, Parts, ToolCall, Types, call_of, whole_json

_MESSAGE = re.compile(
    r"(?:<\|start\|>(?P<role>[^<]*))?<\|channel\|>(?P<head>[^<]*)(?:<\|constrain\|>[^<]*)?<\|message\|>"
    r"(?P<body>.*?)(?:<\|end\|>|<\|return\|>|<\|call\|>|(?=<\|start\|>)|(?=<\|channel\|>)|\Z)",
    re.DOTALL,
)
_TO = re.compile(r"\bto=(?:functions\.)?(\S+)")


@dataclass(frozen=True, slots=True)
class _Message:
    """A message: the text of all of it, its channel and body, and whom it is `to`."""

    whole: str
    channel: str
    body: str
    to: str


def _messages(text: str) -> Iterator[_Message]:
    """The messages of an answer; what stands beside them is one without a channel."""
    at = 0
    for one in _MESSAGE.finditer(text):
        if between := text[at : one.start()].strip():
            yield _Message(between, "", between, "")
        to = _TO.search(f"{one['role'] or ''} {one['head']}")
        yield _Message(one[0], (one["head"].split() or [""])[0], one["body"], to[1] if to else "")
        at = one.end()
    if rest := text[at:].strip():
        yield _Message(rest, "", rest, "")


def reasoning(text: str) -> tuple[str | None, str]:
    """What was thought, and the rest: the bare content, and calls with their marks."""
    if "<|channel|>" not in text:
        return None, text
    found = list(_messages(text))
    thought = [one.body for one in found if one.channel == "analysis" and not one.to]
    rest = [one.whole if one.to else one.body for one in found if one.channel != "analysis" or one.to]
    return "\n".join(thought) or None, "".join(rest)


def read(text: str, types: Types = NO_TYPES) -> Parts:
    """Calls, each a message to a function with JSON; the content is what the other messages say."""
    if "<|channel|>" not in text:
        return Parts(text)
    calls, content = list[ToolCall](), list[str]()
    for one in _messages(text):
        call = call_of({"name": one.to, "arguments": whole_json(one.body)}) if one.to else None
        if call is not None:
            calls.append(call)
        else:
            content.append(one.whole)
    return Parts("".join(content).strip(), tuple(calls)) if calls else Parts(text)
