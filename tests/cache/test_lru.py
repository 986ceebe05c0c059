"""A forest that retains its nodes against a cache of plain lists: least recently used goes first, deeper ends first."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.books import check_kv, holders
from umbel.cache.graft import graft
from umbel.cache.keep import Keep, LeastRecent
from umbel.cache.pages import PagePool
from umbel.cache.tree import KVTree
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


def tree_of(prompts: list[list[int]], samples: int, pool: PagePool, keep: Keep) -> KVTree:
    workload, tree = Workload.of(prompts, SamplingParams()), KVTree(pool, keep)
    graft(tree, workload, build_forest(workload), np.full(len(prompts), samples))
    return tree


MOVES = st.lists(
    st.tuples(st.sampled_from(("read", "read", "let go", "let go", "room")), st.integers(0, 60)), max_size=80
)
PROMPTS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=8)


@settings(max_examples=300)
@given(PROMPTS, MOVES, st.integers(1, 3), st.integers(6, 30), st.booleans())
def test_a_retaining_forest_is_an_lru_cache(
    prompts: list[list[int]], moves: list[tuple[str, int]], page_size: int, n_pages: int, done: bool
) -> None:
    kv = tree_of(prompts, len(moves) + 1, PagePool(n_pages, page_size), LeastRecent(retains=True))
    naive = NaiveCache({n: kv.pool.pages_for(int(kv.length[n])) for n in range(kv.n_nodes)}, n_pages)
    reading: list[list[int]] = []
    for move, number in moves:
        path = kv.path(int(kv.leaf[number % len(prompts)]))
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
        assert holders(kv) == set(naive.cached)
        assert kv.pool.free == naive.free


def test_nodes_stay_when_nobody_waits_for_them_any_more() -> None:
    kv = tree_of([[1, 2, 3], [1, 2, 4]], 1, PagePool(10, 1), LeastRecent(retains=True))
    paths = [kv.path(int(leaf)) for leaf in kv.leaf]
    for path in paths:
        kv.pin(path)
        kv.unpin(path, done=True)
    assert holders(kv) == {*paths[0], *paths[1]} and not any(kv.waiting)
    kv.make_room(7)
    assert holders(kv) == set(paths[1]), "the first row's own end was used least recently"
    kv.make_room(10)
    assert not holders(kv)
    check_kv(kv)


def test_without_the_walk_the_one_used_last_stays() -> None:
    """Nodes that are still needed, in an order that is not the forest's: numbers say nothing, so use decides."""
    kv = tree_of([[1], [2], [3]], 2, PagePool(3, 1), LeastRecent(retains=False))
    for row in (2, 0, 1):
        kv.pin([row])
        kv.unpin([row], done=False)
    kv.make_room(1)
    assert holders(kv) == {0, 1}
    kv.make_room(2)
    assert holders(kv) == {1}


def test_what_rows_wait_for_goes_last() -> None:
    """A run that others are to read stays, though what no row waits for was read after it."""
    kv = tree_of([[1], [2], [3]], 2, PagePool(3, 1), LeastRecent(retains=True))
    kv.idle.follow(kv.idle.keep, spare=kv.waiting)
    first, second, third = (kv.path(int(leaf)) for leaf in kv.leaf)
    for path, rounds in ((first, 1), (second, 2), (third, 1)):
        for _ in range(rounds):
            kv.pin(path)
            kv.unpin(path, done=True)
    assert [kv.waiting[path[0]] for path in (first, second, third)] == [1, 0, 1]
    assert kv.make_room(1) and [int(kv.n_pages[path[0]]) for path in (first, second, third)] == [1, 0, 1]
    kv.skip(third)
    assert kv.make_room(2) and [int(kv.n_pages[path[0]]) for path in (first, second, third)] == [1, 0, 0]
    assert kv.make_room(3) and not kv.n_pages[first[0]], "it goes when there is nothing else"
