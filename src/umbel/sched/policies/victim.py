"""Which running sample gives its pages up when there are too few: the one that is needed last."""

from __future__ import annotations

from umbel.sched.sequences import Ints, Sequences


class LastInPlan:
    """The sample that is last in the plan's order is preempted and computed again later (vLLM, arXiv 2309.06180)."""

    def pick(self, seqs: Sequences, slots: Ints) -> int:
        """The slot of the sample that steps back."""
        return slots.item(-1)
