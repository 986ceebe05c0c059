"""Models whose steps check proposed tokens: tokens, texts, reasons and float32 log-probabilities are those of plain
decoding to the last bit, through every runner."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.drafters import Scripted, check_all
from tests.engine.test_gpu_path import on_gpu_kernels, record_steps
from umbel.api import LLM, RequestOutput
from umbel.ir.params import SamplingParams
from umbel.runner.ahead import AheadTorchRunner
from umbel.sched.phases.speculate import Speculate
from umbel.spec.base import Constant

Prompts = list[list[int]]
Truth = dict[tuple[int, int], tuple[int, ...]]  # tokens by row and sample
SMALL = {"dtype": "float32", "device": "cpu", "threads": 1}


def rows_of(llm: LLM, seed: int, count: int = 16, out: int = 30) -> tuple[Prompts, list[SamplingParams]]:
    """Rows that share beginnings, greedy and sampled, with all that may end an answer somewhere in it: stop strings
    that reach over tokens, ids to stop at, least lengths, and limits."""
    rng = random.Random(seed)
    prompts = [[5, 30, 40 + i % 5, *range(20, 20 + rng.randrange(12))] for i in range(count)]
    params = [
        SamplingParams(
            temperature=rng.choice((0.0, 0.9)),
            top_k=rng.choice((-1, 3)),
            top_p=rng.choice((1.0, 0.8)),
            seed=i,
            n=rng.choice((1, 1, 3)),
            max_tokens=rng.randrange(5, out),
            min_tokens=rng.choice((0, 0, 5)),
            logprobs=rng.choice((0, 2)),
        )
        for i in range(count)
    ]
    free = llm.generate(prompts, params)
    return prompts, [_with_ends(rng, one, output) for one, output in zip(params, free, strict=True)]


def _with_ends(rng: random.Random, params: SamplingParams, output: RequestOutput) -> SamplingParams:
    """The same with a stop string or stop id that comes in the answer."""
    ids, text = output.outputs[0].token_ids, output.outputs[0].text
    at = rng.randrange(max(len(text) - 3, 1))
    stop = text[at : at + 3]
    if rng.random() < 0.5 and len(stop) == 3 and "\ufffd" not in stop:
        return replace(params, stop=(stop,), include_stop_str_in_output=rng.random() < 0.5)
    return replace(params, stop_token_ids=(rng.choice(ids),)) if rng.random() < 0.5 else params


def truth_of(outputs: list[RequestOutput]) -> Truth:
    return {(row, c.index): c.token_ids for row, output in enumerate(outputs) for c in output.outputs}


class Scripts:
    """Has the loops of LLMs that are made from now on check what a script proposes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, truth: Truth, right: float, most: int = 4):
        self.truth, self.right, self.most = truth, right, most
        self.llm: LLM | None = None
        monkeypatch.setattr("umbel.engine.build.build_speculate", lambda *parts: self._phase())

    def _phase(self) -> Speculate:
        wrong = sorted({token for ids in self.truth.values() for token in ids[-2:]} | {0, 1, 2})
        return Speculate(Scripted(self._whole, self.right, wrong), Constant(self.most))

    def _whole(self, rank: int) -> tuple[int, ...]:
        assert self.llm is not None
        waiting = self.llm.engine.loops[-1].scheduler.waiting
        return self.truth[int(waiting.rows[rank]), int(waiting.samples[rank])]

    def answers(self, llm: LLM, prompts: Prompts, params: list[SamplingParams]) -> list[RequestOutput]:
        """What an LLM answers with what is proposed."""
        self.llm = llm
        return llm.generate(prompts, params)


