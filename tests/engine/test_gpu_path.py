"""A whole job on the kernels of GPUs: on a GPU where there is one, else in Triton's interpreter, on a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed here")

from torch import Tensor

from tests.kernels.triton_rows import use_triton_rows
from tests.tiny_models import make_model
from umbel.api import LLM, RequestOutput
from umbel.attention.triton import TritonAttention
from umbel.ir.params import SamplingParams
from umbel.ir.pooling import PoolingParams
from umbel.ir.spans import Spans
from umbel.ir.spec import ModelSpec
from umbel.kv.states import StateStore
from umbel.kv.store import KVStore
from umbel.models.decoder import Decoder
from umbel.runner.ahead import AheadTorchRunner
from umbel.runner.graphs import CudaGraphs, DecodeGraphs

PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 30 + i % 4, *range(40, 40 + 3 * (i % 4))] for i in range(5)]
# A GPU records a form at its third step, so that answers must be longer there; the interpreter is slow.
GREEDY = SamplingParams(temperature=0.0, max_tokens=24 if torch.cuda.is_available() else 3, ignore_eos=True)
CHANGED = SamplingParams(
    temperature=0.0,
    max_tokens=GREEDY.max_tokens,
    repetition_penalty=1.3,
    presence_penalty=0.5,
    logit_bias={9: 2.0},
    allowed_token_ids=tuple(range(0, 300, 2)),
)
DRAWN = SamplingParams(temperature=0.8, top_p=0.9, seed=7, n=2, max_tokens=2)
PARAMS = [GREEDY] * 3 + [CHANGED, DRAWN]


def ids_of(outputs: list[RequestOutput]) -> list[list[tuple[int, ...]]]:
    """Token ids of every sample of every row."""
    return [[completion.token_ids for completion in output.outputs] for output in outputs]


def on_gpu_kernels(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Have the processor run what a GPU would, in the interpreter; the result lists the attentions that were made."""
    made: list[object] = []

    def attention_of(
        spec: ModelSpec, store: KVStore, device: torch.device, asked: str, techniques: tuple[str, ...], tally: object
    ) -> TritonAttention:
        assert set(techniques) <= {"turbo-rag"}
        assert asked == "auto"
        made.append(TritonAttention(spec, store, device))
        return made[-1]

    monkeypatch.setattr("umbel.engine.build.pick_attention", attention_of)
    monkeypatch.setattr("umbel.engine.build.TorchRunner", lambda *parts: AheadTorchRunner(*parts[:3], states=parts[4]))
    use_triton_rows(monkeypatch)
    return made


def count_graphs(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Has an entry for each CUDA graph that is recorded from now on."""
    recorded: list[object] = []
    record = CudaGraphs.record

    def counted(self: CudaGraphs, act: Callable[[], Tensor]) -> Callable[[], Tensor]:
        recorded.append(act)
        return record(self, act)

    monkeypatch.setattr(CudaGraphs, "record", counted)
    return recorded


@pytest.mark.slow
@pytest.mark.parametrize("kv_dtype", ["fp8", "auto"])
def test_answers_are_those_of_the_processor(llm: LLM, monkeypatch: pytest.MonkeyPatch, kv_dtype: str) -> None:
    model, lossy = str(llm.config.model), {"kv_cache_dtype": kv_dtype, "allow_lossy": True}
    wanted = LLM(model, dtype="float32", device="cpu", chunk=64, **lossy).generate(PROMPTS, PARAMS)
    on_gpu = torch.cuda.is_available()
    recorded = count_graphs(monkeypatch)
    made = [] if on_gpu else on_gpu_kernels(monkeypatch)
    tested = LLM(model, dtype="float32", device="auto", chunk=64, **lossy)
    got = tested.generate(PROMPTS, PARAMS)
    assert ids_of(got) == ids_of(wanted)
    if on_gpu:
        assert recorded, "no step was recorded"
        assert ids_of(tested.generate(PROMPTS, PARAMS)) == ids_of(got)
    else:
        assert made, "the kernels were not asked"


def test_scores_are_those_of_the_processor(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts cut over steps and shared, beside rows that want no scores and decode meanwhile."""
    model, scored = str(llm.config.model), SamplingParams(temperature=0.0, max_tokens=2, prompt_logprobs=1)
    params = [scored, GREEDY, scored, scored, scored]
    wanted = LLM(model, dtype="float32", device="cpu", chunk=8).generate(PROMPTS, params)
    if not torch.cuda.is_available():
        assert on_gpu_kernels(monkeypatch) == []
    tested = LLM(model, dtype="float32", device="auto", chunk=8)
    compared = 0
    for output, want in zip(tested.generate(PROMPTS, params), wanted, strict=True):
        assert (output.prompt_logprobs is None) == (want.prompt_logprobs is None)
        for one, other in zip(output.prompt_logprobs or (), want.prompt_logprobs or (), strict=True):
            if one is not None and other is not None:
                assert one.token_id == other.token_id and one.top[0][0] == other.top[0][0]
                assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
                compared += 1
    assert compared == sum(len(PROMPTS[i]) - 1 for i in (0, 2, 3, 4))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["LAST", "MEAN"])
