"""The phase that comes last: waiting samples start in their order, while a rule of admission lets them."""

from __future__ import annotations

from umbel.cache.tree import KVTree
from umbel.sched.agenda import Agenda
from umbel.sched.books import Books
from umbel.sched.phases.base import Phase
from umbel.sched.phases.prompts import prime
from umbel.sched.policies.admission import Admission


class Admit(Phase):
    """Starts samples by the rule `admission`, at most `max_running` at a time (None: as many as it lets)."""

    def __init__(self, admission: Admission, max_running: int | None = None):
        self.admission, self.max_running = admission, max_running

    def fill(self, agenda: Agenda, books: Books) -> None:
        """Start samples; one that costs no tokens now (a twin of one that starts) may start without budget."""
        self.admission.begin()
        seqs, most = books.seqs, self.max_running
        while (rank := books.waiting.first()) is not None and (most is None or seqs.n_running < most):
            sample = books.candidate(rank)
            free = sample.n_out == 0 and _is_completed(agenda, books.kv, sample.path[-1])
            if agenda.budget == 0 and not free:
                return
            # Alone, it may try with what there is.
            fits = self.admission.admits if seqs.n_running else self.admission.fits_now
            if not fits(sample):
                return
            prime(agenda, books, books.start(rank, sample.path), sample.path)


def _is_completed(agenda: Agenda, kv: KVTree, node: int) -> bool:
    """Whether the step feeds the last token of a run, so that one more sample can draw from it."""
    if node in agenda.refeed:
        return True
    return agenda.counts.get(node, -1) == kv.length.item(node) - kv.held.item(node)
