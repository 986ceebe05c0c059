"""Samples, log-probabilities and texts of rows, whatever they share a batch with."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.models.dense import dense_logits
from umbel.api import LLM
from umbel.ir.params import SamplingParams

PARAMS = SamplingParams(temperature=0.8, seed=11, max_tokens=12, ignore_eos=True)
PROMPTS = [[9, 9, 9, 4, i] for i in range(3, 15)]


def test_samples_come_in_order_differ_and_repeat(llm: LLM) -> None:
    got = llm.generate(PROMPTS, replace(PARAMS, n=4))
    again = llm.generate(PROMPTS, replace(PARAMS, n=4))
    for output, same in zip(got, again, strict=True):
        assert [c.index for c in output.outputs] == [0, 1, 2, 3]
        assert len({c.token_ids for c in output.outputs}) == 4
        assert output.outputs == same.outputs
    single = llm.generate(PROMPTS, PARAMS)
    assert [o.outputs[0].token_ids for o in single] == [o.outputs[0].token_ids for o in got], "sample 0 is sample 0"


def test_equal_prompts_get_their_own_randomness(llm: LLM) -> None:
    got = llm.generate([[5, 6, 7]] * 8, replace(PARAMS, seed=None))
    assert len({o.outputs[0].token_ids for o in got}) == 8
    greedy = llm.generate([[5, 6, 7]] * 8, replace(PARAMS, temperature=0.0))
    assert len({o.outputs[0].token_ids for o in greedy}) == 1


@pytest.mark.parametrize("k", [0, 1, 5, 20])
def test_logprobs_are_those_of_a_plain_forward(llm: LLM, k: int) -> None:
    outputs = llm.generate(PROMPTS[:4], replace(PARAMS, n=2, logprobs=k))
    for output in outputs:
        for completion in output.outputs:
            assert completion.logprobs is not None and len(completion.logprobs) == len(completion.token_ids)
            sequence = [*output.prompt_token_ids, *completion.token_ids]
            logits = dense_logits(llm.engine.model.decoder, sequence[:-1])[len(output.prompt_token_ids) - 1 :]
            wanted = torch.log_softmax(logits, -1)
            for at, entry in enumerate(completion.logprobs):
                assert entry.token_id == completion.token_ids[at]
                assert entry.logprob == pytest.approx(float(wanted[at, entry.token_id]), abs=1e-4)
                assert len(entry.top) == k == len({i for i, _ in entry.top})
                best = wanted[at].topk(k).values.tolist()
                assert [value for _, value in entry.top] == pytest.approx(best, abs=1e-4)
                assert all(value == pytest.approx(float(wanted[at, i]), abs=1e-4) for i, value in entry.top)
            assert completion.cumulative_logprob == sum(t.logprob for t in completion.logprobs)


def test_rows_get_the_logprobs_they_asked_for(llm: LLM) -> None:
    asked = [None, 3, 0, None, 20]
    got = llm.generate(PROMPTS[:5], [replace(PARAMS, logprobs=k) for k in asked])
    for output, k in zip(got, asked, strict=True):
        logprobs = output.outputs[0].logprobs
        assert (logprobs is None) == (k is None)
        assert logprobs is None or all(len(t.top) == k for t in logprobs)
    plain = llm.generate(PROMPTS[:5], PARAMS)
    assert [o.outputs[0].token_ids for o in got] == [o.outputs[0].token_ids for o in plain]


def test_special_tokens_are_hidden_unless_asked_for(llm: LLM) -> None:
    params = SamplingParams(temperature=1.8, seed=2, max_tokens=150, ignore_eos=True)
    hidden = llm.generate(PROMPTS, params)
    shown = llm.generate(PROMPTS, replace(params, skip_special_tokens=False))
    seen = 0
    for a, b in zip(hidden, shown, strict=True):
        assert a.outputs[0].token_ids == b.outputs[0].token_ids
        ids = a.outputs[0].token_ids
        assert b.outputs[0].text == llm.tokenizer.decode(ids, skip_special_tokens=False)
        assert "<|im_start|>" not in a.outputs[0].text
        seen += "<|im_start|>" in b.outputs[0].text
    assert seen
