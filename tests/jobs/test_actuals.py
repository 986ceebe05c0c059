"""What a job records of its parts, against sums made row by row."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.plan.workloads import CANONICAL, MACHINE, SPEC, groups, run
from umbel.config import EngineConfig
from umbel.ir.params import SamplingParams
from umbel.ir.plan import Curve, Plan
from umbel.ir.report import Stats
from umbel.ir.request import Completion, Output, RowError
from umbel.ir.workload import Workload
from umbel.jobs.report.actuals import COURSE_POINTS, Recording
from umbel.jobs.report.sums import fold, shares_at, until
from umbel.plan.explain.tree import lines_of_rows, shown_lines
from umbel.plan.planner import make_plan


def plan_of(workload: Workload) -> Plan:
    return make_plan(workload, SPEC, EngineConfig("tiny"), MACHINE)


def answer(row: int, workload: Workload, tokens: int, *, fail: bool = False, cut: bool = False) -> Output:
    prompt = len(workload.prompt(row))
    if fail:
        return Output(row, prompt, error=RowError("kv_capacity_exceeded", "too large"))
    reason = "length" if cut else "stop"
    n = workload.params[row].n
    return Output(row, prompt, tuple(Completion(i, "", (1,) * tokens, reason) for i in range(n)))


def stats(rows: int, steps: int = 10) -> Stats:
    return Stats(
        computed_prompt_tokens=7 * rows, output_tokens=3 * rows, steps=steps, kv_peak_tokens=64, rows_done=rows
    )


def stored(value: object) -> dict:  # type: ignore[type-arg]
    """As it comes back from the store."""
    return json.loads(json.dumps(value))


def mixed() -> Workload:
    prompts = groups(3, 20, 200, 20) + [run(50, 64)] * 7 + [[900 + i, *run(i, 30)] for i in range(9)]
    rng = random.Random(1)
    return Workload.of(
        prompts, [SamplingParams(max_tokens=rng.randrange(1, 40), n=rng.choice((1, 1, 3))) for _ in prompts]
    )


@pytest.mark.parametrize("name", [*CANONICAL, "mixed"])
def test_every_row_has_the_deepest_line_above_it(name: str) -> None:
    workload = CANONICAL[name]() if name in CANONICAL else mixed()
    plan = plan_of(workload)
    lines = shown_lines(plan)
    counts = np.zeros(len(lines), np.int64)
    for row, first in enumerate(lines_of_rows(plan.forest, lines).tolist()):
        prompt, line = workload.prompt(row), first
        while line >= 0:
            counts[line] += 1
            if lines[line].kind == "run":  # the row does begin with the run's tokens
                source = workload.prompt(int(plan.forest.source[lines[line].node]))
                assert prompt[: lines[line].end].tolist() == source[: lines[line].end].tolist()
            line = lines[line].parent
        deepest = lines[first]
        assert deepest.kind != "end" or len(prompt) == deepest.end
    assert counts.tolist() == [line.rows for line in lines]
    assert len(lines) <= 160


def test_sums_are_those_of_the_rows() -> None:
    workload = mixed()
    plan, rng = plan_of(workload), random.Random(2)
    recording = begun(plan, workload)
    outputs = [
        answer(row, workload, rng.randrange(1, 30), fail=rng.random() < 0.1, cut=rng.random() < 0.3)
        for row in rng.sample(range(len(workload)), 60)
    ]
    for i, output in enumerate(outputs):
        recording.add(output)
        if i % 7 == 0:
            recording.as_dict(stats(i))
    sums = fold(stored(recording.plan_record()), stored(recording.as_dict(stats(60))))
    good = [o for o in outputs if o.error is None]
    actual, due = sums["actual"], sums["due"]
    assert (actual["rows"], actual["failed"]) == (60, 60 - len(good))
    assert actual["cut"] == sum(any(c.finish_reason == "length" for c in o.outputs) for o in good)
    assert actual["output_tokens"] == stats(60).output_tokens  # rows that are not done count as well
    assert due["rows"] == 60
    assert actual["prompt_tokens"] == sum(o.prompt_tokens for o in outputs)
    assert (actual["computed_prompt_tokens"], actual["steps"], actual["kv_peak_tokens"]) == (420, 10, 64)
    tops = [line for line in sums["lines"] if line["parent"] == -1]
    assert sum(line["done"] for line in tops) == 60
    assert sum(line["output"] for line in tops) == sum(o.output_tokens for o in good)
    expected = sum(int(plan.lengths[o.row]) * workload.params[o.row].n for o in good)
    assert sum(line["expected"] for line in tops) == expected
    assert sum(line["rows"] for line in tops) == len(workload)
    assert sums["planned"]["rows"] == len(workload)


def begun(plan: Plan, workload: Workload, stats: Stats | None = None, **more: Any) -> Recording:
    """A recording of one part."""
    recording = Recording(stats, **more)
    recording.begin(plan, workload)
    return recording


def part_of(rows: list[int], workload: Workload) -> Workload:
    return Workload.of([workload.prompt(r).tolist() for r in rows], [workload.params[r] for r in rows], rows)


def test_a_job_in_windows_adds_up_to_the_job() -> None:
    """Three windows that share groups: rows, errors and output per line are those of the whole."""
    workload, record, live = mixed(), None, None
    total = Stats()
    for window in range(3):
        rows = list(range(window, len(workload), 3))
        part = part_of(rows, workload)
        recording = begun(plan_of(part), part, total, record=record, live=live)
        for i in range(len(part)):
            recording.add(answer(i, part, 5, fail=i == 0))
        total = Stats(100 * window, steps=total.steps + 10, kv_peak_tokens=64 + window, computed_prompt_tokens=9)
        record, live = stored(recording.plan_record()), stored(recording.as_dict(total))
    sums = fold(record, live)
    assert (sums["parts"], sums["cut_short"]) == (3, 0)
    assert sums["planned"]["rows"] == sums["due"]["rows"] == sums["actual"]["rows"] == len(workload)
    assert (sums["actual"]["failed"], sums["actual"]["steps"], sums["actual"]["kv_peak_tokens"]) == (3, 30, 66)
    assert live is not None and live["steps"] == 30
    roots = [line for line in sums["lines"] if line["parent"] == -1 and line["kind"] == "run" and line["end"] == 201]
    assert sorted(line["rows"] for line in roots) == [20, 20, 20]  # a group is one line, in however many windows
    assert len(sums["curve"]["steps"]) <= 512


def test_parts_that_are_open_together_add_up_too() -> None:
    """A row of each window ends after the next window has begun; the record of every moment counts each row once."""
    workload = mixed()
    parts = [part_of(list(range(window, len(workload), 3)), workload) for window in range(3)]
    recording, total, last = Recording(), Stats(), None
    for window, part in enumerate(parts):
        assert recording.begin(plan_of(part), part, total) == window
        if last is not None:
            recording.add(last, window - 1)
        for i in range(len(part) - 1):
            recording.add(answer(i, part, 5), window)
        last = answer(len(part) - 1, part, 5)
        total = replace(total, steps=total.steps + 10, computed_prompt_tokens=total.computed_prompt_tokens + 9)
        sums = fold(stored(recording.plan_record()), stored(recording.as_dict(total)))
        assert sums["parts"] == window + 1
        assert sums["planned"]["rows"] == sum(len(p) for p in parts[: window + 1])
        assert (sums["actual"]["rows"], sums["actual"]["steps"]) == (sums["planned"]["rows"] - 1, total.steps)
        assert len(recording.plan_record()["open"]["tree"]) == len(recording.as_dict(total)["open"]["lines"]["done"])
    assert last is not None
    recording.add(last, 2)
    sums = fold(stored(recording.plan_record()), stored(recording.as_dict(total)))
    apart = [begun(plan_of(part), part) for part in parts]
    for window, each in enumerate(apart):
        for i in range(len(parts[window])):
            each.add(answer(i, parts[window], 5))
    planned = [fold(each.plan_record(), each.as_dict(Stats()))["planned"] for each in apart]
    assert sums["cut_short"] == 0
    for name in ("rows", "steps", "seconds", "output_tokens", "seconds_high"):
        assert sums["planned"][name] == sums["due"][name] == pytest.approx(sum(p[name] for p in planned))
    assert sums["planned"]["kv_peak_tokens"] == max(p["kv_peak_tokens"] for p in planned)
    roots = [line for line in sums["lines"] if line["parent"] == -1 and line["kind"] == "run" and line["end"] == 201]
    assert [line["rows"] for line in roots] == [line["done"] for line in roots] == [20, 20, 20]


def test_a_job_that_was_cut_short_and_resumed_counts_every_row_once() -> None:
    workload = mixed()
    record, live, left = None, None, list(range(len(workload)))
    for stop in (20, 30, None):
        part = part_of(left, workload)
        plan = plan_of(part)
        recording = begun(plan, part, record=record, live=live)
        done = range(len(part)) if stop is None else range(min(stop, len(part)))
        for i in done:
            recording.add(answer(i, part, 4))
        steps = plan.estimates.steps if stop is None else plan.estimates.steps // 2
        record = stored(recording.plan_record())
        live = stored(recording.as_dict(replace(stats(len(done)), steps=steps)))
        left = left[len(done) :]
        sums = fold(record, live)
        assert sums["planned"]["rows"] == len(workload)
        assert sums["actual"]["rows"] == sums["due"]["rows"] == len(workload) - len(left)
        assert sums["due"]["seconds"] < sums["planned"]["seconds"] or stop is None
        assert sum(line["rows"] for line in sums["lines"] if line["parent"] == -1) == len(workload)
    assert (sums["parts"], sums["cut_short"]) == (3, 2)
    assert not left
    assert sums["curve"]["steps"][-1] == pytest.approx(sums["planned"]["steps"])  # of parts cut short what was due
    assert sums["curve"]["seconds"][-1] == pytest.approx(sums["planned"]["seconds"], rel=1e-3)


@pytest.mark.parametrize(
    ("steps", "ends", "seconds"), [(0, [0], [0]), (5, [5], [10]), (7, [5, 7], [10, 12]), (9, [5, 8], [10, 13])]
)
def test_a_curve_ends_at_a_step(steps: float, ends: list[float], seconds: list[float]) -> None:
    curve = {"steps": [5.0, 8.0], "seconds": [10.0, 13.0], "tokens": [2.0, 1.0]}
    found = until(curve, steps)
    assert (found["steps"], found["seconds"]) == (ends, seconds)
    assert len(found["tokens"]) == len(ends) and until({name: [] for name in curve}, 3)["steps"] == []


def test_a_part_that_never_ran_leaves_no_trace() -> None:
    workload = mixed()
    first = begun(plan_of(workload), workload)
    record, live = stored(first.plan_record()), stored(first.as_dict(Stats()))
    again = begun(plan_of(workload), workload, record=record, live=live)
    sums = fold(stored(again.plan_record()), stored(again.as_dict(Stats())))
    assert (sums["parts"], sums["planned"]["rows"], sums["actual"]["rows"]) == (1, len(workload), 0)


def test_watching_counts_the_seconds_of_the_engine_alone() -> None:
    now, workload = [0.0], mixed()

    def engine() -> Iterator[Output]:
        for row in range(3):
            now[0] += 2.0
            yield answer(row, workload, 1)
        now[0] += 1.0

    recording = begun(plan_of(workload), workload, clock=lambda: now[0])
    for _ in recording.watch((0, output) for output in engine()):
        now[0] += 50.0  # rendering and committing
    assert recording.seconds == 7.0
    assert recording.as_dict(stats(3))["open"]["lines"]["done"] != []


def test_records_stay_small_whatever_the_rows_and_commits() -> None:
    workload = Workload.of(groups(200, 10, 20, 3), SamplingParams(max_tokens=4))
    recording = begun(plan_of(workload), workload)
    for row in range(len(workload)):
        recording.add(answer(row, workload, 2))
        live = recording.as_dict(stats(row, row))
    assert len(live["open"]["course"]) < COURSE_POINTS
    assert len(json.dumps(live)) < 20_000
    assert len(json.dumps(recording.plan_record())) < 60_000


@pytest.mark.parametrize("steps", [0.0, 3.0, 10.5, 20.0])
def test_what_is_due_follows_the_curve(steps: float) -> None:
    """Ten steps of prompts at 100 tokens, then ten of 8 decodes each, which take half the time."""
    width = np.ones(20)
    tokens = np.array([100.0] * 10 + [8.0] * 10)
    running = np.array([0.0] * 10 + [8.0] * 10)
    seconds = np.cumsum(np.array([2.0] * 10 + [1.0] * 10))
    curve = Curve(np.cumsum(width), seconds, tokens, running, np.arange(1.0, 21.0))
    time, prompt, drawn, peak = shares_at(curve, steps, 20)
    assert time == pytest.approx(min(steps, 10) * 2 / 30 + max(steps - 10, 0) / 30)
    assert prompt == pytest.approx(min(steps, 10) / 10)
    assert drawn == pytest.approx(max(steps - 10, 0) / 10)
    assert peak == min(max(np.ceil(steps), 1), 20)
