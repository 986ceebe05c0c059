"""The batch drafts for itself in the engine: answers are those without it, in whatever order rows finish."""

from __future__ import annotations

import random

import pytest

from umbel import LLM, SamplingParams
from umbel.spec.base import Constant

ROWS = 24


def prompts() -> list[str]:
    names = ("Nora", "Paul", "Irene", "Marco", "Olga", "Rosa")
    cities = ("Paris", "Dublin", "Austin", "Porto")
    return [
        f"Read the text and give name, city as JSON.\n{names[i % 6]} Larsen lives in {cities[i % 4]} with {i} cats."
        for i in range(ROWS)
    ]


def answers(speculate: str, order: list[int], monkeypatch: pytest.MonkeyPatch, **params: object) -> list[object]:
    """The completions of all rows, given in some order, in the order of their numbers."""
    if speculate != "off":  # whatever steps take here, tokens are proposed
        monkeypatch.setattr("umbel.engine.build.PricedDepth", lambda *_: Constant(8))
    texts, kept = prompts(), {"temperature": 0.0, "max_tokens": 24, "logprobs": 1, **params}
    with LLM("demo", dtype="float32", speculate=speculate, chunk=48, kv_tokens=2048) as llm:
        outputs = llm.chat(
            [[{"role": "user", "content": texts[i]}] for i in order],
            [SamplingParams(**kept, seed=i) for i in order],  # type: ignore[arg-type]
        )
        stats = llm.engine.stats()
    assert (stats.accepted_tokens > 20) == (speculate != "off")
    assert stats.accepted_tokens <= stats.drafted_tokens
    found = {i: output.outputs for i, output in zip(order, outputs, strict=True)}
    return [found[i] for i in range(ROWS)]


@pytest.mark.parametrize("drafter", ["batch", "lookup"])
@pytest.mark.parametrize("params", [{}, {"temperature": 0.7, "n": 2}], ids=["greedy", "sampled"])
def test_answers_do_not_depend_on_who_finishes_first(
    params: dict[str, object], drafter: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = list(range(ROWS))
    plain = answers("off", order, monkeypatch, **params)
    for _ in range(2):
        assert answers(drafter, order, monkeypatch, **params) == plain
        random.Random(seed).shuffle(order)
