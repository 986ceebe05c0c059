"""Lines of answers on their way into a stream: in the order of the input, or as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class LineOrder:
    """Passes lines on to `put`, from any thread; with `in_order` each waits for those of the rows before it. `written`
    is called with the number of rows that were."""

    put: Callable[[bytes], object]
    in_order: bool
    written: Callable[[int], object] = lambda rows: None
    _next: int = 0
    _waiting: dict[int, bytes] = field(default_factory=dict)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def add(self, row: int, line: bytes) -> None:
        """The line of a row is there. Raises what `put` raises."""
        with self._turn:
            if not self.in_order:
                ready = [line]
            else:
                self._waiting[row], ready = line, []
                while self._next in self._waiting:
                    ready.append(self._waiting.pop(self._next))
                    self._next += 1
            if ready:
                self.put(b"\n".join(ready) + b"\n")
                self.written(len(ready))
