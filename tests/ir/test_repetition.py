"""When answers are loops: against vLLM's rule, token by token."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.errors import InvalidRequest
from umbel.ir.params import SamplingParams
from umbel.ir.repetition import RepetitionDetection


def repeats(tokens: list[int], most: int, least: int, count: int) -> bool:
    """The last tokens are `count` copies of a pattern of `least` to `most` tokens."""
    return any(
        len(tokens) >= size * count and tokens[len(tokens) - size * count :] == tokens[len(tokens) - size :] * count
        for size in range(least, most + 1)
    )


@given(
    st.lists(st.integers(0, 2), max_size=30), st.integers(1, 6), st.integers(0, 6), st.integers(2, 4)
)  # fmt: skip
def test_loops_are_found(tokens: list[int], most: int, least: int, count: int) -> None:
    least = min(least, most)
    asked = RepetitionDetection.of({"max_pattern_size": most, "min_pattern_size": least, "min_count": count})
    assert asked is not None
    assert asked.found_in(tokens) == repeats(tokens, most, max(least, 1), count)


def test_what_may_be_asked() -> None:
    record = SimpleNamespace(max_pattern_size=5, min_pattern_size=2, min_count=3)  # as vLLM's is
    wanted = RepetitionDetection(5, 2, 3)
    assert SamplingParams(repetition_detection=record).repetition_detection == wanted
    assert SamplingParams(repetition_detection={"max_pattern_size": 0}) == SamplingParams()
    bad: list[tuple[Any, str]] = [
        (3, "invalid_type"),
        ({"max_pattern_size": 3}, "invalid_value"),
        ({"max_pattern_size": 3, "min_count": 1}, "invalid_value"),
        ({"max_pattern_size": 3, "min_pattern_size": 4, "min_count": 2}, "invalid_value"),
        ({"max_pattern_size": "3", "min_count": 2}, "invalid_type"),
        ({"max_patern_size": 3}, "unknown_parameter"),
    ]
    for value, code in bad:
        with pytest.raises(InvalidRequest) as caught:
            SamplingParams(repetition_detection=value)
        assert caught.value.code == code
