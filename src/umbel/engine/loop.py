"""The loop: the scheduler decides a step, the runner computes it, the state takes it in; rows come out when done.

Rows may be added and cancelled between steps. Where the runner works ahead, a step is decided while the one before it
is computed: its tokens are not known then, nor who ends with them. A sample that ended is computed for one extra step,
whose result is discarded.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from umbel.cost.meter import Meter
from umbel.engine.events import Event, Flight, Tokens, newest
from umbel.engine.ledger import RowLedger, Spent
from umbel.engine.output import Rows
from umbel.engine.steering import Steering
from umbel.engine.watch.base import Surroundings
from umbel.engine.watch.watchers import Make, Watchers, known_watchers
from umbel.ir.plan import Plan
from umbel.ir.report import Stats
from umbel.ir.request import Output, RowError
from umbel.ir.resumable import Resumable
from umbel.ir.sampled import Outcomes, SampledTokens
from umbel.ir.spans import NO_SPANS, Spans
from umbel.ir.step import Step
from umbel.ir.workload import Workload
from umbel.runner.base import Runner
from umbel.sched.lot import Defaults, Lot, Standing
from umbel.sched.scheduler import Scheduler
from umbel.sched.scoring import land_wanted
from umbel.text.tokenizer import Tokenizer


class Loop:
    """Rows on their way; `stats` may be read at any time.

    `busy` says that there may be something left to do. `meter` has the load of every step and its seconds: all that the
    loop does from one step to the next (scheduling, running, state, texts), without the time between two calls of
    `step`. The seconds of a step are those since the step before it was done.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        tokenizer: Tokenizer | None = None,
        defaults: Defaults | None = None,
        meter: Meter | None = None,
        spans: Spans = NO_SPANS,
        watchers: Sequence[Make] | None = None,
    ):
        self.scheduler = scheduler
        self.runner = runner
        self.defaults = defaults = defaults or Defaults()
        said = defaults.width, runner.ahead > 0, defaults.eos, defaults.pooler, scheduler.kv.scored.summed.take
        around = Surroundings(scheduler.requests, tokenizer, *said)
        self.watchers = Watchers([make(around) for make in (known_watchers() if watchers is None else watchers)])
        scheduler.force(self.watchers.forced)
        self.rows = Rows(scheduler.requests, tokenizer, scheduler.kv.scored)
        self.meter = meter or Meter()
        self.spans = spans
        self.busy = False
        self.first_token: float | None = None  # when the first token was there, on the clock of time.monotonic
        self.steering = Steering(scheduler, self.watchers, self.defaults)
        self.ledger: RowLedger | None = None  # of what rows cost, where that is asked for before any is added
        self._flights: deque[Flight] = deque()  # steps that are under way
        self._held: list[Event] = []  # what came out between steps
        self._streams = False  # whether any row wants its tokens as they come
        self._landed = self._left = time.perf_counter()  # when the last step was done; when `step` returned last
        self._steps = 0
        self._kv_read = 0
        self._prompt_tokens = self._output_tokens = 0
        self._rows_done = 0

    def add(self, workload: Workload, plan: Plan, streamed: NDArray[np.bool_] | None = None) -> int:
        """More rows, run as their plan says; returns the number of the first, which the others go on from. `streamed`
        (`[rows]`) flags those that want their tokens as they come."""
        self.scheduler.chunk = plan.chunk
        return self.add_lot(self.defaults.lot(workload, plan, streamed))

    def add_lot(self, lot: Lot) -> int:
        """More rows, with all that decides how they run."""
        first = self.scheduler.add(replace(lot, lockstep=self.watchers.extend(lot.workload.params)))
        self.rows.extend(first, lot.same_as)
        self._begin(first, streams=lot.streamed is not None and bool(lot.streamed.any()))
        return first

    def cancel(self, row: int) -> None:
        """A row is not wanted any more: it stops, and nothing more comes out of it. Rows that wait for its answer get
        theirs all the same."""
        abandoned = self.rows.leave(row)
        if abandoned is not None:
            self._drop(abandoned)

    def step(self) -> list[Event]:
        """Decide and begin a step, and see through the first one under way where the runner takes no more; returns
        the rows that came out, and the tokens of those that stream."""
        self._landed += time.perf_counter() - self._left
        self.spans.open()
        step, flights = self.spans.lap("scheduling", self.scheduler.next()), self._flights
        held, self._held = self._held, []
        events: list[Event] = [*held, *self._count(self._unfit())]
        if step is not None:
            flights.append(self._start(step))
        if flights and (step is None or len(flights) > self.runner.ahead):
            events += self._land(flights.popleft())
        elif step is None:
            self.busy = False
        self._left = time.perf_counter()
        return events

    def fork(self, row: int, sample: int, keys: Sequence[int], *, streamed: bool = False) -> list[int]:
        """New rows, one for each of `keys` (numbers in the input), that go on from where a sample is; see Steering."""
        self._see_through()
        rows = self.steering.fork(row, sample, keys, streamed=streamed)
        self._begin(rows[0], streams=streamed)
        return rows

    def first_sample(self, row: int) -> int:
        """The number of a row's first sample: 0, unless the row is a fork."""
        return self.scheduler.requests.first_sample.item(row)

    def tokens_of(self, row: int, sample: int) -> tuple[int, ...]:
        """The tokens that a sample has, once every step under way is done."""
        self._see_through()
        return self.steering.tokens_of(self.steering.rank_of(row, sample))

    def append(self, row: int, sample: int, tokens: Sequence[int]) -> None:
        """Put tokens behind those that a sample has; see Steering."""
        self._see_through()
        self.steering.append(row, sample, tokens)
        if self.scheduler.requests.streamed[row]:
            self._held += [Tokens(reader, sample, tuple(tokens), given=True) for reader in self.rows.readers(row)]

    def abort(self, row: int) -> Resumable:
        """Take a row out: nothing more comes of it, and `resume` goes on with it, here or in another loop."""
        self._see_through()
        record = self.steering.resumable(row, self.rows.partial(row))
        self.cancel(row)
        return record

    def resume(self, record: Resumable, key: int, *, streamed: bool = False, standing: Standing | None = None) -> int:
        """Add a row that was taken out, as number `key` of the input; returns its number."""
        row = self.add_lot(self.steering.lot_of(record, key, streamed=streamed, standing=standing))
        self.restore(row, record)
        return row

    def restore(self, row: int, record: Resumable) -> None:
        """Give a row that was just added, and answers for itself, what it had when it was taken out."""
        self.steering.restore(row, record)
        self.rows.restore(row, record.finished)

    def spent(self, keys: Sequence[int]) -> Spent:
        """What the rows with these numbers in the input have cost; `ledger` has counted it."""
        requests = self.scheduler.requests
        rows = np.flatnonzero(np.isin(requests.key[: len(requests)], keys))
        prompts = int(requests.length[rows].sum())
        return Spent(prompts) if self.ledger is None else self.ledger.spent(rows, prompts)

    def run(self) -> Iterator[Output]:
        """Every row once, as they finish, until all are done."""
        while self.busy:
            yield from self.outputs()

    def outputs(self) -> Iterator[Output]:
        """The rows that come out of one step."""
        for event in self.step():
            if isinstance(event, Output):
                yield event
                self.spans.lap("answers", None)

    def stats(self) -> Stats:
        """Totals so far."""
        s = self.scheduler
        return Stats(
            prompt_tokens=self._prompt_tokens,
            planned_prompt_tokens=s.planned_tokens,
            computed_prompt_tokens=s.computed_tokens,
            recomputed_tokens=s.recomputed_tokens,
            output_tokens=self._output_tokens,
            preemptions=s.preemptions,
            steps=self._steps,
            kv_peak_tokens=s.peak_pages * s.pool.page_size,
            kv_tokens_read=self._kv_read,
            rows_done=self._rows_done,
            evicted_rows=s.evicted_rows,
            kv_token_steps=s.occupied_pages * s.pool.page_size,
            drafted_tokens=s.books.drafted_tokens,
            accepted_tokens=s.books.accepted_tokens,
            forced_tokens=s.books.forced_tokens,
        )

    def _begin(self, first: int, *, streams: bool) -> None:
        """Rows from number `first` on were added."""
        self._streams |= streams
        self.busy = True
        if self.ledger is not None:
            self.ledger.add_rows(len(self.scheduler.requests) - first)

    def _see_through(self) -> None:
        """See every step under way done; what comes out of them comes with the next step."""
        while self._flights:
            self._held += self._land(self._flights.popleft())

    def settle(self) -> list[Event]:
        """See every step under way done; returns what came out since the last step."""
        self._see_through()
        held, self._held = self._held, []
        return held

    def release(self, rows: Iterable[int]) -> None:
        """Abandon rows without a word of them, and let none start that waits: only those that run go on."""
        for row in rows:
            self.rows.drop(row)
            self._drop(row)
        self.scheduler.admit_no_more()

    def _start(self, step: Step) -> Flight:
        """The step is given to the runner, and the scheduler goes on as if it were done."""
        drawing = self.scheduler.advance()
        masks, changes = self.watchers.masks(drawing), self.watchers.changes(drawing)
        if masks is not None:
            drawn = replace(step.sampling, mask=masks.mask, masks=masks.masks, filled=masks.filled)
            step = replace(step, sampling=drawn)
        named, pooled = self.watchers.named(drawing), self.watchers.pooled(drawing)
        if changes is not None or named is not None or pooled is not None:
            step = replace(step, sampling=replace(step.sampling, changes=changes, named=named, pooled=pooled))
        self.spans.lap("scheduling", None)
        return Flight(step, drawing, masks, self.runner.start(step))

    def _land(self, flight: Flight) -> Iterator[Event]:
        """The step is done: watchers look at its tokens, and what follows from them happens."""
        result = flight.wait()
        if self.first_token is None and len(result.token_ids):
            self.first_token = time.monotonic()
        self._steps += 1
        self._kv_read += result.kv_tokens_read
        land_wanted(self.scheduler.kv, result)
        sampled = self.scheduler.in_flight.present(SampledTokens(flight.drawing, result, flight.masks))
        outcomes = self.watchers.judge(sampled)
        self._output_tokens += int(outcomes.keep.sum())
        news = self._news(sampled, outcomes) if self._streams else []
        ended = self.spans.lap("scheduling", self.scheduler.settle(sampled, outcomes))
        yield from self._count(self._fail(outcomes.failed))
        yield from news
        yield from self._count(self.rows.add(ended))
        now = time.perf_counter()
        self.meter.add(flight.step, result.kv_tokens_read, now - self._landed)
        if self.ledger is not None:
            self.ledger.count(sampled.drawing, outcomes.keep)
            self.ledger.add(flight.drawing, flight.step.sampling.positions, now - self._landed)
        self._landed = now
        self.spans.close(flight.step, result.kv_tokens_read)

    def _news(self, sampled: SampledTokens, outcomes: Outcomes) -> list[Tokens]:
        """The new tokens of samples whose rows stream."""
        drawing, found = sampled.drawing, list[Tokens]()
        for i in np.flatnonzero(self.scheduler.requests.streamed[drawing.rows] & (outcomes.keep > 0)).tolist():
            begin, row = drawing.begin.item(i), drawing.rows.item(i)
            token_ids = tuple(sampled.tokens[begin : begin + outcomes.keep.item(i)].tolist())
            sample = self.scheduler.seqs.sample.item(drawing.slots.item(i))
            finish = outcomes.finished.get(i)
            scores = newest(self.watchers.collected(drawing.ranks.item(i)), finish, len(token_ids))
            found += [Tokens(reader, sample, token_ids, finish, False, scores) for reader in self.rows.readers(row)]
        return found

    def _fail(self, failed: Mapping[int, RowError]) -> Iterator[Output]:
        """Rows that were dropped come out as errors."""
        for row, error in failed.items():
            self._forget(row)
            yield from self.rows.fail(row, error)

    def _unfit(self) -> Iterator[Output]:
        failed, self.scheduler.failed = self.scheduler.failed, []
        for row, reason in failed:
            self._forget(row)
            advice = "raise kv_tokens (of a job: --kv-tokens, with --retry-failed)"
            yield from self.rows.fail(row, RowError("kv_capacity_exceeded", f"{reason}; {advice}", status=400))

    def _drop(self, row: int) -> None:
        """Abandon a row's samples and what is held for them."""
        self._forget(row)
        self.scheduler.drop_row(row)

    def _forget(self, row: int) -> None:
        self.watchers.forget(np.array(self.scheduler.waiting.ranks_of(row), np.int64))

    def _count(self, outputs: Iterable[Output]) -> Iterator[Output]:
        for output in outputs:
            self._rows_done += 1
            self._prompt_tokens += output.prompt_tokens
            yield output
        self.spans.lap("texts", None)
