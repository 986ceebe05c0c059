"""Log-probabilities of tokens that rows name: those of transformers, beside the chosen token's, in the order asked."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from umbel.api import LLM
from umbel.errors import InvalidRequest
from umbel.ir.params import SamplingParams

PROMPTS = [[5, 6, 7, 8], [9, 8, 7], [5, 6, 7, 9], [40, 41]]
LABELS = [(299, 3, 120), (7,), (), (0, 1, 2, 3, 4)]


def test_they_are_those_of_transformers(llm: LLM) -> None:
    """Rows that name other tokens, or none, in one batch, with penalties that change none of it."""
    theirs = AutoModelForCausalLM.from_pretrained(llm.config.model, dtype=torch.float32, attn_implementation="eager")
    base = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True, repetition_penalty=1.4)
    params = [base.clone(logprob_token_ids=ids) for ids in LABELS]
    params[2] = base.clone(logprobs=2)
    for prompt, ids, output in zip(PROMPTS, LABELS, llm.generate(PROMPTS, params), strict=True):
        answer = output.outputs[0]
        assert answer.logprobs is not None and len(answer.logprobs) == 4
        with torch.inference_mode():
            logits = theirs(torch.tensor([[*prompt, *answer.token_ids]])).logits[0, len(prompt) - 1 : -1]
        wanted = torch.log_softmax(logits.double(), -1)
        for place, one in enumerate(answer.logprobs):
            named = ids or wanted[place].topk(2).indices.tolist()
            assert [token for token, _ in one.top] == list(named)
            assert set(one) == {answer.token_ids[place], *named}
            for token, logprob in one.items():
                assert math.isclose(logprob.logprob, float(wanted[place, token]), abs_tol=1e-4)
                assert (logprob.rank is None) == (bool(ids) or token not in named)


def test_their_number_is_that_of_logprobs() -> None:
    assert SamplingParams(logprobs=2, logprob_token_ids=[3, 4]).num_logprobs == 2
    assert SamplingParams(logprob_token_ids=[]) == SamplingParams()
    for bad in ({"logprobs": 5, "logprob_token_ids": [3]}, {"logprob_token_ids": range(200)}):
        with pytest.raises(InvalidRequest):
            SamplingParams(**{name: list(v) if isinstance(v, range) else v for name, v in bad.items()})  # type: ignore
