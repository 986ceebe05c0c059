"""Chooses which forks of the full forest become shared runs: every one, one level of them, or those that pay.

One level means what BatchLLM's kernel and scheduler handle (arXiv 2412.03594, section 4): groups of one shared prefix
and what each prompt has of its own. Several levels are what this engine runs anyway, so its own rule may keep them all
and only asks of each whether it pays. Equal prompts end at one node in every rule and are counted once.
"""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from umbel.ir.forest import Forest
from umbel.plan.forest.price import Costs
from umbel.plan.forest.regroup import Grouping, sum_below
from umbel.plan.forest.solver import Choices, open_best

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def forks(forest: Forest) -> Bools:
    """Nodes that more than one distinct prompt runs through: only these can be shared runs of their own."""
    return _prompts_below(forest) > 1


def every_fork(forest: Forest) -> Grouping:
    """Open all levels: the full forest as it is."""
    return Grouping(forks(forest), forest.end)


def paying_forks(forest: Forest, costs: Costs) -> Grouping:
    """The forks that together cost least: one is kept where sharing it saves more than its upkeep.

    Exact: no other set of forks has a lower `costs.total`. A fork that pays even where the run above it is kept is kept
    (folding the run above only lengthens it), and its parts are decided apart from the rest; so few forks, those of a
    few tokens, need the solver.
    """
    inner = forks(forest)
    ends = np.bincount(forest.leaf, minlength=forest.n_nodes) > 0
    price = np.where(ends, costs.upkeep - costs.tail_upkeep, costs.upkeep)
    apart = np.where(ends, costs.tail_token, 0.0) + _sum_of_children(forest, costs.token)
    sure = inner & ((apart - costs.token) * (forest.end - forest.start) > price)
    unsure = inner & ~sure
    # With neither an unsure parent nor an unsure child, not paying where the run begins is all there is to ask.
    above = unsure & np.append(unsure, False)[forest.parent]
    joined = above | (_sum_of_children(forest, above) > 0)
    at = np.flatnonzero(joined)
    number = np.full(forest.n_nodes + 1, -1)
    number[at] = np.arange(len(at))
    base = apart - _sum_of_children(forest, np.where(joined, costs.token, 0.0))
    choices = Choices(
        parent=number[forest.parent[at]],
        floor=forest.start[at].astype(float),
        depth=forest.end[at].astype(float),
        price=price[at],
        slope=costs.token[at],
        base=base[at],
    )
    sure[at] = open_best(choices)
    return Grouping(sure, forest.end)


def best_groups(forest: Forest, page_size: int = 1, *, own_token: bool = False) -> Grouping:
    """The one level of groups that saves most prompt tokens, exactly; depths in whole pages.

    With `own_token` a prompt never ends where its group does: the group ends a page earlier.
    """
    depth = _whole_pages(forest, page_size, own_token)
    below = _prompts_below(forest)
    at = np.flatnonzero((below > 1) & (depth > 0))
    number = np.full(forest.n_nodes + 1, -1)
    number[at] = np.arange(len(at))
    ends = np.bincount(forest.leaf, minlength=forest.n_nodes) > 0
    alone = ends + _sum_of_children(forest, below == 1)
    choices = Choices(
        parent=number[forest.parent[at]],
        floor=np.zeros(len(at)),
        depth=depth[at].astype(float),
        price=depth[at].astype(float),
        slope=np.zeros(len(at)),
        base=alone[at].astype(float),
    )
    opened = np.zeros(forest.n_nodes, bool)
    opened[at] = open_best(choices)
    return Grouping(opened, depth, private=True)


def paper_groups(forest: Forest, page_size: int = 1, *, own_token: bool = False) -> Grouping:
    """One level of groups by BatchLLM's published rule (and what its release does where the paper is silent).

    Bottom up, a grandchild g leaves its parent c, taking a copy of c's tokens along, when that alone saves tokens:
    (prompts of g - 1) * tokens of g > tokens of c. If one part stays at c, c and that part become one. Parts that have
    not left when their turn is over are dissolved into c's prompts. Groups are then cut to whole pages, and shorter
    ones dissolved.
    """
    depth = _whole_pages(forest, page_size, own_token)
    opened = np.zeros(forest.n_nodes, bool)
    opened[_survivors(forest)] = True
    return Grouping(opened & (depth > 0), depth, private=True)


def _survivors(forest: Forest) -> list[int]:
    """Nodes that the published rule leaves as children of the root.

    Candidates wait in a heap by depth: one can only fail at c when it reaches less than c's length beyond c's end, and
    passing that test doubles the distance to whatever may test it next. So each is tested O(log depth) times.
    """
    below, parent = _prompts_below(forest).tolist(), forest.parent.tolist()
    start, end = forest.start.tolist(), forest.end.tolist()
    single = np.bincount(forest.leaf, minlength=forest.n_nodes) > 0
    singles = np.append(single + _sum_of_children(forest, _prompts_below(forest) == 1), 0).tolist()
    waiting: dict[int, list[tuple[int, int, int]]] = {}  # per node: heap of (depth, prompts, candidate)
    for node in range(forest.n_nodes - 1, -1, -1):
        if below[node] == 1:
            continue
        heap = waiting.pop(node, [])
        stay = _stay(heap, start[node], end[node])
        up = waiting.setdefault(parent[node], heap)
        if len(stay) + singles[node] > 1:
            prompts = singles[node] + sum(w for _, w, _ in stay)
            stay = [(end[node], prompts, node)]
        elif not stay:
            singles[parent[node]] += singles[node]  # the last entry stands for the root
        if len(up) < len(heap):
            up, heap = heap, up
            waiting[parent[node]] = up
        for candidate in stay if up is heap else [*stay, *heap]:
            heappush(up, candidate)
    return [node for _, _, node in waiting.get(-1, [])]


def _stay(heap: list[tuple[int, int, int]], start: int, end: int) -> list[tuple[int, int, int]]:
    """Remove from the heap, and return, the parts that do not gain by leaving a node from `start` to `end`."""
    length, near = end - start, []
    while heap and heap[0][0] - end <= length:
        near.append(heappop(heap))
    stay = [c for c in near if (c[1] - 1) * (c[0] - end) <= length]
    for candidate in near:
        if (candidate[1] - 1) * (candidate[0] - end) > length:
            heappush(heap, candidate)
    return stay


def _whole_pages(forest: Forest, page_size: int, own_token: bool) -> Ints:
    end = forest.end
    if own_token:
        end = end - (np.bincount(forest.leaf, minlength=forest.n_nodes) > 0)
    return np.asarray(end // page_size * page_size)


def _prompts_below(forest: Forest) -> Ints:
    """The number of distinct prompts that run through each node (`[nodes]`)."""
    ends = np.bincount(forest.leaf, minlength=forest.n_nodes) > 0
    return sum_below(ends.astype(np.int64), forest.subtree_end)


def _sum_of_children(forest: Forest, values: NDArray[np.generic]) -> NDArray[np.float64]:
    """The sum of `values` (`[nodes]`) over the children of each node."""
    inner = forest.parent >= 0
    return np.bincount(forest.parent[inner], np.asarray(values, float)[inner], forest.n_nodes).astype(float)
