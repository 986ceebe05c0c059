"""The command: a tiny model through Umbel and the oracle, end to end; what it refuses before anything starts."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.tiny_models import make_model
from umbel.cli.main import main


@pytest.fixture
def model(tmp_path: Path) -> Path:
    make_model(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.mark.nightly
def test_from_prompts_to_page(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": [5, 6, 7, 8 + i], "max_tokens": 3} for i in range(4)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page, out = tmp_path / "page.md", tmp_path / "out"
    arguments = [
        "--model",
        str(model),
        "--workloads",
        str(tmp_path / "mine.jsonl"),
        "--repeats",
        "2",
        "--dtype",
        "float32",
    ]
    arguments += ["--engines", "umbel,umbel-sorted,vllm", "--out", str(out), "--page", str(page), "--check-rows", "3"]
    assert main(["bench", *arguments, "--threads", "1"]) == 0
    (result,) = out.glob("bench-*.json")
    found = json.loads(result.read_text())
    assert [m["engine"] for m in found["measurements"]] == ["umbel", "umbel-sorted", "umbel-sorted", "umbel"]
    assert all(m["seconds"] > 0 for m in found["measurements"])
    assert found["agreement"]["oracle"]["mine"]["umbel"] == {
        "rows": 3, "first_equal": 3, "all_equal": 3, "largest_lead_lost": None,
    }  # fmt: skip
    assert found["agreement"]["pairs"]["mine"]["umbel = umbel-sorted"]["all_equal"] == 4
    assert [f["engine"] for f in found["failures"]] == ["vllm"]
    assert all(c["matmul"] > 0 and c["read"] > 0 for c in found["calibrations"])
    assert "### Seconds" in page.read_text() and (tmp_path / "page-1.svg").exists()
    capsys.readouterr()
    assert main(["bench", "--from", str(result), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measurements"] == found["measurements"]


@pytest.mark.slow
def test_whole_commands(tmp_path: Path, model: Path) -> None:
    arguments = ["--model", str(model), "--workloads", "W4@1", "--repeats", "0", "--whole-command", "1"]
    assert main(["bench", *arguments, "--dtype", "float32", "--out", str(tmp_path / "out"), "--threads", "1"]) == 0
    (result,) = (tmp_path / "out").glob("bench-*.json")
    (whole,) = json.loads(result.read_text())["whole"]
    assert whole["seconds"] > 0 and whole["engine"] == "umbel"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a model"),
        (["--model", "MODEL", "--engines", "umbrella"], "no engine 'umbrella'"),
        (["--model", "MODEL", "--engines", "umbel,umbel"], "name each engine once"),
        (["--model", "MODEL", "--workloads", "W9"], "is not a file"),
        (["--model", "MODEL", "--workloads", "D8192"], "tokens, the model only"),
        (["--model", "MODEL", "--peer", "vllm"], "NAME=PATH"),
        (["--model", "MODEL", "--peer", "vlm=x"], "did you mean 'vllm'"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    given = [str(model) if word == "MODEL" else word for word in arguments]
    assert main(["bench", *given, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*.json"))


def test_an_end_asked_for_passes_by_everything_that_ends_engines(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []

    def bench(*_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            ended.append("engines")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("umbel.bench.session.run_bench", bench)
    assert main(["bench", "--model", str(model), "--out", str(tmp_path)]) == 128 + signal.SIGTERM
    assert ended == ["engines"] and signal.getsignal(signal.SIGTERM) is before
