"""Greedy tokens equal those of transformers, row by row, on all six families.

Every prompt is answered alone and in batches that share beginnings, with chunks of 1 to 2,048 tokens and KV pools of
100, 25 and 10 % of the demand. UMBEL_ORACLE_FULL=1 gives every setting all 100 prompts and adds Mixtral; else the slow
settings get some.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.oracle.hf import Answer, agreement, greedy, prompts_around_borders
from tests.parameters import few_of
from tests.tiny_models import VOCAB_SIZE, make_model
from umbel.api import LLM
from umbel.ir.params import SamplingParams

N_PROMPTS, N_TOKENS, LONGEST = 100, 8, 260
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"family": "llama", "rope_scaling": LLAMA3, "rope_theta": 500000.0},
    "qwen2": {"family": "qwen2"},
    "qwen3": {"family": "qwen3"},
    "mistral": {"family": "mistral"},
    "mistral with a window": {"family": "mistral", "sliding_window": 100},
    "qwen3_moe, one layer dense": {"family": "qwen3_moe", "mlp_only_layers": [0]},
}
FULL = bool(os.environ.get("UMBEL_ORACLE_FULL"))
if FULL:  # what differs from the one above is seen in tests/models
    MODELS["mixtral"] = {"family": "mixtral"}
PARAMS = SamplingParams(temperature=0.0, max_tokens=N_TOKENS)
counted = {"same": 0, "excused": 0, "different": 0}


@dataclass(frozen=True)
class Subject:
    """A model, loaded once, with the oracle's answers."""

    llm: LLM
    prompts: list[list[int]]
    answers: list[Answer]

    def check(self, rows: list[int], **options: int | str) -> None:
        """Answer `rows` in one batch and compare."""
        model = self.llm.engine.model
        model.config = replace(model.config, chunk=None, kv_tokens=None, prefix="forest")
        model.config = replace(model.config, **options)
        outputs = self.llm.generate([self.prompts[r] for r in rows], PARAMS)
        verdicts = {}
        for row, output in zip(rows, outputs, strict=True):
            assert output.error is None, (row, output.error)
            verdicts[row] = agreement(output.outputs[0].token_ids, self.answers[row])
            counted[verdicts[row]] += 1
        assert "different" not in verdicts.values(), {r: v for r, v in verdicts.items() if v == "different"}


OFTEN = ["llama", "mistral with a window", "qwen3_moe, one layer dense"]


@pytest.fixture(scope="module", params=few_of(OFTEN, [name for name in MODELS if name not in OFTEN]))
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    settings = dict(MODELS[request.param])
    directory = make_model(tmp_path_factory.mktemp("model"), settings.pop("family"), seed=11, **settings)
    prompts = prompts_around_borders(list(MODELS).index(request.param), N_PROMPTS, VOCAB_SIZE, LONGEST)
    llm = LLM(str(directory), dtype="float32", device="cpu", threads=1)
    return Subject(llm, prompts, greedy(directory, prompts, N_TOKENS))


@pytest.fixture(scope="module", autouse=True)
def figures() -> Iterator[None]:
    """Say at the end how many rows were compared, and how many the oracle's own noise excused."""
    yield
    print(f"\ngreedy against transformers: {counted}")
    assert counted["excused"] * 1000 <= sum(counted.values()), "the oracle's noise excused more than 1 row in 1,000"


def test_the_oracle_has_something_to_say(subject: Subject) -> None:
    """Answers differ between prompts and along a row: a model that always says the same proves nothing."""
    assert len({tuple(a.ids) for a in subject.answers}) > N_PROMPTS * 0.8
    assert sum(len(set(a.ids)) for a in subject.answers) > 2 * N_PROMPTS
    assert {len(p) for p in subject.prompts} >= {1, 15, 16, 17, 127, 128, 129, 255, 256, 257}


def test_alone(subject: Subject) -> None:
    for row in range(0, N_PROMPTS, 1 if FULL else 3):
        subject.check([row])


@pytest.mark.parametrize("chunk", few_of([16], [1, 7, 64, 512, 2048]))
def test_chunks(subject: Subject, chunk: int) -> None:
    stride = 1 if FULL else {1: 12, 7: 5, 16: 3}.get(chunk, 1)
    subject.check(list(range(0, N_PROMPTS, stride)), chunk=chunk)


@pytest.mark.parametrize("percent", few_of([10], [25, 100]))
def test_pools(subject: Subject, percent: int, chunk: int = 200) -> None:
    plan = subject.llm.plan(subject.prompts, PARAMS)
    demand = plan.kv_tokens
    subject.check(list(range(N_PROMPTS)), kv_tokens=max(demand * percent // 100, 40 * plan.page_size), chunk=chunk)


def test_shared_beginnings_are_computed_once(subject: Subject) -> None:
    rows = list(range(0, N_PROMPTS, 2))
    before = subject.llm.stats()
    subject.check(rows, prefix="every-fork")  # by default, runs of a few tokens may not be worth sharing
    after = subject.llm.stats()
    distinct = {tuple(subject.prompts[r][: i + 1]) for r in rows for i in range(len(subject.prompts[r]))}
    assert after.computed_prompt_tokens - before.computed_prompt_tokens == len(distinct)
    assert len(distinct) < 0.7 * sum(len(subject.prompts[r]) for r in rows)
