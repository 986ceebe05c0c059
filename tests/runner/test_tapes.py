"""Steps of few rows that are recorded give the bits of those that run as they are, or are not recorded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.adapters import write_adapter
from tests.parameters import few_of
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.ir.params import SamplingParams
from umbel.kernels.dispatch import kernels
from umbel.kernels.native.products import has_products
from umbel.kernels.native.tape import Tape, TapeMemory
from umbel.kernels.rows import rms_norm
from umbel.runner.pick import VARIABLE
from umbel.runner.tapes import MOST_ROWS, SEEN

pytestmark = pytest.mark.skipif(kernels().native is None, reason="nothing is compiled here")

LOSSY = {"allow_lossy": True}
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"dtype": "float32"}),
    ("qwen3", {"dtype": "float32", "linear": "int4", **LOSSY}),
    ("qwen3", {"dtype": "float32", "linear": "int8", "kv_cache_dtype": "int8", **LOSSY}),
    ("qwen2", {"dtype": "float32", "linear": "int4-head8", **LOSSY}),
    ("qwen3", {"dtype": "bfloat16"}),
]
ROWS = 5


def asking(row: int) -> SamplingParams:
    """Rows that end one after the other, so that steps have any number of rows; some are drawn."""
    drawn = {"temperature": 0.8, "seed": row} if row % 2 else {"temperature": 0.0}
    return SamplingParams(**drawn, max_tokens=6 + 5 * row, ignore_eos=True, logprobs=2)


def bits(llm: LLM) -> list[Any]:
    """Tokens and log-probabilities of some rows that share a beginning."""
    prompts = [[5, 6, 7, 8, 30 + row, *range(40, 40 + 40 * (row % 3))] for row in range(ROWS)]
    outputs = llm.generate(prompts, [asking(row) for row in range(ROWS)])
    assert all(output.error is None for output in outputs)
    return [(o.outputs[0].token_ids, o.outputs[0].logprobs) for o in outputs]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """The tapes that were run, once for each time."""
    monkeypatch.delenv(VARIABLE, raising=False)
    found: list[Tape] = []
    run = Tape.run

    def counted(self: Tape) -> None:
        found.append(self)
        run(self)

    monkeypatch.setattr(Tape, "run", counted)
    return found


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("family", "form"), few_of(FORMS[:2], FORMS[2:]))
def test_bits_are_those_of_steps_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: list[Tape], family: str, form: dict[str, Any], threads: int
) -> None:
    if not has_products(getattr(torch, form["dtype"]), kernels().name):
        pytest.skip(f"products in {form['dtype']} are torch's here")
    model = str(make_model(tmp_path / "model", family, seed=2))
    before = torch.get_num_threads()
    try:
        llm = LLM(model, device="cpu", threads=threads, **form)
        taped, again = bits(llm), bits(llm)
        n_runs, n_tapes = len(runs), len(set(map(id, runs)))
        monkeypatch.setenv(VARIABLE, "0")
        assert bits(LLM(model, device="cpu", threads=threads, **form)) == taped == again
    finally:
        torch.set_num_threads(before)
    assert n_tapes >= ROWS and n_runs > 2 * n_tapes, (n_tapes, n_runs)
    assert len(runs) == n_runs, "a step was recorded although that is turned off"


def test_what_torch_computes_a_part_of_is_not_recorded(tmp_path: Path, runs: list[Tape]) -> None:
    llm = LLM(str(make_model(tmp_path / "model", "mixtral", seed=2)), dtype="float32", device="cpu")
    assert bits(llm) == bits(llm)
    assert runs == []


def test_rows_with_adapters_are_not_recorded(tmp_path: Path, runs: list[Tape]) -> None:
    """An adapter comes when steps without it are recorded; its products differ from step to step."""
    model = make_model(tmp_path / "model", "qwen3", seed=2)
    llm = LLM(str(model), dtype="float32", device="cpu")
    params = SamplingParams(temperature=0.0, max_tokens=SEEN + 9, ignore_eos=True)
    plain = llm.generate([[5, 6, 7]], params)[0].outputs[0].token_ids
    recorded = len(runs)
    write_adapter(tmp_path / "adapter", model, rank=4, seed=1)
    asked = {"max_tokens": SEEN + 9, "temperature": 0.0, "ignore_eos": True, "lora": "own"}
    llm = LLM(str(model), dtype="float32", device="cpu", lora={"own": str(tmp_path / "adapter")})
    adapted = llm.generate([[5, 6, 7]], SamplingParams(**asked))[0].outputs[0].token_ids
    assert recorded > 0 and len(runs) == recorded and adapted != plain


def test_large_steps_are_not_recorded(tmp_path: Path, runs: list[Tape]) -> None:
    llm = LLM(str(make_model(tmp_path / "model", "llama", seed=2)), dtype="float32", device="cpu")
    params = SamplingParams(temperature=0.0, max_tokens=9, ignore_eos=True)
    llm.generate([[5, 6, 7 + row] for row in range(MOST_ROWS + 1)], params)
    assert runs == []
    llm.generate([[5, 6, 7 + row] for row in range(MOST_ROWS)], params)
    assert runs


def test_a_tape_computes_with_numbers_as_they_are_now() -> None:
    x, weight = torch.randn(2, 64), torch.randn(64)
    tape = Tape(TapeMemory())
    twice = tape.record(lambda: rms_norm(rms_norm(x, weight, 1e-5).view(2, 64), weight, 1e-5))
    assert twice is not None
    x.copy_(torch.randn(2, 64))
    tape.run()
    assert torch.equal(twice, rms_norm(rms_norm(x, weight, 1e-5), weight, 1e-5))


@pytest.mark.parametrize(
    "act",
    [lambda x: x + 1, lambda x: x.add_(1), lambda x: x.t().contiguous(), lambda x: x[torch.tensor([0])], Tensor.sum],
    ids=["a sum", "in place", "a copy", "some rows", "all of it"],
)
def test_a_tape_knows_what_it_misses(act: Callable[[Tensor], Tensor]) -> None:
    x, weight = torch.randn(2, 64), torch.randn(64)
    with torch.inference_mode():
        assert Tape(TapeMemory()).record(lambda: (act(x), rms_norm(x, weight, 1e-5))) is None
        assert Tape(TapeMemory()).record(lambda: rms_norm(x, weight, 1e-5).reshape(-1)) is not None


@pytest.mark.slow
def test_recording_imports_no_compiler() -> None:
    """Torch's takes a second, which a job of a few rows must not pay."""
    program = (
        "import sys, torch\n"
        "from umbel.kernels.native.tape import Tape, TapeMemory\n"
        "Tape(TapeMemory()).record(lambda: torch.empty(3).view(3, 1))\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_tapes_share_memory_and_grow_it() -> None:
    memory = TapeMemory()
    first = [memory.take((3, 5), torch.bfloat16) for _ in range(3)]
    large = memory.take((1 << 20,), torch.float32)
    spans = sorted((t.data_ptr(), t.data_ptr() + t.nbytes) for t in (*first, large))
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    memory.begin()
    assert memory.take((3, 5), torch.bfloat16).data_ptr() == first[0].data_ptr()
    assert memory.take((1 << 20,), torch.float32).data_ptr() == large.data_ptr()
