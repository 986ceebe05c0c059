"""A whole job on the kernels of GPUs: on a GPU where there is one, else in Triton's interpreter, on a tiny model."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed here")

from umbel.api import LLM, RequestOutput
from umbel.attention.triton import TritonAttention
from umbel.ir.params import SamplingParams
from umbel.kernels.triton.rows import TritonRows
from umbel.runner.torch_runner import AheadTorchRunner

PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 30 + i % 4, *range(40, 40 + 3 * (i % 4))] for i in range(5)]
GREEDY = SamplingParams(temperature=0.0, max_tokens=3)
DRAWN = SamplingParams(temperature=0.8, top_p=0.9, seed=7, n=2, max_tokens=2)
PARAMS = [GREEDY] * 4 + [DRAWN]


def ids_of(outputs: list[RequestOutput]) -> list[list[tuple[int, ...]]]:
    """Token ids of every sample of every row."""
    return [[completion.token_ids for completion in output.outputs] for output in outputs]


@pytest.mark.parametrize("kv_dtype", ["auto", "fp8"])
def test_answers_are_those_of_the_processor(llm: LLM, monkeypatch: pytest.MonkeyPatch, kv_dtype: str) -> None:
    model, lossy = str(llm.config.model), {"kv_cache_dtype": kv_dtype, "allow_lossy": True}
    wanted = LLM(model, dtype="float32", device="cpu", chunk=64, **lossy).generate(PROMPTS, PARAMS)
    if torch.cuda.is_available():
        tested = LLM(model, dtype="float32", device="cuda", chunk=64, **lossy)
    else:
        calls = []

        def attention_of(spec, store, device):
            calls.append(spec)
            return TritonAttention(spec, store, device)

        monkeypatch.setattr("umbel.engine.build.pick_attention", attention_of)
        monkeypatch.setattr("umbel.engine.build.TorchRunner", AheadTorchRunner)
        rows = TritonRows()
        monkeypatch.setattr("umbel.kernels.rows.kernels_for", lambda *t: rows if rows.takes(*t) else None)
        tested = LLM(model, dtype="float32", device="cpu", chunk=64, **lossy)
    got = tested.generate(PROMPTS, PARAMS)
    assert ids_of(got) == ids_of(wanted)
    if torch.cuda.is_available():
        assert ids_of(tested.generate(PROMPTS, PARAMS)) == ids_of(got)
    else:
        assert calls, "the kernels were not asked"
