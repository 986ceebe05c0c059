"""How far a job is: plain numbers that the job writes and a display reads, from any thread, at any time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from umbel.ir.plan import Plan
from umbel.ir.report import Stats

PHASES = ("plan", "load", "run", "write")


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of a job at one moment. Rows are of the whole job, tokens and seconds of this run.

    `saved_tokens`: prompt tokens of finished rows that did not have to be computed.
    `eta_seconds`: None while there is nothing to estimate it from.
    """

    phase: str
    rows: int
    done: int
    failed: int
    tokens_per_second: float
    saved_tokens: int
    output_tokens: int
    eta_seconds: float | None


@dataclass(slots=True)
class Progress:
    """The state of a job as it runs, written by the job and read by displays. `seconds` by phase fills as phases end.

    `to_run`: rows of this run (0: not known yet).
    `begun`: those given to the engine.
    `ran`: those finished.
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
    ran: int = 0
    starved_seconds: float = 0.0
    stats: Callable[[], Stats] = Stats
    planned: Callable[[Plan], None] = lambda plan: None
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
            self.planned(plan)

    def freeze(self) -> None:
        """Keep the last totals and drop the reference to the engine that gave them."""
        last = self.stats()
        self.stats = lambda: last

    def reading(self) -> Reading:
        """The figures of this moment."""
        stats = self.stats()
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
            eta_seconds=self._eta(elapsed, stats),
        )

    def _eta(self, elapsed: float, stats: Stats) -> float | None:
        """Seconds left, by tokens to compute: rows to run are assumed to be like those begun, their answers like those
        of rows that ran."""
        if self.phase != "run" or not self.ran or not self.to_run or elapsed <= 0:
            return None
        prompts = stats.planned_prompt_tokens * (max(self.to_run, self.begun) / max(1, self.begun))
        total = prompts + stats.output_tokens / self.ran * self.to_run
        behind = stats.computed_prompt_tokens + stats.output_tokens
        return elapsed * max(0.0, total - behind) / behind if behind else None
