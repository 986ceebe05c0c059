"""Which tools the answer to a chat may call, or has to: `tool_choice` and `parallel_tool_calls`, as OpenAI has them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from umbel.errors import InvalidRequest
from umbel.ir.limits import refuse, shown
from umbel.ir.params import SamplingParams
from umbel.ir.structured import StructuredOutputsParams
from umbel.text.answers.formats import FORMATS, AnswerReader

_MEMO_ENTRIES = 1_024


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """What is asked of an answer: it `may_call`, or has the `form` of a list of calls (None: any). `special`: its text
    shows special tokens."""

    may_call: bool = False
    form: StructuredOutputsParams | None = None
    special: bool = False

    def applied(self, params: SamplingParams) -> SamplingParams:
        """Parameters that ask for it. Raises InvalidRequest where they ask for a form, too."""
        if self.form is not None:
            if params.structured_outputs is not None:
                message = "tool_choice and response_format are both given: an answer has one form"
                refuse("invalid_value", "tool_choice", message)
            return params.clone(structured_outputs=self.form)
        return params.clone(skip_special_tokens=False) if self.special else params


class ToolChoices:
    """Reads choices, for answers that are read so."""

    def __init__(self, answers: AnswerReader):
        self._format = None if answers.calls is None else FORMATS[answers.calls]
        self._shows = answers.shows_special
        self._forms: dict[str, StructuredOutputsParams] = {}

    def of(self, choice: Any, tools: Sequence[Mapping[str, Any]], *, several: bool = True) -> ToolChoice:
        """What a choice (None: "auto") asks of the answer to a chat with these tools; `several`: it may be of several
        calls. Raises InvalidRequest."""
        if choice in (None, "none", "auto"):
            found = self._format if tools and choice != "none" else None
            return ToolChoice(found is not None, None, self._shows or (found is not None and found.special))
        functions = [tool["function"] for tool in tools]
        named = functions if choice == "required" else [one for one in functions if one["name"] == _name(choice)]
        if not named:
            refuse("invalid_value", "tool_choice", f"tool_choice={shown(choice)}: the row has no such tool")
        return ToolChoice(form=self._form(named, several=several and choice == "required"))

    def _form(self, functions: list[Mapping[str, Any]], *, several: bool) -> StructuredOutputsParams:
        """A list of calls of these functions, with arguments by their schemas."""
        schema = {"type": "array", "minItems": 1, "items": {"anyOf": [_call(one) for one in functions]}}
        key = json.dumps(schema if several else schema | {"maxItems": 1}, ensure_ascii=False, default=repr)
        if key not in self._forms:
            if len(self._forms) >= _MEMO_ENTRIES:
                self._forms.clear()
            try:
                self._forms[key] = StructuredOutputsParams(json=key, disable_any_whitespace=True)
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
