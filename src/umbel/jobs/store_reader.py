"""What a job store holds, for any process that reads it, also while a job runs."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from umbel.errors import StoreDamaged
from umbel.jobs.store_file import StorageErrors, check_files
from umbel.jobs.store_tables import open_for_reading

MAX_ROWS = 2**33  # beyond any input: a larger row number is damage


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums over a store: rows by outcome, tokens of the rows that have an answer, rows that ended by length."""

    rows: int
    failed: int
    prompt_tokens: int
    output_tokens: int
    cut: int
    errors: Mapping[str, int]


class StoreReader:
    """The store of a job, opened by `connect`; one that is given no other reads while a job runs."""

    def __init__(self, path: Path, connect: Callable[[Path], sqlite3.Connection] = open_for_reading):
        self.path = path
        check_files(path)
        with self._storage():
            self._db = connect(path)

    def get(self, name: str) -> Any:
        """A stored record, or None."""
        with self._storage():
            found = self._db.execute("SELECT value, crc FROM job WHERE name = ?", (name,)).fetchone()
        if found is None:
            return None
        self._check(name, *found)
        return orjson.loads(found[0])

    def check_records(self) -> None:
        """Raise StoreDamaged where a record is damaged."""
        with self._storage():
            records = self._db.execute("SELECT name, value, crc FROM job").fetchall()
        for record in records:
            self._check(*record)

    def _check(self, name: str, value: object, crc: object) -> None:
        if crc != zlib.crc32(str(value).encode()):
            raise StoreDamaged(f"{self.path}: damaged (record {name!r}); start again with --overwrite")

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
                raise StoreDamaged(
                    f"{self.path}: damaged (row numbers {first} to {last}); start again with --overwrite"
                )
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
            raise StoreDamaged(f"{self.path}: damaged (codes of errors); start again with --overwrite")
        return Totals(rows, failed, prompt, output, cut, errors)

    def lines(self, order: str) -> Iterator[tuple[int, bytes]]:
        """Every row with its output line, by row ("input") or as committed ("finish").

        Raises StoreDamaged where the checksum of a row fails; a job drops it first, so that it is computed again.
        """
        bad: list[int] = []
        with self._storage():
            column = "row" if order == "input" else "seq"
            facts = "row, code, prompt_tokens, output_tokens, cut"
            for *found, crc, line in self._db.execute(f"SELECT {facts}, crc, line FROM results ORDER BY {column}"):
                if isinstance(line, bytes) and crc == checksum(tuple(found), line):
                    yield found[0], line
                else:
                    bad.append(found[0])
        if bad:
            self._drop(bad)

    def _drop(self, rows: Sequence[int]) -> None:
        some = ", ".join(map(str, rows[:10]))
        raise StoreDamaged(f"{self.path}: {len(rows)} rows were damaged at rest ({some}); run again to recompute them")

    def close(self) -> None:
        """Close the file."""
        if "_db" in vars(self):
            self._db.close()

    def _storage(self) -> StorageErrors:
        return StorageErrors(self.path)


def checksum(facts: tuple[object, ...], line: bytes) -> int:
    """The checksum of what is stored of a row."""
    return zlib.crc32(line, zlib.crc32(repr(facts).encode()))
