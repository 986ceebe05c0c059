"""Decides whether one more sample may start: by the pages it needs now, and by what those at work may still need.

Every rule lets a sample try that would be alone, so that each gets its turn; one that outgrows the pool all the same is
preempted by the scheduler, the last in order first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.cache.kv_forest import KVForest
from umbel.cost.survival import HEADROOM_TOKENS
from umbel.sched.sequences import Sequences

Ints = NDArray[np.int64]

# With each time that a sample was preempted, "headroom" keeps so many times more tokens of growth free, so that none is
# preempted again and again.
PATIENCE = 4
_MOST_PATIENT = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sample that could start: its row, its path, what it had generated and lost before, and its limit."""

    row: int
    path: list[int]
    n_out: int
    losses: int
    limit: int


class Admission:
    """By current use alone ("aggressive"): the sample's prompt and its first page fit now."""

    def __init__(self, kv: KVForest, seqs: Sequences):
        self.kv = kv
        self.seqs = seqs
        self.page_size = kv.pool.page_size

    def begin(self) -> None:
        """A new step: what has been worked out for the last one is of no use any more."""

    def admits(self, candidate: Candidate) -> bool:
        """Whether the sample may start beside those that run."""
        return self.fits_now(candidate)

    def fits_now(self, candidate: Candidate) -> bool:
        """Whether there are pages for the sample's prompt, and for what it had generated or its first token."""
        needed = self.kv.pages_missing(candidate.path) + self.pages_for(max(candidate.n_out, 1))
        return needed <= self.kv.reclaimable(candidate.path)

    def pages_for(self, tokens: int) -> int:
        """Pages of a tail."""
        return -(-tokens // self.page_size)


class Reserving(Admission):
    """Keeps pages free for samples to grow to a length that `goal` gives: to their limits ("conservative")."""

    def __init__(self, kv: KVForest, seqs: Sequences):
        super().__init__(kv, seqs)
        self._patience = -1  # what `_reserved` was worked out for
        self._reserved = 0

    def begin(self) -> None:
        """A new step: what has been worked out for the last one is of no use any more."""
        self._patience = -1

    def admits(self, candidate: Candidate) -> bool:
        """Whether the pages reserved for those that run leave enough for this one and its growth."""
        patience = min(candidate.losses, _MOST_PATIENT)
        if patience != self._patience:
            self._reserved, self._patience = self._reserve(patience), patience
        one = (np.array([v]) for v in (candidate.n_out, patience, candidate.limit))
        growth = self.pages_for(int(self.goal(*one)[0]))
        if self.kv.pages_missing(candidate.path) + growth + self._reserved > self.kv.reclaimable(candidate.path):
            return False
        self._reserved += growth
        return True

    def goal(self, n_out: Ints, patience: Ints, limit: Ints) -> Ints:
        """Tokens to keep room for (`[samples]`), of samples preempted `patience` times."""
        return limit

    def _reserve(self, patience: int) -> int:
        """Pages to keep free for the samples that run now, as patiently as for the candidate."""
        slots, seqs = np.flatnonzero(self.seqs.running), self.seqs
        patient = np.clip(seqs.losses[slots], patience, _MOST_PATIENT)
        upto = self.goal(seqs.n_out[slots], patient, seqs.max_out[slots])
        return int(np.maximum(-(-upto // self.page_size) - seqs.n_pages[slots], 0).sum())


class Headroom(Reserving):
    """Keeps a little growth free for everyone, whatever the limits ("headroom")."""

    def goal(self, n_out: Ints, patience: Ints, limit: Ints) -> Ints:
        """Some tokens more than there are, never beyond the limit."""
        return np.asarray(np.minimum(n_out + HEADROOM_TOKENS * PATIENCE**patience, limit))
