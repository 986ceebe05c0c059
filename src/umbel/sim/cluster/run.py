"""Runs a case on a cluster: the plan of the whole, dealt out as in production, to nodes on one virtual clock."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from umbel.cluster.deal import Deal
from umbel.ir.distinct import Distinct
from umbel.ir.plan import Plan
from umbel.ir.workload import Workload
from umbel.plan.deal.shared_plan import SharedPlan, plan_replicas
from umbel.sim.case import SimCase
from umbel.sim.cluster.nodes import Node, least_seconds
from umbel.sim.cluster.row_prices import RowPrices
from umbel.sim.cluster.workers import LoopWorker, RowWorker, Worker
from umbel.sim.simulate import simulate

Ints = NDArray[np.int64]

MOST_STEPPED = 20_000  # rows that are run step by step; more have a price each


@dataclass(frozen=True, slots=True)
class ClusterOutcome:
    """The result of a case on a cluster.

    `answered`, `given_up`, `left`: rows that were answered, that were in too many losses, that no node was left for.
    `seconds`: until the last row.
    `least_seconds`: what one node does at speed 1, at the sum of the speeds of the nodes that are there.
    `one_node_seconds`: of the same rows on one node of speed 1.
    `idle`: share of the nodes' time, while they were there, in which they had no rows.
    `computed_prompt_tokens`: those of lost rows included; `distinct_prompt_tokens`: computed once each.
    `stolen_lots`: lots that another replica than planned took.
    `doubled_rows`: rows of slow replicas that others ran as well.
    """

    replicas: int
    rows: int
    answered: int
    given_up: int
    left: int
    seconds: float
    least_seconds: float
    one_node_seconds: float
    idle: float
    lots: int
    stolen_lots: int
    doubled_rows: int
    computed_prompt_tokens: int
    distinct_prompt_tokens: int
    rows_of_replicas: tuple[int, ...]
    seconds_of_replicas: tuple[float, ...]

    def as_dict(self) -> dict[str, object]:
        """The fields by name."""
        return asdict(self)


def run_cluster(
    case: SimCase, nodes: Sequence[Node], *, stepped: bool | None = None, one_node_seconds: float | None = None
) -> ClusterOutcome:
    """Run a case on these nodes; `stepped` runs the loop of each step by step (None: where that takes little time).
    `one_node_seconds` is what one takes, where that is known already."""
    plan = plan_cluster(case, len(nodes))
    stepped = len(case.workload) <= MOST_STEPPED if stepped is None else stepped
    prices = RowPrices.of(case.plan, Distinct.of(case.workload.params).column(lambda p: p.n), case.lengths)
    ahead = int(plan.estimates.curve.running.max(initial=1.0))
    make: Callable[[], Worker] = partial(LoopWorker, case) if stepped else partial(RowWorker, prices, ahead)
    deal = Deal(plan.shares, plan.least)
    cluster = SimCluster(deal, nodes, make, len(case.workload))
    cluster.run()
    if one_node_seconds is None:
        one_node_seconds = simulate(case, "umbel").seconds if stepped else prices.whole
    return cluster.outcome(one_node_seconds, case.plan.forest.n_tokens)


def plan_cluster(case: SimCase, replicas: int) -> SharedPlan:
    """The plan of a case for so many replicas."""

    def make(workload: Workload) -> Plan:
        return case.plan if workload is case.workload else case.plan_of(workload)

    return plan_replicas(case.workload, replicas, make)


@dataclass(slots=True)
class _Place:
    """A node at work: its clock, which of its turns is the next one, whether it knows that there is no lot for it,
    the seconds in which it had rows, and the rows that it answered."""

    node: Node
    worker: Worker
    clock: float
    turn: int = 0
    refused: bool = False
    busy: float = 0.0
    rows: int = 0


class SimCluster:
    """Nodes that take lots of a deal, in the order of their clocks."""

    def __init__(self, deal: Deal, nodes: Sequence[Node], make: Callable[[], Worker], rows: int):
        self.deal = deal
        self.answers = np.zeros(rows, np.int64)  # how often each row was answered
        self.given_up: list[int] = []
        self.seconds = 0.0  # when the last row was answered
        self._left: dict[int, int] = {}  # rows of each lot that are not answered
        self._places = [_Place(node, make(), node.comes) for node in nodes]
        self._turns: list[tuple[float, int, int]] = []  # heap of when, which node, the number of its turn
        for i, node in enumerate(nodes):
            self._next(i, node.comes)

    def run(self) -> None:
        """Until every row is answered or given up, or no node is left."""
        while self._turns and not self.deal.over:
            now, i, turn = heapq.heappop(self._turns)
            place = self._places[i]
            if turn != place.turn:
                continue
            place.clock = now
            if now >= place.node.goes:
                self._lose(i)
                continue
            if place.worker.wants and not place.refused:
                self._give(i, place)
            if place.worker.busy:
                self._step(i, place)
            elif place.node.goes < math.inf:
                self._next(i, place.node.goes)

    def outcome(self, one_node_seconds: float, distinct_tokens: int) -> ClusterOutcome:
        """What came of it."""
        rows, places = len(self.answers), self._places
        there = sum(max(min(p.node.goes, self.seconds) - p.node.comes, 0.0) for p in places)
        busy = sum(p.busy for p in places)
        answered = int((self.answers > 0).sum())
        return ClusterOutcome(
            replicas=len(places),
            rows=rows,
            answered=answered,
            given_up=len(self.given_up),
            left=rows - answered - len(self.given_up),
            seconds=self.seconds,
            least_seconds=least_seconds([p.node for p in places], one_node_seconds),
            one_node_seconds=one_node_seconds,
            idle=1 - busy / there if there else 0.0,
            lots=self.deal.next_number,
            stolen_lots=self.deal.stolen,
            doubled_rows=self.deal.doubled,
            computed_prompt_tokens=sum(p.worker.tokens for p in places),
            distinct_prompt_tokens=distinct_tokens,
            rows_of_replicas=tuple(p.rows for p in places),
            seconds_of_replicas=tuple(p.busy for p in places),
        )

    def _next(self, i: int, when: float) -> None:
        """The next turn of a node; one that was set before does not count any more."""
        self._places[i].turn += 1
        heapq.heappush(self._turns, (when, i, self._places[i].turn))

    def _give(self, i: int, place: _Place) -> None:
        given = self.deal.give(i)
        place.refused = given is None
        if given is not None:
            self._left[given[0]] = len(given[1])
            place.worker.take(*given)

    def _step(self, i: int, place: _Place) -> None:
        """One node goes on; what it would have answered after it is lost does not count."""
        seconds, answers = place.worker.step()
        end = place.clock + seconds / place.node.speed
        place.busy += min(end, place.node.goes) - place.clock
        self._next(i, min(end, place.node.goes))
        if end >= place.node.goes:
            return
        for lot, at in answers:
            if (row := self.deal.answered(lot, at)) is not None:
                self.answers[row] += 1
                place.rows += 1
                self.seconds = max(self.seconds, end)
            self._through(lot, end)
        unwanted, self.deal.unwanted = self.deal.unwanted, []
        for other, (lot, at) in unwanted:
            self._places[other].worker.drop(lot, at)
            self._through(lot, end)

    def _through(self, lot: int, now: float) -> None:
        """A row of a lot is answered, by its node or another one."""
        self._left[lot] -= 1
        if not self._left[lot]:
            self.deal.done(lot)
            self._wake(now)

    def _lose(self, i: int) -> None:
        """A node is gone: its rows go back."""
        self.given_up += self.deal.died(i, "was lost")
        self._wake(self._places[i].clock)

    def _wake(self, now: float) -> None:
        """Nodes that had nothing to take may ask again."""
        for i, place in enumerate(self._places):
            if place.refused and not place.worker.busy and now < place.node.goes:
                self._next(i, now)
            place.refused = False
