"""What an answer that is drawn depends on: the row's own seed, or the engine's with the row's key; never its place."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tests.tiny_models import make_model
from umbel import LLM, SamplingParams
from umbel.errors import UsageError

FREE = SamplingParams(temperature=1.3, max_tokens=6, ignore_eos=True, n=2)
PROMPTS = [[5 + i % 7, 9, 11 + i % 3] for i in range(60)]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    directory = make_model(tmp_path_factory.mktemp("keys") / "model", "llama", seed=6)
    return LLM(str(directory), dtype="float32", device="cpu", threads=1, seed=3)


def answers(llm: LLM, prompts: list[list[int]], params: object, keys: object = None) -> list[object]:
    return [tuple(c.token_ids for c in o.outputs) for o in llm.generate(prompts, params, keys=keys)]  # type: ignore[arg-type]


@pytest.mark.parametrize("named", [False, True])
def test_a_list_cut_into_calls_gives_the_answers_of_one(llm: LLM, named: bool) -> None:
    keys = [f"row {i}" if named else i - 30 for i in range(60)]
    whole = answers(llm, PROMPTS, FREE, keys)
    assert len(set(whole)) > 50, "they draw"
    for calls in (7, 50):
        cuts = [60 * i // calls for i in range(calls + 1)]
        parts = [answers(llm, PROMPTS[a:b], FREE, keys[a:b]) for a, b in pairwise(cuts)]
        assert [one for part in parts for one in part] == whole
    order = random.Random(1).sample(range(60), 60)
    mixed = answers(llm, [PROMPTS[i] for i in order], FREE, [keys[i] for i in order])
    assert mixed == [whole[i] for i in order]


def test_a_row_with_a_seed_draws_by_it_alone(llm: LLM) -> None:
    seeded = [replace(FREE, seed=i % 5) for i in range(60)]
    whole = answers(llm, PROMPTS, seeded)
    assert answers(llm, PROMPTS, seeded, [f"k{i}" for i in range(60)]) == whole
    assert answers(llm, PROMPTS[::-1], seeded[::-1]) == whole[::-1]
    assert answers(llm, [PROMPTS[17]], seeded[17:18]) == whole[17:18]


def test_twins_with_one_seed_are_answered_once(llm: LLM) -> None:
    seeded, plain = replace(FREE, seed=8), FREE
    before = llm.stats().output_tokens
    one, two = answers(llm, [[5, 6, 7]] * 2, seeded)
    assert one == two and llm.stats().output_tokens - before == 2 * 6
    one, two = answers(llm, [[5, 6, 7]] * 2, plain)
    assert one != two
    one, two = answers(llm, [[5, 6, 7]] * 2, [seeded, replace(seeded, seed=9)])
    assert one != two


def test_calls_without_keys_go_on_drawing(tmp_path: Path) -> None:
    directory = str(make_model(tmp_path / "model", "llama", seed=6))
    first, second = (LLM(directory, dtype="float32", device="cpu", threads=1, seed=3) for _ in range(2))
    calls = [answers(first, [[5, 6, 7]], FREE) for _ in range(3)]
    assert len({tuple(call) for call in calls}) == 3
    assert answers(second, [[5, 6, 7]] * 3, FREE) == [one for call in calls for one in call], "a run can be repeated"


def test_keys_that_are_none(llm: LLM) -> None:
    for keys, why in (
        ([1], "2 prompts but 1 keys"),
        ("ab", "one text"),
        ([4, 4], "key 4 is given to prompts 0 and 1"),
        (["a", "a"], "key 'a' is given to prompts 0 and 1"),
        ([1.5, 2], "key 1.5: must be a text or a whole number"),
    ):
        with pytest.raises(UsageError, match=why):
            llm.generate([[5], [6]], FREE, keys=keys)  # type: ignore[arg-type]
    good = answers(llm, [[5], [-1], [7]], FREE, keys=["x", "y", "z"])
    assert good[1] == () and good[0] == answers(llm, [[5]], FREE, keys=["x"])[0]
