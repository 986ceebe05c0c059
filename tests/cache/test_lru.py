"""A forest that retains its nodes against a cache of plain lists: least recently used goes first, deeper ends first."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.books import check_kv
from umbel.cache.kv_forest import KVForest
from umbel.cache.pages import PagePool
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload
from umbel.plan.passes.prefix import build_forest


class NaiveCache:
    """What is cached, oldest use first; a path counts as used when it is let go, from its deep end to its root."""

    def __init__(self, sizes: dict[int, int], pages: int):
        self.sizes, self.free = sizes, pages
        self.readers = dict.fromkeys(sizes, 0)
        self.cached: list[int] = []

    def make_room(self, count: int) -> None:
        for node in [n for n in self.cached if self.readers[n] == 0]:
            if self.free >= count:
                return
            self.cached.remove(node)
            self.free += self.sizes[node]

    def read(self, path: list[int]) -> None:
        for node in path:
            self.readers[node] += 1
        for node in path:
            if node not in self.cached:
                self.make_room(self.sizes[node])
                self.cached.append(node)
                self.free -= self.sizes[node]

    def let_go(self, path: list[int]) -> None:
        for node in reversed(path):
            self.readers[node] -= 1
            self.cached.remove(node)
            self.cached.append(node)


MOVES = st.lists(
    st.tuples(st.sampled_from(("read", "read", "let go", "let go", "room")), st.integers(0, 60)), max_size=80
)
PROMPTS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=8)


@settings(max_examples=300)
@given(PROMPTS, MOVES, st.integers(1, 3), st.integers(6, 30), st.booleans())
def test_a_retaining_forest_is_an_lru_cache(
    prompts: list[list[int]], moves: list[tuple[str, int]], page_size: int, n_pages: int, done: bool
) -> None:
    forest = build_forest(Workload.of(prompts, SamplingParams()))
    many = np.full(len(prompts), len(moves) + 1, np.int64)
    kv = KVForest(forest, many, PagePool(n_pages, page_size), retain=True)
    naive = NaiveCache({n: kv.pool.pages_for(kv.length[n]) for n in range(forest.n_nodes)}, n_pages)
    reading: list[list[int]] = []
    for move, number in moves:
        path = kv.path(int(forest.leaf[number % len(prompts)]))
        if move == "read" and kv.pages_missing(path) <= kv.reclaimable(path):
            kv.pin(path)
            naive.read(path)
            reading.append(path)
        elif move == "let go" and reading:
            path = reading.pop(number % len(reading))
            kv.unpin(path, done=done)
            naive.let_go(path)
        elif move == "room":
            kv.make_room(number % (n_pages + 1))
            naive.make_room(number % (n_pages + 1))
        check_kv(kv)
        assert set(kv.pages) == set(naive.cached)
        assert kv.pool.free == naive.free


def test_nodes_stay_when_nobody_waits_for_them_any_more() -> None:
    forest = build_forest(Workload.of([[1, 2, 3], [1, 2, 4]], SamplingParams()))
    kv = KVForest(forest, np.ones(2, np.int64), PagePool(10, 1), retain=True)
    paths = [kv.path(int(leaf)) for leaf in forest.leaf]
    for path in paths:
        kv.pin(path)
        kv.unpin(path, done=True)
    assert set(kv.pages) == {*paths[0], *paths[1]} and not any(kv.waiting)
    kv.make_room(7)
    assert set(kv.pages) == set(paths[1]), "the first row's own end was used least recently"
    kv.make_room(10)
    assert not kv.pages
    check_kv(kv)


def test_without_the_walk_the_one_used_last_stays() -> None:
    """Nodes that are still needed, in an order that is not the forest's: numbers say nothing, so use decides."""
    forest = build_forest(Workload.of([[1], [2], [3]], SamplingParams()))
    kv = KVForest(forest, np.full(3, 2), PagePool(3, 1), recent=True)
    for row in (2, 0, 1):
        kv.pin([row])
        kv.unpin([row], done=False)
    kv.make_room(1)
    assert set(kv.pages) == {0, 1}
    kv.make_room(2)
    assert set(kv.pages) == {1}
