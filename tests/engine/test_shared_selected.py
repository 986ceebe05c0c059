"""Eight rows on one run of 1,024 tokens where a selector picks. It picks for all rows of an engine; what each of them
reads is its own, and what the run holds is what it holds for one row alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.conformance.test_select import EACH, ROWS, SHARE
from tests.tiny_models import make_model
from umbel import LLM, SamplingParams

SHARED, ROWS_BELOW = 1024, 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("selected") / "model", "qwen3", max_position_embeddings=2048)


class Ran:
    """An engine that has answered some rows: their tokens and log-probabilities, the keys that it skipped, and what the
    shared run holds in all layers."""

    def __init__(self, model: Path, technique: str, prompts: Sequence[list[int]]):
        options = {"speculate": "off", "device": "cpu", "dtype": "float32", "kv_tokens": 4096}
        llm = LLM(str(model), technique=technique, allow_lossy=True, **options)
        params = SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True, logprobs=0)
        stream = llm.stream(list(prompts), params)
        outputs = [next(stream)]
        attention = llm.engine.loops[0].runner.attention
        outputs += stream
        answers = [output.outputs[0] for output in sorted(outputs, key=lambda output: int(output.request_id))]
        self.answers = [(answer.token_ids, answer.cumulative_logprob) for answer in answers]
        stats = llm.engine.stats()
        self.skipped = stats.keys_whole - stats.keys_read
        slots = torch.from_numpy(attention.paths.slots_of(0)[:SHARED])
        self.held = torch.stack([part[:, slots] for part in (*attention.store.keys, *attention.store.values)])


def prompts(rows: int) -> list[list[int]]:
    """Rows of one length that share their beginning; the first cell behind it is full."""
    shared = [j * 7 % 290 + 3 for j in range(SHARED)]
    return [[*shared, *((i * 31 + j * 5) % 290 + 3 for j in range(140))] for i in range(rows)]


@EACH
def test_rows_that_share_a_run_read_it_each_by_itself(name: str, model: Path) -> None:
    asked = f"{name}:{SHARE[name]}=0.3"
    some, alone = Ran(model, asked, prompts(ROWS_BELOW)), Ran(model, asked, prompts(1))
    assert torch.equal(some.held, alone.held) and some.answers[0] == alone.answers[0]
    if ROWS[name].rows == "answers":
        dense = Ran(model, f"{name}:{SHARE[name]}=1", prompts(ROWS_BELOW))
        assert torch.equal(some.held, dense.held) and dense.skipped == 0
        assert some.skipped == ROWS_BELOW * alone.skipped > 0  # r rows that read a share p count r * p of the run
