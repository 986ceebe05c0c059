"""The seam of phases: each puts its part of the work on the agenda of the next step."""

from __future__ import annotations

from typing import Protocol

from umbel.sched.agenda import Agenda
from umbel.sched.books import Books


class Phase(Protocol):
    """A step's agenda is filled by one phase after the other, as far as budget and pages last."""

    def fill(self, agenda: Agenda, books: Books) -> None:
        """Put work on the agenda. Samples may start or give way for it, as the books say how."""
