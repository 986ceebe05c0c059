"""Notices an input that changes between the moment it was hashed and the moment a row of it is read."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umbel.errors import InputChanged
from umbel.jobs.read.inputs import InputFile
from umbel.models.digest import hash_file

Stamp = tuple[int, int, int, int]
_TICK_NS = 50_000_000  # file systems count time in steps of some milliseconds


def stamp_of(path: Path) -> Stamp | None:
    """Device, inode, size and time of the last change of a file (ns); None when it does not exist.

    The time is ctime, which a program that resets mtime cannot set.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns


@dataclass(slots=True)
class HashedInput:
    """An input file as it was when its `sha256` was taken; `stamp`, and the time in `since` (ns), are of just before.

    A file that was written within a few milliseconds before `since` may be written again unseen, so it is hashed then.
    """

    path: Path
    stamp: Stamp | None
    since: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> HashedInput:
        """A file as it is now. Raises UsageError when it cannot be read."""
        seen, since = stamp_of(path), time.time_ns()
        return cls(path, seen, since, hash_file(path))

    def check(self) -> bool:
        """Whether the file is untouched since the last check; cheap while it is.

        False where it was touched but holds the same bytes now: rows read meanwhile may come from a half-written file
        and must be read again. Raises InputChanged where the bytes are others.
        """
        now, clock = stamp_of(self.path), time.time_ns()
        same = now is not None and now == self.stamp
        if now is not None and same and now[3] < self.since - _TICK_NS:
            return True
        if now is None or hash_file(self.path) != self.sha256:
            raise InputChanged(
                f"input {self.path}: changed while the job ran; rows answered so far are kept for what it was. "
                "Put it back and run the same command again, or start over with --overwrite"
            )
        self.stamp, self.since = now, clock
        return same


def input_identity(files: Sequence[InputFile], hashed: Sequence[HashedInput]) -> dict[str, Any]:
    """The part of a job's identity that its input decides: the bytes of one file, of several also their order and their
    names, which come back on their rows."""
    sizes = [one.stamp[2] if one.stamp else 0 for one in hashed]
    if len(files) == 1:
        return {"input.sha256": hashed[0].sha256, "input.bytes": sizes[0]}
    found: dict[str, Any] = {"input.files": len(files)}
    for number, (file, one, size) in enumerate(zip(files, hashed, sizes, strict=True), 1):
        found[f"input.{number}"] = f"{file.name}, {size} bytes, sha256 {one.sha256}"
    return found
