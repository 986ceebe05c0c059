"""Labels against a plain tree: depth-first order and subtrees, however nodes come, go and are put between others."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.cache import labels as module
from umbel.cache.labels import Labels

MOVES = st.lists(
    st.tuples(st.sampled_from(("root", "plant", "put", "widen", "above", "relabel")), st.integers(0, 1000)), max_size=60
)


@settings(max_examples=150)
@given(MOVES, st.sampled_from((1 << 18, 1 << 62)))
def test_any_growth_keeps_the_order(moves: list[tuple[str, int]], last: int) -> None:
    labels, parent = Labels(8), dict[int, int]()
    childless: set[int] = set()  # were put, and nothing is below them
    labels_last, module._LAST = module._LAST, last
    try:
        for move, number in moves:
            new, there = len(parent), sorted(parent)
            labels.reserve(new + 3)
            at = there[number % new] if new else -1
            if move == "root" or (move == "plant" and at in childless):
                at = -1
            if move in ("root", "plant"):
                labels.plant(np.array([new, new + 1, new + 2]), np.array([3, 2, 3]), at)
                parent |= {new: at, new + 1: new, new + 2: new}
            elif move == "put" and new and at not in childless:
                labels.put(new, at)
                parent[new] = at
                childless.add(new)
            elif move == "widen" and at in childless:
                labels.widen(at, parent[at])
                childless.discard(at)
            elif move == "above" and new and at not in childless:
                labels.put_above(at, new)
                parent[new], parent[at] = parent[at], new
            elif move == "relabel":
                labels.relabel()
            check(labels, parent)
    finally:
        module._LAST = labels_last


def check(labels: Labels, parent: dict[int, int]) -> None:
    """Parents before children, subtrees side by side, and `within` is what a walk up says."""
    nodes = np.array(sorted(parent), np.int64)
    order = labels.order(nodes)
    above = {n: path_to(n, parent) for n in parent}
    first, stop = labels.within(nodes, order)
    for node, begin, end in zip(nodes.tolist(), first.tolist(), stop.tolist(), strict=True):
        assert order[begin] == node
        assert set(order[begin:end].tolist()) == {n for n in parent if node in above[n]}


def path_to(node: int, parent: dict[int, int]) -> set[int]:
    path = set[int]()
    while node >= 0:
        path.add(node)
        node = parent[node]
    return path
