"""Deadlines and token budgets: never overrun, a valid and complete output, and the next run goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.jobs.fakes import CONTEXT, FakeEngine, make_job, read_rows, write_rows
from tests.jobs.test_failpoints import Nth, die, in_child
from tests.jobs.test_windows import SIZES, in_windows, some_rows
from tests.parameters import some_of
from tests.tiny_models import make_model
from umbel.cli.main import main
from umbel.errors import UsageError
from umbel.ir.budget import Budget
from umbel.ir.params import SamplingParams
from umbel.ir.plan import Plan
from umbel.ir.report import Stats
from umbel.ir.request import Output
from umbel.ir.selection import select_rows
from umbel.ir.workload import Workload
from umbel.jobs.failpoints import FAILPOINTS
from umbel.jobs.progress import Progress
from umbel.jobs.rounds import LEAST_ROWS, Rounds
from umbel.jobs.verify import verify
from umbel.plan.deal.fit import fit

ROWS = [{"custom_id": f"row-{i}", "prompt": f"prompt {i}", "max_tokens": 1 + i % 5} for i in range(60)]
ROWS += [{"custom_id": "bad", "prompt": ""}]
TOKENS = sum(1 + i % 5 for i in range(60))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", ROWS)


def budget(tokens: int | None = None, seconds: float | None = None) -> dict[str, Any]:
    return {"budget": Budget(seconds, tokens)}


@pytest.mark.parametrize("tokens", [1, 2, 12, 13, 50, TOKENS - 1])
def test_tokens_are_never_overrun_and_most_rows_are_answered(
    tokens: int, source: Path, expected: bytes, tmp_path: Path
) -> None:
    engine = FakeEngine()
    summary = make_job(source, tmp_path / "out", engine, **budget(tokens)).run()
    costs = np.cumsum(sorted(1 + i % 5 for i in range(60)))
    assert engine.tokens <= tokens
    assert summary.ok == int(np.searchsorted(costs, tokens, "right"))  # no other choice of rows has more
    assert (summary.status, summary.exit_code, summary.left) == ("budget", 5, 60 - summary.ok)
    check = verify(source, tmp_path / "out")
    assert (check.faults, check.exit_code, check.answers) == (0, 3, summary.ok)
    assert check.codes == {"budget_exceeded": summary.left, "empty_prompt": 1}
    engine = FakeEngine()
    again = make_job(source, tmp_path / "out", engine).run()
    assert (again.status, again.left, again.resumed, len(engine.seen)) == (
        "complete",
        0,
        summary.ok + 1,
        60 - summary.ok,
    )
    assert (tmp_path / "out").read_bytes() == expected


def test_lines_that_are_done_are_those_of_the_full_output(source: Path, expected: bytes, tmp_path: Path) -> None:
    make_job(source, tmp_path / "out", **budget(40)).run()
    lines, whole = (tmp_path / "out").read_bytes().splitlines(), expected.splitlines()
    rows = read_rows(tmp_path / "out")
    assert [row["custom_id"] for row in rows] == [row["custom_id"] for row in ROWS]
    same = [one == other for one, other in zip(lines, whole, strict=True)]
    assert same == [row["error"] is None or row["error"]["code"] == "empty_prompt" for row in rows]
    assert 0 < sum(same) < 61


def test_the_same_budget_again_and_again_ends_with_everything(source: Path, expected: bytes, tmp_path: Path) -> None:
    statuses = []
    while not statuses or statuses[-1] == "budget":
        engine = FakeEngine()
        statuses.append(make_job(source, tmp_path / "out", engine, **budget(25)).run().status)
        assert engine.tokens <= 25
    assert statuses == ["budget"] * (len(statuses) - 1) + ["complete"]
    assert len(statuses) >= TOKENS / 25
    assert (tmp_path / "out").read_bytes() == expected


def test_a_budget_that_is_large_enough_changes_nothing(source: Path, expected: bytes, tmp_path: Path) -> None:
    summary = make_job(source, tmp_path / "out", **budget(TOKENS, 3_600.0)).run()
    assert (summary.status, summary.exit_code) == ("complete", 3)
    assert (tmp_path / "out").read_bytes() == expected


def test_orders_of_the_output(source: Path, tmp_path: Path) -> None:
    summary = make_job(source, tmp_path / "out", order="finish", **budget(30)).run()
    answered = [row["error"] is None for row in read_rows(tmp_path / "out")]
    assert sum(answered[: summary.ok + 1]) == summary.ok  # the bad row is among those that are done
    again = make_job(source, tmp_path / "out", **budget(1)).run()
    assert again.status == "budget"
    assert [row["custom_id"] for row in read_rows(tmp_path / "out")] == [row["custom_id"] for row in ROWS]


class Sleeper(FakeEngine):
    """Answers ten rows, then takes a step that does not end before the alarm rings, which it has ring at once."""

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        for i, output in enumerate(super().execute(workload, plan)):
            if i == 10:
                assert 0.0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 3_600.0
                signal.setitimer(signal.ITIMER_REAL, 1e-6)
                while True:
                    time.sleep(60)
            yield output


@pytest.mark.parametrize("windows", [False, True])
def test_a_deadline_ends_the_run_wherever_it_is(windows: bool, source: Path, expected: bytes, tmp_path: Path) -> None:
    job = make_job(source, tmp_path / "out", Sleeper(), **budget(seconds=3_600.0))
    summary = (in_windows(job, SIZES) if windows else job).run()
    assert (summary.status, summary.exit_code) == ("budget", 5)
    assert 1 <= summary.ok < 60
    assert verify(source, tmp_path / "out").exit_code == 3
    make_job(source, tmp_path / "out").run()
    assert (tmp_path / "out").read_bytes() == expected


def test_a_deadline_that_is_over_before_the_model_is_loaded(source: Path, tmp_path: Path) -> None:
    job = make_job(source, tmp_path / "out", **budget(seconds=5.0))
    job.began -= 10.0
    job.load = lambda: pytest.fail("loaded")
    assert (job.run().status, verify(source, tmp_path / "out").exit_code) == ("budget", 3)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0


def test_a_stop_beats_a_budget(source: Path, tmp_path: Path) -> None:
    class Stopped(Sleeper):
        def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
            yield next(super().execute(workload, plan))
            os.kill(os.getpid(), signal.SIGTERM)

    summary = make_job(source, tmp_path / "out", Stopped(), **budget(10_000, 600.0)).run()
    assert (summary.status, summary.exit_code, (tmp_path / "out").exists()) == ("drained", 75, False)


REACHED = [name for name in FAILPOINTS if not name.startswith(("store.create", "store.forget"))]


@pytest.mark.parametrize("name", some_of(REACHED[::4], [name for name in REACHED if name not in REACHED[::4]]))
def test_killed_while_a_partial_output_is_written(name: str, source: Path, expected: bytes, tmp_path: Path) -> None:
    """First over nothing, then over an earlier partial output."""
    out = tmp_path / "out"
    first = in_child(make_job(source, out, at=Nth(name, 1, die), **budget(30)).run)
    assert first in (signal.SIGKILL, 0)
    assert not out.exists() or verify(source, out).faults == 0
    assert make_job(source, out, **budget(20)).run().exit_code == 5
    second = in_child(make_job(source, out, at=Nth(name, 1, die), **budget(20)).run)
    assert second in (signal.SIGKILL, 0)
    assert verify(source, out).faults == 0
    in_child(make_job(source, out, at=Nth(name, 1, die)).run)
    make_job(source, out).run()
    assert out.read_bytes() == expected
    assert {p.name for p in tmp_path.iterdir()} == {"in.jsonl", "whole", "whole.umbel", "out", "out.umbel"}


def test_windows_under_a_budget(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", some_rows(150))
    make_job(source, tmp_path / "whole").run()
    engine = FakeEngine()
    summary = in_windows(make_job(source, tmp_path / "out", engine, **budget(100))).run()
    assert (summary.status, engine.tokens <= 100) == ("budget", True)
    check = verify(source, tmp_path / "out")
    assert (check.faults, check.rows, check.answers) == (0, 150, summary.ok)
    in_windows(make_job(source, tmp_path / "out")).run()
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


@settings(max_examples=30)
@given(
    rows=st.lists(st.tuples(st.text("ab", min_size=1, max_size=6), st.integers(1, 9), st.integers(1, 3)), min_size=1),
    tokens=st.integers(1, 60),
)
def test_rounds_never_give_out_what_does_not_fit(rows: list[tuple[str, int, int]], tokens: int) -> None:
    params = [SamplingParams(max_tokens=most, n=n) for _, most, n in rows]
    workload = Workload.of([[ord(c) for c in text] for text, _, _ in rows], params, [7 * i for i in range(len(rows))])
    engine, rounds = FakeEngine(), Rounds(Budget(None, tokens), Progress(), CONTEXT)
    rounds.begin(engine.stats())
    ran: list[int] = []
    for part in rounds.parts(workload, engine.plan_for(workload), engine):
        before = engine.tokens
        most = sum(p.n * p.max_tokens for p in part.workload.params if p.max_tokens)
        assert before + most <= tokens  # even if every row takes all it may
        for output in engine.execute(part.workload, part.plan):
            assert output.output_tokens <= most
        places = range(len(workload)) if part.places is None else part.places
        assert [workload.prompt(i).tolist() for i in places] == [
            part.workload.prompt(i).tolist() for i in range(len(part.workload))
        ]
        ran += [int(key) for key in part.workload.keys]
    assert len(ran) == len(set(ran))
    left = [n * most for i, (_, most, n) in enumerate(rows) if 7 * i not in ran]
    assert rounds.spent == bool(left)
    assert not left or min(left) > tokens - engine.tokens  # not even the smallest row would have fitted


class Clockwork(FakeEngine):
    """Takes a second a row on the clock of a test."""

    now = 0.0

    def stats(self) -> Stats:
        return Stats(output_tokens=self.tokens)


def test_rounds_correct_an_estimate_that_was_far_off() -> None:
    rows = 4 * LEAST_ROWS
    workload = Workload.of([[i % 50, i // 50] for i in range(rows)], SamplingParams(max_tokens=4))
    engine = Clockwork()
    rounds = Rounds(
        Budget(0.9 * rows, None), Progress(to_run=10**9, begun=rows), CONTEXT, 0.9 * rows, lambda: engine.now
    )
    sizes = []
    for part in rounds.parts(workload, engine.plan_for(workload), engine):
        sizes.append(len(part.workload))
        engine.now += len(part.workload)
        if engine.now > 0.9 * rows:
            break  # here the alarm would ring
    assert sizes[0] == rows or sizes[0] < 0.9 * rows
    assert sum(sizes) <= rows


def test_cheap_groups_go_first() -> None:
    long = [[1] * 40 + [i] for i in range(5)]  # five rows that share forty tokens, and five alone that are as long
    alone = [[10 + i] * 41 for i in range(5)]
    short = [[100 + i, 3] for i in range(5)]
    workload = Workload.of(alone + long + short, SamplingParams(max_tokens=2))
    known = fit(FakeEngine().plan_for(workload), workload, CONTEXT)
    assert set(known.order[:5].tolist()) == set(range(10, 15))
    assert set(known.order[5:10].tolist()) == set(range(5, 10))
    assert known.rows(Budget(float(known.seconds[:7].sum()) * 1.001, None)) == 7
    assert known.rows(Budget(None, 2 * 4 + 1)) == 4
    assert known.rows(Budget()) == 15


def test_plan_says_what_fits(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_model(source.parent / "tiny")
    given = ["plan", str(source), "--model", str(source.parent / "tiny"), "--machine", "a100"]
    assert main([*given, "--max-output-tokens-total", "12", "--json"]) == 0
    fits = json.loads(capsys.readouterr().out)["budget"]
    assert (fits["rows"], fits["of_rows"], fits["output_tokens"]) == (12, 60, 12)
    assert main([*given, "--deadline", "2h"]) == 0
    assert "\nBUDGET  7,200 s of running: 60 of 60 rows are expected to fit, with " in capsys.readouterr().out
    assert main([*given, "--deadline", "soon"]) == 2


def test_shares_of_the_plan_add_up() -> None:
    rng = np.random.default_rng(5)
    prompts = [[1, 2, *rng.integers(3, 6, 6).tolist()] for _ in range(80)]
    workload = Workload.of(prompts, [SamplingParams(max_tokens=int(m)) for m in rng.integers(1, 9, 80)])
    plan = FakeEngine().plan_for(workload)
    known = fit(plan, workload, CONTEXT)
    assert sorted(known.order.tolist()) == list(range(80))
    assert known.seconds.sum() == pytest.approx(plan.estimates.seconds[1])
    assert int(known.tokens.sum()) == plan.estimates.output_tokens


def test_selected_rows_are_those_rows() -> None:
    workload = Workload.of([[1], [2, 3], [4, 5, 6]], [SamplingParams(n=i + 1) for i in range(3)], [10, 20, 30])
    part = select_rows(workload, np.array([2, 0]))
    assert [part.prompt(i).tolist() for i in range(2)] == [[4, 5, 6], [1]]
    assert ([p.n for p in part.params], part.keys.tolist()) == ([3, 1], [30, 10])


@pytest.mark.parametrize("given, seconds", [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7_200), (" 3 H", 10_800)])
def test_durations(given: str, seconds: float) -> None:
    assert Budget.of(given, None).seconds == seconds


@pytest.mark.parametrize("given", ["", "0", "-5", "1d", "soon", "1h30m", "nan"])
def test_durations_that_are_none(given: str) -> None:
    with pytest.raises(UsageError, match="--deadline"):
        Budget.of(given, None)


def test_token_budgets_that_are_none() -> None:
    with pytest.raises(UsageError, match="--max-output-tokens-total 0"):
        Budget.of(None, 0)
