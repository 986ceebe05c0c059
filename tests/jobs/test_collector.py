"""Searches for reference cycles while a job runs: rarer than Python's own, and as before once it is over."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from umbel.jobs.collector import NEW_OBJECTS, rare_searches


@pytest.fixture(autouse=True)
def threshold() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_searches_are_rare_within_the_block_alone() -> None:
    gc.set_threshold(700, 10, 10)
    with pytest.raises(ZeroDivisionError), rare_searches():
        assert gc.get_threshold() == (NEW_OBJECTS, 10, 10)
        raise ZeroDivisionError
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("own", [0, 2 * NEW_OBJECTS])
def test_a_program_that_searches_less_is_left_alone(own: int) -> None:
    gc.set_threshold(own, 5, 5)
    with rare_searches():
        assert gc.get_threshold() == (own, 5, 5)
