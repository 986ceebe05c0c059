"""What is learned of proposed tokens: by group, by kind and by place in the draft, from few cases and from many."""

from __future__ import annotations

import numpy as np
import pytest

from umbel.spec.acceptance import DEPTHS, GROUPS, REFRESH, Acceptance
from umbel.spec.base import Drafts

Ints = np.ndarray


def chances(known: Acceptance, group: int, likely: list[float] | None, count: int = 0, place: int = 0) -> list[float]:
    """The chances of the tokens of one draft."""
    count = count if likely is None else len(likely)
    drafts = Drafts(np.zeros(count, np.int64), np.array([0, count]), None if likely is None else np.array(likely))
    owner = np.zeros(count, np.int64)
    cases = known.cases(np.array([group]), np.array([place]), owner, drafts)
    return known.chances(cases, owner, drafts.begin).tolist()


def teach(known: Acceptance, group: int, likely: list[float] | None, accepted: int, times: int, place: int = 0) -> None:
    """Drafts of which so many tokens came true, and the next one did not."""
    for _ in range(times):
        count = 4 if likely is None else len(likely)
        drafts = Drafts(np.zeros(count, np.int64), np.array([0, count]), None if likely is None else np.array(likely))
        cases = known.cases(np.array([group]), np.array([place]), np.zeros(count, np.int64), drafts)
        seen = np.array([min(accepted + 1, count)])
        known.learn(cases, np.array([0]), seen, np.array([accepted]))


def test_at_first_the_drafter_is_believed() -> None:
    found = chances(Acceptance(), 0, [0.95, 0.95, 0.2])
    assert found[0] == pytest.approx(15 / 16)
    assert found[1] == pytest.approx((15 / 16) ** 2)
    assert found[2] < 0.25


def test_rates_approach_what_was_seen() -> None:
    known = Acceptance()
    teach(known, 1, [0.9, 0.9, 0.9], 1, 64)
    first, second, _ = chances(known, 1, [0.9, 0.9, 0.9])
    assert first > 0.95
    assert second / first < 0.1
    other = chances(known, 2, [0.9, 0.9, 0.9])  # a group of which nothing is known is like the others
    assert other[1] / other[0] < 0.2
    teach(known, 2, [0.9, 0.9, 0.9], 3, 64)
    assert chances(known, 2, [0.9, 0.9, 0.9])[2] > 0.8
    assert chances(known, 1, [0.9, 0.9, 0.9])[1] < 0.15


def test_without_a_word_of_the_drafter_the_place_in_the_answer_counts() -> None:
    known = Acceptance()
    teach(known, 0, None, 0, 64, place=1)
    teach(known, 0, None, 4, 64, place=40)
    assert chances(known, 0, None, 2, place=1)[0] < 0.1
    assert chances(known, 0, None, 2, place=40)[1] > 0.8


def test_older_cases_fade() -> None:
    known = Acceptance()
    teach(known, 0, [0.9], 0, 2000)
    assert chances(known, 0, [0.9])[0] < 0.02
    teach(known, 0, [0.9], 1, 600)
    assert chances(known, 0, [0.9])[0] > 0.6


def test_groups_and_places_beyond_those_told_apart_are_one() -> None:
    known = Acceptance()
    teach(known, GROUPS + 5, [0.9] * (DEPTHS + 4), DEPTHS + 4, REFRESH)
    assert chances(known, 10**6, [0.9] * 40)[-1] > 0
