"""int8 through the whole engine: only when asked for twice, alone as among others, and refused where it cannot be."""

from __future__ import annotations

import pytest
import torch

from tests.tiny_models import make_model
from umbel import LLM, SamplingParams
from umbel.errors import UsageError
from umbel.kernels.dispatch import KernelChoice, kernels
from umbel.linear import int8, pick
from umbel.linear.int8 import Int8Linear

PROMPTS = [[5 + i, 9, 30 + i % 3, 7, 11 + i, 40] * (1 + i % 4) for i in range(9)]
PARAMS = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True, logprobs=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("int8") / "qwen3", "qwen3", seed=5))


def load(folder: str) -> LLM:
    return LLM(folder, dtype="float32", device="cpu", threads=1, linear="int8", allow_lossy=True)


@pytest.mark.skipif(kernels().native is None, reason="no compiled kernels in use")
def test_a_row_alone_and_among_others(folder: str) -> None:
    llm = load(folder)
    assert isinstance(llm.engine.model.decoder.layers[0].block.down, Int8Linear)
    together = llm.generate(PROMPTS, PARAMS)
    for prompt, among in zip(PROMPTS, together, strict=True):
        (alone,) = llm.generate([prompt], PARAMS)
        assert alone.outputs[0].token_ids == among.outputs[0].token_ids
        assert alone.outputs[0].cumulative_logprob == among.outputs[0].cumulative_logprob


def test_it_says_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "kernels", lambda: KernelChoice(None, "nothing was compiled"))
    with pytest.raises(UsageError, match=r"int8.*nothing was compiled"):
        pick.pick_linear(torch.float32, torch.device("cpu"), "int8")
