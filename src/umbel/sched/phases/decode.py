"""The phase that comes first: every sample that decodes goes on (iteration-level batching: Orca, OSDI 2022)."""

from __future__ import annotations

import numpy as np

from umbel.sched.agenda import Agenda
from umbel.sched.books import Books
from umbel.sched.phases.base import Phase


class Decode(Phase):
    """Extends the tips of primed samples, as far as the budget reaches; pages are found or victims are."""

    def fill(self, agenda: Agenda, books: Books) -> None:
        """Put the tokens that tips lack on the agenda."""
        seqs, kv = books.seqs, books.kv
        while True:
            slots = books.runners(agenda.level)
            slots = books.in_flight.known(slots[seqs.primed[slots]])
            tips = seqs.tip[slots]
            lacking = np.minimum(kv.length[tips], kv.edge[tips] - kv.start[tips]) - kv.held[tips]
            wanted = np.where(seqs.n_out[slots] < seqs.max_out[slots], lacking, 0)  # full ones end soon
            granted = np.maximum(np.minimum(agenda.budget - (np.cumsum(wanted) - wanted), wanted), 0)
            some = granted > 0
            slots, tips, granted = slots[some], tips[some], granted[some]
            missing = kv.missing(tips, granted)
            if kv.make_room(int(missing.sum())):
                break
            if not books.give_way():
                return
        kv.take(tips, missing)
        agenda.add_tips(slots, granted)
