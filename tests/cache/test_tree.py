"""Which nodes hold KV: taken once, kept while used, evicted last-needed first, released with the last sample below."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.books import check_kv, holders
from umbel.cache.graft import graft
from umbel.cache.pages import PagePool
from umbel.cache.tree import KVTree
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload
from umbel.plan.passes.prefix import build_forest

PROMPTS = [[1, 2, 3, 4, 5], [1, 2, 3, 6], [1, 2, 7, 7, 7, 7, 7], [8, 8], [8, 8, 9]]


def forest_of(prompts: list[list[int]], n: int = 1, pages: int = 50, page_size: int = 2) -> KVTree:
    workload = Workload.of(prompts, SamplingParams())
    tree = KVTree(PagePool(pages, page_size))
    graft(tree, workload, build_forest(workload), np.full(len(prompts), n, np.int64))
    return tree


def paths_of(kv: KVTree) -> list[list[int]]:
    return [kv.path(int(leaf)) for leaf in kv.leaf]


def test_a_path_leads_from_its_root_to_the_leaf() -> None:
    kv = forest_of(PROMPTS)
    for row, path in enumerate(paths_of(kv)):
        assert kv.parent[path[0]] == -1 and path[-1] == kv.leaf[row]
        assert [int(kv.parent[n]) for n in path[1:]] == path[:-1]
        assert sum(int(kv.length[n]) for n in path) == len(PROMPTS[row])


def test_shared_nodes_are_taken_once_and_released_with_the_last_sample() -> None:
    kv = forest_of(PROMPTS, n=2)
    paths = paths_of(kv)
    assert kv.pages_missing(paths[0]) == 1 + 1 + 1  # [1 2] [3] [4 5] in pages of two tokens
    kv.pin(paths[0])
    assert kv.pool.used == 3 and kv.pages_missing(paths[1]) == 1
    kv.pin(paths[1])
    assert kv.pool.used == 4
    shared = {n: kv.table.of(n).tolist() for n in paths[0][:-1]}
    kv.unpin(paths[0], done=True)  # one of two samples: the node waits for the other
    check_kv(kv)
    assert paths[0][-1] in holders(kv)
    kv.pin(paths[0])
    kv.unpin(paths[0], done=True)
    check_kv(kv)
    assert paths[0][-1] not in holders(kv), "its last sample is done"
    assert {n: kv.table.of(n).tolist() for n in shared} == shared
    for row in (1, 2, 3, 4):
        for _ in range(2 - (row == 1)):
            kv.pin(paths[row])
            kv.unpin(paths[row], done=True)
    kv.unpin(paths[1], done=True)
    check_kv(kv)
    assert kv.pool.used == 0 and not holders(kv) and not len(kv.nodes_in_use())


@pytest.mark.parametrize(("kept", "pages"), [(7, 4), (6, 3), (5, 3), (2, 1), (1, 1), (0, 0)])
def test_a_tip_that_is_cut_gives_back_the_pages_behind_its_last_token(kept: int, pages: int) -> None:
    kv = forest_of([[1, 2]])
    tip = kv.grow(int(kv.leaf[0]), 0)
    kv.enter(tip, kv.path(int(kv.leaf[0])))
    at, tokens = np.array([tip]), np.array([7])
    kv.extend(at, 7)
    kv.take(at, kv.missing(at, tokens))
    kv.compute(at, tokens)
    before, held = kv.pool.used, kv.table.of(tip).tolist()
    assert len(held) == 4
    kv.cut(np.array([tip]), np.array([kept]))
    check_kv(kv)
    assert kv.pool.used == before - (4 - pages)
    assert kv.table.of(tip).tolist() == held[:pages]
    kv.extend(at, 7 - kept)
    kv.take(at, kv.missing(at, np.array([7 - kept])))
    assert len(kv.table.of(tip)) == 4 and kv.pool.used == before


def test_what_is_needed_last_is_evicted_first_and_what_is_used_never() -> None:
    kv = forest_of(PROMPTS, pages=20)
    paths = paths_of(kv)
    for path in paths:
        kv.pin(path)
    for row in (0, 1, 2, 4):  # row 3 goes on
        kv.unpin(paths[row], done=False)
    assert kv.pool.free == 20 - kv.pool.used
    held, used = sorted(holders(kv)), set(paths[3])
    for free in range(kv.pool.free + 1, 21):
        before = holders(kv)
        enough = kv.make_room(free)
        gone = before - holders(kv)
        idle = sorted(before - used)
        assert gone == set(idle[len(idle) - len(gone) :]), "evicted from the end of the plan"
        assert not gone & used
        assert enough == (kv.pool.free >= free)
        assert all(kv.held[n] == 0 for n in gone)
        check_kv(kv)
    assert holders(kv) == used and len(held) > len(used)


def test_an_evicted_node_can_be_taken_again() -> None:
    kv = forest_of([[1, 2, 3, 4], [5, 6, 7, 8]], pages=2)
    paths = paths_of(kv)
    kv.pin(paths[0])
    kv.held[paths[0][0]] = 4
    kv.unpin(paths[0], done=False)
    assert kv.reclaimable(paths[1]) == 2 and kv.reclaimable(paths[0]) == 0  # its own pages are not for itself
    kv.pin(paths[1])
    assert kv.held[paths[0][0]] == 0 and kv.pages_missing(paths[0]) == 2
    kv.unpin(paths[1], done=True)
    kv.pin(paths[0])
    kv.unpin(paths[0], done=True)
    check_kv(kv)
    assert kv.pool.free == 2


def test_skipped_samples_release_what_only_they_needed() -> None:
    kv = forest_of(PROMPTS)
    paths = paths_of(kv)
    kv.pin(paths[0])
    kv.unpin(paths[0], done=False)
    for path in (paths[0], paths[1], paths[2]):
        kv.skip(path)
        check_kv(kv)
    assert not holders(kv) and kv.pool.used == 0


@given(
    st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=8), min_size=1, max_size=7),
    st.lists(st.tuples(st.sampled_from(("pin", "unpin", "done", "skip", "room")), st.integers(0, 50)), max_size=60),
    st.integers(1, 3),
    st.integers(4, 30),
)
def test_any_life_of_a_forest(prompts: list[list[int]], moves: list[tuple[str, int]], n: int, n_pages: int) -> None:
    kv = forest_of(prompts, n, n_pages)
    paths, pinned, left = paths_of(kv), [], [n] * len(prompts)
    for move, number in moves:
        row = number % len(prompts)
        path = paths[row]
        if move == "pin" and pinned.count(row) < left[row] and kv.pages_missing(path) <= kv.reclaimable(path):
            kv.pin(path)
            assert all(node in holders(kv) for node in path)
            pinned.append(row)
        elif move in ("unpin", "done") and pinned:
            row = pinned.pop(number % len(pinned))
            kv.unpin(paths[row], done=move == "done")
            left[row] -= move == "done"
        elif move == "skip" and pinned.count(row) < left[row]:
            kv.skip(path)
            left[row] -= 1
        elif move == "room":
            kv.make_room(number)
        check_kv(kv)
        for node in range(kv.n_nodes):
            below = [r for r in range(len(prompts)) if node in paths[r]]
            assert kv.waiting[node] == sum(left[r] for r in below)
            assert kv.users[node] == sum(pinned.count(r) for r in below)
            assert node not in holders(kv) or kv.waiting[node] > 0, "nobody below is left, so its pages must be free"
    for row in pinned:
        kv.unpin(paths[row], done=True)
        left[row] -= 1
    for row, count in enumerate(left):
        for _ in range(count):
            kv.skip(paths[row])
    check_kv(kv)
    assert kv.pool.free == n_pages


def test_check_notices_a_page_that_leaked() -> None:
    kv = forest_of(PROMPTS)
    kv.pin(paths_of(kv)[0])
    kv.users[paths_of(kv)[0][0]] = 0
    with pytest.raises(AssertionError):
        check_kv(kv)
