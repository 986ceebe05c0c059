"""Answers as streams of chunks in OpenAI's form: what all kinds of answers have in common."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastapi import Request

from umbel.engine.request_output import RequestOutput
from umbel.errors import InvalidRequest
from umbel.ir.contain import row_error
from umbel.ir.limits import check_bool, refuse, shown
from umbel.serve.answering import engine_output
from umbel.serve.auth import tenant_in
from umbel.serve.bodies import while_there
from umbel.serve.errors import ApiError, error_body, record_of
from umbel.serve.events import DONE, EventStream, event_of
from umbel.serve.mailbox import Mailbox, News
from umbel.serve.reading import ServedRows
from umbel.serve.service import Service

STREAM_FIELDS = frozenset({"stream", "stream_options"})


class Chunks(Protocol):
    """What one kind of answer sends of the news of a request."""

    def begin(self) -> Sequence[bytes]:
        """The events before all others."""

    def of(self, news: News) -> Sequence[bytes]:
        """The events that news of a prompt give."""

    def end(self) -> Sequence[bytes]:
        """The events behind all others."""


@dataclass(slots=True)
class ChunkHead:
    """What every chunk of a request begins with, and its usage so far."""

    head: Mapping[str, Any]
    with_usage: bool
    prompt_tokens: int = 0
    completion_tokens: int = 0
    _usage: dict[str, Any] = field(default_factory=dict)

    def chunk(self, choice: Mapping[str, Any]) -> bytes:
        """A chunk with one choice."""
        return event_of({**self.head, "choices": [choice], **({"usage": None} if self.with_usage else {})})

    def count(self, output: RequestOutput) -> None:
        """Count the tokens of a prompt that has finished."""
        self.prompt_tokens += len(output.prompt_token_ids)
        self.completion_tokens += sum(len(one.token_ids) for one in output.outputs)

    def usage(self) -> list[bytes]:
        """The chunk with the usage, where it was asked for."""
        total = self.prompt_tokens + self.completion_tokens
        counts = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        found = {**self.head, "choices": [], "usage": {**counts, "total_tokens": total}}
        return [event_of(found)] if self.with_usage else []


def streams(body: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether a body asks for a stream, and for its usage. Raises InvalidRequest."""
    stream, options = body.get("stream"), body.get("stream_options")
    wanted = stream is not None and check_bool("stream", stream)
    if options is None:
        return wanted, False
    if not isinstance(options, dict):
        refuse("invalid_type", "stream_options", f"stream_options={shown(options)}: must be an object")
    if not wanted:
        refuse("invalid_value", "stream_options", "stream_options: only means something with stream=true")
    usage = options.get("include_usage")
    return True, usage is not None and check_bool("stream_options.include_usage", usage)


async def stream_answers(
    service: Service, request: Request, ask: Callable[[], ServedRows], chunks_of: Callable[[ServedRows], Chunks]
) -> EventStream:
    """The stream of the answers to the rows that `ask` reads. It begins when the first token is there: what is wrong
    before is an error with a status of its own. Raises ApiError, InvalidRequest, ClientDisconnect."""
    stack = AsyncExitStack()
    try:
        asked, box = await stack.enter_async_context(service.submit(ask, tenant_in(request), stream=True))
        first = await while_there(request, anext(box))
        _check(first)
    except BaseException:
        await stack.aclose()
        raise
    return EventStream(_parts(first, box, chunks_of(asked)), stack)


async def _parts(first: News, box: Mailbox, chunks: Chunks) -> AsyncGenerator[bytes, None]:
    """The events of a request, whose first news are known; an error that comes later is the last of them."""
    for part in chunks.begin():
        yield part
    try:
        news: News | None = first
        while news is not None:
            found, error = _events_of([news, *box.more()], chunks)
            if found:
                yield found  # all that is there goes out together
            if error is not None:
                raise error
            news = await anext(box, None)
        for part in chunks.end():
            yield part
    except ApiError as error:
        yield event_of(error_body(record_of(error)))
    except InvalidRequest as error:
        yield event_of(error_body(row_error(error)))
    yield DONE


def _events_of(news: Sequence[News], chunks: Chunks) -> tuple[bytes, InvalidRequest | None]:
    """The events of some news, side by side, up to the first that is an error; and that."""
    found = list[bytes]()
    for one in news:
        try:
            _check(one)
        except InvalidRequest as error:
            return b"".join(found), error
        found += chunks.of(one)
    return b"".join(found), None


def _check(news: News) -> None:
    if news.output is not None:
        engine_output(news.output)
