"""Prompts that are too long: how many tokens stay, and which."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.errors import InvalidRequest
from umbel.ir.params import SamplingParams
from umbel.ir.truncation import cut, fitted, most_tokens, skips

IDS = list(range(100, 110))
WAYS = st.sampled_from(["left", "right", "middle"])


@pytest.mark.parametrize(("truncation", "bos", "left"), [
    ("left", None, [106, 107, 108, 109]),
    ("left", 100, [100, 107, 108, 109]),
    ("left", 7, [106, 107, 108, 109]),
    ("right", 100, [100, 101, 102, 103]),
    ("middle", None, [100, 101, 108, 109]),
])  # fmt: skip
def test_which_tokens_stay(truncation: str, bos: int | None, left: list[int]) -> None:
    assert cut(IDS, 4, truncation, bos) == left
    assert cut(IDS, 10, truncation, bos) is IDS


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 30), WAYS)
def test_what_stays_is_of_the_wanted_length_and_from_both_ends(ids: list[int], most: int, truncation: str) -> None:
    found = list(cut(ids, most, truncation, bos=0))
    assert len(found) == min(len(ids), most)
    heads = [k for k in range(len(found) + 1) if found == [*ids[:k], *ids[len(ids) - (len(found) - k) :]]]
    assert heads, "it is a beginning and an end of the prompt"


@pytest.mark.parametrize(("params", "most"), [
    ({"truncation": "left"}, 99),
    ({"truncation": "left", "max_tokens": 30}, 70),
    ({"truncation": "left", "max_tokens": 80}, 50),  # never less than half of the context
    ({"truncation": "left", "min_tokens": 20}, 80),
    ({"truncate_prompt_tokens": 10}, 10),
    ({"truncate_prompt_tokens": 200, "max_tokens": 10}, 90),
    ({"truncate_prompt_tokens": -1, "max_tokens": 10}, 90),
])  # fmt: skip
def test_the_most_tokens_that_a_prompt_may_have(params: dict[str, Any], most: int) -> None:
    assert most_tokens(SamplingParams(**params), 100) == most


def test_a_number_alone_cuts_on_the_left_as_in_vllm() -> None:
    assert SamplingParams(truncate_prompt_tokens=4).truncation == "left"
    assert SamplingParams(truncation="error").truncation is None, "asks for nothing"
    assert SamplingParams(truncation="error", truncate_prompt_tokens=4).truncation == "error"
    assert fitted(IDS, SamplingParams(truncate_prompt_tokens=4), 100, None) == IDS[-4:]
    assert fitted(IDS, SamplingParams(), 5, None) is IDS


def test_prompts_that_are_refused_or_skipped() -> None:
    strict = SamplingParams(truncation="error", truncate_prompt_tokens=9)
    with pytest.raises(InvalidRequest, match=r"10 tokens; .* leave it 9"):
        fitted(IDS, strict, 100, None)
    assert fitted(IDS[:9], strict, 100, None) == IDS[:9]
    skipping = SamplingParams(truncation="skip", truncate_prompt_tokens=9)
    assert skips(IDS, skipping, 100) and not skips(IDS[:9], skipping, 100)


@pytest.mark.parametrize("wrong", [
    {"truncate_prompt_tokens": 0},
    {"truncate_prompt_tokens": -2},
    {"truncate_prompt_tokens": 1.5},
    {"truncation": "top"},
    {"truncation": 7},
])  # fmt: skip
def test_bad_values_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(wrong))):
        SamplingParams(**wrong)
