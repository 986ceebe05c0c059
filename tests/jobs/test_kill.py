"""The real engine on a tiny model: killed or drained in the middle, resumed, the same bytes come out.

`tools/kill_test.py` is the large version, and `-m slow` runs it here at goal 1's size per change.
"""

from __future__ import annotations

import importlib.util
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tiny_models import make_model
from umbel.jobs.verify import verify

N_ROWS = 120
TOOL = Path(__file__).parents[2] / "tools" / "kill_test.py"


def command(place: Path, output: str) -> list[str]:
    given = [str(place / "in.jsonl"), "-o", str(place / output), "--model", str(place / "tiny"), "--dtype", "float32"]
    given += ["--threads", "1", "--temperature", "0.8", "--summary", str(place / f"{output}.summary")]
    given += ["--chunk", "8", "--kv-tokens", "512"]  # few rows at a time: several commits on the fastest machine
    return [sys.executable, "-m", "umbel.cli.main", "run", *given]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, an input and the output of an uninterrupted run."""
    place = tmp_path_factory.mktemp("kill")
    make_model(place / "tiny", "qwen3")
    rng = random.Random(1)
    rows = [
        {"prompt": f"Classify the text {rng.random()}", "max_tokens": 4 + 3 * (i % 40), "seed": i}
        for i in range(N_ROWS)
    ]
    (place / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    subprocess.run(command(place, "whole"), check=True, capture_output=True)
    return place


def stop_after_a_commit(place: Path, output: str, number: int) -> int:
    """Start the job, send signal `number` once results are committed; returns the exit code."""
    journal, planned = place / f"{output}.umbel-wal", 0
    with subprocess.Popen(command(place, output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            size = journal.stat().st_size if journal.exists() else 0
            planned = planned or (size if size > 30_000 else 0)  # the plan is stored first, then results are
            if planned and size > planned + 4_096:
                break
            time.sleep(0.01)
        process.send_signal(number)
        return process.wait(timeout=60)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_stopped_in_the_middle_and_resumed(name: str, place: Path) -> None:
    code = stop_after_a_commit(place, name, getattr(signal, name))
    assert code in ({-9} if name == "SIGKILL" else {75})
    subprocess.run(command(place, name), check=True, capture_output=True)
    summary = json.loads((place / f"{name}.summary").read_text())
    assert 0 < summary["resumed"] < N_ROWS
    assert (place / name).read_bytes() == (place / "whole").read_bytes()
    assert verify(place / "in.jsonl", place / name).exit_code == 0


@pytest.mark.slow
def test_many_random_kills(place: Path) -> None:
    spec = importlib.util.spec_from_file_location("kill_test", TOOL)
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    sys.modules["kill_test"] = tool
    spec.loader.exec_module(tool)
    assert tool.main(["--model", str(place / "tiny"), "--rows", "2000", "--kills", "25", "--threads", "1"]) == 0
