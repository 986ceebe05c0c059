"""SkipDecode against a naive decoder that computes one token after the other, and the layers that it passes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.runner.naive_flow import NaiveDecoder
from tests.tiny_models import make_model
from umbel import LLM, SamplingParams
from umbel.cost.passed import FallingLayers
from umbel.errors import UsageError
from umbel.ir.workload import Workload

LAYERS, DRAWN, OVER = 5, 12, 6
PROMPTS = [[(i * 31 + j * 7) % 290 + 3 for j in range(11 + 5 * i)] for i in range(3)]
DEPTHS = [5, 5, 4, 4, 3, 3, 2, 2, 2, 2, 2]  # of the tokens of an answer: from 5 to 2 over 6
GREEDY = SamplingParams(temperature=0.0, max_tokens=DRAWN, ignore_eos=True, logprobs=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("skip") / "model", "qwen3", num_hidden_layers=LAYERS)


@pytest.fixture(scope="module")
def llm(model: Path) -> LLM:
    asked = f"skip-decode:least=0.4,over={OVER}"
    return LLM(str(model), technique=asked, allow_lossy=True, speculate="off", device="cpu", dtype="float32")


def layers_of(prompt: int, position: int) -> list[int]:
    """The first layer and the last ones, written down once more."""
    depth = LAYERS if position < prompt else DEPTHS[position - prompt]
    return [0, *range(1 + LAYERS - depth, LAYERS)]


def test_the_schedule_falls_linearly_and_stays_at_two_layers_or_more() -> None:
    places = np.arange(len(DEPTHS))
    assert FallingLayers({"least": 0.4, "over": OVER}).answer_layers(LAYERS, places).tolist() == DEPTHS
    assert FallingLayers({"least": 0.1, "over": 1}).answer_layers(LAYERS, places).tolist() == [5, *[2] * 10]
    assert FallingLayers({"least": 1, "over": 3}).answer_layers(LAYERS, places).tolist() == [5] * 11


def test_answers_are_those_of_a_naive_decoder(model: Path, llm: LLM) -> None:
    """Rows of a step stand at other places of their answers."""
    naive = NaiveDecoder(model)
    for prompt, output in zip(PROMPTS, llm.generate(PROMPTS, GREEDY, use_tqdm=False), strict=True):
        drawn, answer, passed = list(prompt), output.outputs[0], partial(layers_of, len(prompt))
        assert answer.logprobs is not None
        for token, one in zip(answer.token_ids, answer.logprobs, strict=True):
            scores = naive.skipping(drawn, passed).log_softmax(0)
            assert int(scores.argmax()) == token
            assert one[token].logprob == pytest.approx(float(scores.max()), abs=1e-5, rel=1e-5)
            drawn.append(token)


def test_as_many_layers_are_passed_as_planned(llm: LLM) -> None:
    planned = llm.plan_for(Workload.of(PROMPTS, GREEDY)).decision("layers passed").facts
    before = llm.engine.stats()
    llm.generate(PROMPTS, GREEDY, use_tqdm=False)
    stats = llm.engine.stats()
    prompts = sum(len(prompt) for prompt in PROMPTS)
    assert stats.layers_passed - before.layers_passed == planned["passed"] == prompts * LAYERS + 3 * sum(DEPTHS)
    assert stats.layers_whole - before.layers_whole == planned["whole"] == (prompts + 3 * (DRAWN - 1)) * LAYERS


def test_answers_that_others_may_read_are_refused(model: Path, llm: LLM) -> None:
    """Their keys are not there in all layers."""
    with pytest.raises(UsageError, match="sessions keep answers for rows to come"), llm.session():
        pass
    with pytest.raises(UsageError, match="keep='lru' keeps runs for rows to come"):
        LLM(str(model), technique="skip-decode", allow_lossy=True, keep="lru", device="cpu")
