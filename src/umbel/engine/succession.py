"""Runs workloads that follow each other in one loop: the next one joins before the one before it has ended.

What ends a workload alone are its longest answers, in steps of few rows. A workload joins when no row of those before
it waits to start, so the steps stay full; only the last one is seen to its end.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from umbel.engine.loop import Loop
from umbel.ir.arrivals import Arrivals
from umbel.ir.plan import Plan
from umbel.ir.request import Output
from umbel.ir.workload import Workload

# A loop that was given as much takes no more rows: the columns of those that are done go with it.
MOST_ROWS = 2**18
MOST_TOKENS = 2**25  # of prompts


@dataclass(slots=True)
class Succession:
    """Hands the workloads of `arrivals` to loops; `joined` is called when one joins others. `taken` counts them."""

    arrivals: Arrivals
    joined: Callable[[Loop], None] = lambda loop: None
    taken: int = 0
    _next: tuple[Workload, Plan] | None = None
    _begins: list[int] = field(default_factory=list)  # the first row of each workload in the loop that runs
    _speculate: str = ""  # who proposes tokens in it

    def plan(self) -> Plan | None:
        """The plan of the workload that a loop is to be made for; None where no more come. May wait."""
        self._next = self._next or self.arrivals.take(wait=True)
        return None if self._next is None else self._next[1]

    def run(self, loop: Loop) -> Iterator[tuple[int, Output]]:
        """Run what comes in an empty loop, until none comes that it can take. Outputs come as rows finish, each with
        the number of its workload and its row there."""
        first, self._begins = self.taken, []
        while self._add(loop) or loop.busy:
            for event in loop.step():
                if isinstance(event, Output):
                    i = bisect_right(self._begins, event.row) - 1
                    yield first + i, replace(event, row=event.row - self._begins[i]) if i else event
                    loop.spans.lap("answers", None)

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
        self._begins.append(loop.add(workload, plan))
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
