"""Answers of a job as far as it is: for reading while it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from umbel.errors import UsageError
from umbel.jobs.failpoints import no_failpoint
from umbel.jobs.paths import check_paths
from umbel.jobs.status import open_reader
from umbel.jobs.write.sink import place_output, remove_part, write_output


def export(output: Path, order: str, target: Path | None, put: Callable[[bytes], object]) -> int:
    """Write the rows that are stored to a new file `target`, or line by line to `put`; returns their number. Raises
    UsageError where there is a file already."""
    store = open_reader(output)
    count = 0
    try:
        if target is None:
            for _, line in store.lines(order):
                put(line + b"\n")
                count += 1
            return count
        check_paths([output], target)
        part = write_output(target, store.path, lambda: (line for _, line in store.lines(order)), no_failpoint)
        try:
            place_output(part, target, store.path, no_failpoint, replace=False)
        except FileExistsError:
            raise UsageError(f"-o {target}: exists; choose another name, or move it away") from None
        finally:
            remove_part(part)
        return store.totals().rows
    finally:
        store.close()
