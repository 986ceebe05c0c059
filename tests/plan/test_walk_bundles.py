"""A walk that follows bundles against one that follows every node: the same steps, pages and load."""

from __future__ import annotations

import numpy as np
import pytest

from tests.plan.test_grouping import random_prompts, workload_of
from umbel.plan.passes.prefix import build_forest
from umbel.plan.walk import clock as timeline
from umbel.plan.walk.bundles import bundle
from umbel.plan.walk.clock import Limits, walk
from umbel.plan.walk.samples import WalkSamples


def many(seed: int) -> list[list[int]]:
    return [[seed * 7 + i % 5, *p, i] for i in range(40) for p in random_prompts(seed * 40 + i)]


@pytest.mark.parametrize("admission", ["past-future", "headroom", "aggressive"])
@pytest.mark.parametrize("seed", range(4))
def test_bundles_change_nothing(seed: int, admission: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umbel.plan.walk.samples.EXACT_SAMPLES", 20)
    monkeypatch.setattr("umbel.plan.walk.peak.EXACT_SAMPLES", 0)
    rng = np.random.default_rng(seed)
    prompts = many(seed)
    forest = build_forest(workload_of(prompts))
    n = len(prompts)
    rows = WalkSamples.of(forest, forest.order, rng.integers(1, 3, n), rng.integers(1, 40, n), 4)
    limits = Limits(64, 2400, 4, admission)
    short = rows.together(limits.chunk, 600)
    assert len(short.tokens) < len(rows.tokens) / 2
    followed, held = bundle(forest, short, 4)
    assert len(held.leaf) < len(rows.leaf)
    pages = -(-(followed.end - followed.start) // 4)
    assert pages.sum() == (-(-(forest.end - forest.start) // 4)).sum()
    found = walk(forest, rows, limits)
    with monkeypatch.context() as patch:
        patch.setattr(timeline, "bundle", lambda forest, rows, page_size: (forest, rows))
        every = walk(forest, rows, limits)
    assert (found.steps, found.kv_peak_tokens) == (every.steps, every.kv_peak_tokens)
    for name in ("steps", "tokens", "samples", "pairs", "kv_read"):
        assert getattr(found.load, name) == pytest.approx(getattr(every.load, name)), name


def test_single_rows_are_left_alone() -> None:
    forest = build_forest(workload_of([[1, 2], [1, 3]]))
    rows = WalkSamples.of(forest, forest.order, np.ones(2, np.int64), np.ones(2, np.int64), 4)
    assert bundle(forest, rows, 4) == (forest, rows)
