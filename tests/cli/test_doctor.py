"""`umbel doctor`: what it reports, what it teaches plans, and advice that follows from figures."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.cli.checkup import advice
from umbel.cli.main import main
from umbel.ir.params import SamplingParams
from umbel.kernels.dispatch import kernels
from umbel.measure.probe import PROBES, make_step


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["doctor", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Each look at the clock is 20 ms after the last, so that all that is timed takes as long on every machine."""
    seconds = itertools.count(1000.0, 0.02)
    monkeypatch.setattr("time.perf_counter", lambda: next(seconds))


def test_without_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, "--device", "cpu", "--threads", "1")
    assert found["versions"]["torch"] == torch.__version__ and found["versions"]["umbel"]
    assert found["machine"]["threads"] == 1 and found["machine"]["free_memory_bytes"] > 0
    assert set(found["ceilings"]) == {"matmul float32", "matmul bfloat16", "copy"}
    assert all(0 < rate["usual"] <= rate["best"] for rate in found["ceilings"].values())
    assert found["cache"]["writable"] and "model" not in found
    assert found["kernels"]["name"] == kernels().name and found["kernels"]["reason"] == kernels().reason
    attention = found["attention"]
    assert attention["name"] == ("torch" if kernels().native is None else "native")
    assert attention["others"]["flashinfer"] == "it runs on cuda, and this is cpu"


def test_a_model_is_timed_and_plans_use_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = make_model(tmp_path / "tiny", torch_dtype="float32")
    (tmp_path / "in.jsonl").write_text('{"prompt": "Once upon a time", "max_tokens": 8}\n' * 5)
    plan = ["plan", str(tmp_path / "in.jsonl"), "-m", str(model), "--threads", "1", "--json"]
    assert main(plan) == 0
    before = machine_of(json.loads(capsys.readouterr().out))
    found = report(capsys, "-m", str(model), "--device", "cpu", "--threads", "1", "--seconds", "1")["model"]
    assert Path(found["history"]).exists()
    assert any(step["held_out"] for step in found["steps"]) and len(found["steps"]) > 10
    assert all(step["seconds"] > 0 and step["expected"] > 0 for step in found["steps"])
    assert found["small_job"]["seconds"] > 0
    assert main(plan) == 0
    after = machine_of(json.loads(capsys.readouterr().out))
    assert (earlier_runs(before), earlier_runs(after)) == (0, 2)  # the probes and the small job
    llm = LLM(str(model), threads=1, device="cpu")
    params = SamplingParams(max_tokens=4, ignore_eos=True)
    assert earlier_runs(llm.plan(["Once upon a time"], params).decision("machine").reason) == 2
    llm.generate(["Once upon a time"], params)
    assert earlier_runs(llm.plan(["Once upon a time"], params).decision("machine").reason) == 3


def earlier_runs(reason: str) -> int:
    found = re.search(r"steps of (\d+) earlier run", reason)
    return int(found[1]) if found else 0


def machine_of(plan: dict[str, Any]) -> str:
    return next(str(d["reason"]) for d in plan["decisions"] if d["name"] == "machine")


def test_it_reads_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("versions") and "GFLOP/s" in text and "advice" in text
    assert "not triton: it runs on cuda, and this is cpu" in text


def test_it_refuses_attention_that_cannot_serve(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "cpu", "--attention-backend", "triton"]) == 2
    assert "attention_backend='triton' cannot serve" in capsys.readouterr().err


FOUND: dict[str, Any] = {
    "machine": {"device": "cpu", "cores": 2, "threads": 2, "load": 0.1},
    "ceilings": {
        "matmul float32": {"best": 1e11, "usual": 9e10},
        "matmul bfloat16": {"best": 1e9, "usual": 1e9},
        "copy": {"best": 1e10, "usual": 9e9},
    },
    "cache": {"folder": "/somewhere", "writable": True},
}
CASES: list[tuple[dict[str, Any], str]] = [
    ({"machine": {**FOUND["machine"], "threads": 8}}, "8 threads on 2 cores"),
    ({"machine": {**FOUND["machine"], "load": 3.0}}, "Other work is running"),
    ({"ceilings": {**FOUND["ceilings"], "copy": {"best": 1e10, "usual": 1e9}}}, "shared with other work"),
    ({"model": {"dtype": "bfloat16", "own_dtype": "bfloat16"}}, "90.0 times slower than float32"),
    ({"cache": {"folder": None, "writable": False}}, "UMBEL_CACHE=off"),
    ({"cache": {"folder": "/somewhere", "writable": False}}, "cannot be written"),
]


@pytest.mark.parametrize(("change", "expected"), CASES)
def test_advice_follows_from_figures(change: dict[str, Any], expected: str) -> None:
    assert advice(FOUND) == []
    (line,) = advice(FOUND | change)
    assert expected in line


def test_a_faster_dtype_is_named() -> None:
    quick = {**FOUND["ceilings"], "matmul bfloat16": {"best": 4e11, "usual": 3.6e11}}
    (line,) = advice(FOUND | {"ceilings": quick, "model": {"dtype": "float32", "own_dtype": "bfloat16"}})
    assert "4.0 times faster" in line


def test_what_does_not_fit_is_said_before_it_is_loaded(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shape = {"hidden_size": 16384, "num_hidden_layers": 200, "intermediate_size": 65536, "num_attention_heads": 128}
    make_model(tmp_path / "tiny")
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(config | shape))
    assert main(["doctor", "-m", str(tmp_path / "tiny"), "--device", "cpu"]) == 6
    assert "GB are free" in capsys.readouterr().err


@pytest.mark.parametrize("probe", PROBES, ids=str)
def test_probes_are_steps(probe: Any) -> None:
    """Rows, nodes and pages fit together as a scheduler's would."""
    step = make_step(probe, 100)
    assert step.n_rows == probe.tokens == step.row_end[-1] == step.below_end.max()
    held = -(-(step.end - step.start) // step.page_size)
    assert (step.page_begin + held <= [*step.page_begin[1:], len(step.pages)]).all() and held.sum() == len(step.pages)
    owner = [int(n) for n, rows in enumerate(step.row_end - step.row_begin) for _ in range(rows)]
    assert all(step.start[n] <= p < step.end[n] for n, p in zip(owner, step.positions.tolist(), strict=True))
    assert len(step.sampling) == probe.count and (step.positions[step.sampling.at] + 1 == step.sampling.positions).all()
