"""Decides whether one more sample may start: by the pages it needs now, and by what those at work may still need.

A rule is one class that answers twice: `admits` a sample for the scheduler, which knows how long answers may get, and
`fits` the flow of a walk, by which the planner prices the rule (umbel.cost.flow).

Every rule lets a sample try that would be alone, so that each gets its turn; one that outgrows the pool all the same is
preempted by the rule of victims.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from umbel.cache.memories import DRAWN_WHOLE
from umbel.cost.flow import Flow
from umbel.sched.books import Books, Candidate

Ints = NDArray[np.int64]

_MOST_PATIENT = 8  # preemptions of a sample after which `goal` grows no further


class Admission:
    """What all rules have in common; by itself it admits whatever fits now."""

    retries = False

    def __init__(self, books: Books):
        self.kv = books.kv
        self.seqs, self.requests = books.seqs, books.requests
        self.page_size = books.kv.pool.page_size

    def begin(self) -> None:
        """A new step begins: results for the last one are no longer valid."""

    def renew(self) -> None:
        """Within a step, other samples run than before, or a more urgent one asks: what was refused is forgotten."""
        self.begin()

    def admits(self, candidate: Candidate) -> bool:
        """Whether the sample may start beside those that run."""
        return self.fits_now(candidate)

    def fits_now(self, candidate: Candidate) -> bool:
        """Whether there are pages for the sample's prompt, and for what it had generated or its first token."""
        needed = self.kv.pages_missing(candidate.path) + self.pages_for(max(candidate.n_out - candidate.shared, 1))
        if self.kv.apart is not None and self.requests.drawn[candidate.row] != DRAWN_WHOLE:
            needed += self.kv.apart.pages_beside(candidate.path)
        return needed <= self.kv.reclaimable(candidate.path)

    def pages_for(self, tokens: int) -> int:
        """Pages that so many tokens of an answer need."""
        return -(-tokens // self.page_size)

    @staticmethod
    def keeps(limit: int) -> int:
        """In a walk: tokens kept free for a running sample that may generate `limit` tokens."""
        return 0

    @staticmethod
    def fits(flow: Flow) -> bool:
        """In a walk: whether the candidate may start."""
        return flow.used() + flow.samples <= flow.room


class Reserving(Admission, ABC):
    """Keeps pages free for running samples to grow to a length that `goal` gives."""

    def __init__(self, books: Books):
        super().__init__(books)
        self._patience = -1  # what `_reserved` was worked out for
        self._reserved = 0

    def begin(self) -> None:
        """A new step begins: results for the last one are no longer valid."""
        self._patience = -1

    def admits(self, candidate: Candidate) -> bool:
        """Whether the pages reserved for those that run leave enough for this one and its growth."""
        patience = min(candidate.losses, _MOST_PATIENT)
        if patience != self._patience:
            self._reserved, self._patience = self._reserve(patience), patience
        one = (np.array([v]) for v in (candidate.n_out, patience, candidate.limit))
        growth = self.pages_for(int(self.goal(*one)[0]) - candidate.shared)
        if self.kv.pages_missing(candidate.path) + growth + self._reserved > self.kv.reclaimable(candidate.path):
            return False
        self._reserved += growth
        return True

    @abstractmethod
    def goal(self, n_out: Ints, patience: Ints, limit: Ints) -> Ints:
        """Tokens to keep room for (`[samples]`), of samples preempted `patience` times."""

    def _reserve(self, patience: int) -> int:
        """Pages to keep free for the samples that run now, as patiently as for the candidate."""
        slots, seqs = np.flatnonzero(self.seqs.running), self.seqs
        patient = np.clip(seqs.losses[slots], patience, _MOST_PATIENT)
        upto = self.goal(seqs.n_out[slots], patient, seqs.max_out[slots])
        return int(np.maximum(-(-upto // self.page_size) - self.kv.n_pages[seqs.tip[slots]], 0).sum())
