"""The file of a job store: made for its owner alone, and what SQLite's failures mean to a user."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

from umbel.errors import DiskFull, StoreBusy, StoreDamaged, UmbelError

STORE_SUFFIXES = ("", "-wal", "-shm", "-journal")  # of the files that SQLite may make


def store_files(path: Path) -> list[Path]:
    """A job store and what SQLite keeps beside it."""
    return [path.with_name(path.name + suffix) for suffix in STORE_SUFFIXES]


class StorageErrors:
    """Turns SQLite's failures into errors that say what to do; no retries, since a failed sync may have lost data."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (sqlite3.Error, UnicodeDecodeError, OverflowError)):
            raise _explained(self._path, error) from error


def _explained(path: Path, error: Exception) -> UmbelError:
    """What a failure of SQLite means; names and numbers that make no sense fail in its Python module."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreBusy(f"{path}: another process is running this job; wait for it or stop it")
    if not path.exists():
        return DiskFull(f"{path}: was moved or deleted while the job ran; run the same command again to begin anew")
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
        return StoreDamaged(
            f"{path}: cannot be opened for writing ({error}); allow it (its owner and mode: {_owner(path)}), or start "
            "again with --fresh"
        )
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        n_bytes = sum(map(_size, store_files(path)))
        return DiskFull(
            f"{path}: writing failed ({error}), {n_bytes:,} bytes on disk; what was committed is safe: free space or "
            "mend the disk, then run the same command again"
        )
    return StoreDamaged(f"{path}: damaged ({error}); start again with --fresh")


def check_files(path: Path) -> bool:
    """Whether there is a store. Raises StoreDamaged where something else than files is in its place: SQLite would
    follow links and wait for pipes."""
    for file in store_files(path):
        try:
            mode = file.lstat().st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(mode):
            raise StoreDamaged(f"{file}: is a directory, where the job keeps a file; move it away")
        if not stat.S_ISREG(mode):
            raise StoreDamaged(f"{file}: is a link, pipe or device, not a job store; start again with --fresh")
    return path.exists()


def create_file(path: Path) -> None:
    """An empty file that its owner alone can read, as will be what SQLite puts beside it."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return  # made by another process meanwhile: one of both gets the lock
    except OSError as error:
        raise DiskFull(
            f"{path}: cannot be created ({error.strerror}); free space or mend the disk, then run the same command "
            "again"
        ) from error


def _owner(path: Path) -> str:
    found = path.stat()
    return f"{found.st_uid}, {stat.S_IMODE(found.st_mode):o}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
