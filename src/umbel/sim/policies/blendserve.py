"""BlendServe (2411.16102): rows that want arithmetic beside rows that want memory, and the bound that it aims at.

A node's density is the seconds of arithmetic of everything below it over the seconds of reading KV. Children are sorted
by it, so that the tree's rows stand from those that compute most to those that read most; two scanners take rows from
both ends so that what was started so far has the density of the whole. Lengths of answers are the true ones here, where
the paper estimates them from a sample; its moving of rows that are unlike their neighbours to the root is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.cost.roofline import ORDINARY
from umbel.ir.distinct import Distinct
from umbel.ir.forest import Forest
from umbel.sim.case import SimCase
from umbel.sim.policies.setup import Setup, cached

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Demand:
    """Seconds of arithmetic that each run of a forest takes once (`[nodes]`), those that each row's answers take
    (`[rows]`), and the seconds in which the KV that these read goes through memory (`[rows]`)."""

    run: Floats
    answer: Floats
    reading: Floats

    @classmethod
    def of(cls, case: SimCase) -> Demand:
        """At the rates that an ordinary step reaches; weights, which all rows of a step read together, are left out."""
        forest, shape, machine = case.forest, case.price.shape, case.machine
        flops = machine.flops(case.price.dtype) * ORDINARY.arithmetic
        rate = machine.memory_rate * ORDINARY.memory
        length = np.diff(case.workload.offsets).astype(np.float64)
        samples, out = Distinct.of(case.workload.params).column(lambda p: p.n), case.lengths
        before = _sum_to(forest.end) - _sum_to(forest.start)
        contexts = samples * (length * out + _sum_to(out))
        run = (forest.end - forest.start) * shape.token_flops + before * shape.pair_flops
        answer = samples * out * (shape.token_flops + shape.head_flops) + contexts * shape.pair_flops
        return cls(run / flops, answer / flops, contexts * shape.kv_bytes / rate)

    @property
    def bound(self) -> float:
        """Seconds that no order can do without, where each row reads its own context: the larger of the two sums, with
        every shared run computed once."""
        return float(max(self.run.sum() + self.answer.sum(), self.reading.sum()))


def blended(case: SimCase) -> Setup:
    """Rows in the order of the two scanners."""
    return cached(case, "blendserve", dual_scan(case.forest, Demand.of(case)))


def dual_scan(forest: Forest, demand: Demand) -> Ints:
    """The rows as two scanners take them: from the end that computes most while what was started computes less than its
    share, otherwise from the end that reads most."""
    rows = by_density(forest, demand).tolist()
    compute, read = (_parts(forest, demand.run) + demand.answer).tolist(), demand.reading.tolist()
    whole = sum(compute), sum(read)
    done, order = [0.0, 0.0], []
    left, right = 0, len(rows) - 1
    while left <= right:
        computes_less = done[0] * whole[1] <= done[1] * whole[0]
        row = rows[left if computes_less else right]
        left, right = (left + 1, right) if computes_less else (left, right - 1)
        done = [done[0] + compute[row], done[1] + read[row]]
        order.append(row)
    return np.array(order, np.int64)


def by_density(forest: Forest, demand: Demand) -> Ints:
    """The rows as a walk meets them that goes to the child first that computes most for what it reads."""
    here = np.stack([demand.run, np.zeros(forest.n_nodes)])
    np.add.at(here[0], forest.leaf, demand.answer)
    np.add.at(here[1], forest.leaf, demand.reading)
    total = np.concatenate([np.zeros((2, 1)), np.cumsum(here, axis=1)], axis=1)
    compute, read = total[:, forest.subtree_end] - total[:, :-1]
    density = compute / np.maximum(read, 1e-30)
    children: list[list[int]] = [[] for _ in range(forest.n_nodes + 1)]  # the last are the roots
    for node in np.argsort(density, kind="stable").tolist():
        children[forest.parent[node]].append(node)
    ending: list[list[int]] = [[] for _ in range(forest.n_nodes)]
    for row in range(len(forest.leaf)):
        ending[forest.leaf[row]].append(row)
    order, stack = [], list(children[-1])
    while stack:
        node = stack.pop()
        order += ending[node]
        stack += children[node]
    return np.array(order, np.int64)


def _parts(forest: Forest, run: Floats) -> Floats:
    """What each row's path costs (`[rows]`), every run divided among the rows below it."""
    part = run / np.maximum(forest.rows_below, 1)
    ended = np.bincount(forest.subtree_end, part, forest.n_nodes + 1)[: forest.n_nodes]
    return np.asarray((np.cumsum(part) - np.cumsum(ended))[forest.leaf])


def _sum_to(count: Ints) -> Floats:
    """1 + 2 + ... + `count`: the keys that so many tokens see when they are the first."""
    return count * (count + 1.0) / 2
