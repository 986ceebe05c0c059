"""Requests that come one by one, on a virtual clock: when each got its tokens, under the rules of a policy.

The production loop and scheduler over a simulated device: a step takes the seconds that the price list says, and what
came meanwhile is added before the next one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.cache.pages import PagePool
from umbel.cost.load import Load
from umbel.cost.roofline import Price
from umbel.engine.events import Tokens
from umbel.engine.loop import Loop
from umbel.ir.selection import select_rows
from umbel.ir.step import Step
from umbel.ir.workload import Workload
from umbel.plan.draft import flat_forest
from umbel.runner.base import Wait, done
from umbel.sched.lot import Defaults, Lot, Standing
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler
from umbel.sim.runner import END, SimRunner

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FixedPrices:
    """Prices that nothing is learned about while steps run."""

    price: Price

    def renewed(self) -> bool:
        """Never."""
        return False

    def each(self, load: Load) -> Floats:
        """Seconds per step (`[entries]`)."""
        return self.price.each(load)


@dataclass(frozen=True, slots=True)
class Requests:
    """What comes: row i of `workload` at `at[i]` seconds (ascending), whose answer is `lengths[i]` tokens long. Those
    that are `watched` stream (`[rows]`), `standing` says how they stand to each other."""

    at: Floats
    workload: Workload
    lengths: Ints
    watched: NDArray[np.bool_]
    standing: Standing

    def lot(self, row: int) -> Lot:
        """One row, as it is added."""
        load, stands = select_rows(self.workload, np.array([row])), self.standing
        own = Standing(stands.priority[[row]], stands.tenant[[row]], stands.due[[row]])
        limits = load.longest_answers(1 << 40)
        return Lot(load, flat_forest(load), [(END,)], limits, streamed=self.watched[[row]], standing=own)


class Replay:
    """Requests on a device that `price` describes, with a KV pool of so many tokens and steps of at most `chunk`; `run`
    fills `times`: per row, the seconds at which its tokens were there."""

    def __init__(self, requests: Requests, price: Price, policy: Policy, *, kv_tokens: int, chunk: int, page: int = 16):
        self.requests = requests
        self.times: list[list[float]] = [[] for _ in requests.lengths]
        self.now = 0.0
        self._runner = SimRunner(price, requests.workload, requests.lengths)
        scheduler = Scheduler(PagePool(kv_tokens // page, page), chunk, policy)
        scheduler.reuse()
        self.loop = Loop(scheduler, self, None, Defaults(0, (END,)), watchers=None)

    ahead = 0

    def start(self, step: Step) -> Wait:
        """Let the seconds of a step pass."""
        result = self._runner.start(step)()
        self.now += result.seconds
        return done(result)

    def close(self) -> None:
        """Do nothing: there is no device."""

    def run(self) -> None:
        """Let all requests come and be answered."""
        coming, at = 0, self.requests.at
        while coming < len(at) or self.loop.busy:
            while coming < len(at) and at[coming] <= self.now:
                self.loop.add_lot(self.requests.lot(coming))
                coming += 1
            if not self.loop.busy:
                self.now = float(at[coming])
            for event in self.loop.step():
                if isinstance(event, Tokens):
                    self.times[event.row] += [self.now] * len(event.token_ids)
