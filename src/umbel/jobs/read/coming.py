"""Rows read in a thread, and taken in lists of those that have come."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue

from umbel.jobs.read.records import InputRow

MOST_AHEAD = 4_096  # rows that are read and not written yet


class ComingRows:
    """The rows of an iterator, read ahead as far as `written` allows. The thread ends with the process, as it may wait
    for a pipe."""

    def __init__(self, rows: Iterator[InputRow], most_ahead: int = MOST_AHEAD):
        self._rows = rows
        self._room = threading.Semaphore(most_ahead)
        self._queue: SimpleQueue[InputRow | None] = SimpleQueue()
        self._last: BaseException | None = None
        self._over = False
        threading.Thread(target=self._read, name="umbel-rows", daemon=True).start()

    def _read(self) -> None:
        last: BaseException | None = None
        try:
            for row in self._rows:
                self._room.acquire()
                self._queue.put(row)
        except BaseException as error:
            last = error
        self._last = last
        self._queue.put(None)

    def take(self, most: int) -> list[InputRow]:
        """The rows that are there, at least one, which is waited for; none at the end. Raises what reading raised."""
        found = list[InputRow]()
        while not self._over and len(found) < most and (not found or not self._queue.empty()):
            row = self._queue.get()
            if row is None:
                self._over = True
            else:
                found.append(row)
        if not found and self._last is not None:
            raise self._last
        return found

    def written(self, rows: int) -> None:
        """So many rows are written, and as many more may be read."""
        self._room.release(rows)
