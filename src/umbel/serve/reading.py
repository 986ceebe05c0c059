"""From the body of a request to rows, by the reader of batch lines: a body means the same in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from umbel.api import LLM
from umbel.engine.intake import Intake, Prompt
from umbel.errors import InvalidRequest
from umbel.ir.adapter import names_of
from umbel.ir.params import SamplingParams
from umbel.ir.request import Request
from umbel.jobs.read.formats.parse import RowParser
from umbel.jobs.read.records import InputRow, ReadNotes, ReadOptions, RowHead
from umbel.serve.settings import ServeSettings
from umbel.text.answers.base import types_of
from umbel.text.answers.choose import call_format, reasoning_format
from umbel.text.answers.formats import AnswerReader


@dataclass(frozen=True, slots=True)
class ServedRow:
    """A prompt of a request: what its answer begins with, the prompt as sessions take it, and what is asked of it."""

    head: RowHead
    prompt: Prompt
    params: SamplingParams


@dataclass(frozen=True, slots=True)
class ServedRows:
    """What a body asks for: a row for each of its prompts."""

    rows: Sequence[ServedRow]


class RequestIntake(Intake):
    """Tokenises and checks the prompts of requests, without a word of stop strings that cannot match: the warning would
    go to the server's log, and quotes them."""

    def _warn_of_stops(self, params: list[SamplingParams]) -> None:
        return


def options_for(llm: LLM, settings: ServeSettings) -> ReadOptions:
    """How bodies and batch lines are read for a model: alike."""
    spec = llm.spec
    usual = SamplingParams(**dict(spec.sampling))
    completions = SamplingParams(**{name: value for name, value in spec.sampling if name != "max_tokens"})
    return ReadOptions(
        usual,
        strict=settings.strict,
        width=spec.vocab_size,
        models=frozenset(settings.names),
        answers=_reader(llm, settings),
        chat_options=settings.chat_options,
        pooler=spec.pooler,
        loras=names_of(spec.adapters),
        techniques=llm.intake.model.techniques,
        completions=completions,
    )


def _reader(llm: LLM, settings: ServeSettings) -> AnswerReader:
    """How tool calls and reasoning are read from answers: as asked, else as the chat template shows."""
    tokenizer = llm.intake.model.tokenizer
    template = "" if tokenizer is None else tokenizer.template_text or ""
    calls, reasoning = settings.calls, settings.reasoning
    return AnswerReader(
        call_format(template) if calls in (None, "auto") else calls,
        reasoning_format(template) if reasoning in (None, "auto") else reasoning,
    )


class BodyReader:
    """Reads bodies that go to the endpoints of batch lines. One thread at a time may use it."""

    def __init__(self, options: ReadOptions):
        self.options = options
        self._parsers: dict[str, RowParser] = {}

    def row(self, url: str, name: str, body: Mapping[str, Any]) -> InputRow:
        """The row that a batch line with this body would be. Raises InvalidRequest."""
        if url not in self._parsers:
            self._parsers[url] = RowParser(self.options, ReadNotes(), endpoint=url)
        read = self._parsers[url].parse(0, 1, {"custom_id": name, "method": "POST", "url": url, "body": body})
        if read.error is not None:
            raise InvalidRequest(read.error.code, read.error.message, read.error.param, read.error.status)
        return read

    def served(self, url: str, name: str, body: Mapping[str, Any]) -> ServedRow:
        """A prompt of a request for an answer. Raises InvalidRequest."""
        read = self.row(url, name, body)
        assert read.request is not None
        tools = read.request.chat.tools or ()
        return ServedRow(read.head._replace(types=types_of(tools)), prompt_of(read.request), read.request.params)


def prompt_of(request: Request) -> Prompt:
    """The prompt of a row as `Session.add` takes it."""
    if request.messages is None:
        return request.prompt or ()
    options, variables = request.chat, dict(request.chat.variables)
    found: dict[str, Any] = {"messages": request.messages}
    if (effort := variables.pop("reasoning_effort", None)) is not None:
        found["reasoning_effort"] = effort
    beside: dict[str, Sequence[Any] | dict[str, Any] | None] = {
        "tools": options.tools,
        "documents": options.documents,
        "chat_template_kwargs": variables,
    }
    found |= {name: value for name, value in beside.items() if value}
    return found | {"add_generation_prompt": options.opens_answer, "continue_final_message": options.continues}
