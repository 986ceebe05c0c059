"""Printed plans of canonical workloads, kept as files: they do not change by accident.

After a change that is meant: UMBEL_WRITE_SNAPSHOTS=1 pytest tests/plan/test_explain.py, then read the diff.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.plan.workloads import CANONICAL, MACHINE, SPEC
from umbel.config import EngineConfig
from umbel.plan.explain import duration, explain, to_json
from umbel.plan.planner import make_plan

SNAPSHOTS = Path(__file__).parent / "snapshots"


@pytest.mark.parametrize("name", CANONICAL)
def test_printed_plan(name: str) -> None:
    text = explain(make_plan(CANONICAL[name](), SPEC, EngineConfig("tiny"), MACHINE))
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("UMBEL_WRITE_SNAPSHOTS"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    assert max(len(line) for line in text.splitlines()) <= 160


def test_json_has_the_names_that_others_rely_on() -> None:
    plan = make_plan(CANONICAL["duplicates"](), SPEC, EngineConfig("tiny"), MACHINE)
    found = json.loads(json.dumps(to_json(plan)))
    assert {"rows", "duplicate_rows", "prompt_tokens", "computed_prompt_tokens", "kv_peak_tokens"} <= set(found)
    assert (found["rows"], found["duplicate_rows"], found["computed_prompt_tokens"]) == (60, 57, 192)
    assert 0 < found["seconds"]["low"] < found["seconds"]["expected"] < found["seconds"]["high"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.01234, "0.0123 s"), (59.94, "59.9 s"), (75, "1 min 15 s"), (3 * 3600 + 60, "3 h 1 min"), (200_000, "2 d 7 h")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
