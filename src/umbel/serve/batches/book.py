"""The durable records of a server: one SQLite file in its store, of which each change is on disk when it returns."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from umbel.errors import StoreBusy, StoreDamaged, UsageError
from umbel.jobs.store_file import StorageErrors, StoreLock, create_file

APPLICATION_ID = 0x756D6273  # "umbs"
_TABLES = (
    "CREATE TABLE records (seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id TEXT NOT NULL UNIQUE, "
    "owner TEXT NOT NULL, record TEXT NOT NULL)",
    "CREATE INDEX of_owner ON records (kind, owner, seq)",
)


@dataclass(frozen=True, slots=True)
class Page:
    """Some records of a list, and whether there are more behind them."""

    records: list[Mapping[str, Any]]
    has_more: bool


class RecordBook:
    """Records by kind and id, each with its owner, in the order of their making; for any thread.

    Raises UsageError where another server uses the file.
    """

    def __init__(self, path: Path):
        self._path, self._turn, self._depth = path, threading.RLock(), 0
        try:
            self._lock = StoreLock(path)
        except StoreBusy:
            raise UsageError(f"--store {path.parent}: another server uses it; stop that one, or give another") from None
        if not path.exists():
            create_file(path)
        with StorageErrors(path):
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # a commit that returned is on disk
            self._prepare()

    def _prepare(self) -> None:
        tables = [name for (name,) in self._db.execute("SELECT name FROM sqlite_master")]
        if not tables:
            statements = "; ".join((*_TABLES, f"PRAGMA application_id = {APPLICATION_ID}"))
            self._db.executescript(f"BEGIN; {statements}; COMMIT;")
        elif self._db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise UsageError(f"{self._path}: is not a server's store of umbel; give another --store")
        if (whole := self._db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise StoreDamaged(f"{self._path}: damaged ({whole}); move it away, or give another --store")

    @contextmanager
    def changing(self) -> Iterator[None]:
        """A block whose changes all count, or none; only its thread sees the records meanwhile."""
        with self._turn, StorageErrors(self._path):
            self._depth += 1
            try:
                if self._depth == 1:
                    self._db.execute("BEGIN IMMEDIATE")
                yield
                if self._depth == 1:
                    self._db.execute("COMMIT")
            except BaseException:
                if self._depth == 1:
                    with suppress(sqlite3.Error):  # SQLite may have rolled it back itself
                        self._db.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    def add(self, kind: str, record: Any) -> None:
        """A new record, a dataclass with an id and an owner."""
        values = (kind, record.id, record.owner, _packed(record))
        with self.changing():
            self._db.execute("INSERT INTO records (kind, id, owner, record) VALUES (?, ?, ?, ?)", values)

    def put(self, kind: str, record: Any) -> None:
        """A record in the place of the one with its id, which is there."""
        with self.changing():
            values = (_packed(record), record.id, kind)
            self._db.execute("UPDATE records SET record = ? WHERE id = ? AND kind = ?", values)

    def remove(self, kind: str, id: str) -> None:
        """Forget a record."""
        with self.changing():
            self._db.execute("DELETE FROM records WHERE id = ? AND kind = ?", (id, kind))

    def get(self, kind: str, id: str, owner: str | None = None) -> Mapping[str, Any] | None:
        """A record, None where there is none of that kind that belongs to `owner` (None: to anybody)."""
        text = "SELECT record FROM records WHERE id = ? AND kind = ? AND (owner = ? OR ? IS NULL)"
        with self._turn, StorageErrors(self._path):
            found = self._db.execute(text, (id, kind, owner, owner)).fetchone()
        return None if found is None else orjson.loads(found[0])

    def all(self, kind: str) -> list[Mapping[str, Any]]:
        """All records of a kind, the oldest first."""
        with self._turn, StorageErrors(self._path):
            found = self._db.execute("SELECT record FROM records WHERE kind = ? ORDER BY seq", (kind,)).fetchall()
        return [orjson.loads(text) for (text,) in found]

    def page(
        self,
        kind: str,
        owner: str,
        after: str | None,
        limit: int,
        *,
        oldest_first: bool = False,
        wanted: Callable[[Mapping[str, Any]], bool] = lambda record: True,
    ) -> Page | None:
        """Up to `limit` records of an owner behind the one with the id `after`; None where there is no such record."""
        compare, order, start = (">", "ASC", -1) if oldest_first else ("<", "DESC", 2**62)
        with self._turn, StorageErrors(self._path):
            if after is not None:
                place = "SELECT seq FROM records WHERE id = ? AND kind = ? AND owner = ?"
                found = self._db.execute(place, (after, kind, owner)).fetchone()
                if found is None:
                    return None
                start = found[0]
            text = f"SELECT record FROM records WHERE kind = ? AND owner = ? AND seq {compare} ? ORDER BY seq {order}"
            records: list[Mapping[str, Any]] = []
            for (packed,) in self._db.execute(text, (kind, owner, start)):
                record = orjson.loads(packed)
                if wanted(record):
                    records.append(record)
                if len(records) > limit:
                    break
        return Page(records[:limit], len(records) > limit)

    def close(self) -> None:
        """Close the file and let another server use it."""
        with self._turn:
            self._db.close()
            self._lock.release()


def _packed(record: Any) -> str:
    return orjson.dumps(asdict(record)).decode()