def test_vectors_are_those_of_the_processor(llm: LLM, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Prompts are cut over steps and shared."""
    model, asked = str(llm.config.model), PoolingParams(pooling_type=kind)
    wanted = LLM(model, dtype="float32", device="cpu", chunk=12).embed(PROMPTS[2:4], asked)
    if not torch.cuda.is_available():
        assert on_gpu_kernels(monkeypatch) == []
    got = LLM(model, dtype="float32", device="auto", chunk=12).embed(PROMPTS[2:4], asked)
    for one, other in zip(got, wanted, strict=True):
        assert one.outputs.embedding == pytest.approx(other.outputs.embedding, abs=1e-5)


class Repeats:
    """Instead of graphs: launches the same once more, with whatever lies in the same memory by then."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def record(self, act: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Implement `Graphs.record`."""
        self.recorded += 1

        def replay() -> Tensor:
            self.replayed += 1
            return act()

        return replay


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has real graphs, which the test above runs")
def test_recorded_steps_answer_the_same(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that come to an end one by one, so that forms are larger than steps; one answer goes over a page's end."""
    check_recorded(str(llm.config.model), monkeypatch, rows=3, tokens=6)


@pytest.mark.nightly
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has real graphs")
def test_recorded_steps_of_experts_answer_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many rows an expert has changes from step to step, unknown to the processor."""
    model = make_model(tmp_path / "model", "qwen3_moe", seed=3)
    check_recorded(str(model), monkeypatch, rows=2, tokens=5)


@pytest.mark.nightly
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has real graphs")
def test_recorded_steps_of_layers_that_differ_answer_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that sees all and one with a window have lists of work of their own."""
    window = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "num_hidden_layers": 2}
    model = make_model(tmp_path / "model", "qwen3", seed=3, **window)
    check_recorded(str(model), monkeypatch, rows=2, tokens=5)


def record_steps(monkeypatch: pytest.MonkeyPatch) -> Repeats:
    """Have steps recorded, in small forms, on kernels that the processor runs."""
    monkeypatch.setattr("umbel.runner.graphs.LEAST", 8)
    monkeypatch.setattr("umbel.runner.graphs._bucket", lambda rows: rows + rows % 2)
    graphs = Repeats()

    def runner_of(
        decoder: Decoder,
        attention: TritonAttention,
        device: torch.device,
        _: Spans,
        states: StateStore | None,
        *rest: Any,
    ) -> AheadTorchRunner:
        return AheadTorchRunner(decoder, attention, device, DecodeGraphs(decoder, attention, graphs), states)

    monkeypatch.setattr("umbel.engine.build.TorchRunner", runner_of)
    return graphs


def check_recorded(model: str, monkeypatch: pytest.MonkeyPatch, rows: int, tokens: int) -> None:
    """Rows of `tokens` and more."""
    params = [SamplingParams(temperature=0.0, max_tokens=tokens + 3 * i, ignore_eos=True) for i in range(rows)]
    wanted = LLM(model, dtype="float32", device="cpu", chunk=64).generate(PROMPTS[:rows], params)
    on_gpu_kernels(monkeypatch)
    graphs = record_steps(monkeypatch)
    with np.errstate(all="ignore"):  # rows that are not there hold whatever was in memory
        got = LLM(model, dtype="float32", device="cpu", chunk=64).generate(PROMPTS[:rows], params)
    assert ids_of(got) == ids_of(wanted)
    assert 1 <= graphs.recorded <= rows and graphs.replayed >= tokens
