"""What a replica does with its rows on a virtual clock: the production loop step by step, or a price for each row."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from umbel.engine.assemble import make_scheduler
from umbel.engine.loop import Loop
from umbel.ir.request import Output
from umbel.ir.selection import select_rows
from umbel.sim.case import SimCase
from umbel.sim.cluster.row_prices import RowPrices
from umbel.sim.runner import SimRunner

Ints = NDArray[np.int64]
Answered = tuple[int, int]  # number of a lot, and place of a row in it


class Worker(Protocol):
    """Runs lots of rows; `tokens` counts the prompt tokens computed."""

    tokens: int

    @property
    def wants(self) -> bool:
        """Whether it can take another lot: no row waits to start."""

    @property
    def busy(self) -> bool:
        """Whether it has something to do."""

    def take(self, number: int, rows: Ints) -> None:
        """A lot is given to it."""

    def drop(self, number: int, place: int) -> None:
        """A row of a lot, which it has not answered, is not wanted any more."""

    def step(self) -> tuple[float, list[Answered]]:
        """Go on a little: the seconds that it took at speed 1, and the rows that were answered."""


class RowWorker:
    """Runs rows one after the other, each for its price, and wants more when the last `ahead` of them are at work."""

    def __init__(self, prices: RowPrices, ahead: int):
        self.tokens = 0
        self._prices, self._ahead = prices, ahead
        self._rows: deque[tuple[float, int, Answered]] = deque()  # seconds, tokens, which
        self._last = -1
        self._dropped: set[Answered] = set()  # of the rows

    @property
    def wants(self) -> bool:
        """Whether all rows but the last ones are done."""
        return len(self._rows) - len(self._dropped) <= self._ahead

    @property
    def busy(self) -> bool:
        """Whether there are rows."""
        return bool(self._rows)

    def take(self, number: int, rows: Ints) -> None:
        """Price the rows of a lot, behind those that are there."""
        tokens = self._prices.tokens(rows, self._last)
        own = self._prices.own(rows)
        seconds = np.where(own, tokens * self._prices.token + self._prices.answer[rows], 0.0)
        which = ((number, place) for place in range(len(rows)))
        self._rows.extend(zip(seconds.tolist(), tokens.tolist(), which, strict=True))
        self._last = int(self._prices.same_as[rows[own][-1]])

    def drop(self, number: int, place: int) -> None:
        """A row is passed over."""
        self._dropped.add((number, place))

    def step(self) -> tuple[float, list[Answered]]:
        """The next row."""
        seconds, tokens, which = self._rows.popleft()
        if which in self._dropped:
            self._dropped.remove(which)
            return 0.0, []
        self.tokens += tokens
        return seconds, [which]


class LoopWorker:
    """Runs lots on the production loop over a simulated device, each planned as a replica plans it."""

    def __init__(self, case: SimCase):
        self._case = case
        self._runner = SimRunner(case.price, case.workload, case.lengths)
        self._loop: Loop | None = None
        self._begins: list[int] = []  # the first row of each lot in the loop
        self._numbers: list[int] = []

    @property
    def tokens(self) -> int:
        """Prompt tokens computed, repetitions included."""
        return self._runner.prompt_tokens

    @property
    def wants(self) -> bool:
        """Whether no row waits to start."""
        return self._loop is None or self._loop.scheduler.waiting.first() is None

    @property
    def busy(self) -> bool:
        """Whether the loop may have something left to do."""
        return self._loop is not None and self._loop.busy

    def take(self, number: int, rows: Ints) -> None:
        """Plan a lot, and let it join those that run."""
        case = self._case
        workload = select_rows(case.workload, rows)
        plan = case.plan_of(workload)
        if self._loop is None:  # with the pool of the whole
            scheduler = make_scheduler(case.plan, known=case.known.lengths)
            self._loop = Loop(scheduler, self._runner, defaults=case.defaults)
        self._begins.append(self._loop.add(workload, plan))
        self._numbers.append(number)

    def drop(self, number: int, place: int) -> None:
        """Take a row out of the loop."""
        assert self._loop is not None
        self._loop.cancel(self._begins[self._numbers.index(number)] + place)

    def step(self) -> tuple[float, list[Answered]]:
        """One step of the loop."""
        assert self._loop is not None
        before = self._runner.seconds
        rows = [event.row for event in self._loop.step() if isinstance(event, Output)]
        return self._runner.seconds - before, [self._answer(row) for row in rows]

    def _answer(self, row: int) -> Answered:
        lot = bisect_right(self._begins, row) - 1
        return self._numbers[lot], row - self._begins[lot]
