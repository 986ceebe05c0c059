"""The deal alone: whichever replicas die at whatever moments, each row is answered or given up once, and it ends."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.cluster.deal import LEAST_DEATHS, MOST_DEATHS, Deal
from umbel.errors import UmbelError
from umbel.plan.deal.placement import Share


def shares(sizes: list[int], piece: int = 1) -> list[Share]:
    """Shares of rows that take a second each, in pieces of so many rows."""
    found, begin = [], 0
    for size in sizes:
        stops = np.array([*range(piece, size, piece), size] if size else [], np.int64)
        found.append(Share(np.arange(begin, begin + size), stops, np.diff(stops, prepend=0).astype(float)))
        begin += size
    return found


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=5),
    st.integers(1, 7),
    st.sets(st.integers(0, 120), max_size=4),
    st.data(),
)
def test_each_row_once(sizes: list[int], piece: int, poison: set[int], data: st.DataObject) -> None:
    """Replicas have up to two lots at a time and die over the poisoned rows, and a few times for nothing."""
    deal = Deal(shares(sizes, piece), least=data.draw(st.integers(0, 20)))
    total, chance = sum(sizes), data.draw(st.integers(0, 5))
    seen: list[int] = []
    lost: list[int] = []
    held: dict[int, list[tuple[int, list[int]]]] = {0: [], 1: [], 2: []}
    deaths = 0
    for turn in range(20_000):
        if deal.over:
            break
        replica = turn % 3
        if len(held[replica]) < 2 and (found := deal.give(replica)) is not None:
            held[replica].append((found[0], found[1].tolist()))
        if not held[replica]:
            continue
        lot, rows = held[replica][0]
        dies = chance > 0 and data.draw(st.booleans())
        chance -= dies
        until = data.draw(st.integers(0, len(rows))) if dies else len(rows)
        for place, row in enumerate(rows[:until]):
            if row in poison:
                dies = True
                break
            assert deal.has(replica, lot)
            if (found_row := deal.answered(lot, place)) is not None:  # no other answered it before
                assert found_row == row
                seen.append(row)
        if dies:
            deaths += 1
            held[replica] = []
            lost += deal.died(replica, "ended with signal 9")
        else:
            deal.done(lot)
            held[replica].pop(0)
    assert deal.over and sorted(seen + lost) == list(range(total))
    assert set(lost) >= poison & set(range(total)) and len(lost) <= len(poison) + 5
    assert deaths <= 5 + 14 * len(poison)


def test_a_row_is_not_given_up_for_one_death() -> None:
    deal = Deal(shares([1]))
    for count in range(1, LEAST_DEATHS + 1):
        assert deal.give(0) is not None
        assert deal.died(0, "ended with signal 9") == ([0] if count == LEAST_DEATHS else [])
    assert deal.over


def test_what_a_dead_replica_leaves_goes_to_those_that_have_nothing_else() -> None:
    deal = Deal(shares([10, 10]), least=10)
    first, second = deal.give(0), deal.give(1)
    assert first is not None and second is not None and deal.give(2) is None
    for place in range(4):
        deal.answered(first[0], place)
    assert deal.died(0, "ended with signal 9") == [] and not deal.has(0, first[0])
    assert deal.give(1) is None  # it has rows
    taken = [deal.give(replica) for replica in (0, 2, 3, 4)]
    assert [row for found in taken if found is not None for row in found[1].tolist()] == list(range(4, 10))
    assert deal.give(0) is None


def test_lots_are_of_the_own_share_then_of_the_end_of_the_largest() -> None:
    deal = Deal(shares([8, 40, 16], piece=4), least=8)
    assert [deal.give(0)[1].tolist() for _ in range(2)] == [[*range(8)], [*range(40, 48)]]  # type: ignore[index]
    assert deal.stolen == 1 and deal.give(1)[1].tolist() == [*range(8, 16)]  # type: ignore[index]


@pytest.mark.parametrize("slow", [1.0, 3.0])
def test_a_slow_replica_loses_work_to_the_others(slow: float) -> None:
    """One of four takes `slow` times as long: all end within a tenth of what their speeds together allow."""
    deal = Deal(shares([4000] * 4, piece=60), least=100)
    seconds = [1.0, 1.0, 1.0, slow]
    bound = 16_000 / sum(1 / each for each in seconds)
    times = [(0.0, replica) for replica in range(4)]
    end = 0.0
    while times:
        now, replica = heapq.heappop(times)
        if (found := deal.give(replica)) is not None:
            for place in range(len(found[1])):
                deal.answered(found[0], place)
            deal.done(found[0])
            heapq.heappush(times, (now + len(found[1]) * seconds[replica], replica))
        end = max(end, now)
    assert deal.over and bound <= end + 1e-6 and end <= 1.1 * bound


def test_lots_of_a_slow_replica_are_smaller_and_those_of_a_new_one_are_not() -> None:
    deal = Deal(shares([400, 400, 400]), least=40)
    lots = [deal.give(replica) for replica in (0, 1)]
    assert lots[0] is not None and lots[1] is not None
    for place in range(60):
        deal.answered(lots[0][0], place)
        if place % 3 == 2:
            deal.answered(lots[1][0], place // 3)
    fast, slow, new = (len(lot[1]) for replica in (0, 1, 2) if (lot := deal.give(replica)) is not None)
    assert 0.3 * fast <= slow <= 0.4 * fast and new >= 0.8 * fast


def behind(least: float = 20) -> tuple[Deal, int, list[int]]:
    """Replica 1 is at a third of the speed of 0: the deal when only rows of 1 are left, its lot and those rows."""
    deal = Deal(shares([60, 30]), least=least)
    slow = deal.give(1)
    assert slow is not None
    for place in range(5):
        deal.answered(slow[0], place)
    while (found := deal.give(0, double=False)) is not None:
        for place in range(len(found[1])):
            deal.answered(found[0], place)
        deal.done(found[0])
    return deal, slow[0], slow[1].tolist()[5:]


def test_the_last_rows_of_a_slow_replica_are_run_by_a_free_one_too() -> None:
    """So many that both end at once; the first answer to a row is heard, and the other one drops it."""
    deal, lot, left = behind()
    found = deal.give(0)
    assert found is not None and found[1].tolist() == left[-len(found[1]) :]
    assert 0.6 * len(left) < len(found[1]) < len(left) and deal.doubled == len(found[1])
    at = len(left) - len(found[1])
    assert deal.answered(found[0], 0) == left[at] and deal.unwanted == [(1, (lot, 5 + at))]
    deal.unwanted.clear()
    assert deal.answered(lot, 5 + at) is None and not deal.unwanted  # it was on its way
    assert deal.answered(lot, 6 + at) == left[at + 1] and deal.unwanted == [(0, (found[0], 1))]
    assert not deal.over
    for place in range(2, len(found[1])):
        deal.answered(found[0], place)
    deal.done(found[0])
    again = deal.give(0)
    assert again is not None and set(again[1].tolist()) <= set(left[:at])
    for place in range(5, 5 + at):
        assert deal.answered(lot, place) == left[place - 5]
    assert deal.over  # the lots that both have left are waited for by none


def test_one_that_still_runs_rows_takes_none_of_others() -> None:
    """Nor are paces known when each has answered a row or two."""
    deal = Deal(shares([20, 20]), least=20)
    lots = [deal.give(replica) for replica in (0, 1)]
    assert lots[0] is not None and lots[1] is not None
    for place in range(8):
        deal.answered(lots[0][0], place)
    deal.answered(lots[1][0], 0)
    assert deal.give(0) is None and deal.doubled == 0


def test_rows_of_one_as_fast_are_not_run_twice() -> None:
    deal = Deal(shares([20, 20]), least=20)
    lots = [deal.give(replica) for replica in (0, 1)]
    for place in range(19):
        for lot in lots:
            assert lot is not None and deal.answered(lot[0], place) is not None
    assert lots[0] is not None and deal.answered(lots[0][0], 19) is not None
    deal.done(lots[0][0])
    assert deal.give(0) is None and deal.doubled == 0


@pytest.mark.parametrize("first", [0, 1])
def test_a_row_that_two_have_is_dealt_again_when_both_are_lost(first: int) -> None:
    deal, _, left = behind()
    twice = deal.give(0)
    assert twice is not None
    assert deal.died(first, "ended with signal 9") == []
    assert deal.dealt_again == (len(left) - len(twice[1]) if first else 0)  # what the other has, it keeps
    assert deal.died(1 - first, "ended with signal 9") == [] and deal.dealt_again == len(left)
    rows: list[int] = []
    for replica in range(2, 99):
        if (found := deal.give(replica)) is not None:
            rows += found[1].tolist()
    assert sorted(rows) == left


def test_deaths_without_end_are_an_error_that_says_what_to_do() -> None:
    """Also of replicas that had no rows: those that cannot even load."""
    deal = Deal(shares([100]))
    for _ in range(MOST_DEATHS - 1):
        assert deal.died(1, "ended with exit code 1") == []
    with pytest.raises(UmbelError, match=r"exit code 1; what is finished is kept.*run the same command again"):
        deal.died(1, "ended with exit code 1")
