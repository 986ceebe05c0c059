"""The machine that `umbel plan` plans for: that of the device which a run would take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.jobs.fakes import write_rows
from umbel.batch import devices
from umbel.cli.main import main
from umbel.cost.cards import card
from umbel.cost.machine import Machine


def pick(name: str) -> torch.device:
    return torch.device("cuda" if name == "auto" else name)


def machine(device: torch.device) -> Machine:
    return card("l40s" if device.type == "cuda" else "l4")


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver, and a GPU that torch finds."""
    monkeypatch.setattr(devices, "DRIVERS", (Path("/"),))
    monkeypatch.setattr("umbel.engine.device.pick_device", pick)
    monkeypatch.setattr("umbel.engine.device.machine_of", machine)


def planned_for(tmp_path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": "a", "max_tokens": 2}])
    assert main(["plan", str(source), "-m", "demo", "--json", *options]) == 0
    decisions = json.loads(capsys.readouterr().out)["decisions"]
    return next(str(one["value"]) for one in decisions if one["name"] == "machine")


def test_a_gpu_is_planned_for_where_there_is_one(
    with_gpu: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert planned_for(tmp_path, capsys) == "l40s"
    assert planned_for(tmp_path, capsys, "--device", "cpu") == "this"
    assert planned_for(tmp_path, capsys, "--machine", "h100") == "h100"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_here_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": "a"}])
    assert main(["plan", str(source), "-m", "demo", "--device", "cuda"]) == 2
    assert "not on this machine" in capsys.readouterr().err