@pytest.mark.parametrize("right", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("ahead", [False, True])
def test_answers_are_those_of_plain_decoding(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, right: float, ahead: bool
) -> None:
    """In a pool with room, and in a tight one whose steps are small, where samples are preempted."""
    prompts, params = rows_of(llm, 5)
    wanted = llm.generate(prompts, params)
    scripts, preempted = Scripts(monkeypatch, truth_of(wanted), right), 0
    if ahead:
        monkeypatch.setattr("umbel.engine.build.TorchRunner", lambda *parts: AheadTorchRunner(*parts[:3]))
    for limits in ({"chunk": 256}, {"chunk": 24, "kv_tokens": 160, "admission": "aggressive"}):
        tested = LLM(str(llm.config.model), **SMALL, **limits)
        assert scripts.answers(tested, prompts, params) == wanted
        stats = tested.stats()
        assert stats.drafted_tokens > 20 and (stats.accepted_tokens > 20 or not right)
        preempted += stats.preemptions
    assert preempted
    assert {c.finish_reason for output in wanted for c in output.outputs} == {"stop", "length"}
    assert any(isinstance(c.stop_reason, str) for output in wanted for c in output.outputs)


def test_sessions_stream_the_tokens_that_came_true(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several in one event; the tokens of a ticket joined are its answer, and what rows have cost are tokens of
    answers."""
    prompts, params = [[7, 8, 9] * 6 + [7 + i] for i in range(4)], SamplingParams(temperature=0.0, max_tokens=40)
    wanted = llm.generate(prompts, params)
    check_all(monkeypatch)
    several, tokens = 0, dict[int, tuple[int, ...]]()
    with LLM(str(llm.config.model), **SMALL, chunk=64, speculate="ngram") as tested, tested.session() as session:
        tickets = session.add(prompts, params, stream=True)
        session.close()
        for event in session:
            if event.kind == "tokens":
                several += len(event.token_ids) > 1
                tokens[event.ticket] = tokens.get(event.ticket, ()) + event.token_ids
            else:
                assert event.output is not None
                assert event.output.outputs == wanted[tickets.index(event.ticket)].outputs
                assert tokens[event.ticket] == event.output.outputs[0].token_ids
        assert session.spent(tickets).output_tokens == sum(map(len, tokens.values()))
        assert several and tested.stats().accepted_tokens


@pytest.mark.nightly
@pytest.mark.parametrize("right", [0.0, 0.4, 0.9, 1.0])
def test_a_hundred_thousand_tokens_are_the_same(llm: LLM, monkeypatch: pytest.MonkeyPatch, right: float) -> None:
    compared = 0
    tested: Callable[..., LLM] = lambda **limits: LLM(str(llm.config.model), **SMALL, **limits)  # noqa: E731
    for seed in range(40):
        prompts, params = rows_of(llm, seed, 16, 120)
        wanted = llm.generate(prompts, params)
        with monkeypatch.context() as patch:
            scripts = Scripts(patch, truth_of(wanted), right, most=1 + seed % 6)
            one = tested(chunk=(16, 40, 256)[seed % 3], kv_tokens=(320, 4000)[seed % 2], admission="aggressive")
            assert scripts.answers(one, prompts, params) == wanted
        compared += sum(len(c.token_ids) for output in wanted for c in output.outputs)
    assert compared > 25_000


def check_on_gpu_kernels(llm: LLM, monkeypatch: pytest.MonkeyPatch, count: int, record: bool) -> None:
    """Rows of several tokens, half of which are proposed, on the kernels of GPUs."""
    prompts, params = (
        [[5, 6, 7, 8, 20 + i] for i in range(count)],
        [SamplingParams(temperature=0.8 * (i % 2), seed=i, max_tokens=7, ignore_eos=True) for i in range(count)],
    )
    wanted = llm.generate(prompts, params)
    scripts = Scripts(monkeypatch, truth_of(wanted), 0.7, most=2)
    made = on_gpu_kernels(monkeypatch)
    graphs = record_steps(monkeypatch) if record else None
    tested = LLM(str(llm.config.model), dtype="float32", device="cpu", chunk=64)
    with np.errstate(all="ignore"):  # rows that are not there hold whatever was in memory
        got = scripts.answers(tested, prompts, params)
    assert truth_of(got) == truth_of(wanted)
    assert made and tested.stats().accepted_tokens
    assert graphs is None or graphs.replayed


@pytest.mark.nightly
@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are interpreted only where there is no GPU")
@pytest.mark.parametrize("record", [False, True])
def test_so_it_is_on_the_kernels_of_gpus(llm: LLM, monkeypatch: pytest.MonkeyPatch, record: bool) -> None:
    pytest.importorskip("triton", reason="Triton is not installed here")
    check_on_gpu_kernels(llm, monkeypatch, 2, record)
