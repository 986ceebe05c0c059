"""Which running sample gives its pages up when there are too few: the one that is needed last."""

from __future__ import annotations

from umbel.sched.sequences import Sequences


class LastInPlan:
    """The sample that is last in the plan's order is preempted and computed again later (vLLM, arXiv 2309.06180); one
    that runs alone never is."""

    def pick(self, seqs: Sequences) -> int | None:
        """The slot of the sample that steps back; None where it is the only one."""
        slots = seqs.runners()
        return slots.item(-1) if len(slots) > 1 else None
