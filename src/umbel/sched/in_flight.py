"""The draws of steps that are under way, whose tokens are not known yet."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from umbel.ir.sampled import Drawing, SampledTokens
from umbel.sched.request_table import RequestTable
from umbel.sched.sequences import Sequences

Ints = NDArray[np.int64]


class InFlight:
    """Steps in the order in which they were begun."""

    def __init__(self, seqs: Sequences, requests: RequestTable):
        self._seqs, self._requests = seqs, requests
        self._drawings: deque[Drawing] = deque()

    def __len__(self) -> int:
        return len(self._drawings)

    def begin(self, slots: Ints, drafted: Ints | None = None) -> Drawing:
        """A step in which the samples in these slots draw a token each, for which they get a placeholder, and one for
        each of the last tokens that they have, which were `drafted` (`[slots]`; None: no token was)."""
        seqs, before, begin = self._seqs, self._seqs.n_out[slots], np.arange(len(slots) + 1)
        if drafted is not None:
            before, begin = before - drafted, np.append(0, np.cumsum(drafted + 1))
        seqs.append(slots, -begin[1:])
        drawing = Drawing(slots, seqs.rank[slots], seqs.row[slots], before, seqs.max_out[slots], begin)
        if drafted is not None:
            proposed = seqs.out[slots[drawing.owner], drawing.places].astype(np.int64)
            drawing = Drawing(slots, drawing.ranks, drawing.rows, before, drawing.limits, begin, proposed)
        self._drawings.append(drawing)
        return drawing

    def end(self) -> None:
        """The tokens of the eldest step are known."""
        self._drawings.popleft()

    def present(self, sampled: SampledTokens) -> SampledTokens:
        """What the samples drew that are still there: some may have ended or been dropped since."""
        here = self._seqs.rank[sampled.drawing.slots] == sampled.drawing.ranks
        return sampled if here.all() else sampled.only(here)

    def known(self, slots: Ints) -> Ints:
        """The slots whose next tokens may be scheduled: lockstep rows and samples that are drafted for wait until their
        last tokens are known."""
        seqs, requests = self._seqs, self._requests
        if not self._drawings or not (requests.any_lockstep or seqs.awaits.any()):
            return slots
        drawing = np.concatenate([drawing.ranks for drawing in self._drawings])
        waits = (requests.lockstep[seqs.row[slots]] | seqs.awaits[slots]) & np.isin(seqs.rank[slots], drawing)
        return slots[~waits]
