"""The output at its place: whose file is there already, and when the finished one may replace it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from umbel.errors import UsageError
from umbel.jobs.failpoints import FailHook
from umbel.jobs.paths import kind_of
from umbel.jobs.store import JobStore
from umbel.jobs.write.sink import digest_file, place_output

SEALED = "output"  # size, digest and order of the output in place or about to be; `partial` when rows are lacking
REPLACED = "replaces"  # size and digest of a file that the output may replace


def check_output(store: JobStore, output: Path, *, fresh: bool) -> bool:
    """Whether the output exists as this job wrote it. Raises UsageError when it exists and is someone else's.

    With `fresh` an existing file may be replaced; which one is recorded, so that a resume may replace it too.
    """
    found = _look(output)
    if found is None:
        return False
    written = store.get(SEALED)
    if written is not None and found["sha256"] == written["sha256"]:
        return True
    if fresh:
        store.put(**{REPLACED: found})
    elif store.get(REPLACED) != found:
        why = "was changed after this job wrote it" if written else "exists, and no job store beside it made it"
        raise UsageError(f"output {output}: {why}; choose another name, move it away, or replace it with --fresh")
    return False


def _find_replaced(store: JobStore, output: Path) -> dict[str, Any] | None:
    """The file that a finished output will replace, None where there is none. Raises UsageError when it is not this
    job's."""
    found, written = _look(output), store.get(SEALED)
    ours = written is not None and found is not None and found["sha256"] == written["sha256"]
    if found is not None and not ours and store.get(REPLACED) != found:
        raise _appeared(store, output)
    return found


def _appeared(store: JobStore, output: Path) -> UsageError:
    """The error for a file that did not exist when the job began."""
    return UsageError(
        f"output {output}: appeared or was changed while this job ran, and was left alone; all answers are kept in "
        f"{store.path}: move {output} away and run the same command again, which only writes them"
    )


def _look(output: Path) -> dict[str, Any] | None:
    """Size and digest of the file at the place of the output; None when there is none."""
    if kind := kind_of(output, links=True):
        raise UsageError(f"output {output}: is {kind} now; move it away and run the same command again")
    try:
        return digest_file(output)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(
            f"output {output}: cannot be read ({error.strerror}); move it away, or choose another name"
        ) from None


def is_final(sealed: Mapping[str, Any] | None, order: str) -> bool:
    """Whether a sealed output has every row, in the wanted order."""
    return sealed is not None and sealed["order"] == order and not sealed.get("partial")


def seal_and_place(store: JobStore, output: Path, part: Path, at: FailHook, *, order: str, partial: bool) -> None:
    """Move a finished output into place; its digest is recorded before it appears. Raises UsageError when a file that
    is not this job's has appeared there."""
    replaced = _find_replaced(store, output)
    records: dict[str, Any] = {SEALED: {**digest_file(part), "order": order, "partial": partial}}
    if replaced is not None:  # it stays ours if we die before the new one is there
        records[REPLACED] = replaced
    at("store.seal.before")
    store.put(**records)
    at("store.seal.after")
    try:
        place_output(part, output, store.path, at, replace=replaced is not None)
    except FileExistsError:
        raise _appeared(store, output) from None
    at("store.finish.before")
    store.put(finished=not partial, ended="budget" if partial else "complete")
    at("store.finish.after")
