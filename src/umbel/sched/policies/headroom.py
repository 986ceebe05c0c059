"""Admits a sample when everyone could still grow a little, whatever the limits, as vLLM does (arXiv 2309.06180)."""

from __future__ import annotations

import numpy as np

from umbel.cost.flow import Flow
from umbel.sched.policies.admission import Ints, Reserving

HEADROOM_TOKENS = 32  # of growth that are kept free for each sample, so that preemption stays rare
PATIENCE = 4  # times more with each time that a sample was preempted, so that none is preempted again and again


class Headroom(Reserving):
    """Keeps HEADROOM_TOKENS of growth free for each sample."""

    def goal(self, n_out: Ints, patience: Ints, limit: Ints) -> Ints:
        """Some tokens more than there are, never beyond the limit."""
        return np.asarray(np.minimum(n_out + HEADROOM_TOKENS * PATIENCE**patience, limit))

    @staticmethod
    def keeps(limit: int) -> int:
        """In a walk, where none is ever preempted."""
        return min(HEADROOM_TOKENS, limit)

    @staticmethod
    def fits(flow: Flow) -> bool:
        """Whether the pages in use and that growth fit; none grows beyond its limit."""
        ahead = min(flow.used() + flow.kept / flow.page_size, flow.held + flow.at_limits)
        return ahead + flow.pages_of(Headroom.keeps(flow.limit)) <= flow.room
