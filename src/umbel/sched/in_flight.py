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

    def begin(self, slots: Ints) -> Drawing:
        """A step in which the samples in these slots draw a token each, for which they have a placeholder already."""
        seqs = self._seqs
        before, begin = seqs.n_out[slots] - 1, np.arange(len(slots) + 1)
        drawing = Drawing(slots, seqs.rank[slots], seqs.row[slots], before, seqs.max_out[slots], begin)
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
        """The slots whose next tokens may be scheduled: lockstep rows wait until their last tokens are known."""
        if not self._drawings or not self._requests.any_lockstep:
            return slots
        drawing = np.concatenate([drawing.ranks for drawing in self._drawings])
        waits = self._requests.lockstep[self._seqs.row[slots]] & np.isin(self._seqs.rank[slots], drawing)
        return slots[~waits]
