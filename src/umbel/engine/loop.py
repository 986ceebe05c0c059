"""The loop: the scheduler decides a step, the runner computes it, the state takes it in; rows come out when done."""

from __future__ import annotations

import time
from collections.abc import Iterator

from umbel.cost.meter import Meter
from umbel.engine.output import Rows
from umbel.engine.state import LiveState
from umbel.ir.report import Stats
from umbel.ir.request import Output, RowError
from umbel.ir.spans import UNHEARD, Spans
from umbel.ir.step import StepResult
from umbel.runner.base import Runner
from umbel.sched.scheduler import Ints, Scheduler


class Loop:
    """One workload on its way; `stats` may be read at any time.

    `meter` has the load of every step and its seconds: all that the loop does from one step to the next (scheduling,
    running, state, texts), but not the time that whoever takes the outputs keeps it waiting.
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
        self._away = 0.0  # seconds spent with whoever takes the outputs
        self._steps = 0
        self._kv_read = 0
        self._prompt_tokens = 0
        self._rows_done = 0

    def run(self) -> Iterator[Output]:
        """Every row of the workload once, as they finish."""
        while True:
            began, away = time.perf_counter(), self._away
            self.spans.open()
            step = self.spans.lap("scheduling", self.scheduler.next())
            yield from self._count(self._unfit())
            if step is None:
                return
            result = self.runner.run(step)
            if self.first_token is None and len(result.token_ids):
                self.first_token = time.monotonic()
            self._steps += 1
            self._kv_read += result.kv_tokens_read
            slots = self.spans.lap("scheduling", self.scheduler.apply(result))
            yield from self._count(self._broken(slots, result))
            yield from self._count(self._finished(slots, result))
            self.meter.add(step, result.kv_tokens_read, time.perf_counter() - began - (self._away - away))
            self.spans.close(step, result.kv_tokens_read)

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

    def _finished(self, slots: Ints, result: StepResult) -> Iterator[Output]:
        alive = self.scheduler.seqs.rank[slots] >= 0  # rows that broke in this step have left already
        ended = self.state.take(slots[alive], result if alive.all() else result.only(alive))
        for sample in ended:
            self.scheduler.finish(sample.slot)
        yield from self.rows.add(ended)

    def _broken(self, slots: Ints, result: StepResult) -> Iterator[Output]:
        """Rows whose logits were not finite: abandoned, with an error; the others go on."""
        if not result.bad.any():
            return
        for row in dict.fromkeys(self.scheduler.seqs.row[slots[result.bad]].tolist()):
            yield from self._abandon(row, "non_finite_logits", "the model gave logits that are not finite", 500)

    def _unfit(self) -> Iterator[Output]:
        failed, self.scheduler.failed = self.scheduler.failed, []
        for row, reason in failed:
            yield from self.rows.fail(row, RowError("kv_capacity_exceeded", f"{reason}; raise kv_tokens", status=400))

    def _abandon(self, row: int, code: str, message: str, status: int) -> Iterator[Output]:
        for rank in self.scheduler.waiting.ranks_of(row):
            self.state.forget(rank)
        self.scheduler.drop_row(row)
        return self.rows.fail(row, RowError(code, message, type="server_error", status=status))

    def _count(self, outputs: Iterator[Output]) -> Iterator[Output]:
        for output in outputs:
            self._rows_done += 1
            self._prompt_tokens += output.prompt_tokens
            left = self.spans.lap("texts", time.perf_counter())
            yield output
            self._away += self.spans.lap("answers", time.perf_counter()) - left
        self.spans.lap("texts", None)
