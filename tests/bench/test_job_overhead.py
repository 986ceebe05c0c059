"""The benchmark of what a job costs around its model: its engine is one that a job takes."""

from __future__ import annotations

import sys

import pytest
from bench.job_overhead import main


def test_jobs_of_an_instant_engine_end(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["job_overhead", "--rows", "40"])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "40 rows, custom ids no, columns no",
        "40 rows, custom ids yes, columns no",
        "40 rows, custom ids yes, columns yes",
    ]
    assert all("us of processor" in line and "planning" in line for line in lines)
