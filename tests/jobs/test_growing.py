"""With the order of finishing, rows can be read as they come: in a file beside the output, until that is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.fakes import FakeEngine, make_job, read_rows, write_rows
from umbel.errors import UsageError
from umbel.ir.plan import Plan
from umbel.ir.request import Output
from umbel.ir.workload import Workload
from umbel.jobs import store as store_module

ROWS = [*({"custom_id": f"row-{i}", "prompt": f"prompt {i}", "max_tokens": 2} for i in range(12)), {"prompt": ""}]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store_module, "GROUP_ROWS", 4)
    return write_rows(tmp_path / "in.jsonl", ROWS)


class Looking(FakeEngine):
    """Looks at the growing file before each answer, and fails at one of them."""

    path = Path()
    fails = -1

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        self.found: list[bytes] = []
        for number, output in enumerate(super().execute(workload, plan)):
            self.found.append(self.path.read_bytes() if self.path.exists() else b"")
            if number == self.fails:
                raise MemoryError
            yield output


def looking(path: Path, fails: int = -1) -> Looking:
    engine = Looking()
    engine.path, engine.fails = path, fails
    return engine


def test_rows_are_there_as_they_finish(source: Path, tmp_path: Path) -> None:
    engine = looking(tmp_path / "out.part")
    make_job(source, tmp_path / "out", engine, order="finish").run()
    whole = (tmp_path / "out").read_bytes()
    counts = [found.count(b"\n") for found in engine.found]
    assert counts == [1, 1, 1, 1, 5, 5, 5, 5, 9, 9, 9, 9], "the row at fault, and each group that was committed"
    assert all(whole.startswith(found) for found in engine.found)
    assert not (tmp_path / "out.part").exists()


def test_what_a_stop_leaves_is_there_and_goes_on(source: Path, tmp_path: Path) -> None:
    engine = looking(tmp_path / "out.part", fails=7)
    with pytest.raises(MemoryError):
        make_job(source, tmp_path / "out", engine, order="finish").run()
    assert len(read_rows(tmp_path / "out.part")) == 8 and not (tmp_path / "out").exists()
    (tmp_path / "out.part").write_bytes(b"of another time")  # the store is what counts
    engine = looking(tmp_path / "out.part")
    make_job(source, tmp_path / "out", engine, order="finish").run()
    assert (tmp_path / "out").read_bytes().startswith(engine.found[0]) and engine.found[0].count(b"\n") == 8
    assert not (tmp_path / "out.part").exists()


@pytest.mark.parametrize("order, name", [("input", "out"), ("finish", "out.csv"), ("finish", "out.jsonl.gz")])
def test_other_outputs_do_not_grow(order: str, name: str, source: Path, tmp_path: Path) -> None:
    engine = looking(tmp_path / f"{name}.part")
    make_job(source, tmp_path / name, engine, order=order).run()
    assert not any(engine.found)


def test_a_job_that_goes_on_in_another_order_leaves_no_such_file(source: Path, tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        make_job(source, tmp_path / "out", looking(tmp_path / "out.part", fails=7), order="finish").run()
    assert make_job(source, tmp_path / "out", order="input").run().resumed == 8
    assert not (tmp_path / "out.part").exists()


def test_another_file_of_that_name_is_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out.part").write_bytes(b"somebody's work")
    with pytest.raises(UsageError, match=r"out\.part: is where rows go as they finish"):
        make_job(source, tmp_path / "out", order="finish").run()
    assert (tmp_path / "out.part").read_bytes() == b"somebody's work"
    assert not (tmp_path / "out.umbel").exists()
    make_job(source, tmp_path / "out").run()
    assert (tmp_path / "out.part").exists()


def test_a_growing_file_that_cannot_be_written_does_not_end_the_job(source: Path, tmp_path: Path) -> None:
    class Full(FakeEngine):
        def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("umbel.jobs.write.growing.os.write", lambda *given: (_ for _ in ()).throw(OSError(28)))
                yield from super().execute(workload, plan)

    assert make_job(source, tmp_path / "out", Full(), order="finish").run().exit_code == 3
    assert len(read_rows(tmp_path / "out")) == 13
