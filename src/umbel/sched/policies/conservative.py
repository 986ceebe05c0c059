"""Admits a sample when everyone could get to their limit, so that none is preempted (arXiv 2507.10150, section 2)."""

from __future__ import annotations

from umbel.cost.flow import Flow
from umbel.sched.policies.admission import Ints, Reserving


class Conservative(Reserving):
    """Keeps pages free for each sample to grow to its limit."""

    def goal(self, n_out: Ints, patience: Ints, limit: Ints) -> Ints:
        """The limit."""
        return limit

    @staticmethod
    def fits(flow: Flow) -> bool:
        """Whether all answers at their limits fit at once."""
        return flow.held + flow.at_limits + flow.pages_of(flow.limit) <= flow.room
