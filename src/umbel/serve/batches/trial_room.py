"""Which of the batches that run may hand rows out, while one tries a row alone that may have broken the engine."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(slots=True)
class TrialRoom:
    """Batches by number, with how many of their rows the engine has; for any thread. One of them may ask to `try` a
    row: the others hand none out then, and the row is tried once those that they had are done."""

    _rows: dict[int, int] = field(default_factory=dict)
    _trying: int | None = None
    _joined: int = 0
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def join(self) -> int:
        """One more batch; gives its number."""
        with self._turn:
            self._joined += 1
            return self._joined

    def leave(self, batch: int) -> None:
        """A batch runs no more."""
        with self._turn:
            self._rows.pop(batch, None)
            self._release(batch)

    def may_hand_out(self, batch: int, rows: int) -> bool:
        """Whether a batch, of which the engine has so many rows, may hand out more."""
        with self._turn:
            self._rows[batch] = rows
            return self._trying in (None, batch)

    def may_try(self, batch: int) -> bool:
        """Whether a batch may have a row run with no other beside it, now that it has none in the engine."""
        with self._turn:
            self._rows[batch] = 0
            if self._trying is None:
                self._trying = batch
            return self._trying == batch and not any(self._rows.values())

    def tried(self, batch: int) -> None:
        """A batch has no row to try any more."""
        with self._turn:
            self._release(batch)

    def _release(self, batch: int) -> None:
        if self._trying == batch:
            self._trying = None
