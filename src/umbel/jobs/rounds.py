"""Which rows of a window run now: all of them, or under a budget round after round of those that certainly still
fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from umbel.ir.budget import Budget
from umbel.ir.plan import Plan
from umbel.ir.report import Stats
from umbel.ir.selection import select_rows
from umbel.ir.workload import Workload
from umbel.jobs.progress import Progress
from umbel.plan.deal.fit import Fit, fit

Ints = NDArray[np.int64]

LEAST_ROWS = 64  # of a round: fewer would not fill a batch
SHARE = 0.5  # of the time left that a round may be expected to take, so that the next one corrects the estimate


class Planner(Protocol):
    """The part of an engine that is used here."""

    def plan_for(self, workload: Workload) -> Plan:
        """The plan of some rows."""

    def stats(self) -> Stats:
        """The totals so far."""


@dataclass(frozen=True, slots=True)
class JobPart:
    """Rows that are run by one plan; `places` are their places in the window, None for the whole window."""

    workload: Workload
    plan: Plan
    places: list[int] | None = None


@dataclass(slots=True)
class Rounds:
    """Hands rows out under a budget.

    `ends` is the time on `clock` at which the run must be over. Rows are handed out only while the most tokens that
    they may generate fit into the rest of the token budget, so that it is never exceeded and no work is discarded for
    it. `spent`: rows were left out, so that there is no use in looking further.
    """

    budget: Budget
    progress: Progress
    context: int
    ends: float | None = None
    clock: Callable[[], float] = time.monotonic
    spent: bool = False
    _generated: int = 0  # by the engine before this run
    _pace: float = 1.0  # measured seconds for each that was expected

    def begin(self, stats: Stats) -> None:
        """Note the engine's totals at the start of this run."""
        self._generated = stats.output_tokens

    def parts(self, workload: Workload, plan: Plan, engine: Planner) -> Iterator[JobPart]:
        """The window's rows, each in one part; under a budget cheap groups come first, and rows that do not fit are
        left out."""
        if not self._binds(workload, plan):
            yield JobPart(workload, plan)
            return
        known = fit(plan, workload, self.context, tokens_only=self.ends is None)
        left = np.arange(len(workload))  # places in `known`, whose order is cheapest first
        while len(left):
            taken = self._room(known, left, engine)
            if not len(taken):
                self.spent = True
                return
            left = np.setdiff1d(left, taken, assume_unique=True)
            rows = np.sort(known.order[taken])
            began = self.clock()
            if len(rows) == len(workload):
                yield JobPart(workload, plan)
            else:
                part = select_rows(workload, rows)
                yield JobPart(part, engine.plan_for(part), rows.tolist())
            self._learn(float(known.seconds[taken].sum()), self.clock() - began)

    def _binds(self, workload: Workload, plan: Plan) -> bool:
        """Whether the budget may be too small for all rows, by the plan's cautious estimate."""
        if self.budget.output_tokens is not None:
            return True
        if self.ends is None:
            return False
        begun = max(1, self.progress.begun)
        scale = max(self.progress.to_run - begun, 0) / begun + 1.0
        return plan.estimates.seconds[2] * max(1.0, self._pace) * scale > self.ends - self.clock()

    def _room(self, known: Fit, left: Ints, engine: Planner) -> Ints:
        """The next rows to run, none when nothing fits any more."""
        if self.budget.output_tokens is not None:
            remaining = self.budget.output_tokens - (engine.stats().output_tokens - self._generated)
            left = left[known.limits[left] <= remaining]
            left = left[: int(np.searchsorted(np.cumsum(known.limits[left]), remaining, "right"))]
        if self.ends is not None:
            time_left = max(0.0, self.ends - self.clock()) * SHARE
            expected = np.cumsum(known.seconds[left]) * self._pace
            left = left[: max(LEAST_ROWS, int(np.searchsorted(expected, time_left, "right")))]
        return left

    def _learn(self, expected: float, measured: float) -> None:
        if expected > 0.0:
            self._pace = max(1e-3, measured / expected)
