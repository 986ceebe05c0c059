"""The page pool against a set of free numbers: no page twice, side by side where there is room, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.books import check_pool
from umbel.cache.pages import PagePool

MOVES = st.lists(st.tuples(st.sampled_from(("run", "singles", "give")), st.integers(0, 12)), max_size=60)


def widest_gap(free: set[int]) -> int:
    best = length = 0
    for page in range(max(free, default=-1) + 2):
        length = length + 1 if page in free else 0
        best = max(best, length)
    return best


@given(st.integers(1, 40), MOVES)
def test_any_life_of_a_pool(n_pages: int, moves: list[tuple[str, int]]) -> None:
    pool, free, taken = PagePool(n_pages, 16), set(range(n_pages)), []
    for move, count in moves:
        if move == "give":
            if taken:
                pages = taken.pop(count % len(taken))
                pool.give(pages)
                free |= set(pages.tolist())
        elif count > len(free):
            with pytest.raises(ValueError, match=f"{count} pages asked, {len(free)} free"):
                pool.take_run(count) if move == "run" else pool.take_singles(count)
        elif count or move == "singles":
            gap = widest_gap(free)
            pages = pool.take_run(count) if move == "run" else pool.take_singles(count)
            got = pages.tolist()
            assert len(got) == len(set(got)) == count and set(got) <= free
            if move == "run" and gap >= count:
                assert got == list(range(got[0], got[0] + count)), "a gap was wide enough"
            free -= set(got)
            taken.append(pages)
        check_pool(pool)
        assert pool.free == len(free) and pool.used == n_pages - len(free)


@given(st.integers(0, 1000), st.integers(1, 64))
def test_pages_for(n_tokens: int, page_size: int) -> None:
    pages = PagePool(1, page_size).pages_for(n_tokens)
    assert (pages - 1) * page_size < n_tokens <= pages * page_size or n_tokens == pages == 0


def test_a_page_is_given_back_once() -> None:
    pool = PagePool(8, 4)
    pages = pool.take_run(3)
    with pytest.raises(ValueError, match="given back twice"):
        pool.give(np.concatenate([pages, pages[:1]]))
    pool.give(pages[:2])
    with pytest.raises(ValueError, match="given back twice"):
        pool.give(pages)
    assert pool.free == 7, "a refused call must change nothing"
    pool.give(pages[2:])
    check_pool(pool)


def test_check_notices_a_count_that_is_off() -> None:
    pool = PagePool(4, 4)
    pool.free -= 1
    with pytest.raises(AssertionError):
        check_pool(pool)


def test_tails_leave_the_bottom_to_runs() -> None:
    """Growing tails take from the top, so that after many of them a long run still finds its gap."""
    pool = PagePool(100, 16)
    for _ in range(20):
        pool.take_singles(2)
    assert pool.take_run(60).tolist() == list(range(60))


def test_runs_come_from_pages_that_were_in_use() -> None:
    """As much memory is touched as is in use at a time, not as much as there is."""
    pool, held, highest = PagePool(10_000, 16), [], 0
    for size in [5, 3, 8, 1] * 100:
        held.append(pool.take_run(size))
        highest = max(highest, int(held[-1].max()))
        if len(held) > 6:
            pool.give(held.pop(0))
        check_pool(pool)
    assert highest < 60, highest
