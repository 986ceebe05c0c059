"""When a batch that runs is to stop: it was cancelled, its time is over, or the server ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from umbel.jobs.signals import Cancelled, Drain, OutOfTime


@dataclass(slots=True)
class Control:
    """Says of one batch whether it goes on. `expires` is on `clock`, in seconds since 1970."""

    expires: float
    cancelled: bool = False
    draining: bool = False
    clock: Callable[[], float] = time.time

    def look(self) -> None:
        """Raise Drain, Cancelled or OutOfTime once the batch is to stop."""
        if self.draining:
            raise Drain
        if self.cancelled:
            raise Cancelled
        if self.clock() >= self.expires:
            raise OutOfTime
