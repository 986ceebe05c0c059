"""A session: prompts are added from any thread while others run, and events come out as they finish."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any

from umbel.engine.events import Event, Tokens
from umbel.engine.inbox import Inbox, Targets, Wish, check_open
from umbel.engine.intake import Batch, Intake, Params, Prompt
from umbel.engine.ledger import RowLedger, Spent
from umbel.engine.local import LocalEngine
from umbel.engine.loop import Loop
from umbel.engine.request_output import RequestOutput
from umbel.engine.tickets import LiveRequest, SessionEvent, Tickets, checked_ids
from umbel.errors import UsageError
from umbel.ir.request import Output
from umbel.ir.resumable import Resumable


class Session:
    """Prompts in, events out: iterating runs the model and yields SessionEvents until all is done after `close`.

    `add`, `cancel` and `close` may be called from other threads while one iterates, or by that one between two events.
    What was added is planned and started together before the next step; every step computes all live rows at once.
    Answers are those of `LLM.generate`, whatever runs beside them. Leaving the `with` block abandons what is not done.
    """

    def __init__(self, engine: LocalEngine, intake: Intake, targets: Targets | None = None):
        self._engine, self._intake = engine, intake
        self._inbox = Inbox(targets or Targets(), engine.planner())
        self._ending = ExitStack()
        self._loop: Loop | None = None
        self._reading = threading.Lock()  # prompts are tokenised one call at a time
        self._turn = threading.RLock()  # one thread at a time makes steps
        self._changed = threading.Condition()  # guards all that follows
        self._tickets = Tickets()
        self._row_of: dict[int, int] = {}  # ticket -> row of the loop; for the thread that makes steps
        self._events: deque[SessionEvent] = deque()
        self._steering = 0  # threads that wait for the step to end, to steer a row
        self._closed = False

    def __enter__(self) -> Session:
        self._loop = self._ending.enter_context(
            self._engine.running(self._inbox.planner.plan, self._inbox.targets.queue, self._inbox.targets.tbt)
        )
        self._loop.scheduler.reuse()
        self._loop.ledger = RowLedger()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
        with self._turn, self._changed:
            self._loop = None
            self._ending.close()
            self._tickets.live.clear()
            self._events.clear()

    def add(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: Params | Sequence[Params] | None = None,
        keys: Sequence[int | str] | None = None,
        stream: bool = False,
        priority: int = 0,
        tenant: str | None = None,
    ) -> list[int]:
        """Ask for answers to some prompts, given as to `LLM.generate`; returns a ticket for each. With `stream`, tokens
        come as events too. Rows of a higher `priority` number take what those of lower ones leave of each step, and
        step back for them. Tenants share what there is evenly, and no KV. A prompt that cannot be run finishes with an
        `error` in its output.

        Raises UsageError for no prompts, a priority that is no whole number of 32 bits, an empty tenant, for keys of
        the wrong number, twice the same or that of a prompt that is not finished, and after `close`; nothing is added
        then.
        """
        wish = Wish(priority, tenant)
        with self._reading:
            self._check_open("add")
            batch = self._intake.take(prompts, sampling_params, keys)
            if not batch.texts:
                raise UsageError("add: there are no prompts; give at least one")
            with self._changed:
                self._check_open("add")
                tickets = self._enter(batch, keys, wish, stream=stream)
                self._changed.notify_all()
            if keys is None:
                self._intake.first_key += len(tickets)
        return tickets

    def cancel(self, ticket: int) -> bool:
        """The answer is not wanted any more: the row stops, and no further event of it comes. False when it had
        finished already. Raises UsageError for a ticket that was not given out, or was cancelled before."""
        with self._changed:
            if self._tickets.find(ticket) is None:
                return False
            self._drop(ticket)
            self._changed.notify_all()
            return True

    def fork(self, ticket: int, n: int, sample: int | None = None, stream: bool = False) -> list[int]:
        """Add `n` answers that go on from where a completion of the ticket (None: its first) is, which goes on as well:
        with its tokens, which are not computed again, and draws of their own. Returns their tickets. Each has one
        completion, whose `index` is the number that its draws go by. Raises UsageError for a ticket that is not live.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise UsageError(f"fork: n={n!r} must be a whole number of at least 1")
        with self._steer(ticket) as (loop, row, request), self._changed:
            sample = loop.first_sample(row) if sample is None else sample
            first = self._tickets.count
            rows = loop.fork(row, sample, range(first, first + n), streamed=stream)
            made = [LiveRequest(loop.scheduler.requests.params[child], request.text) for child in rows]
            tickets = self._tickets.more(made)
            self._row_of.update(zip(tickets, rows, strict=True))
            for child, child_row in zip(made, rows, strict=True) if stream else ():
                number = loop.first_sample(child_row)
                self._read(child, Tokens(child_row, number, loop.tokens_of(child_row, number), given=True))
        return tickets

    def append(self, ticket: int, token_ids: Sequence[int], sample: int | None = None) -> None:
        """Put tokens behind those that a completion of the ticket has so far, as part of its answer and beside its
        `max_tokens`; what comes next is drawn behind them. Raises UsageError for a ticket that is not live, for ids
        that the model does not have, and for more than the model's context has room for."""
        ids = checked_ids(token_ids, self._intake.model.spec.vocab_size)
        with self._steer(ticket) as (loop, row, _):
            loop.append(row, loop.first_sample(row) if sample is None else sample, ids)

    def abort(self, ticket: int) -> Resumable:
        """Take a ticket's row out: no further event of it comes. What is returned are plain values, from which `resume`
        goes on with the same draws, in this session or another. Raises UsageError for a ticket that is not live."""
        with self._steer(ticket) as (loop, row, _), self._changed:
            record = loop.abort(row)
            self._drop(ticket)
        return record

    def resume(self, record: Resumable, stream: bool = False, priority: int = 0, tenant: str | None = None) -> int:
        """Go on with a row that was taken out; returns its new ticket. What it had is computed again, except what is
        still in memory. `stream`, `priority` and `tenant` as for `add`. Raises UsageError where the context is too
        small."""
        self._check_open("resume")
        record.check_fits(self._intake.context_of(record.params))
        with self._between_steps() as loop, self._changed:
            (ticket,) = self._tickets.more([request := LiveRequest(record.params)])
            stands = self._inbox.standing(Wish(priority, tenant), [len(record.prompt_token_ids)])
            row = self._row_of[ticket] = loop.resume(record, ticket, streamed=stream, standing=stands)
            for one in record.open if stream else ():
                self._read(request, Tokens(row, one.sample, one.token_ids, given=True))
        return ticket

    def quorum(self, tickets: Sequence[int], count: int) -> None:
        """When `count` of these tickets have finished, cancel the others. Raises UsageError as `cancel` does, and for a
        count that is not from 1 to their number."""
        with self._changed:
            for other in self._tickets.gather(tickets, count):
                self._drop(other)
            self._changed.notify_all()

    def spent(self, tickets: Sequence[int]) -> Spent:
        """What the rows of some tickets have cost so far, whether they are live or not."""
        return self.look(lambda loop: loop.spent(tickets))

    def look(self, see: Callable[[Loop], Any]) -> Any:
        """What `see` finds in the loop between two steps. Raises UsageError where there is none."""
        with self._between_steps() as loop:
            return see(loop)

    def close(self) -> None:
        """No more prompts come: iterating ends when all that were added are done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Session:
        return self

    def __next__(self) -> SessionEvent:
        while (event := self._next_event()) is None:
            if not self._wait():
                raise StopIteration
            with self._turn:
                self._advance()
        return event

    def _check_open(self, what: str) -> None:
        check_open(what, has_begun=self._loop is not None, is_closed=self._closed)

    def _enter(self, batch: Batch, keys: Sequence[int | str] | None, wish: Wish, *, stream: bool) -> list[int]:
        """Give out tickets for prompts that were read, and have their rows started."""
        load, first = batch.workload, self._tickets.enter(batch, keys)
        for output in batch.refused:
            ticket = first + int(output.request_id)
            self._events.append(SessionEvent(ticket, "finished", output=replace(output, request_id=str(ticket))))
        if len(load):
            self._inbox.put(replace(load, keys=load.keys + first), wish, streams=stream)
        return list(range(first, self._tickets.count))

    @contextmanager
    def _between_steps(self) -> Iterator[Loop]:
        """The loop, when no step is made and all that came is in it."""
        with self._changed:
            self._steering += 1
        try:
            with self._turn:
                if self._loop is None:
                    raise UsageError("the session is not open: rows are gone with the end of its with block")
                self._take_in(self._loop)
                yield self._loop
        finally:
            with self._changed:
                self._steering -= 1
                self._changed.notify_all()

    @contextmanager
    def _steer(self, ticket: int) -> Iterator[tuple[Loop, int, LiveRequest]]:
        """The loop between steps, with the row of a live ticket."""
        with self._between_steps() as loop:
            request, row = self._tickets.find(ticket), self._row_of.get(ticket)
            if request is None or row is None:
                raise UsageError(f"ticket {ticket!r} has finished: only one that is not done can be steered")
            try:
                yield loop, row, request
            except UsageError as error:
                raise UsageError(f"ticket {ticket!r}: {error}") from None

    def _drop(self, ticket: int) -> None:
        """A live ticket is not wanted any more."""
        self._tickets.cancel(ticket)
        self._inbox.leaving.append(ticket)

    def _next_event(self) -> SessionEvent | None:
        """The next event that somebody waits for, None when there is none yet."""
        with self._changed:
            while self._events:
                event = self._events.popleft()
                if event.ticket in self._tickets.live:
                    if event.kind == "finished":
                        self._tickets.finish(event.ticket)
                    return event
        return None

    def _wait(self) -> bool:
        """Sleep until there is something to do and no other thread steers a row. False when all is done."""
        if not self._closed:
            self._check_open("iterate")
        with self._changed:
            self._changed.wait_for(lambda: not self._steering and (self._waits() or self._closed))
            return self._waits()

    def _waits(self) -> bool:
        busy = self._loop is not None and self._loop.busy
        return bool(busy or self._inbox.waits or self._events)

    def _advance(self) -> None:
        """Take in what came, and make one step."""
        loop = self._loop
        if loop is None:
            return
        self._take_in(loop)
        for event in loop.step() if loop.busy else ():
            self._tell(loop, event)

    def _take_in(self, loop: Loop) -> None:
        """Add what was added and cancel what was cancelled since the last step."""
        with self._changed:
            arrived, leaving = self._inbox.empty()
        if arrived:
            lot = self._inbox.lot_of(arrived, loop.defaults)
            tickets, first = lot.workload.keys.tolist(), loop.add_lot(lot)
            self._row_of.update(zip(tickets, range(first, first + len(tickets)), strict=True))
        for ticket in leaving:
            row = self._row_of.pop(ticket, None)
            if row is not None:
                loop.cancel(row)

    def _tell(self, loop: Loop, event: Event) -> None:
        """Turn what came out of the loop into an event of a ticket."""
        requests = loop.scheduler.requests
        ticket, ids = int(requests.key[event.row]), requests.prompt(event.row)
        if isinstance(event, Output):
            self._row_of.pop(ticket, None)
        with self._changed:
            request = self._tickets.live.get(ticket)
            if request is not None and isinstance(event, Tokens):
                said = event.token_ids, self._read(request, event), None, event.logprobs
                self._events.append(SessionEvent(ticket, "tokens", event.sample, *said))
            elif request is not None and isinstance(event, Output):
                found = RequestOutput.of(ticket, request.text, ids.tolist(), event, self._intake.model.tokenizer)
                self._events.append(SessionEvent(ticket, "finished", output=found))
                for other in self._tickets.answer(ticket):
                    self._drop(other)

    def _read(self, request: LiveRequest, event: Tokens) -> str:
        """What new tokens add to the text of their completion."""
        assert self._loop is not None
        return request.read(event, self._loop.scheduler.requests.prompt(event.row), self._intake.model.tokenizer)
