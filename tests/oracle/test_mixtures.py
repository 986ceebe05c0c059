"""Mixtures of experts against transformers in float32: logits position by position, and greedy tokens row by row.

Models are random, made and stored by transformers itself; every option of a router is in one of them, with biases and
corrections that count. Prompts are answered alone and together, sharing beginnings, in chunks and in a small pool.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from tests.mixtures import MODELS, make_mixture
from tests.models import key_cases
from tests.models.dense import dense_logits
from tests.oracle.hf import NOISE, Answer, agreement, greedy, prompts_around_borders
from tests.parameters import few_of
from tests.tiny_models import VOCAB_SIZE
from umbel.api import LLM
from umbel.ir.params import SamplingParams
from umbel.models.decoder import Decoder
from umbel.models.families import read_spec
from umbel.models.weights import StoredWeights

N_PROMPTS, N_TOKENS, LONGEST = 16, 12, 140
PARAMS = SamplingParams(temperature=0.0, max_tokens=N_TOKENS)
FIRST = ["gpt_oss"]
OTHERS = [name for name in MODELS if name not in FIRST]


@dataclass(frozen=True)
class Subject:
    """A model, with prompts and the oracle's answers."""

    directory: Path
    prompts: list[list[int]]
    answers: list[Answer]

    def check(self, llm: LLM, **options: int | str) -> None:
        """Answer all prompts in one batch, and compare."""
        model = llm.engine.model
        model.config = replace(model.config, chunk=None, kv_tokens=None, prefix="forest")
        model.config = replace(model.config, **options)
        verdicts = []
        for output, answer in zip(llm.generate(self.prompts, PARAMS), self.answers, strict=True):
            assert output.error is None, output.error
            verdicts.append(agreement(output.outputs[0].token_ids, answer))
        assert "different" not in verdicts
        assert verdicts.count("excused") <= 1


@pytest.fixture(scope="module", params=few_of(FIRST, OTHERS))
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    family, overrides = MODELS[request.param]
    directory = make_mixture(tmp_path_factory.mktemp("model"), family, seed=7, **overrides)
    prompts = prompts_around_borders(list(MODELS).index(request.param), N_PROMPTS, VOCAB_SIZE, LONGEST)
    return Subject(directory, prompts, greedy(directory, prompts, N_TOKENS))


@pytest.mark.parametrize("name", MODELS)
def test_logits(name: str, tmp_path: Path) -> None:
    family, overrides = MODELS[name]
    compare(make_mixture(tmp_path, family, seed=7, **overrides), list(MODELS).index(name))


@pytest.mark.parametrize("key", key_cases.OF_MIXTURES)
def test_keys_of_mixtures(key: str, tmp_path: Path) -> None:
    """A config that says something else makes another model, of us as of transformers."""
    name, changed = key_cases.OF_MIXTURES[key]
    family, overrides = MODELS[name]
    compare(make_mixture(tmp_path, family, seed=7, **(overrides | changed)), 0)


def compare(directory: Path, seed: int) -> None:
    """Logits of a few prompts, position by position."""
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").eval()
    spec = read_spec(directory)
    assert all("the context is" in note for note in spec.notes)
    ours = Decoder(spec, StoredWeights(directory, spec, torch.float32))
    for prompt in prompts_around_borders(seed, 42, VOCAB_SIZE, LONGEST)[::6]:
        with torch.inference_mode():
            wanted = theirs(torch.tensor([prompt])).logits[0]
        assert (dense_logits(ours, prompt) - wanted).abs().max() < NOISE
        assert wanted.std() > 0.3


def test_answers(subject: Subject) -> None:
    """All together, with beginnings shared; in chunks of 7 tokens; and with a pool of a tenth of the demand."""
    assert len({tuple(answer.ids) for answer in subject.answers}) > N_PROMPTS * 0.8
    llm = LLM(str(subject.directory), dtype="float32", device="cpu", threads=1)
    subject.check(llm, prefix="every-fork")
    subject.check(llm, chunk=7)
    plan = llm.plan(subject.prompts, PARAMS)
    subject.check(llm, kv_tokens=max(plan.kv_tokens // 10, 40 * plan.page_size), chunk=100)


@pytest.mark.parametrize("name", few_of([], ["gpt_oss", "glm4_moe", "qwen2_moe"]))
def test_answers_by_the_kernels_of_gpus(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Triton's interpreter, steps ahead."""
    pytest.importorskip("triton", reason="Triton is not installed here")
    from tests.engine.test_gpu_path import on_gpu_kernels

    family, overrides = MODELS[name]
    directory = make_mixture(tmp_path, family, seed=7, **overrides)
    prompts = prompts_around_borders(5, 42, VOCAB_SIZE, 33)[::6]
    answers = greedy(directory, prompts, 4)
    made = on_gpu_kernels(monkeypatch)
    llm = LLM(str(directory), dtype="float32", device="cpu", chunk=20)
    for output, answer in zip(llm.generate(prompts, replace(PARAMS, max_tokens=4)), answers, strict=True):
        assert agreement(output.outputs[0].token_ids, answer) != "different"
    assert made, "the kernels were not asked"
