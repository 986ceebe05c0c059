"""How rows that run are stopped, and taken up later from where they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from umbel.ir.resumable import Resumable

GRACE_SECONDS = 10.0  # that rows near their end get after a stop; managers of containers kill after 10 to 30
Place = tuple[int, int]  # of a row: the number of its workload, and its row there


class Stops(Protocol):
    """What an engine asks between two steps, and whom it gives the rows to that it takes out."""

    def until(self) -> float | None:
        """None while rows are to run. Then no row starts any more: those that are near their end may go on until this
        time, on the clock of `time.monotonic`; the others are to be taken out now."""

    def due(self) -> bool:
        """Whether what the rows that run have written is wanted now, while they go on."""

    def begun(self, number: int) -> Mapping[int, Resumable]:
        """What rows of a workload had when they were taken out, by row."""

    def keep(self, unfinished: Mapping[Place, Resumable], *, near: int = 0) -> None:
        """Rows as they are now. After `until` has named a time, `near` of them go on until then."""


class Unstopped:
    """Stops of what runs to its end."""

    def until(self) -> None:
        """Never."""

    def due(self) -> bool:
        """Never."""
        return False

    def begun(self, number: int) -> Mapping[int, Resumable]:
        """Rows begin with nothing."""
        return {}

    def keep(self, unfinished: Mapping[Place, Resumable], *, near: int = 0) -> None:
        """Rows that run to their end are not taken out."""
