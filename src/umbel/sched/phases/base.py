"""The seam of phases: each puts its part of the work on the agenda of the next step, and may learn what came of it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from umbel.ir.sampled import SampledTokens
from umbel.sched.agenda import Agenda
from umbel.sched.books import Books

Ints = NDArray[np.int64]


class Phase(ABC):
    """A step's agenda is filled by one phase after the other, as far as budget and pages last. The other methods are
    called with what happens to samples; most phases have nothing to do then."""

    @abstractmethod
    def fill(self, agenda: Agenda, books: Books) -> None:
        """Put work on the agenda. Samples may start or give way for it, as the books say how."""

    def learn(self, books: Books, sampled: SampledTokens, keep: Ints) -> None:
        """A step is done: of the tokens that each sample drew, the first `keep` count (`[samples]`)."""
        return

    def finish(self, books: Books, slots: Ints, tokens: Ints) -> None:
        """The samples in these slots are done with the first `tokens` of their tokens, and about to leave."""
        return

    def drop_row(self, books: Books, row: int) -> None:
        """A row is abandoned, and all its samples are about to leave."""
        return
