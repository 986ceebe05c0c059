"""The phase behind decodes: samples whose next tokens are certain, as a form leaves one way to go on, feed them in one
step, as a prompt's, and draw what comes behind them.

They are drawn all the same, each where nothing else may be drawn: log-probabilities, endings and counts see them as
they would see them one by one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from umbel.ir.sampled import SampledTokens
from umbel.sched.agenda import Agenda
from umbel.sched.books import Books
from umbel.sched.phases.base import Phase
from umbel.sched.phases.proposals import drawing_of, put
from umbel.spec.base import Drafts

Ints = NDArray[np.int64]
MOST = 256  # tokens that are asked for at a time
Ask = Callable[[Ints, Ints, Ints], Drafts | None]  # ranks, rows, the most tokens wanted of each


class Forced(Phase):
    """`ask` says which tokens samples have to give next; only those of rows in lockstep, whose last tokens are known,
    are asked for."""

    def __init__(self, ask: Ask):
        self._ask = ask
        self._ahead = False  # whether steps are decided while others are under way

    def fill(self, agenda: Agenda, books: Books) -> None:
        """Put tokens that are certain behind the last ones of samples, with budget and pages that no decode wants."""
        if not books.requests.any_lockstep:
            return
        self._ahead |= len(books.in_flight) > 0
        if len(agenda.slots) == 0 or agenda.budget <= 0:
            return
        seqs, which = books.seqs, drawing_of(agenda, books, lockstep=True)
        slots = agenda.slots[which]
        room = seqs.max_out[slots] - seqs.n_out[slots] - 1
        which, slots = which[room > 0], slots[room > 0]
        if len(slots):
            most = np.minimum(room[room > 0], min(agenda.budget, MOST))
            found = self._ask(seqs.rank[slots], seqs.row[slots], most)
            if found is not None:
                put(agenda, books, which, found, found.counts, ahead=self._ahead)

    def learn(self, books: Books, sampled: SampledTokens, keep: Ints) -> None:
        """Count what was fed so and is part of answers."""
        drawing = sampled.drawing
        if not drawing.single:
            forced = (drawing.counts > 1) & books.requests.lockstep[drawing.rows]
            books.forced_tokens += int(np.minimum(drawing.counts - 1, keep)[forced].sum())
