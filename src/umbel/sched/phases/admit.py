"""The phase that comes last: waiting samples start in their order, while a rule of admission lets them."""

from __future__ import annotations

from umbel.cache.tree import KVTree
from umbel.sched.agenda import Agenda
from umbel.sched.books import Books, Candidate
from umbel.sched.phases.base import Phase
from umbel.sched.phases.prompts import prime
from umbel.sched.policies.admission import Admission


class Admit(Phase):
    """Starts samples by the rule `admission`, at most `max_running` at a time (None: as many as it lets)."""

    def __init__(self, admission: Admission, max_running: int | None = None):
        self.admission, self.max_running, self.prime = admission, max_running, prime

    def fill(self, agenda: Agenda, books: Books) -> None:
        """Start samples; one that costs no tokens now (a twin of one that starts) may start without budget."""
        self.admission.begin()
        while (rank := books.next_rank(agenda.level)) is not None:
            sample = books.candidate(rank)
            free = sample.n_out == 0 and _is_completed(agenda, books.kv, sample.path[-1])
            if agenda.budget == 0 and not free:
                return
            if not self.may_start(books, sample):
                return
            self.prime(agenda, books, books.start(rank, sample.path), sample.path)

    def may_start(self, books: Books, sample: Candidate) -> bool:
        """Whether a sample may start now; alone, it may try with what there is."""
        running, most = books.seqs.n_running, self.max_running
        if most is not None and running >= most:
            return False
        return self.admission.admits(sample) if running else self.admission.fits_now(sample)


def _is_completed(agenda: Agenda, kv: KVTree, node: int) -> bool:
    """Whether the step feeds the last token of a run, so that one more sample can draw from it."""
    if node in agenda.refeed:
        return True
    return agenda.counts.get(node, -1) == kv.length.item(node) - kv.held.item(node)
