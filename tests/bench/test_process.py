"""One engine's process: answers, errors, lateness, pauses, and an end that leaves nothing behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.bench.fakes import SCRIPT
from tests.held import wait_until
from umbel.bench.process import EngineError, EngineProcess


def start(folder: Path, code: str | None = None) -> EngineProcess:
    command = [sys.executable, SCRIPT] if code is None else [sys.executable, "-c", code]
    return EngineProcess("fake", command, os.environ, folder / "fake.log")


def test_asks_and_ends(tmp_path: Path) -> None:
    process = start(tmp_path)
    assert process.ask({"do": "measure"}, 600)["matmul"] == 1e9
    process.stop()
    assert not process.alive


def test_its_processor_time_is_what_it_says_of_itself(tmp_path: Path) -> None:
    code = "import json,sys,time\nfor _ in sys.stdin:\n while time.process_time()<.3: pass\n"
    process = start(tmp_path, code + " print(json.dumps({'had':time.process_time()}),flush=True)")
    before = process.processor_seconds()
    had = process.ask({"do": "work"}, 600)["had"]
    assert before < 0.3 <= had and process.processor_seconds() == pytest.approx(had, abs=0.1)
    process.stop()


def test_an_error_is_raised_and_the_process_goes_on(tmp_path: Path) -> None:
    process = start(tmp_path)
    process.ask({"do": "load", "settings": {"fail": True}}, 600)
    with pytest.raises(EngineError, match="fake: run: out of ideas"):
        process.ask({"do": "run"}, 600)
    assert process.alive
    process.stop()


@pytest.mark.parametrize(
    ("settings", "timeout", "said"), [({"die": True}, 600, "ended"), ({"hang": True}, 0.3, "took more")]
)
def test_the_dead_and_the_late_are_ended(tmp_path: Path, settings: dict[str, bool], timeout: float, said: str) -> None:
    process = start(tmp_path)
    process.ask({"do": "load", "settings": settings}, 600)
    with pytest.raises(EngineError, match=said):
        process.ask({"do": "run"}, timeout)
    assert not process.alive


def test_what_cannot_be_started_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be started"):
        EngineProcess("fake", [str(tmp_path / "python")], {}, tmp_path / "fake.log")


COUNTING = """
import json, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
for line in sys.stdin:
    print(json.dumps({"child": child.pid, "time": time.monotonic()}), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_the_whole_group_pauses_and_ends(tmp_path: Path) -> None:
    process = start(tmp_path, COUNTING)
    child = process.ask({}, 600)["child"]
    assert process.memory()[1] > 1 << 20
    process.pause()
    wait_until(lambda: state(child) == "T")
    process.resume()
    wait_until(lambda: state(child) != "T")
    assert process.ask({}, 600)["child"] == child
    process.pause()
    process.stop(0.1)  # it does not listen
    wait_until(lambda: state(child) in ("", "Z", "X"))


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
