"""Length curves against plain counting, and what a book makes of answers that were stopped, or few."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.cost.lengths import ENOUGH, LEAN, LengthBook, LengthCurve
from umbel.cost.survival import ENDLESS, UNKNOWN, Survival

SEEN = st.lists(st.integers(1, 30), min_size=1, max_size=40)
NONE = np.zeros(0, np.int64)


@given(SEEN, st.integers(0, 35), st.integers(1, 35))
def test_whole_answers_are_counted(seen: list[int], produced: int, more: int) -> None:
    """Without stopped answers, shares, means, variances and quantiles are those of the answers that are longer."""
    curve, limit = LengthCurve.of(np.array(seen)), produced + more
    left = [n for n in seen if n > produced]
    assert curve.answers == len(seen)
    assert curve.survival(produced) == pytest.approx(len(left) / len(seen))
    if not left:
        assert curve.mean(limit, produced) == limit, "outlived all others: nothing is known"
        return
    assert curve.mean(limit, produced) == pytest.approx(np.minimum(left, limit).mean())
    assert curve.variance(limit) == pytest.approx(np.minimum(seen, limit).var(), abs=1e-6)
    for share in (0.1, 0.5, 0.9, 1.0):
        least = min(n for n in left if sum(m <= n for m in left) >= share * len(left) - 1e-9)
        assert curve.quantile(share, limit, produced) == min(least, limit)


def test_reads_are_vectorised() -> None:
    curve = LengthCurve.of(np.array([2, 4, 4, 10]))
    produced, limits = np.array([0, 2, 4]), np.array([100, 3, 7])
    assert curve.survival(produced).tolist() == [1.0, 0.75, 0.25]
    assert curve.mean(limits, produced).tolist() == [5.0, 3.0, 7.0]
    assert curve.quantile(0.5, limits, produced).tolist() == [4, 3, 7]


def test_stopped_answers_count_as_at_least() -> None:
    """Half the answers were stopped at 10 tokens: they speak for lengths up to 10, and for none beyond."""
    whole = np.array([5, 5, 10, 20, 20, 20])
    curve = LengthCurve.of(whole, np.full(6, 10))
    assert curve.survival(5) == pytest.approx(10 / 12)
    assert curve.survival(10) == pytest.approx(10 / 12 * 9 / 10)
    assert curve.survival(20) == 0.0
    nothing = LengthCurve.none()
    assert nothing.survival(1000) == 1.0 and nothing.mean(500) == 500 and nothing.quantile(0.5, 500) == 500


@given(st.lists(st.integers(1, 30), max_size=20), SEEN, st.integers(0, 60), st.integers(1, 3000))
def test_beyond_the_longest_seen_answers_double_as_often_as_they_end(
    ended: list[int], cut: list[int], produced: int, more: int
) -> None:
    """Where some answers outlive all that were seen, half of those end within twice that length; means and variances
    are the sums of the shares, which the midpoints of small steps approximate."""
    curve = LengthCurve.of(np.array(ended, np.int64), np.array(cut))
    longest, unseen = max(ended + cut), float(curve.survival(max(ended + cut)))
    for times in (2, 3, 10):
        assert float(curve.survival(longest * times)) == pytest.approx(unseen / times)
    limit, alive = produced + more, float(curve.survival(produced))
    middles = np.arange(0.0, limit, 0.125) + 0.0625
    within = np.floor(np.minimum(middles, longest)).astype(np.int64)
    shares = np.where(middles < longest, curve.survival(within), unseen * longest / middles)
    area = float((shares * 0.125)[middles > produced].sum())
    if alive > 0:
        assert curve.mean(limit, produced) == pytest.approx(produced + area / alive, rel=1e-3)
    spread = float((2 * middles * shares).sum() * 0.125) - float(shares.sum() * 0.125) ** 2
    assert curve.variance(limit) == pytest.approx(spread, rel=0.01, abs=0.1)


def test_quantiles_beyond_the_longest_seen_go_on_to_the_limit() -> None:
    only = LengthCurve.of(NONE, np.full(6, 10))
    assert only.quantile(np.array([0.0, 0.5, 0.9, 0.99]), 500).tolist() == [10, 20, 100, 500]
    assert only.quantile(0.5, 500, 40) == 80, "having outlived the longest by far, it is as likely to double again"


def test_bounds_are_those_of_answers_that_were_not_seen_to_end() -> None:
    many = LengthCurve.of(np.full(150, 10), np.full(50, 20))
    low, high = many.bounds(np.array([15, 100]), 200)
    assert low.tolist() == [11.25, 12.5] and high.tolist() == [11.25, 32.5]
    few = LengthCurve.of(np.full(9, 10))
    low, high = few.bounds(np.array([100]), 9)
    assert low.tolist() == [9.1] and high.tolist() == [19.0], "one more counts as a token, or as endless"
    low, high = LengthCurve.none().bounds(np.array([100]), 0)
    assert low.tolist() == [1.0] and high.tolist() == [100.0]


def test_lengths_are_recovered_through_limits() -> None:
    """Lengths seen through random limits: the curve is that of the lengths, not of what was let through."""
    rng = np.random.default_rng(0)
    lengths, limits = rng.geometric(0.01, 20_000), rng.integers(20, 600, 20_000)
    curve = LengthCurve.of(lengths[lengths < limits], limits[lengths >= limits])
    for n in (10, 50, 100, 200, 400):
        assert curve.survival(n) == pytest.approx(0.99**n, abs=0.02)
    naive = np.minimum(lengths, limits)
    assert (naive > 200).mean() < 0.99**200 - 0.03, "a test that ignoring the limits would pass proves nothing"


@given(SEEN, SEEN, SEEN)
def test_joining_and_writing_down(a: list[int], b: list[int], cut: list[int]) -> None:
    first, second = LengthCurve.of(np.array(a), np.array(cut)), LengthCurve.of(np.array(b))
    both, all_at_once = first.joined(second), LengthCurve.of(np.array(a + b), np.array(cut))
    read = LengthCurve.of_json(json.loads(json.dumps(both.to_json())))
    for curve in (both, read):
        assert curve.lengths.tolist() == all_at_once.lengths.tolist()
        assert curve.counts.tolist() == all_at_once.counts.tolist()
        assert curve.stopped.tolist() == all_at_once.stopped.tolist()
    half = both.scaled(both.answers / 2)
    assert half.answers == pytest.approx(both.answers / 2)
    assert half.survival(np.arange(40)) == pytest.approx(both.survival(np.arange(40)))


@pytest.mark.parametrize(
    "bad",
    [
        {"lengths": [3, 2], "counts": [1.0, 1.0], "cut": [0.0, 0.0]},
        {"lengths": [0], "counts": [1.0], "cut": [0.0]},
        {"lengths": [1], "counts": [-1.0], "cut": [0.0]},
        {"lengths": [1], "counts": [float("nan")], "cut": [0.0]},
        {"lengths": [1], "counts": [1.0, 2.0], "cut": [0.0]},
        {"lengths": [1], "counts": [1.0], "cut": [float("inf")]},
    ],
)
def test_what_is_no_curve_is_refused(bad: dict[str, list[float]]) -> None:
    with pytest.raises(ValueError, match=r"curve|lengths"):
        LengthCurve.of_json(bad)


def test_a_group_leans_on_all_rows_until_it_has_answers_of_its_own() -> None:
    book = LengthBook()
    for _ in range(1000):
        book.add(0, 100)
    assert book.curve(1).mean(10_000) == pytest.approx(100), "nothing of its own: as all rows"
    for _ in range(8):
        book.add(1, 10)
    assert 10 < book.curve(1).mean(10_000) < 90
    for _ in range(1000):
        book.add(1, 10)
    assert book.curve(1).mean(10_000) == pytest.approx(10, rel=0.1)
    assert book.curve(1).answers == pytest.approx(1008 + LEAN)


def test_a_book_knows_earlier_runs_by_template_and_tells_only_what_is_new() -> None:
    known = {"a": LengthCurve.of(np.full(5000, 7)), "": LengthCurve.of(np.full(5000, 50))}
    book = LengthBook.of(np.array([0, 1, 2]), ("", "a", "b"), known)
    assert book.own(1).answers == ENOUGH, "an earlier run does not outvote this one without end"
    assert book.curve(1).quantile(0.5, 1000) == 7
    assert book.curve(0).mean(1000) == book.curve(2).mean(1000) == pytest.approx(50)
    assert book.bank() == {}
    book.add(2, 30, cut=True)
    book.add(0, 20)
    expected = [book.curve(group).to_json() for group in range(3)]
    new = book.bank()
    assert set(new) == {"", "b"}
    assert new["b"].stopped.tolist() == [1.0] and new[""].lengths.tolist() == [20, 30]
    assert book.bank() == {}, "what was told is told once"
    assert [book.curve(group).to_json() for group in range(3)] == expected, "but it stays known"
    book.add(2, 40)
    assert book.bank()["b"].lengths.tolist() == [40] and book.own(2).answers == 2
    book.pass_by()
    assert book.bank() == {} and book.ended == 4, "one that only its limit could end teaches nothing"


def test_answers_under_way_count_as_at_least() -> None:
    """Ten short answers have ended, ninety go on: without those the group would look short."""
    book = LengthBook()
    for _ in range(10):
        book.add(0, 20)
    groups = np.zeros(1, np.int64)
    without = Survival.of(book, groups, NONE, NONE)
    under_way = Survival.of(book, groups, np.zeros(90, np.int64), np.full(90, 25))
    assert without.share[0, 20] < 0.1
    assert under_way.share[0, 20] == pytest.approx(0.9, abs=0.01)


def test_bounds_of_what_nobody_has_seen() -> None:
    at, limits = np.zeros(4, np.int64), np.array([100, 5000, 5000, 5000])
    unknown = Survival.of(LengthBook(), at[:1], NONE, NONE)
    assert unknown.last[0] == ENDLESS and (unknown.share == 1.0).all()
    assert unknown.bound(at, np.array([0, 0, 600, 4000]), limits).tolist() == [100, UNKNOWN, 1201, 5000]
    book = LengthBook()
    for _ in range(200):
        book.add(0, 40)
    settled = Survival.of(book, at[:1], NONE, NONE)
    assert settled.last[0] == 40 and settled.share[0, 39] == 1.0 and settled.share[0, 40] == 0.0
    assert settled.bound(at, np.array([0, 39, 40, 70]), limits).tolist() == [40, 40, 81, 141]
