"""A file of answers at its place: whose file is there already, and when the finished one may replace it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umbel.errors import UsageError
from umbel.jobs.failpoints import FailHook
from umbel.jobs.paths import kind_of
from umbel.jobs.store import JobStore
from umbel.jobs.write.sink import digest_file, place_output

SEALED = "output"  # size, digest and order of the output in place or about to be; `partial` when rows are lacking


@dataclass(frozen=True, slots=True)
class OutputPlace:
    """A file that a job writes at its end: its `path`, the `option` that names it, and the store's records of it.

    `sealed`: size and digest of what is in place or about to be.
    `replaced`: size and digest of a file that it may replace.
    """

    path: Path
    option: str = "output"
    sealed: str = SEALED
    replaced: str = "replaces"

    @classmethod
    def of_errors(cls, path: Path) -> OutputPlace:
        """The place of the rows that failed."""
        return cls(path, "--errors", "errors", "errors_replace")

    def check(self, store: JobStore, *, fresh: bool) -> bool:
        """Whether the file exists as this job wrote it. Raises UsageError when it exists and is someone else's.

        With `fresh` an existing file may be replaced; which one is recorded, so that a resume may replace it too.
        """
        found = self._look()
        if found is None:
            return False
        written = store.get(self.sealed)
        if written is not None and found["sha256"] == written["sha256"]:
            return True
        if fresh:
            store.put(**{self.replaced: found})
        elif store.get(self.replaced) != found:
            why = "was changed after this job wrote it" if written else "exists, and no job store beside it made it"
            raise UsageError(
                f"{self.option} {self.path}: {why}; choose another name, move it away, or replace it with --overwrite"
            )
        return False

    def seal(self, store: JobStore, part: Path, at: FailHook, **facts: Any) -> bool:
        """Record the digest of a finished part, with some facts, before it appears; returns whether it replaces a
        file. Raises UsageError when one that is not this job's has appeared there."""
        found, written = self._look(), store.get(self.sealed)
        ours = written is not None and found is not None and found["sha256"] == written["sha256"]
        if found is not None and not ours and store.get(self.replaced) != found:
            raise self._appeared(store)
        records: dict[str, Any] = {self.sealed: {**digest_file(part), **facts}}
        if found is not None:  # it stays ours if we die before the new one is there
            records[self.replaced] = found
        at("store.seal.before")
        store.put(**records)
        at("store.seal.after")
        return found is not None

    def put(self, store: JobStore, part: Path, at: FailHook, *, replace: bool) -> None:
        """Move a sealed part into place. Raises UsageError when a file has appeared there."""
        try:
            place_output(part, self.path, store.path, at, replace=replace)
        except FileExistsError:
            raise self._appeared(store) from None

    def _appeared(self, store: JobStore) -> UsageError:
        """The error for a file that did not exist when the job began."""
        return UsageError(
            f"{self.option} {self.path}: appeared or was changed while this job ran, and was left alone; all answers "
            f"are kept in {store.path}: move {self.path} away and run the same command again, which only writes them"
        )

    def _look(self) -> dict[str, Any] | None:
        """Size and digest of the file at the place; None when there is none."""
        if kind := kind_of(self.path, links=True):
            raise UsageError(f"{self.option} {self.path}: is {kind} now; move it away and run the same command again")
        try:
            return digest_file(self.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(
                f"{self.option} {self.path}: cannot be read ({error.strerror}); move it away, or choose another name"
            ) from None
