"""A backend of attention asked for by name: a whole job on it, its place in the plan, and its refusal."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tests.attention import fake_flashinfer
from umbel.api import LLM
from umbel.attention.capabilities import Case
from umbel.attention.flashinfer import FlashInferAttention
from umbel.attention.grid import GridAttention
from umbel.attention.switch import Switch
from umbel.cli.main import main
from umbel.ir.params import SamplingParams
from umbel.kernels.view import View
from umbel.technique import Capability

PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13, *[14] * 20, 30 + i % 4, *range(40, 40 + 3 * (i % 4))] for i in range(8)]
GREEDY = SamplingParams(temperature=0.0, max_tokens=4)
DRAWN = SamplingParams(temperature=0.8, top_p=0.9, seed=7, n=3, max_tokens=6)
PARAMS = [GREEDY] * 6 + [DRAWN] * 2


def ids_of(llm: LLM) -> list[list[tuple[int, ...]]]:
    """Token ids of every sample of every row."""
    return [[completion.token_ids for completion in output.outputs] for output in llm.generate(PROMPTS, PARAMS)]


def one_like(llm: LLM, backend: str) -> LLM:
    """The same model with a backend by name."""
    return LLM(str(llm.config.model), dtype="float32", device="cpu", threads=1, chunk=64, attention_backend=backend)


def test_plain_torch_gives_the_same_answers(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, made = ids_of(llm), []

    def watched(*parts: object) -> GridAttention:
        made.append(GridAttention(*parts))
        return made[-1]

    monkeypatch.setattr("umbel.attention.grid.GridAttention", watched)
    assert ids_of(one_like(llm, "torch")) == wanted and made


def test_flashinfer_gives_the_same_answers(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls in torch, as if the processor were a GPU that has it."""
    wanted, made = ids_of(llm), []
    monkeypatch.setitem(sys.modules, "flashinfer", fake_flashinfer.module())
    monkeypatch.setattr(Case, "of", lambda *_, **__: Case("cuda", "bfloat16", (128,)))
    monkeypatch.setattr(Capability, "elsewhere", lambda *_: "")
    original = FlashInferAttention.attend

    def watched(self: FlashInferAttention, layer: int, q: torch.Tensor, select: View | None = None) -> torch.Tensor:
        made.append(len(self._rows))
        return original(self, layer, q, select)

    monkeypatch.setattr(FlashInferAttention, "attend", watched)
    monkeypatch.setattr("umbel.attention.flashinfer.shipped_switch", lambda: Switch(1e9, False, "test", None, None))
    assert ids_of(one_like(llm, "flashinfer")) == wanted
    assert max(made) > 1, "nothing was shared"


def test_the_plan_names_it(llm: LLM) -> None:
    plan, usual = one_like(llm, "torch").plan(PROMPTS, PARAMS), llm.plan(PROMPTS, PARAMS)
    assert plan.decision("attention").value == "torch"
    assert [d for d in usual.decisions if d.name == "attention"] == []
    (refused,) = [r for r in usual.refusals if r.technique == "attention: flashinfer"]
    assert refused.reason == "it runs on cuda, and this is cpu"


def test_what_runs_teach_is_kept_apart(llm: LLM) -> None:
    assert one_like(llm, "torch").config.cost_key != llm.config.cost_key == "float32"


def test_the_command_line_refuses_it(llm: LLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "Once upon a time", "max_tokens": 2}\n')
    run = ["run", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "-m", "demo", "--device", "cpu"]
    assert main([*run, "--attention-backend", "flashinfer"]) == 2
    assert "it runs on cuda, and this is cpu" in capsys.readouterr().err
    assert main([*run, "--attention-backend", "torch"]) == 0
