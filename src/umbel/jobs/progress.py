"""How far a job is: plain numbers that the job writes and a display reads, from any thread, at any time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from umbel.ir.plan import Plan
from umbel.ir.report import Left, Stats
from umbel.ir.tally import ReplicaTally

PHASES = ("plan", "load", "run", "write")


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of a job at one moment. Rows are of the whole job, tokens and seconds of this run.

    `saved_tokens`: prompt tokens of finished rows that did not have to be computed.
    `expected_tokens`: output tokens of this run when it is over; None while that is not known.
    `elapsed_seconds`: since rows began to run.
    `eta_seconds`: None while there is nothing to estimate it from.
    `ending`: rows that go on to their end although a stop was asked for; None where none was.
    `loaded`: how much of the model is loaded, from 0 to 1; None while that is not known.
    `replicas`: what each of several has done in this run.
    """

    phase: str
    rows: int
    done: int
    failed: int
    tokens_per_second: float
    saved_tokens: int
    output_tokens: int
    expected_tokens: float | None
    elapsed_seconds: float
    eta_seconds: float | None
    ending: int | None = None
    loaded: float | None = None
    replicas: tuple[ReplicaTally, ...] = ()

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Reading:
        """The reading that `asdict` made a record of."""
        tallies = tuple(ReplicaTally(**one) for one in record.get("replicas", ()))
        return cls(**{**record, "replicas": tallies})


@dataclass(frozen=True, slots=True)
class FirstWindow:
    """What the first window of an input is of all that is to run.

    `planned`: rows that its plan counts.
    `rows`, `of_rows`: rows of the input in it, and in all; None while that is not known.
    `share`: of the bytes of all rows; None where that is not known.
    """

    planned: int
    rows: int
    of_rows: int | None
    share: float | None


@dataclass(slots=True)
class Progress:
    """The state of a job as it runs, written by the job and read by displays. `seconds` by phase fills as phases end.

    `to_run`: rows of this run (0: not known yet).
    `begun`: those of windows that have begun; `given` to the engine, which their plans expect to
        take `planned_seconds`.
    `ran`: those finished.
    `ending`: as in Reading.
    `planned` gets the first plan, of a job in windows what it is a plan of, and how many rows of the input it has.
    """

    clock: Callable[[], float] = time.monotonic
    rows: int = 0
    done: int = 0
    failed: int = 0
    phase: str = ""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    finished_prompt_tokens: int = 0
    to_run: int = 0
    begun: int = 0
    given: float = 0.0
    planned_seconds: float = 0.0
    ending: int | None = None
    ran: int = 0
    starved_seconds: float = 0.0
    stats: Callable[[], Stats] = Stats
    left: Callable[[], Left] = Left
    loaded: Callable[[], float | None] = lambda: None
    replicas: Callable[[], tuple[ReplicaTally, ...]] = tuple
    planned: Callable[[Plan, FirstWindow | None, int], None] = lambda plan, window, rows: None
    window: FirstWindow | None = None
    _since: float = 0.0
    _told: bool = False

    def enter(self, phase: str) -> None:
        """Close the current phase's time and begin another ("" for none)."""
        now = self.clock()
        if self.phase:
            self.seconds[self.phase] += now - self._since
        self.phase, self._since = phase, now

    def tell_plan(self, plan: Plan) -> None:
        """Pass the plan to `planned`, once: of a job in windows the first one's."""
        if not self._told:
            self._told = True
            self.planned(plan, self.window, round(self.given))

    def stop(self, ending: int) -> None:
        """A stop was asked for, and so many rows go on to their end."""
        self.ending = ending

    def freeze(self) -> None:
        """Keep the last figures and drop the references to the engine that gave them."""
        stats, left, replicas = self.stats(), self.left(), self.replicas()
        self.stats, self.left, self.replicas = lambda: stats, lambda: left, lambda: replicas

    def reading(self) -> Reading:
        """The figures of this moment."""
        stats = self.stats()
        expected, eta = self._expected(stats, self.left())
        elapsed = self.clock() - self._since if self.phase == "run" else self.seconds["run"]
        computed = stats.computed_prompt_tokens + stats.output_tokens
        return Reading(
            phase=self.phase,
            rows=self.rows,
            done=self.done,
            failed=self.failed,
            tokens_per_second=computed / elapsed if elapsed > 0 else 0.0,
            saved_tokens=max(0, self.finished_prompt_tokens - stats.computed_prompt_tokens),
            output_tokens=stats.output_tokens,
            expected_tokens=expected,
            elapsed_seconds=elapsed,
            eta_seconds=eta,
            ending=self.ending,
            loaded=self.loaded() if self.phase == "load" else None,
            replicas=self.replicas(),
        )

    def _expected(self, stats: Stats, left: Left) -> tuple[float | None, float | None]:
        """Output tokens expected of this run, and seconds that are left: rows that the engine does not have yet are
        taken to be like those that it has."""
        if self.phase != "run" or not self.to_run or not self.given:
            return None, None
        scale = max(self.to_run, self.given) / self.given
        tokens = (stats.output_tokens + left.output_tokens) * scale
        elapsed = self.clock() - self._since
        if left.seconds is None:
            left = replace(left, seconds=max(0.0, self.planned_seconds - elapsed))
        assert left.seconds is not None
        return tokens, left.seconds + (elapsed + left.seconds) * (scale - 1.0)
