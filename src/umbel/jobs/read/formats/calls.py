"""Which tools the answer of a chat may call, or has to: `tool_choice` and `parallel_tool_calls`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from umbel.errors import InvalidRequest
from umbel.ir.limits import refuse, shown
from umbel.ir.request import Request
from umbel.ir.structured import StructuredOutputsParams
from umbel.jobs.read.records import Style
from umbel.text.answers.formats import FORMATS, WHOLE, AnswerReader

_MEMO_ENTRIES = 1_024


class ToolChoices:
    """Chats whose tools may be called, with answers that are read so."""

    def __init__(self, answers: AnswerReader):
        self._format = None if answers.calls is None else FORMATS[answers.calls]
        self._shows, self._reads = answers.shows_special, answers != WHOLE
        self._forms: dict[bytes, StructuredOutputsParams] = {}

    def told(self, body: Mapping[str, Any], request: Request) -> tuple[Request, Style]:
        """The request of a chat, with what its choice asks of the answer. Raises InvalidRequest."""
        choice, tools = body.get("tool_choice") or "auto", request.chat.tools or ()
        may_call = choice == "auto" and bool(tools) and self._format is not None
        if choice in ("none", "auto"):
            if self._shows or (may_call and self._format is not None and self._format.special):
                request = replace(request, params=request.params.clone(skip_special_tokens=False))
            return request, Style.TOOLS if may_call else Style.CHAT
        named = [
            tool["function"] for tool in tools if choice == "required" or tool["function"]["name"] == _name(choice)
        ]
        if not named:
            refuse("invalid_value", "tool_choice", f"tool_choice={shown(choice)}: the row has no such tool")
        if request.params.structured_outputs is not None:
            refuse(
                "invalid_value", "tool_choice", "tool_choice and response_format are both given: an answer has one form"
            )
        several = choice == "required" and body.get("parallel_tool_calls") is not False
        form = self._form(named, several=several)
        return replace(request, params=request.params.clone(structured_outputs=form)), Style.CALLS

    def told_plain(self, item: Mapping[str, Any], request: Request) -> tuple[Request, Style]:
        """The request of a plain row; its answer has parts where it is a chat and these are read, or have to be
        calls."""
        asked = item.get("tool_choice")
        asks = asked not in (None, "none", "auto")
        if request.messages is None and asks:
            refuse("unsupported_parameter", "tool_choice", f"tool_choice={shown(asked)}: only chats can have tools")
        if request.messages is None or not (asks or self._reads):
            return request, Style.PLAIN
        request, style = self.told(item, request)
        return request, style.as_plain

    def _form(self, functions: list[Mapping[str, Any]], *, several: bool) -> StructuredOutputsParams:
        """A list of calls of these functions, with arguments by their schemas."""
        schema = {"type": "array", "minItems": 1, "items": {"anyOf": [_call(one) for one in functions]}}
        key = orjson.dumps(schema if several else schema | {"maxItems": 1}, default=repr)
        if key not in self._forms:
            if len(self._forms) >= _MEMO_ENTRIES:
                self._forms.clear()
            try:
                self._forms[key] = StructuredOutputsParams(json=key.decode(), disable_any_whitespace=True)
            except InvalidRequest as error:
                raise InvalidRequest(error.code, f"tools: {error.message}", "tools") from None
        return self._forms[key]


def _call(function: Mapping[str, Any]) -> dict[str, Any]:
    fields = {"name": {"const": function["name"]}, "parameters": function.get("parameters") or {"type": "object"}}
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def _name(choice: Any) -> str:
    """The function that a choice names."""
    function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(name := function.get("name"), str):
        known = '"none", "auto", "required" or {"type": "function", "function": {"name": ...}}'
        refuse("invalid_value", "tool_choice", f"tool_choice={shown(choice)}: must be {known}")
    return name
