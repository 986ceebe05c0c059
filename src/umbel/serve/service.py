"""The engine behind the server: one session on a thread of its own, and the way of rows to it and of events back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from umbel.api import LLM
from umbel.engine.inbox import Targets
from umbel.engine.loop import Loop
from umbel.engine.request_output import RequestOutput
from umbel.engine.session import Session
from umbel.engine.tickets import SessionEvent
from umbel.errors import UsageError
from umbel.serve.either_intake import EitherIntake
from umbel.serve.errors import LOG, ApiError, where_of
from umbel.serve.figures import Figures
from umbel.serve.mailbox import EventBox, Mailbox
from umbel.serve.pace import Pace
from umbel.serve.reading import BodyReader, RequestIntake, ServedRow, options_for
from umbel.serve.settings import ServeSettings

T = TypeVar("T")


class HasRows(Protocol):
    """What a body asks for: a row for each of its prompts."""

    @property
    def rows(self) -> Sequence[ServedRow]: ...


Asked = TypeVar("Asked", bound=HasRows)


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How busy the engine is: answers that are being computed, prompts that wait, the share of the KV pool in use."""

    running: int
    waiting: int
    kv_share: float


MOST_FAILURES = 3  # of the engine one after the other, without an answer between them


class Service:
    """Answers rows with a model, from `start` to `close`. All of it but `live` and `failure` is for the event loop.

    Rows are read and tokenised on one thread, and run on another; neither waits for a client. A failure of the engine
    ends the rows that it runs, with an error for each, and a new session goes on with the others; after three of them
    without an answer in between, `failure` says what they were and nothing is answered any more.
    """

    def __init__(self, llm: LLM, settings: ServeSettings):
        self.llm, self.settings = llm, settings
        self.options = options_for(llm, settings)
        self.reader = BodyReader(self.options)
        self.intake = RequestIntake(llm.intake.model)
        self.began = int(time.time())
        self._targets = Targets(settings.ttft_target, settings.tbt_target)
        self.failure: str | None = None
        self.ends = False  # it is to stop: streams without an end of their own end now
        self.pace = Pace()
        self.figures = Figures(settings.names[0], self.pace)
        self._reading = ThreadPoolExecutor(1, "umbel-reading")
        self._lock = threading.Lock()  # guards all that follows, but `_dirty` and `_rings`
        self._session: Session | None = None
        self._opened = threading.Event()  # there is a session, or never will be
        self._boxes: dict[int, EventBox] = {}  # by ticket, of those that have not finished
        self._known = 0  # tickets of the session that a mailbox has, or had
        self._early: dict[int, list[SessionEvent]] = {}  # events of tickets that no mailbox has yet
        self._dirty: deque[EventBox] = deque()  # mailboxes with events that their readers do not know of
        self._rings = False  # the event loop is about to tell them
        self._rows = 0  # asked for and not answered
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Begin to answer; returns when rows are taken."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="umbel-engine", daemon=True)
        self._thread.start()
        await asyncio.to_thread(self._opened.wait)

    async def close(self) -> None:
        """Abandon what runs, and end."""
        with self._lock:
            self._closing, session = True, self._session
            boxes = list(self._boxes.values())
        for box in boxes:
            self._leave(box)
        if session is not None:
            session.close()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        self._reading.shutdown(wait=False, cancel_futures=True)

    @property
    def live(self) -> int:
        """Rows that were asked for and are not answered."""
        return self._rows

    def load(self) -> EngineLoad:
        """How busy the engine is now."""
        for loop in list(self.llm.engine.loops):
            scheduler = loop.scheduler
            running = scheduler.seqs.n_running
            return EngineLoad(running, max(self._rows - running, 0), scheduler.pool.used / scheduler.pool.n_pages)
        return EngineLoad(0, self._rows, 0.0)

    async def read(self, act: Callable[[], T]) -> T:
        """Do what needs the reader of bodies or the tokenizer, on their thread."""
        return await asyncio.get_running_loop().run_in_executor(self._reading, act)

    @asynccontextmanager
    async def submit(
        self, ask: Callable[[], Asked], tenant: str | None, *, stream: bool = False
    ) -> AsyncIterator[tuple[Asked, Mailbox]]:
        """Have the rows that `ask` reads, on the thread of the reader, answered for a tenant; what comes is read from
        the mailbox, with `stream` tokens too. Leaving stops what is not answered. Raises what `ask` does, and ApiError
        where there is no room for so many rows, or no engine."""
        box = Mailbox(self._lock, self.figures)
        try:
            yield await self.read(lambda: self._enter(ask, box, tenant, stream=stream)), box
        finally:
            self.figures.note_left(self._leave(box))
            with self._lock:
                self._rows -= box.count

    async def answers(self, ask: Callable[[], Asked], tenant: str | None) -> tuple[Asked, list[RequestOutput]]:
        """What was asked for a tenant, and the answers, in the order of its rows."""
        found: dict[int, RequestOutput] = {}
        async with self.submit(ask, tenant) as (asked, box):
            async for news in box:
                if news.output is not None:
                    found[news.place] = news.output
        return asked, [found[place] for place in range(box.count)]

    def run_rows(self, box: EventBox, enter: Callable[[Session], Sequence[int]]) -> bool:
        """From any thread: have a box get what comes of rows that `enter` gives to the session, which returns their
        tickets; False where there is none now. These rows do not count as `live`."""
        try:
            self._reading.submit(self._add, box, enter).result()
        except (UsageError, RuntimeError):  # it ends
            return False
        return box.session is not None

    async def look(self, see: Callable[[Loop], T]) -> T | None:
        """What `see` finds in the engine between two steps; None where there is no session."""
        session = self._session
        if session is None:
            return None
        try:
            return await asyncio.to_thread(session.look, see)
        except UsageError:  # it has ended
            return None

    def leave_rows(self, box: EventBox) -> None:
        """From any thread: stop what is not answered of a box."""
        self._leave(box)

    def _check(self, count: int) -> None:
        most = self.settings.limits.rows
        if self.failure is not None:
            raise ApiError(503, "engine_failed", f"the engine has failed ({self.failure}); start the server again")
        if self._closing:
            raise ApiError(503, "shutting_down", "the server takes no more requests", after=5)
        if self._rows + count > most:
            message = f"{self._rows:,} prompts wait or run, and this request has {count:,}: at most {most:,} together"
            raise ApiError(429, "rate_limit_exceeded", message, after=1)

    def _enter(self, ask: Callable[[], Asked], box: Mailbox, tenant: str | None, *, stream: bool) -> Asked:
        """Read rows and hand them to the session, in one visit to the reader's thread."""
        asked = ask()
        prompts, params = [row.prompt for row in asked.rows], [row.params for row in asked.rows]
        with self._lock:
            self._check(len(prompts))
            if box.closed:  # its client has gone away
                return asked
            self._rows += len(prompts)
            box.expect(len(prompts))
        self._add(box, lambda session: session.add(prompts, params, stream=stream, tenant=tenant))
        return asked

    def _add(self, box: EventBox, enter: Callable[[Session], Sequence[int]]) -> None:
        """Hand rows to the session, whose events go to the box from now on."""
        self._opened.wait()
        with self._lock:
            session = self._session
            if session is None:
                box.fail(_engine_failed())
        if session is None or box.closed:
            return
        tickets = enter(session)
        with self._lock:
            if session is not self._session:  # it failed in between
                box.fail(_engine_failed())
                return
            box.session, box.tickets, self._known = session, range(tickets[0], tickets[-1] + 1), tickets[-1] + 1
            self._boxes.update(dict.fromkeys(box.tickets, box))
            early = [event for ticket in box.tickets for event in self._early.pop(ticket, ())]
            for event in early:
                self._hand_over(box, event)
            left = box.closed
        if early:
            self._wake(box)
        if left:
            self._leave(box)

    def _leave(self, box: EventBox) -> int:
        """Stop what is not answered of a request, so many rows: their pages of KV are free before the next step."""
        with self._lock:
            box.closed = True
            open_ = [ticket for ticket in box.tickets if self._boxes.get(ticket) is box]
            for ticket in open_:
                del self._boxes[ticket]
        for ticket in open_ if box.session is not None else ():
            with suppress(UsageError):  # the session has ended
                box.session.cancel(ticket)
        return len(open_)

    def _run(self) -> None:
        """The engine's thread: session after session until the end."""
        failures = 0
        while not self._closing and failures < MOST_FAILURES:
            try:
                with Session(self.llm.engine, EitherIntake(self.intake), self._targets) as session:
                    with self._lock:
                        self._session, self._known = session, 0
                    self._opened.set()
                    for event in session:
                        failures = 0 if event.kind == "finished" else failures
                        self._deliver(event)
                    return
            except Exception as error:
                failures += 1
                LOG.error("the engine failed: %s", where_of(error))
                self._fail_all(type(error).__name__, last=failures == MOST_FAILURES)
        self._opened.set()

    def _fail_all(self, name: str, *, last: bool) -> None:
        """The session is gone: every row of it gets an error."""
        with self._lock:
            self._opened.clear()
            self._session, self._known = None, 0
            self.failure = name if last else None
            boxes = dict.fromkeys(self._boxes.values())
            self._boxes.clear()
            self._early.clear()
            for box in boxes:
                box.fail(_engine_failed())
        self._wake(*boxes)

    def _deliver(self, event: SessionEvent) -> None:
        """Bring an event to the mailbox of its ticket."""
        with self._lock:
            box = self._boxes.get(event.ticket)
            if box is not None:
                self._hand_over(box, event)
            elif event.ticket >= self._known:
                self._early.setdefault(event.ticket, []).append(event)
        if box is not None:
            self._wake(box)

    def _hand_over(self, box: EventBox, event: SessionEvent) -> None:
        if event.kind == "finished":
            del self._boxes[event.ticket]
        box.put(event)

    def _wake(self, *boxes: EventBox) -> None:
        """These have news; the event loop is woken once for all that have. Not under the lock, which what wakes up
        takes at once."""
        self._dirty.extend(boxes)
        if boxes and not self._rings and self._loop is not None:
            self._rings = True
            self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        self._rings = False  # before it looks, so that what comes meanwhile rings again
        while self._dirty:
            self._dirty.popleft().ready.set()


def _engine_failed() -> ApiError:
    return ApiError(500, "engine_failed", "the engine failed while it ran this request; send it again")
