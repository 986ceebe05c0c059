"""What is counted of a drafter while a rule asks it: beside counting one sample after the other."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from umbel.cost.draft_law import PLACES
from umbel.spec.base import Constant, Decoding, Drafts
from umbel.spec.measured import Measured


def test_places_are_counted_by_group(seed: int) -> None:
    """Steps are decided one ahead of what is learned, and some samples of a step are proposed nothing."""
    draw, reads = np.random.default_rng(seed), iter(range(10**6))
    depth = Measured(Constant(4), lambda: next(reads) * 0.5)
    counts: Counter[tuple[str, int, int]] = Counter()
    waiting = []
    for _ in range(90):
        ranks = np.sort(draw.choice(50, 12, replace=False))
        groups, some = ranks % 3, np.flatnonzero(draw.random(12) < 0.8)
        decoding = Decoding(ranks, groups, groups, groups, 12)
        depth.most(decoding)
        drafts = Drafts.of([[1] * n for n in draw.integers(0, 5, len(some)).tolist()])
        kept = depth.keep(some, drafts)
        assert kept.tolist() == drafts.counts.tolist()
        checked = np.flatnonzero(kept > 0)
        accepted = draw.integers(0, kept[checked] + 1)
        waiting.append((ranks[some][checked], ranks[some][checked] % 3, kept[checked], accepted))
        for group, n in zip((ranks[some] % 3).tolist(), drafts.counts.tolist(), strict=True):
            counts["asked", group, 0] += 1
            counts.update(("checked", group, place) for place in range(n))
        for _, group, n, a in zip(*(part.tolist() for part in waiting[-1]), strict=True):
            counts.update(("tried", group, place) for place in range(min(a + 1, n)))
            counts.update(("true", group, place) for place in range(a))
        if len(waiting) == 2:
            depth.learn(*waiting.pop(0))
    depth.learn(*waiting.pop(0))
    laws = depth.laws()
    assert sorted(laws) == [0, 1, 2]
    for group, law in laws.items():
        assert law.asked == counts["asked", group, 0]
        for name in ("checked", "tried", "true"):
            assert getattr(law, name).tolist() == [counts[name, group, place] for place in range(PLACES)]
    assert sum(law.seconds for law in laws.values()) == pytest.approx(45.0)  # half a second each time
    assert depth.laws() == {}
