"""Runs workloads that follow each other in one loop: the next one joins before the one before it has ended.

What ends a workload alone are its longest answers, in steps of few rows. A workload joins when no row of those before
it waits to start, so the steps stay full; only the last one is seen to its end.

When they are stopped, rows that are near their end go on alone for a while, and what the others have written is kept.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from umbel.engine.events import Event
from umbel.engine.loop import Loop
from umbel.engine.unfinished import ending_within, leave_to_end, unfinished
from umbel.ir.arrivals import Arrivals
from umbel.ir.plan import Plan
from umbel.ir.request import Output
from umbel.ir.resumable import Resumable
from umbel.ir.stops import Place, Stops, Unstopped
from umbel.ir.workload import Workload

# A loop that was given as much takes no more rows: the columns of those that are done go with it.
MOST_ROWS = 2**18
MOST_TOKENS = 2**25  # of prompts


@dataclass(slots=True)
class Succession:
    """Hands the workloads of `arrivals` to loops, as long as `stops` lets them run; `joined` is called when one joins
    others, `look` between steps, in which rows that are `unwanted` are taken out. `taken` counts workloads."""

    arrivals: Arrivals
    joined: Callable[[Loop], None] = lambda loop: None
    look: Callable[[Loop], None] = lambda loop: None
    stops: Stops = field(default_factory=Unstopped)
    unwanted: Callable[[], Iterable[Place]] = tuple
    taken: int = 0
    _next: tuple[Workload, Plan] | None = None
    _first: int = 0  # the number of the first workload in the loop that runs
    _begins: list[int] = field(default_factory=list)  # the first row of each workload in it
    _out: list[Place] = field(default_factory=list)  # rows to take out
    _speculate: str = ""  # who proposes tokens in it

    def plan(self) -> Plan | None:
        """The plan of the workload that a loop is to be made for; None where no more come. May wait."""
        if self.stops.until() is not None:
            return None
        self._next = self._next or self.arrivals.take(wait=True)
        return None if self._next is None else self._next[1]

    def run(self, loop: Loop) -> Iterator[tuple[int, Output]]:
        """Run what comes in an empty loop, until none comes that it can take. Outputs come as rows finish, each with
        the number of its workload and its row there."""
        self._first, self._begins = self.taken, []
        while (until := self.stops.until()) is None:
            if not (self._add(loop) or loop.busy):
                return
            yield from self._outputs(loop, loop.step())
            self._take_out(loop)
            self.look(loop)
            if self.stops.due():
                yield from self._outputs(loop, loop.settle())
                self.stops.keep(self._unfinished(loop))
        yield from self._wind_up(loop, until)

    def _wind_up(self, loop: Loop, until: float) -> Iterator[tuple[int, Output]]:
        """Keep what rows have written, and let those go on until then that are near their end."""
        yield from self._outputs(loop, loop.settle())
        near = ending_within(loop, until - time.monotonic())
        self.stops.keep(self._unfinished(loop), near=len(near))
        if not near:
            return
        leave_to_end(loop, near)
        while loop.scheduler.seqs.n_running and time.monotonic() < until:
            yield from self._outputs(loop, loop.step())
        yield from self._outputs(loop, loop.settle())
        self.stops.keep(self._unfinished(loop))

    def _take_out(self, loop: Loop) -> None:
        """Cancel the rows that are not wanted any more; those of a workload that has yet to join, when it has."""
        self._out += self.unwanted()
        joined = self._first + len(self._begins)
        for number, row in self._out:
            if number < joined:
                loop.cancel(self._begins[number - self._first] + row)
        self._out = [place for place in self._out if place[0] >= joined]

    def _outputs(self, loop: Loop, events: Iterable[Event]) -> Iterator[tuple[int, Output]]:
        for event in events:
            if isinstance(event, Output):
                number, row = self._place(event.row)
                yield number, replace(event, row=row) if row != event.row else event
                loop.spans.lap("answers", None)

    def _unfinished(self, loop: Loop) -> dict[Place, Resumable]:
        return {self._place(row): record for row, record in unfinished(loop).items()}

    def _place(self, row: int) -> Place:
        """The number of a row's workload, and the row in it."""
        i = bisect_right(self._begins, row) - 1
        return self._first + i, row - self._begins[i]

    def _add(self, loop: Loop) -> bool:
        """Add the next workload, where one is ready and the loop can take it; False where none was added."""
        if loop.scheduler.waiting.first() is not None:
            return False
        self._next = self._next or self.arrivals.take(wait=not loop.busy)
        if self._next is None:
            return False
        workload, plan = self._next
        if self._begins:
            if plan.speculate != self._speculate or not suits(loop, plan):
                return False
            self.joined(loop)
        else:
            self._speculate = plan.speculate
        self._begins.append(first := loop.add(workload, plan))
        for row, record in self.stops.begun(self.taken).items():
            if plan.same_as[row] == row:
                loop.restore(first + row, record)
        self._next, self.taken = None, self.taken + 1
        return True


def suits(loop: Loop, plan: Plan) -> bool:
    """Whether the rows of a plan can join those of a loop: as the plan would have it, and without the loop holding too
    many."""
    scheduler = loop.scheduler
    pool, requests = scheduler.pool, scheduler.requests
    alike = plan.page_size == pool.page_size and plan.admission == scheduler.policy.admission
    small = len(requests) < MOST_ROWS and len(requests.tokens) < MOST_TOKENS
    return alike and small and plan.kv_pages <= pool.n_pages
