"""SIGTERM, Ctrl-C and the end of a job's time: stop soon, commit what is finished, leave the job to be resumed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Drain(BaseException):
    """Raised in the main thread where it stands when the process is asked to stop.

    Not an Exception, so that code which contains failures of single rows lets it through.
    """


class OutOfTime(BaseException):
    """Raised in the main thread where it stands when the time set by `StopSignal.limit` is over."""


class StopSignal:
    """While entered, the first SIGTERM or SIGINT raises Drain, except inside `shielded`, where it waits for the end.

    A second SIGINT raises KeyboardInterrupt at once. Committed rows are safe in any case. `last` says that the process
    ends after this: from then on SIGTERM is ignored, so that one that comes late does not hide how the job ended.
    """

    def __init__(self, *, last: bool = False) -> None:
        self.asked = False
        self._last = last
        self._late = False
        self._settled = False
        self._shields = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignal:
        for number, handler in (
            (signal.SIGTERM, self._handle),
            (signal.SIGINT, self._handle),
            (signal.SIGALRM, self._time_over),
        ):
            self._before[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *error: object) -> None:
        self.limit(None)
        if self._last:
            self._before[signal.SIGTERM] = signal.SIG_IGN
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def limit(self, seconds: float | None) -> None:
        """Raise OutOfTime in so many seconds, outside of `shielded`; None: no longer. Raises it now if time is over."""
        self._late = False
        signal.setitimer(signal.ITIMER_REAL, 0.0 if seconds is None else max(0.0, seconds))
        if seconds is not None and seconds <= 0.0:
            raise OutOfTime

    def settle(self) -> None:
        """All is done: from now on a stop changes nothing any more."""
        self._settled = True
        self.limit(None)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """A stretch that is not cut short; a stop asked for in it is raised at its end."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if self._shields or self._settled:
            return
        if self.asked:
            raise Drain
        if self._late:
            self._late = False
            raise OutOfTime

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._settled:
            return
        if self.asked:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.asked = True
        if not self._shields:
            raise Drain

    def _time_over(self, number: int, frame: FrameType | None) -> None:
        if self.asked or self._settled:
            return  # a stop is on its way already, or nothing is left to stop
        if self._shields:
            self._late = True
        else:
            raise OutOfTime
