"""The real engine on a tiny model: killed or drained in the middle, resumed, the same bytes come out.

`tools/kill_test.py` is the large version, and `-m nightly` runs it here at goal 1's size per change.
"""

from __future__ import annotations

import importlib.util
import json
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.held import COMMITTED, HELD, stop_held
from tests.tiny_models import make_model
from umbel.cli.main import main
from umbel.jobs.verify import verify

N_ROWS = 40
KINDS: list[dict[str, Any]] = [
    {"choices": [" right", " wrong answer"], "calibration_prompt": "N/A"},
    {"prompt_logprobs": 2},
    {"continuations": [" the report", [5, 6]]},
    {"pooling_params": {"task": "embed"}, "max_tokens": None},
]
TOOL = Path(__file__).parents[2] / "tools" / "kill_test.py"


def arguments(place: Path, output: str) -> list[str]:
    given = [str(place / "in.jsonl"), "-o", str(place / output), "--model", str(place / "tiny"), "--dtype", "float32"]
    given += ["--threads", "1", "--temperature", "0.8", "--summary", str(place / f"{output}.summary")]
    return ["run", *given, "--kv-tokens", "512"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, an input and the output of an uninterrupted run."""
    place = tmp_path_factory.mktemp("kill")
    make_model(place / "tiny", "qwen3")
    rng = random.Random(1)
    rows = [{"prompt": f"Classify the text {rng.random()}", "max_tokens": 4 + i % 40, "seed": i} for i in range(N_ROWS)]
    for row, more in zip(rows[::6], KINDS * N_ROWS, strict=False):
        row.update(more)
    (place / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(arguments(place, "whole")) == 0
    return place


@pytest.mark.parametrize(
    ("number", "kept"),
    [(signal.SIGKILL, {COMMITTED}), (signal.SIGTERM, set(range(HELD, N_ROWS)))],  # with those that ended in the grace
    ids=["SIGKILL", "SIGTERM"],
)
def test_stopped_in_the_middle_and_resumed(number: signal.Signals, kept: set[int], place: Path) -> None:
    name = number.name
    code = stop_held(place / f"{name}.held", arguments(place, name), number)
    assert code == {signal.SIGKILL: -9, signal.SIGTERM: 75}[number]
    assert main(arguments(place, name)) == 0
    assert json.loads((place / f"{name}.summary").read_text())["resumed"] in kept
    assert (place / name).read_bytes() == (place / "whole").read_bytes()
    assert verify(place / "in.jsonl", place / name).exit_code == 0


@pytest.mark.nightly
def test_many_random_kills(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("kill_test", TOOL)
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kill_test", tool)
    spec.loader.exec_module(tool)
    assert tool.main(["--model", str(place / "tiny"), "--rows", "2000", "--kills", "25", "--threads", "1"]) == 0
