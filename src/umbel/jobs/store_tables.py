"""The tables of a job store, and the connection to them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from umbel.errors import StoreDamaged, StoreMismatch

APPLICATION_ID = 0x756D6265  # "umbe", so that another SQLite file is not taken for a store
TABLES = (
    "CREATE TABLE job (name TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE results (row INTEGER PRIMARY KEY, seq INTEGER NOT NULL, code TEXT, prompt_tokens INTEGER NOT NULL, "
    "output_tokens INTEGER NOT NULL, cut INTEGER NOT NULL, crc INTEGER NOT NULL, line BLOB NOT NULL)",
    "CREATE TABLE unfinished (row INTEGER PRIMARY KEY, tokens INTEGER NOT NULL, crc INTEGER NOT NULL, "
    "record BLOB NOT NULL)",
)


def open_for_writing(path: Path) -> sqlite3.Connection:
    """A connection that no other process has beside this one. Raises sqlite3.Error."""
    db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")  # held until close or death: one process per job
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # a commit that returned is on disk
        db.execute("BEGIN IMMEDIATE")
        db.execute("COMMIT")  # takes the lock now, not at the first result
    except BaseException:
        db.close()
        raise
    return db


def prepare(db: sqlite3.Connection, path: Path) -> None:
    """Create the tables in a new file, or check those of an old one. Raises StoreMismatch for the database of another
    program, StoreDamaged."""
    owner = db.execute("PRAGMA application_id").fetchone()[0]
    tables = tuple(text for (text,) in db.execute("SELECT sql FROM sqlite_master ORDER BY rootpage"))
    if not tables and owner in (0, APPLICATION_ID):
        statements = "; ".join((*TABLES, f"PRAGMA application_id = {APPLICATION_ID}"))
        db.executescript(f"BEGIN; {statements}; COMMIT;")
    elif owner != APPLICATION_ID:
        raise StoreMismatch(f"{path} is an SQLite file, but not a job store of umbel; move it away")
    elif tables != TABLES:
        raise StoreDamaged(
            f"{path}: its tables are not those of this version of umbel; finish the job with the version "
            "that began it, or start again with --fresh"
        )
    elif (whole := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise StoreDamaged(f"{path}: damaged ({whole}); start again with --fresh")
