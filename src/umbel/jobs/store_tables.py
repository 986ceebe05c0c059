"""The tables of a job store, and the connection to them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from umbel.errors import StoreDamaged, StoreMismatch

READERS_SECONDS = 10.0  # that a process waits for readers, which hold up others for moments only
APPLICATION_ID = 0x756D6265  # "umbe", so that another SQLite file is not taken for a store
TABLES = (
    "CREATE TABLE job (name TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE results (row INTEGER PRIMARY KEY, seq INTEGER NOT NULL, code TEXT, prompt_tokens INTEGER NOT NULL, "
    "output_tokens INTEGER NOT NULL, cut INTEGER NOT NULL, crc INTEGER NOT NULL, line BLOB NOT NULL)",
    "CREATE TABLE unfinished (row INTEGER PRIMARY KEY, tokens INTEGER NOT NULL, crc INTEGER NOT NULL, "
    "record BLOB NOT NULL)",
)


def open_for_writing(path: Path) -> sqlite3.Connection:
    """A connection for the one process that works on the store and holds its lock. Others can read meanwhile where the
    file system lets processes share memory. Raises sqlite3.Error, and what `prepare` raises."""
    try:
        return _opened(path, "NORMAL")
    except sqlite3.OperationalError:
        return _opened(path, "EXCLUSIVE")


def _opened(path: Path, locking: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=READERS_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        db.execute(f"PRAGMA locking_mode = {locking}")
        if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise sqlite3.OperationalError("no write-ahead log")
        db.execute("PRAGMA synchronous = FULL")  # a commit that returned is on disk
        db.execute("BEGIN IMMEDIATE")
        db.execute("COMMIT")  # fails now, not at the first result
        _prepare(db, path)
    except BaseException:
        db.close()
        raise
    return db


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing. Raises as `open_for_writing`."""
    where = f"{path.absolute().as_uri()}?mode=rw"  # not ro: what a killed process has left is taken in first
    db = sqlite3.connect(where, uri=True, timeout=READERS_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA query_only = 1")
        _check(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    """Create the tables in a new file, or check those of an old one."""
    owner, tables = _found(db)
    if not tables and owner in (0, APPLICATION_ID):
        statements = "; ".join((*TABLES, f"PRAGMA application_id = {APPLICATION_ID}"))
        db.executescript(f"BEGIN; {statements}; COMMIT;")
    else:
        _check(db, path)


def _check(db: sqlite3.Connection, path: Path) -> None:
    """Raise StoreMismatch for the database of another program, StoreDamaged."""
    owner, tables = _found(db)
    if owner != APPLICATION_ID:
        raise StoreMismatch(f"{path} is an SQLite file, but not a job store of umbel; move it away")
    if tables != TABLES:
        raise StoreDamaged(
            f"{path}: its tables are not those of this version of umbel; finish the job with the version "
            "that began it, or start again with --overwrite"
        )
    if (whole := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise StoreDamaged(f"{path}: damaged ({whole}); start again with --overwrite")


def _found(db: sqlite3.Connection) -> tuple[int, tuple[str, ...]]:
    owner = db.execute("PRAGMA application_id").fetchone()[0]
    return owner, tuple(text for (text,) in db.execute("SELECT sql FROM sqlite_master ORDER BY rootpage"))
