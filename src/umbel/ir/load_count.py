"""How much of a model's weights is in memory, counted by the threads that load it and read by what shows it."""

from __future__ import annotations

import threading


class LoadCount:
    """`total` numbers are to be loaded, 0 as long as it is not known how many."""

    def __init__(self) -> None:
        self.total = self.loaded = 0
        self._adding = threading.Lock()

    def expect(self, total: int) -> None:
        """So many numbers will be loaded."""
        self.total = total

    def add(self, count: int) -> None:
        """So many more of them are there."""
        with self._adding:
            self.loaded += count

    def share(self) -> float | None:
        """How much of it is there, from 0 to 1; None while that is not known."""
        return self.loaded / self.total if self.total else None
