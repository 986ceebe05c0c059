"""Replicas in a report: for each what was planned beside what it did, over several parts and runs of a job."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.plan.workloads import MACHINE, SPEC
from umbel.config import EngineConfig
from umbel.ir.params import SamplingParams
from umbel.ir.report import Stats
from umbel.ir.request import Completion, Output
from umbel.ir.tally import ReplicaTally
from umbel.ir.workload import Workload
from umbel.jobs.report.actuals import Recording
from umbel.jobs.report.page import report_page
from umbel.jobs.report.report import report_of
from umbel.jobs.report.sums import fold
from umbel.jobs.report.text import brief_text, report_text
from umbel.plan.deal.shared_plan import SharedPlan, plan_replicas
from umbel.plan.planner import make_plan

TALLIES = (
    ReplicaTally(0, "running", "node1", "", 20, 300, 40, 2.5, 0.25, lots=3),
    ReplicaTally(1, "running", "node2", "device a instead of b", 10, 200, 20, 1.5, 1.25, 4, 1, 2, 5, 3),
)


def planned(rows: int) -> tuple[Workload, SharedPlan]:
    workload = Workload.of([[7] * 20 + [i + 1, i % 5 + 1] for i in range(rows)], SamplingParams(max_tokens=2))
    return workload, plan_replicas(workload, 2, lambda some: make_plan(some, SPEC, EngineConfig("tiny"), MACHINE))


def stored(record: Any) -> Any:
    return json.loads(json.dumps(record))


def answered(recording: Recording, rows: range) -> None:
    for row in rows:
        recording.add(Output(row, 22, (Completion(0, "", (1, 2), "length"),)))


def report(recording: Recording, stats: Stats, tallies: tuple[ReplicaTally, ...]) -> dict[str, Any]:
    sums = fold(stored(recording.plan_record()), stored(recording.as_dict(stats, tallies)))
    rows = {"stored": 30, "answered": 30, "failed": 0, "cut": 0, "planned": 30}
    return {"output": "out", "status": "complete", "rows": rows, "errors": {}, **report_of(sums)}


def test_each_replica_has_what_was_planned_and_what_it_did() -> None:
    workload, plan = planned(30)
    recording = Recording()
    recording.begin(plan, workload)
    answered(recording, range(30))
    found = report(recording, Stats(steps=9), TALLIES)
    for one, share, idle in zip(found["replicas"], plan.planned, plan.idle_seconds, strict=True):
        assert one["planned"]["rows"] == share.rows and one["planned"]["prompt_tokens"] == share.tokens
        assert one["planned"]["seconds"] == pytest.approx(share.seconds)
        assert one["planned"]["idle_seconds"] == pytest.approx(idle)
    second = found["replicas"][1]
    counts = {"lots": 4, "stolen": 1, "restarts": 2, "dealt_again": 5, "doubled": 3}
    done = {"rows": 10, "prompt_tokens": 200, "output_tokens": 20, "seconds": 1.5, "idle_seconds": 1.25}
    assert second["actual"] == {**done, **counts} and second["on"] == "node2"
    said = " ".join(report_text(found).split())
    assert f"replica 1 10 rows ({plan.planned[1].rows} planned), 200 prompt tokens" in said
    assert "idle 1.25 s (" in said
    assert "4 lots, 1 taken over; started 2 times again; 5 rows of it lost and dealt again; 3 rows of slower" in said
    assert "ones run as well; node2; device a" in said
    assert "replica 1 " in brief_text(found)
    assert max(map(len, report_text(found, 60).splitlines())) <= 60
    page = report_page(found, report_text(found))
    assert "<td>1 on node2</td>" in page and "replica 1 differs from the first: device a instead of b" in page


def test_a_run_that_goes_on_adds_up_and_counts_only_what_was_due_before() -> None:
    """Ten of thirty rows, a kill, then the other twenty by a plan of their own."""
    workload, plan = planned(30)
    first = Recording()
    first.begin(plan, workload)
    answered(first, range(10))
    tallies = tuple(replace(one, rows=5) for one in TALLIES)
    record, live = stored(first.plan_record()), stored(first.as_dict(Stats(steps=1), tallies))
    half = report_of(fold(record, live))["replicas"]
    assert sum(one["planned"]["rows"] for one in half) == 10
    assert sum(one["planned"]["seconds"] for one in half) < sum(share.seconds for share in plan.planned)
    again = Recording(record=record, live=live)
    rest, other = planned(20)
    again.begin(other, rest)
    answered(again, range(20))
    found = report(again, Stats(steps=9), tuple(replace(one, rows=10) for one in TALLIES))["replicas"]
    assert [one["actual"]["rows"] for one in found] == [15, 15]
    assert sum(one["planned"]["rows"] for one in found) == 30
    assert [one["actual"]["lots"] for one in found] == [6, 8] and found[1]["actual"]["restarts"] == 4


def test_one_process_has_no_replicas_in_its_report() -> None:
    workload = Workload.of([[1, 2]], SamplingParams(max_tokens=2))
    recording = Recording()
    recording.begin(make_plan(workload, SPEC, EngineConfig("tiny"), MACHINE), workload)
    found = report(recording, Stats(), ())
    assert found["replicas"] == [] and "replica 0" not in report_text(found)
