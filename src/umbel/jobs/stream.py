"""Rows in and answers out as they come, for pipes. There is no store: what is not written at a stop is lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from umbel.engine.intake import Batch
from umbel.engine.request_output import RequestOutput
from umbel.engine.tickets import SessionEvent
from umbel.ir.params import SamplingParams
from umbel.ir.request import Output
from umbel.ir.workload import Workload
from umbel.jobs.execution import RunningPart
from umbel.jobs.progress import Progress
from umbel.jobs.read.coming import ComingRows
from umbel.jobs.read.prepare import WindowBuilder
from umbel.jobs.read.records import InputRow
from umbel.jobs.store import Result
from umbel.jobs.store_reader import Totals
from umbel.jobs.write.answers import Renderer
from umbel.jobs.write.gathering import Gathering
from umbel.jobs.write.line_order import LineOrder

BATCH_ROWS = 256  # that are tokenised together
SESSION_ROWS = 2**17  # after which a new session begins, as one remembers its rows


class RowSession(Protocol):
    """The part of a Session that is used here; its intake is `CheckedRows`."""

    def add(self, prompts: Workload) -> list[int]: ...

    def close(self) -> None: ...

    def __iter__(self) -> Iterator[SessionEvent]: ...


@dataclass(slots=True)
class CheckedRows:
    """The intake of a session whose rows are tokenised and checked already. `model` is the session's."""

    model: object
    first_key: int = 0

    def take(
        self, prompts: Workload, params: Sequence[SamplingParams] | None = None, keys: Sequence[int | str] | None = None
    ) -> Batch:
        """The rows as they are."""
        places = np.arange(len(prompts), dtype=np.int64)
        return Batch(replace(prompts, keys=places, draw_keys=prompts.noise_keys), [None] * len(prompts), [])


@dataclass(slots=True)
class Stream:
    """Answers rows as they come.

    `open_session`: gives a session; called again for inputs of many rows.
    `rows`: the rows, read in a thread.
    `put`: takes lines of answers, in the order of the input or, unless `in_order`, as they finish.
    """

    open_session: Callable[[], AbstractContextManager[RowSession]]
    rows: ComingRows
    builder: WindowBuilder
    renderer: Renderer
    put: Callable[[bytes], object]
    in_order: bool
    progress: Progress = field(default_factory=Progress)
    open_ended: int = 0
    _lines: LineOrder = field(init=False)
    _sums: Counter[str] = field(default_factory=Counter)
    _errors: Counter[str] = field(default_factory=Counter)
    _places: dict[int, tuple[RunningPart, int]] = field(default_factory=dict)  # by ticket: its part, its row there
    _known: threading.Condition = field(default_factory=threading.Condition)
    _gathering: Gathering = field(default_factory=Gathering)
    _over: bool = False
    _error: BaseException | None = None

    def __post_init__(self) -> None:
        self._lines = LineOrder(self.put, self.in_order, self.rows.written)

    def run(self) -> Totals:
        """Answer all rows; returns what became of them. Raises what reading the rows and writing the lines raises."""
        while not self._over:
            with self.open_session() as session:
                feeder = threading.Thread(target=self._feed, args=(session,), name="umbel-feed", daemon=True)
                feeder.start()
                for event in session:
                    self._answer(event)
                feeder.join()
            if self._error is not None:
                raise self._error
        rows, tokens = self._sums["rows"], (self._sums["prompt"], self._sums["output"], self._sums["cut"])
        return Totals(rows, self._errors.total(), *tokens, dict(self._errors))

    def _feed(self, session: RowSession) -> None:
        """Give rows to a session, until there are no more or it has had its share."""
        given = 0
        try:
            while not self._over and given < SESSION_ROWS:
                batch = self.rows.take(BATCH_ROWS)
                given += len(batch)
                self._over = not batch
                self._begin(session, batch)
        except BaseException as error:
            self._error = error
        session.close()

    def _begin(self, session: RowSession, batch: list[InputRow]) -> None:
        self.progress.rows += len(batch)
        self.builder.take(batch)
        window = self.builder.build()
        self.open_ended += window.open_ended
        for row in window.faults:
            if row.error is not None:
                self._write(self.renderer.failure(row.head, row.error))
        for left in window.skipped:
            self._write(self.renderer.skipped(left.row.head, left.n_tokens, left.n))
        if not len(window.workload):
            return
        part = RunningPart(window.workload, window.names)
        tickets = session.add(window.workload)
        with self._known:  # an answer may be there already
            self._places |= {ticket: (part, row) for row, ticket in enumerate(tickets)}
            self._known.notify_all()

    def _answer(self, event: SessionEvent) -> None:
        if event.output is None:
            return
        with self._known:
            self._known.wait_for(lambda: event.ticket in self._places)
            part, row = self._places.pop(event.ticket)
        result = part.result(output_of(event.output, row), self.renderer, self._gathering)
        if result is not None:
            self._write(result)

    def _write(self, result: Result) -> None:
        self._lines.add(result.row, result.line)
        with self._known:
            self._sums.update(rows=1, prompt=result.prompt_tokens, output=result.output_tokens, cut=int(result.cut))
            if result.code is not None:
                self._errors[result.code] += 1
            self.progress.done, self.progress.failed = self._sums["rows"], self._errors.total()


def output_of(answer: RequestOutput, row: int) -> Output:
    """The answer as the engine gives that of row number `row` of a workload."""
    scores, vector = answer.prompt_logprobs, answer.vector
    return Output(row, len(answer.prompt_token_ids), answer.outputs, answer.error, scores, vector)
