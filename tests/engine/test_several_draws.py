"""Steps in which a sequence draws behind several of its tokens, as a drafter's guesses are verified: each draw is the
token that decoding one by one gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tests.engine.test_gpu_path import on_gpu_kernels, record_steps
from umbel.api import LLM, RequestOutput
from umbel.engine.build import build_runner, build_store
from umbel.ir.params import SamplingParams
from umbel.ir.randomness import streams
from umbel.ir.step import Sampling, Step, StepResult
from umbel.runner.base import run_step

SHARED, GUESSES, PAGE = 5, 4, 16
PROMPTS = [[5, 6, 7, 8, 9], [5, 6, 7, 8, 9]]
SEEDS = (3, 4)


def sampling_of(at: Sequence[int], rows: Sequence[int], positions: Sequence[int], temperature: float) -> Sampling:
    """Draws behind the tokens `at` for some of the two rows, with their log-probabilities."""
    n, which = len(at), np.array(rows)
    zeros = np.zeros(n, np.int64)
    stream = streams(np.array(SEEDS), np.arange(2), np.ones(2, bool))[which]
    return Sampling(
        np.array(at), np.full(n, temperature), zeros, np.ones(n), np.zeros(n), stream, which, zeros,
        np.array(positions), zeros,
    )  # fmt: skip


def prompt_step(temperature: float) -> Step:
    """The prompt that both rows have, and the first token of each."""
    n = np.arange(SHARED)
    none = np.zeros(1, np.int64)
    return Step(
        np.array(PROMPTS[0]), n, np.ones(SHARED, bool), none - 1, none, none + SHARED, none, none + SHARED,
        none + SHARED, none, none, PAGE, sampling_of([SHARED - 1] * 2, [0, 1], [SHARED] * 2, temperature),
    )  # fmt: skip


def verify_step(answers: list[tuple[int, ...]], temperature: float) -> Step:
    """Below the prompt a tail for each row with its first token and `GUESSES` more; a draw behind each of them."""
    each = 1 + GUESSES
    tokens = np.array([answer[:each] for answer in answers]).ravel()
    positions = SHARED + np.tile(np.arange(each), 2)
    ends = np.array([SHARED, SHARED + each, SHARED + each])
    return Step(
        tokens, positions, np.ones(2 * each, bool), np.array([-1, 0, 0]), np.array([0, SHARED, SHARED]), ends,
        np.array([0, 0, each]), np.array([0, each, 2 * each]), np.array([2 * each, each, 2 * each]),
        np.arange(3), np.arange(3), PAGE,
        sampling_of(np.arange(2 * each), np.repeat([0, 1], each), positions + 1, temperature),
    )  # fmt: skip


def plain_answers(llm: LLM, temperature: float) -> list[RequestOutput]:
    params = [
        SamplingParams(temperature=temperature, seed=s, max_tokens=2 + GUESSES, logprobs=0, ignore_eos=True)
        for s in SEEDS
    ]
    return llm.generate(PROMPTS, params)


def verified(llm: LLM, answers: list[tuple[int, ...]], temperature: float, times: int = 1) -> StepResult:
    """What a runner draws in the step that verifies the answers, the last of several times."""
    runner = build_runner(llm.engine.model, build_store(llm.engine.model, 3, PAGE))
    first = run_step(runner, prompt_step(temperature))
    assert first.token_ids.tolist() == [answer[0] for answer in answers]
    return [run_step(runner, verify_step(answers, temperature)) for _ in range(times)][-1]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_each_draw_is_that_of_decoding_one_by_one(llm: LLM, temperature: float) -> None:
    """To the last bit of its log-probability."""
    outputs = [output.outputs[0] for output in plain_answers(llm, temperature)]
    result = verified(llm, [output.token_ids for output in outputs], temperature)
    assert result.logprobs is not None
    assert result.token_ids.tolist() == [token for output in outputs for token in output.token_ids[1:]]
    assert result.logprobs.tolist() == [t.logprob for output in outputs for t in (output.logprobs or ())[1:]]
    assert temperature == 0 or outputs[0].token_ids != outputs[1].token_ids


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_wrong_guess_changes_no_draw_before_it(llm: LLM, temperature: float) -> None:
    answers = [output.outputs[0].token_ids for output in plain_answers(llm, temperature)]
    wrong = (*answers[0][:2], answers[0][2] + 1, *answers[0][3:])
    right, result = verified(llm, answers, temperature), verified(llm, [wrong, answers[1]], temperature)
    assert right.logprobs is not None and result.logprobs is not None
    same = (result.token_ids == right.token_ids) & (result.logprobs == right.logprobs)
    assert same.tolist() == [True, True, False, False, False, *[True] * 5]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_so_it_is_on_the_kernels_of_gpus(llm: LLM, monkeypatch: pytest.MonkeyPatch, temperature: float) -> None:
    answers = [output.outputs[0].token_ids for output in plain_answers(llm, temperature)]
    made = on_gpu_kernels(monkeypatch)
    result = verified(llm, answers, temperature)
    assert made, "the kernels were not asked"
    assert result.token_ids.tolist() == [token for answer in answers for token in answer[1:]]


@pytest.mark.nightly
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has real graphs")
def test_so_it_is_in_recorded_steps(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [output.outputs[0].token_ids for output in plain_answers(llm, 0.9)]
    on_gpu_kernels(monkeypatch)
    graphs = record_steps(monkeypatch)
    with np.errstate(all="ignore"):  # rows that are not there hold whatever was in memory
        result = verified(llm, answers, 0.9, times=3)
    assert graphs.recorded == graphs.replayed == 1
    assert result.token_ids.tolist() == [token for answer in answers for token in answer[1:]]
