"""The seam of what reads answers: a whole text in, its parts out, and no character of it lost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function to call, and its arguments as the text of a JSON object."""

    name: str
    arguments: str

    def as_openai(self, id: str) -> dict[str, Any]:
        """The call under an id, in OpenAI's form."""
        return {"id": id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True, slots=True)
class Parts:
    """An answer: its tool calls in order, and the text that belongs to none of them ("" where all of it does)."""

    content: str
    calls: tuple[ToolCall, ...] = ()


Types = Mapping[str, Mapping[str, Any]]
"""The schemas of arguments by their names, by the name of the tool."""
NO_TYPES: Types = MappingProxyType({})


class CallReader(Protocol):
    """Reads a whole answer; what is no tool call as the format has it stays content."""

    def __call__(self, text: str, types: Types = NO_TYPES, /) -> Parts:
        """The parts of an answer; `types` say what bare texts of arguments are, where a format writes some."""
        ...


def types_of(tools: Iterable[Mapping[str, Any]]) -> Types:
    """The types of tools in OpenAI's form."""
    functions = [tool["function"] for tool in tools]
    return {one["name"]: (one.get("parameters") or {}).get("properties") or {} for one in functions}


def call_of(value: object) -> ToolCall | None:
    """The call that an object with `name` and `arguments`, or `parameters`, is; None for another value."""
    if not isinstance(value, dict) or not isinstance(name := value.get("name"), str) or not name:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = whole_json(arguments)
    return ToolCall(name, json.dumps(arguments, ensure_ascii=False)) if isinstance(arguments, dict) else None


def calls_of(values: Iterable[object]) -> tuple[ToolCall, ...] | None:
    """The calls of all values; None where one is none."""
    found = [call_of(value) for value in values]
    return None if not found or None in found else tuple(call for call in found if call is not None)


def whole_json(text: str) -> Any:
    """What a text is as JSON; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def json_at(text: str, at: int) -> tuple[Any, int]:
    """The JSON value that begins at a place behind blanks, and where it ends; -1 where there is none."""
    while at < len(text) and text[at].isspace():
        at += 1
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None, -1


def outside(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """The text but for some spans of it, without blanks at its ends."""
    at, kept = 0, list[str]()
    for begin, end in spans:
        kept.append(text[at:begin])
        at = end
    return "".join([*kept, text[at:]]).strip()
