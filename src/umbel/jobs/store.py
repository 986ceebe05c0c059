"""The durable memory of a job: a SQLite file beside the output, with every finished row exactly once.

A row's output line is rendered before it is stored, so the output file is a copy of the store in the wanted order and a
resumed job writes the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from umbel.errors import StoreMismatch
from umbel.jobs.failpoints import FailHook, no_failpoint
from umbel.jobs.fingerprint import compare, merge, undoing
from umbel.jobs.store_file import StoreLock, check_files, create_file
from umbel.jobs.store_reader import StoreReader, checksum
from umbel.jobs.store_tables import open_for_writing

GROUP_ROWS = 2_048
GROUP_SECONDS = 1.0
_RECORD = "INSERT OR REPLACE INTO job VALUES (?, ?, ?)"
_INSERT = "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (row) DO NOTHING"
_KEEP = "INSERT OR REPLACE INTO unfinished VALUES (?, ?, ?, ?)"


class Result(NamedTuple):  # one a row: made in a third of the time that a frozen dataclass takes
    """A finished row: its output `line` (no newline), its error `code` or None, `cut` if it ended by length."""

    row: int
    line: bytes
    code: str | None
    prompt_tokens: int
    output_tokens: int
    cut: bool


class JobStore(StoreReader):
    """The store of one job, open in one process; a second process gets StoreBusy. Results are committed in groups.

    `at` is called at the failpoints, `clock` (seconds) decides when a group is old enough to commit, `shield` holds off
    what would cut a transaction short.
    """

    def __init__(
        self,
        path: Path,
        at: FailHook = no_failpoint,
        clock: Callable[[], float] = time.monotonic,
        shield: Callable[[], AbstractContextManager[None]] = nullcontext,
    ):
        self._shield = shield
        self._at = at
        self._clock = clock
        self._pending: list[tuple[object, ...]] = []
        self._oldest = 0.0
        self.broken = False
        self.follow: Callable[[list[bytes]], object] | None = None  # called with the lines of each commit
        self.has_unfinished = False  # whether anything is kept of rows that are not done
        existed = check_files(path)
        self._lock = StoreLock(path)
        try:
            if not existed:
                at("store.create.before")
                create_file(path)
            super().__init__(path, open_for_writing)
            self._seq = self._next_commit()
            if not existed:
                at("store.create.after")
        except BaseException:
            self.close()
            raise

    def _next_commit(self) -> int:
        """The number of the next commit."""
        with self._storage():
            self.has_unfinished = bool(self._db.execute("SELECT EXISTS (SELECT 1 FROM unfinished)").fetchone()[0])
            return int(self._db.execute("SELECT coalesce(max(seq), -1) + 1 FROM results").fetchone()[0])

    def identify(self, fingerprint: Mapping[str, Any]) -> None:
        """Bind the store to a job, or check that it is this job's. Raises StoreMismatch with the differences."""
        known = self.get("fingerprint")
        if known is None or self.is_new():  # an earlier run that stored no row binds no later one
            known, merged = None, dict(fingerprint)
        elif differences := compare(known, fingerprint):
            listed = "\n  ".join(f"{name}: {before} -> {now}" for name, (before, now) in differences.items())
            how = f" ({typed})" if (typed := undoing(differences)) else ""
            raise StoreMismatch(
                f"{self.path} belongs to another job; what differs (stored -> now):\n  {listed}\n"
                f"Undo the change to resume{how}, use another output, or start again with --overwrite"
            )
        else:
            merged = merge(known, fingerprint)
        if merged != known:
            self._at("store.identify.before")
            self.put(fingerprint=merged)
            self._at("store.identify.after")

    def settle(self, decided: Mapping[str, Any]) -> None:
        """Record the settings that the machine decides (config.DECIDED_HERE), or check that earlier runs had the same.
        Raises StoreMismatch."""
        if decided:
            self.identify({**self.get("fingerprint"), **{f"engine.{name}": value for name, value in decided.items()}})

    def is_new(self) -> bool:
        """True while no row was ever committed, nor anything kept of one."""
        with self._storage():
            rows = "SELECT EXISTS (SELECT 1 FROM results) OR EXISTS (SELECT 1 FROM unfinished)"
            return not self._db.execute(rows).fetchone()[0]

    def put(self, **records: Any) -> None:
        """Store records by name, durably."""
        with self._transaction():
            for name, value in records.items():
                self._db.execute(_RECORD, _record(name, value))

    def add(self, result: Result) -> bool:
        """Take a finished row; True when the group is full or old enough that `commit` is due."""
        now = self._clock()
        if not self._pending:
            self._oldest = now
        facts = (result.row, result.code, result.prompt_tokens, result.output_tokens, int(result.cut))
        row, *others = facts
        self._pending.append((row, self._seq, *others, checksum(facts, result.line), result.line))
        self._seq += 1
        return len(self._pending) >= GROUP_ROWS or now - self._oldest >= GROUP_SECONDS

    def commit(self, live: Mapping[str, Any] | None = None) -> None:
        """Make the pending rows durable. When it returns they are on disk; when it raises none of them count.

        `live` holds the counters of the whole job so far, kept for the report, also where no row is pending.
        """
        if not self._pending and live is None:
            return
        with self._shield():
            self.broken = True  # until it has worked: a failed commit is never tried again
            self._at("store.commit.before")
            with self._transaction():
                self._db.executemany(_INSERT, self._pending)
                if self.has_unfinished:
                    done = [pending[:1] for pending in self._pending]
                    self._db.executemany("DELETE FROM unfinished WHERE row = ?", done)
                if live is not None:
                    self._db.execute(_RECORD, _record("live", dict(live)))
            lines, self._pending = [pending[-1] for pending in self._pending if self.follow], []
            self.broken = False
        self._at("store.commit.after")
        if self.follow is not None:
            self.follow(lines)

    def keep(self, records: Iterable[tuple[int, int, bytes]]) -> None:
        """Keep what some rows have that are not done, durably, in place of an earlier record: row, tokens, record."""
        self._at("store.keep.before")
        with self._transaction():
            self._db.executemany(
                _KEEP, ((*facts, checksum(tuple(facts), record), record) for *facts, record in records)
            )
            self.has_unfinished = True
        self._at("store.keep.after")

    def unfinished(self, rows: Container[int]) -> Iterator[tuple[int, bytes]]:
        """What is kept of those of `rows` that are not done; nothing where it was damaged: that row begins again."""
        with self._storage():
            for row, tokens, crc, record in self._db.execute("SELECT row, tokens, crc, record FROM unfinished"):
                if row in rows and isinstance(record, bytes) and crc == checksum((row, tokens), record):
                    yield row, record

    def forget(self, codes: Sequence[str], **records: Any) -> int:
        """Drop the rows that failed with one of `codes`, and store records in the same transaction; returns how many
        there were."""
        self._at("store.forget.before")
        with self._transaction():
            marks = ", ".join("?" * len(codes))
            dropped = self._db.execute(f"DELETE FROM results WHERE code IN ({marks})", tuple(codes)).rowcount
            for name, value in records.items() if dropped else ():
                self._db.execute(_RECORD, _record(name, value))
        self._at("store.forget.after")
        return int(dropped)

    def _drop(self, rows: Sequence[int]) -> None:
        with self._transaction():
            self._db.executemany("DELETE FROM results WHERE row = ?", [(row,) for row in rows])
        super()._drop(rows)

    def close(self) -> None:
        """Close the file; rows that were not committed are lost."""
        super().close()
        self._lock.release()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """A block whose statements all take effect, or none."""
        with self._shield(), self._storage():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have rolled it back itself
                    self._db.execute("ROLLBACK")
                raise


def _record(name: str, value: object) -> tuple[str, str, int]:
    text = orjson.dumps(value)
    return name, text.decode(), zlib.crc32(text)
