"""A stop at an unlucky moment: inside a transaction, where Python can only print it, while handlers are set."""

from __future__ import annotations

import gc
import os
import signal
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.fakes import FakeEngine, make_job, write_rows
from umbel.ir.budget import Budget
from umbel.ir.plan import Plan
from umbel.ir.request import Output
from umbel.ir.workload import Workload
from umbel.jobs import store as store_module
from umbel.jobs.signals import Drain, OutOfTime, StopSignal
from umbel.jobs.summary import closing_lines

ROWS = [{"custom_id": f"row-{i}", "prompt": f"prompt {i}", "max_tokens": 2 + i % 4} for i in range(12)]
STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", ROWS)


@pytest.fixture
def expected(source: Path, tmp_path: Path) -> bytes:
    """Output of an uninterrupted run."""
    assert make_job(source, tmp_path / "whole").run().exit_code == 0
    return (tmp_path / "whole").read_bytes()


def stop(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


class ActingEngine(FakeEngine):
    """Gives five answers, then does something."""

    act: Callable[[], None] = stop

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        for i, output in enumerate(super().execute(workload, plan)):
            if i == 5:
                type(self).act()
            yield output


def acting(act: Callable[[], None]) -> FakeEngine:
    return type("Acting", (ActingEngine,), {"act": staticmethod(act)})()


class Counted:
    """Calls a function, and before the call of one number sends a signal."""

    def __init__(self, function: Callable[..., Any], number: int):
        self.function, self.left = function, number

    def __call__(self, *arguments: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            stop()
        return self.function(*arguments)


def test_a_stop_does_not_cut_imports_short(source: Path, tmp_path: Path) -> None:
    """It is raised behind them, before the model is loaded."""
    job, imported, loaded = make_job(source, tmp_path / "out"), [], []
    job.warm = lambda: (stop(), imported.append(True))
    job.load = lambda: loaded.append(True)  # type: ignore[assignment,return-value]
    assert job.run().exit_code == 75
    assert imported and not loaded


@pytest.mark.parametrize("number", range(1, 9))
def test_a_stop_inside_a_transaction(
    number: int, source: Path, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records are made between BEGIN and COMMIT: in each of them in turn. Rows that were done stay done."""
    counted = Counted(store_module._record, number)
    monkeypatch.setattr(store_module, "GROUP_ROWS", 4)
    monkeypatch.setattr(store_module, "_record", counted)
    first = make_job(source, tmp_path / "out").run()
    assert counted.left <= 0
    assert first.exit_code in (75, 0)
    assert make_job(source, tmp_path / "out").run().exit_code == 0
    assert (tmp_path / "out").read_bytes() == expected


def test_an_error_inside_a_transaction_takes_it_back(tmp_path: Path) -> None:
    store = store_module.JobStore(tmp_path / "s")
    store.put(name=1)
    with pytest.raises(TypeError):
        store.put(name=2, other={3})
    store.put(third=3)
    assert (store.get("name"), store.get("other"), store.get("third")) == (1, None, 3)
    store.close()


def wait(seconds: float = 600.0) -> None:
    """Go on until something is raised."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.001)
    pytest.fail("nothing was raised")


class Swallowing:
    """Python prints what is raised in here, and goes on."""

    def __del__(self) -> None:
        stop()


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_python_could_only_print_is_raised_again(
    source: Path, expected: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def act() -> None:
        Swallowing()
        wait()

    first = make_job(source, tmp_path / "out", acting(act)).run()
    assert (first.status, first.ok, capfd.readouterr().err) == ("drained", 5, "")
    make_job(source, tmp_path / "out").run()
    assert (tmp_path / "out").read_bytes() == expected


def test_the_end_of_time_that_python_could_only_print_is_raised_again() -> None:
    class LateIn:
        def __del__(self) -> None:
            wait()

    with StopSignal() as signals, pytest.raises(OutOfTime), signals.listening():
        signals.limit(0.001)
        late = LateIn()
        del late
        wait()


def test_what_a_library_makes_of_a_stop_is_a_stop(source: Path, tmp_path: Path) -> None:
    def act() -> None:
        try:
            stop()
        except Drain as error:
            raise SystemError("returned a result with an exception set") from error

    assert make_job(source, tmp_path / "out", acting(act)).run().status == "drained"


@pytest.mark.parametrize("number", STOPS)
def test_a_stop_while_handlers_are_set(
    number: int, source: Path, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the last of them is, before there is anything that could catch what they raise."""
    before, real = {n: signal.getsignal(n) for n in STOPS}, signal.signal

    def set_and_send(which: int, handler: Any) -> Any:
        found = real(which, handler)
        if which == STOPS[-1]:
            monkeypatch.setattr(signal, "signal", real)
            stop(number)
        return found

    monkeypatch.setattr(signal, "signal", set_and_send)
    assert make_job(source, tmp_path / "out").run().exit_code == 75
    assert make_job(source, tmp_path / "out").run().exit_code == 0
    assert (tmp_path / "out").read_bytes() == expected
    assert {n: signal.getsignal(n) for n in STOPS} == before


def test_a_job_that_nohup_started_goes_on_without_its_terminal(source: Path, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        summary = make_job(source, tmp_path / "out", acting(lambda: stop(signal.SIGHUP))).run()
        assert (summary.status, signal.getsignal(signal.SIGHUP)) == ("complete", signal.SIG_IGN)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_shield_holds_off_what_is_raised_at_its_end() -> None:
    done = []
    with StopSignal() as signals:
        with pytest.raises(Drain), signals.listening(), signals.shielded():
            with signals.shielded():
                stop()
            done.append("inner")
        with signals.shielded():
            done.append("never twice")
    assert done == ["inner", "never twice"]


class Ending(FakeEngine):
    """Gets a stop when one answer is left, and has the time to give it."""

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        *others, last = super().execute(workload, plan)
        yield from others
        stop()
        yield last


def test_a_stop_that_all_rows_outrun_is_none(source: Path, expected: bytes, tmp_path: Path) -> None:
    summary = make_job(source, tmp_path / "out", Ending(keeps_unfinished=True)).run()
    assert (summary.status, summary.exit_code, summary.left) == ("complete", 0, 0)
    assert (tmp_path / "out").read_bytes() == expected
    stopped = make_job(source, tmp_path / "other", Ending(keeps_unfinished=False)).run()
    assert (stopped.status, stopped.exit_code, stopped.left) == ("drained", 75, 1), "no answer is waited for"


def test_a_deadline_that_all_rows_outrun_is_none(source: Path, expected: bytes, tmp_path: Path) -> None:
    class Late(FakeEngine):
        def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
            yield from super().execute(workload, plan)
            signal.setitimer(signal.ITIMER_REAL, 0.001)
            time.sleep(0.02)

    job = make_job(source, tmp_path / "out", Late(keeps_unfinished=True), budget=Budget(seconds=3_600.0))
    assert (job.run().status, (tmp_path / "out").read_bytes()) == ("complete", expected)


def test_a_job_that_is_over_holds_no_engine(source: Path, tmp_path: Path) -> None:
    """A display that still shows its progress would free the model's memory in its own thread, at the very end."""
    engines: list[weakref.ref[FakeEngine]] = []

    def load() -> FakeEngine:
        engine = FakeEngine()
        engines.append(weakref.ref(engine))
        return engine

    job = make_job(source, tmp_path / "out")
    job.load = load
    assert job.run().status == "complete"
    gc.collect()
    assert [engine() for engine in engines] == [None]
    assert job.progress.reading().output_tokens > 0


def test_a_job_that_is_stopped_counts_what_it_computed(source: Path, tmp_path: Path) -> None:
    """Also of rows that are not finished, which are computed again by the next run."""
    first = make_job(source, tmp_path / "out", acting(stop)).run()
    assert (first.ok, first.computed_prompt_tokens) == (5, 3 * 6)
    assert 0 < first.discarded_tokens <= 5  # of the sixth row
    lost = f"{first.discarded_tokens} more of unfinished rows are lost: replicas keep finished rows only"
    assert f"tokens of answers ({lost})" in closing_lines(first, quiet=False)[1]
    second = make_job(source, tmp_path / "out").run()
    assert second.computed_prompt_tokens == 3 * (len(ROWS) + 1)
