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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from umbel.errors import StoreDamaged, StoreMismatch
from umbel.jobs.failpoints import FailHook, no_failpoint
from umbel.jobs.fingerprint import compare, merge, undoing
from umbel.jobs.store_file import StorageErrors, check_files, create_file
from umbel.jobs.store_tables import open_for_writing, prepare

GROUP_ROWS = 2_048
GROUP_SECONDS = 1.0
MAX_ROWS = 2**33  # beyond any input: a larger row number is damage
_RECORD = "INSERT OR REPLACE INTO job VALUES (?, ?, ?)"
_INSERT = "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (row) DO NOTHING"
_KEEP = "INSERT OR REPLACE INTO unfinished VALUES (?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Result:
    """A finished row: its output `line` (no newline), its error `code` or None, `cut` if it ended by length."""

    row: int
    line: bytes
    code: str | None
    prompt_tokens: int
    output_tokens: int
    cut: bool


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums over a store: rows by outcome, tokens of the rows that have an answer, rows that ended by length."""

    rows: int
    failed: int
    prompt_tokens: int
    output_tokens: int
    cut: int
    errors: Mapping[str, int]


class JobStore:
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
        self.path = path
        self._shield = shield
        self._at = at
        self._clock = clock
        self._pending: list[tuple[object, ...]] = []
        self._oldest = 0.0
        self.broken = False
        self.has_unfinished = False  # whether anything is kept of rows that are not done
        existed = check_files(path)
        if not existed:
            at("store.create.before")
            create_file(path)
        with self._storage():
            self._db = open_for_writing(path)
        try:
            self._seq = self._next_commit()
            if not existed:
                at("store.create.after")
        except BaseException:
            self._db.close()
            raise

    def _next_commit(self) -> int:
        """The number of the next commit; checks the tables."""
        with self._storage():
            prepare(self._db, self.path)
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
                f"Undo the change to resume{how}, use another output, or start again with --fresh"
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

    def get(self, name: str) -> Any:
        """A stored record, or None."""
        with self._storage():
            found = self._db.execute("SELECT value, crc FROM job WHERE name = ?", (name,)).fetchone()
        if found is None:
            return None
        if found[1] != zlib.crc32(str(found[0]).encode()):
            raise StoreDamaged(f"{self.path}: damaged (record {name!r}); start again with --fresh")
        return orjson.loads(found[0])

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
        self._pending.append((row, self._seq, *others, _checksum(facts, result.line), result.line))
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
            self._pending = []
            self.broken = False
        self._at("store.commit.after")

    def keep(self, records: Iterable[tuple[int, int, bytes]]) -> None:
        """Keep what some rows have that are not done, durably, in place of an earlier record: row, tokens, record."""
        self._at("store.keep.before")
        with self._transaction():
            self._db.executemany(
                _KEEP, ((*facts, _checksum(tuple(facts), record), record) for *facts, record in records)
            )
            self.has_unfinished = True
        self._at("store.keep.after")

    def unfinished(self, rows: Container[int]) -> Iterator[tuple[int, bytes]]:
        """What is kept of those of `rows` that are not done; nothing where it was damaged: that row begins again."""
        with self._storage():
            for row, tokens, crc, record in self._db.execute("SELECT row, tokens, crc, record FROM unfinished"):
                if row in rows and isinstance(record, bytes) and crc == _checksum((row, tokens), record):
                    yield row, record

    def kept(self) -> tuple[int, int]:
        """How many rows are kept that are not done, and their tokens."""
        with self._storage():
            rows, tokens = self._db.execute("SELECT count(*), total(tokens) FROM unfinished").fetchone()
            return rows, int(tokens)

    def done(self) -> bytearray:
        """A byte for each row, 1 if it is committed (shorter than the input when its last rows are not done)."""
        with self._storage():
            first, last = self._db.execute("SELECT min(row), max(row) FROM results").fetchone()
            if first is not None and not 0 <= first <= last < MAX_ROWS:
                raise StoreDamaged(f"{self.path}: damaged (row numbers {first} to {last}); start again with --fresh")
            flags = bytearray(0 if last is None else last + 1)
            for (row,) in self._db.execute("SELECT row FROM results"):
                flags[row] = 1
        return flags

    def answered(self) -> bytearray:
        """A byte for each row, 1 if it is committed and has an answer."""
        flags = self.done()
        with self._storage():
            for (row,) in self._db.execute("SELECT row FROM results WHERE code NOT NULL"):
                flags[row] = 0
        return flags

    def totals(self) -> Totals:
        """Sums over the committed rows."""
        with self._storage():
            sums = self._db.execute(
                "SELECT count(*), count(code), total(prompt_tokens), total(output_tokens), total(cut) FROM results"
            ).fetchone()
            codes = self._db.execute("SELECT code, count(*) FROM results WHERE code NOT NULL GROUP BY 1 ORDER BY 1")
            rows, failed, prompt, output, cut = (int(value) for value in sums)
            errors = dict(codes.fetchall())
        if not all(isinstance(code, str) for code in errors):
            raise StoreDamaged(f"{self.path}: damaged (codes of errors); start again with --fresh")
        return Totals(rows, failed, prompt, output, cut, errors)

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

    def lines(self, order: str) -> Iterator[tuple[int, bytes]]:
        """Every row with its output line, by row ("input") or as committed ("finish").

        Raises StoreDamaged after dropping the rows whose checksum fails, so that the next run computes them again.
        """
        bad: list[int] = []
        with self._storage():
            column = "row" if order == "input" else "seq"
            facts = "row, code, prompt_tokens, output_tokens, cut"
            for *found, crc, line in self._db.execute(f"SELECT {facts}, crc, line FROM results ORDER BY {column}"):
                if isinstance(line, bytes) and crc == _checksum(tuple(found), line):
                    yield found[0], line
                else:
                    bad.append(found[0])
        if bad:
            self._drop(bad)

    def _drop(self, rows: Sequence[int]) -> None:
        with self._transaction():
            self._db.executemany("DELETE FROM results WHERE row = ?", [(row,) for row in rows])
        some = ", ".join(map(str, rows[:10]))
        raise StoreDamaged(f"{self.path}: {len(rows)} rows were damaged at rest ({some}); run again to recompute them")

    def close(self) -> None:
        """Close the file; rows that were not committed are lost."""
        self._db.close()

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

    def _storage(self) -> StorageErrors:
        return StorageErrors(self.path)


def _record(name: str, value: object) -> tuple[str, str, int]:
    text = orjson.dumps(value)
    return name, text.decode(), zlib.crc32(text)


def _checksum(facts: tuple[object, ...], line: bytes) -> int:
    return zlib.crc32(line, zlib.crc32(repr(facts).encode()))
