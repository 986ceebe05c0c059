"""How far a job is, read from its store by another process while it runs, or afterwards."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from umbel.config import readable
from umbel.errors import UsageError
from umbel.jobs.paths import store_path
from umbel.jobs.progress import Reading
from umbel.jobs.store_file import in_use
from umbel.jobs.store_reader import StoreReader

PROGRESS = "progress"  # the store's record of a reading, and when it was taken


def open_reader(output: Path) -> StoreReader:
    """The store of the job that writes `output`. Raises UsageError where there is none."""
    if not output.name:
        raise UsageError(f"output {output}: is a directory; give the file that a run wrote")
    path = store_path(output)
    if not os.path.lexists(path):
        raise UsageError(f"output {output}: there is no {path.name} beside it, so no job to look at")
    return StoreReader(path)


def how_it_stands(store: StoreReader) -> str:
    """ "running", or how the last run of a job ended: "complete", "drained", "budget" or "killed"."""
    if in_use(store.path):
        return "running"
    return str(store.get("ended") or ("complete" if store.get("finished") else "killed"))


def progress_record(reading: Reading) -> dict[str, Any]:
    """A reading as a job records it."""
    return {**asdict(reading), "at": round(time.time(), 3)}


def read_status(output: Path) -> dict[str, Any]:
    """How far the job that writes `output` is: rows that are stored, what is kept of others, and its last reading."""
    store = open_reader(output)
    try:
        totals, (rows, tokens), told = store.totals(), store.kept(), store.get(PROGRESS)
        found = {
            "output": readable(output),
            "status": how_it_stands(store),
            "rows": max(totals.rows, told["rows"] if told else 0),
            "done": totals.rows,
            "failed": totals.failed,
            "output_tokens": totals.output_tokens,
            "kept_rows": rows,
            "kept_tokens": tokens,
        }
    finally:
        store.close()
    running = found["status"] == "running" and told is not None
    return {**found, "reading": told if running else None}
