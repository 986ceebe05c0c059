"""What rows take one after the other, without a step being looked at: for clusters of a million rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.ir.forest import Forest
from umbel.ir.plan import Plan
from umbel.plan.deal.fit import token_prices

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RowPrices:
    """Seconds of rows that follow each other, at the plan's price of a token computed and of one drawn.

    A row computes the runs of its path that the row before it did not have, and its answers; a row that another one
    answers takes nothing.

    `forest`, `same_as`: as in the plan.
    `path_tokens`: `[nodes]`, tokens of a run with all above it.
    `new_tokens`: `[rows]`, of the runs that the walk of the forest meets first at that row.
    `place`: `[rows]`, where a row stands in that walk (-1: it does not).
    `answer`: `[rows]`, seconds of its answers.
    `token`: seconds of a token computed.
    """

    forest: Forest
    same_as: Ints
    path_tokens: Ints
    new_tokens: Ints
    place: Ints
    answer: Floats
    token: float

    @classmethod
    def of(cls, plan: Plan, samples: Ints, lengths: Ints) -> RowPrices:
        """The prices by which the plan is dealt out, for answers of these lengths (`[rows]`, of each of `samples`)."""
        forest, rows = plan.forest, len(plan.same_as)
        token, drawn = token_prices(plan.estimates.curve)
        run = forest.end - forest.start
        planned = float(run.sum() * token + (samples * plan.lengths)[forest.order].sum() * drawn)
        scale = plan.estimates.seconds[1] / planned if planned else 1.0
        ends = np.bincount(forest.leaf[forest.order], minlength=forest.n_nodes)
        first = np.cumsum(ends) - ends  # place in the walk of each node's first row
        place, new = np.full(rows, -1), np.zeros(rows, np.int64)
        place[forest.order] = np.arange(len(forest.order))
        new[forest.order] = np.bincount(first, run, len(forest.order)).astype(np.int64)
        return cls(forest, plan.same_as, forest.end, new, place, samples * lengths * (drawn * scale), token * scale)

    @property
    def whole(self) -> float:
        """Seconds of all rows in the order of the walk: every run once."""
        order = self.forest.order
        return float(self.new_tokens.sum()) * self.token + float(self.answer[order].sum())

    def tokens(self, rows: Ints, last: int) -> Ints:
        """Prompt tokens that rows compute (`[rows]`) when they follow each other, and row `last` (-1: none).
        Rows that are alike are computed once."""
        own, found = self.own(rows), np.zeros(len(rows), np.int64)
        mine = self.same_as[rows[own]]
        before = np.concatenate([[last], mine[:-1]])
        follows = (before >= 0) & (self.place[mine] == self.place[before] + 1)
        computed = self.new_tokens[mine]
        for i in np.flatnonzero(~follows).tolist():
            computed[i] = self.path_tokens[self.forest.leaf[mine[i]]] - self._common(int(mine[i]), int(before[i]))
        found[own] = computed
        return found

    def own(self, rows: Ints) -> NDArray[np.bool_]:
        """Which rows are answered for themselves: the first of those that are alike (`[rows]`)."""
        first = np.unique(self.same_as[rows], return_index=True)[1]
        found = np.zeros(len(rows), bool)
        found[first] = True
        return found

    def _common(self, row: int, other: int) -> int:
        """Tokens of the runs that two rows share (`other` may be -1: no row)."""
        if other < 0:
            return 0
        node, leaf, parent = int(self.forest.leaf[row]), int(self.forest.leaf[other]), self.forest.parent
        while node >= 0 and not node <= leaf < self.forest.subtree_end[node]:
            node = int(parent[node])
        return int(self.path_tokens[node]) if node >= 0 else 0
