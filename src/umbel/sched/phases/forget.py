"""The phases around all others where a part of long paths is forgotten: at fixed positions of each row, before its next
token is computed.

Why a row's bytes are those it has alone, in one piece, and without stepping back: what a token sees follows from which
positions were edges for the tokens before it, and from what was kept there. Edges and how much is kept follow from the
row's prompt and positions (`Measure`). No token at an edge or behind it is computed before the path was cut down there,
wherever a chunk ends, as a tip is never computed beyond its edge. Which places are kept is found from the path's own
keys and queries (attention/forget/). A sample that lost its pages hangs from its whole prompt again, and comes to the
same edges in the same order while its answer is computed again.
"""

from __future__ import annotations

import numpy as np

from umbel.cache.apart import Apart
from umbel.cost.forget import Measure
from umbel.errors import UsageError
from umbel.sched.agenda import Agenda
from umbel.sched.books import Books
from umbel.sched.phases.base import Phase
from umbel.sched.phases.decode import Decode
from umbel.sched.policies.lines import Lines
from umbel.sched.scheduler import Scheduler


class Forget(Phase):
    """Before a step's tokens are given out: samples that have come to an edge are cut down."""

    def __init__(self, apart: Apart):
        self.apart = apart
        self._loose: list[int] = []  # nodes that dropped rows waited for

    def drop_row(self, books: Books, row: int) -> None:
        """Fewer samples will wait for its path, perhaps none without a memory."""
        self._loose += books.kv.path(books.kv.leaf.item(row))

    def fill(self, agenda: Agenda, books: Books) -> None:
        """Cut down what is to be cut down before samples go on."""
        seqs, kv = books.seqs, books.kv
        self.apart.give_back(self._loose)
        self._loose.clear()
        slots = seqs.runners()
        tips = seqs.tip[slots]
        due = (kv.start[tips] + kv.held[tips] >= kv.edge[tips]) & (kv.length[tips] > kv.held[tips])
        due &= seqs.n_out[slots] < seqs.max_out[slots]
        for slot in books.in_flight.known(slots[due]).tolist():
            if seqs.running[slot]:
                self._look(books, slot)

    def _look(self, books: Books, slot: int) -> None:
        """Look at a sample at its edge, whose path may not be computed again yet; others give way for it."""
        kv, seqs = books.kv, books.seqs
        tip = seqs.tip.item(slot)
        path = np.array(kv.path(kv.parent.item(tip)))
        if (kv.held[path] < kv.length[path]).any():
            return
        while not self.apart.look(tip, seqs.prompt_len.item(slot)):
            if not books.give_way() or not seqs.running[slot]:
                return
        seqs.primed[slot] = True


class ForgetLate(Phase):
    """Behind all other phases: where a sample that went on finds its whole prompt cached, nothing but forgetting may be
    left to do before its answer is computed again."""

    def __init__(self, forget: Forget):
        self._forget, self._decode = forget, Decode()

    def fill(self, agenda: Agenda, books: Books) -> None:
        """Where nothing else was decided, cut down and decode."""
        if agenda.empty:
            self._forget.fill(agenda, books)
            self._decode.fill(agenda, books)


def start_forgetting(scheduler: Scheduler, measure: Measure) -> None:
    """From now on, before any row is added, paths of rows are cut down by a measure. Raises UsageError where the rules
    of the scheduler put samples of some rows before others, or keep answers."""
    kv, policy = scheduler.kv, scheduler.policy
    if isinstance(scheduler.waiting, Lines) or kv.index is not None or kv.idle.keep.retains:
        rules = f"queue={policy.queue!r}, keep={policy.keep!r}"
        raise UsageError(f"technique: nothing can be forgotten with {rules}, as memories belong to one sample each")
    kv.apart = apart = Apart(kv, measure)
    forget = Forget(apart)
    scheduler.phases = [forget, *scheduler.phases, ForgetLate(forget)]
