"""Penalties, biases, allowed tokens and bad words give the greedy tokens that transformers' processors give in
`generate`, row by row, in batches that share beginnings, in small chunks and small pools."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessor, LogitsProcessorList

from tests.oracle.hf import prompts_around_borders
from tests.tiny_models import VOCAB_SIZE, make_model
from umbel.api import LLM
from umbel.ir.params import SamplingParams

N_PROMPTS, N_TOKENS, LONGEST = 24, 24, 130
NOISE = 1e-4


class OpenAIPenalties(LogitsProcessor):
    """The two that transformers has not, over what was generated, from OpenAI's formula."""

    def __init__(self, n_prompt: int, frequency: float, presence: float):
        self.n_prompt, self.frequency, self.presence = n_prompt, frequency, presence

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for token in ids[0, self.n_prompt :].tolist():
            scores[0, token] -= self.frequency
        for token in set(ids[0, self.n_prompt :].tolist()):
            scores[0, token] -= self.presence
        return scores


class Allowed(LogitsProcessor):
    """Some tokens alone."""

    def __init__(self, ids: tuple[int, ...]):
        self.others = [token for token in range(VOCAB_SIZE) if token not in ids]

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, self.others] = -torch.inf
        return scores


BIAS = {7: 1.5, 11: -100.0, 20: 0.75, 200: -2.0}
ALLOWED = tuple(range(0, 300, 3))
Asked = tuple[dict[str, Any], dict[str, Any], Callable[[int], list[LogitsProcessor]]]
CASES: dict[str, Asked] = {
    "repetition": ({"repetition_penalty": 1.4}, {"repetition_penalty": 1.4}, lambda n: []),
    "a reward": ({"repetition_penalty": 0.8}, {"repetition_penalty": 0.8}, lambda n: []),
    "frequency": ({"frequency_penalty": 0.7}, {}, lambda n: [OpenAIPenalties(n, 0.7, 0.0)]),
    "presence": ({"presence_penalty": -0.4}, {}, lambda n: [OpenAIPenalties(n, 0.0, -0.4)]),
    "bias": ({"logit_bias": BIAS}, {"sequence_bias": [[[token], bias] for token, bias in BIAS.items()]}, lambda n: []),
    "allowed": ({"allowed_token_ids": ALLOWED}, {}, lambda n: [Allowed(ALLOWED)]),
    "all": (
        {"repetition_penalty": 1.2, "frequency_penalty": 0.3, "presence_penalty": 0.2, "allowed_token_ids": ALLOWED},
        {"repetition_penalty": 1.2},
        lambda n: [OpenAIPenalties(n, 0.3, 0.2), Allowed(ALLOWED)],
    ),
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("changed") / "qwen3", "qwen3", seed=5)


@pytest.fixture(scope="module")
def theirs(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()


@torch.inference_mode()
def answer(
    model: Any, prompt: list[int], processors: list[LogitsProcessor], **said: Any
) -> tuple[list[int], list[float]]:
    """Greedy ids, and for each by how much it leads the next after all processors."""
    config = GenerationConfig(
        max_new_tokens=N_TOKENS,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
        pad_token_id=0,
        **said,
    )
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        generation_config=config,
        logits_processor=LogitsProcessorList(processors),
    )
    top = torch.stack(out.scores)[:, 0].topk(2).values
    return out.sequences[0, len(prompt) :].tolist(), (top[:, 0] - top[:, 1]).tolist()


def check(got: tuple[int, ...], wanted: tuple[list[int], list[float]]) -> bool:
    """Whether the ids are equal; up to where the oracle's own lead is noise."""
    for mine, its, lead in zip(got, *wanted, strict=False):
        if mine != its:
            return lead < NOISE
    return len(got) == len(wanted[0])


def test_greedy_tokens_are_those_of_transformers(directory: Path, theirs: Any) -> None:
    """Rows of all kinds in one batch, each with what it asks for; and a row that asks for nothing as it was."""
    llm = LLM(str(directory), dtype="float32", device="cpu", threads=1)
    prompts = prompts_around_borders(2, N_PROMPTS, VOCAB_SIZE, LONGEST)
    names = random.Random(3).choices([*CASES, "nothing"], k=N_PROMPTS)
    plain: Asked = ({}, {}, lambda n: [])
    asked = [CASES.get(name, plain) for name in names]
    wanted = [answer(theirs, p, make(len(p)), **said) for p, (_, said, make) in zip(prompts, asked, strict=True)]
    base = SamplingParams(temperature=0.0, max_tokens=N_TOKENS)
    params = [replace(base, **mine) for mine, _, _ in asked]
    assert sum(a[0] != answer(theirs, p, [])[0] for a, p in zip(wanted, prompts, strict=True)) > N_PROMPTS // 3
    model = llm.engine.model
    for options in ({}, {"chunk": 7, "kv_tokens": 1100}, {"speculate": "ngram"}, {"prefix": "none"}):
        model.config = replace(model.config, chunk=None, kv_tokens=None, prefix="forest", speculate="auto")
        model.config = replace(model.config, **options)
        outputs = llm.generate(prompts, params)
        got = [output.outputs[0].token_ids for output in outputs]
        wrong = [(i, names[i]) for i in range(N_PROMPTS) if not check(got[i], wanted[i])]
        assert not wrong, options
