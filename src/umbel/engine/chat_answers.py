"""How the answers of one call of `chat` are asked for and read: tool calls and reasoning, as OpenAI has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from umbel.engine.request_output import RequestOutput
from umbel.errors import UsageError, nearest
from umbel.ir.params import SamplingParams
from umbel.ir.request import Completion
from umbel.text.answers.base import types_of
from umbel.text.answers.choice import ToolChoices
from umbel.text.answers.choose import answers_of
from umbel.text.answers.formats import FORMATS, WHOLE
from umbel.text.answers.reasoning import REASONING

Given = SamplingParams | Mapping[str, Any] | None


class ChatAnswers:
    """Answers to chats with these `tools`. `calls` and `reasoning` name formats, "auto" that of the `template`, and
    `choice` is a tool_choice. Raises UsageError for a name that is not known, InvalidRequest for a choice."""

    def __init__(
        self,
        tools: Sequence[Mapping[str, Any]],
        choice: Any,
        calls: str | None,
        reasoning: str | None,
        template: Callable[[], str | None],
    ):
        for name, asked, known in (("tool_call_parser", calls, FORMATS), ("reasoning_parser", reasoning, REASONING)):
            if asked not in (None, "auto", *known):
                near = nearest(str(asked), known)
                raise UsageError(f"{name}={asked!r}: must be auto or one of {', '.join(known)}{near}")
        self._reader = answers_of(calls, reasoning, template)
        self._asked, self._types = ToolChoices(self._reader).of(choice, tools), types_of(tools)

    @property
    def whole(self) -> bool:
        """Whether answers are texts, and nothing is asked of them."""
        return self._reader == WHOLE and self._asked.form is None

    def params(self, given: Given | Sequence[Given], defaults: SamplingParams) -> Any:
        """Sampling parameters with what is asked of answers."""
        if given is None or isinstance(given, SamplingParams | Mapping):
            one = defaults if given is None else given
            return self._asked.applied(one if isinstance(one, SamplingParams) else SamplingParams(**one))
        return [self.params(one, defaults) for one in given]

    def read(self, output: RequestOutput) -> RequestOutput:
        """The answer with its parts: texts are contents then."""
        if output.error is not None:
            return output
        return replace(output, outputs=tuple(self._read(output.request_id, one) for one in output.outputs))

    def _read(self, request_id: str, one: Completion) -> Completion:
        may_call, must_call = self._asked.may_call, self._asked.form is not None
        found = self._reader.read(one.text, may_call=may_call, must_call=must_call, types=self._types)
        calls = tuple(call.as_openai(f"call_{request_id}_{one.index}_{i}") for i, call in enumerate(found.calls))
        reason = "tool_calls" if calls and one.finish_reason == "stop" else one.finish_reason
        parts = {"reasoning_content": found.reasoning, "tool_calls": calls, "finish_reason": reason}
        return replace(one, text=found.content or "", **parts)
