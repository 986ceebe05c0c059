"""Tenants share the machine evenly, whatever they ask for: the virtual token counter (VTC, arXiv 2401.00588).

Each tenant has a counter of the tokens that it was served, and the one with the lowest is next. Of two tenants that
always have rows waiting, none is served more than the other by more than twice the larger of a prompt and all answers
that run at once. One that had nothing to ask begins where the others are: what it left is not saved up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from umbel.cache.tree import KVTree
from umbel.sched.policies.lines import Lines
from umbel.sched.request_table import RequestTable

Ints = NDArray[np.int64]

PROMPT, DRAWN = 1.0, 2.0  # what a token of a prompt, and one of an answer, counts


class Fair(Lines):
    """A line for each tenant; within a line, plan order. `served` are the counters by tenant."""

    def __init__(self, kv: KVTree, requests: RequestTable):
        super().__init__(kv, requests)
        self.served: dict[int, float] = {}
        self._last = 0  # the tenant of the sample that started last

    def line(self, row: int) -> int:
        """The row's tenant, which is lifted to those that wait if it does not."""
        tenant = self.requests.tenant.item(row)
        waiting = {line for _, line in self.lines()}
        if tenant not in waiting:
            floor = min((self.served[line] for line in waiting), default=self.served.get(self._last, 0.0))
            self.served[tenant] = max(self.served.get(tenant, 0.0), floor)
        return tenant

    def pick(self, lines: Sequence[int]) -> int:
        """The tenant that was served least; of several, the first that came."""
        return min(lines, key=lambda tenant: (self.served[tenant], tenant))

    def take(self, rank: int) -> None:
        """A sample starts: its prompt is charged, once."""
        row, is_new = self.rows[rank], self.waits(rank)
        super().take(rank)
        if is_new:
            self._last = self.requests.tenant.item(row)
            self.served[self._last] += PROMPT * self.requests.prompt_len(row)

    def learn(self, rows: Ints, tokens: Ints) -> None:
        """Samples of these rows have drawn so many tokens."""
        tenants, place = np.unique(self.requests.tenant[rows], return_inverse=True)
        for tenant, count in zip(tenants.tolist(), np.bincount(place, tokens).tolist(), strict=True):
            self.served[tenant] += DRAWN * count
