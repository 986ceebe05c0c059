"""What the walk expects of the future, against pages counted token by token; and how steps become a curve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.workloads import of, run
from umbel.cost.roofline import Load
from umbel.ir.forest import Forest
from umbel.plan.passes.prefix import build_forest
from umbel.plan.walk import clock
from umbel.plan.walk.clock import Limits, walk
from umbel.plan.walk.ledger import STRETCHES, Ledger
from umbel.plan.walk.peak import PeakForecast
from umbel.plan.walk.samples import WalkSamples

PAGE = 4


def rows_of(prompts: list[list[int]], order: list[int], lengths: list[int]) -> tuple[WalkSamples, Forest]:
    forest = build_forest(of(prompts))
    ones = np.ones(len(prompts), np.int64)
    return WalkSamples.of(forest, np.array(order, np.int64), ones, np.array(lengths, np.int64), PAGE), forest


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 50), st.integers(1, 20)), min_size=1, max_size=8), st.data()
)
def test_the_peak_is_that_of_counting_every_token(samples: list[tuple[int, int, int]], data: st.DataObject) -> None:
    """Rows that share nothing, each begun at its own moment; the last one is the candidate."""
    *running, (_, length, size) = samples
    prompts = [[i] * n for i, (_, _, n) in enumerate(samples)]
    rows, forest = rows_of(prompts, list(range(len(samples))), [n for _, n, _ in samples])
    forecast = PeakForecast(forest, rows, PAGE)
    now = data.draw(st.integers(max((begun for begun, *_ in running), default=0), 31))
    alive = [(i, *v) for i, v in enumerate(running) if v[0] + v[1] - 1 >= now]
    for i, begun, n, _ in alive:
        forecast.start(i, i + 1, begun, begun + n - 1)

    def pages(tokens: int) -> int:
        return -(-tokens // PAGE)

    def at(t: int) -> int:
        used = sum(pages(t - begun) + pages(n) for _, begun, length, n in alive if begun + length - 1 >= t)
        return used + pages(size) + (pages(t - now) if now + length - 1 >= t else 0)

    ends = [now + length - 1, *(begun + n - 1 for _, begun, n, _ in alive)]
    held = sum(pages(n) for *_, n in alive)
    assert forecast.peak(now, held, 1, length, pages(size)) == max(at(t) for t in range(now, max(ends) + 1))


def test_a_shared_run_goes_with_its_last_reader_and_not_while_one_waits() -> None:
    rows, forest = rows_of([[1, 1, 1, 1, 2], [1, 1, 1, 1, 3], [9] * 4], [0, 1, 2], [5, 9, 20])
    forecast = PeakForecast(forest, rows, PAGE)
    forecast.start(0, 1, 0.0, 4.0)
    assert forecast.peak(0, 2, 0, 1, 0) == 2 + 1  # the run, the row's own token, a page of tail
    assert forecast.peak(4, 2, 1, 20, 1) == 1 + 1 + 5  # later: the run, for a row that waits, and the long candidate
    forecast.start(1, 2, 0.0, 8.0)
    assert forecast.peak(4, 3, 1, 20, 1) == max(3 + 1 + 1 + 1, 2 + 1 + 2 + 1, 1 + 5)  # at 4, at 8, and at its end


def test_rows_may_come_in_any_order_and_some_not_at_all() -> None:
    prompts = [[1, 2, 3], [1, 2, 4], [5, 6], [1, 2, 3, 7], [8]]
    rows, forest = rows_of(prompts, [3, 2, 0], [1] * 5)  # rows 1 and 4 do not run
    assert rows.tokens.tolist() == [4, 2, 0]  # row 3 is the first to need 1 2 3 7; row 0 needs nothing more
    assert rows.tokens.sum() == forest.n_tokens - 1 - 1
    assert rows.leaf.tolist() == forest.leaf[[3, 2, 0]].tolist()


def test_what_comes_late_in_a_step_costs_no_step_of_its_own() -> None:
    ledger = Ledger()
    ledger.add(0.25, 1.0, 100.0, 0, 0, 0)
    ledger.add(3.5, 8.0, 70.0, 0, 0, 0)  # 20 tokens a step
    load = ledger.load()
    assert load.steps.tolist() == pytest.approx([1.0, 2.0, 0.75])
    assert load.tokens.tolist() == pytest.approx([100 + 15, 20, 20])
    curve = ledger.curve(np.ones(3), 16, 1_000)
    assert curve.steps.tolist() == pytest.approx([0.9375, 1.875, 2.8125, 3.75])
    assert curve.seconds[-1] == pytest.approx(3.75)


def test_a_curve_is_bounded_and_keeps_its_highest_point() -> None:
    ledger, peak = Ledger(), 0.0
    for i in range(5_000):
        pages = 10.0 + (i * 37) % 101 + (500.0 if i == 1234 else 0.0)
        ledger.see(pages)
        ledger.add(1.0, pages, 5.0, 1.0, 0, 0)
        peak = max(peak, pages)
    load: Load = ledger.load()
    curve = ledger.curve(np.full(len(load.steps), 0.5), 16, 10**9)
    assert len(curve.steps) == STRETCHES
    assert curve.kv_tokens.max() == peak * 16
    assert (curve.steps[-1], curve.seconds[-1]) == (pytest.approx(5_000), pytest.approx(2_500))


@pytest.mark.parametrize("kv_tokens", [6_000, 10**6])
@pytest.mark.parametrize("chunk", [128, 512])
def test_a_rough_walk_comes_near_the_exact_one(chunk: int, kv_tokens: int) -> None:
    prompts = [[i % 9, *run(i % 9, 30), i % 70, *run(i % 70, 20), i, *run(i, i % 37)] for i in range(6_000)]
    forest = build_forest(of(prompts))
    lengths = np.arange(6_000) * 7919 % 60 + 1
    rows = WalkSamples.of(forest, forest.order, np.ones(6_000, np.int64), lengths, 16)
    exact, rough = (walk(forest, rows, Limits(chunk, kv_tokens, 16, detail=n)) for n in (None, 2_500))
    assert len(rows.together(chunk, kv_tokens / 16, 2_500).tokens) < 3_500
    assert rough.steps == pytest.approx(exact.steps, rel=0.08)
    assert rough.kv_peak_tokens == pytest.approx(exact.kv_peak_tokens, rel=0.08)
    fed = float((exact.load.tokens * exact.load.steps).sum())
    assert float((rough.load.tokens * rough.load.steps).sum()) == pytest.approx(fed, rel=0.01)


@pytest.mark.parametrize("kv_tokens", [6_000, 12_500])
def test_a_walk_of_long_answers_asks_hardly_more_often_than_one_of_short_ones(
    kv_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine rows of which the pool holds few; answers, and it, 64 times as long. Lengths differ, so that it matters when
    a row starts."""
    asked: list[Any] = []
    peak = PeakForecast.peak

    def counted(*args: Any) -> float:
        asked.append(args)
        return peak(*args)

    monkeypatch.setattr(PeakForecast, "peak", counted)
    prompts = [[i] * 100 for i in range(9)]
    counts = []
    for scale in (1, 64):
        rows, forest = rows_of(prompts, list(range(9)), [scale * (1_000 + 400 * i) for i in range(9)])
        asked.clear()
        walk(forest, rows, Limits(512, scale * kv_tokens, PAGE))
        counts.append(len(asked))
    assert 0 < counts[1] < 2 * counts[0]


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 60)), min_size=2, max_size=12), st.integers(24, 120))
def test_a_row_that_waits_starts_in_the_first_page_in_which_it_fits(rows: list[tuple[int, int]], pages: int) -> None:
    """As if each page's worth of tokens were tried in turn."""
    walked, forest = rows_of([[i] * n for i, (n, _) in enumerate(rows)], list(range(len(rows))), [n for _, n in rows])
    limits = Limits(64, pages * PAGE, PAGE)
    by_halves = walk(forest, walked, limits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "bisect_left", in_turn)
        one_by_one = walk(forest, walked, limits)
    assert by_halves.steps == one_by_one.steps
    assert by_halves.kv_peak_tokens == one_by_one.kv_peak_tokens


def in_turn(tries: range, wanted: bool, key: Callable[[int], bool]) -> int:
    return next((at for at, pages in enumerate(tries) if key(pages) == wanted), len(tries))
