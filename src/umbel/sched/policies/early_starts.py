"""Whether it pays to start a sample although what runs might outgrow the pool before its answer ends.

Kept waiting for certain room, it draws later, in steps that read all weights for few samples. Started now, it draws in
steps that others need anyway until the pool is full. Then it may be preempted: its tokens stay, but they and its
prompt are computed again, as a prompt. The odds of that are not asked for, as they are least known where it matters,
before answers have ended: a start pays where even a preempted one would. Rows whose length is certain do not start
early: what they will need is no guess, and plans count on the pool that they leave.
"""

from __future__ import annotations

from umbel.sched.books import Books, Candidate


class EarlyStarts:
    """Weighs the steps that a start spares against the tokens that it may have computed again, by `Books.step_cost`.

    A sample that waits shares its later steps with those that run then: as many as now, or all that wait if these are
    fewer, which is why the last ones of a job start soonest.
    """

    def __init__(self, books: Books):
        self._books = books

    def pays(self, candidate: Candidate) -> bool:
        """Whether to start it although it is not sure to get through; a sample that was preempted waits until it is."""
        books, cost = self._books, self._books.step_cost
        if not cost or candidate.losses or books.requests.certain[candidate.row]:
            return False
        kv, running = books.kv, books.seqs.n_running + 1
        prompt, size = kv.pages_missing(candidate.path) + 1, kv.pool.page_size
        steps = (kv.reclaimable(candidate.path) - prompt) * size / running  # in which all together fill what is left
        later = books.waiting.new_among(running)
        return steps > 0 and later > 0 and cost * steps / later >= prompt * size + steps
