"""The batches of a server that are not done: which run now, which wait for them, and what each is waiting for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from umbel.serve.batches.control import Control
from umbel.serve.batches.records import BatchRecord


@dataclass(slots=True)
class Entry:
    """A batch that is not done; `checked` once its file was read, `runs` while its job does."""

    id: str
    control: Control
    checked: bool = False
    runs: bool = False


@dataclass(slots=True)
class BatchQueue:
    """Batches in the order of their making; for any thread. `over` once the server ends."""

    over: bool = False
    _entries: dict[str, Entry] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def take_in(self, batch: BatchRecord, clock: Callable[[], float]) -> None:
        """A batch was made, or changed."""
        with self._changed:
            if not batch.is_live:
                self._entries.pop(batch.id, None)
            elif (entry := self._entries.get(batch.id)) is None:
                control = Control(batch.expires_at, cancelled=batch.status == "cancelling", clock=clock)
                self._entries[batch.id] = Entry(batch.id, control, checked=batch.status != "validating")
            else:
                entry.control.cancelled = batch.status == "cancelling"
                entry.checked = batch.status != "validating"
            self._changed.notify_all()

    def next(self, wanted: Callable[[Entry], bool], seconds: float) -> Entry | None:
        """Wait for a batch that is `wanted` and that no thread has, and have it; None after so long, and at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self.over or self._first(wanted) is not None, seconds)
            found = None if self.over else self._first(wanted)
            if found is not None:
                found.runs = True
            return found

    def _first(self, wanted: Callable[[Entry], bool]) -> Entry | None:
        return next((entry for entry in self._entries.values() if not entry.runs and wanted(entry)), None)

    def put_back(self, entry: Entry) -> None:
        """A thread has done what it can for a batch now."""
        with self._changed:
            entry.runs = False
            self._changed.notify_all()

    def close(self) -> None:
        """Have every batch stop, to be taken up by the next server."""
        with self._changed:
            self.over = True
            for entry in self._entries.values():
                entry.control.draining = True
            self._changed.notify_all()

    def waits_for(self, batch: BatchRecord, live: int) -> Mapping[str, Any] | None:
        """What keeps the rows of a batch from running now; `live` rows of requests run beside them."""
        with self._changed:
            entries = list(self._entries.values())
        mine = next((entry for entry in entries if entry.id == batch.id), None)
        if mine is None or not batch.is_live:
            return None
        if batch.status == "validating":
            return {"for": "validation"}
        if not mine.runs:
            before = [entry.id for entry in entries[: entries.index(mine)] if entry.checked]
            return {"for": "batches", "batch_ids": before} if before else None
        return {"for": "requests", "rows": live} if live else None
