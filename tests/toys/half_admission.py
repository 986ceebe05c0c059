"""A rule of admission as another package would bring it: half of the pool stays free for growth."""

from __future__ import annotations

from umbel.cost.flow import Flow
from umbel.sched.books import Candidate
from umbel.sched.policies.admission import Admission
from umbel.technique import Technique

ROW = Technique(
    "admission",
    "half",
    exact=True,
    loads="half_admission:Half",
    says="a row starts while half of the pool is free",
    why_not="leaves half of the pool idle",
)


class Half(Admission):
    """A sample starts when what it needs now leaves half of the pool free."""

    def admits(self, candidate: Candidate) -> bool:
        """For the scheduler."""
        needed = self.kv.pages_missing(candidate.path) + self.pages_for(max(candidate.n_out, 1))
        return needed <= self.kv.reclaimable(candidate.path) - self.kv.pool.n_pages // 2

    @staticmethod
    def fits(flow: Flow) -> bool:
        """For the walk of the planner."""
        return flow.used() + flow.samples <= flow.room - flow.pool // 2
