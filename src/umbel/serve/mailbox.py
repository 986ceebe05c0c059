"""Events of one request on their way from the engine's thread to its handler."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import Protocol

from umbel.engine.request_output import RequestOutput
from umbel.engine.session import Session
from umbel.engine.tickets import SessionEvent
from umbel.ir.logprobs import TokenLogprobs
from umbel.serve.figures import Figures


@dataclass(slots=True)
class News:
    """What came of prompt number `place` of a request: tokens of completion number `sample`, or its `output`, which is
    the last of it."""

    place: int
    sample: int = 0
    token_ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    output: RequestOutput | None = None

    @property
    def text(self) -> str:
        """What the tokens add to the text of their completion."""
        return "".join(self.texts)


class Bell(Protocol):
    """Wakes who waits for a box."""

    def set(self) -> None: ...


class EventBox(Protocol):
    """Where events of the tickets of some rows go; `closed` once they are not wanted any more. `put` and `fail` are
    called under the lock of the service."""

    ready: Bell
    closed: bool
    session: Session | None
    tickets: range

    def put(self, event: SessionEvent) -> None: ...

    def fail(self, error: Exception) -> None: ...


class Mailbox:
    """Iterating waits for what comes; it ends when as many prompts have finished as `expect` said.

    Tokens that wait to be read are joined, so that a slow reader gets them in larger parts, and what is kept for it
    never grows beyond the answers. `put` and `fail` are called under the `lock` of the service, by any thread;
    iterating is for the event loop.
    """

    def __init__(self, lock: threading.Lock, figures: Figures):
        self._lock, self._figures = lock, figures
        self._began = time.perf_counter()
        self._latest: dict[tuple[int, int], float] = {}  # when each sample of a place had its last tokens
        self._event = self.ready = asyncio.Event()
        self.closed = False
        self.session: Session | None = None
        self.tickets: range = range(0)
        self.count = self._open = 0
        self._waiting: dict[tuple[int, int], News] = {}  # by place and sample, -1 for the output; in order of coming
        self._error: Exception | None = None

    def expect(self, count: int) -> None:
        """Wait for so many prompts, before anything is put."""
        self.count = self._open = count

    def put(self, event: SessionEvent) -> None:
        """Take an event of one of the tickets."""
        place = event.ticket - self.tickets.start
        if event.kind == "finished":
            self._waiting[place, -1] = News(place, output=event.output)
            if event.output is not None:
                self._figures.note_answer(event.output, self._began)
            return
        self._figures.note_tokens(self._latest, self._began, (place, event.sample))
        news = self._waiting.setdefault((place, event.sample), News(place, event.sample))
        news.token_ids += event.token_ids
        news.texts.append(event.text)
        news.logprobs += event.logprobs

    def fail(self, error: Exception) -> None:
        """Nothing more comes: the reader gets this error behind what is there."""
        self._error = error

    def __aiter__(self) -> Mailbox:
        return self

    def more(self) -> list[News]:
        """What else has come by now, without waiting for it."""
        with self._lock:
            found, self._waiting = list(self._waiting.values()), {}
        self._open -= sum(news.output is not None for news in found)
        return found

    async def __anext__(self) -> News:
        while (news := self._next()) is None:
            if not self._open:
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error
            self._event.clear()
            await self._event.wait()
        self._open -= news.output is not None
        return news

    def _next(self) -> News | None:
        with self._lock:
            return self._waiting.pop(next(iter(self._waiting))) if self._waiting else None
