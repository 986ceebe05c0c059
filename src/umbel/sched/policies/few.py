"""The longest cached prefix first, but only while few rows wait: SGLang's releases, whose search is linear in these."""

from __future__ import annotations

import numpy as np

from umbel.cache.tree import KVTree
from umbel.sched.policies.longest_prefix import Ints, LongestPrefix
from umbel.sched.request_table import RequestTable
from umbel.sched.waiting import Waiting

FEW = 128


class LongestPrefixOfFew(LongestPrefix):
    """As LongestPrefix while at most `FEW` samples wait, preempted ones counted; in order while there are more."""

    few = FEW

    def __init__(self, kv: KVTree, requests: RequestTable):
        super().__init__(kv, requests)
        self._new = 0  # samples that have never started

    def extend(self, order: Ints, samples_per_row: Ints, first_sample: Ints | None = None) -> None:
        """Add rows, whose nodes are in the forest already."""
        super().extend(order, samples_per_row, first_sample)
        self._new += int(np.sum(samples_per_row[order]))

    def _first_new(self) -> int | None:
        many = self._new + len(self._preempted) > self.few
        return Waiting._first_new(self) if many else super()._first_new()

    def _leave(self, rank: int) -> None:
        super()._leave(rank)
        self._new -= 1
