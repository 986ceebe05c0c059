"""What rows have written before they are done: kept in the store at a stop, and from time to time, and given back when
the job goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol

import orjson

from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.params import SamplingParams
from umbel.ir.request import Completion
from umbel.ir.resumable import OpenSample, Resumable
from umbel.ir.stops import GRACE_SECONDS, Place
from umbel.jobs.signals import Drain, StopSignal
from umbel.jobs.store import JobStore

KEEP_SECONDS = 60.0  # between two times that what rows have written is kept while they run
NOTE_SECONDS = 2.0  # between two times that others can see how far the job is
KEEP_SHARE = 0.02  # of the time that keeping may take


class RunningRows(Protocol):
    """Rows of a workload that run."""

    keys: list[int]  # their numbers in the input
    params: Any  # of each, as in Workload


@dataclass(slots=True)
class Unfinished:
    """Stops of a job: rows are stopped as `stop` says, and what they had is in `store`.

    `running`: rows by the number of their workload.
    `grace`: seconds that rows near their end get.
    `ends`: when the job must be over, on the clock of time.monotonic.
    `tell`: called with the number of rows that the job waits for once it was stopped.
    `note`: called every few seconds while rows run.
    `sample`: called at every step.
    `kept`: by row, the tokens that were kept for it in this run and are still needed.
    `given`: the tokens that rows of this run began with.
    """

    store: JobStore
    stop: StopSignal
    running: Callable[[int], RunningRows]
    grace: float = GRACE_SECONDS
    ends: float | None = None
    note: Callable[[], None] = lambda: None
    sample: Callable[[], None] = lambda: None
    tell: Callable[[int], None] = lambda near: None
    clock: Callable[[], float] = time.monotonic
    kept: dict[int, int] = field(default_factory=dict)
    given: int = 0
    stopped: bool = False
    _until: float | None = None
    _next: float | None = None
    _next_note: float = 0.0

    def until(self) -> float | None:
        """None until a stop is asked for; a job whose time is over gives no grace."""
        if self._until is None and (wanted := self.stop.wanted) is not None:
            now = self.clock()
            self._until = now + (self.grace if wanted is Drain else 0.0)
            if self.ends is not None:
                self._until = min(self._until, max(now, self.ends))
        return self._until

    def due(self) -> bool:
        """Whether it is time to keep what rows have written, so that little is lost if the process is killed."""
        self.sample()
        now = self.clock()
        if now >= self._next_note:
            self._next_note = now + NOTE_SECONDS
            self.note()
        if self._next is None:
            self._next = now + KEEP_SECONDS
        return now >= self._next

    def begun(self, number: int) -> Mapping[int, Resumable]:
        """What the rows of a workload had when they were taken out."""
        rows = self.running(number)
        places = {key: row for row, key in enumerate(rows.keys)} if self.store.has_unfinished else {}
        found = {}
        for key, stored in self.store.unfinished(places):
            row = places[key]
            found[row] = restored(stored, rows.params[row])
            self.given += tokens_of(found[row])
        return found

    def keep(self, unfinished: Mapping[Place, Resumable], *, near: int = 0) -> None:
        """Store what rows have, durably."""
        began = self.clock()
        rows = {self.running(number).keys[row]: record for (number, row), record in unfinished.items()}
        self.store.keep((row, tokens_of(record), plain(record)) for row, record in rows.items())
        self.kept |= {row: tokens_of(record) for row, record in rows.items()}
        now = self.clock()
        self._next = now + max(KEEP_SECONDS, (now - began) / KEEP_SHARE)
        if self._until is not None:
            self.stopped = True
            self.tell(near)

    def answered(self, row: int) -> None:
        """A row is done, so what was kept of it is not needed."""
        self.kept.pop(row, None)


def tokens_of(record: Resumable) -> int:
    """The tokens that a row has."""
    return sum(len(one.token_ids) for one in (*record.open, *record.finished))


def plain(record: Resumable) -> bytes:
    """What a row has, as JSON: its prompt and parameters are those of the input."""
    return orjson.dumps({"open": record.open, "done": record.finished})


def restored(stored: bytes, params: SamplingParams) -> Resumable:
    """The record that `plain` was given, without what the input says again."""
    values = orjson.loads(stored)
    samples = tuple(OpenSample(**_typed(one)) for one in values["open"])
    done = tuple(Completion(**_typed(one)) for one in values["done"])
    return Resumable((), params, 0, params.n, samples, done)


def _typed(values: Mapping[str, Any]) -> dict[str, Any]:
    logprobs = values["logprobs"]
    known = None if logprobs is None else tuple(_logprobs(logprobs))
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return {**values, **lists, "logprobs": known}


def _logprobs(values: list[dict[str, Any]]) -> Iterator[TokenLogprobs]:
    for one in values:  # JSON has no infinity: null is that of a token that could not be drawn
        top = tuple((token, -inf if logprob is None else logprob) for token, logprob in one["top"])
        yield TokenLogprobs(one["token_id"], one["logprob"], top, ranked=one["ranked"])
