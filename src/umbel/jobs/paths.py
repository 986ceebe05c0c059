"""Where a job's files lie, and the checks that keep them from overwriting one another or somebody's work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from umbel.errors import UsageError
from umbel.jobs.sink import digest_file
from umbel.jobs.store import JobStore

SEALED = "output"  # size, digest and order of the output in place or about to be; `partial` when rows are lacking
REPLACED = "replaces"  # size and digest of a file that the output may replace


def store_path(output: Path) -> Path:
    """The job store of an output file: its name with `.umbel` behind it, in the same directory."""
    return output.with_name(output.name + ".umbel")


def check_paths(source: Path, output: Path) -> None:
    """The output may be written without touching the input. Raises UsageError."""
    if not output.name or output.is_dir():
        raise UsageError(f"output {output}: is a directory; give a file name")
    if not output.parent.is_dir():
        raise UsageError(f"output {output}: there is no directory {output.parent}")
    if not os.access(output.parent, os.W_OK):
        raise UsageError(f"output {output}: no permission to write in {output.parent}")
    for path in (output, store_path(output)):
        if same_file(source, path):
            raise UsageError(f"output {output}: would overwrite the input {source}; choose another name")


def same_file(one: Path, other: Path) -> bool:
    """True when both names lead to one file, also through links, also when it does not exist yet."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def check_output(store: JobStore, output: Path, *, fresh: bool) -> bool:
    """True when the output is there as this job wrote it. Raises UsageError when it is there and is someone else's.

    With `fresh` an existing file may be replaced; which one is noted, so that a resume may replace it too.
    """
    if not output.exists():
        return False
    found = digest_file(output)
    written = store.get(SEALED)
    if written is not None and found["sha256"] == written["sha256"]:
        return True
    if fresh:
        store.put(**{REPLACED: found})
    elif store.get(REPLACED) != found:
        why = "was changed after this job wrote it" if written else "exists, and no job store beside it made it"
        raise UsageError(f"output {output}: {why}; choose another name, move it away, or replace it with --fresh")
    return False


def is_final(sealed: Mapping[str, Any] | None, order: str) -> bool:
    """Whether a sealed output has every row, in the wanted order."""
    return sealed is not None and sealed["order"] == order and not sealed.get("partial")


def remove_store(path: Path) -> None:
    """Delete a job store and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
