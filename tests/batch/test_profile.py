"""`umbel run --profile`: where the trace goes, what is refused, and what the tables say of a real small job."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.jobs.fakes import write_rows
from tests.tiny_models import make_model
from umbel.cli.main import main

ROWS = [{"prompt": f"the weather report, part {i}", "max_tokens": 4, "temperature": 0.0} for i in range(6)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_model(tmp_path / "tiny")
    write_rows(tmp_path / "in.jsonl", ROWS)
    return tmp_path


def run(place: Path, *more: str) -> int:
    where = ["run", *more, str(place / "in.jsonl"), "-o", str(place / "out.jsonl")]
    return main([*where, "--model", str(place / "tiny"), "--dtype", "float32", "--threads", "1"])


def test_a_profile_and_the_same_answers(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place) == 0
    plain = (place / "out.jsonl").read_bytes()
    capsys.readouterr()
    assert run(place, "--fresh", "--quiet", "--profile") == 0, "the word after --profile is the input, not its value"
    assert (place / "out.jsonl").read_bytes() == plain
    told = capsys.readouterr().err
    trace = json.loads((place / "out.jsonl.profile.json").read_text())
    assert "PROFILE" in told and "out.jsonl.profile.json (all " in told and "most to gain" in told
    for kind in trace["otherData"]["profile"]["kinds"]:
        assert f"{kind['kind']}: {kind['steps']} steps" in told
        attention = next(part for part in kind["parts"] if part["name"] == "attention")
        assert re.search(rf"^  attention +{attention['calls']} +{attention['seconds']:.3f} ", told, re.M)
    outside = {part["name"] for part in trace["otherData"]["profile"]["outside"]["parts"]}
    assert {"starting", "loading the model", "planning", "reading and tokenising", "store"} <= outside
    assert {"writing the output", "building", "answers"} <= outside
    steps = [e for e in trace["traceEvents"] if e.get("cat") == "step"]
    assert sum(kind["steps"] for kind in trace["otherData"]["profile"]["kinds"]) == len(steps) > 0


@pytest.mark.slow
def test_a_path_of_ones_own_and_a_job_with_nothing_to_do(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, f"--profile={place / 'mine.json'}") == 0
    assert (place / "mine.json").exists() and not (place / "out.jsonl.profile.json").exists()
    assert run(place, f"--profile={place / 'again.json'}") == 0
    assert "in 0 steps" in capsys.readouterr().err
    assert [e["ph"] for e in json.loads((place / "again.json").read_text())["traceEvents"]][:3] == ["M", "M", "X"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("in.jsonl", "must end in .json"),
        ("nowhere/t.json", "there is no directory"),
        ("s.json", "is the file of --summary of this job"),
    ],
)
def test_bad_paths_are_refused_before_anything_runs(
    place: Path, capsys: pytest.CaptureFixture[str], path: str, why: str
) -> None:
    assert run(place, f"--profile={place / path}", "--summary", str(place / "s.json")) == 2
    assert why in capsys.readouterr().err
    assert not (place / "out.jsonl").exists()
    assert (place / "in.jsonl").read_bytes().count(b"\n") == len(ROWS)
