"""A session: prompts are added from any thread while others run, and events come out as they finish."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from umbel.engine.intake import Batch, Intake, Prompt, RequestOutput
from umbel.engine.local import LocalEngine
from umbel.engine.loop import Event, Loop, Tokens
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload, join
from umbel.text.detokenizer import AnswerStream


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """What has happened to the prompt of a `ticket`.

    `kind` "tokens": `token_ids` of its completion number `sample` have come, and `text` is what they add to its text
    (characters that later tokens may still change come with those). `kind` "finished": `output` is the answer, the last
    event of the ticket.
    """

    ticket: int
    kind: str
    sample: int = 0
    token_ids: tuple[int, ...] = ()
    text: str = ""
    output: RequestOutput | None = None


@dataclass(slots=True)
class _Request:
    """A ticket whose answer is not out yet."""

    params: SamplingParams
    text: str | None  # of the prompt, where it was given as one
    key: int | None  # as given by the caller
    texts: dict[int, AnswerStream] = field(default_factory=dict)  # by sample


class Session:
    """Prompts in, events out: iterating runs the model and yields SessionEvents until all is done after `close`.

    `add`, `cancel` and `close` may be called from other threads while one iterates, or by that one between two events.
    What was added is planned and started together before the next step; every step computes all live rows at once.
    Answers are those of `LLM.generate`, whatever runs beside them. Leaving the `with` block abandons what is not done.
    """

    def __init__(self, engine: LocalEngine, intake: Intake):
        self._engine, self._intake = engine, intake
        self._planner = engine.planner()
        self._ending = ExitStack()
        self._loop: Loop | None = None
        self._reading = threading.Lock()  # prompts are tokenised one call at a time
        self._turn = threading.RLock()  # one thread at a time makes steps
        self._changed = threading.Condition()  # guards all that follows
        self._live: dict[int, _Request] = {}
        self._key_of: dict[int, int] = {}  # keys given by callers -> ticket, of live ones
        self._n_tickets = 0
        self._cancelled: set[int] = set()
        self._arrived: list[tuple[Workload, bool]] = []  # rows keyed by ticket, and whether they stream
        self._leaving: list[int] = []  # tickets that were cancelled
        self._row_of: dict[int, int] = {}  # ticket -> row of the loop; for the thread that makes steps
        self._events: deque[SessionEvent] = deque()
        self._closed = False

    def __enter__(self) -> Session:
        self._loop = self._ending.enter_context(self._engine.running(self._planner.plan))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
        with self._turn:
            self._loop = None
            self._ending.close()
        with self._changed:
            self._live.clear()
            self._events.clear()

    def add(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        keys: Sequence[int | str] | None = None,
        stream: bool = False,
    ) -> list[int]:
        """Ask for answers to some prompts, given as to `LLM.generate`; returns a ticket for each. With `stream`, tokens
        come as events too. A prompt that cannot be run finishes with an `error` in its output.

        Raises UsageError for no prompts, for keys of the wrong number, twice the same or that of a prompt that is not
        finished, and after `close`; nothing is added then.
        """
        with self._reading:
            self._check_open()
            batch = self._intake.take(prompts, params, keys)
            if not batch.texts:
                raise UsageError("add: there are no prompts; give at least one")
            with self._changed:
                self._check_open()
                tickets = self._enter(batch, keys, stream)
                self._changed.notify_all()
            if keys is None:
                self._intake.first_key += len(tickets)
        return tickets

    def cancel(self, ticket: int) -> bool:
        """The answer is not wanted any more: the row stops, and no further event of it comes. False when it had
        finished already. Raises UsageError for a ticket that was not given out, or was cancelled before."""
        with self._changed:
            if ticket in self._cancelled:
                raise UsageError(f"ticket {ticket!r} is cancelled already")
            if isinstance(ticket, bool) or not isinstance(ticket, int) or not 0 <= ticket < self._n_tickets:
                raise UsageError(f"ticket {ticket!r}: this session has given out {self._n_tickets}, from 0 on")
            request = self._live.get(ticket)
            if request is None:
                return False
            self._forget(ticket)
            self._cancelled.add(ticket)
            self._leaving.append(ticket)
            self._changed.notify_all()
            return True

    def close(self) -> None:
        """No more prompts come: iterating ends when all that were added are done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Session:
        return self

    def __next__(self) -> SessionEvent:
        with self._turn:
            while (event := self._next_event()) is None:
                if not self._advance():
                    raise StopIteration
            return event

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("add: the session is closed; open another one")
        if self._loop is None:
            raise UsageError("add: the session is not open yet; use it in a with block: with llm.session() as session")

    def _enter(self, batch: Batch, keys: Sequence[int | str] | None, stream: bool) -> list[int]:
        """Give out tickets for prompts that were read."""
        load, first = batch.workload, self._n_tickets
        places, numbers = load.keys.tolist(), load.noise_keys.tolist()
        for place, number in zip(places, numbers, strict=True) if keys is not None else ():
            if number in self._key_of:
                held = f"that of ticket {self._key_of[number]}, which has not finished"
                raise UsageError(f"key {keys[place]!r:.80} is {held}: two rows would draw alike")
        self._n_tickets += len(batch.texts)
        for place, number, params in zip(places, numbers, load.params, strict=True):
            key = None if keys is None else number
            self._live[first + place] = _Request(params, batch.texts[place], key)
            if key is not None:
                self._key_of[key] = first + place
        for output in batch.refused:
            ticket = first + int(output.request_id)
            self._live[ticket] = _Request(SamplingParams(), output.prompt, None)
            self._events.append(SessionEvent(ticket, "finished", output=replace(output, request_id=str(ticket))))
        if len(load):
            self._arrived.append((replace(load, keys=load.keys + first), stream))
        return list(range(first, self._n_tickets))

    def _forget(self, ticket: int) -> None:
        request = self._live.pop(ticket)
        if request.key is not None:
            del self._key_of[request.key]

    def _next_event(self) -> SessionEvent | None:
        """The next event that somebody waits for, None when there is none yet."""
        with self._changed:
            while self._events:
                event = self._events.popleft()
                if event.ticket in self._live:
                    if event.kind == "finished":
                        self._forget(event.ticket)
                    return event
        return None

    def _advance(self) -> bool:
        """Take in what came, and make one step; waits while there is nothing to do. False when all is done."""
        loop = self._loop
        if loop is None:
            return False
        with self._changed:
            self._changed.wait_for(lambda: self._waits() or loop.busy or self._closed)
            if not self._waits() and not loop.busy:
                return False
            arrived, self._arrived = self._arrived, []
            leaving, self._leaving = self._leaving, []
        if arrived:
            self._start(loop, arrived)
        for ticket in leaving:
            row = self._row_of.pop(ticket, None)
            if row is not None:
                loop.cancel(row)
        for event in loop.step() if loop.busy else ():
            self._tell(loop, event)
        return True

    def _waits(self) -> bool:
        return bool(self._arrived or self._leaving or self._events)

    def _start(self, loop: Loop, arrived: list[tuple[Workload, bool]]) -> None:
        """Plan and add all that came since the last step."""
        load = join([workload for workload, _ in arrived])
        streamed = np.repeat([streams for _, streams in arrived], [len(workload) for workload, _ in arrived])
        first = loop.add(load, self._planner.lot(load), streamed)
        self._row_of.update(zip(load.keys.tolist(), range(first, first + len(load)), strict=True))

    def _tell(self, loop: Loop, event: Event) -> None:
        """Turn what came out of the loop into an event of a ticket."""
        requests = loop.scheduler.requests
        ticket, ids = int(requests.key[event.row]), requests.prompt(event.row)
        request = self._live.get(ticket)
        if isinstance(event, Tokens):
            if request is not None:
                text = self._text(request, event, ids)
                self._events.append(SessionEvent(ticket, "tokens", event.sample, event.token_ids, text))
            return
        self._row_of.pop(ticket, None)
        if request is not None:
            output = RequestOutput(str(ticket), request.text, ids.tolist(), event.outputs, error=event.error)
            self._events.append(SessionEvent(ticket, "finished", output=output))

    def _text(self, request: _Request, event: Tokens, prompt: NDArray[np.int32]) -> str:
        """What new tokens add to the text of their completion."""
        tokenizer, params = self._intake.model.tokenizer, request.params
        if tokenizer is None:
            return ""
        if event.sample not in request.texts:
            request.texts[event.sample] = AnswerStream.of(tokenizer, params, prompt)
        stream = request.texts[event.sample]
        finish, ids = event.finish, event.token_ids
        if finish is None:
            return stream.push(ids)
        at_token = finish.reason == "stop" and not isinstance(finish.stop, str)
        hidden = at_token and not params.include_stop_str_in_output
        return stream.push(ids[:-1] if hidden else ids) + stream.finish()
