"""SIGTERM and Ctrl-C: stop soon, commit what is finished, leave the job to be resumed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Drain(BaseException):
    """Raised in the main thread where it stands when the process is asked to stop.

    Not an Exception, so that code which contains failures of single rows lets it through.
    """


class StopSignal:
    """While entered, the first SIGTERM or SIGINT raises Drain, except inside `shielded`, where it waits for the end.

    A second SIGINT raises KeyboardInterrupt at once. Committed rows are safe in any case.
    """

    def __init__(self) -> None:
        self.asked = False
        self._shields = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """A stretch that is not cut short; a stop asked for in it is raised at its end."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if self.asked and not self._shields:
            raise Drain

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.asked = True
        if not self._shields:
            raise Drain
