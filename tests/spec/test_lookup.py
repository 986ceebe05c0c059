"""What is looked up in both: the parts that rows have in common, and what is copied from a row's own prompt."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from umbel.spec.base import Drafter, Setting
from umbel.spec.batch import BatchDrafter
from umbel.spec.lookup import LookupDrafter
from umbel.spec.ngram import NGrams

MOST = 8


def steps_of(make: Callable[[Setting], Drafter], jobs: list[tuple[list[int], list[int]]]) -> int:
    """Steps of rows that are decoded one after the other; their first tokens are drawn with their prompts."""
    drafter, steps = make(Setting()), 0
    for rank, (prompt, answer) in enumerate(jobs):
        at, has, told = np.array([rank]), 1, 0
        drafter.start(rank, rank, 0, np.array(prompt, np.int32))
        while has < len(answer):
            drafter.extend(at, np.array(answer[told:has], np.int32), np.array([0, has - told]))
            told, drafts = has, drafter.propose(at, np.array([min(MOST, len(answer) - has)])).tokens.tolist()
            assert len(drafts) <= MOST
            true = next((i for i, token in enumerate(drafts) if token != answer[has + i]), len(drafts))
            has, steps = min(has + true + 1, len(answer)), steps + 1
        drafter.extend(at, np.array(answer[told:], np.int32), np.array([0, has - told]))
        drafter.end(rank, done=True)
    return steps


@pytest.fixture
def jobs(seed: int) -> list[tuple[list[int], list[int]]]:
    """Rows that write the same keys around values of their prompts, which no other row has."""
    rng, found = random.Random(seed), []
    for _ in range(60):
        one, two = ([rng.randrange(1000, 9000) for _ in range(6)] for _ in range(2))
        fill = [rng.randrange(10, 40) for _ in range(12)]
        found.append(([*fill[:6], *one, *fill[6:], *two], [1, 2, 3, 4, *two, 5, 6, 7, *one, 8, 9]))
    return found


def test_it_takes_fewer_steps_than_each_alone(jobs: list[tuple[list[int], list[int]]]) -> None:
    batch, own, both = (steps_of(make, jobs) for make in (BatchDrafter, NGrams, LookupDrafter))
    assert both < 0.7 * min(batch, own)
    # At best a step for the first token of each value, and one or two for what is behind a value and its end.
    assert both <= 7.5 * len(jobs)


def test_it_learns_who_is_right() -> None:
    """The prompt goes on otherwise than the answers, which are all alike: after a while the batch is believed."""
    prompt, answer = [1, 2, 3, 4, 50, 60, 1, 2, 3, 4, 70, 80], [1, 2, 3, 4, 5, 6, 7, 8]
    drafter = LookupDrafter(Setting())
    first = []
    for rank in range(40):
        at = np.array([rank])
        drafter.start(rank, rank, 0, np.array(prompt, np.int32))
        drafter.extend(at, np.array(answer[:4], np.int32), np.array([0, 4]))
        first.append(drafter.propose(at, np.array([3])).tokens.tolist())
        drafter.extend(at, np.array(answer[4:], np.int32), np.array([0, 4]))
        drafter.end(rank, done=True)
    assert first[0] == [70, 80, 1] and first[-1] == [5, 6, 7]


def test_an_abandoned_sample_is_forgotten() -> None:
    drafter = LookupDrafter(Setting())
    drafter.start(3, 0, 0, np.array([1, 2, 1, 2], np.int32))
    drafter.extend(np.array([3]), np.array([1], np.int32), np.array([0, 1]))
    assert drafter.propose(np.array([3]), np.array([2])).tokens.tolist() == [2, 1]
    drafter.end(3, done=False)
    assert not drafter._guesses
