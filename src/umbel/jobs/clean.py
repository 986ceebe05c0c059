"""Removes the store of a job whose output is complete: nothing needs it then but a report."""

from __future__ import annotations

from pathlib import Path

from umbel.errors import UsageError
from umbel.jobs.paths import follow, remove_store, store_path
from umbel.jobs.status import open_reader
from umbel.jobs.store import JobStore
from umbel.jobs.write.placing import SEALED
from umbel.jobs.write.sink import digest_file, remove_parts


def clean(output: Path) -> int:
    """Remove the store and what killed runs have left beside an output; returns the bytes freed. Raises UsageError
    where the output lacks rows or is not as the job wrote it, as its answers are in the store alone then; StoreBusy."""
    open_reader(output).close()
    target, path = follow(output), store_path(output)
    store = JobStore(path)
    try:
        sealed = store.get(SEALED)
        if sealed is None or sealed.get("partial"):
            raise UsageError(f"output {output}: is not complete: {path.name} has the answers so far, and is kept")
        if not target.is_file() or digest_file(target)["sha256"] != sealed["sha256"]:
            raise UsageError(
                f"output {output}: is not the file that this job wrote, so {path.name} is kept, which has the answers; "
                "run the job again to write them, or delete it by hand"
            )
        remove_parts(target)
    finally:
        store.close()
    freed = path.stat().st_size
    remove_store(path)
    return freed
