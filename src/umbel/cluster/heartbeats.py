"""Which of several processes is silent or stuck, by the heartbeats that they send.

A process sends one every half second, from a thread beside its work, so a long step or a busy machine does not silence
it for a minute. With it goes a mark of its progress: a process whose mark does not change for an hour, although it has
work, is stuck.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

_LOG = logging.getLogger(__name__)
BEAT_SECONDS = 0.5  # between two signs of life
SILENT_SECONDS = 60.0  # without one, after the first
LATE_SECONDS = 10.0  # of silence after which it is said
STUCK_SECONDS = 3600.0  # with nothing done
SILENT_VARIABLE = "UMBEL_SILENT_SECONDS"  # of the environment, in place of SILENT_SECONDS


def silent_seconds() -> float:
    """Seconds of silence after which a process is given up."""
    try:
        return float(os.environ[SILENT_VARIABLE])
    except (KeyError, ValueError):
        return SILENT_SECONDS


@dataclass(slots=True)
class _Seen:
    moved: float
    last_beat: float | None = None  # None: no heartbeat yet, it is still importing
    mark: bytes | None = None
    busy: bool = True
    late: bool = False  # it was said that it is silent


class Heartbeats:
    """The last signs of life of processes, by number; times are those of `clock`."""

    def __init__(
        self,
        silent: float | None = None,
        stuck: float = STUCK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._silent = silent_seconds() if silent is None else silent
        self._stuck = stuck
        self._clock = clock
        self._seen: dict[int, _Seen] = {}

    def begin(self, number: int) -> None:
        """A process was started, and has something to do: to load."""
        self._seen[number] = _Seen(self._clock())

    def forget(self, number: int) -> None:
        """A process has ended."""
        del self._seen[number]

    def hear(self, number: int, mark: bytes | None = None) -> None:
        """It said something: that it lives and where its work is (`mark`), or a result of its work (None)."""
        seen, now = self._seen[number], self._clock()
        seen.last_beat = now
        if mark is None or mark != seen.mark:
            seen.moved = now
            seen.mark = seen.mark if mark is None else mark

    def work(self, number: int, *, busy: bool) -> None:
        """It was given something to do, or is through with it."""
        seen = self._seen[number]
        seen.busy, seen.moved = busy, self._clock()

    def lost(self) -> dict[int, str]:
        """The processes to be given up, and why. Only to be asked when all that they sent has been read."""
        now, found = self._clock(), {}
        for number, seen in self._seen.items():
            self._say_late(number, seen, now)
            if seen.last_beat is not None and now - seen.last_beat > self._silent:
                found[number] = f"gave no sign of life for {self._silent:,.0f} s"
            elif seen.busy and now - seen.moved > self._stuck:
                found[number] = f"got no further for {self._stuck:,.0f} s"
        return found

    def _say_late(self, number: int, seen: _Seen, now: float) -> None:
        """Log a process that sends no heartbeat, long before it is ended for that, and log when it sends one again."""
        silence = 0.0 if seen.last_beat is None else now - seen.last_beat
        if silence > min(LATE_SECONDS, self._silent) and not seen.late:
            seen.late = True
            _LOG.warning(
                "umbel: replica %d has given no sign of life for %.0f s; after %.0f s it is ended and its rows go to "
                "others",
                *(number, silence, self._silent),
            )
        elif silence <= BEAT_SECONDS and seen.late:
            seen.late = False
            _LOG.warning("umbel: replica %d gives signs of life again", number)
