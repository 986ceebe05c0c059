"""The store: every row once, one job per store, one process per job, damage noticed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from umbel.errors import DiskFull, StoreBusy, StoreDamaged, StoreMismatch
from umbel.jobs.store import GROUP_ROWS, JobStore, Result


def result(row: int, text: str = "x", code: str | None = None) -> Result:
    return Result(row, f"{text}{row}".encode(), code, 2, 3, row % 2 == 1)


def filled(path: Path, rows: list[int]) -> JobStore:
    store = JobStore(path)
    store.identify({"input": "a"})
    for row in rows:
        store.add(result(row))
    store.commit()
    return store


def test_rows_come_back_in_both_orders(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", [2, 0, 1])
    assert [line for _, line in store.lines("input")] == [b"x0", b"x1", b"x2"]
    assert [line for _, line in store.lines("finish")] == [b"x2", b"x0", b"x1"]
    store.close()


def test_a_row_is_committed_once(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", [0, 1])
    store.add(result(1, "again"))
    store.add(result(2))
    store.commit()
    assert [line for _, line in store.lines("input")] == [b"x0", b"x1", b"x2"]
    store.close()


def test_what_was_not_committed_is_forgotten(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", [0, 3])
    store.add(result(1))
    store.close()
    store = JobStore(tmp_path / "s")
    assert store.done() == bytearray([1, 0, 0, 1])
    store.add(result(1))
    store.commit()
    assert [line for _, line in store.lines("finish")] == [b"x0", b"x3", b"x1"]
    store.close()


def test_groups_are_full_or_old(tmp_path: Path) -> None:
    now = [0.0]
    store = JobStore(tmp_path / "s", clock=lambda: now[0])
    assert not any(store.add(result(row)) for row in range(GROUP_ROWS - 1))
    assert store.add(result(GROUP_ROWS))
    store.commit()
    assert not store.add(result(GROUP_ROWS + 1))
    now[0] = 1.5
    assert store.add(result(GROUP_ROWS + 2))
    store.close()


def test_totals(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", [0, 1, 2])
    store.add(Result(3, b"e", "empty_prompt", 0, 0, False))
    store.commit({"steps": 4})
    totals = store.totals()
    assert (totals.rows, totals.failed, totals.prompt_tokens, totals.output_tokens, totals.cut) == (4, 1, 6, 9, 1)
    assert dict(totals.errors) == {"empty_prompt": 1}
    assert store.get("live") == {"steps": 4}
    store.close()


def test_another_job_is_refused_with_the_differences(tmp_path: Path) -> None:
    filled(tmp_path / "s", [0]).close()
    store = JobStore(tmp_path / "s")
    with pytest.raises(StoreMismatch, match=r"(?s)input: a -> b.*seed: None -> 1") as caught:
        store.identify({"input": "b", "seed": 1})
    assert caught.value.exit_code == 2
    store.close()


def test_a_store_without_rows_binds_nobody(tmp_path: Path) -> None:
    filled(tmp_path / "s", []).close()
    store = JobStore(tmp_path / "s")
    store.identify({"input": "b"})
    assert store.get("fingerprint") == {"input": "b"}
    store.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", [0])
    with pytest.raises(StoreBusy, match="another process is running this job"):
        JobStore(tmp_path / "s")
    store.close()
    JobStore(tmp_path / "s").close()


def test_rows_damaged_at_rest_are_dropped_and_named(tmp_path: Path) -> None:
    filled(tmp_path / "s", [0, 1, 2]).close()
    db = sqlite3.connect(tmp_path / "s")
    db.execute("UPDATE results SET line = 'X1' WHERE row = 1")
    db.commit()
    db.close()
    store = JobStore(tmp_path / "s")
    with pytest.raises(StoreDamaged, match=r"1 rows were damaged.*\(1\).*run again"):
        list(store.lines("input"))
    assert store.done() == bytearray([1, 0, 1])
    store.close()


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be looked at" * 40, b"SQLite format 3\x00" * 99]
)
def test_a_file_that_is_no_store_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(StoreDamaged, match="damaged"):
        JobStore(tmp_path / "s")


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "s")
    db.execute("CREATE TABLE theirs (x)")
    db.commit()
    db.close()
    with pytest.raises(StoreMismatch, match="not a job store"):
        JobStore(tmp_path / "s")


def test_a_full_disk_names_path_and_bytes_and_loses_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", [0])
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    store.add(result(1, "y" * 500_000))
    with pytest.raises(DiskFull, match=r"s: writing failed.*full.*bytes on disk"):
        store.commit()
    assert store.broken
    store.close()
    store = JobStore(tmp_path / "s")
    assert store.done() == bytearray([1])
    store.close()
