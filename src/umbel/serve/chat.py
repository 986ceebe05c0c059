"""`/v1/chat/completions`: conversations, with tools and reasoning, answered at once or as a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from umbel.ir.request import Completion
from umbel.serve.answering import AnswerWriter
from umbel.serve.auth import tenant_in
from umbel.serve.bodies import read_object, while_there
from umbel.serve.completions import tokens_of
from umbel.serve.mailbox import News
from umbel.serve.parts import PartReader
from umbel.serve.reading import ServedRow, ServedRows
from umbel.serve.responding import json_response
from umbel.serve.schemas import CHAT, takes
from umbel.serve.service import Service
from umbel.serve.streaming import STREAM_FIELDS, ChunkHead, stream_answers, streams

URL = "/v1/chat/completions"


def chat_router(service: Service) -> APIRouter:
    """The endpoint for chats."""
    router, writer = APIRouter(tags=["answers"]), AnswerWriter.of(service)

    @router.post(URL, summary="Answer a conversation", openapi_extra=takes(CHAT))
    async def chat(request: Request) -> Response:
        body = await read_object(request, service.settings.limits)
        stream, with_usage = streams(body)
        ask = partial(chat_rows, service, body)
        if stream:
            return await stream_answers(
                service, request, ask, lambda asked: ChatChunks(writer, asked.rows[0], with_usage=with_usage)
            )
        asked, outputs = await while_there(request, service.answers(ask, tenant_in(request)))
        return json_response(writer.bodies(asked.rows, outputs))

    return router


def chat_rows(service: Service, body: Mapping[str, Any]) -> ServedRows:
    """The row of a chat. Raises InvalidRequest."""
    rest = {name: body[name] for name in body if name not in STREAM_FIELDS}
    return ServedRows([service.reader.served(URL, "0", rest)])


class ChatChunks:
    """The chunks of a request for an answer to a chat. Tool calls come whole, at the end of their answer."""

    def __init__(self, writer: AnswerWriter, row: ServedRow, *, with_usage: bool):
        self._writer, self._row, self._answers = writer, row, writer.now()
        self._head = ChunkHead(writer.head(row, self._answers, "chatcmpl", "chat.completion.chunk"), with_usage)
        reader = writer.service.options.answers
        self._parts = [PartReader(reader, row.head) for _ in range(row.params.n)]
        self._began = [False] * row.params.n

    def begin(self) -> Sequence[bytes]:
        """Whose the answers are."""
        role = {"role": "assistant", "content": ""}
        return [self._chunk(index, role) for index in range(self._row.params.n)]

    def of(self, news: News) -> Sequence[bytes]:
        """The events that news give."""
        if news.output is not None:
            self._head.count(news.output)
            return [chunk for one in news.output.outputs for chunk in self._ended(one)]
        delta = self._parts[news.sample].push(news.text)
        logprobs = self._logprobs(news) if news.logprobs else None
        return [self._chunk(news.sample, delta, logprobs)] if delta or logprobs else ()

    def end(self) -> Sequence[bytes]:
        """The usage, where it was asked for."""
        return self._head.usage()

    def _ended(self, one: Completion) -> list[bytes]:
        """What is left to say of an answer that is there."""
        answer = self._answers.read(self._row.head, one)
        rest = self._parts[one.index].finish(answer)
        found = [self._chunk(one.index, rest)] if rest else []
        if answer.calls:
            calls = self._answers.calls(self._row.head, one, answer.calls)
            found.append(self._chunk(one.index, {"tool_calls": [{"index": i} | call for i, call in enumerate(calls)]}))
        called = bool(answer.calls) and one.finish_reason == "stop"
        return [*found, self._chunk(one.index, {}, finish="tool_calls" if called else one.finish_reason)]

    def _logprobs(self, news: News) -> dict[str, Any]:
        first, self._began[news.sample] = not self._began[news.sample], True
        return {"content": self._answers.chat_logprobs(tokens_of(news, self._answers, first=first)), "refusal": None}

    def _chunk(
        self, index: int, delta: Mapping[str, Any], logprobs: dict[str, Any] | None = None, finish: str | None = None
    ) -> bytes:
        return self._head.chunk({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish})
