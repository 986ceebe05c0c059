"""A rule of admission as another package would bring it: no more than twelve samples run at a time."""

from __future__ import annotations

from umbel.cost.flow import Flow
from umbel.sched.books import Candidate
from umbel.sched.policies.admission import Admission
from umbel.technique import Technique

MOST = 12
ROW = Technique(
    "admission",
    "few",
    exact=True,
    loads="few_admission:Few",
    says="a row starts while fewer than twelve samples run",
    why_not="runs twelve samples at a time, whatever the pool holds",
)


class Few(Admission):
    """A sample starts when it fits now and few others run."""

    def admits(self, candidate: Candidate) -> bool:
        """For the scheduler."""
        return int(self.seqs.running.sum()) < MOST and self.fits_now(candidate)

    @staticmethod
    def fits(flow: Flow) -> bool:
        """For the walk of the planner."""
        at_work = flow.n_running + flow.leaving
        return at_work + flow.samples <= MOST and flow.used() + flow.samples <= flow.room
