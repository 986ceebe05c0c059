"""Chats of a job whose answers have parts: what is asked of the answers, and the style in which they are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from umbel.ir.limits import refuse, shown
from umbel.ir.request import Request
from umbel.jobs.read.records import Style
from umbel.text.answers.choice import ToolChoices
from umbel.text.answers.formats import WHOLE, AnswerReader


class Calling:
    """Chats whose tools may be called, with answers that are read so."""

    def __init__(self, answers: AnswerReader):
        self._choices, self._reads = ToolChoices(answers), answers != WHOLE

    def told(self, body: Mapping[str, Any], request: Request) -> tuple[Request, Style]:
        """The request of a chat, with what its choice asks of the answer. Raises InvalidRequest."""
        several, tools = body.get("parallel_tool_calls") is not False, request.chat.tools or ()
        asked = self._choices.of(body.get("tool_choice"), tools, several=several)
        style = Style.CALLS if asked.form is not None else Style.TOOLS if asked.may_call else Style.CHAT
        return replace(request, params=asked.applied(request.params)), style

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
