"""Goal 2: killed or failing at any durable act, a job loses and doubles no row and writes the same bytes."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.jobs.fakes import FakeEngine, KeepingEngine, make_job, write_rows
from tests.parameters import some_of
from umbel.errors import UmbelError
from umbel.jobs import store as store_module
from umbel.jobs.failpoints import FAILPOINTS
from umbel.jobs.verify import verify

ROWS = [{"custom_id": f"row-{i}", "prompt": f"prompt {i}", "max_tokens": 2 + i % 4} for i in range(40)]
ROWS += [{"custom_id": "bad", "prompt": ""}]


class Nth:
    """A hook that does `act` when `name` is reached for the n-th time."""

    def __init__(self, name: str, n: int, act: Callable[[], None]):
        self.name, self.left, self.act = name, n, act

    def __call__(self, name: str) -> None:
        if name == self.name:
            self.left -= 1
            if self.left == 0:
                self.act()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise OSError(5, "Input/output error")


def in_child(act: Callable[[], object]) -> int:
    """Run `act` in a forked process; returns its wait status (9 when it was killed)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside numpy's idle threads
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "GROUP_ROWS", 8)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """The input, and the output of an uninterrupted run."""
    directory = tmp_path_factory.mktemp("reference")
    source = write_rows(directory / "in.jsonl", ROWS)
    make_job(source, directory / "out").run()
    return source, (directory / "out").read_bytes()


def finish(source: Path, output: Path) -> FakeEngine:
    """The next run; returns the engine, which knows the rows it was asked for."""
    engine = KeepingEngine()
    assert make_job(source, output, engine).run().exit_code == 3
    return engine


@pytest.mark.parametrize("n", some_of([2], [1, 3]))
@pytest.mark.parametrize("name", FAILPOINTS)
def test_killed_at_a_failpoint(
    name: str, n: int, reference: tuple[Path, bytes], tmp_path: Path, small_groups: None
) -> None:
    source, expected = reference
    output = tmp_path / "out"
    repeats = "commit" in name  # the other acts happen once a run, so they are met again by killing the resumed run
    kills = 1 if repeats else n
    for _ in range(kills):
        again = "forget" in name
        status = in_child(
            make_job(source, output, KeepingEngine(), at=Nth(name, n if repeats else 1, die), retry_failed=again).run
        )
        assert status in (signal.SIGKILL, 0)  # acts that only the first run does are not met again
        assert not output.exists() or output.read_bytes() == expected
    engine = finish(source, output)
    assert output.read_bytes() == expected
    assert verify(source, output).faults == 0
    if "output" in name or "seal" in name or "finish" in name:
        assert engine.seen == []  # every row had been committed
    assert {p.name for p in tmp_path.iterdir()} == {"out", "out.umbel"}


@pytest.mark.parametrize("name", FAILPOINTS)
def test_failing_at_a_failpoint(name: str, reference: tuple[Path, bytes], tmp_path: Path, small_groups: None) -> None:
    source, expected = reference
    output = tmp_path / "out"
    with pytest.raises((UmbelError, OSError)):
        make_job(source, output, KeepingEngine(), at=Nth(name, 1, fail), retry_failed="forget" in name).run()
    assert not output.exists() or output.read_bytes() == expected
    finish(source, output)
    assert output.read_bytes() == expected


def test_ten_kills_in_one_job(reference: tuple[Path, bytes], tmp_path: Path, small_groups: None) -> None:
    source, expected = reference
    output = tmp_path / "out"
    for i in range(10):
        name = "store.commit.after" if i % 2 else "store.commit.before"
        in_child(make_job(source, output, KeepingEngine(), at=Nth(name, 1, die)).run)
    engine = finish(source, output)
    assert 0 < len(engine.seen) < 40
    assert output.read_bytes() == expected


def test_every_failpoint_is_passed(reference: tuple[Path, bytes], tmp_path: Path) -> None:
    reached: list[str] = []
    make_job(reference[0], tmp_path / "out", KeepingEngine(), at=reached.append, retry_failed=True).run()
    assert set(reached) == set(FAILPOINTS)
