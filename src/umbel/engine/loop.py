"""The loop: the scheduler decides a step, the runner computes it, the state takes it in; rows come out when done.

Where the runner works ahead, a step is decided while the one before it is computed: its tokens are not known then, nor
who ends with them. Whoever did is computed once more for nothing, and nobody sees it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from umbel.cost.meter import Meter
from umbel.engine.output import Rows
from umbel.engine.row_errors import ALL_BANNED, NOT_FINITE
from umbel.engine.state import LiveState
from umbel.ir.report import Stats
from umbel.ir.request import Output, RowError
from umbel.ir.spans import UNHEARD, Spans
from umbel.ir.step import Step, StepResult
from umbel.runner.base import Runner, Wait
from umbel.sched.draft import Drawn
from umbel.sched.scheduler import Ints, Scheduler


@dataclass(frozen=True, slots=True)
class Flight:
    """A step that is under way, who draws in it, and what waits for its result."""

    step: Step
    drawn: Drawn
    wait: Wait


class Loop:
    """One workload on its way; `stats` may be read at any time.

    `meter` has the load of every step and its seconds: all that the loop does from one step to the next (scheduling,
    running, state, texts), but not the time that whoever takes the outputs keeps it waiting. The seconds of a step are
    those since the step before it was done.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        state: LiveState,
        rows: Rows,
        meter: Meter | None = None,
        spans: Spans = UNHEARD,
    ):
        self.scheduler = scheduler
        self.runner = runner
        self.state = state
        self.rows = rows
        self.meter = meter or Meter()
        self.spans = spans
        self.first_token: float | None = None  # when the first token was there, on the clock of time.monotonic
        self._landed = 0.0  # when the last step was done
        self._away = 0.0  # seconds spent since then with whoever takes the outputs
        self._steps = 0
        self._kv_read = 0
        self._prompt_tokens = 0
        self._rows_done = 0

    def run(self) -> Iterator[Output]:
        """Every row of the workload once, as they finish."""
        self._landed = time.perf_counter()
        flights: deque[Flight] = deque()
        while True:
            self.spans.open()
            step = self.spans.lap("scheduling", self.scheduler.next())
            yield from self._count(self._unfit())
            if step is not None:
                flights.append(self._start(step))
            elif not flights:
                return
            if step is None or len(flights) > self.runner.ahead:
                yield from self._land(flights.popleft())

    def stats(self) -> Stats:
        """Totals so far."""
        s = self.scheduler
        return Stats(
            prompt_tokens=self._prompt_tokens,
            planned_prompt_tokens=s.kv.forest.n_tokens,
            computed_prompt_tokens=s.computed_tokens,
            recomputed_tokens=s.recomputed_tokens,
            output_tokens=self.state.output_tokens,
            preemptions=s.preemptions,
            steps=self._steps,
            kv_peak_tokens=s.peak_pages * s.pool.page_size,
            kv_tokens_read=self._kv_read,
            rows_done=self._rows_done,
            evicted_rows=s.evicted_rows,
            kv_token_steps=s.occupied_pages * s.pool.page_size,
        )

    def _start(self, step: Step) -> Flight:
        """The step is given to the runner, and the scheduler goes on as if it were done."""
        drawn = self.scheduler.advance()
        masks = self.state.masks(drawn)
        if masks is not None:
            step = replace(step, sampling=replace(step.sampling, mask=masks.mask, masks=masks.masks))
        self.spans.lap("scheduling", None)
        return Flight(step, drawn, self.runner.start(step))

    def _land(self, flight: Flight) -> Iterator[Output]:
        """The step is done: its tokens go to their samples, and who ends with them ends."""
        result, drawn = flight.wait(), flight.drawn
        if self.first_token is None and len(result.token_ids):
            self.first_token = time.monotonic()
        self._steps += 1
        self._kv_read += result.kv_tokens_read
        here = self.spans.lap("scheduling", self.scheduler.settle(drawn, result.token_ids))
        yield from self._count(self._broken(drawn.slots[here & result.bad]))
        yield from self._count(self._finished(drawn, result))
        now, away = time.perf_counter(), self._away
        self.meter.add(flight.step, result.kv_tokens_read, now - self._landed - away)
        self._landed, self._away = now, 0.0
        self.spans.close(flight.step, result.kv_tokens_read)

    def _finished(self, drawn: Drawn, result: StepResult) -> Iterator[Output]:
        alive = self.scheduler.seqs.rank[drawn.slots] == drawn.ranks  # some ended before, some broke in this step
        slots, counts = drawn.slots[alive], drawn.counts[alive]
        ended = self.state.take(slots, result if alive.all() else result.only(alive), counts)
        for sample in ended:
            self.scheduler.finish(sample.slot, len(sample.token_ids))
        yield from self.rows.add(ended)

    def _broken(self, slots: Ints) -> Iterator[Output]:
        """Rows that no token could be drawn for: abandoned, with an error; the others go on."""
        for row in dict.fromkeys(self.scheduler.seqs.row[slots].tolist()):
            yield from self._abandon(row, ALL_BANNED if self.state.bans_all(row) else NOT_FINITE)

    def _unfit(self) -> Iterator[Output]:
        failed, self.scheduler.failed = self.scheduler.failed, []
        for row, reason in failed:
            advice = "raise kv_tokens (of a job: --kv-tokens, with --retry-failed)"
            yield from self.rows.fail(row, RowError("kv_capacity_exceeded", f"{reason}; {advice}", status=400))

    def _abandon(self, row: int, error: RowError) -> Iterator[Output]:
        for rank in self.scheduler.waiting.ranks_of(row):
            self.state.forget(rank)
        self.scheduler.drop_row(row)
        return self.rows.fail(row, error)

    def _count(self, outputs: Iterator[Output]) -> Iterator[Output]:
        for output in outputs:
            self._rows_done += 1
            self._prompt_tokens += output.prompt_tokens
            left = self.spans.lap("texts", time.perf_counter())
            yield output
            self._away += self.spans.lap("answers", time.perf_counter()) - left
        self.spans.lap("texts", None)
