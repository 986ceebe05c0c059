"""The file of a job store: created for its owner alone, and SQLite's failures in words that help a user."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import time
from contextlib import suppress
from pathlib import Path

from umbel.errors import DiskFull, StoreBusy, StoreDamaged, UmbelError

STORE_SUFFIXES = ("", "-wal", "-shm", "-journal", "-lock")  # of the files that SQLite may make, and of the lock
_LOCK_TRIES, _LOCK_SECONDS = 5, 0.05  # in which a process that only looks whether a job runs lets go again


def store_files(path: Path) -> list[Path]:
    """The files of a job store: its own and those that SQLite keeps beside it."""
    return [path.with_name(path.name + suffix) for suffix in STORE_SUFFIXES]


class StoreLock:
    """Held by the one process that works on a store, and gone with it however it ends. Raises StoreBusy.

    The file is removed when it is released. Where a file system knows no such locks, SQLite's own one has to do.
    """

    def __init__(self, path: Path):
        self._path = path.with_name(path.name + "-lock")
        self._file = -1
        for left in range(_LOCK_TRIES, 0, -1):
            if self._try():
                return
            if left > 1:
                time.sleep(_LOCK_SECONDS)
        raise StoreBusy(f"{path}: another process is running this job; wait for it or stop it")

    def _try(self) -> bool:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            file = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise DiskFull(
                f"{self._path}: cannot be created ({error.strerror}); free space or mend the disk"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(file).st_nlink > 0  # else another process has removed it meanwhile
        except BlockingIOError:
            held = False
        except OSError:
            held = True
        if held:
            self._file = file
        else:
            os.close(file)
        return held

    def release(self) -> None:
        """Let another process work on the store."""
        if self._file >= 0:
            with suppress(OSError):
                self._path.unlink()
            os.close(self._file)
            self._file = -1


def in_use(path: Path) -> bool:
    """Whether a process works on a store."""
    try:
        file = os.open(path.with_name(path.name + "-lock"), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


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
    """The error for a failure of SQLite. Damaged names and numbers fail in Python's sqlite3 module itself."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreBusy(f"{path}: another process is running this job; wait for it or stop it")
    if not path.exists():
        return DiskFull(f"{path}: writing failed ({error}); {kept_in(path)}")
    if not os.access(path, os.R_OK | os.W_OK):
        return StoreDamaged(
            f"{path}: no permission to read and write it (owner {path.stat().st_uid}, mode {path.stat().st_mode:o}); "
            "allow it, or start again with --overwrite"
        )
    if name.startswith("SQLITE_FULL"):
        return DiskFull(f"{path}: writing failed ({error}), {_size(path):,} bytes on disk; {kept_in(path)}")
    if name.startswith("SQLITE_IOERR"):  # of the disk, or of a file that was cut
        return DiskFull(
            f"{path}: failed ({error}); {kept_in(path)}; if that does not help, start again with --overwrite"
        )
    return StoreDamaged(f"{path}: damaged ({error}); start again with --overwrite")


def kept_in(store: Path) -> str:
    """The advice for results whose output could not be written: where they are, and what to do."""
    if store.exists():
        return f"what was finished is safe in {store}: free space or mend the disk, then run the same command again"
    there = "" if store.parent.exists() else f"make {store.parent} again and "
    return f"{store} is gone, and with it what was finished: {there}run the same command again to compute it once more"


def check_files(path: Path) -> bool:
    """Whether there is a store. Raises StoreDamaged where its place holds anything but files: SQLite would follow links
    and wait for pipes."""
    for file in store_files(path):
        try:
            mode = file.lstat().st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(mode):
            raise StoreDamaged(f"{file}: is a directory, where the job keeps a file; move it away")
        if not stat.S_ISREG(mode):
            raise StoreDamaged(f"{file}: is a link, pipe or device, not a job store; start again with --overwrite")
    return path.exists()


def create_file(path: Path) -> None:
    """Create an empty file that its owner alone can read, as are the files that SQLite puts beside it."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return  # made by another process meanwhile: one of both gets the lock
    except OSError as error:
        raise DiskFull(
            f"{path}: cannot be created ({error.strerror}); free space or mend the disk, then run the same command "
            "again"
        ) from error


def _size(path: Path) -> int:
    """Bytes of a store, with the files that SQLite keeps beside it."""
    found = 0
    for file in store_files(path):
        with suppress(OSError):
            found += file.stat().st_size
    return found
