"""`/v1/completions`: prompts as texts or token ids, one or a list of them, answered at once or as a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from umbel.ir.limits import refuse, shown
from umbel.ir.request import Completion
from umbel.jobs.read.records import Style
from umbel.jobs.write.openai_answers import OpenAIAnswers
from umbel.serve.answering import AnswerWriter
from umbel.serve.auth import tenant_in
from umbel.serve.bodies import read_object, while_there
from umbel.serve.mailbox import News
from umbel.serve.reading import ServedRow, ServedRows
from umbel.serve.responding import json_response
from umbel.serve.schemas import COMPLETION, takes
from umbel.serve.service import Service
from umbel.serve.streaming import STREAM_FIELDS, ChunkHead, stream_answers, streams

URL = "/v1/completions"


def completions_router(service: Service) -> APIRouter:
    """The endpoint for completions."""
    router, writer = APIRouter(tags=["answers"]), AnswerWriter.of(service)

    @router.post(URL, summary="Continue prompts", openapi_extra=takes(COMPLETION))
    async def completions(request: Request) -> Response:
        body = await read_object(request, service.settings.limits)
        stream, with_usage = streams(body)
        ask = partial(rows_of, service, body)
        if stream:
            return await stream_answers(
                service, request, ask, lambda asked: CompletionChunks(writer, asked.rows, with_usage=with_usage)
            )
        asked, outputs = await while_there(request, service.answers(ask, tenant_in(request)))
        return json_response(writer.bodies(asked.rows, outputs))

    return router


def rows_of(service: Service, body: Mapping[str, Any]) -> ServedRows:
    """A row for each prompt of a body. Raises InvalidRequest."""
    rest = {name: value for name, value in body.items() if name not in STREAM_FIELDS}
    prompts = prompts_in(body.get("prompt"), service.settings.limits.prompts)
    read = service.reader.served
    return ServedRows([read(URL, str(i), {**rest, "prompt": prompt}) for i, prompt in enumerate(prompts)])


def prompts_in(given: Any, most: int) -> list[Any]:
    """The prompts that a field holds: a text, token ids, or a list of one of these. Raises InvalidRequest."""
    if not isinstance(given, list) or not given or isinstance(given[0], int | float):
        return [given]
    if len(given) > most:
        refuse("array_above_max_length", "prompt", f"prompt has {len(given):,} entries: at most {most:,} a request")
    for one in given:
        if not isinstance(one, str | list):
            refuse("invalid_type", "prompt", f"prompt has an entry {shown(one)}: give texts, or lists of token ids")
    return given


class CompletionChunks:
    """The chunks of a request for completions. Answers behind their prompts come whole."""

    def __init__(self, writer: AnswerWriter, rows: Sequence[ServedRow], *, with_usage: bool):
        self._writer, self._rows, self._answers = writer, rows, writer.now()
        self._head = ChunkHead(writer.head(rows[0], self._answers, "cmpl", "text_completion"), with_usage)
        self._n_chars: dict[int, int] = {}  # of the tokens of each choice so far

    def begin(self) -> Sequence[bytes]:
        """Nothing comes before the first token."""
        return ()

    def of(self, news: News) -> Sequence[bytes]:
        """The events that news of a prompt give."""
        row = self._rows[news.place]
        if news.output is not None:
            self._head.count(news.output)
            body = self._writer.body(row, news.output, self._answers)
            whole = row.head.style == Style.ECHO
            ends = {} if whole else {"text": "", "logprobs": None}
            first = news.place * row.params.n
            return [self._head.chunk(one | ends | {"index": first + one["index"]}) for one in body["choices"]]
        if row.head.style == Style.ECHO:
            return ()
        index = news.place * row.params.n + news.sample
        logprobs = self._logprobs(index, news) if news.logprobs else None
        choice = {"index": index, "text": news.text, "logprobs": logprobs, "finish_reason": None}
        return [self._head.chunk(choice)] if news.text or logprobs else ()

    def end(self) -> Sequence[bytes]:
        """The usage, where it was asked for."""
        return self._head.usage()

    def _logprobs(self, index: int, news: News) -> dict[str, Any]:
        """The log-probabilities of new tokens; their offsets go on from those before."""
        before = self._n_chars.get(index, 0)
        found = self._answers.text_logprobs(tokens_of(news, self._answers, first=not before))
        n_chars = len(b"".join(self._answers.texts.of(news.token_ids)).decode(errors="replace"))
        self._n_chars[index] = before + n_chars
        return found | {"text_offset": [before + at for at in found["text_offset"]]}


def tokens_of(news: News, answers: OpenAIAnswers, *, first: bool) -> Completion:
    """New tokens as a completion whose text is theirs alone: text that comes may be behind its tokens."""
    text = news.text
    if not first or not text:
        text = b"".join(answers.texts.of(news.token_ids)).decode(errors="replace")
    return Completion(news.sample, text, tuple(news.token_ids), "", None, tuple(news.logprobs))
