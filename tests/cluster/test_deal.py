"""The deal alone: whichever replicas die at whatever moments, each row is answered or given up once, and it ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.cluster.deal import LEAST_DEATHS, MOST_DEATHS, Deal
from umbel.errors import UmbelError


@given(st.lists(st.integers(0, 60), min_size=1, max_size=5), st.sets(st.integers(0, 120), max_size=4), st.data())
def test_each_row_once(sizes: list[int], poison: set[int], data: st.DataObject) -> None:
    """Replicas die over the poisoned rows, and a few times for nothing; only what is poisoned can be given up twice."""
    ends = np.cumsum(sizes)
    deal = Deal(np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True))
    total, chance = int(ends[-1]), data.draw(st.integers(0, 5))
    seen: list[int] = []
    lost: list[int] = []
    deaths, kills = 0, dict.fromkeys(range(total), 0)
    for turn in range(10_000):
        if deal.over:
            break
        replica = turn % 3
        rows = deal.give(replica)
        if rows is None:
            continue
        by_chance = chance > 0 and data.draw(st.booleans())
        chance -= by_chance
        until = data.draw(st.integers(0, len(rows))) if by_chance else len(rows)
        dies = by_chance
        for place, row in enumerate(rows[:until].tolist()):
            if row in poison:
                kills[row] += 1
                dies = True
                break
            assert deal.answered(replica, place) == row
            seen.append(row)
        if dies:
            deaths += 1
            lost += deal.died(replica, "ended with signal 9")
        else:
            deal.done(replica)
    assert deal.over and sorted(seen + lost) == list(range(total))
    assert set(lost) >= poison & set(range(total)) and len(lost) <= len(poison) + 5
    assert deaths <= 5 + 12 * len(poison)


def test_a_row_is_not_given_up_for_one_death() -> None:
    deal = Deal([np.array([4])])
    for count in range(1, LEAST_DEATHS + 1):
        assert deal.give(0) is not None
        assert deal.died(0, "ended with signal 9") == ([4] if count == LEAST_DEATHS else [])
    assert deal.over


def test_what_a_dead_replica_leaves_goes_to_the_others() -> None:
    deal = Deal([np.arange(10), np.arange(10, 20)])
    first, second = deal.give(0), deal.give(1)
    assert first is not None and second is not None and deal.give(2) is None
    for place in range(4):
        deal.answered(0, place)
    assert deal.died(0, "ended with signal 9") == []
    taken = [deal.give(replica) for replica in (0, 2, 3, 4)]
    assert [row for rows in taken if rows is not None for row in rows.tolist()] == list(range(4, 10))
    assert deal.give(1) is None  # it has rows


def test_deaths_without_end_are_an_error_that_says_what_to_do() -> None:
    """Also of replicas that had no rows: those that cannot even load."""
    deal = Deal([np.arange(100)])
    for _ in range(MOST_DEATHS - 1):
        assert deal.died(1, "ended with exit code 1") == []
    with pytest.raises(UmbelError, match=r"exit code 1; what is finished is kept.*run the same command again"):
        deal.died(1, "ended with exit code 1")
