"""The engine of a batch's job: its rows run in the session of the server, beside those of requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Protocol

from umbel.engine.session import Session
from umbel.errors import UsageError
from umbel.ir.arrivals import Arrivals
from umbel.ir.plan import Plan
from umbel.ir.report import Left, Stats
from umbel.ir.request import Output, RowError
from umbel.ir.resumable import Resumable
from umbel.ir.stops import Place, Stops, Unstopped
from umbel.ir.tally import ReplicaTally
from umbel.ir.workload import Workload
from umbel.jobs.signals import Drain
from umbel.jobs.stream import output_of
from umbel.serve.batches.lots import HandedLot, with_tokens
from umbel.serve.batches.rowbox import BoxNews, RowBox, received
from umbel.serve.batches.trial_room import TrialRoom

ROWS = 256  # of batches that the session has at a time
BEHIND = 1  # their priority: those of requests have 0, and go first
LOOK_SECONDS = 0.1  # between two looks at whether the batch is to stop, while no row finishes
FAILED = RowError("internal_error", "the engine failed when it ran this row alone", None, "server_error", 500)


class RowService(Protocol):
    """The part of a Service that is used here; for any thread."""

    failure: str | None

    def run_rows(self, box: RowBox, enter: Callable[[Session], list[int]]) -> bool:
        """Have a box get what comes of rows that `enter` gives to the session; False where there is none now."""

    def leave_rows(self, box: RowBox) -> None:
        """Stop what is not answered of a box."""


@dataclass(slots=True)
class SharedEngine:
    """Runs the workloads of one job on a service.

    `planner`: plans them.
    `totals`: gives those of the whole server.
    `look`: raises Drain, OutOfTime or Cancelled once the job is to stop.
    `seed`: keys the draws of rows without their own.
    `tenant`: whose KV they share; None for that of all.
    `trials`: of all jobs that run on the service.
    """

    service: RowService
    planner: Callable[[Workload], Plan]
    totals: Callable[[], Stats]
    look: Callable[[], None]
    seed: int = 0
    tenant: str | None = None
    trials: TrialRoom = field(default_factory=TrialRoom)
    first_token: float | None = None
    keeps_unfinished: bool = True
    _queue: SimpleQueue[BoxNews] = field(default_factory=SimpleQueue)
    _lots: dict[int, HandedLot] = field(default_factory=dict)
    _boxes: list[RowBox] = field(default_factory=list)
    _trial: RowBox | None = None  # has a row that is run alone
    _taken: int = 0
    _own: Stats = field(default_factory=Stats)
    _before: Stats = field(init=False)
    _place: int = field(init=False)  # in the room

    def __post_init__(self) -> None:
        self._before, self._place = self.totals(), self.trials.join()

    def plan_for(self, workload: Workload) -> Plan:
        """The plan by which a workload is run."""
        return self.planner(workload)

    def execute_all(self, arrivals: Arrivals, stops: Stops | None = None) -> Iterator[tuple[int, Output]]:
        """Outputs of the rows of all workloads as they finish, until `look` raises; what rows have written is kept
        when the server stops."""
        stops = stops or Unstopped()
        try:
            while self._refill(arrivals, stops):
                self._feed()
                yield from self._answers(LOOK_SECONDS)
                stops.due()
                try:
                    self.look()
                except Drain:
                    stops.keep(self._taken_out())
                    yield from self._answers(0.0)
                    raise
        finally:
            for box in self._boxes:
                self.service.leave_rows(box)
            self.trials.leave(self._place)

    def _refill(self, arrivals: Arrivals, stops: Stops) -> bool:
        """Take the next workload once all rows of those before it are handed out; False when all is done."""
        self._lots = {number: lot for number, lot in self._lots.items() if lot.left}
        if any(lot.waits for lot in self._lots.values()):
            return True
        found = arrivals.take(wait=not self._lots)
        if found is not None:
            number, self._taken = self._taken, self._taken + 1
            self._lots[number] = HandedLot(number, *found, dict(stops.begun(number)))
        return bool(self._lots)

    def _feed(self) -> None:
        """Hand rows out, as many as there is room for."""
        self._boxes = [box for box in self._boxes if box.open]
        taken = sum(len(box.open) for box in self._boxes)
        if not (self._trial in self._boxes or any(lot.again for lot in self._lots.values())):
            self.trials.tried(self._place)
        if not self.trials.may_hand_out(self._place, taken):
            return
        room = ROWS - taken
        for lot in self._lots.values():
            while room > 0 and lot.waits:
                if lot.again and (self._boxes or not self.trials.may_try(self._place)):
                    return  # what may have broken the engine runs alone
                suspect, rows = bool(lot.again), lot.next(room)
                box = RowBox(self._queue, lot.number, rows)
                self._boxes.append(box)
                self._trial = box if suspect else self._trial
                if not self._hand_over(box, lot, rows):
                    lot.again += box.open.values()
                    box.open = {}
                    time.sleep(LOOK_SECONDS)
                    return
                room -= len(rows)

    def _hand_over(self, box: RowBox, lot: HandedLot, rows: list[int]) -> bool:
        """Have the session run some rows; False where there is none now."""
        if (record := lot.begun.pop(rows[0], None)) is None:
            part = lot.part(rows)
            return self.service.run_rows(box, lambda session: session.add(part, priority=BEHIND, tenant=self.tenant))
        known = lot.taken_up(rows[0], record, self.seed)
        return self.service.run_rows(box, lambda session: [session.resume(known, priority=BEHIND, tenant=self.tenant)])

    def _answers(self, seconds: float) -> Iterator[tuple[int, Output]]:
        for arrival in received(self._queue, seconds):
            lot, box = self._lots[arrival.box.number], arrival.box
            if arrival.output is None:
                yield from self._failed(lot, box)
            elif arrival.place in box.open:
                for number, output in lot.answers(output_of(arrival.output, box.open.pop(arrival.place))):
                    self._count(output)
                    yield number, output

    def _failed(self, lot: HandedLot, box: RowBox) -> Iterator[tuple[int, Output]]:
        """The engine failed: what ran is run again, row by row; a row that was alone is the one to blame."""
        if self.service.failure is not None:
            raise Drain
        rows, box.open = list(box.open.values()), {}
        if box is self._trial and box.session is not None and len(self._boxes) == 1:
            size = len(lot.workload.prompt(rows[0]))
            yield from lot.answers(Output(rows[0], size, error=FAILED))
        else:
            lot.again += rows

    def _taken_out(self) -> dict[Place, Resumable]:
        """What the rows that run have written; they are out of the session then."""
        found = dict[Place, Resumable]()
        for box in self._boxes:
            for place, row in list(box.open.items()):
                with suppress(UsageError):  # it has finished, or its session has ended
                    if box.session is not None:
                        found[box.number, row] = box.session.abort(box.tickets[place])
                        del box.open[place]
        return with_tokens(found)

    def _count(self, output: Output) -> None:
        tokens, done = output.output_tokens, self._own
        prompt = done.prompt_tokens + output.prompt_tokens
        more = {"output_tokens": done.output_tokens + tokens, "rows_done": done.rows_done + 1}
        self._own = replace(done, prompt_tokens=prompt, **more)

    def stats(self) -> Stats:
        """Totals so far: rows and tokens are the job's, steps and what was computed the server's since it began."""
        now, before, own = self.totals(), self._before, self._own
        since = ("computed_prompt_tokens", "planned_prompt_tokens", "recomputed_tokens", "preemptions", "steps")
        more = {name: getattr(now, name) - getattr(before, name) for name in (*since, "kv_token_steps")}
        return replace(own, **more, kv_peak_tokens=now.kv_peak_tokens)

    def replicas(self) -> tuple[ReplicaTally, ...]:
        """None: the server's engine is one."""
        return ()

    def left(self) -> Left:
        """What the rows that it was given have left to do."""
        return Left(sum(lot.expected_tokens() for lot in list(self._lots.values())))
