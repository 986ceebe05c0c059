"""Events of batch rows on their way from the engine's thread to the thread of their job."""

from __future__ import annotations

from dataclasses import dataclass
from queue import Empty, SimpleQueue

from umbel.engine.request_output import RequestOutput
from umbel.engine.session import Session
from umbel.engine.tickets import SessionEvent


@dataclass(frozen=True, slots=True)
class BoxNews:
    """What came of the rows of a box: the answer to the one at `place`, or the failure of all that are open."""

    box: RowBox
    place: int = 0
    output: RequestOutput | None = None


class Silence:
    """Stands where readers of an event loop are woken: a thread that waits for a queue needs no waking."""

    def set(self) -> None:
        """Do nothing."""


class RowBox:
    """Some rows of workload `number` that were given to the session together: `rows` there, by place. What comes goes
    to a queue that many boxes share; as the service sees it, a box is a mailbox."""

    def __init__(self, queue: SimpleQueue[BoxNews], number: int, rows: list[int]):
        self.number, self.open = number, dict(enumerate(rows))
        self.ready = Silence()
        self.closed = False
        self.session: Session | None = None
        self.tickets: range = range(0)
        self._queue = queue

    def put(self, event: SessionEvent) -> None:
        """Take an event of one of the tickets."""
        if event.output is not None:
            self._queue.put(BoxNews(self, event.ticket - self.tickets.start, event.output))

    def fail(self, error: Exception) -> None:
        """Nothing more comes of the rows that are open."""
        self._queue.put(BoxNews(self))


def received(queue: SimpleQueue[BoxNews], seconds: float) -> list[BoxNews]:
    """All that is there, waiting up to so many seconds for the first."""
    found = list[BoxNews]()
    try:
        found.append(queue.get(timeout=seconds))
        while True:
            found.append(queue.get_nowait())
    except Empty:
        return found
