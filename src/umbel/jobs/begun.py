"""The decisions of a job's first run, which later runs keep so that a resume writes the same bytes."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

from umbel.jobs.read.records import ReadOptions
from umbel.jobs.store import JobStore


def started(store: JobStore) -> datetime:
    """When the first run of this job began, or the time of SOURCE_DATE_EPOCH, by which jobs that are started at
    different times write the same bytes."""
    return datetime.fromisoformat(_first(store, "started", now().isoformat(timespec="seconds")))


def now() -> datetime:
    """This moment, or the time of SOURCE_DATE_EPOCH."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(given)) if given.isdecimal() else datetime.now()


def named(store: JobStore, model: str, options: ReadOptions) -> tuple[str, frozenset[str] | None]:
    """The name that the first run gave its model in answers, and the names that rows could use: the directory of a
    model may be written in many ways."""
    models = None if options.models is None else sorted(options.models)
    names = _first(store, "names", {"shown": model, "known": models})
    return names["shown"], None if names["known"] is None else frozenset(names["known"])


def _first(store: JobStore, name: str, value: Any) -> Any:
    if store.get(name) is None or store.is_new():
        store.put(**{name: value})
    return store.get(name)
